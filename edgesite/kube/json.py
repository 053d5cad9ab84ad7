"""JSON as the API speaks it: one codec for the whole program, C-backed, bytes in and bytes out."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["InvalidJson", "dumps", "loads"]

_decoder = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()


class InvalidJson(ValueError):
    """The text is not JSON; the message says where."""


def loads(data: bytes | str) -> Any:
    """Return the value. Raises InvalidJson."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise InvalidJson(str(exc)) from None


def dumps(value: Any) -> bytes:
    """Return compact UTF-8 JSON; members keep the order that they have."""
    return _encoder.encode(value)
