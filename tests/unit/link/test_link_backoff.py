"""How soon a lost link is dialled again."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from edgesite.edge.edgehub.backoff import FIRST_S, MOST_S, NEAR_FOR_S, NEAR_S, Backoff


def waits(backoff: Backoff, seconds: float, **how: object) -> list[float]:
    """The waits of tries that take no time, until so much has passed."""
    now, found = 0.0, []
    while now < seconds:
        found.append(backoff.wait_s(now, **how))  # type: ignore[arg-type]
        now += found[-1]
    return found


@given(st.integers())
def test_a_short_loss_is_over_soon_and_a_long_one_costs_little(seed: int) -> None:
    backoff = Backoff(random.Random(seed), 0.0)
    found = waits(backoff, 1200.0)
    assert found[0] <= FIRST_S
    early = [one for number, one in enumerate(found) if sum(found[:number]) < NEAR_FOR_S]
    assert max(early) <= NEAR_S
    assert max(found) <= MOST_S
    assert all(one >= MOST_S / 2 for one in found[len(early) + 1 :])


@given(st.integers())
def test_a_refusal_is_not_met_with_haste_and_retry_after_holds(seed: int) -> None:
    found = waits(Backoff(random.Random(seed), 0.0), 300.0, refused=True)
    assert found[0] >= FIRST_S / 2
    assert found[5] >= MOST_S / 2
    assert Backoff(random.Random(seed), 0.0).wait_s(0.0, refused=True, retry_after_s=45.0) >= 45.0
    assert Backoff(random.Random(seed), 0.0).wait_s(0.0, refused=True, retry_after_s=1e9) <= 660.0


@given(st.integers())
def test_nodes_of_a_large_cloud_come_back_spread_out(seed: int) -> None:
    backoff = Backoff(random.Random(seed), 0.0)
    backoff.held(1000.0, 3600.0, spread_s=20.0)
    assert backoff.wait_s(1000.0) <= FIRST_S + 20.0
    assert [backoff.wait_s(1001.0) <= 20.0 for _ in range(8)] == [True] * 8
    assert backoff.wait_s(1001.0) >= 10.0


def test_a_link_that_held_begins_anew_and_one_that_did_not_goes_on() -> None:
    backoff = Backoff(random.Random(1), 0.0)
    waits(backoff, 600.0)
    backoff.held(700.0, 1.0, spread_s=0.0)
    assert backoff.wait_s(700.0) >= MOST_S / 2
    backoff.held(800.0, 60.0, spread_s=0.0)
    assert backoff.wait_s(800.0) <= FIRST_S


def test_within_one_process_all_waits_are_short() -> None:
    found = waits(Backoff(random.Random(1), 0.0, first_s=0.02, most_s=0.5), 300.0)
    assert found[0] <= 0.02
    assert max(found) <= 0.5
