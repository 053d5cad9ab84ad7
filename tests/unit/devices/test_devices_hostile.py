"""What clients and mappers must not be able to do to a twin, and what a defect in one item leaves of the others."""

from __future__ import annotations

import itertools

import pytest

from edgesite.edge.devicetwin import updates
from edgesite.edge.devicetwin.payloads import InMeta, InTwin, InValue, Refused, read_update
from edgesite.edge.devicetwin.state import Device
from edgesite.edge.devicetwin.turn import Turn
from edgesite.edge.devicetwin.updates import Want


def turn() -> Turn:
    return Turn(1, itertools.count(1).__next__)


def test_twins_that_clients_made_and_deleted_leave_room_for_the_cloud() -> None:
    one = Device("d", "d", "default")
    for number in range(updates.MOST_TWINS):
        updates.local(turn(), one, {f"x{number}": InTwin(actual=InValue("1"), metadata=InMeta("int"))}, {})
        updates.local(turn(), one, {f"x{number}": None}, {})
    with pytest.raises(Refused):
        updates.local(turn(), one, {"one-more": InTwin(actual=InValue("1"))}, {})
    updates.wanted(turn(), one, {"t": Want("5", "int")}, 7, {})
    assert one.twins["t"].expected == "5"


@pytest.mark.parametrize("number", ["9223372036854775808", "-9223372036854775809", "1e400", "99999999999999999999999"])
def test_numbers_that_go_could_not_read_again_are_refused(number: str) -> None:
    for text in (
        '{"twin":{"t":{"expected":{"value":"1"},"expected_version":{"cloud":%s,"edge":0}}}}',
        '{"timestamp":%s,"twin":{}}',
        '{"twin":{"t":{"actual":{"value":"1","metadata":{"timestamp":%s}}}}}',
    ):
        with pytest.raises(Refused):
            read_update((text % number).encode())


def test_a_value_has_an_end() -> None:
    one = Device("d", "d", "default")
    with pytest.raises(Refused, match="more than"):
        updates.local(turn(), one, {"t": InTwin(actual=InValue("x" * (updates.MOST_VALUE + 1)))}, {})
    assert one.twins == {}


def test_what_was_undone_is_neither_written_nor_told() -> None:
    both, kept, lost = turn(), Device("kept", "kept"), Device("lost", "lost")
    updates.local(both, kept, {"t": InTwin(actual=InValue("1"))}, {})
    both.devices[kept] = None
    both.published.append(("kept", b""))
    mark, sizes = both.mark, both.sizes()
    updates.local(both, lost, {"t": InTwin(actual=InValue("1"))}, {})
    updates.local(both, kept, {"t": InTwin(actual=InValue("2"))}, {})
    both.devices[lost] = None
    both.published.append(("lost", b""))
    both.statements.append(("DELETE FROM device", ()))
    both.after.append(lambda: None)
    both.undo_all(mark, sizes)
    assert (list(both.devices), both.published, both.statements, both.after) == ([kept], [("kept", b"")], [], [])
    assert list(both.dirty.values()) == [("kept", "t")]
    assert [name for name, _, _ in [(one.name, two, three) for one, two, three in both.told]] == ["kept"]
    assert (kept.twins["t"].actual, lost.twins) == ("1", {})
