"""The store against a model, with crashes, under hypothesis."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edgesite.store import Compacted, Conflict, EventType, Limits, NotFound, Row, Store, Watch
from edgesite.testing.simulator.clock import SimClock
from edgesite.testing.simulator.disk import Disk, SimDisk
from edgesite.testing.simulator.loop import SimLoop
from edgesite.testing.simulator.threads import Pace, SimThreads

T = TypeVar("T")
keys = st.sampled_from([f"/{kind}/{space}/{name}" for kind in ("pods", "pod") for space in "ab" for name in "xy"])
LIMITS = Limits(events=12, retain=5, watch_events=100)


class StoreMachine(RuleBasedStateMachine):
    """One client, all of whose writes are acknowledged before the next step."""

    @initialize(seed=st.integers(0, 1000))
    def start(self, seed: int) -> None:
        self.loop = SimLoop()
        self.medium = Disk(random.Random(seed), self.loop.time)
        self.pace = Pace(random.Random(seed))
        self.model: dict[str, Row] = {}
        self.past: dict[int, dict[str, Row]] = {}
        self.followed: dict[str, Row] = {}
        self.seen = 0
        self.open()
        self.remember()

    def open(self) -> None:
        self.disk = SimDisk(self.medium)
        self.store = self.run(
            Store.open(
                Path("/s.db"),
                clock=SimClock(self.loop),
                threads=SimThreads(self.loop, self.pace),
                disk=self.disk,
                limits=LIMITS,
            )
        )
        self.watch = self.resumed()

    def resumed(self) -> Watch:
        try:
            return self.store.watch("/", after=self.seen)
        except Compacted:
            self.followed = {row.key: row for row in self.store.list("").rows}
            self.seen = self.store.revision
            return self.store.watch("/", after=self.seen)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coroutine)

    def remember(self) -> None:
        self.past[self.store.revision] = dict(self.model)

    @rule(key=keys, payload=st.binary(max_size=20), expect=st.sampled_from([None, "right", "none", "wrong"]))
    def put(self, key: str, payload: bytes, expect: str | None) -> None:
        old = self.model.get(key)
        wanted = {None: None, "right": old.revision if old else 0, "none": 0, "wrong": 10**9}[expect]
        try:
            row = self.run(self.store.put(key, lambda revision: b"%d " % revision + payload, expect=wanted))
        except Conflict:
            assert wanted != (old.revision if old else 0)
            return
        assert wanted in (None, old.revision if old else 0)
        assert row.created == (old.created if old else row.revision)
        self.model[key] = row
        self.remember()

    @rule(key=keys, final=st.booleans())
    def delete(self, key: str, final: bool) -> None:
        old = self.model.get(key)
        try:
            row = self.run(self.store.delete(key, (lambda revision: b"gone") if final else None))
        except NotFound:
            assert old is None
            return
        assert old is not None
        assert row.value == (b"gone" if final else old.value)
        del self.model[key]
        self.remember()

    @rule(
        limit=st.integers(1, 4),
        pick=st.integers(0, 30),
        prefix=st.sampled_from(["", "/pod", "/pods/", "/pod/a/", "/pods/b/x"]),
    )
    def page_through(self, limit: int, pick: int, prefix: str) -> None:
        revision = sorted(self.past)[-1 - pick % len(self.past)]
        rows: list[Row] = []
        after: str | None = None
        try:
            for _ in itertools.count():
                page = self.store.list(prefix, after=after, limit=limit, revision=revision)
                rows += page.rows
                after = page.next_key
                if after is None:
                    break
        except Compacted:
            assert self.store.revision - revision > 0
            return
        assert rows == [row for key, row in sorted(self.past[revision].items()) if key.startswith(prefix)]

    @rule()
    def stop_and_start(self) -> None:
        self.run(self.store.close())
        self.open()

    @rule()
    def kill(self) -> None:
        self.disk.die()
        self.open()

    @rule(operations=st.integers(1, 6), key=keys)
    def lose_power_in_a_commit(self, operations: int, key: str) -> None:
        before = self.model.get(key)
        self.medium.arm_power_cut(operations)
        row = self.run(self.store.put(key, lambda revision: b"perhaps"))
        self.disk.die()
        self.medium.power_cut()
        self.followed, self.seen = (
            {},
            0,
        )  # it may have followed what is now undone: the acknowledgement came from beyond the cut
        self.past.clear()
        self.open()
        found = self.store.get(key)
        assert found in (before, row)
        if found is not None:
            self.model[key] = found
        self.remember()

    @rule()
    def follow(self) -> None:
        for event in self.watch.take():
            assert event.revision > self.seen
            assert self.followed.get(event.row.key) == event.previous
            self.seen = event.revision
            if event.type is EventType.DELETED:
                del self.followed[event.row.key]
            else:
                self.followed[event.row.key] = event.row
        assert self.followed == self.model

    @invariant()
    def reads_are_what_was_written(self) -> None:
        if hasattr(self, "store"):
            assert {row.key: row for row in self.store.list("").rows} == self.model

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.run(self.store.close())
            self.loop.close()
            self.medium.close()
            asyncio.set_event_loop(None)


StoreMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestStoreMachine = StoreMachine.TestCase
