"""Protocol Buffers (proto3) wire format, driven by compact tables instead of generated code.

A `Messages` is made from text: one message or enum in a line, fields as ``name [label] type = number [(oneof group)]``,
parted by ``;``. A line is parsed when its message is first used, so a large interface costs little memory.

    CRI = Messages('''
    enum ContainerState: CONTAINER_CREATED 0, CONTAINER_RUNNING 1
    Container: id string = 1; state ContainerState = 6; labels map<string, string> = 8; mounts repeated Mount = 9
    Mount: container_path string = 1; readonly bool = 3; image optional string = 4
    Either: schema Container = 1 (oneof either); boolean bool = 2 (oneof either)
    Empty: (empty)
    ''')
    data = encode(CRI["Container"], {"id": "c1", "state": CRI.enum("ContainerState")["CONTAINER_RUNNING"]})
    decode(CRI["Container"], data)  # {"id": "c1", "state": 1}

Messages are dicts by field name: enums are ints, ``bytes`` are bytes, repeated fields lists, maps dicts. What is absent
or None is not written; plain scalars are not written when zero, as proto3 wants, ``optional`` and oneof members are. Decoding gives
only the members that are on the wire: read scalars with ``.get(name, 0)``. Unknown fields are skipped; of a oneof the last wins.

Units   Sizes are bytes.
Errors  WireFormatError (the peer's bytes), EncodeError (our values), TableError (our table). Nothing else leaves.
State   None, beside the parsed tables.
Source  protobuf.dev, "Encoding" and "Language Guide (proto 3)".
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["EncodeError", "MessageTable", "Messages", "TableError", "WireFormatError", "decode", "encode"]

MAX_BYTES: Final = 16 * 1024 * 1024  #: Largest message that `decode` takes: what kubelet allows a CRI answer.
MAX_DEPTH: Final = 100  #: Nesting of messages, both ways: the default of the protobuf libraries.

_U64: Final = 1 << 64
_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5  # wire types

# How a value is read and written. Integers so that the loops compare cheaply.
_STRING, _MESSAGE, _UINT, _INT, _BOOL, _INT32, _BYTES, _SINT, _FIXED, _MAP = range(10)
_PACK: Final = {
    "fixed32": struct.Struct("<I"),
    "sfixed32": struct.Struct("<i"),
    "float": struct.Struct("<f"),
    "fixed64": struct.Struct("<Q"),
    "sfixed64": struct.Struct("<q"),
    "double": struct.Struct("<d"),
}
_SCALARS: Final = {
    "string": (_STRING, _LEN),
    "bytes": (_BYTES, _LEN),
    "bool": (_BOOL, _VARINT),
    "uint32": (_UINT, _VARINT),
    "uint64": (_UINT, _VARINT),
    "int32": (_INT32, _VARINT),
    "int64": (_INT, _VARINT),
    "sint32": (_SINT, _VARINT),
    "sint64": (_SINT, _VARINT),
} | {name: (_FIXED, _I32 if pack.size == 4 else _I64) for name, pack in _PACK.items()}
_RANGES: Final = {
    "int32": (-(1 << 31), 1 << 31),
    "sint32": (-(1 << 31), 1 << 31),
    "uint32": (0, 1 << 32),
    "int64": (-(1 << 63), 1 << 63),
    "sint64": (-(1 << 63), 1 << 63),
    "uint64": (0, 1 << 64),
}
_FIELD: Final = re.compile(
    r"(?P<name>\w+)\s+(?:(?P<label>repeated|optional)\s+)?"
    r"(?P<type>map<\s*\w+\s*,\s*[\w.]+\s*>|[\w.]+)\s*=\s*(?P<number>\d+)(?:\s*\(oneof\s+(?P<oneof>\w+)\))?"
)


class TableError(ValueError):
    """The text of a table cannot be read, or names a message that it does not hold."""


class WireFormatError(ValueError):
    """The bytes are no message of this kind, or exceed a limit."""


class EncodeError(ValueError):
    """A value does not fit the field that it is given for; the message names the field."""


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    type: str
    code: int  # _STRING ...
    wire: int
    tag: bytes  # number and wire type, as written
    repeated: bool
    packed: bool  # repeated numbers travel as one length-delimited run
    presence: bool  # written even when zero
    table: MessageTable | None  # of a message; of a map's entries
    rivals: tuple[str, ...]  # the other members of its oneof


class MessageTable:
    """The fields of one message; made by `Messages`."""

    __slots__ = ("_fields", "_owner", "_tags", "_text", "name")

    def __init__(self, owner: Messages, name: str, text: str) -> None:
        self.name = name
        self._owner = owner
        self._text = text
        self._fields: tuple[_Field, ...] | None = None
        self._tags: dict[int, _Field] = {}

    @property
    def fields(self) -> tuple[_Field, ...]:
        """In the order of their numbers. Raises TableError."""
        if self._fields is None:
            self._parse()
        return self._fields or ()

    @property
    def tags(self) -> Mapping[int, _Field]:
        """By tag as on the wire. Raises TableError."""
        if self._fields is None:
            self._parse()
        return self._tags

    def _parse(self) -> None:
        texts = [] if self._text == "(empty)" else [one.strip() for one in self._text.split(";") if one.strip()]
        found: list[tuple[int, re.Match[str]]] = []
        for text in texts:
            if (match := _FIELD.fullmatch(text)) is None:
                raise TableError(f"{self.name}: cannot read field {text!r}")
            found.append((int(match["number"]), match))
        found.sort(key=lambda one: one[0])
        groups: dict[str, list[str]] = {}
        for _, match in found:
            if match["oneof"]:
                groups.setdefault(match["oneof"], []).append(match["name"])
        fields = []
        for number, match in found:
            rivals = tuple(one for one in groups.get(match["oneof"] or "", ()) if one != match["name"])
            field, wires = self._field(number, match, rivals)
            fields.append(field)
            for wire in wires:
                self._tags[number << 3 | wire] = field
        if len({number for number, _ in found}) != len(found):
            raise TableError(f"{self.name}: a field number is used twice")
        self._fields = tuple(fields)

    def _field(self, number: int, match: re.Match[str], rivals: tuple[str, ...]) -> tuple[_Field, tuple[int, ...]]:
        kind, repeated = match["type"], match["label"] == "repeated"
        table: MessageTable | None = None
        packed = False
        if kind.startswith("map<"):
            key, value = (one.strip() for one in kind[4:-1].split(","))
            table = MessageTable(self._owner, f"{self.name}.{match['name']}", f"key {key} = 1; value {value} = 2")
            code, wire = _MAP, _LEN
        elif kind in _SCALARS:
            code, wire = _SCALARS[kind]
            packed = repeated and wire != _LEN
        elif self._owner.is_enum(kind):
            code, wire, kind, packed = _INT32, _VARINT, "int32", repeated
        else:
            table = self._owner[kind]
            code, wire = _MESSAGE, _LEN
        tag = bytearray()
        _put_varint(tag, number << 3 | (_LEN if packed else wire))
        presence = match["label"] == "optional" or match["oneof"] is not None
        field = _Field(match["name"], kind, code, wire, bytes(tag), repeated, packed, presence, table, rivals)
        return field, ((wire, _LEN) if packed else (wire,))

    def __repr__(self) -> str:
        return f"MessageTable({self.name})"


class Messages:
    """The messages and enums of one interface, by name; see the module's text for the form of ``text``."""

    def __init__(self, text: str) -> None:
        """Raises TableError for a line without a name; fields are read on first use."""
        self._messages: dict[str, MessageTable] = {}
        self._enums: dict[str, str] = {}
        for line in text.splitlines():
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            name, colon, rest = line.partition(":")
            if not colon:
                raise TableError(f"no name before a colon in {line!r}")
            if name.startswith("enum "):
                self._enums[name[5:].strip()] = rest.strip()
            else:
                self._messages[name] = MessageTable(self, name, rest.strip())

    def __getitem__(self, name: str) -> MessageTable:
        """Raises TableError if there is no such message."""
        try:
            return self._messages[name]
        except KeyError:
            raise TableError(f"no message or enum {name!r}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._messages)

    def is_enum(self, name: str) -> bool:
        return name in self._enums

    def enum(self, name: str) -> dict[str, int]:
        """Return numbers by name. Raises TableError."""
        try:
            pairs = [one.split() for one in self._enums[name].split(",")]
            return {key: int(number) for key, number in pairs}
        except (KeyError, ValueError) as exc:
            raise TableError(f"no enum {name!r}, or it cannot be read") from exc


# ---- encoding -------------------------------------------------------------------------------------------------------


def encode(table: MessageTable, message: Mapping[str, Any]) -> bytes:
    """Return the bytes of ``message``. Raises EncodeError for a member that the table lacks or whose value does not fit."""
    out = bytearray()
    _encode(table, message, out, 0)
    return bytes(out)


def _encode(table: MessageTable, message: Mapping[str, Any], out: bytearray, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise EncodeError(f"{table.name}: nested deeper than {MAX_DEPTH}")
    if not isinstance(message, Mapping):
        raise EncodeError(f"{table.name}: a mapping is wanted, not {type(message).__name__}")
    seen = 0
    for field in table.fields:
        name = field.name
        if name not in message:
            continue
        seen += 1
        value = message[name]
        if value is None:
            continue
        try:
            _encode_field(field, value, out, depth)
        except (TypeError, ValueError, OverflowError, struct.error, AttributeError) as exc:
            if isinstance(exc, EncodeError):
                raise
            raise EncodeError(f"{table.name}.{name}: {exc}") from exc
    if seen != len(message):
        known = {field.name for field in table.fields}
        raise EncodeError(f"{table.name} has no field {', '.join(sorted(set(message) - known))}")


def _encode_field(field: _Field, value: Any, out: bytearray, depth: int) -> None:
    if field.code == _MAP:
        assert field.table is not None
        for key, one in value.items():
            part = bytearray()
            _encode(field.table, {"key": key, "value": one}, part, depth + 1)
            _put_run(out, field.tag, part)
    elif not field.repeated:
        if field.presence or field.code == _MESSAGE or value:
            out += field.tag
            _put_value(field, value, out, depth)
    elif field.packed:
        part = bytearray()
        for one in value:
            _put_value(field, one, part, depth)
        if part:
            _put_run(out, field.tag, part)
    else:
        if isinstance(value, str | bytes):
            raise TypeError("a list is wanted")
        for one in value:
            out += field.tag
            _put_value(field, one, out, depth)


def _put_value(field: _Field, value: Any, out: bytearray, depth: int) -> None:
    code = field.code
    if code == _STRING:
        part = value.encode()
        _put_varint(out, len(part))
        out += part
    elif code == _MESSAGE:
        nested = bytearray()
        assert field.table is not None
        _encode(field.table, value, nested, depth + 1)
        _put_varint(out, len(nested))
        out += nested
    elif code == _BOOL:
        out.append(1 if value else 0)
    elif code == _BYTES:
        part = bytes(memoryview(value))
        _put_varint(out, len(part))
        out += part
    elif code == _FIXED:
        out += _PACK[field.type].pack(value)
    else:
        _put_integer(field, value, out)


def _put_integer(field: _Field, value: Any, out: bytearray) -> None:
    if not isinstance(value, int):
        raise TypeError(f"an integer is wanted, not {type(value).__name__}")
    low, high = _RANGES[field.type]
    if not low <= value < high:
        raise ValueError(f"{value} is out of range for {field.type}")
    if field.code == _SINT:
        value = value << 1 if value >= 0 else (-value << 1) - 1
    _put_varint(out, value if value >= 0 else value + _U64)


def _put_run(out: bytearray, tag: bytes, part: bytearray) -> None:
    out += tag
    _put_varint(out, len(part))
    out += part


def _put_varint(out: bytearray, value: int) -> None:
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


# ---- decoding -------------------------------------------------------------------------------------------------------


def decode(table: MessageTable, data: bytes, *, limit: int = MAX_BYTES) -> dict[str, Any]:
    """Return the members that ``data`` holds. Raises WireFormatError."""
    if len(data) > limit:
        raise WireFormatError(f"{table.name}: {len(data)} bytes exceed the limit of {limit}")
    out: dict[str, Any] = {}
    try:
        _decode(table, bytes(data), 0, len(data), out, 0)
    except IndexError:
        raise WireFormatError(f"{table.name}: ends in the middle of a field") from None
    except UnicodeDecodeError as exc:
        raise WireFormatError(f"{table.name}: a string is not UTF-8: {exc.reason}") from None
    return out


def _decode(table: MessageTable, data: bytes, at: int, end: int, out: dict[str, Any], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise WireFormatError(f"{table.name}: nested deeper than {MAX_DEPTH}")
    tags = table.tags
    while at < end:
        tag = data[at]
        at += 1
        if tag > 0x7F:
            tag, at = _varint(data, at - 1)
        field = tags.get(tag)
        if field is None:
            at = _skip(table, data, at, end, tag, depth)
            continue
        if tag & 7 == _LEN:
            size = data[at]
            at += 1
            if size > 0x7F:
                size, at = _varint(data, at - 1)
            stop = at + size
            if stop > end:
                raise WireFormatError(f"{table.name}.{field.name}: ends in the middle of a field")
            _take_run(field, data, at, stop, out, depth)
            at = stop
        else:
            value, at = _scalar(field, data, at, end)
            if field.repeated:
                out.setdefault(field.name, []).append(value)
            else:
                out[field.name] = value
        for rival in field.rivals:
            out.pop(rival, None)
    if at != end:
        raise WireFormatError(f"{table.name}: a field reaches beyond its message")


def _take_run(field: _Field, data: bytes, at: int, stop: int, out: dict[str, Any], depth: int) -> None:
    """Store a length-delimited field: text, bytes, a message, a map's entry or packed numbers."""
    code = field.code
    value: Any
    if code == _STRING:
        value = str(data[at:stop], "utf-8")
    elif code == _MESSAGE:
        # A singular message that comes in parts is merged.
        value = {} if field.repeated else out.get(field.name, {})
        assert field.table is not None
        _decode(field.table, data, at, stop, value, depth + 1)
    elif code == _MAP:
        assert field.table is not None
        entry: dict[str, Any] = {}
        _decode(field.table, data, at, stop, entry, depth + 1)
        key, one = (entry.get(part.name, _zero(part)) for part in field.table.fields)
        out.setdefault(field.name, {})[key] = one
        return
    elif code == _BYTES:
        value = data[at:stop]
    else:
        values = out.setdefault(field.name, [])
        while at < stop:
            one, at = _scalar(field, data, at, stop)
            values.append(one)
        if at != stop:
            raise WireFormatError(f"{field.name}: packed numbers reach beyond their field")
        return
    if field.repeated:
        out.setdefault(field.name, []).append(value)
    else:
        out[field.name] = value


def _scalar(field: _Field, data: bytes, at: int, end: int) -> tuple[int | float | bool, int]:
    code = field.code
    if code == _FIXED:
        pack = _PACK[field.type]
        if at + pack.size > end:
            raise WireFormatError(f"{field.name}: ends in the middle of a field")
        return pack.unpack_from(data, at)[0], at + pack.size
    value = data[at]
    at += 1
    if value > 0x7F:
        value, at = _varint(data, at - 1)
    if code == _BOOL:
        return value != 0, at
    if code == _SINT:
        return (value >> 1) ^ -(value & 1), at
    if code == _INT32:
        value &= 0xFFFFFFFF
        return (value - (1 << 32) if value >> 31 else value), at
    if code == _INT:
        return (value - _U64 if value >> 63 else value), at
    return (value & 0xFFFFFFFF if field.type == "uint32" else value), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (_U64 - 1), at
        shift += 7
        if shift > 63:
            raise WireFormatError("a number is longer than ten bytes")


def _skip(table: MessageTable, data: bytes, at: int, end: int, tag: int, depth: int) -> int:
    """Return where an unknown field ends."""
    wire = tag & 7
    if tag >> 3 == 0:
        raise WireFormatError(f"{table.name}: field number 0")
    if wire == _VARINT:
        _, at = _varint(data, at)
    elif wire == _LEN:
        size, at = _varint(data, at)
        at += size
    elif wire == _I64:
        at += 8
    elif wire == _I32:
        at += 4
    elif wire == 3 and depth < MAX_DEPTH:  # a group, of proto2: skip to its end
        while at < end:
            inner, at = _varint(data, at)
            if inner == tag + 1:
                return at
            at = _skip(table, data, at, end, inner, depth + 1)
        raise WireFormatError(f"{table.name}: a group does not end")
    else:
        raise WireFormatError(f"{table.name}: wire type {wire} cannot be skipped")
    if at > end:
        raise WireFormatError(f"{table.name}: ends in the middle of a field")
    return at


def _zero(field: _Field) -> Any:
    """What a map's key or value is when its entry leaves it out."""
    if field.code == _MESSAGE:
        return {}
    zeros: Sequence[Any] = ("", None, 0, 0, False, 0, b"", 0, 0)
    return zeros[field.code]
