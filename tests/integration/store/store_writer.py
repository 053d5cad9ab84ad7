"""A program that writes to a store until it is killed, and says what was acknowledged and what its watcher saw.

Lines on standard output are "<kind> <revision> <key> <whether the key is there>": A for an acknowledged write, E for an event,
R at the start.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import anyio

from edgesite.net.real import RealClock, RealDisk, RealThreads
from edgesite.store import EventType, Store


def say(kind: str, revision: int, key: str, there: bool = True) -> None:
    os.write(1, f"{kind} {revision} {key} {there}\n".encode())


async def write(store: Store, number: int) -> None:
    rng = random.Random(number)
    while True:
        key = f"/pods/default/{rng.randrange(20)}"
        if rng.random() < 0.1 and store.latest(key) is not None:
            row = await store.delete(key)
            say("A", row.revision, key, False)
        else:
            row = await store.put(key, lambda revision: b"%d " % revision * rng.randrange(1, 400))
            say("A", row.revision, key)


async def renew(store: Store) -> None:
    while True:
        row = await store.put("/leases/nodes/a", lambda revision: b"%d" % revision, volatile=True)
        say("A", row.revision, row.key)
        await anyio.sleep(0.002)


async def follow(store: Store) -> None:
    async for event in store.watch("/"):
        say("E", event.revision, event.row.key, event.type is not EventType.DELETED)


async def main(path: Path) -> None:
    store = await Store.open(path, clock=RealClock(), threads=RealThreads(), disk=RealDisk())
    say("R", store.revision, "-")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow, store)
        tasks.start_soon(renew, store)
        for number in range(8):
            tasks.start_soon(write, store, number)


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]))
