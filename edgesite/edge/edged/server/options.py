"""The query of a container log request.

Errors  ApiError: 400 for a query that cannot be read, 422 for values that make no sense, in kubelet's words.
Source  core/v1 PodLogOptions and its validation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgesite.kube import times
from edgesite.kube.errors import ApiError, bad_request

__all__ = ["LogOptions"]


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What of a log is wanted. ``since_ns``: Unix nanoseconds."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    limit_bytes: int | None = None
    since_ns: int | None = None

    @classmethod
    def from_query(cls, query: Mapping[str, Sequence[str]], now: float) -> LogOptions:
        """Raises ApiError."""
        tail, limit, seconds = (_integer(query, name) for name in ("tailLines", "limitBytes", "sinceSeconds"))
        since = _first(query, "sinceTime")
        invalid = (tail is not None and tail < 0) or (limit is not None and limit < 1)
        if invalid or (seconds is not None and seconds < 1) or (seconds is not None and since):
            raise ApiError(422, "Invalid", '{"message": "Invalid request."}')
        since_ns = None
        if seconds is not None:
            since_ns = int((now - seconds) * 1_000_000_000)
        elif since:
            try:
                since_ns = times.parse_time_ns(since)
            except ValueError:
                raise bad_request('{"message": "Unable to decode query."}') from None
        follow, previous, timestamps = (_boolean(query, name) for name in ("follow", "previous", "timestamps"))
        return cls(follow, previous, timestamps, tail, limit, since_ns)


def _first(query: Mapping[str, Sequence[str]], name: str) -> str:
    values = query.get(name)
    return values[0] if values else ""


def _integer(query: Mapping[str, Sequence[str]], name: str) -> int | None:
    text = _first(query, name)
    if not text:
        return None
    digits = text[1:] if text[0] in "+-" else text
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
        raise bad_request('{"message": "Unable to decode query."}')
    return int(text)


def _boolean(query: Mapping[str, Sequence[str]], name: str) -> bool:
    """As the API machinery reads it: present and neither "0" nor "false" is true."""
    return bool(query.get(name)) and _first(query, name).lower() not in ("0", "false")
