"""Times as the API writes them (RFC 3339), Go durations, and ages as kubectl prints them.

Units   Instants are seconds since the Unix epoch (float), or nanoseconds (int) where the name says ``_ns``; durations are seconds.
Errors  InvalidTime, with the text that kube-apiserver shows for a time that it cannot parse. Nothing else leaves.
State   None.
Source  RFC 3339; meta/v1 Time (seconds) and MicroTime (six digits); apimachinery pkg/util/duration (thresholds of ages).
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Final

__all__ = [
    "InvalidTime",
    "format_duration",
    "format_micro",
    "format_nano",
    "format_time",
    "human_duration",
    "parse_duration",
    "parse_time",
    "parse_time_ns",
    "short_human_duration",
]

_EPOCH: Final = datetime(1970, 1, 1)  # all times here are UTC; without tzinfo they print faster
_RFC3339: Final = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})T(\d{2}):(\d{2}):(\d{2})(?:[.,](\d{1,}))?(?:Z|([+-])(\d{2}):(\d{2}))", re.ASCII
)
_LAYOUT: Final = "2006-01-02T15:04:05Z07:00"
_ELEMENTS: Final = (  # of the layout, in order, with what each accepts
    ("2006", r"\d{4}"),
    ("-", "-"),
    ("01", r"\d{2}"),
    ("-", "-"),
    ("02", r"\d{2}"),
    ("T", "T"),
    ("15", r"\d{2}"),
    (":", ":"),
    ("04", r"\d{2}"),
    (":", ":"),
    ("05", r"\d{2}(?:[.,]\d+)?"),
    ("Z07:00", r"Z|[+-]\d{2}:\d{2}"),
)
_DURATION_UNITS: Final = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9}
_DURATION_UNITS["h"] = 3600 * 10**9
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)

_MINUTE: Final = 60
_HOUR: Final = 3600
_YEAR_H: Final = 24 * 365


class InvalidTime(ValueError):
    """The text is no RFC 3339 time, or no duration."""


def format_time(seconds: float) -> str:
    """Return "2026-01-02T03:04:05Z": whole seconds, the fraction cut off, as meta/v1 Time."""
    return f"{(_EPOCH + timedelta(seconds=seconds // 1)).isoformat(timespec='seconds')}Z"


def format_micro(seconds: float) -> str:
    """Return "2026-01-02T03:04:05.000006Z", as meta/v1 MicroTime."""
    return f"{(_EPOCH + timedelta(microseconds=seconds * 1_000_000 // 1)).isoformat(timespec='microseconds')}Z"


def format_nano(nanoseconds: int) -> str:
    """Return RFC 3339 with nine digits: what container logs begin their lines with."""
    whole, rest = divmod(nanoseconds, 10**9)
    return f"{(_EPOCH + timedelta(seconds=whole)).isoformat(timespec='seconds')}.{rest:09d}Z"


def parse_time(text: str) -> float:
    """Return seconds since the epoch. Raises InvalidTime."""
    return parse_time_ns(text) / 10**9


def parse_time_ns(text: str) -> int:
    """Return nanoseconds since the epoch; digits beyond nine are cut off. Raises InvalidTime."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise InvalidTime(_why_unreadable(text))
    year, month, day, hour, minute, second = (int(one) for one in match.groups()[:6])
    try:
        moment = datetime(max(year, 1), month, day, hour, minute, second)
    except ValueError as exc:
        raise InvalidTime(f'parsing time "{text}": {_out_of_range(month, hour, minute, second)} out of range') from exc
    fraction = int((match[7] or "")[:9].ljust(9, "0"))
    offset_s = 0
    if match[8]:
        if int(match[9]) > 24 or int(match[10]) >= 60:
            raise InvalidTime(f'parsing time "{text}": time zone offset hour out of range')
        offset_s = int(match[9]) * _HOUR + int(match[10]) * _MINUTE
        if match[8] == "-":
            offset_s = -offset_s
    since = moment - _EPOCH
    return (since.days * 86400 + since.seconds - offset_s) * 10**9 + fraction


def _why_unreadable(text: str) -> str:
    rest = text
    for element, pattern in _ELEMENTS:
        match = re.match(pattern, rest, re.ASCII)
        if match is None:
            return f'parsing time "{text}" as "{_LAYOUT}": cannot parse "{rest}" as "{element}"'
        rest = rest[match.end() :]
    return f'parsing time "{text}": extra text: "{rest}"'


def _out_of_range(month: int, hour: int, minute: int, second: int) -> str:
    if not 1 <= month <= 12:
        return "month"
    if hour > 23:
        return "hour"
    if minute > 59:
        return "minute"
    return "second" if second > 59 else "day"


def parse_duration(text: str) -> float:
    """Return the seconds of a Go duration such as "1h30m" or "500ms". Raises InvalidTime."""
    sign, rest = 1, text
    if rest[:1] in ("-", "+"):
        sign, rest = (-1 if rest[0] == "-" else 1), rest[1:]
    if rest == "0":
        return 0.0
    total_ns = 0.0
    at = 0
    while at < len(rest):
        match = _DURATION_PART.match(rest, at)
        if match is None:
            raise InvalidTime(f'time: invalid duration "{text}"')
        total_ns += float(match[1]) * _DURATION_UNITS[match[2]]
        at = match.end()
    if not rest:
        raise InvalidTime(f'time: invalid duration "{text}"')
    return sign * total_ns / 10**9


def format_duration(seconds: float) -> str:
    """Return the duration as Go writes it: "1h30m0s", "1.5s", "20ms", "0s"."""
    total_ns = round(abs(seconds) * 10**9)
    sign = "-" if seconds < 0 and total_ns else ""
    if total_ns == 0:
        return "0s"
    for unit, size in (("ns", 1), ("µs", 10**3), ("ms", 10**6)):
        if total_ns < size * 1000:
            return f"{sign}{_decimal(total_ns, size)}{unit}"
    minutes, rest_ns = divmod(total_ns, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(rest_ns, 10**9)}s"
    if hours:
        text = f"{hours}h{minutes}m{text}"
    elif minutes:
        text = f"{minutes}m{text}"
    return sign + text


def _decimal(amount: int, size: int) -> str:
    whole, rest = divmod(amount, size)
    if not rest:
        return str(whole)
    return f"{whole}.{str(rest).rjust(len(str(size)) - 1, '0').rstrip('0')}"


def human_duration(seconds: float) -> str:
    """Return an age with up to two units, as in kubectl's AGE columns: "45s", "3m5s", "2d3h", "1y40d".

    Up to two seconds in the future count as now; more is "<invalid>".
    """
    if (early := _before_zero(seconds)) is not None:
        return early
    whole = int(seconds)
    minutes, hours = whole // _MINUTE, whole // _HOUR
    if whole < 2 * _MINUTE:
        return f"{whole}s"
    if minutes < 10:
        return _two(minutes, "m", whole % 60, "s")
    if minutes < 3 * 60:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if hours < 8 * 24:
        return _two(hours // 24, "d", hours % 24, "h")
    if hours < 2 * _YEAR_H:
        return f"{hours // 24}d"
    if hours < 8 * _YEAR_H:
        return _two(hours // _YEAR_H, "y", hours // 24 % 365, "d")
    return f"{hours // _YEAR_H}y"


def short_human_duration(seconds: float) -> str:
    """Return an age in one unit: "45s", "3m", "2d"."""
    if (early := _before_zero(seconds)) is not None:
        return early
    whole = int(seconds)
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m"
    hours = whole // _HOUR
    if hours < 24:
        return f"{hours}h"
    return f"{hours // 24}d" if hours < _YEAR_H else f"{hours // _YEAR_H}y"


def _before_zero(seconds: float) -> str | None:
    if seconds <= -2:
        return "<invalid>"
    return "0s" if seconds < 0 else None


def _two(first: int, unit: str, second: int, small: str) -> str:
    return f"{first}{unit}{second}{small}" if second else f"{first}{unit}"
