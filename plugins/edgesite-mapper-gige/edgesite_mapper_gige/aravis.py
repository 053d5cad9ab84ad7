"""Finds Aravis, the library for GenICam cameras, and PyGObject, by which Python speaks to it.

PyGObject may be installed beside this package, or be the distribution's (Debian's python3-gi): that is taken too if it was built for this
version of Python, even from within a virtual environment. Nothing else of the distribution's Python packages gets onto the path.

Errors  DriverError, which says what to install.
Source  PyGObject's guide (repositories, versions).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any, Final

from edgesite.mapper import DriverError

__all__ = ["load"]

PLACES: Final = ("/usr/lib/python3/dist-packages", "/usr/lib64/python{0}.{1}/site-packages")
VERSION: Final = "0.8"
_HELP: Final = "GigE Vision cameras need Aravis 0.8 and PyGObject (Debian: gir1.2-aravis-0.8, python3-gi)"


def load() -> tuple[Any, Any]:
    """Return the namespaces Aravis and GLib. Blocking. Raises DriverError."""
    try:
        gi = _gi()
        gi.require_version("Aravis", VERSION)
        return importlib.import_module("gi.repository.Aravis"), importlib.import_module("gi.repository.GLib")
    except (ImportError, ValueError, AttributeError) as exc:
        raise DriverError(f"{_HELP}: {str(exc)[:200]}") from exc


def _gi() -> Any:
    """Raises ImportError."""
    try:
        return importlib.import_module("gi")
    except ImportError:
        places = [place.format(*sys.version_info) for place in PLACES]
        spec = PathFinder.find_spec("gi", places)
        if spec is None or spec.loader is None:
            raise
        module = importlib.util.module_from_spec(spec)
        _execute(module, spec.loader)
        return module


def _execute(module: ModuleType, loader: Any) -> None:
    """Raises ImportError: the package is for another version of Python."""
    sys.modules[module.__name__] = module
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[module.__name__]
        raise
