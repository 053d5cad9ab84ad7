"""JSONPath as printer columns and selectable fields of CRDs use it: a small part, without recursion.

    path = parse(".status.conditions[?(@.type=='Ready')].status")
    path.first(obj)      the first value that is there, else None
    path.all(obj)        all of them

Members (".a", "['a.b']"), elements ("[0]", "[-1]", "[*]") and filters that compare a member with a literal.

Errors  InvalidPath for what is no path or goes beyond this part.
Source  kubectl's JSONPath templates.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["InvalidPath", "Path", "parse"]

MAX_STEPS: Final = 64
_STEP: Final = re.compile(
    r"""\.(?P<member>(?:[^.\[\]\\]|\\.)+)
    |\[(?P<index>-?\d{1,9})\]
    |\[(?P<any>\*)\]
    |\[(?:'(?P<single>[^']*)'|"(?P<double>[^"]*)")\]
    |\[\?\(\s*@\.(?P<key>[\w.\-/]+)\s*(?P<operator>==|!=)\s*(?:'(?P<text>[^']*)'|"(?P<quoted>[^"]*)"|(?P<word>[\w.\-]+))\s*\)\]
    """,
    re.VERBOSE,
)


class InvalidPath(ValueError):
    """The text is no path that is understood here."""


@dataclass(frozen=True, slots=True)
class _Filter:
    key: tuple[str, ...]
    equal: bool
    value: str

    def accepts(self, item: Any) -> bool:
        for name in self.key:
            item = item.get(name) if isinstance(item, dict) else None
        text = str(item).lower() if isinstance(item, bool) else None if item is None else str(item)
        return (text == self.value) is self.equal


_ANY: Final = object()


@dataclass(frozen=True, slots=True)
class Path:
    """A parsed path."""

    steps: tuple[Any, ...]

    def all(self, obj: Any) -> list[Any]:
        found: Iterable[Any] = [obj]
        for step in self.steps:
            found = list(_step(found, step))
        return list(found)

    def first(self, obj: Any) -> Any:
        return next(iter(self.all(obj)), None)


def parse(text: str) -> Path:
    """Read a path; braces and a leading "$" may be left out. Raises InvalidPath."""
    rest = text.strip()
    if rest.startswith("{") and rest.endswith("}"):
        rest = rest[1:-1].strip()
    rest = rest.removeprefix("$")
    if rest and rest[0] not in ".[":
        rest = f".{rest}"
    steps: list[Any] = []
    while rest:
        match = _STEP.match(rest)
        if match is None or len(steps) >= MAX_STEPS:
            raise InvalidPath(f"cannot understand JSONPath {text!r} at {rest[:20]!r}")
        steps.append(_of(match))
        rest = rest[match.end() :]
    return Path(tuple(steps))


def _of(match: re.Match[str]) -> Any:
    if match["member"] is not None:
        name = re.sub(r"\\(.)", r"\1", match["member"])
        return _ANY if name == "*" else name
    if match["index"] is not None:
        return int(match["index"])
    if match["any"] is not None:
        return _ANY
    if match["key"] is not None:
        value = next(one for one in (match["text"], match["quoted"], match["word"]) if one is not None)
        return _Filter(tuple(match["key"].split(".")), match["operator"] == "==", value)
    return match["single"] if match["single"] is not None else match["double"]


def _step(items: Iterable[Any], step: Any) -> Iterator[Any]:
    for item in items:
        if isinstance(step, str):
            if isinstance(item, dict) and step in item:
                yield item[step]
        elif isinstance(step, int):
            if isinstance(item, list) and -len(item) <= step < len(item):
                yield item[step]
        else:
            inner = item if isinstance(item, list) else list(item.values()) if isinstance(item, dict) else []
            yield from inner if step is _ANY else (one for one in inner if step.accepts(one))
