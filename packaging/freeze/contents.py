"""What goes into the bundle: the program, every bundled distribution whole, and the standard library but for what is named here.

The standard library and the bundled distributions are part of what plugins may count on (docs/plugins.md). A plugin cannot bring its own copy
of a bundled distribution, so that a half of one would be worse than none.
"""

from __future__ import annotations

import importlib.util
import pkgutil
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Final

__all__ = ["EXCLUDED", "LINKS", "bundled_packages", "modules_of", "standard_library"]

#: The names that the program answers to besides its own.
LINKS: Final = ("cloudcore", "edgecore", "iptablesmanager", "keadm")

#: Left out of the standard library: its own tests, what needs a screen, the installer of pip (with its wheels), and NIS (with Kerberos).
_STDLIB_OUT: Final = frozenset(
    [
        "test",
        "idlelib",
        "nis",
        "tkinter",
        "turtle",
        "turtledemo",
        "ensurepip",
        "antigravity",
        "this",
        "xxlimited",
        "xxlimited_35",
        "xxsubtype",
        "_tkinter",
        "__phello__",
        "__hello__",
    ]
)
#: Left out of distributions: what they bring for test tools, type checkers and libraries that are not here.
EXCLUDED: Final = (
    *sorted(_STDLIB_OUT),
    "anyio._backends._trio",
    "anyio.pytest_plugin",
    "cryptography.hazmat.bindings._rust.test_support",
    "edgesite.kube.distil",
    "edgesite.testing",
    "kubernetes_validate",
    "pip",
    "prometheus_client.django",
    "prometheus_client.twisted",
    "pydantic.mypy",
    "pydantic.v1.mypy",
    "setuptools",
    "uvloop._testbase",
    "wheel",
)


def standard_library() -> list[str]:
    """Return the names of the standard library's modules that this interpreter has."""
    names = sorted(sys.stdlib_module_names - _STDLIB_OUT)
    return [module for name in names if not name.startswith(("_test", "_xx", "__")) for module in modules_of(name)]


def modules_of(top: str) -> list[str]:
    """Return a module and all below it but for what is excluded, found without importing any."""
    spec = importlib.util.find_spec(top)
    if spec is None:
        return []
    found = [top]
    if spec.submodule_search_locations:
        found += _below(list(spec.submodule_search_locations), f"{top}.")
    return found


def bundled_packages(distributions: list[str]) -> list[str]:
    """Return the top-level packages and modules of these distributions that may be imported."""
    names = set()
    for distribution in distributions:
        for file in metadata.files(distribution) or ():
            top = file.parts[0]
            if top.endswith((".dist-info", ".data", ".libs", ".pth")) or top in ("..", "__pycache__"):
                continue
            if len(file.parts) > 1 or top.endswith((".py", ".so")):
                names.add(top.split(".")[0])
    return sorted(names)


def _below(places: list[str], prefix: str) -> Iterator[str]:
    for module in pkgutil.iter_modules(places, prefix):
        last = module.name.rpartition(".")[2]
        if last in ("test", "tests", "__main__", "idle_test") or module.name in EXCLUDED:
            continue
        yield module.name
        if module.ispkg:
            yield from _below([f"{place}/{last}" for place in places], f"{module.name}.")
