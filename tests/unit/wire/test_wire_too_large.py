"""What the transport would not carry is refused by its sender, once, and cuts no link."""

from __future__ import annotations

import random
from typing import Any

import pytest

from edgesite.wire import frames, greeting
from edgesite.wire.edge_session import EdgeLimits, EdgeSession
from edgesite.wire.events import Delivered, Refused
from edgesite.wire.frames import Frame
from edgesite.wire.message import Message, MessageMaker, Operation, error_status
from edgesite.wire.node_session import NodeSession, SessionLimits

MAKER = MessageMaker(lambda: 1700000000.0, random.Random(7).getrandbits)
MOST = 100_000
LIMITS = SessionLimits(message_bytes=MOST, frame_bytes=8 * 1024)
EDGE_LIMITS = EdgeLimits(message_bytes=MOST, frame_bytes=8 * 1024)
LARGE = "".join(random.Random(3).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=MOST))


def config_map(name: str, version: int, data: str, operation: str = "update", **more: Any) -> Message:
    metadata = {"name": name, "namespace": "default", "uid": f"uid-{name}", "resourceVersion": str(version)}
    body = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata, "data": {"text": data}}
    path = f"node/e1/default/configmap/{name}"
    return MAKER.make("edgecontroller", "resource", operation, path, body, resource_version=str(version), **more)


def greeted(*, own: bool) -> NodeSession:
    held: dict[str, int] = {}
    session = NodeSession("e1", MAKER, now=0.0, version_at_edge=held.get, jitter=lambda: 0.0, limits=LIMITS)
    hello = greeting.greeting() if own else "ping"
    session.receive(MAKER.make("websocket", "resource", "keepalive", "node", hello), 0.0)
    if own:
        session.receive(MAKER.make("websocket", "resource", "holdings", "node", {"objects": []}), 0.0)
    sent(session, 0.0)
    session.events.clear()
    return session


def sent(session: NodeSession | EdgeSession, now: float) -> list[Message]:
    """What leaves; nothing of it is larger than the transport takes."""
    found: list[Message] = []
    while (frame := session.take_frame(now)) is not None:
        assert len(frame.data) <= MOST
        found += read(frame)
    return found


def read(frame: Frame) -> tuple[Message, ...]:
    if frame.text:
        return (Message.from_json(frame.data),)
    return frames.decode(frame.data).messages


@pytest.mark.parametrize("own", [True, False], ids=["ours", "go"])
def test_an_object_that_is_too_large_waits_for_its_next_version(own: bool) -> None:
    session = greeted(own=own)
    for name in ("a", "b"):
        session.send(config_map(name, 5, LARGE if name == "a" else "small"), 0.0)
    (other,) = sent(session, 0.0)
    assert other.resource == "default/configmap/b", "others go on"
    refused = [one for one in session.events if isinstance(one, Refused)]
    assert [(one.ref.name, one.ref.version) for one in refused] == [("a", 5)]
    assert f"more than {MOST}" in refused[0].reason
    assert session.backlog == 1
    session.events.clear()
    session.send(config_map("a", 5, LARGE), 1.0)  # told again by a comparison
    session.handle_timer(6.0)
    assert sent(session, 6.0) == [other], "repeated, for it is not acknowledged"
    assert not any(isinstance(one, Refused) for one in session.events), "said once"
    assert not session.closed
    session.receive(MAKER.ack(other), 6.0)
    session.send(config_map("a", 6, "smaller"), 7.0)
    (next_one,) = sent(session, 7.0)
    session.receive(MAKER.ack(next_one), 7.0)
    assert [one.ref.version for one in session.events if isinstance(one, Delivered)] == [5, 6]
    assert session.backlog == 0


@pytest.mark.parametrize("own", [True, False], ids=["ours", "go"])
def test_a_newer_version_that_waits_takes_its_place(own: bool) -> None:
    session = greeted(own=own)
    session.send(config_map("a", 5, "small"), 0.0)
    (first,) = sent(session, 0.0)
    session.send(config_map("a", 6, LARGE), 0.0)
    session.receive(MAKER.ack(first), 0.0)
    assert sent(session, 0.0) == []
    session.send(config_map("a", 7, "small"), 0.0)
    (next_one,) = sent(session, 0.0)
    assert next_one.resource_version == "7"


@pytest.mark.parametrize("own", [True, False], ids=["ours", "go"])
def test_an_answer_that_is_too_large_is_an_error_for_who_understands_one(own: bool) -> None:
    session = greeted(own=own)
    session.send(config_map("a", 5, LARGE, Operation.RESPONSE, parent="asked"), 0.0)
    answers = sent(session, 0.0)
    if own:
        assert [(one.operation, one.parent_msg_id) for one in answers] == [(Operation.ERROR, "asked")]
        assert (error_status(answers[0].content) or {})["code"] == 413
    else:
        assert answers == []
    assert [one.ref.name for one in session.events if isinstance(one, Refused)] == ["a"]
    assert session.dropped == 1


def test_a_frame_of_many_messages_stays_within_the_limit() -> None:
    """The last one is as large as may be, and the others leave no room for it."""
    session = greeted(own=True)
    room = MOST - 2 * LIMITS.frame_bytes
    for number in range(7):
        session.send(config_map(f"m{number}", 5, LARGE[:1100]), 0.0)
    session.send(config_map("last", 5, LARGE[: room - 400]), 0.0)
    assert len(sent(session, 0.0)) == 8


@pytest.mark.parametrize("own", [True, False], ids=["ours", "go"])
def test_a_request_that_is_too_large_is_answered_at_the_edge(own: bool) -> None:
    session = EdgeSession(MAKER, now=0.0, limits=EDGE_LIMITS)
    (hello,) = sent(session, 0.0)
    if own:
        session.receive(
            MAKER.make("cloudhub", "resource", "keepalive", "node", greeting.greeting(), parent=hello.msg_id), 0.0
        )
    large = MAKER.make("edged", "meta", "patch", "default/podpatch/a", {"text": LARGE})
    small = MAKER.make("edged", "meta", "patch", "default/podpatch/b", {"text": "x"})
    session.send(large, 0.0)
    session.send(small, 0.0)
    assert [one.resource for one in sent(session, 0.0)] == ["default/podpatch/b"]
    (error,) = session.left_out
    assert (error.parent_msg_id, error.operation) == (large.msg_id, Operation.ERROR)
    assert (error_status(error.content) or {})["reason"] == "RequestEntityTooLarge"
    assert [one.msg_id for one in session.close()] == [small.msg_id], "nobody waits for the other any more"
