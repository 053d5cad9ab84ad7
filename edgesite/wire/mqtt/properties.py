"""Properties of MQTT 5: which there are, where they may stand, and their bytes.

A dict holds them by number: integers, text, bytes; `USER_PROPERTY` is a list of pairs of text, `SUBSCRIPTION_ID` a list of integers.

Errors  ProtocolError: MALFORMED for bytes that are none, PROTOCOL_ERROR for what may not stand there, twice, or with that value.
Source  OASIS, MQTT Version 5.0, section 2.2.2.
"""

from __future__ import annotations

from typing import Any, Final

from edgesite.wire.mqtt.packets import Kind, Properties, ProtocolError, Reason

__all__ = ["WILL", "decode", "encode", "read_text", "read_varint", "text_bytes", "varint_bytes", "weight"]

PAYLOAD_FORMAT: Final = 0x01
MESSAGE_EXPIRY: Final = 0x02
CONTENT_TYPE: Final = 0x03
RESPONSE_TOPIC: Final = 0x08
CORRELATION: Final = 0x09
SUBSCRIPTION_ID: Final = 0x0B
SESSION_EXPIRY: Final = 0x11
ASSIGNED_ID: Final = 0x12
SERVER_KEEP_ALIVE: Final = 0x13
AUTH_METHOD: Final = 0x15
AUTH_DATA: Final = 0x16
REQUEST_PROBLEM: Final = 0x17
WILL_DELAY: Final = 0x18
REQUEST_RESPONSE: Final = 0x19
RESPONSE_INFO: Final = 0x1A
SERVER_REFERENCE: Final = 0x1C
REASON_STRING: Final = 0x1F
RECEIVE_MAXIMUM: Final = 0x21
TOPIC_ALIAS_MAXIMUM: Final = 0x22
TOPIC_ALIAS: Final = 0x23
MAXIMUM_QOS: Final = 0x24
RETAIN_AVAILABLE: Final = 0x25
USER_PROPERTY: Final = 0x26
MAXIMUM_PACKET: Final = 0x27
WILDCARD_AVAILABLE: Final = 0x28
SUBSCRIPTION_IDS_AVAILABLE: Final = 0x29
SHARED_AVAILABLE: Final = 0x2A

MOST_LISTED: Final = 1000  #: user properties in a packet: each costs 200 bytes of memory for five on the wire
WILL: Final = 0  #: the place of a will's properties, which is no packet of its own
_BYTE, _TWO, _FOUR, _VARINT, _TEXT, _BYTES, _PAIR = range(7)
_ANYWHERE: Final = frozenset(range(16))
_ACKS: Final = frozenset({Kind.PUBACK, Kind.PUBREC, Kind.PUBREL, Kind.PUBCOMP, Kind.SUBACK, Kind.UNSUBACK})
_PUBLISHED: Final = frozenset({WILL, Kind.PUBLISH})
_CONNECT: Final = frozenset({Kind.CONNECT})
_CONNACK: Final = frozenset({Kind.CONNACK})
_BOTH: Final = _CONNECT | _CONNACK
_AUTH: Final = _BOTH | {Kind.AUTH}
#: number → how it is written, where it may stand, which values it may have (from, to)
_TABLE: Final[dict[int, tuple[int, frozenset[int], tuple[int, int] | None]]] = {
    PAYLOAD_FORMAT: (_BYTE, _PUBLISHED, (0, 1)),
    MESSAGE_EXPIRY: (_FOUR, _PUBLISHED, None),
    CONTENT_TYPE: (_TEXT, _PUBLISHED, None),
    RESPONSE_TOPIC: (_TEXT, _PUBLISHED, None),
    CORRELATION: (_BYTES, _PUBLISHED, None),
    SUBSCRIPTION_ID: (_VARINT, frozenset({Kind.PUBLISH, Kind.SUBSCRIBE}), (1, 268_435_455)),
    SESSION_EXPIRY: (_FOUR, _BOTH | {Kind.DISCONNECT}, None),
    ASSIGNED_ID: (_TEXT, _CONNACK, None),
    SERVER_KEEP_ALIVE: (_TWO, _CONNACK, None),
    AUTH_METHOD: (_TEXT, _AUTH, None),
    AUTH_DATA: (_BYTES, _AUTH, None),
    REQUEST_PROBLEM: (_BYTE, _CONNECT, (0, 1)),
    WILL_DELAY: (_FOUR, frozenset({WILL}), None),
    REQUEST_RESPONSE: (_BYTE, _CONNECT, (0, 1)),
    RESPONSE_INFO: (_TEXT, _CONNACK, None),
    SERVER_REFERENCE: (_TEXT, _CONNACK | {Kind.DISCONNECT}, None),
    REASON_STRING: (_TEXT, _ACKS | _CONNACK | {Kind.DISCONNECT, Kind.AUTH}, None),
    RECEIVE_MAXIMUM: (_TWO, _BOTH, (1, 65535)),
    TOPIC_ALIAS_MAXIMUM: (_TWO, _BOTH, None),
    TOPIC_ALIAS: (_TWO, frozenset({Kind.PUBLISH}), None),
    MAXIMUM_QOS: (_BYTE, _CONNACK, (0, 1)),
    RETAIN_AVAILABLE: (_BYTE, _CONNACK, (0, 1)),
    USER_PROPERTY: (_PAIR, _ANYWHERE, None),
    MAXIMUM_PACKET: (_FOUR, _BOTH, (1, (1 << 32) - 1)),
    WILDCARD_AVAILABLE: (_BYTE, _CONNACK, (0, 1)),
    SUBSCRIPTION_IDS_AVAILABLE: (_BYTE, _CONNACK, (0, 1)),
    SHARED_AVAILABLE: (_BYTE, _CONNACK, (0, 1)),
}
_SIZES: Final = {_BYTE: 1, _TWO: 2, _FOUR: 4}


def encode(properties: Properties | None) -> bytes:
    """Return the properties with their length in front. Raises KeyError for a number that is none."""
    if not properties:
        return b"\0"
    out = bytearray()
    for number, value in properties.items():
        form = _TABLE[number][0]
        if form == _PAIR:
            for name, text in value:
                out += bytes((number,)) + text_bytes(name) + text_bytes(text)
        elif form == _VARINT:
            for one in value:
                out += bytes((number,)) + varint_bytes(one)
        elif form == _TEXT:
            out += bytes((number,)) + text_bytes(value)
        elif form == _BYTES:
            out += bytes((number,)) + len(value).to_bytes(2, "big") + value
        else:
            out += bytes((number,)) + int(value).to_bytes(_SIZES[form], "big")
    return varint_bytes(len(out)) + bytes(out)


def weight(properties: Properties | None) -> int:
    """Return about how many bytes of memory they take."""
    size = 0
    for value in (properties or {}).values():
        if isinstance(value, list):
            size += sum(200 + len(one[0]) + len(one[1]) if isinstance(one, tuple) else 40 for one in value)
        else:
            size += 50 + (0 if isinstance(value, int) else len(value))
    return size


def decode(place: int, data: bytes, at: int) -> tuple[Properties | None, int]:
    """Read the properties of a packet of kind ``place`` (or a `WILL`) at ``at``; return them and where they end. Raises ProtocolError."""
    length, at = read_varint(data, at)
    if not length:
        return None, at
    end = at + length
    if end > len(data):
        raise ProtocolError(Reason.MALFORMED, "properties beyond the end of the packet")
    found: Properties = {}
    while at < end:
        number = data[at]
        row = _TABLE.get(number)
        if row is None:
            raise ProtocolError(Reason.MALFORMED, f"there is no property {number}")
        form, places, bounds = row
        if place not in places:
            raise ProtocolError(Reason.PROTOCOL_ERROR, f"property {number} may not stand there")
        value, at = _value(form, data, at + 1)
        if at > end:
            raise ProtocolError(Reason.MALFORMED, f"property {number} beyond the end of the properties")
        if bounds is not None and not bounds[0] <= value <= bounds[1]:
            raise ProtocolError(Reason.PROTOCOL_ERROR, f"property {number} may not be {value}")
        if form == _PAIR or (number == SUBSCRIPTION_ID and place == Kind.PUBLISH):
            listed = found.setdefault(number, [])
            if len(listed) >= MOST_LISTED:
                raise ProtocolError(Reason.QUOTA, f"more than {MOST_LISTED} user properties")
            listed.append(value)
        elif number in found:
            raise ProtocolError(Reason.PROTOCOL_ERROR, f"property {number} stands there twice")
        else:
            found[number] = [value] if number == SUBSCRIPTION_ID else value
    return found, at


def _value(form: int, data: bytes, at: int) -> tuple[Any, int]:
    if form == _TEXT:
        return read_text(data, at)
    if form == _PAIR:
        name, at = read_text(data, at)
        text, at = read_text(data, at)
        return (name, text), at
    if form == _BYTES:
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        _within(data, end)
        return data[at + 2 : end], end
    if form == _VARINT:
        return read_varint(data, at)
    end = at + _SIZES[form]
    _within(data, end)
    return int.from_bytes(data[at:end], "big"), end


def _within(data: bytes, end: int) -> None:
    if end > len(data):
        raise ProtocolError(Reason.MALFORMED, "the packet ends too early")


def read_text(data: bytes, at: int) -> tuple[str, int]:
    """Read a string with its length in front. Raises ProtocolError if it is not UTF-8 as MQTT wants it."""
    end = at + 2 + int.from_bytes(data[at : at + 2], "big")
    if end > len(data):
        raise ProtocolError(Reason.MALFORMED, "a string beyond the end of the packet")
    try:
        text = str(data[at + 2 : end], "utf-8")
    except UnicodeDecodeError:
        raise ProtocolError(Reason.MALFORMED, "a string that is not UTF-8") from None
    if "\0" in text:
        raise ProtocolError(Reason.MALFORMED, "a string with U+0000")
    return text, end


def text_bytes(text: str) -> bytes:
    """Return a string as it is written. Raises ValueError if it is longer than 65535 bytes."""
    data = text.encode()
    if len(data) > 65535:
        raise ValueError("a string of MQTT has at most 65535 bytes")
    return len(data).to_bytes(2, "big") + data


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a variable byte integer. Raises ProtocolError if it is cut off, has five bytes, or more than it needs."""
    value = shift = 0
    for place in range(at, min(at + 4, len(data))):
        byte = data[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if not byte and shift:
                break  # longer than it needs to be
            return value, place + 1
        shift += 7
    raise ProtocolError(Reason.MALFORMED, "an integer that does not end")


def varint_bytes(value: int) -> bytes:
    """Return a variable byte integer. Raises ValueError beyond 268,435,455."""
    if value < 0x80:
        return bytes((value,))
    if value > 268_435_455:
        raise ValueError(f"{value} is too large for MQTT")
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
