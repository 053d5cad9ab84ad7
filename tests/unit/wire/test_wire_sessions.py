"""Each side of the link by itself: what leaves, in which order and when."""

import random
from typing import Any

import pytest

from edgesite.wire import greeting
from edgesite.wire.delivery import ObjectRef, needs_ack, object_of, version_number
from edgesite.wire.edge_session import EdgeLimits, EdgeSession
from edgesite.wire.events import (
    Answer,
    Closed,
    Delivered,
    Denied,
    Greeted,
    Holdings,
    Opened,
    Received,
    Refused,
    Removed,
)
from edgesite.wire.message import Message, MessageMaker, Operation, busy, busy_for
from edgesite.wire.node_session import NodeSession, SessionLimits

MAKER = MessageMaker(lambda: 1700000000.0, random.Random(7).getrandbits)


def pod(name: str, version: int, operation: str = "update", uid: str = "", **metadata: Any) -> Message:
    body = {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": uid or f"uid-{name}",
            "resourceVersion": str(version),
            **metadata,
        },
    }
    return MAKER.make(
        "edgecontroller", "resource", operation, f"node/e1/default/pod/{name}", body, resource_version=str(version)
    )


def ping() -> Message:
    return MAKER.make("websocket", "resource", "keepalive", "node", "ping")


class Cloud:
    """A session with the versions that it recorded."""

    def __init__(self, *, greet: str = "go", limits: SessionLimits | None = None) -> None:
        self.versions: dict[str, int] = {}
        self.session = NodeSession(
            "e1", MAKER, now=0.0, version_at_edge=self.versions.get, jitter=lambda: 0.0, limits=limits
        )
        self.seen: list[object] = []
        if greet == "go":
            self.receive(ping(), 0.0)
        elif greet == "own":
            self.receive(MAKER.make("websocket", "resource", "keepalive", "node", greeting.greeting()), 0.0)
            self.receive(MAKER.make("websocket", "resource", "holdings", "node", {"objects": []}), 0.0)
            assert [one.operation for one in self.out(0.0)] == ["keepalive"]

    def receive(self, message: Message, now: float) -> None:
        self.session.receive(message, now)
        self.drain()

    def drain(self) -> None:
        while self.session.events:
            event = self.session.events.popleft()
            self.seen.append(event)
            if isinstance(event, Delivered):
                self.versions[event.ref.uid] = event.ref.version
            elif isinstance(event, Removed):
                self.versions.pop(event.ref.uid, None)

    def out(self, now: float) -> list[Message]:
        self.drain()
        found = []
        while (message := self.session.take(now)) is not None:
            found.append(message)
        return found

    def timer(self, now: float) -> list[Message]:
        self.session.handle_timer(now)
        return self.out(now)


def names(messages: list[Message]) -> list[str]:
    return [f"{one.operation} {one.resource}" for one in messages]


def test_a_go_edge_gets_one_object_at_a_time_in_wire_form() -> None:
    cloud = Cloud()
    cloud.session.send(pod("a", 1, "insert"), 0.0)
    cloud.session.send(pod("b", 2, "insert"), 0.0)
    first = cloud.out(0.0)
    assert names(first) == ["insert default/pod/a"]
    cloud.receive(MAKER.ack(first[0]), 0.1)
    assert cloud.versions == {"uid-a": 1}
    assert names(cloud.out(0.1)) == ["insert default/pod/b"]


def test_our_edge_gets_many_at_a_time() -> None:
    cloud = Cloud(greet="own")
    for at in range(10):
        cloud.session.send(pod(f"p{at}", at + 1), 0.0)
    assert len(cloud.out(0.0)) == 10


def test_nothing_but_answers_leaves_before_the_peer_is_known() -> None:
    cloud = Cloud(greet="")
    cloud.session.send(pod("a", 1), 0.0)
    cloud.session.send(MAKER.make("edgecontroller", "resource", "response", "node/e1/default/node/e1", "OK"), 0.0)
    assert names(cloud.out(0.0)) == ["response default/node/e1"]
    assert cloud.session.next_timer() == 3.0
    assert names(cloud.timer(3.0)) == ["update default/pod/a"]
    assert Greeted(own=False) in cloud.seen


def test_our_edge_is_known_for_ours_though_its_greeting_took_longer_than_we_wait() -> None:
    cloud = Cloud(greet="")
    assert cloud.timer(3.0) == []
    assert cloud.seen == [Greeted(own=False), Opened()]
    cloud.session.send(pod("a", 1), 3.0)
    cloud.session.send(pod("b", 2), 3.0)
    [first] = cloud.out(3.0)
    cloud.receive(MAKER.make("websocket", "resource", "keepalive", "node", greeting.greeting()), 9.0)
    assert Greeted(own=True, features=greeting.FEATURES) in cloud.seen
    frame = cloud.session.take_frame(9.0)
    assert frame is not None
    assert not frame.text, "both ends have frames now"
    cloud.receive(MAKER.make("websocket", "resource", "holdings", "node", {"objects": []}), 9.0)
    cloud.receive(MAKER.ack(first), 9.0)
    assert cloud.versions == {"uid-a": 1}
    assert cloud.session.is_in_flight(first.msg_id) is False
    cloud.receive(ping(), 20.0)
    assert cloud.session.own_peer, "later keepalives take nothing back"


def test_holdings_of_the_edge_leave_out_what_it_has() -> None:
    cloud = Cloud(greet="")
    cloud.receive(MAKER.make("websocket", "resource", "keepalive", "node", greeting.greeting()), 0.0)
    cloud.session.send(pod("a", 5), 0.0)
    cloud.session.send(pod("b", 6), 0.0)
    assert names(cloud.out(0.0)) == ["keepalive node"]
    rows = greeting.holdings_content([ObjectRef("uid-a", 5, "pod", "default", "a")])
    cloud.session.receive(MAKER.make("websocket", "resource", "holdings", "node", rows), 0.1)
    assert cloud.session.events[-1] == Opened()
    event = cloud.session.events[-2]
    assert isinstance(event, Holdings)
    cloud.versions.update({one.uid: one.version for one in event.objects})
    assert names(cloud.out(0.1)) == ["update default/pod/b"]


def test_bad_holdings_are_counted() -> None:
    cloud = Cloud()
    for content in (None, {}, {"objects": [["u"]]}, {"objects": [["u", -1, "", "", ""]]}, {"objects": "x"}):
        cloud.receive(MAKER.make("websocket", "resource", "holdings", "node", content), 0.0)
    assert cloud.session.refused == 5


def test_newest_of_waiting_versions_wins_and_old_ones_are_left_out() -> None:
    cloud = Cloud()
    cloud.session.send(pod("x", 1), 0.0)
    for version in (3, 5, 4, 5):
        cloud.session.send(pod("a", version), 0.0)
    [first] = cloud.out(0.0)
    cloud.receive(MAKER.ack(first), 0.0)
    [second] = cloud.out(0.0)
    assert (second.resource, second.resource_version) == ("default/pod/a", "5")
    cloud.receive(MAKER.ack(second), 0.0)
    cloud.session.send(pod("a", 5), 0.0)
    cloud.session.send(pod("a", 2), 0.0)
    assert cloud.out(0.0) == []


def test_a_newer_version_follows_the_one_in_flight() -> None:
    cloud = Cloud()
    cloud.session.send(pod("a", 1), 0.0)
    [first] = cloud.out(0.0)
    cloud.session.send(pod("a", 2), 0.0)
    cloud.session.send(pod("a", 3), 0.0)
    assert cloud.out(0.0) == []
    cloud.receive(MAKER.ack(first), 0.1)
    [second] = cloud.out(0.1)
    assert second.resource_version == "3"


def test_deletes_go_before_the_bulk_and_end_the_object() -> None:
    cloud = Cloud()
    for name in "abc":
        cloud.session.send(pod(name, 1), 0.0)
    cloud.session.send(pod("z", 9, "delete"), 0.0)
    cloud.session.send(pod("y", 8, deletionTimestamp="2026-01-01T00:00:00Z"), 0.0)
    order = []
    while found := cloud.out(0.0):
        order += names(found)
        cloud.receive(MAKER.ack(found[0]), 0.0)
    assert order == [
        "delete default/pod/z",
        "update default/pod/y",
        "update default/pod/a",
        "update default/pod/b",
        "update default/pod/c",
    ]
    cloud.session.send(pod("z", 10), 0.0)
    assert cloud.out(0.0) == []


def test_what_comes_back_after_its_end_is_denied_and_sent_once_that_is_forgotten() -> None:
    """As from an API that was restored from a backup; the edge is asked to forget, too, where it can."""
    for greet in ("go", "own"):
        cloud = Cloud(greet=greet)
        cloud.session.send(pod("z", 9, "delete"), 0.0)
        cloud.receive(MAKER.ack(cloud.out(0.0)[0]), 0.0)
        cloud.session.send(pod("z", 5), 0.0)
        assert cloud.out(0.0) == []
        assert [one.ref.uid for one in cloud.seen if isinstance(one, Denied)] == ["uid-z"]
        assert cloud.session.forget(["uid-z"]) is (greet == "own")
        assert [one.operation for one in cloud.out(0.0)] == ["holdings"] * (greet == "own")
        cloud.session.send(pod("z", 5), 0.0)
        assert names(cloud.out(0.0)) == ["update default/pod/z"]


def test_an_insert_under_a_name_being_deleted_goes_as_update() -> None:
    cloud = Cloud(greet="own")
    cloud.session.send(pod("a", 3, "delete", uid="old"), 0.0)
    cloud.session.send(pod("a", 4, "insert", uid="new"), 0.0)
    assert names(cloud.out(0.0)) == ["delete default/pod/a", "update default/pod/a"]


def test_repetition_and_giving_up() -> None:
    cloud = Cloud()
    cloud.session.send(pod("a", 1), 0.0)
    cloud.session.send(pod("b", 2), 0.0)
    [first] = cloud.out(0.0)
    for at in (5.0, 10.0, 15.0, 20.0):
        cloud.receive(ping(), at)
        assert cloud.session.next_timer() == at
        assert cloud.timer(at) == [first]
    cloud.receive(ping(), 24.0)
    assert names(cloud.timer(25.0)) == ["update default/pod/b"]
    assert cloud.session.backlog == 2


def test_a_message_given_up_comes_again_with_its_old_id() -> None:
    cloud = Cloud()
    cloud.session.send(pod("a", 1), 0.0)
    [first] = cloud.out(0.0)
    for at in range(5, 26, 5):
        cloud.receive(ping(), at)
        cloud.timer(at)
    assert cloud.timer(25.5) == []
    assert cloud.timer(26.0) == [first]
    cloud.receive(MAKER.ack(first), 26.1)
    assert cloud.versions == {"uid-a": 1}
    assert cloud.session.backlog == 0


def test_a_silent_peer_is_lost() -> None:
    cloud = Cloud()
    cloud.receive(ping(), 10.0)
    cloud.timer(39.9)
    assert not cloud.session.closed
    cloud.timer(40.0)
    assert cloud.session.closed
    assert isinstance(cloud.seen[-1], Closed)
    assert cloud.session.next_timer() is None
    cloud.session.send(pod("a", 1), 41.0)
    assert cloud.out(41.0) == []


def test_deletion_of_the_node_ends_the_session() -> None:
    cloud = Cloud()
    cloud.session.send(MAKER.make("edgecontroller", "resource", "delete", "node/e1/namespace/node/e1"), 0.0)
    assert cloud.session.closed
    assert cloud.out(0.0) == []


def test_an_answer_that_is_acknowledged_counts_as_delivered() -> None:
    cloud = Cloud()
    body = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "c", "namespace": "d", "uid": "u"}}
    answer = MAKER.make(
        "edgecontroller",
        "resource",
        "response",
        "node/e1/d/configmap/c",
        body,
        parent="q",
        resource_version="9",
    )
    cloud.session.send(answer, 0.0)
    [sent] = cloud.out(0.0)
    cloud.receive(MAKER.ack(sent), 0.0)
    assert cloud.versions == {"u": 9}


def test_requests_and_unknown_answers_go_to_the_modules() -> None:
    cloud = Cloud()
    query = MAKER.make("edged", "meta", "query", "default/configmap/c")
    answer = MAKER.make("edged", "resource", "response", "default/volume/v", {}, parent="call")
    cloud.receive(query, 0.0)
    cloud.receive(answer, 0.0)
    cloud.receive(Message("", 0), 0.0)
    assert cloud.seen[-2:] == [Received(query), Answer(answer)]


def test_messages_sent_once_are_bounded() -> None:
    cloud = Cloud(limits=SessionLimits(once=2))
    for at in range(3):
        cloud.session.send(MAKER.make("x", "user", "message", f"t{at}"), 0.0)
    assert names(cloud.out(0.0)) == ["message t1", "message t2"]
    assert cloud.session.dropped == 1


@pytest.mark.parametrize(
    ("path", "operation", "group", "content", "ack"),
    [
        ("node/e/default/podlist", "response", "resource", {}, False),
        ("node/e/membership/detail", "response", "resource", {}, False),
        ("node/e/default/serviceaccounttoken/default", "response", "resource", {}, False),
        ("node/e/default/volume/v", "createvolume", "resource", {}, False),
        ("node/e/ignore/Application/ignore", "applicationResponse", "resource", {}, False),
        ("node/e/default/pod/p", "update", "user", {}, False),
        ("node/e/device/d/twin/cloud_updated", "update", "resource", {}, False),
        ("node/e/default/node/e", "response", "resource", "OK", False),
        ("node/e/default/pod/p", "update", "resource", {}, True),
        ("node/e/default/pod/membership-x", "update", "resource", {}, True),
        ("node/e/null/node/e", "update", "resource", {}, True),
    ],
)
def test_which_messages_need_an_acknowledgement(
    path: str, operation: str, group: str, content: object, ack: bool
) -> None:
    assert needs_ack(MAKER.make("edgecontroller", group, operation, path, content)) is ack


def test_versions_and_references() -> None:
    assert [version_number(one) for one in ("12", "", "x", None, "-1", "١")] == [12, 0, 0, 0, 0, 0]
    volume = {"kind": "PersistentVolume", "metadata": {"name": "v", "uid": "u", "resourceVersion": "3"}}
    ref = object_of(MAKER.make("", "resource", "response", "node/e/default/persistentvolume/v", volume))
    assert ref == ObjectRef("u", 3, "persistentvolume", "", "v", "", "PersistentVolume")
    assert object_of(MAKER.make("", "resource", "update", "x", "no json")) is None
    assert object_of(MAKER.make("", "resource", "update", "x", {"metadata": {"uid": 1}})) is None


# -- the edge's side ---------------------------------------------------------------------------------------------


def edge(**limits: Any) -> EdgeSession:
    return EdgeSession(MAKER, now=0.0, limits=EdgeLimits(**limits))


def all_of(session: EdgeSession, now: float) -> list[Message]:
    found = []
    while (message := session.take(now)) is not None:
        found.append(message)
    return found


def test_the_first_message_is_a_greeting_and_keepalives_follow() -> None:
    session = edge()
    [first] = all_of(session, 0.0)
    assert first.operation == "keepalive"
    assert greeting.features_of(first) == greeting.FEATURES
    assert all_of(session, 14.9) == []
    assert session.next_timer() == 15.0
    [second] = all_of(session, 15.0)
    assert second.content == "ping"


def test_a_go_cloud_need_not_answer_but_ours_must() -> None:
    session = edge()
    session.handle_timer(1000.0)
    assert not session.closed
    hello = MAKER.make("cloudhub", "resource", "keepalive", "node", greeting.greeting(), parent="x")
    session.receive(hello, 1000.0)
    assert session.own_peer
    session.handle_timer(1044.0)
    assert not session.closed
    session.handle_timer(1045.0)
    assert session.closed


def test_a_go_cloud_that_answers_no_lease_is_given_up() -> None:
    session = edge(heartbeat_s=15, unanswered=6)
    all_of(session, 0.0)
    query = MAKER.make("edged", "meta", "query", "default/configmap/none")
    session.send(query, 1.0)
    all_of(session, 1.0)
    session.handle_timer(1000.0)
    assert not session.closed, "v1.12 answers no question for what there is not"
    for asked_at, answered in ((1000.0, True), (1010.0, False), (1020.0, False)):
        lease = MAKER.make("edged", "resource", "update", "kube-node-lease/lease/e1", {})
        session.send(lease, asked_at)
        all_of(session, asked_at)
        if answered:
            session.receive(MAKER.reply(lease, {}), asked_at + 9)
        else:
            session.give_up(lease.msg_id)
    assert session.next_timer() == 1020.0 + 15
    session.handle_timer(1099.9)
    assert not session.closed, "a cloud with much to do may be slow"
    session.handle_timer(1100.0)
    assert session.closed
    assert session.reason == "nothing heard for 91 s"


def test_acknowledged_once_stored_and_again_when_it_comes_again() -> None:
    session = edge()
    all_of(session, 0.0)
    message = pod("a", 1).with_resource("default/pod/a")
    session.receive(message, 1.0)
    session.receive(message, 2.0)
    assert list(session.events) == [Received(message)]
    assert all_of(session, 2.0) == []
    session.send(MAKER.ack(message), 3.0)
    assert len(all_of(session, 3.0)) == 1
    session.receive(message, 4.0)
    [again] = all_of(session, 4.0)
    assert (again.parent_msg_id, again.content) == (message.msg_id, "OK")
    assert len(session.events) == 1
    lost = pod("c", 1)
    session.receive(lost, 4.0)
    session.receive(lost, 9.0)
    assert list(session.events)[1:] == [Received(lost)] * 2, "who had it may have died with it"
    session.events.clear()
    other = pod("b", 1)
    session.receive(other, 5.0)
    session.send(MAKER.error(other, "disk full"), 5.0)
    assert [one.operation for one in all_of(session, 5.0)] == ["error"]
    session.receive(other, 6.0)
    assert list(session.events) == [Received(other)] * 2


def test_answers_go_to_their_callers() -> None:
    session = edge()
    request = MAKER.make("edged", "meta", "query", "default/secret/s")
    session.send(request, 0.0)
    all_of(session, 0.0)
    answer = MAKER.reply(request, {}, source="edgecontroller")
    session.receive(MAKER.make("x", "resource", "response", "y", parent=request.msg_id), 0.0)
    session.receive(answer.with_resource("z"), 0.0)
    assert isinstance(session.events[0], Answer)
    twin = MAKER.make("devicecontroller", "twin", "response", "twin", {}, parent=request.msg_id)
    session.receive(twin, 0.0)
    assert session.events[-1] == Received(twin)


def test_requests_are_paced_and_acknowledgements_are_not() -> None:
    session = edge(rate=10.0, burst=2)
    all_of(session, 0.0)
    for at in range(4):
        session.send(MAKER.make("edged", "meta", "query", f"d/secret/{at}"), 0.0)
    session.send(MAKER.ack(pod("a", 1)), 0.0)
    assert [one.operation for one in all_of(session, 0.0)] == ["response", "query", "query"]
    due = session.next_timer()
    assert due is not None
    assert 0.09 < due < 0.12
    assert len(all_of(session, due)) == 1


def test_unanswered_requests_are_handed_back() -> None:
    session = edge(rate=0.0, backlog=2)
    first, second = (MAKER.make("edged", "meta", "query", f"d/secret/{at}") for at in range(2))
    session.send(first, 0.0)
    all_of(session, 0.0)
    session.send(second, 0.0)
    assert session.has_room
    session.send(second, 0.0)
    assert not session.has_room
    assert session.close() == [first, second, second]
    assert session.next_timer() is None
    assert session.take(1.0) is None


def test_operations_are_plain_text_in_messages() -> None:
    assert f"{Operation.INSERT}" == "insert"


def refusal(message: Message, reason: str) -> Message:
    status = {"status": "Failure", "reason": reason, "message": "why", "code": 400}
    return MAKER.error(message, {"ErrStatus": status})


def test_what_an_edge_cannot_read_is_not_repeated_but_a_newer_version_is_sent() -> None:
    cloud = Cloud(greet="own")
    cloud.session.send(pod("a", 1), 0.0)
    [first] = cloud.out(0.0)
    cloud.session.send(pod("a", 2), 0.0)
    cloud.receive(refusal(first, "BadRequest"), 0.1)
    assert any(isinstance(one, Refused) and one.ref.version == 1 for one in cloud.seen)
    [second] = cloud.out(0.1)
    assert second.resource_version == "2"
    cloud.receive(refusal(second, "Invalid"), 0.2)
    assert cloud.timer(6.0) == []
    cloud.session.send(pod("a", 2), 7.0)
    assert cloud.out(7.0) == []
    cloud.session.send(pod("a", 3), 8.0)
    assert [one.resource_version for one in cloud.out(8.0)] == ["3"]


def test_what_an_edge_could_not_store_is_repeated() -> None:
    cloud = Cloud(greet="own")
    cloud.session.send(pod("a", 1), 0.0)
    [first] = cloud.out(0.0)
    cloud.receive(MAKER.error(first, "the disk is full"), 0.1)
    assert names(cloud.timer(5.0)) == ["update default/pod/a"]
    unknown = MAKER.error(pod("b", 1), "too late")
    cloud.receive(unknown, 5.1)
    assert cloud.seen[-1] == Answer(unknown)


def test_an_edge_that_is_busy_is_tried_with_one_object_and_ever_more_rarely() -> None:
    cloud = Cloud(greet="own", limits=SessionLimits(retry_s=1.0, busy_most_s=8.0))
    for name in "abc":
        cloud.session.send(pod(name, 1), 0.0)
    for message in cloud.out(0.0):
        cloud.receive(MAKER.error(message, busy("the disk is full", 1)), 0.1)
    cloud.session.send(pod("d", 1), 0.2)
    cloud.session.send(pod("a", 1, "delete"), 0.3)
    at, tries, now = [], 0, 0.3
    while now < 40.0:  # each try is refused at once
        due = cloud.session.next_timer()
        assert due is not None
        now = max(due, now)
        cloud.receive(ping(), now)
        sent = [one for one in cloud.timer(now) if one.operation != "keepalive"]
        assert len(sent) <= 1, "one object is enough to see whether the disk takes it"
        for message in sent:
            at.append(now)
            cloud.receive(MAKER.error(message, busy("the disk is full", 1)), now)
            tries += 1
    pauses = [round(later - earlier, 1) for earlier, later in zip([0.1, *at], at, strict=False)]
    assert pauses == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0, 8.0][: len(pauses)]
    assert tries >= 6
    due = cloud.session.next_timer()
    assert due is not None
    cloud.receive(ping(), due)
    [last] = [one for one in cloud.timer(due) if one.operation != "keepalive"]
    cloud.receive(MAKER.ack(last), due)
    assert len(cloud.out(due)) == 3, "the others follow at once"


def test_a_state_that_comes_while_the_edge_is_busy_leaves_when_it_is_tried_again() -> None:
    cloud = Cloud(greet="own")
    cloud.session.send(pod("a", 1), 0.0)
    [first] = cloud.out(0.0)
    cloud.session.send(pod("a", 2), 0.05)  # behind the one that is on its way
    cloud.receive(MAKER.error(first, busy("the disk is full", 1)), 0.1)
    assert cloud.out(0.1) == []
    cloud.session.send(pod("a", 3), 0.2)  # in place of one that rests
    assert cloud.out(0.2) == []
    assert cloud.session.next_timer() == pytest.approx(1.1)
    assert [one.resource_version for one in cloud.timer(1.1)] == ["3"]


@pytest.mark.parametrize(
    ("status", "rest_s"),
    [
        ({"reason": "ServiceUnavailable", "details": {"retryAfterSeconds": 7}}, 7.0),
        ({"reason": "ServiceUnavailable", "details": {"retryAfterSeconds": -7}}, 0.0),
        ({"reason": "ServiceUnavailable", "details": {"retryAfterSeconds": "soon"}}, 0.0),
        ({"reason": "ServiceUnavailable", "details": None}, 0.0),
        ({"reason": "ServiceUnavailable"}, 0.0),
        ({"reason": "Invalid", "details": {"retryAfterSeconds": 7}}, None),
    ],
)
def test_how_long_a_peer_is_busy(status: dict[str, Any], rest_s: float | None) -> None:
    assert busy_for(status) == rest_s


def test_a_kubeedge_cloud_gets_an_acknowledgement_of_what_cannot_be_read() -> None:
    edge = EdgeSession(MAKER, now=0.0)
    message = pod("a", 1)
    edge.receive(message, 0.0)
    edge.send(refusal(message, "BadRequest"), 0.0)
    assert edge.take(0.0) is not None
    answer = edge.take(0.0)
    assert answer is not None
    assert (answer.operation, answer.content, answer.parent_msg_id) == ("response", "OK", message.msg_id)
