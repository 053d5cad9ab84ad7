"""Finds plugins and calls their hooks; the only place that touches pluggy.

A plugin that fails to import, misspells a hook, or raises in one is refused by name and reason and stops nobody.

State   Which plugins were loaded and refused, per `PluginHost`; nothing global.
"""

from __future__ import annotations

import inspect
import logging
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pluggy

from edgesite import hookspecs
from edgesite.context import Section, Settings

if TYPE_CHECKING:
    from edgesite.context import Module
    from edgesite.hookspecs import (
        Admission,
        Command,
        ConfigSection,
        DriverFactory,
        MetaServerExtension,
        RuntimeFactory,
    )
    from edgesite.kube.resources import Resource

__all__ = [
    "PLUGINS_DIR",
    "PluginHost",
    "WrongAbi",
    "abi_problem",
    "add_places",
    "discover",
    "plugin_places",
    "plugins_dir",
]

logger = logging.getLogger(__name__)
PLUGINS_DIR: Final = "/usr/lib/kubeedge/plugins"  #: where a frozen program looks for vendors' wheels, unpacked
_OURS: Final = re.compile(r"edgesite\s*\[([^\]]*)\]")
_ABI: Final = re.compile(r"\bplugin-abi-(\d{1,6})\b")


class WrongAbi(ImportError):
    """A plugin that was made for other hooks than this program has."""


def plugins_dir() -> Path | None:
    """The folder where vendors' wheels are, unpacked; None for a program that has its plugins by pip."""
    name = os.environ.get("EDGESITE_PLUGINS_DIR") or (PLUGINS_DIR if getattr(sys, "frozen", False) else "")
    return Path(name) if name else None


def plugin_places(folder: Path | None = None) -> list[Path]:
    """The folders to import from: the plugins' folder itself and those in it, as far as each holds a distribution."""
    folder = folder or plugins_dir()
    if folder is None or not _is_trusted(folder):
        return []
    inside = (Path(one.path) for one in os.scandir(folder) if one.is_dir() and not one.name.startswith("."))
    return [one for one in [folder, *sorted(inside)] if any(one.glob("*.dist-info"))]


def add_places() -> None:
    """Let plugins be imported."""
    for place in map(str, plugin_places()):
        if place not in sys.path:
            sys.path.append(place)  # appended, so that nothing there can shadow ours


def _is_trusted(folder: Path) -> bool:
    """Whether nobody but root and who runs this may put code there."""
    try:
        found = folder.stat()
    except OSError:
        return False
    if found.st_mode & stat.S_IWOTH or found.st_uid not in (0, os.geteuid()):
        logger.error("plugins in %s are not loaded: others than root may write there", folder)
        return False
    return True


def discover() -> list[EntryPoint]:
    """Return the entry points of all installed plugins, ours first, then vendors' by name."""
    add_places()
    found = {point.name: point for point in reversed(list(entry_points(group=hookspecs.GROUP)))}
    return sorted(found.values(), key=lambda point: (not _is_ours(point), point.name))


def abi_problem(requires: Iterable[str], *, declared: bool = False) -> str:
    """Why a distribution with these requirements does not fit our hooks; "" if it does. ``declared``: it must say for which it is."""
    found = {int(number) for one in requires if (extras := _OURS.match(one)) for number in _ABI.findall(extras[1])}
    if hookspecs.ABI in found or (not found and not declared):
        return ""
    wanted = f"needs plugin ABI {max(found)}" if found else "does not say for which plugin ABI it is made"
    return f"{wanted}; this program has {hookspecs.ABI} (edgesite[plugin-abi-{hookspecs.ABI}] among its requirements)"


def _is_ours(point: EntryPoint) -> bool:
    return point.value.startswith("edgesite.")


class PluginHost:
    """Loaded plugins. Every hook call is guarded: the answer of a plugin that raises is left out, and it is refused."""

    def __init__(self, points: Iterable[EntryPoint]) -> None:
        self.refused: dict[str, str] = {}  #: plugin or module → reason
        self._origin: dict[str, str] = {}
        self._manager = pluggy.PluginManager(hookspecs.NAME)
        self._manager.add_hookspecs(hookspecs.Specs)
        for point in points:
            self._load(point)

    def _load(self, point: EntryPoint) -> None:
        try:
            if not _is_ours(point) and (problem := abi_problem((point.dist and point.dist.requires) or ())):
                raise WrongAbi(problem)
            plugin = point.load()
            if inspect.isclass(plugin):
                plugin = plugin()
            self.register(plugin, point.name, _origin(point))
        except Exception as exc:  # whatever a plugin raises while it is imported is its own fault
            self.refuse(point.name, exc, _origin(point))

    def register(self, plugin: object, name: str, origin: str = "") -> None:
        """Add a plugin object. Raises ValueError for a misspelt hook or a name already taken."""
        self._manager.register(plugin, name)
        try:
            self._manager.check_pending()
        except pluggy.PluginValidationError as exc:
            self._manager.unregister(name=name)
            raise ValueError(str(exc)) from None
        self._origin[name] = origin

    def refuse(self, name: str, exc: BaseException, origin: str = "") -> None:
        """Remember and say that something a plugin brought is not used."""
        self.refused[name] = f"{type(exc).__name__}: {exc}"
        self._origin.setdefault(name, origin)
        logger.error("plugin %s is refused: %s", name, self.refused[name])

    def loaded(self) -> Mapping[str, str]:
        """Plugins in use, by name, with the distribution that each came from."""
        return {name: origin for name, origin in self._origin.items() if name not in self.refused}

    def objects(self) -> list[tuple[str, object]]:
        """The plugins in use, by name, as they were registered."""
        return [(name, self._manager.get_plugin(name)) for name in self.loaded()]

    def only(self, name: str) -> PluginHost:
        """A host with just this one of the loaded plugins, to see what it brings."""
        alone = PluginHost(())
        alone.register(self._manager.get_plugin(name), name, self.origin(name))
        return alone

    def origin(self, name: str) -> str:
        return self._origin.get(name, "")

    def modules(self, settings: Settings) -> list[type[Module]]:
        return self._joined("edgesite_modules", _check_module, settings=settings)

    def commands(self) -> list[Command]:
        return self._joined("edgesite_commands", None)

    def config_sections(self) -> list[ConfigSection]:
        return self._joined("edgesite_config_sections", None)

    def admission(self, settings: Settings) -> list[Admission]:
        return self._joined("edgesite_admission", None, settings=settings)

    def resources(self) -> list[Resource]:
        return self._joined("edgesite_resources", None)

    def metaserver(self, settings: Section) -> list[MetaServerExtension]:
        return self._joined("edgesite_metaserver", None, settings=settings)

    def runtime(self, name: str, config: Section) -> RuntimeFactory | None:
        """The maker of a pod runtime; vendors are asked before us."""
        return self._first("edgesite_runtime", name=name, config=config)  # type: ignore[no-any-return]

    def mapper(self, protocol: str) -> DriverFactory | None:
        """The driver of a protocol's devices; vendors are asked before us."""
        return self._first("edgesite_mapper", protocol=protocol)  # type: ignore[no-any-return]

    def implements(self, hook: str) -> bool:
        """Whether a plugin in use has this hook."""
        return bool(self._implementations(hook))

    def _first(self, hook: str, **arguments: Any) -> Any:
        for plugin, function, names in reversed(self._implementations(hook)):
            try:
                if made := function(**_only(names, arguments)):
                    return made
            except Exception as exc:
                self.refuse(plugin, exc)
        return None

    def _joined(self, hook: str, check: Callable[[Any], None] | None, **arguments: Any) -> list[Any]:
        answers: list[Any] = []
        for plugin, function, names in self._implementations(hook):
            try:
                answer = list(function(**_only(names, arguments)) or ())
                if check:
                    for one in answer:
                        check(one)
            except Exception as exc:
                self.refuse(plugin, exc)
            else:
                answers.extend(answer)
        return answers

    def _implementations(self, hook: str) -> list[tuple[str, Callable[..., Any], tuple[str, ...]]]:
        """In the order of registration: ours first."""
        found = getattr(self._manager.hook, hook).get_hookimpls()
        order = {name: index for index, name in enumerate(self._origin)}
        kept = [one for one in found if one.plugin_name not in self.refused]
        return [
            (one.plugin_name, one.function, one.argnames)
            for one in sorted(kept, key=lambda one: order.get(one.plugin_name, 0))
        ]


def _only(names: Iterable[str], arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: arguments[name] for name in names}


def _origin(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def _check_module(module: Any) -> None:
    for name in ("name", "roles", "needs", "section", "run", "enabled"):
        if not hasattr(module, name):
            raise TypeError(f"{getattr(module, '__name__', module)} is no module: it has no {name!r}")
