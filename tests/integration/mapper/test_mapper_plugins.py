"""The drivers that come as plugins: what their hooks answer, what they load before, and that the kit for vendors' plugins finds nothing."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import pytest

from edgesite.cli.main import main

#: Package → how devices name the protocol, and the library that must not be loaded before such a device comes.
PLUGINS = {
    "edgesite_mapper_ble": ("bluetooth", "bleak"),
    "edgesite_mapper_gige": ("GigEVision", "gi"),
    "edgesite_mapper_modbus": ("modbus", "pymodbus"),
    "edgesite_mapper_opcua": ("opcua", "asyncua"),
}
_ASKED = """
import sys
from {package}.plugin import edgesite_mapper
assert edgesite_mapper("another") is None
assert not {{{library!r}, "anyio"}} & sys.modules.keys(), "loaded for nothing"
"""


@pytest.mark.parametrize("package", PLUGINS)
def test_a_hook_answers_for_its_protocol_and_loads_nothing_before(package: str) -> None:
    protocol, library = PLUGINS[package]
    hook = importlib.import_module(f"{package}.plugin").edgesite_mapper
    made = hook(protocol)
    assert made.protocol == protocol
    assert made is hook(protocol.upper())
    assert all(callable(getattr(made, name)) for name in ("connect", "read", "write", "health", "close"))
    code = _ASKED.format(package=package, library=library)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=60)


@pytest.mark.parametrize("package", PLUGINS)
def test_the_kit_for_plugins_finds_nothing(package: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "check", f"{package}.plugin"]) == 0, capsys.readouterr().out
