"""A register of a Modbus machine as a twin at a real edge, and back: by the plugin in the edge's process, and by the program over DMI."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from edgesite_mapper_modbus.plugin import edgesite_mapper
from mapper_edge import MODULES, Edge
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from edgesite.runtime.config.edge import EdgeModules
from edgesite.testing.busrig import bus_rig

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]
SPEED, PRESSURE = 4, 8


@asynccontextmanager
async def machine() -> AsyncIterator[int]:
    """A Modbus machine: a speed of 1200 rpm, a pressure of 1.5; yields its port."""
    registers = [SimData(SPEED, values=1200, datatype=DataType.REGISTERS)]
    registers.append(SimData(PRESSURE, values=[0x3FC0, 0], datatype=DataType.REGISTERS))
    server = ModbusTcpServer(SimDevice(1, registers), address=("127.0.0.1", 0))
    await server.serve_forever(background=True)
    try:
        yield server.transport.sockets[0].getsockname()[1]
    finally:
        await server.shutdown()


@asynccontextmanager
async def edge(folder: Path, *, has_plugin: bool) -> AsyncIterator[Edge]:
    modules = EdgeModules().model_dump()
    modules["deviceTwin"] |= {"dmiSockPath": str(folder)}
    drivers = {"modbus": edgesite_mapper("modbus")} if has_plugin else {}
    async with (
        bus_rig(MODULES, folder, modules, has_twin=False, drivers=drivers) as rig,
        anyio.create_task_group() as tasks,
    ):
        site = Edge(rig)
        tasks.start_soon(site.listen)
        try:
            yield site
        finally:
            tasks.cancel_scope.cancel()
            site.close()


@asynccontextmanager
async def program(folder: Path) -> AsyncIterator[None]:
    words = ["--edge-socket", f"{folder}/dmi.sock", "--socket", f"{folder}/modbus.sock", "--http", ""]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "edgesite_mapper_modbus.program", *words]
    async with await anyio.open_process(command, env=environment, stdout=None, stderr=None) as running:
        yield
        running.terminate()
        with anyio.fail_after(60):
            assert await running.wait() == 0


def model() -> dict[str, Any]:
    properties = [
        {"name": "speed", "type": "INT", "accessMode": "ReadWrite", "minimum": "0", "maximum": "3000"},
        {"name": "pressure", "type": "FLOAT", "accessMode": "ReadOnly"},
    ]
    metadata = {"name": "pump", "namespace": "default", "uid": "m", "resourceVersion": "1"}
    spec = {"protocol": "modbus", "properties": properties}
    return {"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceModel", "metadata": metadata, "spec": spec}


def device(port: int, desired: str = "", version: int = 1) -> dict[str, Any]:
    def visited(name: str, offset: int, limit: int, **more: Any) -> dict[str, Any]:
        words = {"register": "HoldingRegister", "offset": offset, "limit": limit}
        visitors = {"protocolName": "modbus", "configData": words}
        return {
            "name": name,
            "visitors": visitors,
            "collectCycle": 50,
            "reportCycle": 50,
            "reportToCloud": True,
            **more,
        }

    wanted = {"desired": {"value": desired}} if desired else {}
    spec = {
        "deviceModelRef": {"name": "pump"},
        "nodeName": "node-1",
        "protocol": {
            "protocolName": "modbus",
            "configData": {"slaveID": 1, "tcp": {"ip": "127.0.0.1", "port": port}, "timeout": 2},
        },
        "properties": [visited("speed", SPEED, 1, **wanted), visited("pressure", PRESSURE, 2)],
    }
    metadata = {"name": "pump-1", "namespace": "default", "uid": "d", "resourceVersion": str(version)}
    return {"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "metadata": metadata, "spec": spec}


@pytest.mark.parametrize("kind", ["plugin", "program"])
async def test_a_register_is_a_twin_and_back(kind: str) -> None:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="map")))
        port = await stack.enter_async_context(machine())
        site = await stack.enter_async_context(edge(folder, has_plugin=kind == "plugin"))
        if kind == "program":
            await stack.enter_async_context(program(folder))
        await site.apply(model())
        await site.apply(device(port))
        await site.reported("speed", "1200")
        await site.reported("pressure", "1.500000")
        await site.state("online")
        await site.apply(device(port, desired="1500", version=2), "update")
        await site.reported("speed", "1500")
        client = AsyncModbusTcpClient("127.0.0.1", port=port)
        assert await client.connect()
        assert (await client.read_holding_registers(SPEED, count=1, device_id=1)).registers == [1500]
        client.close()
