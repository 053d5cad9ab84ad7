"""A lease that is renewed travels as its time alone; modules of the edge see whole leases."""

from __future__ import annotations

import random
from typing import Any

from msgspec.structs import replace

from edgesite.wire import greeting
from edgesite.wire.edge_session import EdgeSession
from edgesite.wire.events import Answer
from edgesite.wire.message import Message, MessageMaker

MAKER = MessageMaker(lambda: 1700000000.0, random.Random(3).getrandbits)
PATH = "kube-node-lease/lease/e1"


def lease(version: str, time: str, holder: str = "e1") -> dict[str, Any]:
    spec = {"holderIdentity": holder, "leaseDurationSeconds": 40, "renewTime": time}
    return {"kind": "Lease", "metadata": {"name": "e1", "resourceVersion": version}, "spec": spec}


class Edge:
    """A session with a cloud of ours."""

    def __init__(self, features: frozenset[str] = frozenset({"renew"})) -> None:
        self.session = EdgeSession(MAKER, now=0.0)
        greeted = self.session.take(0.0)
        assert greeted is not None
        content = greeting.greeting(features)
        self.session.receive(replace(greeted, content=content, parent_msg_id=greeted.msg_id), 0.0)
        self.session.events.clear()

    def ask(self, operation: str, content: Any) -> Message:
        self.session.send(MAKER.make("edged", "meta", operation, PATH, content), 0.0)
        sent = self.session.take(0.0)
        assert sent is not None
        return sent

    def answered(self, request: Message, content: Any) -> Any:
        self.session.receive(
            MAKER.make("edgecontroller", "resource", "response", PATH, content, parent=request.msg_id), 0.0
        )
        event = self.session.events.popleft()
        assert isinstance(event, Answer)
        return event.message.content


def test_renewals_are_short_and_their_answers_whole() -> None:
    edge = Edge()
    first = edge.ask("insert", lease("", "t0"))
    assert first.operation == "insert"
    edge.answered(first, {"Object": lease("5", "t0"), "Err": None})
    second = edge.ask("update", lease("5", "t1"))
    assert (second.operation, second.content) == ("renew", ["5", "t1"])
    assert edge.answered(second, {"version": "6"}) == {"Object": lease("6", "t1"), "Err": None}
    third = edge.ask("update", lease("6", "t2"))
    assert (third.operation, third.content) == ("renew", ["6", "t2"])


def test_whatever_else_changes_travels_whole() -> None:
    edge = Edge()
    edge.answered(edge.ask("query", None), {"Object": lease("5", "t0"), "Err": None})
    assert edge.ask("update", lease("5", "t1", holder="other")).operation == "update"
    assert edge.ask("update", lease("4", "t1")).operation == "update"
    assert edge.ask("update", "text").operation == "update"


def test_after_a_refusal_the_lease_is_told_whole() -> None:
    edge = Edge()
    edge.answered(edge.ask("query", None), {"Object": lease("5", "t0"), "Err": None})
    renewal = edge.ask("update", lease("5", "t1"))
    refusal = {"Object": None, "Err": {"ErrStatus": {"status": "Failure", "reason": "Conflict", "code": 409}}}
    assert edge.answered(renewal, refusal) == refusal
    assert edge.ask("update", lease("5", "t1")).operation == "update"


def test_other_clouds_get_whole_leases() -> None:
    edge = Edge(frozenset())
    edge.answered(edge.ask("query", None), {"Object": lease("5", "t0"), "Err": None})
    assert edge.ask("update", lease("5", "t1")).operation == "update"
