"""``--set``: settings of a configuration file by their path, as the other flags give them.

Errors  KeadmError.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from edgesite.cli.keadm.failure import KeadmError

__all__ = ["applied"]

_PART = re.compile(r"([A-Za-z][\w-]*)((?:\[\d+\])*)")


def applied(document: dict[str, Any], sets: Iterable[str]) -> dict[str, Any]:
    """Set ``a.b[0]=value`` in the document, which is changed and returned; several may be joined by commas. Raises KeadmError."""
    for one in (part for text in sets for part in _split(text)):
        name, equals, value = one.partition("=")
        if not equals:
            raise KeadmError(f"--set {one!r}: write KEY=VALUE")
        _put(document, _path(name), _value(value), one)
    return document


def _split(text: str) -> list[str]:
    """Parts between commas; a comma within braces, or behind a backslash, belongs to the value."""
    return [one.replace("\\,", ",") for one in re.split(r"(?<!\\),(?![^{]*\})", text) if one]


def _path(name: str) -> list[str | int]:
    found: list[str | int] = []
    for part in name.strip().split("."):
        matched = _PART.fullmatch(part)
        if matched is None:
            raise KeadmError(f"--set: {name!r} is no path of a setting")
        found += [matched[1], *(int(number) for number in re.findall(r"\d+", matched[2]))]
    return found


def _value(text: str) -> Any:
    import yaml

    if text.startswith("{") and text.endswith("}"):
        return [_value(one) for one in text[1:-1].split(",") if one]
    try:
        return yaml.safe_load(text) if text else ""
    except yaml.YAMLError:
        return text


def _put(place: Any, path: list[str | int], value: Any, shown: str) -> None:
    for step, following in zip(path, [*path[1:], None], strict=True):
        last = following is None
        empty: Any = [] if isinstance(following, int) else {}
        if isinstance(step, int):
            if not isinstance(place, list) or step > len(place):
                raise KeadmError(f"--set {shown!r}: there is no element {step} to set")
            if step == len(place):
                place.append(empty)
            if last:
                place[step] = value
            place = place[step]
            continue
        if not isinstance(place, dict):
            raise KeadmError(f"--set {shown!r}: {step} is no member there")
        name = next((one for one in place if str(one).lower() == step.lower()), step)
        if last:
            place[name] = value
        elif not isinstance(place.get(name), list if isinstance(following, int) else dict):
            place[name] = empty
        place = place[name]
