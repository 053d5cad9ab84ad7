"""Many hollow nodes: their certificates, their connections, their timers.

Who loses its link dials again as an edge does: over the time that the hub has asked for, with edgehub's backoff and its default patience.

Errors  OSError when no node can connect at all within the deadline.
State   One TLS context per node, for each has a certificate of its own.
"""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import anyio

from edgesite.cli.edgemark.node import Counters, HollowNode
from edgesite.cloud.cloudhub.timers import Timers
from edgesite.edge.edgehub.backoff import Backoff
from edgesite.edge.edgehub.dialling import retry_after_s
from edgesite.kube.resources import SECRETS
from edgesite.net import pem, websocket
from edgesite.net.errors import NetError
from edgesite.net.pki import CLIENT, KeyPair, RealPki
from edgesite.net.tls import client_context

if TYPE_CHECKING:
    import random
    import ssl
    from collections.abc import Callable

    from anyio.abc import TaskGroup

    from edgesite.client import Client
    from edgesite.context import Clock, Net

__all__ = ["Fleet", "Traffic", "read_ca"]

_AT_ONCE: Final = 64  #: handshakes under way
_DIAL_S: Final = 30.0  #: the default of ``modules.edgeHub.websocket.handshakeTimeout``
_PROJECT: Final = "e632aba927ea4ac2b575ec1603d56f10"
_TCP_INFO: Final = 11
_BYTES_AT: Final = 120  #: tcpi_bytes_acked and tcpi_bytes_received (Linux, struct tcp_info)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes of TCP payload, TLS included."""

    up: int = 0
    down: int = 0

    def __sub__(self, other: Traffic) -> Traffic:
        return Traffic(self.up - other.up, self.down - other.down)


async def read_ca(client: Client) -> KeyPair:
    """Return the CA of the hub, which the administrator may read. Raises ApiError, LookupError."""
    data = (await client.get(SECRETS, "casecret", "kubeedge")).get("data") or {}
    if not data.get("cadata") or not data.get("cakeydata"):
        raise LookupError("the secret kubeedge/casecret holds no CA")
    key = base64.b64decode(data["cakeydata"])
    label = "EC PRIVATE KEY" if b"\x02\x01\x01" in key[2:8] else "PRIVATE KEY"
    return KeyPair(pem.from_der(base64.b64decode(data["cadata"])), pem.from_der(key, label))


class Fleet:
    """``nodes`` hollow nodes of one cloud. `connect` brings all up; who loses its link comes back by itself."""

    def __init__(
        self, net: Net, clock: Clock, draw: random.Random, tasks: TaskGroup, address: str, names: list[str]
    ) -> None:
        self.counters = Counters()
        self.failed_handshakes = 0
        self.failures: dict[str, int] = {}
        self.reconnect = True
        self._net = net
        self._clock = clock
        self._random = draw
        self._tasks = tasks
        self._address = address
        self._timers = Timers(clock)
        self._places = anyio.Semaphore(_AT_ONCE)
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._backoffs: dict[str, Backoff] = {}  # of those that had to wait
        self.nodes = {
            name: HollowNode(name, clock, draw, self.counters, arm=self._timers.arm, on_lost=self._lost)
            for name in names
        }
        tasks.start_soon(self._timers.run)

    async def certify(self, ca: KeyPair, progress: Callable[[int], None]) -> None:
        """Make a certificate for each node. Raises PkiError, OSError."""
        async with RealPki(self._clock).session() as pki:
            for at, name in enumerate(self.nodes, 1):
                pair = await pki.issue(ca, f"system:node:{name}", organizations=["system:nodes"], usages=CLIENT)
                self._contexts[name] = client_context(ca=ca.certificate, certificate=pair.certificate, key=pair.key)
                progress(at)

    async def connect(self, at_once: int = _AT_ONCE) -> None:
        """Bring all nodes up, ``at_once`` of them at a time."""
        self._places = anyio.Semaphore(at_once)
        async with anyio.create_task_group() as tasks:
            for node in self.nodes.values():
                await self._places.acquire()
                tasks.start_soon(self._first_dial, node)

    def _lost(self, node: HollowNode) -> None:
        now = self._clock.monotonic()
        self._backoff_of(node.name).held(now, now - node.connected_at, node.spread_s)
        if self.reconnect:
            self._tasks.start_soon(self._come_back, node)

    async def _first_dial(self, node: HollowNode) -> None:
        try:
            while (wait := await self._try(node)) is not None:
                await self._clock.sleep(wait)
        finally:
            self._places.release()

    async def _come_back(self, node: HollowNode) -> None:
        wait: float | None = self._backoff_of(node.name).wait_s(self._clock.monotonic())
        while wait is not None:
            await self._clock.sleep(wait)
            if not self.reconnect or node.socket is not None:
                return
            wait = await self._try(node)

    async def _try(self, node: HollowNode) -> float | None:
        """Dial once; returns how long to wait until the next time, None once the node is connected."""
        refused, least = False, 0.0
        try:
            with anyio.fail_after(_DIAL_S):
                node.attach(await self._dial(node.name))
            return None
        except (OSError, NetError) as exc:
            if isinstance(exc, websocket.UpgradeRefused):
                refused, least = True, retry_after_s(exc.answer.headers.get("retry-after"))
            self.failed_handshakes += not isinstance(exc, ConnectionRefusedError)
            reason = f"{type(exc).__name__}: {exc}"[:100]
            self.failures[reason] = self.failures.get(reason, 0) + 1
        return self._backoff_of(node.name).wait_s(self._clock.monotonic(), refused=refused, retry_after_s=least)

    def _backoff_of(self, name: str) -> Backoff:
        found = self._backoffs.get(name)
        if found is None:
            found = self._backoffs[name] = Backoff(self._random, self._clock.monotonic())
        return found

    async def _dial(self, name: str) -> websocket.WebSocket:
        headers = {"Node_id": name, "Project_id": _PROJECT, "Connectionuse": "msg"}
        path = f"/{_PROJECT}/{name}/events"
        return await websocket.connect(self._net, self._address, path, headers, tls=self._contexts[name])

    def cut_all(self) -> None:
        for node in self.nodes.values():
            node.cut()

    def traffic(self) -> Traffic:
        """What all present connections have carried since they were made; zero where the system does not tell."""
        up = down = 0
        for node in self.nodes.values():
            sent, received = _tcp_bytes(node.socket)
            up, down = up + sent, down + received
        return Traffic(up, down)


def _tcp_bytes(socket: websocket.WebSocket | None) -> tuple[int, int]:
    raw = socket.extra_info("socket") if socket is not None else None
    if raw is None:
        return 0, 0
    try:
        info = raw.getsockopt(6, _TCP_INFO, _BYTES_AT + 16)  # type: ignore[attr-defined]
        acked, received = struct.unpack_from("=QQ", info, _BYTES_AT)
    except (OSError, struct.error):
        return 0, 0
    return acked, received
