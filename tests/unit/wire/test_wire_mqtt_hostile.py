"""What a client must not be able to do to others, or to the broker's memory and time."""

from __future__ import annotations

import pytest
from mqtt_bench import Bench

from edgesite.wire.mqtt import properties as props
from edgesite.wire.mqtt.access import Acl
from edgesite.wire.mqtt.connection import State
from edgesite.wire.mqtt.packets import Connack, Reason, Will

KEEP = {props.SESSION_EXPIRY: 100}
DURABLE = {"clean_start": False, "properties": KEEP}


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
