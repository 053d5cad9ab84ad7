"""What `edgesite device watch` makes of a device: changes, lines, a picture; nothing of a machine's values reaches the terminal as a command."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.cli.device.screen import POINTS, Lines, Screen, curve
from edgesite.cli.device.values import Change, Seen, seen

AT = "2026-11-20T14:00:00Z"


def device(state: str = "online", wanted: str = "21", **reported: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "hall"},
        "spec": {
            "deviceModelRef": {"name": "thermostat"},
            "nodeName": "edge-1",
            "properties": [{"name": "target", "desired": {"value": wanted}}, {"name": "actual"}],
        },
        "status": {
            "state": state,
            "twins": [{"propertyName": name, "reported": {"value": value}} for name, value in reported.items()],
        },
    }


def test_only_what_is_other_than_before_is_a_change() -> None:
    first = seen(device(actual="19"))
    assert list(first.changes(None)) == [
        Change("", "state", "online"),
        Change("target", "desired", "21"),
        Change("actual", "reported", "19"),
    ]
    assert list(first.changes(first)) == []
    second = seen(device("offline", "23", target="21"))
    assert list(second.changes(first)) == [
        Change("", "state", "offline"),
        Change("target", "desired", "23"),
        Change("target", "reported", "21"),
        Change("actual", "reported", ""),
    ]


@pytest.mark.parametrize(
    "odd", [{}, {"spec": 1, "status": []}, {"spec": {"properties": [1, {}]}, "status": {"twins": {}}}]
)
def test_odd_objects_are_read_as_far_as_they_make_sense(odd: dict[str, Any]) -> None:
    assert isinstance(seen(odd), Seen)


def test_lines_are_made_for_programs() -> None:
    now = seen(device(actual="19"))
    out = io.StringIO()
    Lines(out).show(AT, "hall", now, [Change("", "state", "online"), Change("actual", "reported", "")])
    assert out.getvalue() == f"{AT} hall - state online\n{AT} hall actual reported -\n"
    out = io.StringIO()
    Lines(out, as_json=True).show(AT, "hall", now, [Change("actual", "reported", "19")])
    assert json.loads(out.getvalue()) == {
        "time": AT,
        "device": "hall",
        "property": "actual",
        "what": "reported",
        "value": "19",
    }


def test_the_picture_stays_in_its_place_and_within_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "34")
    monkeypatch.setenv("LINES", "6")
    out = io.StringIO()
    screen = Screen(out)
    for value in ("19", "20", "x"):
        now = seen(device(actual=value))
        screen.show(AT, "hall", now, [Change("actual", "reported", value)])
    pictures = out.getvalue().split("\x1b[J")[:-1]
    assert all(one.startswith("\x1b[5A") for one in pictures[1:])
    lines = pictures[-1].removeprefix("\x1b[5A").splitlines()
    assert len(lines) == 5
    assert all(len(line.removeprefix("\x1b[2K")) < 34 for line in lines)
    assert "▁█" in pictures[-1]


def test_curves() -> None:
    assert (curve([]), curve([1]), curve([2, 2]), curve([0, 50, 100])) == ("", "", "▁▁", "▁▅█")
    assert POINTS <= 80


@given(st.text(), st.text())
def test_no_value_moves_the_cursor(value: str, state: str) -> None:
    out = io.StringIO()
    now = seen(device(state, value))
    Lines(out).show(AT, "hall", now, list(now.changes(None)))
    text = out.getvalue()
    assert "\x1b" not in text
    assert text.count("\n") == len(list(now.changes(None)))
    assert all(one.isprintable() or one == "\n" for one in text)
