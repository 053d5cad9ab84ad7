"""What leaves first between our own ends, and how much is in flight: a delete or an answer never waits behind a bulk."""

from __future__ import annotations

import random
from typing import Any

from edgesite.wire import frames, greeting
from edgesite.wire.delta import DELTA, Bases
from edgesite.wire.edge_session import EdgeLimits, EdgeSession
from edgesite.wire.events import Delivered, Greeted, Opened, Received
from edgesite.wire.message import Message, MessageMaker
from edgesite.wire.node_session import NodeSession

MAKER = MessageMaker(lambda: 1700000000.0, random.Random(5).getrandbits)


def pod(name: str, version: int, operation: str = "update", size: int = 0) -> Message:
    metadata = {"name": name, "namespace": "default", "uid": f"uid-{name}", "resourceVersion": str(version)}
    body = {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": metadata,
        "spec": {"padding": random.Random(name).randbytes(size).hex()},
    }
    path = f"node/e1/default/pod/{name}"
    return MAKER.make("edgecontroller", "resource", operation, path, body, resource_version=str(version))


class Link:
    """Both ends, which have greeted; what the edge gets it acknowledges when told to."""

    def __init__(self, held: list[Any] | None = None, digest: str = "") -> None:
        self.versions: dict[str, int] = {}
        self.spread_s = 2.5
        self.cloud = NodeSession(
            "e1",
            MAKER,
            now=0.0,
            version_at_edge=self.versions.get,
            jitter=lambda: 0.0,
            digest=lambda: digest or greeting.digest_of([]),
            spread_s=lambda: self.spread_s,
            bases=Bases(),
        )
        self.edge = EdgeSession(MAKER, now=0.0, limits=EdgeLimits())
        self.got: list[Message] = []
        self.seen: list[Any] = []
        self.held = held or []
        self.exchange()

    def exchange(self) -> int:
        """Carry frames both ways until nothing leaves; returns the bytes that went down."""
        down = 0
        moved = True
        while moved:
            moved = False
            while (frame := self.cloud.take_frame(0.0)) is not None:
                moved, down = True, down + len(frame.data)
                self.edge.receive_frame(frame.data, 0.0, text=frame.text)
                self._edge_events()
            while (frame := self.edge.take_frame(0.0)) is not None:
                moved = True
                self.cloud.receive_frame(frame.data, 0.0, text=frame.text)
            while self.cloud.events:
                event = self.cloud.events.popleft()
                self.seen.append(event)
                if isinstance(event, Delivered):
                    self.versions[event.ref.uid] = event.ref.version
        return down

    def _edge_events(self) -> None:
        while self.edge.events:
            event = self.edge.events.popleft()
            self.seen.append(event)
            if isinstance(event, Greeted):
                self.edge.tell_holdings(self.held)
            elif isinstance(event, Received):
                self.got.append(event.message)

    def acknowledge(self) -> None:
        for message in self.got:
            self.edge.send(MAKER.ack(message), 0.0)
        self.got.clear()


def test_a_bulk_is_bounded_and_deletes_and_answers_pass_it() -> None:
    link = Link()
    for at in range(100):
        link.cloud.send(pod(f"p{at}", at + 1, size=8000), 0.0)
    down = link.exchange()
    assert 60 * 1024 <= down < 160 * 1024, "128 KiB before they are deflated"
    before = len(link.got)
    assert 0 < before < 100
    link.cloud.send(pod("gone", 7, "delete"), 0.0)
    link.cloud.send(MAKER.make("edgecontroller", "resource", "response", "node/e1/default/x/y", {}, parent="q"), 0.0)
    assert link.exchange() < 1000
    assert [one.operation for one in link.got[before:]] == ["delete"]
    for _ in range(20):
        link.acknowledge()
        link.exchange()
    assert (link.cloud.backlog, len(link.versions)) == (0, 100)


def test_many_are_acknowledged_by_one_small_frame() -> None:
    link = Link()
    for at in range(60):
        link.cloud.send(pod(f"p{at}", at + 1), 0.0)
    link.exchange()
    assert len(link.got) == 60
    link.acknowledge()
    frame = link.edge.take_frame(0.0)
    assert frame is not None
    assert len(frame.data) < 20
    assert frames.decode(frame.data).upto == 60
    link.cloud.receive_frame(frame.data, 0.0, text=False)
    assert link.cloud.backlog == 0


def test_a_change_is_told_as_a_delta_and_whole_where_that_does_not_fit() -> None:
    link = Link()
    link.cloud.send(pod("a", 1, size=2000), 0.0)
    whole = link.exchange()
    link.acknowledge()
    link.exchange()
    link.cloud.send(pod("a", 2, size=2000), 0.0)
    assert link.exchange() < whole / 10
    [delta] = link.got
    assert (delta.type, delta.content["base"]) == (DELTA, "1")
    link.got.clear()
    status = {"status": "Failure", "reason": "Conflict", "code": 409}
    link.edge.send(MAKER.error(delta, {"ErrStatus": status}), 0.0)
    link.exchange()
    [again] = link.got
    assert (again.type, again.content["metadata"]["resourceVersion"]) == ("", "2")


def test_a_digest_that_fits_opens_the_session_without_more() -> None:
    link = Link()
    assert [one for one in link.seen if isinstance(one, Opened)]
    assert link.edge.spread_s == 2.5
    other = Link(digest="something else")
    assert [type(one).__name__ for one in other.seen if not isinstance(one, Greeted)] == ["Holdings", "Opened"]


def test_who_came_among_the_first_hears_how_many_there_are_now() -> None:
    """Else the first thousand of ten thousand nodes would all come back within some seconds."""
    link = Link()
    for nodes, told in ((1000, 2.5), (1600, 6.4), (3000, 6.4), (10_000, 40.0), (100, 40.0)):
        link.spread_s = nodes * 0.004
        link.edge.send(MAKER.make("edged", "meta", "query", "kube-node-lease/lease/e1"), 0.0)
        link.exchange()
        assert link.edge.spread_s == told
    assert len([one for one in link.seen if isinstance(one, Greeted) and one.own]) == 2, "each end once"


def test_no_keepalive_where_something_else_has_told_that_we_live() -> None:
    link = Link()
    for second in range(10, 200, 10):
        link.edge.send(MAKER.make("edged", "meta", "query", "default/secret/s"), second)
        frame = link.edge.take_frame(float(second))
        assert frame is not None
        assert [one.operation for one in frames.decode(frame.data).messages] == ["query"]
    frame = link.edge.take_frame(206.0)
    assert frame is not None
    assert [one.operation for one in frames.decode(frame.data).messages] == ["keepalive"]


def test_only_objects_gather_and_only_while_others_are_on_their_way() -> None:
    link = Link()
    link.cloud.send(pod("a", 1), 0.0)
    assert not link.cloud.may_gather  # nothing is under way: it leaves at once
    assert link.cloud.take_frame(0.0) is not None
    link.cloud.send(pod("b", 2), 0.0)
    assert link.cloud.may_gather
    link.cloud.send(pod("a", 3, "delete"), 0.0)
    link.cloud.send(pod("c", 4, "delete"), 0.0)
    assert not link.cloud.may_gather
    while link.cloud.take_frame(0.0) is not None:
        pass
    for at in range(link.cloud.limits.frame_messages):
        assert at == 0 or link.cloud.may_gather
        link.cloud.send(pod(f"p{at}", 10 + at), 0.0)
    assert not link.cloud.may_gather  # a frame is full
