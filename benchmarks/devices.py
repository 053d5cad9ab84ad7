"""Device twins: updates a second, and the memory of idle devices.

python -m benchmarks.devices [updates | memory | all]

updates   1,000 devices of 10 properties each; single-property updates of clients go through DeviceTwin into SQLite (durable in groups) and come out
          as result, document and delta. What is printed is CPU (user and system) of the whole process, test rig included.
memory    resident memory that 1,000 idle devices, every property of which was reported, add to an edge role that has metamanager and
          DeviceTwin: as they have come, and after a start. `benchmarks.devicesite` measures whole roles.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio

from edgesite.testing.twinrig import TwinRig, twin_rig

DEVICES = 1000
PROPERTIES = 10
WINDOW = 64
UPDATES = 30_000
UPDATE = "$hw/events/device/{}/twin/update"


def model() -> dict[str, Any]:
    properties = [
        {"name": f"p{n}", "type": "INT", "accessMode": "ReadWrite", "minimum": "0", "maximum": "1000000"}
        for n in range(PROPERTIES)
    ]
    return {
        "apiVersion": "devices.kubeedge.io/v1beta1",
        "kind": "DeviceModel",
        "metadata": {"name": "machine", "namespace": "default", "uid": "model", "resourceVersion": "1"},
        "spec": {"protocol": "modbus", "properties": properties},
    }


def device(number: int) -> dict[str, Any]:
    name = f"machine-{number:04d}"
    properties = [
        {
            "name": f"p{n}",
            "desired": {"value": "7", "metadata": {"type": "int"}},
            "collectCycle": 1000,
            "reportCycle": 1000,
            "visitors": {
                "protocolName": "modbus",
                "configData": {"register": "HoldingRegister", "offset": n, "limit": 1},
            },
        }
        for n in range(PROPERTIES)
    ]
    return {
        "apiVersion": "devices.kubeedge.io/v1beta1",
        "kind": "Device",
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": f"uid-{number}",
            "resourceVersion": str(number + 2),
            "labels": {"description": "machine"},
        },
        "spec": {
            "deviceModelRef": {"name": "machine"},
            "nodeName": "edge-1",
            "protocol": {
                "protocolName": "modbus",
                "configData": {"ip": "192.168.1.7", "port": 502, "slaveID": number % 250},
            },
            "properties": properties,
        },
    }


async def fill(rig: TwinRig, count: int = DEVICES) -> None:
    await rig.cloud("insert", "default/devicemodel/machine", model())
    for number in range(count):
        await rig.cloud("insert", f"default/device/machine-{number:04d}", device(number))
        with anyio.fail_after(120):  # a hub has so many objects under way at once
            while number + 1 - len(rig.acknowledged) > (WINDOW if number < count - 1 else -1):
                await rig.wait()
    await rig.settled(60)
    rig.published.clear()
    rig.forgets = True


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def rss_mib() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def updates() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with twin_rig(Path(folder)) as rig:
            await fill(rig)
            payloads = [
                (
                    UPDATE.format(f"machine-{n % DEVICES:04d}"),
                    b'{"event_id":"","timestamp":1700000001000,"twin":{"p%d":{"actual":{"value":"%d"},"metadata":{"type":"int"}}}}'
                    % (n // DEVICES % PROPERTIES, n + 100),
                )
                for n in range(UPDATES)
            ]
            rig.count = 0
            begun, wall = cpu_s(), time.perf_counter()
            for topic, payload in payloads:
                await rig.say(topic, payload)
            await rig.settled(120)
            used, took = cpu_s() - begun, time.perf_counter() - wall
            rows = await rig.table("SELECT count(*) FROM device_twin WHERE actual IS NOT NULL")
        print(
            f"updates: {UPDATES} in {used:.2f} s of CPU: {UPDATES / used:,.0f} a second on one core ({took:.2f} s by the clock);"
            f" {rig.count} publications, {rows[0][0]} values on disk"
        )


async def memory() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with twin_rig(Path(folder)) as rig:
            await fill(rig, 1)
        figures = []
        async with twin_rig(Path(folder)) as rig:
            figures.append(await _settled_mib(rig))
            await fill(rig)
            for number in range(DEVICES):
                twin = {f"p{n}": {"actual": {"value": str(n + number)}} for n in range(PROPERTIES)}
                await rig.say(UPDATE.format(f"machine-{number:04d}"), {"event_id": "", "timestamp": 1, "twin": twin})
            figures.append(await _settled_mib(rig))
        command = [sys.executable, "-m", "benchmarks.devices", "started", folder]
        done = await anyio.run_process(command)
        figures.append(float(done.stdout))
    print(
        f"memory: {figures[0]:.1f} MiB with one device; with {DEVICES}: {figures[1] - figures[0]:.1f} MiB more as they have come,"
        f" {figures[2] - figures[0]:.1f} MiB more after a start"
    )


async def _settled_mib(rig: TwinRig) -> float:
    await rig.settled(120)
    rig.clear()
    gc.collect()
    return rss_mib()


async def started(folder: str) -> None:
    async with twin_rig(Path(folder)) as rig:
        print(await _settled_mib(rig))


def main() -> int:
    wanted = sys.argv[1] if len(sys.argv) > 1 else "all"
    if wanted == "started":
        anyio.run(started, sys.argv[2])
    for name, run in (("updates", updates), ("memory", memory)):
        if wanted in (name, "all"):
            anyio.run(run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
