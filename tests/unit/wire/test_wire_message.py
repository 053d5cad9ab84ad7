"""Messages and resource strings, with samples shaped as the Go programs write them."""

import contextlib
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.kube import errors
from edgesite.wire import resource
from edgesite.wire.message import InvalidMessage, Message, MessageMaker, error_content, error_status

KEEPALIVE = (
    b'{"header":{"msg_id":"11111111-1111-4111-8111-111111111111","timestamp":1700000000000},'
    b'"route":{"source":"websocket","group":"resource","operation":"keepalive","resource":"node"},"content":"ping"}'
)


@pytest.fixture
def maker() -> MessageMaker:
    return MessageMaker(lambda: 1700000000.042, random.Random(1).getrandbits)


def test_a_keepalive_is_written_as_go_writes_it() -> None:
    message = Message(
        "11111111-1111-4111-8111-111111111111", 1700000000000, "websocket", "resource", "keepalive", "node", "ping"
    )
    assert message.to_json() == KEEPALIVE
    assert Message.from_json(KEEPALIVE + b"\n") == message


def test_unknown_members_are_ignored_and_case_does_not_matter() -> None:
    message = Message.from_json(b'{"Header":{"MSG_ID":"a","new":1},"Route":{"Operation":"insert"},"extra":[]}')
    assert (message.msg_id, message.operation, message.content) == ("a", "insert", None)


def test_the_empty_message_of_a_stopping_edge() -> None:
    message = Message.from_json(b'{"header":{"msg_id":"","timestamp":0},"route":{},"content":null}')
    assert message.is_empty
    assert message.to_json() == b'{"header":{"msg_id":"","timestamp":0},"route":{},"content":null}'


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b"\xff",
        b'{"header":[]}',
        b'{"header":{"msg_id":1}}',
        b'{"header":{"timestamp":1.7e12}}',
        b'{"header":{"timestamp":true}}',
        b'{"route":"x"}',
        b'{"content":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"header":{"msg_id":"\\ud800"}}',
    ],
)
def test_bad_input_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidMessage):
        Message.from_json(data)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_message_or_a_refusal(data: bytes) -> None:
    with contextlib.suppress(InvalidMessage):
        Message.from_json(data)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.tuples(st.text(), st.integers(0, 2**53), *[st.text()] * 4, _JSON, st.text(), st.text()))
def test_round_trip(parts: tuple[Any, ...]) -> None:
    message = Message(*parts)
    assert Message.from_json(message.to_json()) == message


def test_an_object_may_come_as_its_text() -> None:
    assert Message("1", content='{"a":1}').object() == {"a": 1}
    assert Message("1", content={"a": 1}).object() == {"a": 1}
    assert Message("1", content="OK").data() == b"OK"
    for bad in ("OK", [1], None, 5):
        with pytest.raises(InvalidMessage):
            Message("1", content=bad).object()


def test_an_acknowledgement_repeats_the_route(maker: MessageMaker) -> None:
    pod = Message("p1", 1, "edgecontroller", "resource", "insert", "default/pod/web-0", {}, resource_version="4711")
    ack = maker.ack(pod)
    assert (ack.source, ack.group, ack.operation, ack.resource) == (
        "edgecontroller",
        "resource",
        "response",
        "default/pod/web-0",
    )
    assert (ack.parent_msg_id, ack.content, ack.timestamp_ms) == ("p1", "OK", 1700000000042)
    assert ack.msg_id != "p1"
    assert len(ack.msg_id) == 36
    assert ack.msg_id[14] == "4"
    assert ack.msg_id[19] in "89ab"


def test_an_error_answers_the_request(maker: MessageMaker) -> None:
    request = Message("q1", 1, "edged", "meta", "query", "default/secret/x")
    answer = maker.error(request, error_content(errors.not_found("secrets", "x").status()))
    assert (answer.parent_msg_id, answer.operation) == ("q1", "error")
    found = error_status(answer.content)
    assert found is not None
    assert (found["code"], found["reason"]) == (404, "NotFound")


def test_what_is_no_error() -> None:
    for content in (None, "OK", {}, {"ErrStatus": {"metadata": {}}}, {"Object": {}}):
        assert error_status(content) is None
    assert error_status(error_content(errors.unavailable("later").status())) is not None


@pytest.mark.parametrize(
    ("cloud", "wire", "node"),
    [
        ("node/edge1/default/pod/p", "default/pod/p", "edge1"),
        ("node/edge1/membership", "membership", "edge1"),
        ("node/edge1", "node/edge1", "edge1"),
        ("upgrade/j/node/edge1", "upgrade/j/node/edge1", "edge1"),
        ("null/node", "null/node", ""),
    ],
)
def test_the_node_is_cut_off(cloud: str, wire: str, node: str) -> None:
    assert resource.trim_node(cloud) == wire
    assert resource.node_of(cloud) == node


@given(st.text(alphabet="abc-.1", min_size=1), st.text(alphabet="abc", min_size=1), st.text(alphabet="abc-.1"))
def test_paths_come_back(namespace: str, type_: str, name: str) -> None:
    path = resource.parse(resource.build(namespace, type_, name))
    assert (path.namespace, path.type, path.name) == (namespace, type_, name)
    assert resource.trim_node(resource.build(namespace, type_, name, node="e1")) == str(path)


def test_cluster_scope_has_a_word_of_its_own() -> None:
    assert resource.build("", "node", "e1") == "null/node/e1"
    assert resource.parse("null/node/e1").object_namespace == ""
    assert resource.parse("device/d/twin/cloud_updated") == resource.ResourcePath()
