"""Which ended containers go, and that a node with a bound on them keeps to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from edged_machine import Machine, container, pod
from hypothesis import given
from hypothesis import strategies as st

from edgesite.edge.edged import containergc
from edgesite.edge.edged.containergc import surplus, surplus_of_all
from edgesite.edge.edged.runtime import ContainerState, ContainerStatus
from edgesite.edge.edged.settings import EdgedSettings
from edgesite.testing.fakeruntime import Script
from edgesite.testing.waiting import until

BACKOFF = "CrashLoopBackOff"
ALL = 1 << 60  #: every container is old enough


def history(name: str, *made: int, running: bool = False) -> list[ContainerStatus]:
    """Containers of one name, made at these times; the newest may run."""
    newest_first = sorted(made, reverse=True)
    return [
        ContainerStatus(
            id=f"{name}-{at}",
            name=name,
            attempt=len(made) - number,
            state=ContainerState.RUNNING if running and not number else ContainerState.EXITED,
            created_ns=at,
            started_ns=at,
            finished_ns=at,
            exit_code=1,
            image="",
            image_ref="",
            reason="Error",
            message="",
            labels={},
            annotations={},
        )
        for number, at in enumerate(newest_first)
    ]


def ids(containers: list[ContainerStatus]) -> list[str]:
    return [one.id for one in containers]


@pytest.mark.parametrize(
    ("kept", "before", "gone"),
    [(1, ALL, ["a-2", "a-1"]), (0, ALL, ["a-3", "a-2", "a-1"]), (-1, ALL, []), (1, 1, ["a-1"]), (9, ALL, [])],
)
def test_those_of_one_name(kept: int, before: int, gone: list[str]) -> None:
    assert ids(surplus(history("a", 1, 2, 3, 4, running=True), kept, before)) == gone


@pytest.mark.parametrize(
    ("most", "gone"),
    [
        (6, []),
        (5, ["b-1"]),
        (4, ["b-1", "b-2"]),  # not that of a, which is older than b's newest but all that it has
        (3, ["b-1", "b-2", "b-3"]),
        (2, ["b-1", "b-2", "b-3", "a-4"]),
        (0, ["b-1", "b-2", "b-3", "a-4"]),  # what pods' statuses are made of stays
    ],
)
def test_those_of_all_names(most: int, gone: list[str]) -> None:
    histories = [history("a", 4, 8), history("b", 1, 2, 3, 9), history("c", 7, running=True)]
    assert set(ids(surplus_of_all(histories, most, ALL))) == set(gone)


@given(st.lists(st.tuples(st.integers(1, 6), st.booleans()), max_size=6), st.integers(0, 20))
def test_a_bound_is_kept_but_for_what_statuses_need(pods: list[tuple[int, bool]], most: int) -> None:
    histories = [
        history(f"p{number}", *range(number * 10, number * 10 + count), running=runs)
        for number, (count, runs) in enumerate(pods)
    ]
    gone = set(ids(surplus_of_all(histories, most, ALL)))
    assert not gone & {one[0].id for one in histories}
    ended = {one.id for each in histories for one in each if one.state is ContainerState.EXITED}
    assert gone <= ended
    needed = {one[0].id for one in histories} & ended
    assert len(ended - gone) <= max(most, len(needed))
    assert len(ended - gone) >= min(most, len(ended))


def test_the_settings_are_kubeedges() -> None:
    section = {"minimumGCAge": "1m30s", "maxContainerCount": 40, "maxPerPodContainerCount": 3}
    made = EdgedSettings.of(section)
    assert (made.dead_container_age_s, made.max_dead_containers_of_all, made.max_dead_containers) == (90.0, 40, 3)
    made = EdgedSettings.of({})
    assert (made.dead_container_age_s, made.max_dead_containers_of_all, made.max_dead_containers) == (0.0, -1, 1)


@pytest.mark.anyio
async def test_a_node_without_room_for_ended_containers_keeps_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containergc, "LOOK_S", 0.05)
    machine = Machine()
    machine.scripts["main"] = Script(run_s=0.0, exit_code=3)
    async with machine.rig(tmp_path, maxContainerCount=0) as rig:
        await rig.cloud.apply("pod", pod())
        await rig.cloud.until(
            lambda: (container(rig.cloud).get("state") or {}).get("waiting", {}).get("reason") == BACKOFF
        )

        async def only_one() -> bool:
            return len(machine.engine.containers) == 1

        await until(only_one)
        assert container(rig.cloud)["restartCount"] == 1
    assert [one.config.attempt for one in machine.engine.containers.values()] == [1]
