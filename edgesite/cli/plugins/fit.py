"""Whether wheels fit this program: Python, machine, plugin ABI, what they require, and that they cover nothing up.

Errors  Misfit: what does not fit, and what would help.
Source  Python packaging user guide: platform compatibility tags, dependency specifiers.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import machinery, metadata
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import sys_tags
from packaging.utils import canonicalize_name

from edgesite.hookspecs import ABI, GROUP
from edgesite.runtime.plugins import abi_problem, plugin_places

if TYPE_CHECKING:
    from edgesite.cli.plugins.wheelfile import Wheel

__all__ = ["Misfit", "bundled", "check"]

_SUFFIXES = tuple(machinery.all_suffixes())


class Misfit(ValueError):
    """A wheel that is well in itself, but not for this program or not beside what is installed."""


def check(wheels: Sequence[Wheel], folder: Path, replaced: str) -> None:
    """Check wheels that are to be installed together; the first is the plugin. ``replaced`` is the installation that they take the place
    of. Raises Misfit."""
    plugin = wheels[0]
    if not plugin.entry_points:
        raise Misfit(
            f"{plugin.path.name} is no plugin: it has no entry point of the group {GROUP}; give the plugin's wheel first"
        )
    names = [one.name for one in wheels]
    if twice := {name for name in names if names.count(name) > 1}:
        raise Misfit(f"two wheels of {min(twice)}")
    for one in wheels:
        _check_machine(one)
        if one.entry_points and (problem := abi_problem(one.requires, declared=True)):
            raise Misfit(f"{one.path.name}: {problem}")
    ours = bundled()
    _check_requirements(wheels, ours)
    _check_names(wheels, ours)
    _check_neighbours(wheels, folder, replaced)


def bundled() -> dict[str, str]:
    """The distributions of the program itself, with their versions: what plugins may count on and may not bring."""
    places = set(map(str, plugin_places()))
    paths = [one for one in sys.path if one not in places]
    return {canonicalize_name(one.name): one.version for one in metadata.distributions(path=paths) if one.name}


def _check_machine(wheel: Wheel) -> None:
    try:
        wanted = SpecifierSet(wheel.requires_python)
    except InvalidSpecifier:
        raise Misfit(f"{wheel.path.name}: Requires-Python {wheel.requires_python!r} cannot be read") from None
    python = platform.python_version()
    if not wanted.contains(python, prereleases=True):
        raise Misfit(f"{wheel.path.name} is for Python {wanted}; this program has {python}")
    if wheel.tags.isdisjoint(sys_tags()):
        best = next(iter(sys_tags()))
        tags = ", ".join(sorted(map(str, wheel.tags)))
        raise Misfit(f"{wheel.path.name} is built for {tags}; here it would have to be {best} or more general")


def _check_requirements(wheels: Sequence[Wheel], ours: Mapping[str, str]) -> None:
    given = {one.name: one.version for one in wheels}
    for wheel in wheels:
        if wheel.name in ours:
            raise Misfit(f"{wheel.name} is part of edgesite ({ours[wheel.name]}): leave its wheel out")
        for text in wheel.requires:
            try:
                wanted = Requirement(text)
            except InvalidRequirement as exc:
                raise Misfit(f"{wheel.path.name}: requirement {text!r}: {exc}") from None
            if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
                continue
            name = canonicalize_name(wanted.name)
            found = given.get(name) or ours.get(name)
            if found is None:
                raise Misfit(
                    f"{wheel.name} needs {wanted.name}{wanted.specifier}: give its wheel too, behind the plugin's"
                )
            if not wanted.specifier.contains(found, prereleases=True):
                whose = "the wheel given" if name in given else "edgesite's own"
                raise Misfit(f"{wheel.name} needs {wanted.name}{wanted.specifier}; {whose} is {found}")


def _check_names(wheels: Sequence[Wheel], ours: Mapping[str, str]) -> None:
    """Nothing may be called as what the program has: ours would be found first, and the plugin would get what it does not know."""
    points = {point.name for point in metadata.entry_points(group=GROUP) if point.value.startswith("edgesite.")}
    for wheel in wheels:
        for name, value in wheel.entry_points.items():
            if name in points or value.startswith(("edgesite.", "edgesite:")) or value == "edgesite":
                raise Misfit(f"{wheel.path.name}: its entry point {name} = {value} is one of edgesite's own")
        for name in sorted(importable(wheel.files)):
            if owner := _owner(name):
                raise Misfit(f"{wheel.path.name} brings {name}, which {owner} has: it would never be found")


def importable(files: Iterable[str]) -> set[str]:
    """The modules that files make importable, as shallow as they are unambiguous: packages with an ``__init__``, modules, and what
    is in folders without one (which several distributions may share)."""
    names = list(files)
    packages = {one.rpartition("/")[0] for one in names if _stem(one.rpartition("/")[2]) == "__init__"}
    found = set()
    for name in names:
        *folders, last = name.split("/")
        if not _stem(last) or any("." in part or "-" in part for part in folders):
            continue
        for depth in range(1, len(folders) + 1):
            if "/".join(folders[:depth]) in packages:
                found.add(".".join(folders[:depth]))
                break
        else:
            found.add(".".join([*folders, _stem(last)]))
    return found


def _stem(file: str) -> str:
    """The name of the module in a file; "" if it holds none."""
    suffix = next((one for one in _SUFFIXES if file.endswith(one)), "")
    stem = file.removesuffix(suffix) if suffix else ""
    return stem if stem.isidentifier() else ""


def _owner(name: str) -> str:
    """Who has a module of that name already, or one that hides it; "" if nobody."""
    parts = name.split(".")
    if parts[0] in sys.stdlib_module_names or parts[0] in sys.builtin_module_names:
        return "the standard library"
    if parts[0] == "edgesite":
        return "edgesite"
    places = set(map(str, plugin_places()))
    search: Sequence[str] | None = [one for one in sys.path if one not in places]
    for depth in range(1, len(parts) + 1):
        spec = _find(".".join(parts[:depth]), search)
        if spec is None:
            return ""
        if spec.origin is not None and spec.loader is not None:
            return "edgesite's own bundle"
        search = list(spec.submodule_search_locations or ())
    return "edgesite's own bundle" if depth < len(parts) else ""


def _find(name: str, search: Sequence[str] | None) -> machinery.ModuleSpec | None:
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        spec: machinery.ModuleSpec | None = find(name, search) if find else None
        if spec is not None:
            return spec
    return None


def _check_neighbours(wheels: Sequence[Wheel], folder: Path, replaced: str) -> None:
    """What other installations bring must not be covered up, nor cover this."""
    given = {one.name: one.version for one in wheels}
    points = {name: one for one in wheels for name in one.entry_points}
    modules = {name: one for one in wheels for name in importable(one.files)}
    for place in plugin_places(folder):
        if place.parent == folder and place.name == replaced:
            continue
        for other in metadata.distributions(path=[str(place)]):
            name = canonicalize_name(other.name)
            if name in given:
                if given[name] != other.version:
                    raise Misfit(
                        f"{place.name} brings {name} {other.version}, this {given[name]}: one process has one of them"
                    )
                continue
            for point in other.entry_points.select(group=GROUP):
                if point.name in points:
                    raise Misfit(
                        f"the plugin {point.name} is there already, by {name} in {place.name}: remove that first"
                    )
            if clash := sorted(importable(map(str, other.files or ())) & modules.keys()):
                raise Misfit(f"{modules[clash[0]].path.name} brings {clash[0]}, as {name} in {place.name} does")


def abi_text() -> str:
    """The extra that a plugin for this program requires."""
    return f"edgesite[plugin-abi-{ABI}]"
