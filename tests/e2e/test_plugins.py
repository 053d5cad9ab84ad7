"""Plugins of third parties: installed beside edgesite with pip, found, used; broken ones named and kept from harm."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from e2e_site import PROGRAM, Site, eventually

EXAMPLE = Path(__file__).resolve().parents[2] / "plugins" / "edgesite-example"
#: A distribution whose plugins go wrong in every way: at import, in a hook, with a hook that does not exist, while running.
TROUBLE = {
    "pyproject.toml": """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"
[project]
name = "trouble"
version = "1.0"
[project.entry-points."edgesite.plugins"]
no-import = "trouble.no_import"
no-hook = "trouble.no_hook"
bad-hook = "trouble.bad_hook"
crasher = "trouble.crasher"
[tool.setuptools]
packages = ["trouble"]
""",
    "trouble/__init__.py": "",
    "trouble/no_import.py": "import a_module_that_nobody_has\n",
    "trouble/no_hook.py": """
from edgesite.hookspecs import impl
@impl
def edgesite_modlues():
    return []
""",
    "trouble/bad_hook.py": """
from edgesite.hookspecs import impl
@impl
def edgesite_modules():
    raise RuntimeError("the vendor's own trouble")
""",
    "trouble/crasher.py": """
from edgesite.hookspecs import impl
class Crasher:
    name = "crasher"
    roles = frozenset({"cloud"})
    needs = frozenset()
    section = ""
    def enabled(self, settings):
        return True
    async def run(self, ctx):
        ctx.ready()
        await ctx.clock.sleep(0.1)
        raise RuntimeError("crashed on purpose")
@impl
def edgesite_modules():
    return [Crasher]
""",
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which both distributions are installed, by pip, beside edgesite."""
    place = tmp_path_factory.mktemp("plugins")
    shutil.copytree(EXAMPLE, place / "example", ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    for name, text in TROUBLE.items():
        (file := place / "trouble" / name).parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    target = place / "site-packages"
    subprocess.run(
        [*pip, "--target", str(target), str(place / "example"), str(place / "trouble")],
        check=True,
        capture_output=True,
        timeout=100,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    return {"PYTHONPATH": str(target)}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, installed: dict[str, str]) -> Iterator[Site]:
    with closing(Site(tmp_path_factory.mktemp("site"))) as made:
        made.start("--set", "edge.modules.greeter.greeting=Servus", env=installed)
        yield made


def edgesite(installed: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(PROGRAM), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **installed}
    )


def test_they_are_listed_with_where_from_and_why_not(installed: dict[str, str]) -> None:
    rows = {one["name"]: one for one in json.loads(edgesite(installed, "plugins", "-o", "json").stdout)}
    example = rows["example"]
    assert (example["state"], "edgesite-example" in example["from"]) == ("loaded", True)
    assert {"module greeter", "command greet", "config edge.modules.greeter", "admission require-tags"} <= set(
        example["provides"]
    )
    assert "module apiserver" in rows["apiserver"]["provides"]
    assert "a_module_that_nobody_has" in rows["no-import"]["state"]
    assert "edgesite_modlues" in rows["no-hook"]["state"]
    for name in ("no-import", "no-hook"):
        assert rows[name]["state"].startswith("refused: ")
        assert "trouble" in rows[name]["from"]
    text = edgesite(installed, "plugins").stdout
    assert text.splitlines()[0].split() == ["NAME", "FROM", "STATE", "PROVIDES"]


def test_a_command_of_a_plugin(installed: dict[str, str]) -> None:
    assert edgesite(installed, "greet", "world").stdout.endswith("Hello, world!\n")
    assert "greet" in edgesite(installed, "--help").stdout
    assert edgesite({}, "greet", "world").returncode == 2  # not installed, no such command


def test_its_configuration_is_checked(installed: dict[str, str], tmp_path: Path) -> None:
    for setting, said in (
        ("edge.modules.greeter.intervalSeconds=-1", "edge.modules.greeter.intervalSeconds"),
        ("edge.modules.greeter.nonsense=1", "edge.modules.greeter.nonsense: unknown field"),
    ):
        done = edgesite(installed, "up", "--data-dir", str(tmp_path), "--set", setting)
        assert done.returncode == 2
        assert said in done.stderr


def test_its_module_runs_and_is_part_of_health(site: Site) -> None:
    eventually(lambda: "Servus from node node1" in site.log(), "the greeting in the log")
    kubectl = site.kubectl()
    metrics = "/api/v1/nodes/node1/proxy/metrics"
    node = eventually(lambda: kubectl("get", "--raw", metrics), "the node's tunnel, which opens soon after it is Ready")
    assert "example_greetings_total 1.0" in node
    assert 'edgesite_module_ready{module="greeter"} 1.0' in node


def test_its_admission_refuses_with_a_reason(site: Site) -> None:
    kubectl = site.kubectl()
    kubectl("create", "namespace", "edgesite-example-strict")
    strict = kubectl.within("edgesite-example-strict")
    said = strict.fails("run", "untagged", "--image=busybox", "--command", "--", "sleep", "1000")
    assert "container untagged: image busybox has no tag" in said
    strict("run", "tagged", "--image=busybox:1", "--command", "--", "sleep", "1000")
    kubectl("run", "elsewhere", "--image=busybox", "--command", "--", "sleep", "1000")


def test_what_is_broken_harms_nobody(site: Site) -> None:
    eventually(
        lambda: site.log().count("crasher crashed: RuntimeError: crashed on purpose") >= 2, "a crash and another start"
    )
    for line in (
        "plugin no-import is refused: ModuleNotFoundError",
        "plugin no-hook is refused",
        "the vendor's own trouble",
    ):
        assert line in site.log()
    kubectl = site.kubectl()
    assert 'edgesite_module_crashes_total{module="crasher"}' in kubectl("get", "--raw", "/metrics")
    kubectl("create", "configmap", "works", "--from-literal=a=b")
    verbose = eventually(lambda: _failing(site), "the crash in /readyz?verbose")
    assert "[+]module/apiserver ok" in verbose
    assert "[+]module/scheduler ok" in verbose


def _failing(site: Site) -> str:
    text = site.kubectl().run("get", "--raw", "/readyz?verbose").stderr
    return text if "[-]module/crasher failed" in text else ""
