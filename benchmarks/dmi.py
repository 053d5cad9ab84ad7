"""What a report costs, by DMI and by MQTT: through DeviceTwin into SQLite.

    python -m benchmarks.dmi [--reports N]

The edge's metamanager, DeviceTwin, EventBus with its broker, and DMI run in a process of their own, and its CPU time alone is counted.

DMI     The mapper keeps 64 calls under way on one connection; each is durable before its answer. Nobody listens on MQTT. Target: 3,000/s on one core.
MQTT    A client publishes updates of QoS 1; another one gets the result and the delta of each, and the first keeps at most 200 ahead of it. Target: 5,000/s on one core.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import anyio
import anyio.abc

from edgesite.kube.dmi.messages import tables
from edgesite.kube.protowire import encode
from edgesite.net.grpc import Channel
from edgesite.net.real import RealNet, loop_factory
from edgesite.wire.mqtt.codec import Decoder
from edgesite.wire.mqtt.codec import encode as encode_mqtt
from edgesite.wire.mqtt.packets import Connect, Publish, Subscribe, Subscription

DEVICES = 100
CALLS = 64
WINDOW = 200
STATUS = "/v1beta1.DeviceManagerService/ReportDeviceStatus"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--reports", type=int, default=10_000)
    count = parser.parse_args().reports
    for properties in (1, 10):
        with tempfile.TemporaryDirectory(prefix="dmi") as name:
            cpu_s, clock_s = _measured(Path(name), count, properties, _report)
        print(
            f"{properties} properties a report: {1e6 * cpu_s / count:.0f} µs of CPU; {count / cpu_s:,.0f} reports and"
            f" {count * properties / cpu_s:,.0f} values per CPU second; {count / clock_s:,.0f}/s on the clock"
        )
    with tempfile.TemporaryDirectory(prefix="dmi") as name:
        cpu_s, clock_s = _measured(Path(name), count, 1, _publish)
    print(
        f"updates by MQTT, result and delta out: {1e6 * cpu_s / count:.0f} µs of CPU; {count / cpu_s:,.0f} per CPU second;"
        f" {count / clock_s:,.0f}/s on the clock"
    )
    return 0


def _measured(
    folder: Path, count: int, properties: int, load: Callable[[Path, int, int, int], Coroutine[Any, Any, None]]
) -> tuple[float, float]:
    """Return CPU seconds of the edge, and seconds on the clock."""
    near, far = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_edge, args=(folder, properties, far))
    process.start()
    try:
        near.recv()
        asyncio.run(load(folder, count // 10, properties, 0))
        before, at = _cpu(near), time.perf_counter()
        asyncio.run(load(folder, count, properties, 1))
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


async def _publish(folder: Path, count: int, properties: int, turn: int) -> None:
    """Updates that differ from what is wanted, so that each has a delta."""
    reader, writer = await _client(folder, "reader"), await _client(folder, "writer")
    for number, what in enumerate(("result", "delta"), 1):
        pattern = f"$hw/events/device/default/+/twin/update/{what}"
        await reader.send(encode_mqtt(Subscribe(number, [Subscription(pattern, 0)]), 4))
        await reader.receive()
    got, room = 0, anyio.Event()

    async def read() -> None:
        nonlocal got, room
        decoder = Decoder()
        while got < 2 * count:
            got += sum(isinstance(one, Publish) for one in decoder.feed(await reader.receive(1 << 18)))
            room.set()

    async def drain() -> None:
        while True:
            await writer.receive(1 << 18)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(drain)
        tasks.start_soon(read)
        for start in range(0, count, 50):
            while start - got // 2 > WINDOW:
                room = anyio.Event()
                await room.wait()
            await writer.send(b"".join(_update(n, turn) for n in range(start, min(start + 50, count))))
        while got < 2 * count:
            room = anyio.Event()
            await room.wait()
        tasks.cancel_scope.cancel()
    await reader.aclose()
    await writer.aclose()


def _update(n: int, turn: int) -> bytes:
    value = 2 + (n // DEVICES + turn) % 90
    text = f'{{"event_id":"","timestamp":1,"twin":{{"p0":{{"actual":{{"value":"{value}"}}}}}}}}'
    topic = f"$hw/events/device/default/d{n % DEVICES}/twin/update"
    return encode_mqtt(Publish(topic, text.encode(), 1, packet_id=n % 60_000 + 1), 4)


async def _client(folder: Path, name: str) -> anyio.abc.ByteStream:
    stream = await anyio.connect_unix(folder / "mqtt.sock")
    await stream.send(encode_mqtt(Connect(name, 4, True), 4))
    await stream.receive()
    return stream


def _edge(folder: Path, properties: int, pipe: Connection) -> None:
    from edgesite.edge.devicetwin.module import DeviceTwin
    from edgesite.edge.dmi.module import Dmi
    from edgesite.edge.eventbus.module import EventBus
    from edgesite.edge.metamanager.module import MetaManager
    from edgesite.runtime.config.edge import EdgeModules
    from edgesite.testing.busrig import bus_rig, event_bus
    from edgesite.testing.waiting import until

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
