"""Values of free-form objects as ``google.protobuf.Any``, and back.

Mappers of KubeEdge know five wrappers: texts, booleans, floats of 32 bits, which is what its edge makes of every JSON number, and two kinds
of integers. A whole number that a float of 32 bits cannot hold is sent as Int64Value. Lists and objects, where KubeEdge's conversion
fails, are sent as their JSON text.

Errors  WireFormatError for an Any that cannot be read.
Source  KubeEdge v1.23, edge/pkg/devicetwin/dmiclient and its mapper framework, pkg/grpcclient (wrappers).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final

from edgesite.kube import json
from edgesite.kube.protowire import Messages, WireFormatError, decode, encode

__all__ = ["from_any", "to_any"]

_PREFIX: Final = "type.googleapis.com/google.protobuf."
_WRAPPERS: Final = Messages("""
StringValue: value string = 1
BoolValue: value bool = 1
FloatValue: value float = 1
DoubleValue: value double = 1
Int32Value: value int32 = 1
Int64Value: value int64 = 1
UInt32Value: value uint32 = 1
UInt64Value: value uint64 = 1
BytesValue: value bytes = 1
""")
_ZEROS: Final[dict[str, Any]] = {
    "StringValue": "",
    "BoolValue": False,
    "FloatValue": 0.0,
    "DoubleValue": 0.0,
    "BytesValue": b"",
}
_INT64: Final = 1 << 63
_LARGEST_FLOAT: Final = 3.4028234663852886e38


def to_any(value: Any) -> dict[str, Any] | None:
    """Return the Any of a JSON value; None for null, which has none."""
    if value is None:
        return None
    if isinstance(value, bool):
        return _wrapped("BoolValue", value)
    if isinstance(value, int):
        if _fits(value):
            return _wrapped("FloatValue", float(value))
        return _wrapped("Int64Value", value) if -_INT64 <= value < _INT64 else _wrapped("StringValue", str(value))
    if isinstance(value, float):
        return _wrapped("FloatValue", value) if abs(value) <= _LARGEST_FLOAT else _wrapped("StringValue", repr(value))
    text = value if isinstance(value, str) else json.dumps(value).decode()
    return _wrapped("StringValue", text)


def from_any(given: Mapping[str, Any]) -> Any:
    """Return the value of an Any; a float of 32 bits as the shortest number that means it. Raises WireFormatError."""
    kind = str(given.get("type_url", "")).rpartition("/")[2].rpartition(".")[2]
    if kind not in _WRAPPERS:
        raise WireFormatError(f"an Any of type {given.get('type_url')!r}")
    value = decode(_WRAPPERS[kind], given.get("value", b"")).get("value", _ZEROS.get(kind, 0))
    if kind == "FloatValue" and value == value and abs(value) != float("inf"):
        value = next(one for digits in range(6, 10) if _single(one := float(f"{value:.{digits}g}")) == value)
        return int(value) if value.is_integer() and abs(value) < 1 << 24 else value
    return value


def _wrapped(kind: str, value: Any) -> dict[str, Any]:
    return {"type_url": _PREFIX + kind, "value": encode(_WRAPPERS[kind], {"value": value})}


def _fits(value: int) -> bool:
    return abs(value) <= 1 << 24 or (abs(value) < 1 << 53 and _single(float(value)) == value)


def _single(value: float) -> float:
    """The nearest float of 32 bits."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return float("inf")
