"""What a client must not be able to do to others, or to the broker's memory and time."""

from __future__ import annotations

from typing import Any

import pytest
from mqtt_bench import Bench

from edgesite.wire.mqtt import properties as props
from edgesite.wire.mqtt.access import Acl
from edgesite.wire.mqtt.codec import encode
from edgesite.wire.mqtt.connection import Peer, State
from edgesite.wire.mqtt.packets import (
    Ack,
    Connack,
    Connect,
    Disconnect,
    Kind,
    Publish,
    Reason,
    Subscribe,
    Subscription,
    Unsubscribe,
    Will,
)
from edgesite.wire.mqtt.session import Limits, NoJournal

KEEP = {props.SESSION_EXPIRY: 100}
DURABLE: dict[str, Any] = {"clean_start": False, "properties": KEEP}


class Stuck(NoJournal):
    """A disk that does not answer."""

    def received(self, client_id: str, packet_id: int) -> None:
        self.sequence += 1


@pytest.mark.parametrize(("version", "code"), [(4, 2), (5, Reason.CLIENT_ID)])
def test_another_user_does_not_end_a_session_by_its_client_id(version: int, code: int) -> None:
    bench = Bench()
    given = DURABLE if version == 5 else {"clean_start": False}
    anna = bench.client("same", version, username="anna", will=Will("anna/gone"), **given)
    anna.subscribe("a", 1)
    watcher = bench.client("w")
    watcher.subscribe("anna/gone")
    for name in ("bert", None):
        for clean in (True, False):
            bert = bench.client("same", version, username=name, clean_start=clean)
            assert (bert.connack.code, bert.connection.is_over) == (code, True)
    assert anna.connection.state is State.OPEN
    assert watcher.messages() == []
    anna.lose()
    assert bench.client("same", version, username="bert", **given).connack.code == code
    watcher.publish("a", b"kept", 1)
    again = bench.client("same", version, username="anna", **given)
    assert (again.connack.session_present, again.payloads()) == (True, [b"kept"])


def test_a_session_of_nobody_or_of_a_user_who_is_no_more_yields() -> None:
    bench = Bench()
    nobody = bench.client("same", **DURABLE)
    anna = bench.client("same", username="anna", **DURABLE)
    assert (anna.connack, nobody.connection.is_over) == (Connack(0, False, anna.connack.properties), True)
    anna.lose()
    bench.broker.is_user = lambda name: name != "anna"
    bert = bench.client("same", username="bert", **DURABLE)
    assert (bert.connack.code, bert.connack.session_present) == (0, False)


def test_names_and_client_ids_open_no_more_than_their_own_place() -> None:
    acl = Acl.parse("pattern readwrite %c/#\npattern readwrite %u/x\npattern read u/%u/#")
    assert acl.allows("", "c1", "c1/x", "write")
    assert not acl.allows("", "$hw", "$hw/events/device/d/twin/update", "write")
    assert not acl.allows("$SYS", "c", "$SYS/x", "read")
    assert acl.allows("$SYS", "c", "u/$SYS/x", "read")
    assert not acl.allows("%c", "anna", "u/anna/x", "read")


def test_who_may_not_read_does_not_swallow_what_a_group_shares() -> None:
    bench = Bench(acl=Acl.parse("user anna\ntopic read jobs\nuser boss\ntopic write jobs"))
    anna, thief = bench.client("a", username="anna"), bench.client("t", username="thief")
    boss = bench.client("b", username="boss")
    for one in (anna, thief):
        one.subscribe("$share/workers/jobs", 1)
    for number in range(6):
        boss.publish("jobs", b"%d" % number, 1)
    assert anna.payloads() == [b"%d" % number for number in range(6)]
    assert thief.messages() == []


def test_user_properties_count_as_what_is_held_and_retained() -> None:
    bench = Bench(Limits(retained_bytes=50_000, queued_bytes=50_000))
    away = bench.client("away", **DURABLE)
    away.subscribe("t/#", 1)
    away.lose()
    writer = bench.client("w")
    large = {props.USER_PROPERTY: [("name", "v" * 100)] * 100}
    for number in range(20):
        writer.publish(f"t/{number}", b"x", 1, retain=True, properties=large)
    assert bench.broker.counts.retained_refused >= 15
    assert bench.broker.counts.dropped_full >= 15
    assert bench.broker.sessions["away"].held_bytes <= 50_000


@pytest.mark.parametrize("kind", ["properties", "subscribe", "unsubscribe"])
def test_one_packet_does_not_hold_endless_lists(kind: str) -> None:
    client = Bench().client("c")
    if kind == "properties":
        client.publish("t", properties={props.USER_PROPERTY: [("", "")] * 5_000})
    elif kind == "subscribe":
        client.send(Subscribe(1, [Subscription("#")] * 10_000))
    else:
        client.send(Unsubscribe(1, ["a"] * 10_000))
    assert client.last(Disconnect).code == Reason.QUOTA


def test_retained_messages_are_looked_for_once_for_each_filter_and_only_so_long() -> None:
    bench = Bench(Limits(offered=10))
    writer, reader = bench.client("w"), bench.client("r")
    for number in range(20):
        writer.publish(f"a/{number}", retain=True)
    reader.send(Subscribe(1, [Subscription("a/1")] * 50))
    assert len(reader.messages()) == 1
    looked: list[str] = []
    find = bench.broker.retained.find

    def count(pattern: str, budget: Any) -> Any:
        looked.append(pattern)
        return find(pattern, budget)

    bench.broker.retained.find = count  # type: ignore[method-assign]
    reader.connection.set_writable(False, bench.now)
    reader.send(Subscribe(2, [Subscription("+/" * n + "#") for n in range(50)]))
    assert len(looked) <= 2


def test_filters_are_bounded_by_their_bytes() -> None:
    bench = Bench(Limits(granted_bytes=1_600_000))
    one = bench.client("one")
    assert one.subscribe("x" * 60_000) == [2]
    assert one.subscribe("y" * 60_000) == [Reason.QUOTA]
    assert one.subscribe("x" * 60_000, 1) == [1]
    one.unsubscribe("x" * 60_000)
    assert one.subscribe("y" * 60_000) == [2]
    many = [bench.client(f"c{number}") for number in range(40)]
    assert [client.subscribe("z" * 60_000) for client in many].count([Reason.QUOTA]) >= 14
    for client in (one, *many):
        client.send(Disconnect())
    assert bench.broker.counts.granted_bytes == 0


def test_ids_of_an_earlier_connection_do_not_shut_a_client_out() -> None:
    """A client that has lost its memory never releases what it sent before."""
    bench = Bench(Limits(inflight=5))
    for _ in range(3):
        client = bench.client("c", **DURABLE)
        client.acks = False
        for number in range(1, 5):
            client.next_id += bench.broker.counts.received
            client.publish("t", b"x", 2)
            assert client.last(Ack).code < 0x80, number
        client.lose()
    client = bench.client("c", **DURABLE)
    client.next_id = 1000
    client.publish("t", b"y", 2)
    assert client.last(Ack).kind == Kind.PUBCOMP


def test_ids_that_nobody_releases_are_bounded() -> None:
    bench = Bench(Limits(received=10))
    client = bench.client("c", 4, clean_start=False)
    client.acks = False
    for _ in range(11):
        client.publish("t", b"x", 2)
    assert client.connection.is_over
    bench.client("c", 4)
    assert bench.broker.counts.unreleased == 0


def test_long_topics_are_not_remembered() -> None:
    bench = Bench()
    writer = bench.client("w")
    for number in range(5):
        writer.publish(f"{number}" * 5_000)
    assert bench.broker._tree._cache == {}


def test_what_comes_before_connect_is_answered_counts_as_held() -> None:
    bench = Bench()
    connection = bench.broker.open(Peer("test"), bench.now)
    assert connection is not None
    connection.receive(encode(Connect("c"), 4), bench.now)
    connection.receive(b"x" * 100_000, bench.now)
    assert connection.held >= 100_000


def test_answers_that_wait_for_the_disk_are_bounded() -> None:
    bench = Bench(journal=Stuck())
    client = bench.client("c", 4, clean_start=False)
    client.publish("t", b"x", 2)
    assert not bench.broker.is_behind
    for number in range(11_000):
        client.connection.receive(encode(Publish("t", b"x", 2, packet_id=1, dup=True), 4), bench.now)
        if number == 10_500:
            assert bench.broker.is_behind
    bench.broker.stored(bench.broker.journal.sequence, bench.now)
    assert not bench.broker.is_behind


def test_topics_of_many_levels_take_the_room_that_their_tree_does() -> None:
    bench = Bench(Limits(retained_bytes=100_000))
    writer = bench.client("w")
    for number in range(10):
        writer.publish(f"{number}/" * 120 + "x", retain=True)
    assert bench.broker.retained.count == 2


def test_one_packet_looks_through_what_is_retained_only_so_long() -> None:
    bench = Bench()
    writer, reader = bench.client("w"), bench.client("r")
    for number in range(3_000):
        writer.publish(f"a/{number}/b/c", retain=True)
    names = ["nope", "nix", "never"]
    filters = [Subscription(f"+/+/{one}/{number}") for number in range(100) for one in ("+", "b", *names)]
    reader.send(Subscribe(1, filters))
    assert bench.broker.counts.dropped_full > 0
    reader.send(Subscribe(2, [Subscription("a/#")]))
    assert len(reader.messages()) == 3_000


def test_who_opens_too_many_sessions_loses_their_own() -> None:
    bench = Bench(Limits(sessions=5))
    anna = bench.client("anna-1", username="anna", **DURABLE)
    anna.lose()
    for number in range(10):
        bench.client(
            f"bert-{number}", username="bert", clean_start=False, properties={props.SESSION_EXPIRY: 9_999}
        ).lose()
    assert len(bench.broker.sessions) == 5
    assert "anna-1" in bench.broker.sessions


def test_topic_aliases_are_bounded_by_their_bytes() -> None:
    client = Bench().client("c")
    for alias in range(1, 33):
        client.publish(f"{alias}/" + "x" * 60, properties={props.TOPIC_ALIAS: alias})
    assert not client.connection.is_over
    for alias in range(1, 5):
        for _ in range(2):
            client.publish(f"{alias}/" + "x" * 60_000, properties={props.TOPIC_ALIAS: alias})
    assert client.last(Disconnect).code == Reason.QUOTA
    assert sum(map(len, client.connection._aliases.values())) < 140_000
