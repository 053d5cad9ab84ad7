"""What devices of a mapper cost: memory of each, CPU of collecting, and of values that change and are reported.

    python -m benchmarks.mapper [--devices N] [--seconds S]

Drivers speak to nothing: what is measured is the SDK. Each device has 10 properties, collected each second. Reports go to an outlet that takes them at once, so the
edge's part is not in it (benchmarks.dmi).
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import sys
import time
from collections.abc import Sequence

import anyio
from prometheus_client import CollectorRegistry

from edgesite.mapper.devices import Assignment
from edgesite.mapper.driver import Device, DeviceState, Host, Property, Value
from edgesite.mapper.fleet import Fleet
from edgesite.mapper.metrics import Meters
from edgesite.mapper.reports import Key, Reading
from edgesite.net.real import loop_factory
from edgesite.testing.mapperrig import driver_host
from edgesite.testing.waiting import until

PROPERTIES = 10


class _Driver:
    """Values change at each look where ``moves`` says so."""

    protocol = "bench"
    moves = False

    def __init__(self, device: Device, host: Host) -> None:
        self._count = 0

    async def connect(self) -> None:
        pass

    async def read(self, prop: Property) -> Value:
        self._count += self.moves
        return self._count

    async def write(self, prop: Property, value: Value) -> None:
        pass

    async def health(self) -> DeviceState:
        return DeviceState.ONLINE


class _Taker:
    def __init__(self) -> None:
        self.calls = self.values = 0

    async def report(self, key: Key, readings: Sequence[Reading]) -> None:
        self.calls += 1
        self.values += len(readings)

    async def report_state(self, key: Key, state: DeviceState) -> None:
        self.calls += 1


def _assigned(number: int) -> Assignment:
    properties = tuple(
        Property(f"p{at}", "int", False, {}, collect_every=1.0, report_every=1.0) for at in range(PROPERTIES)
    )
    return Assignment(Device("default", f"d{number}", "m", "bench", {}, properties))


def _resident_mib() -> float:
    pages = int(open("/proc/self/statm").read().split()[1])  # noqa: SIM115 - one line of the kernel's
    return pages * os.sysconf("SC_PAGESIZE") / (1 << 20)


async def _measure(devices: int, seconds: float) -> None:
    taker = _Taker()
    async with driver_host() as host, Fleet(host, taker, Meters(CollectorRegistry())) as fleet:
        gc.collect()
        before = _resident_mib()
        for number in range(devices):
            fleet.put(_assigned(number), _Driver)
        await until(lambda: all(one.state is DeviceState.ONLINE for one in fleet), timeout_s=60)
        await anyio.sleep(3)
        gc.collect()
        grown = _resident_mib() - before
        print(
            f"memory: {before:.1f} MiB without devices, {1024 * grown / devices:.1f} KiB for each of {devices} devices"
        )
        for _Driver.moves, what in ((False, "unchanged"), (True, "changed and reported")):
            await anyio.sleep(2)
            values, cpu, at = taker.values, time.process_time(), time.perf_counter()
            await anyio.sleep(seconds)
            cpu, passed = time.process_time() - cpu, time.perf_counter() - at
            reads = devices * PROPERTIES * passed
            print(
                f"{what}: {1e6 * cpu / reads:.1f} µs of CPU a value, {100 * cpu / passed:.1f} % of a core at {devices * PROPERTIES}/s;"
                f" {(taker.values - values) / passed:,.0f} values/s reported"
            )
    print(f"largest: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.1f} MiB")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    anyio.run(_measure, given.devices, given.seconds, backend_options={"loop_factory": loop_factory()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
