"""Settings that running modules take over, each those that it names in ``reloads`` (`edgesite.context.Module`).

A module that is started anew later gets them too: the role's settings are those of its start, with what was taken over since. Where a
module refuses, all of its members stay as they were.

Errors  None leave: a module that cannot reload is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgesite.context import Section

if TYPE_CHECKING:
    from edgesite.context import Module

__all__ = ["Taken", "changed", "hand_over"]

logger = logging.getLogger(__name__)
Path = tuple[str, ...]  # names of members may hold dots: evictionHard has "memory.available"


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of new settings: members that modules look after now, of them those that have changed, and who refused."""

    members: frozenset[Path] = frozenset()
    changed: tuple[Path, ...] = ()
    refused: tuple[str, ...] = ()  #: one sentence each

    def covers(self, path: Path) -> bool:
        return any(path[: len(one)] == one for one in self.members)


def hand_over(modules: Iterable[Module], settings: Section, values: Mapping[str, Any]) -> tuple[Section, Taken]:
    """Call ``reload`` of each module that has it; returns the settings that hold now."""
    before = settings.plain()
    holds = settings.plain()
    members: set[Path] = set()
    refused: list[str] = []
    for module in modules:
        reload = getattr(module, "reload", None)
        if reload is None:
            continue
        section = _path(module.section)
        mine = frozenset((*section, *_path(one)) for one in getattr(module, "reloads", ()))
        wanted = Section(holds).plain()
        for member in mine:
            _put(wanted, member, _at(values, member))
        try:
            reload(Section(_at(wanted, section) or {}))
        except Exception as exc:  # of a plugin's, say: the others go on
            logger.error("%s cannot take over its settings", module.name, exc_info=not isinstance(exc, ValueError))
            refused.append(f"{module.name}: {exc or type(exc).__name__}")
            continue
        members |= mine
        holds = wanted
    taken = Taken(frozenset(members), tuple(changed(before, holds)), tuple(refused))
    return Section(holds), taken


def changed(old: Any, new: Any, path: Path = ()) -> Iterator[Path]:
    """The paths whose values differ, each as deep as both have it."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted(old.keys() | new.keys()):
            yield from changed(old.get(name), new.get(name), (*path, name))
    elif old != new:
        yield path


def _path(dotted: str) -> Path:
    return tuple(dotted.split(".")) if dotted else ()


def _at(values: Any, path: Path) -> Any:
    for name in path:
        values = values.get(name) if isinstance(values, Mapping) else None
    return values


def _put(values: dict[str, Any], path: Path, value: Any) -> None:
    """Set a member, or take it away where there is none now; where its section is not there, it is nobody's."""
    *parents, last = path
    for name in parents:
        inner = values.get(name)
        if not isinstance(inner, dict):
            return
        values = inner
    if value is None:
        values.pop(last, None)
    else:
        values[last] = value
