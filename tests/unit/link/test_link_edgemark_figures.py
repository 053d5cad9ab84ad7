"""The figures of edgemark: the spans and percentiles of Kubernetes' density test."""

from __future__ import annotations

import pytest

from edgesite.cli.edgemark.measure import PodTimes, percentiles, startup_table


def _times(count: int) -> PodTimes:
    """Pod ``at`` takes ``at`` ms for each step."""
    times = PodTimes(run={f"uid-{at}": 2 * at / 1000 for at in range(count)})
    for at in range(count):
        name = f"pod-{at}"
        times.create[name], times.schedule[name], times.watch[name] = 0.0, at / 1000, 3 * at / 1000
        times.uid[name] = f"uid-{at}"
    return times


def test_percentiles_are_of_the_pods_themselves() -> None:
    assert percentiles(range(100)) == {"p50": 50, "p90": 90, "p99": 99, "max": 99}
    assert percentiles([3.0]) == {"p50": 3.0, "p90": 3.0, "p99": 3.0, "max": 3.0}
    assert percentiles([]) == {"p50": 0.0, "p90": 0.0, "p99": 0.0, "max": 0.0}


def test_spans_lead_from_each_step_to_the_next() -> None:
    slowest = {name: max(spans) for name, spans in _times(101).spans().items()}
    assert slowest == pytest.approx(
        {"create_to_schedule": 0.1, "schedule_to_run": 0.1, "run_to_watch": 0.1, "schedule_to_watch": 0.2, "e2e": 0.3}
    )


def test_a_pod_that_did_not_come_so_far_counts_nowhere() -> None:
    times = _times(3)
    del times.schedule["pod-1"]
    assert {len(spans) for spans in times.spans().values()} == {2}


def test_the_table_has_the_columns_of_the_density_test() -> None:
    head, *rows = startup_table(_times(101))
    assert head.split() == ["pod", "start-up", "(ms)", "Perc50", "Perc90", "Perc99", "Perc100", "pods"]
    assert rows[-1].split() == ["e2e", "150.0", "270.0", "297.0", "300.0", "101"]
    assert {len(one) for one in (head, *rows)} == {len(head)}
