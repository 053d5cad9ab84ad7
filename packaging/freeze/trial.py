"""Starts what was built in roots that have nothing but another system's C library: each name, a plugin in C, a site with a pod.

The systems are Debian's releases, of which each has another glibc. The one file needs zlib, too; the static file runs in a root with nothing
at all. Programs of another architecture run under qemu, which is slow: waits are long.

Errors  BuildFailed.
State   Roots in the cache, gone at the end.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from binaries import Release, unpack
from command import BuildFailed, inside, say
from contents import LINKS
from emulation import prepare
from interpreter import PYTHON
from layout import CACHE, PROJECT, Architecture, native
from mirror import MIRROR

sys.path.append(str(PROJECT))
from benchmarks import rig

__all__ = ["RELEASES", "into", "output", "plugin", "run", "same", "wait"]

#: Those that are tried when none is named.
RELEASES: Final = ("bullseye", "bookworm", "trixie")
_FOLDER: Final = "/usr/lib/kubeedge"
_STARTS_S: Final = 300
_POD_S: Final = 180
_PLUGIN: Final = {
    "pyproject.toml": """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "trial"
version = "1.0"
dependencies = ["edgesite[plugin-abi-1]"]
[project.entry-points."edgesite.plugins"]
trial = "trial"
[tool.setuptools]
py-modules = ["trial"]
ext-modules = [{ name = "trial_native", sources = ["trial_native.c"] }]
""",
    "trial.py": """
from edgesite.hookspecs import Command, impl

def run(options):
    import trial_native
    print("twice", trial_native.twice(options.number))
    return 0

@impl
def edgesite_commands():
    return [Command("twice", "double a number in C", lambda parser: parser.add_argument("number", type=int), run)]
""",
    "trial_native.c": """
#include <Python.h>
static PyObject *twice(PyObject *self, PyObject *number) { return PyNumber_Add(number, number); }
static PyMethodDef methods[] = {{"twice", twice, METH_O, "twice the number"}, {NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "trial_native", NULL, -1, methods};
PyMODINIT_FUNC PyInit_trial_native(void) { return PyModule_Create(&module); }
""",
}


def run(target: Architecture, releases: Sequence[str]) -> None:
    """Raises BuildFailed."""
    if not (target.dist / "lib").is_dir():
        raise BuildFailed(f"there is nothing in {target.dist}; build it first")
    if target != native():
        prepare(target)
    wheel = plugin(target)
    for release in releases:
        with tempfile.TemporaryDirectory(prefix=f"trial-{target.name}-", dir=CACHE) as scratch:
            root = Path(scratch)
            _make_system(root)
            version = _install("libc6", root, target, release)
            shutil.copytree(target.dist / "lib", root / "usr/lib", symlinks=True, dirs_exist_ok=True)
            shutil.copy(target.dist / "edgesite", root / "edgesite")
            shutil.copy(wheel, root / wheel.name)
            _try(root, f"{_FOLDER}/edgesite", wheel.name, f"{release}, glibc {version}: folder")
            _install("zlib1g", root, target, release)
            same("KubeEdge v", output(root, ["/edgesite", "--version"]))
            say(f"{release}: one file starts")
    with tempfile.TemporaryDirectory(prefix=f"trial-{target.name}-", dir=CACHE) as scratch:
        root = Path(scratch)
        (root / "proc").mkdir()
        shutil.copy(target.dist / "edgesite-static", root / "edgesite")
        shutil.copy(wheel, root / wheel.name)
        for name in LINKS:
            (root / name).symlink_to("edgesite")
        _try(root, "/edgesite", wheel.name, "empty root: static file")


def _try(root: Path, program: str, wheel: str, title: str) -> None:
    folder = program.rpartition("/")[0]
    same("KubeEdge v", output(root, [program, "--version"]))
    for name in LINKS:
        same(f"usage: {name}", output(root, [f"{folder}/{name}", "--help"]))
    output(root, [program, "plugins", "install", f"/{wheel}"])
    same("twice 42", output(root, [program, "twice", "21"]))
    say(f"{title} answers to its names and loads a plugin in C")
    ready_s, memory = _site(root, program)
    say(f"{title} runs a site: Ready after {ready_s:.1f} s, {memory / 1e6:.1f} MB resident, a pod came and went")


def _site(root: Path, program: str) -> tuple[float, int]:
    """Run a site with a pod. Raises BuildFailed."""
    address = f"127.0.0.1:{rig.free_port()}"
    argv = [*into(root), program, "up", "--data-dir", "/data", "--node-name", "trial", "--api-address", address]
    try:
        with rig.Program(*argv[1:], "--runtime", "process", *rig.UP_PORTS, program=Path(argv[0])) as site:
            ready_s, _ = site.wait_line("Ready after", _STARTS_S)
            with rig.Api(root / "data" / "admin.kubeconfig") as api:
                _pod(api, [program, "version"])
            (started,) = Path(f"/proc/{site.pid}/task/{site.pid}/children").read_text().split()
            memory = rig.usage(int(started)).rss
            os.kill(int(started), signal.SIGTERM)  # whom `unshare` waits for
            site.process.wait(_STARTS_S)
        if site.process.returncode:
            raise BuildFailed(f"the site ended with code {site.process.returncode}")
        return ready_s, memory
    except rig.BenchmarkFailed as exc:
        raise BuildFailed(str(exc)) from None


def _pod(api: rig.Api, command: list[str]) -> None:
    """Run a pod to its end and delete it. Raises BenchmarkFailed, BuildFailed."""
    path = "/api/v1/namespaces/default/pods"
    api.call("POST", path, rig.pod("once", "none", command, restartPolicy="Never"))
    wait(lambda: api.call("GET", f"{path}/once")["status"].get("phase") == "Succeeded", "the pod's success")
    api.call("DELETE", f"{path}/once")
    wait(lambda: not api.call("GET", path)["items"], "the pod's end")


def wait(done: Any, what: str) -> None:
    """Ask until it is true. Raises BuildFailed."""
    deadline = time.monotonic() + _POD_S
    while not done():
        if time.monotonic() > deadline:
            raise BuildFailed(f"{what} was waited for in vain")
        time.sleep(0.5)


def _make_system(root: Path) -> None:
    for name in ("lib", "lib64", "bin", "sbin"):
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for name in ("proc", "tmp"):
        (root / name).mkdir()


def _install(name: str, root: Path, target: Architecture, release: str) -> str:
    """Unpack one of a release's packages and nothing else; return its version. Raises BuildFailed."""
    found = Release(target.debian, CACHE / "debian", [(MIRROR, release)])
    package, path = found.newest(name)
    unpack(path, root)
    return package.version


def plugin(target: Architecture) -> Path:
    """Return a wheel with an extension in C, as a vendor makes it. Raises BuildFailed."""
    place = target.root / "build" / "trial"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for name, text in _PLUGIN.items():
        (place / name).write_text(text)
    python = "/build/env/bin/python" if (target.root / "build/env").is_dir() else PYTHON
    pip = [python, "-m", "pip", "--isolated", "--disable-pip-version-check", "-q"]
    inside(
        target.root,
        [*pip, "wheel", "--no-index", "--no-deps", "--no-build-isolation", "-w", "/build/trial", "/build/trial"],
    )
    (wheel,) = place.glob("*.whl")
    return wheel


def into(root: Path) -> list[str]:
    """Return the words before a command by which it runs in a root, and ends with what it starts."""
    wrapper = shutil.which("unshare") or "unshare"
    return [wrapper, "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", f"--root={root}", "--"]


def output(root: Path, argv: Sequence[str]) -> str:
    """Run a program in a root and return what it prints. Raises BuildFailed."""
    done = subprocess.run(
        [*into(root), *argv], env={"PATH": "/usr/sbin:/usr/bin"}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BuildFailed(f"{' '.join(argv)} ended with code {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def same(begin: str, text: str) -> None:
    """Raises BuildFailed."""
    if not text.startswith(begin):
        raise BuildFailed(f"{text!r} does not begin with {begin!r}")
