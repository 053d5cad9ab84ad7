"""Control packets of MQTT to bytes and back, both ways.

    decoder = Decoder(max_bytes=1 << 20)
    for packet in decoder.feed(data): ...      # version is taken from CONNECT; set `decoder.version` at the client's end
    data = encode(packet, version)

Errors  ProtocolError from `feed`: the connection is over. ValueError from `encode` for what no packet can hold.
Bounds  `max_bytes` a packet, its fixed header included; nothing longer is kept. `MOST_FILTERS` in it, `properties.MOST_LISTED` user properties.
Source  OASIS, MQTT Version 3.1.1 and MQTT Version 5.0, chapters 2 and 3; MQTT V3.1 for the name "MQIsdp".
"""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Final

from edgesite.wire.mqtt import properties as props
from edgesite.wire.mqtt.packets import (
    V3_1,
    V3_1_1,
    V5,
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Kind,
    Packet,
    Ping,
    ProtocolError,
    Publish,
    Reason,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
    Will,
)
from edgesite.wire.mqtt.properties import read_text, text_bytes, varint_bytes
from edgesite.wire.mqtt.topics import check_filter, check_topic

__all__ = ["Decoder", "encode", "publish_head"]

#: First four bits below the type, where they are fixed.
_FLAGS: Final = {Kind.PUBREL: 2, Kind.SUBSCRIBE: 2, Kind.UNSUBSCRIBE: 2}
_NAMES: Final = {("MQTT", V3_1_1), ("MQTT", V5), ("MQIsdp", V3_1)}
_BRIDGE: Final = 0x80
MOST_FILTERS: Final = 4096  #: in one packet: whoever wants more asks twice
_LARGEST: Final = 268_435_455 + 5


class Decoder:
    """Bytes to packets."""

    __slots__ = ("_at", "_fed", "_held", "max_bytes", "version")

    def __init__(self, max_bytes: int = _LARGEST, version: int = V3_1_1) -> None:
        self.max_bytes = max_bytes
        self.version = version
        self._held = bytearray()
        self._fed = b""
        self._at = 0

    @property
    def held(self) -> int:
        """Bytes of a packet that is not complete."""
        return len(self._held)

    def rest(self) -> bytes:
        """Stop in the middle of a `feed`: what it did not come to, which is to be fed later."""
        rest, self._held, self._fed = self._fed[self._at :], bytearray(), b""
        return rest

    def feed(self, data: bytes) -> Iterator[Packet]:
        """Give the packets that are complete now. Raises ProtocolError after those that stand before what is wrong."""
        if self._held:
            self._held += data
            needed = self._needed(self._held, 0)
            if needed is None or len(self._held) < needed[1]:
                return
            data = bytes(self._held)
            self._held = bytearray()
        at, size = 0, len(data)
        while at < size:
            needed = self._needed(data, at)
            if needed is None or needed[1] > size:
                self._held += data[at:]
                break
            begin, end = needed
            self._fed, self._at = data, end
            yield _decode(data[at], data[begin:end], self)
            at = end
        self._fed = b""

    def _needed(self, data: bytes | bytearray, at: int) -> tuple[int, int] | None:
        """Where the body of the packet at ``at`` begins and ends; None if that is not told yet."""
        length = 0
        for place in range(1, 5):
            if at + place >= len(data):
                return None
            byte = data[at + place]
            length |= (byte & 0x7F) << (7 * place - 7)
            if byte < 0x80:
                begin = at + place + 1
                if length + place + 1 > self.max_bytes:
                    raise ProtocolError(Reason.TOO_LARGE, f"a packet of {length + place + 1} bytes")
                return begin, begin + length
        raise ProtocolError(Reason.MALFORMED, "a length that does not end")


def _decode(first: int, body: bytes, decoder: Decoder) -> Packet:
    kind, flags = first >> 4, first & 0x0F
    version = decoder.version
    if kind == Kind.PUBLISH:
        return _read_publish(flags, body, version)
    if flags != _FLAGS.get(kind, 0):  # type: ignore[call-overload]
        raise ProtocolError(Reason.MALFORMED, f"flags {flags} in a packet of type {kind}")
    if kind in (Kind.PUBACK, Kind.PUBREC, Kind.PUBREL, Kind.PUBCOMP):
        return _read_ack(kind, body, version)
    if kind in (Kind.PINGREQ, Kind.PINGRESP):
        _end(body, 0)
        return Ping(kind)
    if kind == Kind.CONNECT:
        connect = _read_connect(body)
        decoder.version = connect.version
        return connect
    if kind == Kind.CONNACK:
        return _read_connack(body, version)
    if kind == Kind.SUBSCRIBE:
        return _read_subscribe(body, version)
    if kind == Kind.UNSUBSCRIBE:
        return _read_unsubscribe(body, version)
    if kind in (Kind.SUBACK, Kind.UNSUBACK):
        return _read_codes(kind, body, version)
    if kind == Kind.DISCONNECT:
        return _read_disconnect(body, version)
    if kind == Kind.AUTH and version == V5:
        code, found = _code_and_properties(Kind.AUTH, body, 0)
        return Auth(code, found)
    raise ProtocolError(Reason.MALFORMED, f"there is no packet of type {kind}")


def _end(body: bytes, at: int) -> None:
    if at != len(body):
        raise ProtocolError(Reason.MALFORMED, "the packet is longer than it should be")


def _number(body: bytes, at: int) -> int:
    if at + 2 > len(body):
        raise ProtocolError(Reason.MALFORMED, "the packet ends too early")
    return int.from_bytes(body[at : at + 2], "big")


def _packet_id(body: bytes, at: int) -> int:
    number = _number(body, at)
    if not number:
        raise ProtocolError(Reason.MALFORMED, "packet id 0")
    return number


def _byte(body: bytes, at: int) -> int:
    if at >= len(body):
        raise ProtocolError(Reason.MALFORMED, "the packet ends too early")
    return body[at]


def _read_publish(flags: int, body: bytes, version: int) -> Publish:
    qos = flags >> 1 & 3
    if qos == 3 or (not qos and flags & 8):
        raise ProtocolError(Reason.MALFORMED, "PUBLISH with flags that do not go together")
    topic, at = read_text(body, 0)
    packet_id = 0
    if qos:
        packet_id = _packet_id(body, at)
        at += 2
    found = None
    if version == V5:
        found, at = props.decode(Kind.PUBLISH, body, at)
    if topic or found is None or props.TOPIC_ALIAS not in found:
        check_topic(topic)
    if found is not None and props.RESPONSE_TOPIC in found:
        check_topic(found[props.RESPONSE_TOPIC])
    return Publish(topic, body[at:], qos, bool(flags & 1), bool(flags & 8), packet_id, found)


def _read_ack(kind: int, body: bytes, version: int) -> Ack:
    packet_id = _packet_id(body, 0)
    if len(body) == 2:
        return Ack(kind, packet_id)
    if version != V5:
        raise ProtocolError(Reason.MALFORMED, "an acknowledgement longer than it should be")
    code, found = _code_and_properties(kind, body, 2)
    return Ack(kind, packet_id, code, found)


def _code_and_properties(kind: int, body: bytes, at: int) -> tuple[int, dict[int, object] | None]:
    if at == len(body):
        return 0, None
    code = body[at]
    if at + 1 == len(body):
        return code, None
    found, end = props.decode(kind, body, at + 1)
    _end(body, end)
    return code, found


def _read_connect(body: bytes) -> Connect:
    name, at = read_text(body, 0)
    level = _byte(body, at)
    version = level & 0x7F if level in (_BRIDGE | V3_1, _BRIDGE | V3_1_1) else level
    if (name, version) not in _NAMES:
        if name not in ("MQTT", "MQIsdp"):
            raise ProtocolError(Reason.MALFORMED, "that is not MQTT")
        raise ProtocolError(Reason.VERSION, f"{name} version {version}")
    flags = _byte(body, at + 1)
    will_qos = flags >> 3 & 3
    if flags & 1 or will_qos == 3 or (not flags & 4 and flags & 0x38) or (version != V5 and flags & 0xC0 == 0x40):
        raise ProtocolError(Reason.MALFORMED, "CONNECT with flags that do not go together")
    keep_alive_s = _number(body, at + 2)
    at += 4
    found = None
    if version == V5:
        found, at = props.decode(Kind.CONNECT, body, at)
    connect = Connect("", version, bool(flags & 2), keep_alive_s, properties=found, is_bridge=level != version)
    connect.client_id, at = read_text(body, at)
    if flags & 4:
        will_found = None
        if version == V5:
            will_found, at = props.decode(props.WILL, body, at)
        topic, at = read_text(body, at)
        check_topic(topic)
        payload, at = _binary(body, at)
        connect.will = Will(topic, payload, will_qos, bool(flags & 0x20), will_found)
    if flags & 0x80:
        connect.username, at = read_text(body, at)
    if flags & 0x40:
        connect.password, at = _binary(body, at)
    _end(body, at)
    return connect


def _binary(body: bytes, at: int) -> tuple[bytes, int]:
    end = at + 2 + _number(body, at)
    if end > len(body):
        raise ProtocolError(Reason.MALFORMED, "the packet ends too early")
    return body[at + 2 : end], end


def _read_connack(body: bytes, version: int) -> Connack:
    flags, code = _byte(body, 0), _byte(body, 1)
    if flags > 1:
        raise ProtocolError(Reason.MALFORMED, "CONNACK with unknown flags")
    found, at = None, 2
    if version == V5:
        found, at = props.decode(Kind.CONNACK, body, at)
    _end(body, at)
    return Connack(code, bool(flags), found)


def _read_subscribe(body: bytes, version: int) -> Subscribe:
    packet_id, at, found = _packet_id(body, 0), 2, None
    if version == V5:
        found, at = props.decode(Kind.SUBSCRIBE, body, at)
    filters: list[Subscription] = []
    while at < len(body) or not filters:
        pattern, at = read_text(body, at)
        check_filter(pattern)
        options = _byte(body, at)
        at += 1
        if options & 3 == 3 or options & (0xC0 if version == V5 else 0xFC) or options & 0x30 == 0x30:
            raise ProtocolError(Reason.MALFORMED, "SUBSCRIBE with unknown options")
        if options & 4 and pattern.startswith("$share/"):
            raise ProtocolError(Reason.PROTOCOL_ERROR, "a shared subscription cannot be without local messages")
        _check_count(filters)
        filters.append(Subscription(pattern, options & 3, bool(options & 4), bool(options & 8), options >> 4 & 3))
    return Subscribe(packet_id, filters, found)


def _check_count(filters: Sized) -> None:
    if len(filters) >= MOST_FILTERS:
        raise ProtocolError(Reason.QUOTA, f"more than {MOST_FILTERS} filters in a packet")


def _read_unsubscribe(body: bytes, version: int) -> Unsubscribe:
    packet_id, at, found = _packet_id(body, 0), 2, None
    if version == V5:
        found, at = props.decode(Kind.UNSUBSCRIBE, body, at)
    filters: list[str] = []
    while at < len(body) or not filters:
        pattern, at = read_text(body, at)
        check_filter(pattern)
        _check_count(filters)
        filters.append(pattern)
    return Unsubscribe(packet_id, filters, found)


def _read_codes(kind: int, body: bytes, version: int) -> Suback | Unsuback:
    packet_id, at, found = _packet_id(body, 0), 2, None
    if version == V5:
        found, at = props.decode(kind, body, at)
    made = Suback if kind == Kind.SUBACK else Unsuback
    return made(packet_id, list(body[at:]), found)


def _read_disconnect(body: bytes, version: int) -> Disconnect:
    if version != V5:
        _end(body, 0)
        return Disconnect()
    code, found = _code_and_properties(Kind.DISCONNECT, body, 0)
    return Disconnect(code, found)


def publish_head(topic: str, length: int, qos: int, retain: bool, dup: bool, packet_id: int, found: bytes) -> bytes:
    """Return a PUBLISH up to its payload of ``length`` bytes; ``found`` are encoded properties, b"" before version 5."""
    name = topic.encode()
    size = 2 + len(name) + (2 if qos else 0) + len(found) + length
    head = bytes((0x30 | dup << 3 | qos << 1 | retain,)) + varint_bytes(size) + len(name).to_bytes(2, "big") + name
    return head + (packet_id.to_bytes(2, "big") if qos else b"") + found


def encode(packet: Packet, version: int) -> bytes:
    """Return a packet as it is sent. Raises ValueError for what cannot be written."""
    is_5 = version == V5
    if isinstance(packet, Publish):
        found = props.encode(packet.properties) if is_5 else b""
        length = len(packet.payload)
        head = publish_head(packet.topic, length, packet.qos, packet.retain, packet.dup, packet.packet_id, found)
        return head + packet.payload
    if isinstance(packet, Ack):
        return _framed(packet.kind, packet.packet_id.to_bytes(2, "big") + _tail(packet.code, packet.properties, is_5))
    if isinstance(packet, Ping):
        return bytes((packet.kind << 4, 0))
    if isinstance(packet, Connect):
        return _framed(Kind.CONNECT, _connect_body(packet))
    if isinstance(packet, Connack):
        found = props.encode(packet.properties) if is_5 else b""
        return _framed(Kind.CONNACK, bytes((packet.session_present, packet.code)) + found)
    if isinstance(packet, Disconnect):
        return _framed(Kind.DISCONNECT, _tail(packet.code, packet.properties, is_5))
    if isinstance(packet, Auth):
        return _framed(Kind.AUTH, _tail(packet.code, packet.properties, True))
    body = packet.packet_id.to_bytes(2, "big") + (props.encode(packet.properties) if is_5 else b"")
    if isinstance(packet, Subscribe):
        return _framed(
            Kind.SUBSCRIBE, body + b"".join(text_bytes(one.filter) + _options(one) for one in packet.filters)
        )
    if isinstance(packet, Unsubscribe):
        return _framed(Kind.UNSUBSCRIBE, body + b"".join(map(text_bytes, packet.filters)))
    kind = Kind.SUBACK if isinstance(packet, Suback) else Kind.UNSUBACK
    return _framed(kind, body + (bytes(packet.codes) if is_5 or kind == Kind.SUBACK else b""))


def _framed(kind: int, body: bytes) -> bytes:
    return bytes((kind << 4 | _FLAGS.get(kind, 0),)) + varint_bytes(len(body)) + body  # type: ignore[call-overload]


def _tail(code: int, found: dict[int, object] | None, is_5: bool) -> bytes:
    if not is_5 or (not code and not found):
        return b""
    return bytes((code,)) + (props.encode(found) if found else b"")


def _options(one: Subscription) -> bytes:
    return bytes((one.qos | one.no_local << 2 | one.retain_as_published << 3 | one.retain_handling << 4,))


def _connect_body(packet: Connect) -> bytes:
    will = packet.will
    flags = packet.clean_start << 1
    if will is not None:
        flags |= 4 | will.qos << 3 | will.retain << 5
    flags |= (packet.username is not None) << 7 | (packet.password is not None) << 6
    is_5 = packet.version == V5
    out = [
        text_bytes("MQIsdp" if packet.version == V3_1 else "MQTT"),
        bytes((packet.version | packet.is_bridge << 7, flags)),
    ]
    out.append(packet.keep_alive_s.to_bytes(2, "big"))
    out += [props.encode(packet.properties)] if is_5 else []
    out.append(text_bytes(packet.client_id))
    if will is not None:
        out += [props.encode(will.properties)] if is_5 else []
        out += [text_bytes(will.topic), len(will.payload).to_bytes(2, "big"), will.payload]
    if packet.username is not None:
        out.append(text_bytes(packet.username))
    if packet.password is not None:
        out += [len(packet.password).to_bytes(2, "big"), packet.password]
    return b"".join(out)
