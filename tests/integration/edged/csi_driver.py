"""A CSI driver as vendors write them: a process behind sockets, whose volumes are folders that it binds to where it is told.

    python csi_driver.py NAME REGISTRATION_SOCKET DRIVER_SOCKET STATE_FOLDER [OPTION ...]

Each call is appended to STATE_FOLDER/calls as a line of JSON. Volumes are STATE_FOLDER/volumes/ID. Options: "stage" (wants volumes to be
staged), "stats", "expand", "group" (sets groups itself), "refuse-publish", "refuse-expand", "hold-publish" (until STATE_FOLDER/allow exists), "leave-file" (of a device that was unpublished).
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from edgesite.edge.edged.plugins.registry import REGISTRATION
from edgesite.edge.edged.volumes.csi.driver import CSI
from edgesite.kube.protowire import decode, encode

OPTIONS = {"stage": 1, "stats": 2, "expand": 3, "group": 6}


class OutOfRange(Exception):
    """The driver will never do that."""


class Driver:
    def __init__(self, name: str, endpoint: str, state: Path, options: list[str]) -> None:
        self.name, self.endpoint, self.state, self.options = name, endpoint, state, options
        (state / "volumes").mkdir(parents=True, exist_ok=True)

    @property
    def is_held(self) -> bool:
        return "hold-publish" in self.options and not (self.state / "allow").exists()

    def note(self, call: str, body: dict[str, Any]) -> None:
        def plain(value: Any) -> Any:
            return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)

        with (self.state / "calls").open("a") as out:
            out.write(json.dumps({"call": call, **body}, default=plain) + "\n")

    # -- who it is

    def get_info(self, body: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "CSIPlugin",
            "name": self.name,
            "endpoint": self.endpoint,
            "supported_versions": ["1.0.0"],
        }

    def notify_registration_status(self, body: dict[str, Any]) -> dict[str, Any]:
        self.note("registered", {"ok": body.get("plugin_registered", False), "error": body.get("error", "")})
        return {}

    def node_get_info(self, body: dict[str, Any]) -> dict[str, Any]:
        topology = {"segments": {f"topology.{self.name}/zone": "west"}}
        return {"node_id": f"id-of-{self.name}", "max_volumes_per_node": 7, "accessible_topology": topology}

    def node_get_capabilities(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"capabilities": [{"rpc": {"type": OPTIONS[one]}} for one in self.options if one in OPTIONS]}

    # -- volumes

    def node_stage_volume(self, body: dict[str, Any]) -> dict[str, Any]:
        bind(self.volume(body), Path(body["staging_target_path"]))
        return {}

    def node_unstage_volume(self, body: dict[str, Any]) -> dict[str, Any]:
        unbind(Path(body["staging_target_path"]))
        return {}

    def node_publish_volume(self, body: dict[str, Any]) -> dict[str, Any]:
        if "refuse-publish" in self.options and not (self.state / "allow").exists():
            raise PermissionError("not today")
        source = body.get("staging_target_path")
        if "stage" in self.options and body["volume_id"].startswith("csi-") is False and not source:
            raise ValueError("the volume was not staged")
        target = Path(body["target_path"])
        if "block" in body["volume_capability"]:
            bind_device(self.volume(body) / "device", target)
        else:
            bind(Path(source) if source else self.volume(body), target, body.get("readonly", False))
        return {}

    def node_unpublish_volume(self, body: dict[str, Any]) -> dict[str, Any]:
        target = Path(body["target_path"])
        unbind(target)
        if target.is_dir():
            target.rmdir()
        elif "leave-file" not in self.options:
            target.unlink(missing_ok=True)
        if body["volume_id"].startswith("csi-"):  # an ephemeral one ends with its pod
            shutil.rmtree(self.state / "volumes" / body["volume_id"], ignore_errors=True)
        return {}

    def node_expand_volume(self, body: dict[str, Any]) -> dict[str, Any]:
        if "refuse-expand" in self.options and not (self.state / "allow").exists():
            raise OutOfRange("it is as large as it can be")
        return {"capacity_bytes": body["capacity_range"]["required_bytes"]}

    def node_get_volume_stats(self, body: dict[str, Any]) -> dict[str, Any]:
        if not is_mounted(Path(body["volume_path"])):
            raise FileNotFoundError(body["volume_path"])
        return {"usage": [{"unit": 2, "used": 1}, {"unit": 1, "total": 1000, "used": 400, "available": 600}]}

    def volume(self, body: dict[str, Any]) -> Path:
        folder = self.state / "volumes" / body["volume_id"]
        folder.mkdir(exist_ok=True)
        return folder


def is_mounted(target: Path) -> bool:
    return f" {target} " in Path("/proc/self/mountinfo").read_text()


def bind(source: Path, target: Path, readonly: bool = False) -> None:
    target.mkdir(parents=True, exist_ok=True)
    if is_mounted(target):
        return
    subprocess.run(["mount", "--bind", str(source), str(target)], check=True)
    if readonly:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(target)], check=True)


def bind_device(device: Path, target: Path) -> None:
    """A device that nothing stands behind: what counts is that it is one."""
    if not device.exists():
        os.mknod(device, 0o600 | stat.S_IFBLK, os.makedev(7, 250))
    if not is_mounted(target):
        target.touch()
        subprocess.run(["mount", "--bind", str(device), str(target)], check=True)


def unbind(target: Path) -> None:
    if is_mounted(target):
        subprocess.run(["umount", str(target)], check=True)


class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, driver: Driver) -> None:
        self.driver = driver

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        _, package, name = details.method.split("/")
        table = REGISTRATION if package.startswith("pluginregistration.") else CSI
        method = getattr(self.driver, "".join(f"_{one.lower()}" if one.isupper() else one for one in name)[1:], None)
        if method is None:
            return None
        names = {"GetInfo": ("InfoRequest", "PluginInfo")}
        names["NotifyRegistrationStatus"] = ("RegistrationStatus", "RegistrationStatusResponse")
        request, answer = names.get(name, (f"{name}Request", f"{name}Response"))
        request = request if request in set(table) else "Empty"
        answer = answer if answer in set(table) else "Empty"

        async def call(data: bytes, context: grpc.aio.ServicerContext) -> bytes:
            body = decode(table[request], data)
            if table is CSI:
                self.driver.note(name, body)
            while name == "NodePublishVolume" and self.driver.is_held:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            try:
                return encode(table[answer], method(body))
            except OutOfRange as exc:
                await context.abort(grpc.StatusCode.OUT_OF_RANGE, str(exc))
                raise
            except (OSError, ValueError, KeyError, subprocess.CalledProcessError) as exc:
                await context.abort(grpc.StatusCode.INTERNAL, str(exc))
                raise

        return grpc.unary_unary_rpc_method_handler(call)


async def serve(driver: Driver, endpoint: str, registration: str) -> None:
    server = grpc.aio.server(handlers=[Handler(driver)])
    server.add_insecure_port(f"unix://{endpoint}")
    server.add_insecure_port(f"unix://{registration}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    name, registration, endpoint, state, *options = sys.argv[1:]
    for address in (Path(endpoint), Path(registration)):
        address.parent.mkdir(parents=True, exist_ok=True)
        address.unlink(missing_ok=True)
    asyncio.run(serve(Driver(name, endpoint, Path(state), options), endpoint, registration))
