"""The broker's core: connections, subscriptions, sessions, wills, retained messages, limits."""

from __future__ import annotations

import pytest
from mqtt_bench import Bench, Client

from edgesite.wire.mqtt import properties as props
from edgesite.wire.mqtt.access import Acl
from edgesite.wire.mqtt.codec import encode
from edgesite.wire.mqtt.connection import Peer
from edgesite.wire.mqtt.packets import (
    Ack,
    Connect,
    Disconnect,
    Kind,
    Packet,
    Ping,
    Publish,
    Reason,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Will,
)
from edgesite.wire.mqtt.session import Limits

KEEP = {props.SESSION_EXPIRY: 100}


@pytest.mark.parametrize("version", [3, 4, 5])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_message_goes_from_one_to_the_other(version: int, qos: int) -> None:
    bench = Bench()
    reader, writer = bench.client("r", version), bench.client("w", version)
    assert reader.connack.code == 0
    assert reader.subscribe("a/+") == [2]
    number = writer.publish("a/b", b"hello", qos)
    (got,) = reader.messages()
    assert (got.topic, got.payload, got.qos, got.retain, got.dup) == ("a/b", b"hello", qos, False, False)
    if qos:
        ack = writer.last(Ack)
        assert (ack.kind, ack.packet_id, ack.code) == ({1: Kind.PUBACK, 2: Kind.PUBCOMP}[qos], number, 0)
    writer.send(Ping(Kind.PINGREQ))
    assert writer.last(Ping).kind == Kind.PINGRESP
    reader.unsubscribe("a/+")
    assert reader.last(Unsuback).codes == ([0] if version == 5 else [])
    writer.publish("a/b", b"gone")
    assert reader.messages() == []


def test_the_lesser_quality_counts_and_overlapping_filters_give_a_message_once() -> None:
    bench = Bench()
    reader, writer = bench.client("r"), bench.client("w")
    reader.subscribe("a/#", 0, properties={props.SUBSCRIPTION_ID: [7]})
    reader.subscribe("a/b", 1, properties={props.SUBSCRIPTION_ID: [3]})
    writer.publish("a/b", b"x", 2)
    (got,) = reader.messages()
    assert got.qos == 1
    assert got.properties == {props.SUBSCRIPTION_ID: [3, 7]}


def test_wildcards_leave_topics_with_a_dollar_alone() -> None:
    bench = Bench()
    reader, writer = bench.client("r"), bench.client("w")
    reader.subscribe("#")
    reader.subscribe("+/events/x")
    writer.publish("$hw/events/x", b"1")
    assert reader.messages() == []
    reader.subscribe("$hw/#")
    writer.publish("$hw/events/x", b"2")
    assert reader.payloads() == [b"2"]


def test_no_local_and_retain_as_published() -> None:
    bench = Bench()
    one = bench.client("one")
    one.subscribe("a", no_local=True)
    one.subscribe("b", retain_as_published=True)
    one.publish("a")
    one.publish("b", retain=True)
    (got,) = one.messages()
    assert (got.topic, got.retain) == ("b", True)


def test_a_bridge_gets_nothing_back_and_retains_what_was_retained() -> None:
    bench = Bench()
    bridge, other = bench.client("b", 4, is_bridge=True), bench.client("o")
    assert bridge.connack.code == 0
    bridge.subscribe("#", 1)
    bridge.publish("a", b"mine", 1)
    other.publish("a", b"theirs", 1, retain=True)
    (got,) = bridge.messages()
    assert (got.payload, got.retain) == (b"theirs", True)


def test_retained_messages_and_how_subscriptions_want_them() -> None:
    bench = Bench()
    writer = bench.client("w")
    writer.publish("a/1", b"one", 1, retain=True)
    writer.publish("a/2", b"two", retain=True)
    writer.publish("$a/3", b"three", retain=True)
    reader = bench.client("r")
    reader.subscribe("a/#", 1)
    assert [(one.payload, one.qos, one.retain) for one in reader.messages()] == [(b"one", 1, True), (b"two", 0, True)]
    reader.subscribe("a/#", 1, retain_handling=1)
    reader.subscribe("a/1", 1, retain_handling=2)
    assert reader.messages() == []
    reader.subscribe("a/#", 1)
    assert len(reader.messages()) == 2
    writer.publish("a/1", b"", retain=True)
    late = bench.client("late")
    late.subscribe("#")
    assert bench.broker.retained.count == 2
    assert [one.topic for one in late.messages()] == ["a/2"]


def test_a_retained_message_that_changes_meanwhile_is_never_followed_by_its_older_self() -> None:
    bench = Bench(Limits(out_bytes=300))
    writer = bench.client("w")
    for n in range(20):
        writer.publish(f"a/{n}", b"old" + bytes(100), retain=True)
    reader = bench.client("r")
    reader.acks = False
    reader.connection.set_writable(False, bench.now)
    reader.send(Subscribe(1, [Subscription("a/#", 1)]))
    writer.publish("a/19", b"new", retain=True)
    reader.connection.set_writable(True, bench.now)
    bench.settle()
    by_topic: dict[str, bytes] = {}
    for one in reader.messages():
        by_topic[one.topic] = one.payload
    assert len(by_topic) == 20
    assert by_topic["a/19"] == b"new"


def test_retained_garbage_has_its_limit() -> None:
    bench = Bench(Limits(retained=3, retained_bytes=1000))
    writer = bench.client("w")
    for n in range(5):
        writer.publish(f"a/{n}", b"x", retain=True)
    writer.publish("a/0", bytes(900), retain=True)
    writer.publish("a/0", b"newer", retain=True)
    assert bench.broker.retained.count == 3
    assert bench.broker.counts.retained_refused == 3
    message = bench.broker.retained.get("a/0")
    assert message is not None
    assert message.payload == b"newer"


@pytest.mark.parametrize("version", [4, 5])
def test_a_durable_session_gets_what_came_meanwhile_in_order(version: int) -> None:
    bench = Bench()
    given = {"clean_start": False, "properties": KEEP if version == 5 else None}
    reader = bench.client("r", version, **given)
    assert not reader.connack.session_present
    reader.subscribe("a", 2)
    reader.lose()
    writer = bench.client("w")
    for n in range(6):
        writer.publish("a", bytes([n]), n % 3)
    again = bench.client("r", version, **given)
    assert again.connack.session_present
    assert again.payloads() == [b"\1", b"\2", b"\4", b"\5"]
    again.lose()
    bench.wait(99)
    assert "r" in bench.broker.sessions
    bench.wait(2)
    assert ("r" in bench.broker.sessions) == (version == 4)
    assert bench.client("r", version, clean_start=True).connack.session_present is False


def test_what_was_not_acknowledged_is_sent_again_and_received_once() -> None:
    bench = Bench()
    reader = bench.client("r", clean_start=False, properties=KEEP)
    reader.subscribe("a", 2)
    reader.acks = False
    writer = bench.client("w")
    writer.publish("a", b"1", 1)
    writer.publish("a", b"2", 2)
    first, second = reader.messages()
    reader.send(Ack(Kind.PUBREC, second.packet_id))
    assert reader.last(Ack).kind == Kind.PUBREL
    reader.lose()
    again = Client(bench)
    again.acks = False
    again.send(Connect("r", 5, False, properties=KEEP))
    assert again.last(Ack) == Ack(Kind.PUBREL, second.packet_id)
    (repeated,) = again.messages()
    assert (repeated.packet_id, repeated.dup, repeated.payload) == (first.packet_id, True, b"1")
    again.send(Ack(Kind.PUBCOMP, second.packet_id), Ack(Kind.PUBACK, first.packet_id))
    assert not bench.broker.sessions["r"].held
    assert bench.broker.counts.held_bytes == 0


def test_a_repeated_message_of_qos_2_is_taken_once() -> None:
    bench = Bench()
    reader, writer = bench.client("r"), bench.client("w", clean_start=False, properties=KEEP)
    reader.subscribe("a")
    writer.acks = False
    writer.send(Publish("a", b"x", 2, packet_id=5))
    writer.lose()
    again = bench.client("w", clean_start=False, properties=KEEP)
    again.acks = False
    again.send(Publish("a", b"x", 2, dup=True, packet_id=5))
    assert again.last(Ack).kind == Kind.PUBREC
    again.send(Ack(Kind.PUBREL, 5))
    again.send(Publish("a", b"y", 2, packet_id=5))
    assert reader.payloads() == [b"x", b"y"]
    again.send(Ack(Kind.PUBREL, 99))
    assert again.last(Ack) == Ack(Kind.PUBCOMP, 99, Reason.ID_UNKNOWN)


def test_the_window_of_a_client_is_kept_and_order_too() -> None:
    bench = Bench()
    reader = bench.client("r", properties={props.RECEIVE_MAXIMUM: 2})
    reader.acks = False
    reader.subscribe("a")
    writer = bench.client("w")
    for n in range(6):
        writer.publish("a", bytes([n]), 1)
    got = reader.messages()
    assert [one.payload for one in got] == [b"\0", b"\1"]
    reader.send(Ack(Kind.PUBACK, got[0].packet_id))
    assert reader.payloads() == [b"\2"]
    reader.acks = True
    reader.send(Ack(Kind.PUBACK, got[1].packet_id))
    assert reader.payloads() == [b"\3", b"\4", b"\5"]


def test_who_sends_more_than_was_allowed_is_told_so() -> None:
    bench = Bench(Limits(inflight=2))
    writer = bench.client("w")
    writer.acks = False
    writer.send(*[Publish("a", b"x", 2, packet_id=n) for n in (1, 2, 3)])
    assert writer.last(Disconnect).code == Reason.RECEIVE_MAXIMUM
    assert writer.connection.is_over


def test_topic_aliases() -> None:
    bench = Bench(Limits(aliases=2))
    reader, writer = bench.client("r"), bench.client("w")
    assert writer.connack.properties is not None
    assert writer.connack.properties[props.TOPIC_ALIAS_MAXIMUM] == 2
    reader.subscribe("#")
    writer.send(Publish("a", b"1", properties={props.TOPIC_ALIAS: 1}))
    writer.send(Publish("", b"2", properties={props.TOPIC_ALIAS: 1}))
    writer.send(Publish("b", b"3", properties={props.TOPIC_ALIAS: 1}))
    writer.send(Publish("", b"4", properties={props.TOPIC_ALIAS: 1}))
    assert [one.topic for one in reader.messages()] == ["a", "a", "b", "b"]
    writer.send(Publish("", b"5", properties={props.TOPIC_ALIAS: 2}))
    assert writer.last(Disconnect).code == Reason.PROTOCOL_ERROR
    other = bench.client("o")
    other.send(Publish("a", b"1", properties={props.TOPIC_ALIAS: 3}))
    assert other.last(Disconnect).code == Reason.BAD_ALIAS


def test_properties_travel_on_and_messages_expire() -> None:
    bench = Bench()
    reader = bench.client("r", clean_start=False, properties=KEEP)
    reader.subscribe("a", 1)
    reader.lose()
    writer = bench.client("w")
    sent = {props.CONTENT_TYPE: "text", props.USER_PROPERTY: [("k", "v"), ("k", "w")], props.RESPONSE_TOPIC: "back"}
    writer.publish("a", b"1", 1, properties={**sent, props.MESSAGE_EXPIRY: 50})
    writer.publish("a", b"2", 1, properties={props.MESSAGE_EXPIRY: 5})
    writer.publish("a", b"3", retain=True, properties={props.MESSAGE_EXPIRY: 5})
    bench.wait(20)
    again = bench.client("r", clean_start=False, properties=KEEP)
    (got,) = again.messages()
    assert got.properties == {**sent, props.MESSAGE_EXPIRY: 30}
    assert bench.broker.counts.dropped_expired == 1
    again.subscribe("a")
    assert again.messages() == []
    assert bench.broker.retained.count == 0


def test_a_client_gets_no_packet_that_is_larger_than_it_wants() -> None:
    bench = Bench()
    reader = bench.client("r", properties={props.MAXIMUM_PACKET: 50})
    reader.subscribe("a")
    bench.client("w").publish("a", bytes(60), 1)
    bench.client("w2").publish("a", bytes(10), 1)
    assert [len(one.payload) for one in reader.messages()] == [10]
    assert bench.broker.counts.dropped_large == 1


def test_shared_subscriptions_take_turns_and_those_who_are_away_come_last() -> None:
    bench = Bench()
    one = bench.client("one", clean_start=False, properties=KEEP)
    two = bench.client("two", clean_start=False, properties=KEEP)
    whole = bench.client("whole")
    for client in (one, two):
        client.subscribe("$share/g/a/#", 1)
    whole.subscribe("a/#")
    writer = bench.client("w")
    for n in range(10):
        writer.publish("a/b", bytes([n]), 1)
    shares = one.payloads(), two.payloads()
    assert sorted(shares[0] + shares[1]) == [bytes([n]) for n in range(10)] == whole.payloads()
    assert len(shares[0]) == len(shares[1])
    one.lose()
    writer.publish("a/b", b"x", 1)
    assert two.payloads() == [b"x"]
    two.lose()
    writer.publish("a/b", b"y", 1)
    back = [bench.client(name, clean_start=False, properties=KEEP).payloads() for name in ("one", "two")]
    assert sorted(back) == [[], [b"y"]]
    writer.publish("late", retain=True)
    assert bench.client("three").subscribe("$share/g/late") == [2]


@pytest.mark.parametrize("version", [4, 5])
def test_a_will_is_published_when_a_client_is_lost_and_not_when_it_leaves(version: int) -> None:
    bench = Bench()
    reader = bench.client("r")
    reader.subscribe("will/#")
    will = Will("will/x", b"gone", 1, True)
    bench.client("w", version, will=will).send(Disconnect())
    assert reader.messages() == []
    bench.client("w", version, will=will).lose()
    assert reader.payloads() == [b"gone"]
    assert bench.broker.retained.get("will/x") is not None
    quiet = bench.client("w", version, will=will, keep_alive_s=10)
    bench.wait(14)
    assert reader.messages() == []
    quiet.send(Ping(Kind.PINGREQ))
    bench.wait(16)
    assert quiet.connection.is_over
    assert reader.payloads() == [b"gone"]


def test_a_delayed_will_waits_for_the_client_to_come_back_or_its_session_to_end() -> None:
    bench = Bench()
    reader = bench.client("r")
    reader.subscribe("will/#")
    will = Will("will/x", b"gone", properties={props.WILL_DELAY: 10})
    bench.client("w", clean_start=False, properties=KEEP, will=will).lose()
    bench.wait(9)
    bench.client("w", clean_start=False, properties=KEEP, will=will).lose()
    bench.wait(9)
    assert reader.messages() == []
    bench.wait(2)
    assert reader.payloads() == [b"gone"]
    bench.client("w", properties={props.SESSION_EXPIRY: 3}, will=will).lose()
    bench.wait(4)
    assert reader.payloads() == [b"gone"]
    bench.client("w", clean_start=False, properties=KEEP, will=will).lose()
    bench.client("w", clean_start=True)
    assert reader.payloads() == [b"gone"]
    bench.client("v", will=will).send(Disconnect(Reason.WILL_ON_DISCONNECT))
    assert reader.payloads() == [b"gone"]


def test_the_same_client_id_ends_the_older_connection() -> None:
    bench = Bench()
    old = bench.client("same", will=Will("w"))
    new = bench.client("same")
    assert old.connection.is_over
    assert old.last(Disconnect).code == Reason.TAKEN_OVER
    assert not new.connection.is_over
    assert len(bench.broker.sessions) == 1


def test_another_user_does_not_get_the_session_of_a_client_id() -> None:
    bench = Bench()
    given = {"clean_start": False, "properties": KEEP}
    one = bench.client("same", username="anna", **given)
    one.subscribe("secret")
    one.lose()
    bench.client("w").publish("secret", b"x", 1)
    other = bench.client("same", username="bert", **given)
    assert other.connack.code == Reason.CLIENT_ID
    assert other.messages() == []


def test_client_ids_that_are_missing() -> None:
    bench = Bench()
    given = bench.client("", 5)
    assert given.connack.properties is not None
    assert given.connack.properties[props.ASSIGNED_ID].startswith("auto-")
    assert bench.client("", 4).connack.code == 0
    assert bench.client("", 4, clean_start=False).connack.code == 2
    assert bench.client("", 3).connack.code == 2
    assert bench.client("x" * 2000, 5).connack.code == Reason.CLIENT_ID


def test_enhanced_authentication_is_refused() -> None:
    assert Bench().client("a", properties={props.AUTH_METHOD: "SCRAM"}).connack.code == Reason.BAD_AUTH_METHOD


def test_a_connection_must_begin_with_connect_in_time_and_once() -> None:
    bench = Bench()
    early = Client(bench)
    early.send(Ping(Kind.PINGREQ))
    assert early.connection.is_over
    silent = Client(bench)
    bench.wait(11)
    assert silent.connection.is_over
    twice = bench.client("a")
    twice.send(Connect("a", 5))
    assert twice.last(Disconnect).code == Reason.PROTOCOL_ERROR
    assert bench.broker.next_timer() is None


def test_what_comes_while_it_is_asked_who_it_is_waits() -> None:
    bench = Bench()
    reader = bench.client("r")
    reader.subscribe("a")
    client = Client(bench)
    client.connection.receive(encode_all(Connect("w", 5), Publish("a", b"1")), bench.now)
    client.connection.receive(encode_all(Publish("a", b"2")), bench.now)
    assert reader.messages() == []
    bench.settle()
    assert reader.payloads() == [b"1", b"2"]


def encode_all(*packets: Packet) -> bytes:
    return b"".join(encode(one, 5) for one in packets)


def test_the_acl_keeps_back_and_lets_through() -> None:
    text = "topic read news/#\nuser anna\ntopic write $hw/events/+/x\ntopic readwrite a/#\ntopic deny a/secret\npattern own/%u/%c/#"
    bench = Bench(acl=Acl.parse(text))
    anna = bench.client("c1", username="anna")
    nobody = bench.client("c2", 4)
    for client in (anna, nobody):
        client.subscribe("#")
        client.subscribe("$hw/#")
    number = anna.publish("a/secret", b"x", 1)
    assert anna.last(Ack) == Ack(Kind.PUBACK, number, Reason.NOT_AUTHORIZED)
    anna.publish("a/open", b"y", 1)
    anna.publish("own/anna/c1/z", b"z")
    anna.publish("own/bert/c1/z", b"z")
    anna.publish("$hw/events/d/x", b"up", 2)
    assert [one.topic for one in anna.messages()] == ["a/open", "own/anna/c1/z"]
    nobody.publish("news/today", b"n", 1)
    assert nobody.last(Ack) == Ack(Kind.PUBACK, nobody.next_id)
    assert nobody.messages() == []


def test_limits_of_queues_sessions_and_subscriptions() -> None:
    bench = Bench(Limits(queued=5, queued_offline=3, sessions=2, subscriptions=2, inflight=2))
    reader = bench.client("r", clean_start=False, properties=KEEP)
    assert [reader.subscribe(name) for name in ("a", "b", "c")] == [[2], [2], [Reason.QUOTA]]
    reader.acks = False
    writer = bench.client("w")
    for n in range(9):
        writer.publish("a", bytes([n]), 1)
    assert len(bench.broker.sessions["r"].held) == 5
    assert bench.broker.counts.dropped_full == 4
    reader.lose()
    writer.publish("a", b"x", 1)
    assert bench.broker.counts.dropped_full == 5
    bench.client("third", clean_start=False, properties=KEEP)
    assert set(bench.broker.sessions) == {"w", "third"}
    assert bench.broker.counts.held_bytes == 0


def test_connections_have_a_limit_and_places_become_free() -> None:
    bench = Bench(Limits(connections=2))
    first, _ = bench.client("a"), bench.client("b")
    assert bench.broker.open(Peer(), bench.now) is None
    first.lose()
    assert bench.client("c").connack.code == 0


def test_a_slow_reader_is_not_given_more_than_it_takes() -> None:
    bench = Bench(Limits(queued=10, queued_bytes=5000))
    reader, writer = bench.client("r"), bench.client("w")
    reader.subscribe("a", 0)
    reader.connection.set_writable(False, bench.now)
    for n in range(50):
        writer.publish("a", bytes([n]) * 100)
    assert reader.messages() == []
    reader.connection.set_writable(True, bench.now)
    bench.settle()
    assert [one.payload[0] for one in reader.messages()] == list(range(10))
    assert bench.broker.counts.dropped_full == 40


def test_at_its_end_the_broker_says_so_and_publishes_no_wills() -> None:
    bench = Bench()
    reader, other = bench.client("r", 5), bench.client("w", 5, will=Will("a", b"gone"))
    reader.subscribe("#")
    bench.broker.close(bench.now)
    bench.settle()
    assert other.last(Disconnect).code == Reason.SHUTTING_DOWN
    assert reader.messages() == []


def test_a_subscription_tells_its_codes_for_each_filter() -> None:
    bench = Bench()
    reader = bench.client("r", 4)
    reader.send(Subscribe(1, [Subscription("a", 0), Subscription("b", 1), Subscription("a", 2)]))
    assert reader.last(Suback).codes == [0, 1, 2]
