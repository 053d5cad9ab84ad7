"""Values of machines as texts of twins, and back; bytes of registers by the words of a property's visitor.

A driver that returns bytes has them converted here. Words of a visitor (all may be left out):

    scale, valueOffset              value = number x scale + valueOffset; a scale of 0 means 1
    dataType                        how the bytes are read: int8 ... int64, uint8 ... uint64, float32, float64; else by the property's
                                    type: whole numbers without a sign, floats of 4 or 8 bytes, fewer bytes as whole numbers
    signed                          whether whole numbers have a sign
    isSwap, byteOrder "little"      the two bytes of each register change places
    isRegisterSwap, wordOrder "little"    registers in reverse order; this is done first
    startIndex, endIndex            the bytes from one to the other; backwards if the first is behind
    shiftLeft, shiftRight, mask     of the whole number, in this order
    orderOfOperations               [{operationType: Add | Subtract | Multiply | Divide, operationValue: 2}, ...], after the scale

``dataConverter`` of a bluetooth visitor holds the same words. Numbers, texts and booleans of a driver are taken as they are.

Texts   Whole numbers in decimal, booleans "true" and "false", bytes in base64, floats without an exponent: those from bytes with 6
        decimals, as KubeEdge's mappers write them, unless these would lose the value.
Errors  ConversionError, a ValueError: the value does not fit the type, the limits, or its bytes.
Source  KubeEdge's mappers-go, mappers/modbus and mappers/ble (words, orders, formats).
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from edgesite.kube.devices.values import canonical_type, command, number, wished
from edgesite.mapper.driver import Property, Value

__all__ = [
    "PLAIN",
    "ConversionError",
    "Layout",
    "command",
    "decode",
    "encode",
    "encode_within",
    "from_text",
    "limited",
    "to_text",
]

VALUE_BYTES: Final = 16 << 20  #: of one value, a picture at most
_INTEGER_TYPES: Final = {f"{sign}int{bits}": (bits // 8, not sign) for sign in ("", "u") for bits in (8, 16, 32, 64)}
_FLOAT_TYPES: Final = {"float32": 4, "float64": 8}
_FLOATS: Final = {4: struct.Struct(">f"), 8: struct.Struct(">d")}
_MOST_SHIFT: Final = 512
_INT64: Final = 1 << 63


class ConversionError(ValueError):
    """The value does not fit; the text says why, without the value's bytes."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The words of a visitor, read once. Raises ConversionError from `of`."""

    scale: float = 1.0
    offset: float = 0.0
    size: int = 0  #: bytes that ``dataType`` has; 0: as many as there are
    is_float: bool | None = None  #: None: the property's type says so
    signed: bool = False
    swap_bytes: bool = False
    swap_words: bool = False
    start: int | None = None
    end: int | None = None
    left: int = 0
    right: int = 0
    mask: int = 0
    operations: tuple[tuple[str, float], ...] = ()

    @classmethod
    def of(cls, visitor: Mapping[str, Any]) -> Layout:
        made = cls._read(visitor)
        return PLAIN if made == PLAIN else made  # most are

    @classmethod
    def _read(cls, visitor: Mapping[str, Any]) -> Layout:
        words = {**visitor, **_mapping(visitor.get("dataConverter"))}
        kind = str(words.get("dataType") or "").lower()
        size, signed = _INTEGER_TYPES.get(kind, (_FLOAT_TYPES.get(kind, 0), False))
        return cls(
            scale=_real(words, "scale", 1.0) or 1.0,
            offset=_real(words, "valueOffset", 0.0),
            size=size,
            is_float=None if not size else kind in _FLOAT_TYPES,
            signed=signed or _flag(words, "signed"),
            swap_bytes=_flag(words, "isSwap") or _order(words, "byteOrder"),
            swap_words=_flag(words, "isRegisterSwap") or _order(words, "wordOrder"),
            start=_whole(words, "startIndex"),
            end=_whole(words, "endIndex"),
            left=_shift(words, "shiftLeft"),
            right=_shift(words, "shiftRight"),
            mask=_whole(words, "mask") or 0,
            operations=_operations(words),
        )

    @property
    def is_part(self) -> bool:
        """Whether some of the bytes are the value."""
        return self.start is not None or self.end is not None

    @property
    def is_plain(self) -> bool:
        return not self.operations and self.scale == 1.0 and self.offset == 0.0

    @property
    def is_whole(self) -> bool:
        """Whether whole numbers stay whole: counters of 64 bits do not pass through floats, which have 53."""
        return not self.operations and self.scale.is_integer() and self.offset.is_integer()


PLAIN: Final = Layout()  #: of visitors without words


# Bytes of a machine


def decode(prop: Property, data: bytes, layout: Layout | None = None) -> Value:
    """Return what a machine's bytes mean. Raises ConversionError."""
    layout = layout or Layout.of(prop.visitor)
    kind = canonical_type(prop.type)
    data = _chosen(layout, data)
    if kind == "string":
        if prop.type == "stream":
            return data
        return data.rstrip(b"\0").decode("utf-8", "replace")
    if kind == "bytes":
        return data
    if not data:
        raise ConversionError("there are no bytes")
    data = _ordered(layout, data)
    if layout.size and len(data) != layout.size:
        raise ConversionError(f"{len(data)} bytes where {layout.size} were said")
    if _is_float(layout, kind, len(data)):
        if len(data) not in _FLOATS:
            raise ConversionError(f"a float has 4 or 8 bytes, not {len(data)}")
        raw: int | float = _FLOATS[len(data)].unpack(data)[0]
    else:
        raw = int.from_bytes(data, "big", signed=layout.signed) << layout.left >> layout.right
        if layout.mask:
            raw &= layout.mask
    if kind == "boolean":
        return bool(raw)
    return _scaled(layout, kind, raw)


def encode(prop: Property, value: Value, size: int, *, old: bytes = b"", layout: Layout | None = None) -> bytes:
    """Return the ``size`` bytes that mean a value. With shifts or a mask the other bits are those of ``old``. Raises ConversionError."""
    layout = layout or Layout.of(prop.visitor)
    kind = canonical_type(prop.type)
    if isinstance(value, str | bytes):
        data = value.encode() if isinstance(value, str) else value
        if kind not in ("string", "bytes"):
            raise ConversionError(f"a {prop.type} is no text")
        if len(data) > size:
            raise ConversionError(f"{len(data)} bytes where there is room for {size}")
        return data.ljust(size, b"\0")
    if layout.size and size != layout.size:
        raise ConversionError(f"{size} bytes where {layout.size} were said")
    raw = int(value) if isinstance(value, bool) else _unscaled(layout, value)
    if _is_float(layout, kind, size):
        if size not in _FLOATS:
            raise ConversionError(f"a float has 4 or 8 bytes, not {size}")
        try:
            data = _FLOATS[size].pack(raw)
        except OverflowError:
            raise ConversionError(f"{value} is beyond a float of {size} bytes") from None
    else:
        data = _whole_bytes(layout, raw, size, old)
    return _ordered(layout, data, back=True)


def encode_within(prop: Property, value: Value, now: bytes, *, layout: Layout | None = None) -> bytes:
    """Return ``now``, which the machine has, with the value in its place: bytes beside ``startIndex`` and ``endIndex`` and other bits
    stay. Raises ConversionError."""
    layout = layout or Layout.of(prop.visitor)
    if not layout.is_part:
        return encode(prop, value, len(now), old=now, layout=layout)
    low, high, step = _part(layout, len(now))
    part = encode(prop, value, high - low + 1, old=now[low : high + 1][::step], layout=layout)[::step]
    return now[:low] + part + now[high + 1 :]


def _whole_bytes(layout: Layout, raw: int | float, size: int, old: bytes) -> bytes:
    if not math.isfinite(raw):
        raise ConversionError(f"{raw} is no whole number")
    whole = round(raw)
    if layout.mask and whole & ~layout.mask:
        raise ConversionError(f"{whole} does not fit the mask")
    bits = whole << layout.right >> layout.left
    is_merged = bool(old and (layout.mask or layout.right))
    if is_merged:
        before = int.from_bytes(_ordered(layout, old), "big", signed=layout.signed and not layout.mask)
        ours = (layout.mask << layout.right) if layout.mask else -1 << layout.right
        bits = (before & ~ours) | bits
    try:
        return bits.to_bytes(size, "big", signed=layout.signed and not (is_merged and layout.mask))
    except OverflowError:
        raise ConversionError(f"{whole} does not fit {size} bytes") from None


def _chosen(layout: Layout, data: bytes) -> bytes:
    if not layout.is_part:
        return data
    low, high, step = _part(layout, len(data))
    return data[low : high + 1][::step]


def _part(layout: Layout, size: int) -> tuple[int, int, int]:
    """The first and the last byte, and -1 if they are taken backwards. Raises ConversionError."""
    start = layout.start or 0
    end = layout.end if layout.end is not None else size - 1
    if max(start, end) >= size or min(start, end) < 0:
        raise ConversionError(f"bytes {start} to {end} of {size}")
    return min(start, end), max(start, end), 1 if start <= end else -1


def _ordered(layout: Layout, data: bytes, *, back: bool = False) -> bytes:
    """Put registers and their bytes in order; both swaps undo themselves, and do not depend on each other's order."""
    if not (layout.swap_words or layout.swap_bytes) or len(data) < 2:
        return data
    if len(data) % 2:
        raise ConversionError(f"{len(data)} bytes are no registers to swap")
    words = [data[at : at + 2] for at in range(0, len(data), 2)]
    if layout.swap_words:
        words.reverse()
    if layout.swap_bytes:
        words = [one[::-1] for one in words]
    return b"".join(words)


def _is_float(layout: Layout, kind: str, size: int) -> bool:
    if layout.is_float is not None:
        return layout.is_float
    shifted = layout.left or layout.right or layout.mask
    return kind in ("float", "double") and size >= 4 and not shifted and not layout.signed


def _scaled(layout: Layout, kind: str, raw: int | float) -> int | float:
    if kind == "int" and isinstance(raw, int) and layout.is_whole:
        return raw * int(layout.scale) + int(layout.offset)
    try:
        value = raw * layout.scale + layout.offset
    except OverflowError:
        raise ConversionError("the number is beyond a float") from None
    for operation, operand in layout.operations:
        value = _operated(operation, value, operand)
    if kind != "int":
        return float(value)
    if not math.isfinite(value):
        raise ConversionError("no whole number")
    near = round(value)
    return near if math.isclose(value, near, rel_tol=1e-12, abs_tol=1e-9) else math.trunc(value)


def _unscaled(layout: Layout, value: int | float) -> int | float:
    if layout.is_plain:
        return value
    if isinstance(value, int) and layout.is_whole and (value - int(layout.offset)) % int(layout.scale) == 0:
        return (value - int(layout.offset)) // int(layout.scale)
    back: float = value
    for operation, operand in reversed(layout.operations):
        back = _operated(_INVERSE[operation], back, operand)
    return (back - layout.offset) / layout.scale


_INVERSE: Final = {"add": "subtract", "subtract": "add", "multiply": "divide", "divide": "multiply"}


def _operated(operation: str, value: float, operand: float) -> float:
    match operation:
        case "add":
            return value + operand
        case "subtract":
            return value - operand
        case "multiply":
            return value * operand
        case _:
            if operand == 0:
                raise ConversionError("a division by zero")
            return value / operand


# Texts of twins


def to_text(prop: Property, raw: Value, layout: Layout | None = None) -> str:
    """Return the text of what a driver has read. Raises ConversionError."""
    kind = canonical_type(prop.type)
    if not isinstance(raw, bool | int | float | str | bytes):
        raise ConversionError(f"the driver has returned a {type(raw).__name__}, which is no value")
    if isinstance(raw, bytes):
        if len(raw) > VALUE_BYTES:
            raise ConversionError(f"{len(raw)} bytes are more than a value may have")
        value = decode(prop, raw, layout)
        if isinstance(value, float):
            return _float_text(value, decimals=6)
        raw = value
    if isinstance(raw, bytes):
        return base64.b64encode(raw).decode()
    if kind in ("string", "bytes"):
        return raw if isinstance(raw, str) else _plain_text(raw)
    if isinstance(raw, str):
        return _plain_text(_typed(kind, raw.strip()))
    if kind == "boolean":
        return "true" if raw else "false"
    if kind == "int":
        if isinstance(raw, float) and not math.isfinite(raw):
            raise ConversionError("no whole number")
        if not -_INT64 <= raw < _INT64:
            raise ConversionError("the number is beyond 64 bits")
        return str(int(raw))
    return _float_text(float(raw))


def from_text(prop: Property, text: str) -> Value:
    """Return the value of a text, within the limits of the property. Raises ConversionError."""
    kind = canonical_type(prop.type)
    if kind == "bytes":
        try:
            return base64.b64decode(text, validate=True)
        except (ValueError, binascii.Error):
            raise ConversionError("that is no base64") from None
    if kind == "string":
        return text
    value = _typed(kind, text)
    limited(prop, value)
    return value


def limited(prop: Property, value: Value) -> None:
    """Raises ConversionError for a number beyond the property's minimum or maximum."""
    if isinstance(value, str | bytes | bool):
        return
    low, high = _limit(prop.minimum), _limit(prop.maximum)
    if low is not None and not value >= low:
        raise ConversionError(f"{_plain_text(value)} is below {prop.minimum}")
    if high is not None and not value <= high:
        raise ConversionError(f"{_plain_text(value)} is above {prop.maximum}")


def _limit(text: str) -> int | float | None:
    """Whole where it is, for not all whole numbers of 64 bits are floats; None if there is none."""
    whole = number("int", text)
    return whole if whole is not None else number("double", text)


def _typed(kind: str, text: str) -> bool | int | float:
    if kind == "boolean":
        word = wished(kind, text)
        if word not in ("true", "false"):
            raise ConversionError(f"{text[:80]!r} is neither true nor false")
        return word == "true"
    value = number(kind, text) if kind in ("int", "float", "double") else None
    if value is None:
        raise ConversionError(f"{text[:80]!r} is no {kind}")
    if not math.isfinite(value):
        raise ConversionError(f"{text[:80]!r} is not finite")
    return value


def _plain_text(value: bool | int | float | str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return _float_text(value) if isinstance(value, float) else str(value)


def _float_text(value: float, decimals: int | None = None) -> str:
    if not math.isfinite(value):
        raise ConversionError("the machine's number is not finite")
    if decimals is not None:
        text = f"{value:.{decimals}f}"
        if math.isclose(float(text), value, rel_tol=1e-6):
            return text
    text = repr(value)
    if "e" in text:
        return format(Decimal(text), "f")
    return text.removesuffix(".0")


# Words


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _real(words: Mapping[str, Any], name: str, default: float) -> float:
    value = words.get(name)
    if value is None or value == "":
        return default
    given = value if isinstance(value, int | float) and not isinstance(value, bool) else number("double", str(value))
    try:
        found = math.nan if given is None else float(given)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise ConversionError(f"{name} is no number")
    return found


def _whole(words: Mapping[str, Any], name: str) -> int | None:
    value = words.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, str):
        try:
            return int(value, 0)  # masks are written as 0xff0
        except ValueError:
            raise ConversionError(f"{name} is no whole number") from None
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or (isinstance(value, float) and not value.is_integer())
    ):
        raise ConversionError(f"{name} is no whole number")
    return int(value)


def _shift(words: Mapping[str, Any], name: str) -> int:
    value = _whole(words, name) or 0
    if not 0 <= value <= _MOST_SHIFT:
        raise ConversionError(f"{name} is not within 0 to {_MOST_SHIFT}")
    return value


def _flag(words: Mapping[str, Any], name: str) -> bool:
    return words.get(name) in (True, "true", "True", 1)


def _order(words: Mapping[str, Any], name: str) -> bool:
    value = str(words.get(name) or "big").lower()
    if value not in ("big", "little"):
        raise ConversionError(f"{name} is neither big nor little")
    return value == "little"


def _operations(words: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    given = words.get("orderOfOperations") or []
    if not isinstance(given, list):
        raise ConversionError("orderOfOperations is no list")
    return tuple(_operation(one) for one in given)


def _operation(given: Any) -> tuple[str, float]:
    one = _mapping(given)
    name = str(one.get("operationType") or "").lower()
    if name not in _INVERSE:
        raise ConversionError(f"operationType {one.get('operationType')!r} is none of Add, Subtract, Multiply, Divide")
    return name, _real(one, "operationValue", 0.0)
