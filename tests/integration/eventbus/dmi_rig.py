"""A mapper of grpcio, and an edge role with its real metamanager, DeviceTwin and DMI: what the tests of the interface stand on."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import grpc

from edgesite.edge.devicetwin.module import DeviceTwin
from edgesite.edge.dmi.module import Dmi
from edgesite.edge.metamanager.module import MetaManager
from edgesite.kube.dmi.messages import tables
from edgesite.kube.protowire import decode, encode
from edgesite.runtime.config.edge import EdgeModules
from edgesite.testing.busrig import BusRig, bus_rig
from edgesite.testing.waiting import until
from edgesite.wire.message import Message

MODULES = [MetaManager, DeviceTwin, Dmi]
Call = tuple[str, dict[str, Any]]


def model(name: str = "pump", **changed: Any) -> dict[str, Any]:
    properties = [{"name": "speed", "type": "INT", "accessMode": "ReadWrite", "minimum": "0", "maximum": "100"}]
    return {
        "apiVersion": "devices.kubeedge.io/v1beta1",
        "kind": "DeviceModel",
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-model-{name}", "resourceVersion": "1"},
        "spec": {"protocol": "modbus", "properties": properties, **changed},
    }


def device(name: str = "pump-1", *, desired: str = "40", version: int = 2, protocol: str = "modbus") -> dict[str, Any]:
    visitors = {"protocolName": protocol, "configData": {"register": "HoldingRegister", "offset": 2}}
    speed = {"name": "speed", "desired": {"value": desired}, "visitors": visitors, "collectCycle": 1000}
    return {
        "apiVersion": "devices.kubeedge.io/v1beta1",
        "kind": "Device",
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}", "resourceVersion": str(version)},
        "spec": {
            "deviceModelRef": {"name": "pump"},
            "nodeName": "edge-1",
            "protocol": {"protocolName": protocol, "configData": {"slaveID": 1}},
            "properties": [speed],
        },
    }


@dataclass(frozen=True, slots=True)
class Edge:
    rig: BusRig
    channel: grpc.aio.Channel

    async def apply(self, obj: dict[str, Any], operation: str = "insert") -> None:
        """Tell the edge of a device or a model, as its cloud does."""
        kind = "device" if obj["kind"] == "Device" else "devicemodel"
        resource = f"default/{kind}/{obj['metadata']['name']}"
        number = obj["metadata"]["resourceVersion"]
        message = Message(
            f"{resource}-{operation}-{number}",
            1,
            "devicecontroller",
            "resource",
            operation,
            resource,
            obj,
            resource_version=number,
        )
        await self.rig.bus.send_group("meta", message)

    async def call(self, path: str, request: dict[str, Any]) -> dict[str, Any]:
        """Call the edge as a mapper does. Raises grpc.aio.AioRpcError."""
        version, _, rest = path.partition(".")
        method = rest.rpartition("/")[2]
        known = tables(version)
        answer = await self.raw(f"/{path}", encode(known[f"{method}Request"], request))
        return decode(known[f"{method}Response"], answer)

    async def raw(self, path: str, data: bytes) -> bytes:
        return bytes(await self.channel.unary_unary(path)(data, timeout=10))

    async def register(self, mapper: GoMapper, *, version: str = "v1beta1", **changed: Any) -> dict[str, Any]:
        info = {"name": "m1", "version": "v1", "api_version": "v1", "protocol": "modbus", "state": "ok"}
        info |= {"address": mapper.path.encode(), **changed}
        return await self.call(f"{version}.DeviceManagerService/MapperRegister", {"withData": True, "mapper": info})


@asynccontextmanager
async def edge(folder: Path, **settings: Any) -> AsyncGenerator[Edge]:
    """Run the edge; ``folder`` is short enough for sockets."""
    modules = EdgeModules().model_dump()
    modules["deviceTwin"] |= {"dmiSockPath": str(folder), **settings}
    async with bus_rig(MODULES, folder, modules, has_twin=False) as rig:
        path = folder / "dmi.sock"
        await until(path.exists)
        async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
            yield Edge(rig, channel)


class GoMapper:
    """A mapper that remembers what it is told. ``answer`` may raise for a call, or wait."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.calls: list[Call] = []
        self.answer: Callable[[str], Any] | None = None
        self._came = anyio.Event()
        self._read = 0

    async def next(self) -> Call:
        with anyio.fail_after(60):
            while self._read >= len(self.calls):
                self._came = anyio.Event()
                await self._came.wait()
        self._read += 1
        return self.calls[self._read - 1]

    @asynccontextmanager
    async def serve(self) -> AsyncGenerator[None]:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_Handlers(self),))
        server.add_insecure_port(f"unix:{self.path}")
        await server.start()
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await server.stop(None)
                await anyio.Path(self.path).unlink(missing_ok=True)

    async def take(self, path: str, data: bytes, context: Any) -> bytes:
        version, _, method = path.strip("/").replace(".DeviceMapperService/", ".").partition(".")
        known = tables(version)
        request = decode(known[f"{method}Request"], data)
        if self.answer is not None:
            refusal = self.answer(method)
            if isinstance(refusal, str):
                await context.abort(grpc.StatusCode.UNKNOWN, refusal)
            elif refusal is not None:
                await refusal
        self.calls.append((method, request))
        self._came.set()
        if method == "GetDevice":
            return encode(known["GetDeviceResponse"], {"device": {"name": request["deviceName"]}})
        return b""


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, mapper: GoMapper) -> None:
        self._mapper = mapper

    def service(self, details: Any) -> Any:
        async def handle(data: bytes, context: Any) -> bytes:
            return await self._mapper.take(details.method, data, context)

        return grpc.unary_unary_rpc_method_handler(handle)
