"""A device plugin as vendors write them: a process that registers with the node and offers devices which are files.

    python device_plugin.py FOLDER STATE_FOLDER RESOURCE [COUNT]

STATE_FOLDER/devices holds a line for each device: "id" or "id sick"; it is read again whenever it changes. Calls are appended to
STATE_FOLDER/calls as lines of JSON. It registers again when its socket is removed, as plugins must.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from edgesite.edge.edged.devices.tables import DEVICES
from edgesite.kube.protowire import decode, encode


class Plugin(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, state: Path) -> None:
        self.state = state

    def note(self, call: str, body: dict[str, Any]) -> None:
        with (self.state / "calls").open("a") as out:
            out.write(json.dumps({"call": call, **body}) + "\n")

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        name = details.method.rpartition("/")[2]
        if name == "ListAndWatch":
            return grpc.unary_stream_rpc_method_handler(self.list_and_watch)
        method = {
            "GetDevicePluginOptions": self.options,
            "GetPreferredAllocation": self.preferred,
            "Allocate": self.allocate,
            "PreStartContainer": self.pre_start,
        }.get(name)
        return grpc.unary_unary_rpc_method_handler(method) if method else None

    async def options(self, data: bytes, context: Any) -> bytes:
        both = {"pre_start_required": True, "get_preferred_allocation_available": True}
        return encode(DEVICES["DevicePluginOptions"], both)

    async def list_and_watch(self, data: bytes, context: Any) -> AsyncIterator[bytes]:
        said = None
        while True:
            lines = (self.state / "devices").read_text().splitlines()
            if lines != said:
                said = lines
                devices = [
                    {
                        "ID": line.split()[0],
                        "health": "Unhealthy" if "sick" in line else "Healthy",
                        "topology": {"nodes": [{"ID": 0}]},
                    }
                    for line in lines
                ]
                yield encode(DEVICES["ListAndWatchResponse"], {"devices": devices})
            await asyncio.sleep(0.05)

    async def preferred(self, data: bytes, context: Any) -> bytes:
        (wanted,) = decode(DEVICES["PreferredAllocationRequest"], data)["container_requests"]
        self.note("GetPreferredAllocation", wanted)
        last = sorted(wanted["available_deviceIDs"])[-wanted["allocation_size"] :]
        answer = {"container_responses": [{"deviceIDs": last}]}
        return encode(DEVICES["PreferredAllocationResponse"], answer)

    async def allocate(self, data: bytes, context: Any) -> bytes:
        (wanted,) = decode(DEVICES["AllocateRequest"], data)["container_requests"]
        ids = wanted["devices_ids"]
        self.note("Allocate", wanted)
        given = {
            "envs": {"DEVICES": ",".join(ids)},
            "annotations": {"devices.test/ids": ",".join(ids)},
            "mounts": [{"container_path": "/driver", "host_path": str(self.state / "driver"), "read_only": True}],
            "devices": [{"container_path": "/dev/first", "host_path": "/dev/null", "permissions": "rw"}],
        }
        return encode(DEVICES["AllocateResponse"], {"container_responses": [given]})

    async def pre_start(self, data: bytes, context: Any) -> bytes:
        self.note("PreStartContainer", decode(DEVICES["PreStartContainerRequest"], data))
        return b""


async def main(folder: Path, state: Path, resource: str) -> None:
    socket = folder / f"{resource.replace('/', '_')}.sock"
    while True:
        while not (folder / "kubelet.sock").exists():  # noqa: ASYNC110 - files have no events here
            await asyncio.sleep(0.05)
        socket.unlink(missing_ok=True)
        server = grpc.aio.server(handlers=[Plugin(state)])
        server.add_insecure_port(f"unix://{socket}")
        await server.start()
        async with grpc.aio.insecure_channel(f"unix://{folder}/kubelet.sock") as channel:
            request = {"version": "v1beta1", "endpoint": socket.name, "resource_name": resource}
            call = channel.unary_unary("/v1beta1.Registration/Register")
            try:
                await call(encode(DEVICES["RegisterRequest"], request), timeout=5)
            except grpc.aio.AioRpcError as exc:
                print(exc.details(), flush=True)
        while socket.exists():  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.05)
        await server.stop(None)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
