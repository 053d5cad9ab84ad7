"""When edged asks for a token anew, and to whom it belongs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.edge.edged.pod import Pod
from edgesite.edge.edged.volumes.tokens import MOST_S, SOON_S, due_s, only_user

HOUR = 3600.0


def test_at_four_fifths_and_after_a_day_at_the_latest() -> None:
    assert due_s(HOUR, HOUR, 0.0) == 0.8 * HOUR
    assert due_s(HOUR, HOUR, 1.0) == 0.82 * HOUR
    assert due_s(HOUR / 2, HOUR, 0.0) == 0.3 * HOUR  # it was stored for half an hour
    assert due_s(100 * HOUR, 100 * HOUR, 0.0) == MOST_S
    assert due_s(90 * HOUR, 100 * HOUR, 0.0) == MOST_S - 10 * HOUR
    assert due_s(-5.0, HOUR, 0.5) == SOON_S


@given(st.floats(600, 400 * 24 * HOUR), st.floats(0, 1), st.floats(0, 1))
def test_never_after_its_end_while_that_is_far_enough(life: float, used: float, draw: float) -> None:
    left = life * (1 - used)
    due = due_s(left, life, draw)
    assert due >= SOON_S
    assert due <= max(left, SOON_S)
    assert due <= MOST_S * 1.02


@pytest.mark.parametrize(
    ("common", "users", "wanted"),
    [
        (None, [None], None),
        (1000, [None, None], 1000),
        (None, [1000, 1000], 1000),
        (1000, [None, 1001], None),
        (1001, [None, 1001], 1001),
        (None, [None, 1001], None),
        (None, [0], 0),
    ],
)
def test_a_token_belongs_to_the_one_user_of_all_containers(
    common: int | None, users: list[int | None], wanted: int | None
) -> None:
    def context(user: int | None) -> dict[str, Any]:
        return {} if user is None else {"securityContext": {"runAsUser": user}}

    containers = [{"name": f"c{at}", **context(user)} for at, user in enumerate(users)]
    spec = {"containers": containers[1:], "initContainers": containers[:1], **context(common)}
    assert only_user(Pod({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec})) == wanted
