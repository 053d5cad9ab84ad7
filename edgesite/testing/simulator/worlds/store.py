"""The store under load on a machine that is killed, loses power and fills its disk.

Invariants: an acknowledged write is there after every crash, or a newer one; revisions are never handed out twice; a watch that
resumes sees every change once, in order (each event's ``previous`` is what the watcher had); old lists are what they were.
"""

from __future__ import annotations

import asyncio
import random
import zlib
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.lowlevel

from edgesite.store import Compacted, Conflict, EventType, Lagged, Limits, NotFound, Row, Store, WriteFailed
from edgesite.testing.simulator.machine import Process
from edgesite.testing.simulator.world import Violation, World

__all__ = ["scenario"]

KEYS = [f"/pods/default/{n}" for n in range(40)] + [f"/leases/nodes/{n}" for n in range(3)]
PAST = 12  #: copies of the past from which a watch is resumed
PAST_EVERY = 17
State = tuple[int, int] | None  #: revision and checksum of the value; None: not there


@dataclass(slots=True)
class Ledger:
    """What the world knows from outside, over all crashes."""

    acked: dict[str, tuple[int, State]] = field(default_factory=dict)  # key -> (revision, state)
    durable: dict[str, int] = field(default_factory=dict)  # key -> revision of the last durable acknowledgement
    attempts: dict[str, list[tuple[int, State]]] = field(
        default_factory=dict
    )  # not (yet) acknowledged, and volatile ones
    published: dict[int, tuple[str, State]] = field(default_factory=dict)
    newest: int = 0

    def publish(self, revision: int, key: str, state: State) -> None:
        """Somebody saw this revision."""
        known = self.published.setdefault(revision, (key, state))
        if known != (key, state):
            raise Violation(f"revision {revision} was handed out twice: {known} and {(key, state)}")
        self.newest = max(self.newest, revision)

    def acknowledge(self, key: str, revision: int, state: State, *, durable: bool) -> None:
        self.publish(revision, key, state)
        if revision > self.acked.get(key, (0, None))[0]:
            self.acked[key] = (revision, state)
        if durable:
            floor = self.durable[key] = max(self.durable.get(key, 0), revision)
            self.attempts[key] = [attempt for attempt in self.attempts[key] if attempt[0] >= floor]

    def check_opened(self, store: Store) -> None:
        """Compare what a restart found with what it must have found."""
        if store.revision < self.newest:
            raise Violation(f"revision ran backwards: {store.revision} after {self.newest}")
        for key in KEYS:
            row = store.get(key)
            found = state_of(row)
            floor = self.durable.get(key, 0)
            possible = [state for revision, state in self.attempts.get(key, []) if revision >= floor]
            acked = self.acked.get(key, (0, None))
            if found != acked[1] and found not in possible:
                raise Violation(f"{key}: found {found}, acknowledged {acked}, possible {possible}")
            if found is not None:
                self.publish(found[0], key, found)
            self.acked[key] = (found[0] if found else acked[0], found)
            self.durable[key] = self.acked[key][0]
            self.attempts[key] = [self.acked[key]]


async def scenario(world: World) -> None:
    """Crash and restart the store some times, then look at it once more."""
    ledger, follower = Ledger(), Follower()
    machine = world.machine("cloud")
    limits = Limits(events=64, retain=world.rng.choice([4, 32]), upkeep_s=world.rng.choice([2.0, 20.0]))

    async def main(process: Process) -> None:
        await serve(world, process, machine.data_dir / "state.db", limits, ledger, follower)

    for _ in range(world.rng.randint(2, 5)):
        process = machine.start("store", main)
        await anyio.sleep(world.rng.uniform(0.05, 6.0))
        await fault(world, process)
        await anyio.sleep(world.rng.uniform(0.0, 2.0))
        machine.disk.full = machine.disk.broken = False
        if process.alive:
            await anyio.sleep(world.rng.choice([0.0, 0.005, 0.02, 1.0]))  # a crash soon after failed writes, or later
            machine.kill(process)

    async def last_look(process: Process) -> None:
        async with await open_store(process, machine.data_dir / "state.db", limits) as store:
            ledger.check_opened(store)
            follower.resume(store)

    process = machine.start("store", last_look)
    assert process.task is not None
    await process.task


async def fault(world: World, process: Process) -> None:
    machine = process.machine
    kind = world.rng.choice(["kill", "fuse", "power", "power in a commit", "full", "broken"])
    world.trace(f"fault {kind}")
    world.count(kind)
    if kind == "kill":
        machine.kill(process)
    elif kind == "fuse":
        world.loop.light_fuse(process, world.rng.randint(1, 40), lambda: machine.kill(process))
    elif kind == "power":
        machine.power_off()
    elif kind == "power in a commit":
        machine.disk.arm_power_cut(world.rng.randint(1, 12))
        await anyio.sleep(1.0)
        machine.power_off()
    else:
        setattr(machine.disk, kind, True)
        await anyio.sleep(world.rng.uniform(0.1, 3.0))


async def open_store(process: Process, path: Path, limits: Limits) -> Store:
    return await Store.open(
        path, clock=process.machine.clock, threads=process.threads, disk=process.disk, limits=limits
    )


async def serve(world: World, process: Process, path: Path, limits: Limits, ledger: Ledger, follower: Follower) -> None:
    """The program: a store, writers, readers, a watcher."""
    store = await open_store(process, path, limits)
    ledger.check_opened(store)
    follower.resume(store)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store.run)
        tasks.start_soon(follower.follow, store, ledger)
        for number in range(4):
            tasks.start_soon(write, world, store, ledger, random.Random(f"{world.seed}/{process}/{number}"))
        tasks.start_soon(read_old, store, random.Random(f"{world.seed}/{process}/reader"))


async def write(world: World, store: Store, ledger: Ledger, rng: random.Random) -> None:
    while True:
        key = rng.choice(KEYS)
        old = store.latest(key)
        expect = rng.choice([None, old.revision if old else 0, 1])
        try:
            if old is not None and rng.random() < 0.2:
                await delete(store, key, expect or None, ledger)
            else:
                await put(store, key, expect, rng.randbytes(rng.choice([8, 300, 6000])), ledger)
            world.count("writes")
        except (Conflict, NotFound, WriteFailed):
            world.count("refused")
        await anyio.sleep(rng.choice([0.0, 0.001, 0.05]))


async def put(store: Store, key: str, expect: int | None, payload: bytes, ledger: Ledger) -> None:
    volatile = key.startswith("/leases/")

    def encode(revision: int) -> bytes:
        value = b"%d:" % revision + payload
        ledger.attempts.setdefault(key, []).append((revision, (revision, zlib.crc32(value))))
        return value

    existed = store.latest(key) is not None
    row = await store.put(key, encode, expect=expect, volatile=volatile)
    ledger.acknowledge(key, row.revision, state_of(row), durable=not (volatile and existed))
    committed = store.get(key)
    if committed is not None and committed.revision < row.revision:
        raise Violation(f"{key}: acknowledged {row.revision}, but {committed.revision} is read")


async def delete(store: Store, key: str, expect: int | None, ledger: Ledger) -> None:
    def encode(revision: int) -> bytes:
        ledger.attempts.setdefault(key, []).append((revision, None))
        return b"deleted at %d" % revision

    row = await store.delete(key, encode, expect=expect)
    ledger.acknowledge(key, row.revision, None, durable=True)


def state_of(row: Row | None) -> State:
    return (row.revision, zlib.crc32(row.value)) if row else None


async def read_old(store: Store, rng: random.Random) -> None:
    """Lists at one revision stay what they are, however they are paged."""
    while True:
        page = store.list("/pods/")
        await anyio.sleep(rng.choice([0.0, 0.01, 0.3]))
        rows: list[Row] = []
        after: str | None = None
        try:
            while True:
                part = store.list("/pods/", after=after, limit=rng.randint(1, 5), revision=page.revision)
                rows += part.rows
                after = part.next_key
                if after is None:
                    break
                if part.remaining != len(page.rows) - len(rows):
                    raise Violation(
                        f"list at {page.revision}: {part.remaining} remain of {len(page.rows)}, {len(rows)} read"
                    )
                await asyncio.sleep(rng.choice([0.0, 0.002]))
        except Compacted:
            continue
        if rows != page.rows:
            raise Violation(f"list at {page.revision} changed")


class Follower:
    """A watcher that outlives the store's process and resumes from where it was."""

    def __init__(self) -> None:
        self.revision = 0
        self.rows: dict[str, State] = {}
        self.past: deque[tuple[int, dict[str, State]]] = deque(maxlen=PAST)  # copies of before

    def resume(self, store: Store) -> None:
        """Catch up with what came while away; list again if that is compacted."""
        try:
            with store.watch("/", after=self.revision) as watch:
                for event in watch.take():
                    self._learn(event.type, event.row, event.previous)
        except Compacted:
            self.rows = {row.key: state_of(row) for row in store.list("/").rows}
        self.revision = store.revision
        self._compare(store)
        for revision, rows in self.past:
            self._resume_from(store, revision, dict(rows))

    def _resume_from(self, store: Store, revision: int, rows: dict[str, State]) -> None:
        """A watcher that has slept since ``revision`` catches up completely, or is told that it cannot."""
        for prefix in ("/pods/", "/leases/"):
            try:
                events = store.watch(prefix, after=revision).take()
            except Compacted:
                continue
            for event in events:
                if rows.get(event.row.key) != state_of(event.previous):
                    raise Violation(
                        f"asleep since {revision}: {event} follows {state_of(event.previous)}, not {rows.get(event.row.key)}"
                    )
                rows[event.row.key] = None if event.type is EventType.DELETED else state_of(event.row)
            here = {key: state for key, state in rows.items() if state is not None and key.startswith(prefix)}
            there = {row.key: state_of(row) for row in store.list(prefix).rows}
            if here != there:
                raise Violation(
                    f"asleep since {revision}: what was caught up with differs from {prefix} at {store.revision}"
                )

    async def follow(self, store: Store, ledger: Ledger) -> None:
        while True:
            watch = store.watch("/", after=self.revision, size=16)
            try:
                async for event in watch:
                    self._learn(event.type, event.row, event.previous)
                    row = event.row
                    ledger.publish(row.revision, row.key, None if event.type is EventType.DELETED else state_of(row))
                    if watch.progress >= store.revision:
                        self._compare(store)
                    if self.revision % PAST_EVERY == 0:
                        self.past.append((self.revision, dict(self.rows)))
                    await anyio.lowlevel.checkpoint()
            except Lagged:
                try:
                    self.resume(store)
                except Compacted as exc:
                    raise Violation("a relist cannot be compacted") from exc

    def _learn(self, type: EventType, row: Row, previous: Row | None) -> None:
        if row.revision <= self.revision:
            raise Violation(f"event {row.key}@{row.revision} after {self.revision}")
        had = self.rows.get(row.key)
        if had != state_of(previous):
            raise Violation(f"gap before {type} {row.key}@{row.revision}: had {had}, the event says {previous}")
        self.revision = row.revision
        if type is EventType.DELETED:
            self.rows.pop(row.key, None)
        else:
            self.rows[row.key] = state_of(row)

    def _compare(self, store: Store) -> None:
        there: dict[str, State] = {row.key: state_of(row) for row in store.list("/").rows}
        if self.rows != there:
            raise Violation(f"the watcher at {self.revision} differs from the store at {store.revision}")
