"""Cron schedules as CronJobs have them: five fields, names of months and days, @daily and the like.

    problem(text)     why a text is no schedule, or ""

Errors  None raised.
Source  crontab(5); the texts are those of the parser that Kubernetes uses.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["problem"]

_DESCRIPTORS: Final = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
#: Lowest and highest value of each field, and names for values from the lowest on.
_FIELDS: Final[tuple[tuple[int, int, tuple[str, ...]], ...]] = (
    (0, 59, ()),
    (0, 23, ()),
    (1, 31, ()),
    (1, 12, _MONTHS),
    (0, 6, _DAYS),
)
_EVERY: Final = re.compile(r"@every (?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+")


def problem(text: str) -> str:
    """Say why ``text`` is no schedule; "" if it is one."""
    if "TZ" in text:
        return "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
    if text.startswith("@"):
        if text in _DESCRIPTORS or _EVERY.fullmatch(text):
            return ""
        return f"unrecognized descriptor: {text}"
    fields = text.split()
    if len(fields) != len(_FIELDS):
        return f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]"
    for field, bounds in zip(fields, _FIELDS, strict=True):
        for part in field.split(","):
            found = _part_problem(part, *bounds)
            if found:
                return found
    return ""


def _part_problem(part: str, low: int, high: int, names: tuple[str, ...]) -> str:
    span, slash, step = part.partition("/")
    if slash and "/" in step:
        return f"too many slashes: {part}"
    ends = span.split("-")
    if len(ends) > 2:
        return f"too many hyphens: {part}"
    if span in ("*", "?"):
        first, last = low, high
    else:
        values = [_value(end, low, names) for end in ends]
        for end, value in zip(ends, values, strict=True):
            if value is None:
                return f'failed to parse int from {end}: strconv.Atoi: parsing "{end}": invalid syntax'
        first = values[0] or 0
        last = values[-1] or 0
        if len(ends) == 1 and slash:
            last = high
    if first < low:
        return f"beginning of range ({first}) below minimum ({low}): {part}"
    if last > high:
        return f"end of range ({last}) above maximum ({high}): {part}"
    if first > last:
        return f"beginning of range ({first}) beyond end of range ({last}): {part}"
    if slash and not step.isdecimal():
        return f'failed to parse int from {step}: strconv.Atoi: parsing "{step}": invalid syntax'
    return f"step of range should be a positive number: {part}" if slash and int(step) == 0 else ""


def _value(text: str, low: int, names: tuple[str, ...]) -> int | None:
    if text.lower() in names:
        return names.index(text.lower()) + low
    return int(text) if text.isascii() and text.isdecimal() else None
