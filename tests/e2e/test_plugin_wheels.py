"""Wheels of vendors in the frozen program: installed by its own command, loaded, configured; one with an extension in C, one that is damaged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
from e2e_bundle import frozen_bundle
from e2e_site import PROGRAM
from e2e_wheels import dependency_wheels

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT / "tests" / "integration" / "cli"))
from wheelmaker import ABI, make_wheel  # noqa: E402

pytestmark = pytest.mark.timeout(400)
#: Distributions of this repository that are plugins: the example, mappers, whatever comes.
OURS = sorted(one.parent.name for one in (PROJECT / "plugins").glob("*/pyproject.toml"))
TAG = f"cp{sys.version_info[0]}{sys.version_info[1]}"
EXTENSION = """
#include <Python.h>
static PyObject *twice(PyObject *self, PyObject *number) { return PyNumber_Add(number, number); }
static PyMethodDef methods[] = {{"twice", twice, METH_O, "twice the number"}, {NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "acme_native", NULL, -1, methods};
PyMODINIT_FUNC PyInit_acme_native(void) { return PyModule_Create(&module); }
"""
PLUGIN = b"""
from edgesite.hookspecs import Command, impl

def run(options):
    import acme_native, acme_pure
    print(acme_pure.WORD, acme_native.twice(options.number))
    return 0

@impl
def edgesite_commands():
    return [Command("twice", "double a number in C", lambda parser: parser.add_argument("number", type=int), run)]
"""


@pytest.fixture(scope="module", params=["package", "frozen"])
def program(request: pytest.FixtureRequest) -> Path:
    return PROGRAM if request.param == "package" else frozen_bundle() / "edgesite"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plugin in C with a pure dependency beside it, and the plugins of this repository, as vendors build them."""
    place = tmp_path_factory.mktemp("wheels")
    source, built = place / "acme_native.c", place / "acme_native.so"
    source.write_text(EXTENSION)
    include = sysconfig.get_paths()["include"]
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", f"-I{include}", str(source), "-o", str(built)], check=True)
    suffix = f"acme_native.cpython-{TAG[2:]}-{os.uname().machine}-linux-gnu.so"
    tag = f"{TAG}-{TAG}-linux_{os.uname().machine}"
    files = {"acme/__init__.py": b"", "acme/plugin.py": PLUGIN, suffix: built.read_bytes()}
    make_wheel(place, files=files, tag=tag, requires=[ABI, "acme-pure>=1"])
    make_wheel(place, "acme-pure", files={"acme_pure.py": b"WORD = 'twice'\n"}, entry_points={}, requires=())
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    for name in OURS:
        source = shutil.copytree(PROJECT / "plugins" / name, place / "sources" / name)
        subprocess.run(
            [*pip, "--wheel-dir", str(place), str(source)],
            check=True,
            env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        )
    return place


class Installed:
    """A program with a folder of plugins."""

    def __init__(self, program: Path, folder: Path) -> None:
        self._program, self.folder = program, folder

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        argv = [str(self._program), *map(str, arguments)]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        environment = {**kept, "EDGESITE_PLUGINS_DIR": str(self.folder)}
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=environment)

    def __call__(self, *arguments: object) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def installed(program: Path, tmp_path: Path) -> Installed:
    return Installed(program, tmp_path / "plugins")


def test_a_plugin_in_c_brings_its_dependency(installed: Installed, wheels: Path) -> None:
    native = next(wheels.glob("acme-1.0-*linux*.whl"))
    alone = installed.run("plugins", "install", native)
    assert (alone.returncode, "acme needs acme-pure>=1: give its wheel too" in alone.stderr) == (1, True)
    said = installed("plugins", "install", native, wheels / "acme_pure-1.0-py3-none-any.whl")
    assert said.startswith(f"installed acme 1.0 in {installed.folder}")
    assert installed("twice", "21") == "twice 42\n"
    rows = {one["name"]: one for one in json.loads(installed("plugins", "list", "-o", "json"))}
    assert (rows["acme"]["state"], rows["acme"]["provides"]) == ("loaded", ["command twice"])
    assert installed("plugins", "remove", "acme").startswith("removed acme")
    assert installed.run("twice", "21").returncode == 2


@pytest.mark.parametrize("name", OURS)
def test_each_plugin_of_ours_is_installed_and_loaded(
    installed: Installed, wheels: Path, tmp_path: Path, name: str
) -> None:
    wheel = next(wheels.glob(f"{name.replace('-', '_')}-*.whl"))
    requires = tomllib.loads((PROJECT / "plugins" / name / "pyproject.toml").read_text())["project"]["dependencies"]
    offered = json.loads(installed("plugins", "abi", "-o", "json"))["distributions"]
    installed("plugins", "install", wheel, *dependency_wheels(requires, offered, tmp_path))
    listed = json.loads(installed("plugins", "list", "-o", "json"))
    rows = [one for one in listed if one["from"].startswith(f"{name} ")]
    assert rows
    assert {one["state"] for one in rows} == {"loaded"}
    assert all(one["provides"] for one in rows)


def test_the_example_is_installed_and_its_settings_are_checked(
    installed: Installed, wheels: Path, tmp_path: Path
) -> None:
    installed("plugins", "install", next(wheels.glob("edgesite_example-*.whl")))
    assert installed("greet", "world").endswith("Hello, world!\n")
    setting = "edge.modules.greeter.intervalSeconds=-1"
    done = installed.run("up", "--data-dir", tmp_path / "data", "--set", setting)
    assert (done.returncode, "edge.modules.greeter.intervalSeconds" in done.stderr) == (2, True)


def test_the_program_says_what_it_offers_and_refuses_the_rest(
    installed: Installed, wheels: Path, tmp_path: Path
) -> None:
    offered = json.loads(installed("plugins", "abi", "-o", "json"))
    assert (offered["abi"], offered["requirement"]) == (1, "edgesite[plugin-abi-1]")
    assert f"{TAG}-{TAG}-linux_{os.uname().machine}" in offered["tags"]
    assert {"anyio", "pluggy", "edgesite"} <= offered["distributions"].keys()
    shadows = make_wheel(tmp_path, "shadow", files={"anyio/__init__.py": b"raise RuntimeError\n", "shadow.py": b""})
    done = installed.run("plugins", "install", shadows)
    assert (done.returncode, "brings anyio, which edgesite's own bundle has" in done.stderr) == (1, True)
    damaged = make_wheel(tmp_path, "damaged", tampered={"damaged/plugin.py": b"VALUE = 3\n"})
    done = installed.run("plugins", "install", damaged)
    assert (done.returncode, "is not what RECORD says" in done.stderr) == (1, True)
    coming = make_wheel(tmp_path, "coming", requires=["edgesite[plugin-abi-2]"])
    done = installed.run("plugins", "install", coming)
    assert (done.returncode, "needs plugin ABI 2; this program has 1" in done.stderr) == (1, True)
    assert not any(one for one in installed.folder.glob("[!.]*"))
