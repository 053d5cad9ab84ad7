"""JSON byte for byte as programs in Go write it: what HTML would mistake is escaped.

Source  Go, package encoding/json: HTML characters, line separators and control characters in strings, as of Go 1.17.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

__all__ = ["go_json"]

_sorted = msgspec.json.Encoder(order="sorted")
_as_given = msgspec.json.Encoder()
_PLAIN: Final = {"&": "\\u0026", "<": "\\u003c", ">": "\\u003e", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_SHORT: Final = re.compile(r"\\(.)")


def go_json(value: Any, *, sort: bool = True) -> str:
    """Return JSON as Go's encoder writes a generic value; ``sort`` off keeps the order of members, as for a struct."""
    text = (_sorted if sort else _as_given).encode(value).decode()
    for plain, escaped in _PLAIN.items():
        if plain in text:  # only ever inside strings
            text = text.replace(plain, escaped)
    if "\\b" in text or "\\f" in text:
        text = _SHORT.sub(lambda found: {"b": "\\u0008", "f": "\\u000c"}.get(found[1], found[0]), text)
    return text
