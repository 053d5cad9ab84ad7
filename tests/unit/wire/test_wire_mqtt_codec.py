"""MQTT's codec: every packet there and back in each version, nonsense refused, limits, any split of the bytes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.wire.mqtt import properties as props
from edgesite.wire.mqtt.codec import Decoder, encode
from edgesite.wire.mqtt.packets import (
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

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
TOPIC = st.text(st.sampled_from("abc/$é "), min_size=1, max_size=12)
FILTER = st.sampled_from(["a", "a/b", "+/a", "#", "a/#", "$share/g/a/+", "$SYS/#", "/", "+", "a//b"])
IDS = st.integers(1, 65535)
PAIRS = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3)


def some(**strategies: Any) -> st.SearchStrategy[dict[int, Any] | None]:
    found = {getattr(props, name): one for name, one in strategies.items()}
    return st.one_of(st.none(), st.fixed_dictionaries({}, optional=found).map(lambda one: one or None))


FORWARDED = {
    "PAYLOAD_FORMAT": st.integers(0, 1),
    "MESSAGE_EXPIRY": st.integers(0, 2**32 - 1),
    "CONTENT_TYPE": TEXT,
    "RESPONSE_TOPIC": TOPIC,
    "CORRELATION": st.binary(max_size=9),
    "USER_PROPERTY": PAIRS,
}
REASONS = some(REASON_STRING=TEXT, USER_PROPERTY=PAIRS)
WILLS = st.one_of(
    st.none(),
    st.builds(
        Will,
        TOPIC,
        st.binary(max_size=20),
        st.integers(0, 2),
        st.booleans(),
        some(WILL_DELAY=st.integers(0, 99), **FORWARDED),
    ),
)
CONNECTS = st.builds(
    Connect,
    TEXT,
    st.just(5),
    st.booleans(),
    st.integers(0, 65535),
    st.one_of(st.none(), TEXT),
    st.one_of(st.none(), st.binary(max_size=9)),
    WILLS,
    some(SESSION_EXPIRY=st.integers(0, 2**32 - 1), RECEIVE_MAXIMUM=IDS, MAXIMUM_PACKET=IDS, AUTH_METHOD=TEXT),
)
PUBLISHES = st.integers(0, 2).flatmap(
    lambda qos: st.builds(
        Publish,
        TOPIC,
        st.binary(max_size=300),
        st.just(qos),
        st.booleans(),
        st.booleans() if qos else st.just(False),
        IDS if qos else st.just(0),
        some(
            TOPIC_ALIAS=IDS, SUBSCRIPTION_ID=st.lists(st.integers(1, 268_435_455), min_size=1, max_size=3), **FORWARDED
        ),
    )
)
ACK_KINDS = st.sampled_from([Kind.PUBACK, Kind.PUBREC, Kind.PUBREL, Kind.PUBCOMP])
SUBSCRIPTIONS = st.builds(
    Subscription, FILTER.filter(lambda one: "$share" not in one), st.integers(0, 2), st.booleans(), st.booleans(), st.integers(0, 2)
)  # fmt: skip
PACKETS: st.SearchStrategy[Packet] = st.one_of(
    CONNECTS,
    st.builds(
        Connack, st.sampled_from([0, 0x80, 0x87]), st.booleans(), some(ASSIGNED_ID=TEXT, SHARED_AVAILABLE=st.just(0))
    ),
    PUBLISHES,
    st.builds(Ack, ACK_KINDS, IDS, st.sampled_from([0, 0x10, 0x92]), REASONS),
    st.builds(
        Subscribe,
        IDS,
        st.lists(SUBSCRIPTIONS, min_size=1, max_size=4),
        some(SUBSCRIPTION_ID=st.integers(1, 268_435_455).map(lambda one: [one])),
    ),
    st.builds(Suback, IDS, st.lists(st.integers(0, 2), min_size=1, max_size=3), REASONS),
    st.builds(Unsubscribe, IDS, st.lists(FILTER, min_size=1, max_size=3), some(USER_PROPERTY=PAIRS)),
    st.builds(Unsuback, IDS, st.lists(st.just(0x11), min_size=1, max_size=3), REASONS),
    st.builds(Ping, st.sampled_from([Kind.PINGREQ, Kind.PINGRESP])),
    st.builds(Disconnect, st.sampled_from([0, 4, 0x8E]), some(SESSION_EXPIRY=st.integers(0, 9), SERVER_REFERENCE=TEXT)),
    st.builds(Auth, st.sampled_from([0, 0x18]), some(AUTH_METHOD=TEXT, AUTH_DATA=st.binary(max_size=5))),
)


@given(st.lists(PACKETS, min_size=1, max_size=5), st.lists(st.integers(0, 400), max_size=6))
def test_packets_of_version_5_go_there_and_back_in_any_pieces(packets: list[Packet], cuts: list[int]) -> None:
    data = b"".join(encode(one, 5) for one in packets)
    decoder, found, at = Decoder(version=5), [], 0
    for cut in [*sorted(cuts), len(data)]:
        found += list(decoder.feed(data[at:cut]))
        at = max(at, cut)
    assert found == packets
    assert decoder.held == 0


def older(packet: Any) -> bool:
    return getattr(packet, "properties", None) is None and (
        (isinstance(packet, Publish | Ping | Unsubscribe | Suback))
        or (isinstance(packet, Ack | Disconnect) and packet.code == 0)
    )


@given(PACKETS.filter(older), st.sampled_from([3, 4]))
def test_packets_of_older_versions_go_there_and_back(packet: Packet, version: int) -> None:
    assert list(Decoder(version=version).feed(encode(packet, version))) == [packet]


def strip(connect: Connect, version: int) -> Connect:
    will = connect.will
    bare = None if will is None else Will(will.topic, will.payload, will.qos, will.retain)
    password = connect.password if connect.username is not None else None
    return Connect(
        connect.client_id, version, connect.clean_start, connect.keep_alive_s, connect.username, password, bare
    )


@given(CONNECTS, st.sampled_from([3, 4]))
def test_connect_of_older_versions_sets_the_version(connect: Connect, version: int) -> None:
    connect = strip(connect, version)
    decoder = Decoder(version=5)
    assert list(decoder.feed(encode(connect, version))) == [connect]
    assert decoder.version == version


@given(st.binary(max_size=60), st.sampled_from([4, 5]))
def test_nonsense_is_refused_and_nothing_else_happens(data: bytes, version: int) -> None:
    decoder = Decoder(max_bytes=1000, version=version)
    try:
        for packet in decoder.feed(data):
            assert packet is not None
    except ProtocolError:
        return


@given(PACKETS, st.data())
def test_a_packet_with_a_wrong_byte_is_read_or_refused(packet: Packet, data: st.DataObject) -> None:
    raw = bytearray(encode(packet, 5))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        list(Decoder(max_bytes=2000, version=5).feed(bytes(raw)))
    except ProtocolError:
        return


@pytest.mark.parametrize(
    ("data", "version", "reason"),
    [
        ("0000", 5, Reason.MALFORMED),  # no such packet
        ("f000", 4, Reason.MALFORMED),  # AUTH came with version 5
        ("3600", 5, Reason.MALFORMED),  # QoS 3
        ("3803000161", 5, Reason.MALFORMED),  # DUP with QoS 0
        ("30030001 2b", 4, Reason.BAD_TOPIC),  # to a wildcard
        ("3002 0000", 4, Reason.BAD_TOPIC),  # to nothing
        ("3205 0001 61 0000", 4, Reason.MALFORMED),  # packet id 0
        ("8206 0001 0001 61 03", 4, Reason.MALFORMED),  # QoS 3 in SUBSCRIBE
        ("8202 0001", 4, Reason.MALFORMED),  # no filter
        ("8206 0001 0001 00 00", 4, Reason.MALFORMED),  # U+0000
        ("8208 0001 0003 612f23 41", 4, Reason.MALFORMED),
        ("8207 0001 0002 2361 00", 4, Reason.BAD_FILTER),  # "#a"
        ("800600010001 6100", 4, Reason.MALFORMED),  # flags of SUBSCRIBE
        ("ffffffffff", 5, Reason.MALFORMED),  # a length that does not end
        ("30ff ff7f", 5, Reason.TOO_LARGE),
        ("c001 00", 5, Reason.MALFORMED),  # PINGREQ with a body
        ("1008 0004 4d515454 0600", 5, Reason.VERSION),
        ("1007 0005 48545450 2f", 5, Reason.MALFORMED),  # HTTP
        ("100c 0004 4d515454 0401 0000 0000", 5, Reason.MALFORMED),  # reserved flag
        ("100c 0004 4d515454 0440 0000 0000", 5, Reason.MALFORMED),  # password without name, before version 5
        ("3007 0001 61 03 0102 00", 5, Reason.PROTOCOL_ERROR),  # payload format 2
        ("3008 0001 61 04 0100 0100", 5, Reason.PROTOCOL_ERROR),  # twice
        ("3006 0001 61 02 1300", 5, Reason.PROTOCOL_ERROR),  # a property of CONNACK
        ("3006 0001 61 02 7f00", 5, Reason.MALFORMED),  # no property
        ("3005 0001 61 09 01", 5, Reason.MALFORMED),  # properties beyond the end
    ],
)
def test_what_is_wrong_is_told_by_its_reason(data: str, version: int, reason: Reason) -> None:
    with pytest.raises(ProtocolError) as failure:
        list(Decoder(max_bytes=100_000, version=version).feed(bytes.fromhex(data)))
    assert failure.value.reason is reason


def test_the_limit_of_a_packet_is_exact() -> None:
    packet = Publish("a", bytes(100))
    data = encode(packet, 4)
    assert list(Decoder(max_bytes=len(data)).feed(data)) == [packet]
    with pytest.raises(ProtocolError):
        list(Decoder(max_bytes=len(data) - 1).feed(data[:2]))


def test_what_stands_before_a_mistake_is_given() -> None:
    feed = Decoder().feed(encode(Publish("a", b"x"), 4) + b"\xff\xff\xff\xff\xff")
    assert next(feed) == Publish("a", b"x")
    with pytest.raises(ProtocolError):
        next(feed)


def test_texts_and_integers_that_mqtt_cannot_write_are_refused() -> None:
    with pytest.raises(ValueError, match="65535"):
        props.text_bytes("x" * 65536)
    with pytest.raises(ValueError, match="too large"):
        props.varint_bytes(268_435_456)
