"""The module ``cloudstream``: takes the tunnels of edges and provides `NodeConnector` to the API server.

    mem:cloudstream      edges in this process; trusted
    port 10004           WebSocket on TLS, ``/v1/kubeedge/connect``; a client certificate of our CA is required
    port 10003           HTTPS for a cluster's API server: the kubelet API of the nodes (`streamserver`)

A node is who its certificate says (``system:node:<name>``); one without such a name (KubeEdge before 1.13) is who its header says.

Source  KubeEdge v1.12.7 cloud/pkg/cloudstream/tunnelserver.go (ports, path, headers, certificates).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

import anyio
from prometheus_client import Gauge

from edgesite.cloud.cloudhub.identities import LEGACY_NAME
from edgesite.cloud.cloudhub.records import ConnectedNodes, NodeGate
from edgesite.cloud.cloudstream.certificates import tunnel_identity
from edgesite.cloud.cloudstream.connector import Nodes
from edgesite.cloud.cloudstream.listening import Listening
from edgesite.context import NodeConnector
from edgesite.net import websocket
from edgesite.net.http import HttpServer, Limits, Request, Response
from edgesite.net.tunnel import Tunnel
from edgesite.wire import tunnel as wire

if TYPE_CHECKING:
    from edgesite.context import Context, Section

__all__ = ["MEM_ADDRESS", "CloudStream"]

MEM_ADDRESS: Final = "mem:cloudstream"
_NODE_PREFIX: Final = "system:node:"
_NODES_GROUP: Final = "system:nodes"
_TEXT: Final = b"content-type: text/plain; charset=utf-8\r\n"
_SILENCE_S: Final = 75.0
_PING_S: Final = 30.0  #: when nothing is heard; KubeEdge's edges ping every 5 s, ours every 30 s


class CloudStream:
    """See the module docstring."""

    name: ClassVar[str] = "cloudstream"
    roles: ClassVar[frozenset[str]] = frozenset({"cloud"})
    needs: ClassVar[frozenset[str]] = frozenset({"cloudhub"})
    section: ClassVar[str] = "modules.cloudStream"
    reloads: ClassVar[frozenset[str]] = frozenset()  # files of certificates, whose places stay

    def enabled(self, settings: Section) -> bool:
        return bool(settings.get("modules", {}).get("cloudStream", {}).get("enable", True))

    def __init__(self) -> None:
        self._gauge: Gauge | None = None  # kept over restarts: a registry takes each name once
        self._listening: Listening | None = None

    def reload(self, config: Section) -> None:
        """See `edgesite.context.Module`: certificates are read again. Raises nothing."""
        if self._listening is not None:
            self._listening.reload()

    async def run(self, ctx: Context) -> None:
        def is_expected(node: str) -> bool:
            hub = ctx.services.find(ConnectedNodes)  # type: ignore[type-abstract]
            return hub is not None and bool(hub.identity(node))

        nodes = Nodes(ctx.log, is_expected)
        self._gauge = self._gauge or Gauge(
            "edgesite_stream_tunnels", "Nodes whose kubelet API can be reached", registry=ctx.metrics
        )
        self._gauge.set_function(lambda: nodes.connected)

        def handle(request: Request) -> Response | None:
            return _take(request, nodes, ctx.services.find(NodeGate))  # type: ignore[type-abstract]

        listening = self._listening = Listening()
        async with HttpServer(handle, Limits(idle_timeout_s=30.0), log=ctx.log) as server:
            await server.listen(ctx.net, MEM_ADDRESS)
            ctx.services.provide(NodeConnector, nodes)  # type: ignore[type-abstract]
            ctx.ready()
            async with anyio.create_task_group() as tasks:
                if not ctx.site.get("embedded_api", True):
                    from edgesite.cloud.cloudstream.clusterside import serve_cluster  # our own API needs none of it

                    tasks.start_soon(serve_cluster, ctx, nodes, listening)
                if _joinable(ctx):
                    port = int(ctx.config["tunnelPort"])
                    what = "tunnels from other machines are"
                    await listening.serve(ctx, server, port, lambda: tunnel_identity(ctx), what)
                await anyio.sleep_forever()


def _joinable(ctx: Context) -> bool:
    """Whether edges on other machines can connect to the hub at all: only then is there a tunnel to take."""
    hub = ctx.settings.get("modules", {}).get("cloudHub", {})
    return bool(hub.get("websocket", {}).get("enable", True) or hub.get("quic", {}).get("enable", False))


def _take(request: Request, nodes: Nodes, gate: NodeGate | None) -> Response | None:
    """Take a tunnel."""
    if request.path != wire.CONNECT_PATH:
        return Response(404, _TEXT, b"404: Page Not Found")
    node = request.headers.get(wire.NODE_HEADER, "") or ""
    proven = request.peer.in_process or request.peer.common_name.startswith(_NODE_PREFIX)
    refusal = _refusal(request, node) or _gate_refusal(request, node, gate)
    if not refusal and not proven and nodes.is_proven(node):
        refusal = f"node {node} has a certificate of its own"
    if refusal:
        return Response(403, _TEXT, refusal.encode())
    window = wire.has_window(request.headers.get(wire.FEATURES_HEADER))
    headers = {wire.FEATURES_HEADER: wire.WINDOW} if window else {}
    try:
        socket = websocket.accept(request, headers=headers, max_message_bytes=wire.MESSAGE_BYTES)
    except websocket.HandshakeError as exc:
        return Response(exc.status, _TEXT, str(exc).encode())
    tunnel = Tunnel(socket, window=window, on_end=lambda reason: nodes.remove(node, tunnel, reason))
    if not request.peer.in_process:
        socket.keep_alive(_PING_S, _SILENCE_S)
    nodes.add(node, tunnel, proven=proven)
    return None


def _refusal(request: Request, node: str) -> str:
    """Why this peer may not have a tunnel for ``node``; "" if it may."""
    if not node:
        return f"header {wire.NODE_HEADER} names the node"
    name = request.peer.common_name
    if request.peer.in_process or not name.startswith(_NODE_PREFIX):
        return ""
    if name != _NODE_PREFIX + node or _NODES_GROUP not in request.peer.organizations:
        return f"the certificate is not that of node {node}"
    return ""


def _gate_refusal(request: Request, node: str, gate: NodeGate | None) -> str:
    """Why the hub would not take this node; a tunnel CA of its own may give names that the hub does not know."""
    name = request.peer.common_name
    if gate is None or not (name.startswith(_NODE_PREFIX) or name == LEGACY_NAME):
        return ""
    return gate.refusal(node, request.peer)
