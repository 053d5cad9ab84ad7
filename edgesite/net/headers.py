"""HTTP header lines: kept as the raw pairs that the parser gives, decoded only when asked for.

State   Immutable once parsed. Names are compared without case, values are latin-1 text.
Source  RFC 9110 section 5, RFC 9112 section 5.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

__all__ = ["HeaderBlock", "Headers", "encode_headers"]

#: What may be given as headers to send: a mapping, or lines made before ("Name: value\r\n" each).
HeaderBlock = Mapping[str, str] | bytes

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]").search


class Headers:
    """Received header lines. ``get`` gives the first of a name, ``get_all`` each."""

    __slots__ = ("_first", "raw")

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        self.raw = raw
        self._first: dict[bytes, bytes] | None = None

    def _index(self) -> dict[bytes, bytes]:
        first = self._first
        if first is None:
            first = self._first = {name.lower(): value for name, value in reversed(self.raw)}
        return first

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return the first value of ``name``."""
        value = self._index().get(name.lower().encode("latin-1"))
        return default if value is None else value.decode("latin-1")

    def get_all(self, name: str) -> list[str]:
        """Return every value of ``name``, in order."""
        wanted = name.lower().encode("latin-1")
        return [value.decode("latin-1") for one, value in self.raw if one.lower() == wanted]

    def has_token(self, name: str, token: str) -> bool:
        """Whether a comma-separated header holds ``token`` (compared without case)."""
        wanted = token.lower()
        return any(part.strip().lower() == wanted for value in self.get_all(name) for part in value.split(","))

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower().encode("latin-1") in self._index()

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for name, value in self.raw:
            yield name.decode("latin-1").lower(), value.decode("latin-1")

    def __len__(self) -> int:
        return len(self.raw)

    def __repr__(self) -> str:
        return f"Headers({', '.join(name for name, _ in self)})"  # names only: values may be secrets


def encode_headers(headers: HeaderBlock | None) -> bytes:
    """Return header lines. Raises ValueError for a line break or another control character in a name or value."""
    if not headers:
        return b""
    if isinstance(headers, bytes):
        return headers
    for name, value in headers.items():
        if not _NAME(name) or _FORBIDDEN(value):
            raise ValueError(f"header {name!r} cannot be sent as it is")
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()]).encode("latin-1", "replace")
