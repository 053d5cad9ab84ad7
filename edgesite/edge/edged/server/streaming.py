"""Exec, attach and port-forward of the kubelet API: connects a client with the runtime's own stream server.

    POST|GET /exec/{namespace}/{pod}[/{uid}]/{container}?command=&input=1&output=1&error=1&tty=1
    POST|GET /attach/{namespace}/{pod}[/{uid}]/{container}?input=1&output=1&error=1
    POST|GET /portForward/{namespace}/{pod}[/{uid}][?port=]

A client of SPDY is joined with the runtime byte by byte. One of WebSocket is translated into SPDY here and not in the cloud: so the cloud
only passes bytes on.

Errors  ApiError before the upgrade; what the runtime declines is answered in its words.
State   None; each stream ends with its request.
Source  kubelet's server (paths, parameters); KubeEdge's tunnel carries the same paths.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import anyio

from edgesite.edge.edged.server.portsocket import TUNNEL, ForwardSocket, tunnel
from edgesite.edge.edged.server.remotesocket import PROTOCOLS, RemoteSocket
from edgesite.edge.edged.streams import StreamAddress, StreamOptions
from edgesite.kube.errors import ApiError, bad_request
from edgesite.net import spdy, websocket
from edgesite.net.client import HttpClient, UpgradeRefused
from edgesite.net.headers import encode_headers
from edgesite.net.http import Request, Response
from edgesite.net.pipe import Pipe

if TYPE_CHECKING:
    from edgesite.context import Clock, Net
    from edgesite.edge.edged.server.source import LogSource

__all__ = ["Streaming"]

IDLE_S: Final = 4 * 3600.0  #: kubelet's streamingConnectionIdleTimeout
_CONNECT_S: Final = 30.0
_TEXT: Final = b"content-type: text/plain; charset=utf-8\r\n"
_FORWARD: Final = "portforward.k8s.io"
_REMOTE: Final = "v4.channel.k8s.io"


class Streaming:
    """Serves the streams of one node."""

    def __init__(
        self,
        source: Callable[[], LogSource],
        net: Net,
        clock: Clock,
        log: logging.Logger | logging.LoggerAdapter[logging.Logger],
        idle_s: float = IDLE_S,
    ) -> None:
        self._source = source
        self._net = net
        self._clock = clock
        self._log = log
        self._idle_s = idle_s

    def find(self, route: Sequence[str]) -> Callable[[Request], Awaitable[Response | None]] | None:
        """Return who answers for a path, if it is one of these."""
        kind, parts = route[0], tuple(route[1:])
        if kind in ("exec", "attach") and len(parts) in (3, 4):
            parts = (*parts[:2], parts[-1])  # a pod is found by its name; the uid adds nothing
            serve = self._exec if kind == "exec" else self._attach
            return lambda request: serve(request, *parts)
        if kind == "portForward" and len(parts) in (2, 3):
            return lambda request: self._port_forward(request, *parts[:2])
        return None

    async def _exec(self, request: Request, namespace: str, pod: str, container: str) -> Response | None:
        """Raises ApiError."""
        command = request.query.get("command", [])
        if not command:
            raise bad_request("you must specify at least 1 command")
        options = _options(request)
        where = await self._source().exec(namespace, pod, container, command, options)
        return await self._remote(request, where, options)

    async def _attach(self, request: Request, namespace: str, pod: str, container: str) -> Response | None:
        """Raises ApiError."""
        options = _options(request)
        where = await self._source().attach(namespace, pod, container, options)
        return await self._remote(request, where, options)

    async def _remote(self, request: Request, where: StreamAddress, options: StreamOptions) -> Response | None:
        """Raises ApiError."""
        if not request.headers.has_token("upgrade", "websocket"):
            return await self._pass(request, where)
        protocol = _offered(request, PROTOCOLS)
        connection = await self._connect(where, _REMOTE)
        try:
            socket = _accept(request, protocol)
            await RemoteSocket(socket, connection, protocol, options).run(self._clock, self._idle_s)
        finally:
            connection.close()
        return None

    async def _port_forward(self, request: Request, namespace: str, pod: str) -> Response | None:
        """Raises ApiError."""
        ports = _ports(request)
        where = await self._source().port_forward(namespace, pod, ports)
        if not request.headers.has_token("upgrade", "websocket"):
            return await self._pass(request, where)
        protocol = _offered(request, (TUNNEL, _REMOTE, _FORWARD, ""))
        if protocol == TUNNEL:
            far, _ = await self._dial(where, {"Upgrade": spdy.UPGRADE, spdy.PROTOCOL_HEADER: _FORWARD})
            try:
                socket = _accept(request, protocol)
            except BaseException:
                far.abort()
                raise
            tunnel(socket, far, self._idle_s)
            return None
        if not ports:
            raise bad_request('query parameter "port" is required')
        connection = await self._connect(where, _FORWARD)
        try:
            socket = _accept(request, protocol)
            await ForwardSocket(socket, connection, ports).run(self._clock, self._idle_s)
        finally:
            connection.close()
        return None

    async def _pass(self, request: Request, where: StreamAddress) -> Response | None:
        """Join a client of SPDY with the runtime. Raises ApiError."""
        if not request.headers.has_token("upgrade", spdy.UPGRADE):
            raise bad_request("unable to upgrade: missing upgrade headers in request")
        protocols = request.headers.get_all(spdy.PROTOCOL_HEADER)
        lines = encode_headers({"Upgrade": spdy.UPGRADE})
        lines += b"".join([encode_headers({spdy.PROTOCOL_HEADER: one}) for one in protocols])
        far, answered = await self._dial(where, lines)
        near = Pipe()
        try:
            request.upgrade(near, answered)
        except BaseException:
            far.abort()
            raise
        near.join(far, idle_s=self._idle_s)
        return None

    async def _dial(self, where: StreamAddress, headers: bytes | Mapping[str, str]) -> tuple[Pipe, Mapping[str, str]]:
        """Ask the runtime for SPDY; returns the connection and what the runtime said of the upgrade. Raises ApiError."""
        try:
            with anyio.fail_after(_CONNECT_S):
                async with HttpClient(self._net, where.address) as client:
                    _, pipe, answered = await client.connect_upgrade(where.target, headers, Pipe, method="POST")
        except OSError as exc:
            raise _refusal(exc) from exc
        said = {"Upgrade": spdy.UPGRADE}
        if protocol := answered.get(spdy.PROTOCOL_HEADER):
            said[spdy.PROTOCOL_HEADER] = protocol
        return pipe, said

    async def _connect(self, where: StreamAddress, protocol: str) -> spdy.SpdyConnection:
        """Raises ApiError."""
        try:
            with anyio.fail_after(_CONNECT_S):
                return await spdy.connect(self._net, where.address, where.target, protocol)
        except OSError as exc:
            raise _refusal(exc) from exc


def _refusal(error: OSError) -> ApiError:
    if isinstance(error, UpgradeRefused):
        answer = error.answer
        said = answer.body.decode("utf-8", "replace").strip()
        return ApiError(answer.status if answer.status >= 400 else 500, "Unknown", said)
    return ApiError(500, "InternalError", f"the container runtime's stream server cannot be reached: {error}")


def _options(request: Request) -> StreamOptions:
    """Raises ApiError."""
    given = {name: request.query.get(name, ["0"])[0] in ("1", "true") for name in ("input", "output", "error", "tty")}
    tty = given["tty"]
    options = StreamOptions(given["input"], given["output"], given["error"] and not tty, tty)
    if not (options.stdin or options.stdout or options.stderr):
        raise bad_request("you must specify at least 1 of stdin, stdout, stderr")
    return options


def _ports(request: Request) -> list[int]:
    """Raises ApiError."""
    texts = [one for value in request.query.get("port", []) for one in value.split(",")]
    if any(not one.isascii() or not one.isdigit() or not 1 <= int(one) <= 65535 for one in texts):
        raise bad_request('query parameter "port" must be a port number')
    return [int(one) for one in texts]


def _offered(request: Request, ours: Sequence[str]) -> str:
    """Return the first protocol of ours that the client offers; one that offers none takes "". Raises ApiError."""
    offers = "sec-websocket-protocol" in request.headers
    for one in ours:
        if (one and request.headers.has_token("sec-websocket-protocol", one)) or (not one and not offers):
            return one
    raise ApiError(403, "Forbidden", f"none of these stream protocols was offered: {', '.join(filter(None, ours))}")


def _accept(request: Request, protocol: str) -> websocket.WebSocket:
    """Raises ApiError, ClosedByPeer."""
    try:
        return websocket.accept(request, subprotocols=(protocol,) if protocol else ())
    except websocket.HandshakeError as exc:
        raise ApiError(exc.status, "BadRequest", str(exc)) from exc
