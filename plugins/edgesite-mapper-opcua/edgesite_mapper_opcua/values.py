"""Values of OPC UA variables as those of properties, and back.

Numbers, booleans, texts and byte strings are taken as they are, times as RFC 3339, names and ids as texts, lists as JSON.
Back, a value takes the type that the variable has in its server.

Errors  DriverError where a value cannot have that type.
Source  OPC UA part 6, 5.1 (built-in types).
"""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

from asyncua import ua

from edgesite.mapper import DriverError, Value

__all__ = ["from_variant", "to_variant"]

_Kind = ua.VariantType
_WHOLE: Final = {
    _Kind.SByte: (-(1 << 7), 1 << 7),
    _Kind.Byte: (0, 1 << 8),
    _Kind.Int16: (-(1 << 15), 1 << 15),
    _Kind.UInt16: (0, 1 << 16),
    _Kind.Int32: (-(1 << 31), 1 << 31),
    _Kind.UInt32: (0, 1 << 32),
    _Kind.Int64: (-(1 << 63), 1 << 63),
    _Kind.UInt64: (0, 1 << 64),
}
_LARGEST_FLOAT: Final = 3.4028234663852886e38


def from_variant(value: Any) -> Value:
    """Raises DriverError: there is no value."""
    if value is None:
        raise DriverError("the variable has no value")
    if isinstance(value, Enum):
        return int(value.value)
    if isinstance(value, bool | int | float | str | bytes):
        return value
    if isinstance(value, list):
        return json.dumps([_listed(one) for one in value])
    return str(_listed(value))


def _listed(value: Any) -> Any:
    if isinstance(value, list):
        return [_listed(one) for one in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        known = value if value.tzinfo else value.replace(tzinfo=UTC)
        return known.isoformat().replace("+00:00", "Z")
    if isinstance(value, ua.LocalizedText):
        return value.Text or ""
    if isinstance(value, ua.QualifiedName | ua.NodeId):
        return value.to_string()
    if isinstance(value, bytes):
        return value.hex()
    return value if isinstance(value, bool | int | float | str) or value is None else str(value)


def to_variant(value: Value, kind: ua.VariantType) -> ua.Variant:
    """Raises DriverError."""
    try:
        return ua.Variant(_typed(value, kind), kind)
    except (TypeError, ValueError, OverflowError) as exc:
        raise DriverError(f"the variable is of type {kind.name}, which the value is not") from exc


def _typed(value: Value, kind: ua.VariantType) -> Any:
    """Raises TypeError, ValueError, OverflowError."""
    if kind is _Kind.Boolean:
        if isinstance(value, str):
            if value not in ("true", "false"):
                raise ValueError(value)
            return value == "true"
        return bool(value)
    if kind in _WHOLE:
        whole = int(value, 10) if isinstance(value, str) else int(value)  # type: ignore[arg-type]
        low, beyond = _WHOLE[kind]
        if not low <= whole < beyond or (isinstance(value, float) and value != whole):
            raise ValueError("out of range")
        return whole
    if kind in (_Kind.Float, _Kind.Double):
        real = float(value)
        if kind is _Kind.Float and abs(real) > _LARGEST_FLOAT:
            raise ValueError("out of range")
        return real
    if kind is _Kind.ByteString:
        return value.encode() if isinstance(value, str) else bytes(value)  # type: ignore[arg-type]
    text = value.decode() if isinstance(value, bytes) else _plain(value)
    if kind is _Kind.String:
        return text
    if kind is _Kind.LocalizedText:
        return ua.LocalizedText(text)
    if kind is _Kind.DateTime:
        return datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None)
    if kind is _Kind.Guid:
        return uuid.UUID(text)
    raise TypeError(kind)


def _plain(value: bool | int | float | str) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
