"""Store: durable creates from 32 writers against 1, watch delivery, list, memory and bytes written.

    python -m benchmarks.store [--seconds 2] [--dir DIR]

Prints figures of this run and their ratios. DIR should be on the disk that is to be measured (default: the current folder).
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from pathlib import Path

import anyio

from edgesite.net.real import RealClock, RealDisk, RealThreads, loop_factory
from edgesite.store import Limits, Store

BODY = b'{"kind":"ConfigMap","data":{"key":"' + b"x" * 2012 + b'"}}'


def encode(revision: int) -> bytes:
    return b"%d" % revision + BODY


def written_bytes() -> int:
    with open("/proc/self/io") as text:
        return int(next(line for line in text if line.startswith("wchar")).split()[1])


def resident_bytes() -> int:
    with open("/proc/self/statm") as text:
        return int(text.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def creates(store: Store, writers: int, seconds: float) -> tuple[float, float]:
    """Return creates per second and bytes written per create."""
    done = 0
    end = time.perf_counter() + seconds

    async def write(number: int) -> None:
        nonlocal done
        count = 0
        while time.perf_counter() < end:
            count += 1
            await store.put(f"/configmaps/w{writers}-{number}/{count}", encode, expect=0)
            done += 1

    before, started = written_bytes(), time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for number in range(writers):
            tasks.start_soon(write, number)
    return done / (time.perf_counter() - started), (written_bytes() - before) / done


async def deliver(store: Store, watchers: int) -> float:
    """Return seconds for one event to one watcher, in the queue."""
    watches = [store.watch("/pods/") for _ in range(watchers)]
    started = time.process_time()
    for _ in range(20):
        await store.put("/pods/default/a", encode)
    spent = time.process_time() - started
    for watch in watches:
        watch.close()
    return spent / 20 / watchers


async def measure(folder: Path, seconds: float) -> None:
    threads = RealThreads()

    async def opened(name: str) -> Store:
        return await Store.open(folder / name, clock=RealClock(), threads=threads, disk=RealDisk(), limits=Limits())

    async with await opened("creates.db") as store:
        one, one_bytes = await creates(store, 1, seconds)
        many, many_bytes = await creates(store, 32, seconds)
        print(f"durable creates of 2 KB, 1 writer      {one:10.0f} /s  {one_bytes / 1024:6.1f} KiB written each")
        print(f"durable creates of 2 KB, 32 writers    {many:10.0f} /s  {many_bytes / 1024:6.1f} KiB written each")
        print(f"  ratio                                {many / one:10.1f}")
        print(f"one event to one of 1,000 watchers     {await deliver(store, 1000) * 1e6:10.2f} µs of CPU")
    async with await opened("memory.db") as store:
        gc.collect()
        before = resident_bytes()
        async with anyio.create_task_group() as tasks:
            for number in range(5000):
                tasks.start_soon(store.put, f"/configmaps/default/{number}", encode)
        gc.collect()
        print(
            f"memory of 1,000 objects of 2 KB        {(resident_bytes() - before) / 5 / 1024:10.0f} KiB (values alone 2,000)"
        )
        started = time.perf_counter()
        for _ in range(20):
            page = store.list("/configmaps/")
        print(
            f"list of {len(page.rows)} rows                      {(time.perf_counter() - started) / 20 * 1e3:10.2f} ms"
        )
        started = time.perf_counter()
        before_bytes = written_bytes()
        for _ in range(5000):
            await store.put("/leases/nodes/a", encode, volatile=True)
        took = time.perf_counter() - started
        print(
            f"volatile updates                       {5000 / took:10.0f} /s  {(written_bytes() - before_bytes) / 5000:6.1f} bytes written each"
        )
    async with await opened("memory.db") as store:  # again, so that no checkpoint of what was before is counted
        before_bytes = written_bytes()
        for number in range(2000):
            await store.put(f"/configmaps/default/{number % 20}", encode)
        each = (written_bytes() - before_bytes) / 2000 / 1024
        print(f"durable updates one by one             {each:10.1f} KiB written each")
    started = time.perf_counter()
    async with await opened("memory.db"):
        print(f"opening a store of 5,000 rows          {(time.perf_counter() - started) * 1e3:10.0f} ms")
    await threads.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--dir", default=".")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        anyio.run(measure, Path(folder), options.seconds, backend_options={"loop_factory": loop_factory()})


if __name__ == "__main__":
    main()
