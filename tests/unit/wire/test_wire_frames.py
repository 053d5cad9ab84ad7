"""Frames of our own ends, the numbers in them, deltas, and digests of what an edge holds."""

from __future__ import annotations

import hashlib
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.wire import frames, greeting
from edgesite.wire.delta import Bases, NoDelta, apply_delta, make_patch, merge
from edgesite.wire.message import InvalidMessage, Message
from edgesite.wire.numbers import Outstanding, Stored

JSON = st.recursive(
    st.one_of(
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=8),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=4)),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(max_size=5), JSON, max_size=5)
IDS = st.one_of(st.uuids(version=4).map(str), st.uuids().map(lambda one: str(one).upper()), st.text(max_size=40))


@given(st.lists(st.tuples(IDS, IDS, OBJECTS, st.integers(0, 2**32)), max_size=20), st.booleans())
def test_frames_go_there_and_back(rows: list[tuple[str, str, dict[str, Any], int]], deflate: bool) -> None:
    messages = [
        Message(one, 17, "s", "g", "update", "default/pod/x", content, parent, "47", type="delta")
        for one, parent, content, _ in rows
    ]
    packed = [frames.encode_row(message, row[3]) for message, row in zip(messages, rows, strict=True)]
    batch = frames.decode(frames.encode(3, 9, [11, 12], 17, packed, deflate=deflate))
    assert (batch.floor, batch.upto, batch.more) == (3, 9, (11, 12))
    assert batch.numbers == tuple(row[3] for row in rows)
    for message, read in zip(messages, batch.messages, strict=True):
        assert read.object() == message.content
        assert (read.msg_id, read.parent_msg_id, read.type) == (message.msg_id, message.parent_msg_id, "delta")


@given(st.binary(max_size=200))
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    for kind in (b"", b"\0", b"\1", b"\2"):
        try:
            frames.decode(kind + data)
        except InvalidMessage:
            continue


@pytest.mark.parametrize("row", [[], ["x"] * 11, "text", [1], [b"short"], ["id", "number"], ["id", 0, 5]])
def test_a_malformed_row_is_refused(row: Any) -> None:
    import msgspec

    with pytest.raises(InvalidMessage):
        frames.decode(b"\0" + msgspec.msgpack.encode([0, 0, [], 0, row]))


def test_a_frame_that_unpacks_without_end_is_refused() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -13, 6, zdict=frames.DICTIONARY)
    bomb = packer.compress(b"\0" * (frames.MESSAGE_BYTES + 1)) + packer.flush()
    with pytest.raises(InvalidMessage, match="too large"):
        frames.decode(b"\1" + bomb)


def test_the_dictionary_never_changes_under_its_name() -> None:
    assert greeting.DEFLATE == "deflate-1"
    assert (
        hashlib.sha256(frames.DICTIONARY).hexdigest()
        == "e03478745561d822057cce9e7c97b661b890d08508c0e821b69335e117558004"
    )


def test_a_renewal_of_a_lease_is_small() -> None:
    message = Message(
        "6f1f3f8e-0f55-4c3e-9f39-0a8f2f0f7a11",
        0,
        "edged",
        "meta",
        "renew",
        "kube-node-lease/lease/edge-0001",
        1700000000.0,
    )
    assert len(frames.encode(0, 0, (), 1700000000000, [frames.encode_row(message, 0)], deflate=True)) < 100


@given(OBJECTS, OBJECTS)
def test_a_patch_makes_the_new_of_the_old(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert merge(old, make_patch(old, new)) == new


def test_deltas_fit_their_base_alone() -> None:
    held = {"metadata": {"uid": "u", "resourceVersion": "7"}, "spec": {"a": 1, "b": {"c": 2}}}
    delta = {"base": "7", "uid": "u", "patch": {"spec": {"a": None, "b": {"c": 3}}}}
    assert apply_delta(held, delta)["spec"] == {"b": {"c": 3}}
    assert held["spec"] == {"a": 1, "b": {"c": 2}}
    bad: list[tuple[Any, Any]] = [
        (None, delta),
        (held, {**delta, "base": "6"}),
        (held, {**delta, "uid": "other"}),
        (held, {"base": "7"}),
        (held, "text"),
    ]
    for base, content in bad:
        with pytest.raises(NoDelta):
            apply_delta(base, content)
    with pytest.raises(NoDelta):
        make_patch({}, {"a": {"b": None}})


def test_bases_are_bounded() -> None:
    bases = Bases(2)
    for version in (1, 2, 3):
        bases.keep("u", version, {"v": version})
    assert (bases.find("u", 1), bases.find("u", 3)) == (None, {"v": 3})


def test_numbers_with_gaps() -> None:
    sender, receiver = Outstanding(), Stored()
    for name in "abcde":
        receiver.came(name, sender.number(name))
    assert sender.number("b") == 2, "a repetition keeps its number"
    for name in "bda":
        assert receiver.stored(name)
    assert not receiver.stored("b")
    assert (receiver.upto, receiver.more()) == (2, [4])
    told = sender.acknowledged(receiver.upto, receiver.more())
    assert told == ["a", "b", "d"]
    for name in (*told, "c"):  # c is given up
        sender.drop(name)
    assert sender.floor == 5
    receiver.floor(5)
    assert (receiver.upto, receiver.more()) == (4, [])
    receiver.is_news = False
    receiver.came("a", 1)
    assert receiver.is_news, "what is stored is told again"


def test_a_digest_does_not_depend_on_order() -> None:
    pairs = [("a", 1), ("b", 2), ("c", 3)]
    assert greeting.digest_of(pairs) == greeting.digest_of(reversed(pairs))
    assert greeting.digest_of(pairs) != greeting.digest_of([("a", 1), ("b", 3), ("c", 2)])
    assert greeting.digest_of([]) == greeting.digest_of([])
