"""The stream server (port 10003): the kubelet API of all nodes, for the API server of a cluster.

    /containerLogs /exec /attach /portForward /run /{namespace}/{pod}/...    to the node on which the pod runs
    /stats /metrics /pods ...                                                to the node that the Host header means

The API server dials ``<node's address>:<tunnel port>``, which rules of `edgesite.cloud.iptablesmanager` lead here. So the host is a name
or an address of the node; a request under ``/api/v1/nodes/<node>/proxy/`` that a proxy in front tells of (X-Forwarded-Uri)
names it outright. A pod's node comes from the API, since nodes behind different NATs may share an address.

Requests pass unchanged and so do answers, refusals of the node included; KubeEdge answers 200 to logs whatever the node said.

Errors  ApiError becomes its code with the message as text, as kubelet answers.
State   None; each stream belongs to one request.
Source  KubeEdge v1.12.7 cloud/pkg/cloudstream/streamserver.go (paths, how the node is found), v1.14 (attach).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from edgesite.kube.errors import ApiError, internal
from edgesite.net.errors import ClosedByPeer
from edgesite.net.handover import close_stream, join, upgrade_headers
from edgesite.net.http import Response

if TYPE_CHECKING:
    from edgesite.cloud.cloudstream.access import Access
    from edgesite.context import NodeConnector, NodeStream
    from edgesite.net.http import Request

__all__ = ["NodeFinder", "StreamServer"]

_TEXT: Final = b"content-type: text/plain; charset=utf-8\r\n"
_OF_PODS: Final = frozenset({"containerLogs", "exec", "attach", "portForward", "run", "checkpoint"})
_UPGRADED: Final = frozenset({"exec", "attach", "portForward"})
_HANDED_ON: Final = ("accept", "content-type", "user-agent")
_ANSWERED: Final = ("content-type", "content-encoding")
_PROXIED: Final = ("api", "v1", "nodes")


class NodeFinder(Protocol):
    """Where things are. Both raise ApiError."""

    async def node_of_pod(self, namespace: str, name: str) -> str: ...

    async def node_at(self, host: str) -> str:
        """The node with this name or address."""
        ...


class StreamServer:
    """An HTTP handler."""

    def __init__(
        self,
        connector: NodeConnector,
        finder: NodeFinder,
        access: Access,
        log: logging.Logger | logging.LoggerAdapter[logging.Logger],
    ) -> None:
        self._connector = connector
        self._finder = finder
        self._access = access
        self._log = log

    async def __call__(self, request: Request) -> Response | None:
        try:
            await self._access.caller_of(request)  # before anything is told, such as whether there is such a pod
            node = await self._node(request)
            await self._access.check(request, node)
            return await self._serve(request, node)
        except ApiError as exc:
            self._log.info("refused: method=%s path=%s: %s", request.method, request.path, exc)
            return Response(exc.code, _TEXT, exc.message.encode())

    async def _node(self, request: Request) -> str:
        """Raises ApiError."""
        route = request.path.strip("/").split("/")
        if route[0] in _OF_PODS and len(route) >= 3:
            return await self._finder.node_of_pod(route[1], route[2])
        forwarded = (request.headers.get("x-forwarded-uri") or "").strip("/").split("/")
        if tuple(forwarded[:3]) == _PROXIED and len(forwarded) > 4 and forwarded[4] == "proxy":
            return forwarded[3].partition(":")[0]
        return await self._finder.node_at(_host_of(request.headers.get("host") or ""))

    async def _serve(self, request: Request, node: str) -> Response | None:
        """Raises ApiError."""
        headers: dict[str, Sequence[str]] = dict(upgrade_headers(request))
        if not headers and request.path.strip("/").partition("/")[0] in _UPGRADED:
            raise ApiError(400, "BadRequest", "Upgrade request required")
        for name in _HANDED_ON:
            if name in request.headers:
                headers[name] = request.headers.get_all(name)
        try:
            stream = await self._connector.open(node, request.method, request.target, headers, request.body)
        except OSError as exc:
            raise internal(f'error trying to reach node "{node}": {exc}') from exc
        if stream.status == 101:
            return await join(request, stream)
        try:
            await _forward(request, stream)
        finally:
            await close_stream(stream)
        return None


async def _forward(request: Request, stream: NodeStream) -> None:
    """Hand on an answer as it comes; a slow caller slows the node down."""
    kept: dict[str, Any] = {name.lower(): value for name, value in stream.headers.items() if name.lower() in _ANSWERED}
    writer = await request.stream(stream.status, kept)
    try:
        async for chunk in stream:
            await writer.write(chunk)
    except ClosedByPeer:
        writer.abort()  # whoever left, the other must see that this is not the end
        return
    except OSError:
        writer.abort()
        return
    writer.close()


def _host_of(header: str) -> str:
    """The host of a Host header, without port and brackets."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    name, colon, port = header.rpartition(":")
    return name if colon and port.isdigit() else header
