"""Where device plugins register themselves.

    <root>/device-plugins/kubelet.sock

The sockets of plugins in this folder are removed at the start: that is how plugins learn that they have to register again.

Errors  OSError if the folder or the socket cannot be made.
State   The listening socket.
Source  Kubernetes device plugin API v1beta1, service Registration.
"""

from __future__ import annotations

import logging
import stat
from pathlib import Path
from typing import Final

import anyio

from edgesite.context import Net, Threads
from edgesite.edge.edged.devices.manager import DeviceManager
from edgesite.edge.edged.devices.tables import DEVICES, REGISTER, VERSION
from edgesite.edge.edged.plugins.registry import PluginRefused
from edgesite.kube.protowire import WireFormatError, decode, encode
from edgesite.net.grpc import Code, GrpcError
from edgesite.net.grpc_server import GrpcServer

__all__ = ["RegistrationServer"]

SOCKET: Final = "kubelet.sock"


class RegistrationServer:
    def __init__(
        self,
        folder: Path,
        manager: DeviceManager,
        net: Net,
        threads: Threads,
        log: logging.Logger | logging.LoggerAdapter[logging.Logger],
    ) -> None:
        self._folder, self._manager, self._net, self._threads, self._log = folder, manager, net, threads, log

    async def run(self) -> None:
        """Serve until cancelled. Raises OSError."""
        await self._threads.run(_make_room, self._folder)
        async with GrpcServer({REGISTER: self._register}) as server:
            await server.listen(self._net, f"unix://{self._folder / SOCKET}")
            await anyio.sleep_forever()

    async def _register(self, data: bytes) -> bytes:
        """Raises GrpcError."""
        try:
            said = decode(DEVICES["RegisterRequest"], data)
            resource, endpoint = said.get("resource_name", ""), said.get("endpoint", "")
            if said.get("version", "") != VERSION:
                raise PluginRefused(f"requested API version {said.get('version', '')!r} is not supported: {VERSION} is")
            if not endpoint or "/" in endpoint:
                raise PluginRefused(f"the endpoint {endpoint!r} is no name of a socket beside this one")
            self._manager.register(resource, str(self._folder / endpoint))
        except (PluginRefused, WireFormatError) as exc:
            self._log.warning("a device plugin is refused: %s", exc)
            raise GrpcError(Code.INVALID_ARGUMENT, str(exc)) from exc
        self._log.info("device plugin of resource=%s is registered", resource)
        return encode(DEVICES["Empty"], {})


def _make_room(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o750)
    for entry in folder.iterdir():
        if stat.S_ISSOCK(entry.lstat().st_mode):
            entry.unlink(missing_ok=True)
