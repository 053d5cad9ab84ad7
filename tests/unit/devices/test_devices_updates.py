"""How twins change, without I/O: versions, conflicts, types, models; and any order of arrival."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.edge.devicetwin import updates
from edgesite.edge.devicetwin.payloads import InMeta, InTwin, InValue, InVersion, Refused, check_syntax, read_update
from edgesite.edge.devicetwin.state import Device, Registry
from edgesite.edge.devicetwin.turn import Turn
from edgesite.edge.devicetwin.updates import Want
from edgesite.kube import json
from edgesite.kube.devices.model import PropertyRule

RULES: dict[str, PropertyRule] = {}


def turn(now_ms: int = 1) -> Turn:
    return Turn(now_ms, itertools.count(1).__next__)


def device(**wants: str) -> Device:
    made = Device("d", "d", "default")
    made.uid = "u"
    updates.wanted(turn(), made, {name: Want(value, "int") for name, value in wants.items()}, 100, RULES)
    return made


def actual(value: str | None, type_: str = "") -> InTwin:
    return InTwin(actual=InValue(value), metadata=InMeta(type_ or None))


def expected(value: str, cloud: int, edge: int = 0, type_: str = "") -> InTwin:
    return InTwin(
        expected=InValue(value), metadata=InMeta(type_ or None), optional=False, expected_version=InVersion(cloud, edge)
    )


def local(one: Device, rules: Any = RULES, **twins: InTwin | None) -> updates.Changes:
    return updates.local(turn(), one, twins, rules)


def test_each_report_counts_up_the_version_even_when_it_is_equal() -> None:
    one = device(t="5")
    for version in (1, 2):
        local(one, t=actual("5"))
        assert (one.twins["t"].actual_cloud, one.twins["t"].actual_edge) == (0, version)


def test_an_equal_report_is_told_but_not_written_at_once() -> None:
    one, first, again = device(t="5"), turn(), turn()
    updates.local(first, one, {"t": actual("6")}, RULES)
    changes = updates.local(again, one, {"t": actual("6")}, RULES)
    assert list(first.dirty) == [one.twins["t"]]
    assert (list(again.dirty), list(again.lazy)) == ([], [one.twins["t"]])
    assert "t" in changes.document


def test_a_cloud_message_is_rejected_if_either_version_is_lower() -> None:
    one = Device("d", "d")
    updates.cloud(turn(), one, {"t": expected("5", 100, type_="int")}, RULES)
    assert updates.cloud(turn(), one, {"t": expected("7", 101)}, RULES).rejected == {}
    late = updates.cloud(turn(), one, {"t": expected("6", 100)}, RULES)
    assert one.twins["t"].expected == "7"
    assert '"value":"7"' in late.rejected["t"]
    assert '"expected_version":{"cloud":101,"edge":0}' in late.rejected["t"]
    local(one, t=InTwin(expected=InValue("9")))
    assert (one.twins["t"].expected_cloud, one.twins["t"].expected_edge) == (101, 1)
    assert "t" in updates.cloud(turn(), one, {"t": expected("8", 102)}, RULES).rejected


def test_a_change_made_here_gives_way_as_soon_as_the_cloud_changes_its_mind() -> None:
    """KubeEdge's edge keeps it for ever."""
    one = device(t="5")
    local(one, t=InTwin(expected=InValue("9")))
    updates.wanted(turn(), one, {"t": Want("5", "int")}, 101, RULES)
    assert one.twins["t"].expected == "9"
    updates.wanted(turn(), one, {"t": Want("6", "int")}, 102, RULES)
    assert (one.twins["t"].expected, one.twins["t"].expected_edge, one.overridden) == ("6", 0, None)


@pytest.mark.parametrize(
    ("given_twin", "reason"),
    [
        (actual("abc"), "the value is not int or integer"),
        (actual(None), "the value is missing"),
        (InTwin(expected=InValue(None)), "the value is missing"),
    ],
)
def test_bad_values_are_refused_and_change_nothing(given_twin: InTwin, reason: str) -> None:
    one = device(t="5", u="1")
    with pytest.raises(Refused) as caught:
        local(one, u=actual("2"), t=given_twin, new=actual("3"))
    assert (caught.value.code, caught.value.reason) == (400, reason)
    assert (one.twins["u"].actual, one.twins["u"].actual_edge, list(one.twins)) == (None, 0, ["t", "u"])


def test_types_that_kubeedge_does_not_know_need_a_model() -> None:
    one = device()
    with pytest.raises(Refused, match="the value type is not allowed"):
        local(one, x=actual("1.5", "double"))
    rules = {"x": PropertyRule("x", "double", minimum=0, maximum=2)}
    local(one, rules, x=actual("1.5", "double"))
    assert one.twins["x"].type == "double"
    with pytest.raises(Refused, match="at most 2"):
        local(one, rules, x=actual("2.5"))


def test_what_is_read_only_in_the_model_is_wanted_by_nobody() -> None:
    rules = {"t": PropertyRule("t", "int", read_only=True)}
    one = Device("d", "d")
    updates.wanted(turn(), one, {"t": Want("5", "int")}, 1, rules)
    assert one.twins == {}
    with pytest.raises(Refused, match="read-only"):
        local(one, rules, t=InTwin(expected=InValue("1")))
    local(one, rules, t=actual("1"))
    assert one.twins["t"].actual == "1"


def test_only_optional_twins_are_deleted_and_they_come_back() -> None:
    one = device(t="5")
    assert local(one, t=None).result == {}
    local(one, own=actual("1", "int"))
    changes = local(one, own=None)
    assert changes.result == {"own": "null"}
    assert (one.twins["own"].type, one.twins["own"].actual) == ("deleted", None)
    local(one, own=actual("x", "string"))
    assert (one.twins["own"].type, one.twins["own"].actual) == ("string", "x")


def test_an_unknown_null_does_not_end_the_rest() -> None:
    """In KubeEdge it does."""
    one = device(t="5")
    assert list(local(one, nothing=None, t=actual("4")).result) == ["t"]


@pytest.mark.parametrize(("wish", "expected"), [("0", "false"), ("1", "true"), ("T", "true"), ("2", None), ("", None)])
def test_a_boolean_may_be_wished_for_as_a_number(wish: str, expected: str | None) -> None:
    for rules, type_ in (({"lamp": PropertyRule("lamp", "boolean")}, ""), ({}, "boolean")):
        one = device()
        updates.wanted(turn(), one, {"lamp": Want(wish, type_)}, 1, rules)
        assert (one.twins["lamp"].expected if "lamp" in one.twins else None) == expected


def test_a_property_that_left_the_object_ends_and_one_without_a_wish_stays() -> None:
    one = device(t="5", u="6")
    local(one, own=actual("1", "int"))
    changes = updates.wanted(turn(), one, {"t": Want(None)}, 101, RULES)
    assert (one.twins["t"].expected, one.twins["t"].type) == (None, "int")
    assert one.twins["u"].type == "deleted"
    assert changes.document["u"][1] == "null"
    assert one.twins["own"].type == "int"


@pytest.mark.parametrize(
    ("key", "value", "good"),
    [
        ("a" * 128, "1", True),
        ("a" * 129, "1", False),
        ("k", "v" * 512, True),
        ("k", "v" * 513, False),
        ("-_.,:/@#", "-_.,:/@#", True),
        ("k", "a=b", False),
        ("k", "中", False),
        ("k", "1\n", False),
        ("", "1", False),
    ],
)
def test_the_syntax_of_keys_and_values(key: str, value: str, good: bool) -> None:
    update = read_update(json.dumps({"twin": {key: {"actual": {"value": value}}}}))
    if good:
        check_syntax(update)
    else:
        with pytest.raises(Refused):
            check_syntax(update)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(Refused):
        check_syntax(read_update(data))


CLOUD = st.tuples(st.just("cloud"), st.sampled_from("ab"), st.integers(1, 20))
REPORT = st.tuples(st.just("report"), st.sampled_from("ab"), st.integers(0, 9))
STEP = st.tuples(st.just("clock"), st.just(""), st.integers(-100_000, 100_000))


@given(st.lists(CLOUD | REPORT | STEP, max_size=40))
def test_in_any_order_the_newest_wish_and_the_last_report_hold(events: list[tuple[str, str, int]]) -> None:
    """The cloud's messages are repeated and reordered at will, the clock jumps. A wish's value is its version here."""
    one = Device("d", "d")
    newest: dict[str, int] = {}
    last: dict[str, int] = {}
    now = 1_000_000
    for kind, name, number in events:
        if kind == "clock":
            now += number
        elif kind == "cloud":
            updates.cloud(turn(now), one, {name: expected(str(number), number, type_="int")}, RULES)
            newest[name] = max(number, newest.get(name, 0))
        else:
            updates.local(turn(now), one, {name: actual(str(number), "int")}, RULES)
            last[name] = number
    for name, number in newest.items():
        twin = one.twins[name]
        assert (twin.expected, twin.expected_cloud) == (str(number), number)
    for name, number in last.items():
        assert one.twins[name].actual == str(number)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.none() | st.integers(0, 9)), max_size=12))
def test_taking_a_turn_back_leaves_all_as_it_was(changes: list[tuple[str, int | None]]) -> None:
    one = device(a="1")
    local(one, b=actual("2", "int"))
    before = {name: (twin.type, twin.expected, twin.actual, twin.actual_edge) for name, twin in one.twins.items()}
    all_of_it = turn()
    for name, value in changes:
        updates.local(all_of_it, one, {name: None if value is None else actual(str(value))}, RULES)
    updates.wanted(all_of_it, one, {"c": Want("7", "int")}, 200, RULES)
    all_of_it.undo()
    assert before == {
        name: (twin.type, twin.expected, twin.actual, twin.actual_edge) for name, twin in one.twins.items()
    }


def test_names_lead_to_devices() -> None:
    registry = Registry()
    for namespace in ("default", "other"):
        registry.add(Device(registry.free_id(namespace, "d"), "d", namespace))
    registry.add(Device("only", "only", "other"))
    registry.add(Device("gone", "twice", "x"))
    registry.add(Device("x/twice", "twice", "y"))

    def found(text: str) -> str | None:
        one = registry.find(text)
        return one.place if one else None

    assert [one.id for one in registry][:2] == ["d", "other/d"]
    assert found("d") == "default/d"
    assert found("other/d") == "other/d"
    assert found("only") == "other/only"
    assert found("default/only") is None
    assert found("twice") is None
