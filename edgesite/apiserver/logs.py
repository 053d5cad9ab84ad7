"""Roads to the kubelet API of nodes: pods/log, nodes/proxy.

Errors  ApiError, worded as kube-apiserver and kubelet word them; after the first byte the connection is cut, so that a client sees it.
State   None; each stream belongs to one request.
Source  API reference: Pod log query parameters, connect proxy; kubelet API ``/containerLogs``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import anyio

from edgesite.apiserver import websocketlog
from edgesite.kube import errors, json
from edgesite.kube.errors import ApiError
from edgesite.kube.podconnect import log_target, refusal_of
from edgesite.kube.resources import NODES
from edgesite.net.errors import ClosedByPeer
from edgesite.net.handover import close_stream, join, upgrade_headers
from edgesite.net.http import Response

if TYPE_CHECKING:
    from edgesite.apiserver.call import Call
    from edgesite.apiserver.registry import Registry
    from edgesite.context import NodeConnector, NodeStream

__all__ = ["NodeRoads"]

Object = dict[str, Any]
_OPEN_S: Final = 30.0
_ERROR_BYTES: Final = 50_000  #: of what a node says about a refusal
_HANDED_ON: Final = ("accept", "content-type", "user-agent")  #: of a request to a node
_PLAIN: Final = {"content-type": "text/plain", "cache-control": "no-cache, private"}


class NodeRoads:
    """Streams what nodes answer. ``connector`` finds the way to nodes, if a module provides one."""

    def __init__(self, registry: Registry, connector: Callable[[], NodeConnector | None]) -> None:
        self._registry = registry
        self._connector = connector

    async def log(self, call: Call) -> Response | None:
        """Stream a container's log. Raises ApiError."""
        route, query = call.route, call.request.query if call.request.raw_query else {}
        row = self._registry.row(call.kind, route.namespace, route.name)
        pod = json.loads(row.value)
        target = log_target(pod, query)
        node = (pod.get("spec") or {}).get("nodeName")
        if not node:
            return Response(204, _PLAIN)
        stream = await self.open(node, "GET", target)
        try:
            if not 200 <= stream.status <= 206:
                raise await _refusal(stream, call, "pods/log")
            if websocketlog.is_asked(call.request):
                await websocketlog.forward(call.request, stream)
            else:
                await self._forward(call, stream, 200, _PLAIN)
            return None
        finally:
            await close_stream(stream)

    async def proxy(self, call: Call) -> Response | None:
        """Forward a request to a node's kubelet API. Raises ApiError."""
        if call.kind.resource.plural != NODES.plural:
            raise errors.method_not_allowed()
        name, _, port = call.route.name.partition(":")
        if port not in ("", "10250"):
            raise errors.bad_request(f"port {port} of node {name} cannot be reached")
        self._registry.row(call.kind, "", name)
        target = (
            "/"
            + quote(call.route.rest, safe="/:@!$&'()*+,;=~")
            + (f"?{call.request.raw_query}" if call.request.raw_query else "")
        )
        request = call.request
        headers: dict[str, Sequence[str]] = dict(upgrade_headers(request))
        for header in _HANDED_ON:
            if header in request.headers:
                headers[header] = request.headers.get_all(header)
        stream = await self.open(name, request.method, target, headers, request.body)
        if stream.status == 101:
            return await join(request, stream)
        try:
            kept = ("content-type", "content-encoding")
            answered = {key.lower(): value for key, value in stream.headers.items() if key.lower() in kept}
            await self._forward(call, stream, stream.status, answered)
            return None
        finally:
            await close_stream(stream)

    async def open(
        self,
        node: str,
        method: str,
        target: str,
        headers: Mapping[str, Sequence[str]] | None = None,
        body: bytes = b"",
    ) -> NodeStream:
        """Send a request to a node's kubelet API. Raises ApiError."""
        connector = self._connector()
        if connector is None:
            raise errors.internal(f"no road leads to node {node}: no module connects nodes")
        try:
            with anyio.fail_after(_OPEN_S):
                return await connector.open(node, method, target, headers, body)
        except TimeoutError:
            raise errors.internal(f'error trying to reach node "{node}": timed out') from None
        except OSError as exc:
            raise errors.internal(f'error trying to reach node "{node}": {exc}') from exc

    async def _forward(self, call: Call, stream: NodeStream, status: int, headers: dict[str, str]) -> None:
        """Hand on the body as it comes; a slow client slows the node down. Raises ApiError before the first byte only."""
        writer = await call.request.stream(status, headers)
        try:
            async for chunk in stream:
                await writer.write(chunk)
        except ClosedByPeer:
            return
        except (OSError, ApiError):  # the road broke: the client must see that this is not the end of the log
            writer.abort()
            return
        writer.close()


async def _refusal(stream: NodeStream, call: Call, what: str) -> ApiError:
    """Turn what a node says of a refusal into the API's error."""
    text = b""
    async for chunk in stream:
        text += chunk
        if len(text) >= _ERROR_BYTES:
            break
    said = text[:_ERROR_BYTES].decode("utf-8", "replace").strip()
    return refusal_of(stream.status, said, what, call.route.name)
