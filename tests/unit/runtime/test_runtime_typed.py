"""The package says that it is typed: who writes a plugin has it checked against our interfaces."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
DRIVER = """
from typing import ClassVar

from edgesite.mapper import Device, DeviceState, Driver, Host, Property, Value


class Furnace:
    protocol: ClassVar[str] = "furnace"

    def __init__(self, device: Device, host: Host) -> None: ...
    async def connect(self) -> None: ...
    async def read(self, prop: Property) -> Value:
        return prop.{member}
    async def write(self, prop: Property, value: Value) -> None: ...
    async def health(self) -> DeviceState:
        return DeviceState.ONLINE


made: type[Driver] = Furnace
"""


def test_a_plugin_is_checked_against_our_types(tmp_path: Path) -> None:
    venv.create(tmp_path / "env", symlinks=True)
    python = tmp_path / "env/bin/python"
    (site,) = (tmp_path / "env/lib").glob("python*/site-packages")
    (site / "edgesite").symlink_to(ROOT / "edgesite")  # as `pip install edgesite` puts it there
    for member, wrong in (("name", ""), ("nmae", '"Property" has no attribute "nmae"')):
        # Not one file twice: mypy takes one of the same size and second for the one that it has checked.
        (tmp_path / f"furnace_{member}.py").write_text(DRIVER.format(member=member))
        mypy = [
            sys.executable,
            "-m",
            "mypy",
            "--python-executable",
            str(python),
            "--cache-dir",
            str(tmp_path / "cache"),
        ]
        done = subprocess.run(
            [*mypy, f"furnace_{member}.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )
        assert wrong in done.stdout if wrong else done.returncode == 0, done.stdout + done.stderr


def test_the_wheel_holds_the_mark() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "py.typed" in project["tool"]["setuptools"]["package-data"]["edgesite"]
    assert (ROOT / "edgesite/py.typed").is_file()
