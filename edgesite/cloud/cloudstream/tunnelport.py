"""The port under which the API server reaches the nodes whose tunnels end here.

Each instance of the cloud role has a port of its own, from 10351 upwards, recorded by its address in ConfigMap ``kubeedge/tunnelport``:

    tunnelportrecord.kubeedge.io: {"ipTunnelPort": {"192.0.2.10": 10351}, "port": {"10351": true}}

Two clusters may have their cloud roles on one machine: a port that is the other's there (``taken``) is exchanged.

A node that is connected here tells that port as its kubelet's (``status.daemonEndpoints``); the API server dials it, and the rules of
`edgesite.cloud.iptablesmanager` lead from there to the stream server of the instance.

Units   Seconds.
Errors  ApiError of the API from `negotiate`; `Announcer` tries again and gives up on a node after two minutes.
State   The nodes that are still to be told of, at most one entry each.
Source  KubeEdge v1.12.7 cloud/cmd/cloudcore/app (negotiation, annotation), cloud/pkg/cloudstream/tunnelserver.go.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.cloud.namespace import NAMESPACE, ensure_namespace
from edgesite.kube import json
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import CONFIG_MAPS, NODES

if TYPE_CHECKING:
    from edgesite.client import Client
    from edgesite.context import Clock

__all__ = ["ANNOTATION", "CONFIG_MAP", "NAMESPACE", "Announcer", "negotiate", "ports_of"]

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]
#: From the ConfigMap, if there is one, to the ports that are other clusters' on this machine.
Taken = Callable[[dict[str, Any] | None], Awaitable[set[int]]]
CONFIG_MAP: Final = "tunnelport"
ANNOTATION: Final = "tunnelportrecord.kubeedge.io"
_FIRST_PORT: Final = 10351  #: 10350 is the kubelet's own
_LAST_PORT: Final = 65535
_TRIES: Final = 20
_TELL_S: Final = 120.0
_FIRST_WAIT_S: Final = 0.5
_MOST_WAIT_S: Final = 20.0


def ports_of(config_map: dict[str, Any]) -> dict[str, int]:
    """Return the recorded ports by address; {} where nothing usable is recorded."""
    text = ((config_map.get("metadata") or {}).get("annotations") or {}).get(ANNOTATION) or ""
    try:
        record = json.loads(text) if text else {}
    except json.InvalidJson:
        return {}
    ports = record.get("ipTunnelPort") if isinstance(record, dict) else None
    if not isinstance(ports, dict):
        return {}
    return {ip: port for ip, port in ports.items() if isinstance(port, int) and 0 < port <= _LAST_PORT}


async def negotiate(client: Client, ip: str, clock: Clock, draw: random.Random, taken: Taken | None = None) -> int:
    """Return the port recorded for ``ip``; record the first free one if there is none, or if others have taken it. Raises ApiError."""
    for _ in range(_TRIES):
        try:
            found = await client.get(CONFIG_MAPS, CONFIG_MAP, NAMESPACE)
        except ApiError as exc:
            if exc.reason != "NotFound":
                raise
            found = None
        ports = ports_of(found) if found is not None else {}
        others = await taken(found) if taken is not None else set()
        if ip in ports and ports[ip] not in others:
            return ports[ip]
        others |= set(ports.values())
        port = next(one for one in range(_FIRST_PORT, _LAST_PORT) if one not in others)
        try:
            await _record(client, found, {**ports, ip: port})
        except ApiError as exc:
            if exc.reason not in ("Conflict", "AlreadyExists"):
                raise
            await clock.sleep(0.05 + draw.random() / 2)  # another instance was faster
        else:
            return port
    raise ApiError(409, "Conflict", "no tunnel port could be recorded: others write all the time")


async def _record(client: Client, found: dict[str, Any] | None, ports: dict[str, int]) -> None:
    """Raises ApiError."""
    record = {"ipTunnelPort": ports, "port": {str(one): True for one in ports.values()}}
    annotation = {ANNOTATION: json.dumps(record).decode()}
    if found is not None:
        metadata = found["metadata"]
        annotations = {**(metadata.get("annotations") or {}), **annotation}
        await client.update(CONFIG_MAPS, {**found, "metadata": {**metadata, "annotations": annotations}})
        return
    await ensure_namespace(client)
    metadata = {"name": CONFIG_MAP, "namespace": NAMESPACE, "annotations": annotation}
    await client.create(CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})


class Announcer:
    """Writes the port to nodes. ``run`` until cancelled."""

    def __init__(self, client: Client, port: int, clock: Clock, draw: random.Random, log: Log) -> None:
        self._client = client
        self._port = port
        self._clock = clock
        self._random = draw
        self._log = log
        self._waiting: dict[str, tuple[float, float]] = {}  # node -> when to try, until when
        self._changed = anyio.Event()

    def connected(self, node: str) -> None:
        """A tunnel was opened: the node is to tell our port."""
        now = self._clock.monotonic()
        self._waiting[node] = (now, now + _TELL_S)
        self._changed.set()

    async def run(self) -> None:
        while True:
            self._changed = anyio.Event()
            now = self._clock.monotonic()
            for node in [one for one, (due, _) in self._waiting.items() if due <= now]:
                await self._tell(node)
            now = self._clock.monotonic()
            due = min((at for at, _ in self._waiting.values()), default=None)
            with anyio.move_on_after(None if due is None else max(0.0, due - now)):
                await self._changed.wait()

    async def _tell(self, node: str) -> None:
        _, until = self._waiting.pop(node)
        patch = {"status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": self._port}}}}
        try:
            await self._client.patch(NODES, node, patch, kind="strategic", subresource="status")
        except ApiError as exc:  # a node that joins dials before it has registered
            now = self._clock.monotonic()
            if now >= until:
                self._log.warning("node %s does not tell the tunnel port: %s", node, exc)
                return
            waited = now - (until - _TELL_S)
            wait = min(max(waited, _FIRST_WAIT_S), _MOST_WAIT_S)
            self._waiting.setdefault(node, (now + wait * (0.5 + self._random.random() / 2), until))
