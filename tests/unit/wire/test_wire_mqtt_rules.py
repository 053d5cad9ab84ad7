"""Topics and filters, the tree of subscriptions, password and ACL files."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.wire.mqtt.access import AccessError, Acl, hash_password, parse_passwords
from edgesite.wire.mqtt.messages import Message
from edgesite.wire.mqtt.packets import ProtocolError
from edgesite.wire.mqtt.retained import Retained
from edgesite.wire.mqtt.timers import Timers
from edgesite.wire.mqtt.topics import LEVELS, Tree, check_filter, is_topic, matches

TOPICS = st.lists(st.sampled_from(["a", "b", "", "$x"]), min_size=1, max_size=4).map("/".join).filter(is_topic)
FILTERS = st.tuples(st.lists(st.sampled_from(["a", "b", "", "+", "$x"]), max_size=3), st.sampled_from(["a", "+", "#"])).map(
    lambda one: "/".join([*one[0], one[1]])
)  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "topic", "matched"),
    [
        ("sport/#", "sport", True),
        ("sport/#", "sport/a/b", True),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("#", "$SYS/x", False),
        ("+/monitor", "$SYS/monitor", False),
        ("$SYS/#", "$SYS/x", True),
        ("a/+/c", "a/b/c/d", False),
        ("a", "A", False),
    ],
)
def test_filters_match_as_the_standard_has_it(pattern: str, topic: str, matched: bool) -> None:
    assert matches(pattern, topic) is matched


@pytest.mark.parametrize(
    "pattern",
    ["", "a#", "#/a", "a+/b", "a/#b", "$share/g", "$share//a", "$share/+/a", "a\0", "/".join("a" * (LEVELS + 1))],
)
def test_filters_that_are_none(pattern: str) -> None:
    with pytest.raises(ProtocolError):
        check_filter(pattern)


@given(st.lists(st.tuples(FILTERS, st.integers(0, 3)), max_size=12), st.lists(st.tuples(FILTERS, st.integers(0, 3)), max_size=6), st.lists(TOPICS, max_size=5))  # fmt: skip
def test_the_tree_finds_what_each_filter_matches(
    put: list[tuple[str, int]], removed: list[tuple[str, int]], topics: list[str]
) -> None:
    tree: Tree[tuple[str, int]] = Tree()
    left = dict.fromkeys(put)
    for pattern, key in put:
        tree.put(pattern, key, (pattern, key))
        tree.find("a")  # so that something is remembered
    for pattern, key in removed:
        tree.remove(pattern, key)
        left.pop((pattern, key), None)
    assert tree.size == len(left)
    for topic in [*topics, *topics]:
        assert sorted(tree.find(topic)) == sorted(one for one in left if matches(one[0], topic))


@given(st.lists(st.tuples(TOPICS, st.booleans()), max_size=15), FILTERS)
def test_what_is_retained_is_found_by_filters(published: list[tuple[str, bool]], pattern: str) -> None:
    kept, left = Retained(100, 100_000), dict[str, bytes]()
    for n, (topic, is_there) in enumerate(published):
        payload = str(n).encode() if is_there else b""
        assert kept.put(Message(topic, payload))
        left[topic] = payload
    left = {topic: payload for topic, payload in left.items() if payload}
    assert kept.count == len(left)
    assert {one.topic: one.payload for one in kept.find(pattern)} == {
        topic: payload for topic, payload in left.items() if matches(pattern, topic)
    }
    for topic in left:
        kept.remove(topic)
    assert (kept.count, kept.size) == (0, 0)


class Owner:
    def __init__(self) -> None:
        self.due_at: float | None = None
        self.told: list[float] = []

    def due(self, now: float) -> None:
        self.told.append(now)


@given(st.lists(st.tuples(st.integers(0, 3), st.one_of(st.none(), st.integers(1, 50))), max_size=300))
def test_timers_tell_each_owner_at_its_last_deadline_and_stay_small(moves: list[tuple[int, int | None]]) -> None:
    timers, owners = Timers(), [Owner() for _ in range(4)]
    for number, at in moves:
        timers.set(owners[number], at)
    assert len(timers._heap) <= 2 * 4 + 65
    due = [one.due_at for one in owners if one.due_at is not None]
    assert timers.next() == min(due, default=None)
    timers.run(100)
    assert sum(len(one.told) for one in owners) == len(due)
    assert timers.next() is None


def test_passwords_of_mosquittos_both_forms() -> None:
    salt = b"0123456789ab"
    sha = hashlib.sha512(b"older" + salt).digest()
    text = f"# made by hand\nanna:{hash_password(b'secret', salt)}\n\nbert:$6${base64.b64encode(salt).decode()}${base64.b64encode(sha).decode()}\n"
    found = parse_passwords(text)
    assert found["anna"].matches(b"secret")
    assert not found["anna"].matches(b"Secret")
    assert found["bert"].matches(b"older")
    assert not found["bert"].matches(b"")
    assert "secret" not in repr(found)


@pytest.mark.parametrize(
    "line",
    [
        "anna",
        ":x",
        "anna:plain",
        "anna:$7$0$AA==$AA==",
        "anna:$7$99999999$AA==$AA==",
        "anna:$7$5$!$AA==",
        "anna:$6$AA==$AA==",
    ],
)
def test_password_files_that_cannot_be_used(line: str) -> None:
    with pytest.raises(AccessError, match="line 2"):
        parse_passwords(f"\n{line}")


@pytest.mark.parametrize("line", ["topic", "topics a", "user", "topic read a/#/b", "pattern", "allow all"])
def test_acl_files_that_cannot_be_used(line: str) -> None:
    with pytest.raises(AccessError, match="line 3"):
        Acl.parse(f"# comment\nuser anna\n{line}\n")


def test_names_with_wildcards_open_nothing() -> None:
    acl = Acl.parse("pattern readwrite d/%c/#\npattern read u/%u")
    assert acl.allows("", "c1", "d/c1/x", "write")
    for client in ("+", "#", "a/b", ""):
        assert not acl.allows("", client, f"d/{client or 'x'}/y", "write")
    assert not acl.allows("", "c1", "u/", "read")
    assert acl.allows("anna", "c1", "u/anna", "read")
    assert not acl.allows("anna", "c1", "u/anna", "write")
