"""What a report of a mapper costs: DMI over its unix socket, through DeviceTwin into SQLite, durable before the answer.

    python -m benchmarks.dmi [--reports N]

The edge's metamanager, DeviceTwin, EventBus (with its broker, nobody listening) and DMI run in a process of their own, and its CPU time alone is counted. The
mapper keeps 64 calls under way on one connection. Target: 3,000 reports a second on one core.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import resource
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import anyio

from edgesite.edge.dmi.messages import tables
from edgesite.kube.protowire import encode
from edgesite.net.grpc import Channel
from edgesite.net.real import RealNet, loop_factory

DEVICES = 100
CALLS = 64
STATUS = "/v1beta1.DeviceManagerService/ReportDeviceStatus"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--reports", type=int, default=10_000)
    count = parser.parse_args().reports
    for properties in (1, 10):
        with tempfile.TemporaryDirectory(prefix="dmi") as name:
            cpu_s, clock_s = _measured(Path(name), count, properties)
        print(
            f"{properties} properties a report: {1e6 * cpu_s / count:.0f} µs of CPU; {count / cpu_s:,.0f} reports and"
            f" {count * properties / cpu_s:,.0f} values per CPU second; {count / clock_s:,.0f}/s on the clock"
        )
    return 0


def _measured(folder: Path, count: int, properties: int) -> tuple[float, float]:
    """Return CPU seconds of the edge, and seconds on the clock."""
    near, far = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_edge, args=(folder, properties, far))
    process.start()
    try:
        near.recv()
        asyncio.run(_report(folder, count // 10, properties, 0))
        before, at = _cpu(near), time.perf_counter()
        asyncio.run(_report(folder, count, properties, 1))
        return _cpu(near) - before, time.perf_counter() - at
    finally:
        near.send("end")
        process.join()


def _cpu(pipe: Connection) -> float:
    pipe.send("cpu")
    return float(pipe.recv())


async def _report(folder: Path, count: int, properties: int, turn: int) -> None:
    table = tables("v1beta1")["ReportDeviceStatusRequest"]
    channel = Channel(RealNet(), f"unix://{folder}/dmi.sock")
    numbers = iter(range(count))

    async def call() -> None:
        for n in numbers:
            value = str((n // DEVICES + turn) % 100)
            twins = [{"propertyName": f"p{p}", "reported": {"value": value}} for p in range(properties)]
            device = {"deviceName": f"d{n % DEVICES}", "deviceNamespace": "default"}
            await channel.call(STATUS, encode(table, {**device, "reportedDevice": {"twins": twins}}), timeout_s=30)

    async with anyio.create_task_group() as tasks:
        for _ in range(CALLS):
            tasks.start_soon(call)
    await channel.close()


def _edge(folder: Path, properties: int, pipe: Connection) -> None:
    from edgesite.edge.devicetwin.module import DeviceTwin
    from edgesite.edge.dmi.module import Dmi
    from edgesite.edge.eventbus.module import EventBus
    from edgesite.edge.metamanager.module import MetaManager
    from edgesite.runtime.config.edge import EdgeModules
    from edgesite.testing.busrig import bus_rig, event_bus, until

    async def run() -> None:
        settings = EdgeModules().model_dump()
        settings["deviceTwin"] |= {"dmiSockPath": str(folder), "dmiReportsPerSecond": 1_000_000}
        settings["eventBus"] = event_bus(mqttMode=0, mqttServerInternal="unix://" + str(folder / "mqtt.sock"))
        chosen = [MetaManager, DeviceTwin, EventBus, Dmi]
        async with bus_rig(chosen, folder, settings, has_twin=False) as rig:
            await _fill(rig.bus, properties)
            await until(lambda: len(rig.cloud.messages) > DEVICES and (folder / "dmi.sock").exists(), 60)
            rig.cloud.messages.clear()
            ended = anyio.Event()
            loop = asyncio.get_running_loop()
            loop.add_reader(pipe.fileno(), _answer, pipe, ended)
            pipe.send("up")
            await ended.wait()
            loop.remove_reader(pipe.fileno())

    anyio.run(run, backend_options={"loop_factory": loop_factory()})


async def _fill(bus: object, properties: int) -> None:
    from edgesite.wire.message import Message

    names = [f"p{p}" for p in range(properties)]
    objects = [
        ("devicemodel", "m", {"properties": [{"name": one, "type": "INT", "accessMode": "ReadWrite"} for one in names]})
    ]
    spec = {
        "deviceModelRef": {"name": "m"},
        "nodeName": "edge-1",
        "protocol": {"protocolName": "demo"},
        "properties": [{"name": one, "desired": {"value": "1"}, "reportToCloud": True} for one in names],
    }
    objects += [("device", f"d{n}", spec) for n in range(DEVICES)]
    for kind, name, one in objects:
        metadata = {"name": name, "namespace": "default", "uid": f"{kind}-{name}", "resourceVersion": "1"}
        kind_name = "Device" if kind == "device" else "DeviceModel"
        obj = {"apiVersion": "devices.kubeedge.io/v1beta1", "kind": kind_name, "metadata": metadata, "spec": one}
        resource_ = f"default/{kind}/{name}"
        message = Message(resource_, 1, "devicecontroller", "resource", "insert", resource_, obj, resource_version="1")
        await bus.send_group("meta", message)  # type: ignore[attr-defined]


def _answer(pipe: Connection, ended: anyio.Event) -> None:
    if pipe.recv() == "cpu":
        used = resource.getrusage(resource.RUSAGE_SELF)
        pipe.send(used.ru_utime + used.ru_stime)
    else:
        ended.set()


if __name__ == "__main__":
    sys.exit(main())
