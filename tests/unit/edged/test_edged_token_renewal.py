"""When edged asks for a token anew."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgesite.edge.edged.volumes.tokens import MOST_S, SOON_S, due_s

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
