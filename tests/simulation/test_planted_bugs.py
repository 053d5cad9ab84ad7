"""The simulator finds what it is there to find: bugs of the link, planted one at a time, fail its worlds within a few seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from edgesite.cloud.edgecontroller.objects import EdgeObjects
from edgesite.edge.metamanager import store
from edgesite.edge.metamanager.batch import BatchClosed
from edgesite.edge.metamanager.database import Statement
from edgesite.edge.metamanager.store import EdgeStore, StoreError
from edgesite.testing.simulator.world import run
from edgesite.testing.simulator.worlds import link
from edgesite.wire import newer
from edgesite.wire.deliveries import Deliveries
from edgesite.wire.delivery import ObjectRef
from edgesite.wire.events import Delivered
from edgesite.wire.message import Message, Operation
from edgesite.wire.newer import Held, Verdict

SEEDS = range(1, 9)
Plant = Callable[[pytest.MonkeyPatch], None]


def keep_the_older_of_two_waiting_states(patch: pytest.MonkeyPatch) -> None:
    put = Deliveries.put

    def coalesce(session: Deliveries, message: Message, ref: ObjectRef) -> None:
        if ref.uid not in session._slots or message.operation == Operation.DELETE:
            put(session, message, ref)

    patch.setattr(Deliveries, "put", coalesce)


def store_whatever_arrives(patch: pytest.MonkeyPatch) -> None:
    def judge(held: Held | None, uid: str, version: int, is_deleted: Callable[[str], bool]) -> Verdict:
        return Verdict.IGNORE if is_deleted(uid) else Verdict.STORE

    patch.setattr(store, "judge_update", judge)


def bring_back_what_has_ended(patch: pytest.MonkeyPatch) -> None:
    def judge(held: Held | None, uid: str, version: int, is_deleted: Callable[[str], bool]) -> Verdict:
        return newer.judge_update(held, uid, version, lambda uid: False)

    patch.setattr(store, "judge_update", judge)


def lose_each_third_delete(patch: pytest.MonkeyPatch) -> None:
    put, seen = Deliveries.put, [0]

    def lose(session: Deliveries, message: Message, ref: ObjectRef) -> None:
        if message.operation == Operation.DELETE:
            seen[0] += 1
            if seen[0] % 3 == 0:
                return
        put(session, message, ref)

    patch.setattr(Deliveries, "put", lose)


def forget_deletes_of_nodes_that_are_away(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(EdgeObjects, "is_gone", lambda *arguments: False)


def acknowledge_before_it_is_on_disk(patch: pytest.MonkeyPatch) -> None:
    async def write(edge_store: EdgeStore, statements: Sequence[Statement]) -> None:
        try:
            await edge_store._writes.add(store._Write(statements))
        except BatchClosed as exc:
            raise StoreError("the store is closed") from exc

    patch.setattr(EdgeStore, "write", write)


def record_before_it_is_acknowledged(patch: pytest.MonkeyPatch) -> None:
    take = Deliveries.take

    def ahead(session: Deliveries, *arguments: Any, **more: Any) -> Message | None:
        message = take(session, *arguments, **more)
        uid = session._in_flight.get(message.msg_id) if message is not None else None
        if uid is not None and not session._slots[uid].is_delete:
            session._events.append(Delivered(session._slots[uid].ref))
        return message

    patch.setattr(Deliveries, "take", ahead)


@dataclass(frozen=True)
class Planted:
    plant: Plant
    found: tuple[str, ...]  #: words of the violations that may show it


BUGS = [
    Planted(keep_the_older_of_two_waiting_states, ("holds the ConfigMap", "is stored at")),
    Planted(store_whatever_arrives, ("takes effect at version", "back to")),
    Planted(
        bring_back_what_has_ended, ("takes effect at version", "stored are pods", "holds the pods", "left", "started")
    ),
    Planted(lose_each_third_delete, ("stored are pods", "holds the pods", "left", "started")),
    Planted(forget_deletes_of_nodes_that_are_away, ("stored are pods", "holds the pods", "left")),
    Planted(acknowledge_before_it_is_on_disk, ("on its disk is", "stands on the disk")),
    Planted(record_before_it_is_acknowledged, ("on its disk is",)),
]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.plant.__name__)
def test_a_planted_bug_is_found(bug: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    bug.plant(monkeypatch)
    for seed in SEEDS:
        failure = run(link.scenario, seed).failure
        if failure is not None:
            said = [line for line in failure.splitlines() if "Violation: " in line]
            assert any(word in line for line in said for word in bug.found), failure
            return
    pytest.fail(f"seeds {SEEDS} have passed")
