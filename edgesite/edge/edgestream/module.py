"""The module ``edgestream``: keeps a tunnel to the cloud, through which it reaches this node's kubelet API.

    mem:cloudstream                              when the cloud role runs in this process
    wss://<server>/v1/kubeedge/connect           else, with the node's certificate; ``modules.edgeStream.server``, of several in turn

Ready at once: an edge needs no cloud. A tunnel that is lost is dialled again, at first after 1 to 2 s, then up to 30 s apart; at once
when edgehub has a link to the cloud again.

Source  KubeEdge v1.12.7 edge/pkg/edgestream (headers, path, ping every 5 s).
"""

from __future__ import annotations

import ssl
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

import anyio

from edgesite.edge.edged.server.source import api_address
from edgesite.edge.edgehub.dialling import addresses_of
from edgesite.edge.edgehub.link import CONNECTED
from edgesite.edge.edgestream.serving import StreamServer
from edgesite.net import tls, websocket
from edgesite.net.proxy import through_proxy
from edgesite.net.tunnel import Tunnel
from edgesite.wire import tunnel as wire
from edgesite.wire.message import Operation

if TYPE_CHECKING:
    from edgesite.context import Context, Inbox, Section
    from edgesite.net.websocket import WebSocket

__all__ = ["MEM_ADDRESS", "EdgeStream"]

MEM_ADDRESS: Final = "mem:cloudstream"
_PING: Final = b"ping you"  #: KubeEdge's
_PING_S: Final = 5.0  #: to a cloud of KubeEdge, as its own edges do
_SILENCE_S: Final = 15.0
_OWN_PING_S: Final = 30.0  #: to a cloud of ours, when nothing else is heard: an idle link costs next to nothing
_OWN_SILENCE_S: Final = 75.0
_FIRST_S: Final = 2.0
_FIRST_IN_PROCESS_S: Final = 0.05  #: the cloud role of this process is about to start
_PATIENCE_S: Final = 10.0  #: a start-up takes its time; what fails longer is worth a line in the log
_MOST_S: Final = 30.0
_STREAMS: Final = 128


class EdgeStream:
    """See the module docstring."""

    name: ClassVar[str] = "edgestream"
    roles: ClassVar[frozenset[str]] = frozenset({"edge"})
    needs: ClassVar[frozenset[str]] = frozenset()
    section: ClassVar[str] = "modules.edgeStream"

    def enabled(self, settings: Section) -> bool:
        return bool(settings.get("modules", {}).get("edgeStream", {}).get("enable", True))

    async def run(self, ctx: Context) -> None:
        inbox = ctx.bus.join("edgestream", "edgestream")
        linked = _Linked()
        ctx.ready()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(linked.follow, inbox)
            await self._keep_open(ctx, linked)

    async def _keep_open(self, ctx: Context, linked: _Linked) -> None:
        in_process = bool(ctx.site.get("single_process"))
        first_s, most_s = (_FIRST_IN_PROCESS_S, _FIRST_S) if in_process else (_FIRST_S, _MOST_S)
        wait_s, said, since = first_s, "", ctx.clock.monotonic()
        addresses = deque([MEM_ADDRESS] if in_process else addresses_of(str(ctx.config["server"])))
        while True:
            linked.dialled()
            try:
                socket = await _dial_one(ctx, addresses)
            except (OSError, ValueError) as exc:
                reason = str(exc) or type(exc).__name__
                if reason != said and ctx.clock.monotonic() - since > _PATIENCE_S:  # not each attempt
                    ctx.log.warning("no stream tunnel to the cloud: %s", reason)
                    said = reason
            else:
                reason = await _serve(ctx, socket)
                ctx.log.warning("the stream tunnel to the cloud ended: %s", reason)
                wait_s, said, since = first_s, "", ctx.clock.monotonic()
            with anyio.move_on_after(wait_s * (0.5 + ctx.random.random() / 2)) as waited:
                await linked.wait()
            wait_s = min(wait_s * 2, most_s) if waited.cancelled_caught else first_s


class _Linked:
    """Whether edgehub has got a link since the tunnel was last dialled."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    async def follow(self, inbox: Inbox) -> None:
        """Run until cancelled."""
        async for message in inbox:
            if message.operation == Operation.CONNECT and message.content == CONNECTED:
                self._event.set()

    async def wait(self) -> None:
        """Wait for a new link, unless one has come meanwhile."""
        await self._event.wait()

    def dialled(self) -> None:
        self._event = anyio.Event()


async def _dial_one(ctx: Context, addresses: deque[str]) -> WebSocket:
    """Dial each address once, until one answers; it is the first to be dialled the next time. Raises OSError, ValueError."""
    for _ in range(len(addresses) - 1):
        try:
            return await _dial(ctx, addresses[0])
        except (OSError, ValueError) as exc:
            ctx.log.debug("no stream tunnel to %s: %s", addresses[0], exc)
            addresses.rotate(-1)
    try:
        return await _dial(ctx, addresses[0])
    except (OSError, ValueError):
        addresses.rotate(-1)
        raise


async def _dial(ctx: Context, address: str) -> WebSocket:
    """Raises OSError, ValueError."""
    config = ctx.config
    headers = {wire.NODE_HEADER: ctx.node_name, wire.FEATURES_HEADER: wire.WINDOW}
    modules = ctx.settings.get("modules", {})
    net = through_proxy(ctx.net, str(modules.get("edgeHub", {}).get("proxy") or ""))
    ip = modules.get("edged", {}).get("nodeIP") or ""
    if ip:
        headers[wire.IP_HEADER] = str(ip)
    context = None if ctx.site.get("single_process") else await ctx.threads.run(_tls_context, config)
    with anyio.fail_after(float(config.get("handshakeTimeout") or 30)):
        return await websocket.connect(
            net, address, wire.CONNECT_PATH, headers, tls=context, max_message_bytes=wire.MESSAGE_BYTES
        )


def _tls_context(config: Section) -> ssl.SSLContext:
    """Raises OSError: the certificates come with the first join of edgehub. Unlike KubeEdge's, the server is verified."""
    certificate, key, ca = (
        Path(str(config[name])) for name in ("tlsTunnelCertFile", "tlsTunnelPrivateKeyFile", "tlsTunnelCAFile")
    )
    for path in (certificate, key, ca):
        if not path.is_file():
            raise FileNotFoundError(f"waiting for {path}, which comes when the node has joined")
    return tls.client_context(ca=ca, certificate=certificate, key=key)


async def _serve(ctx: Context, socket: WebSocket) -> str:
    """Serve a tunnel to its end; returns the reason."""
    ended = anyio.Event()
    window = wire.has_window(socket.headers.get(wire.FEATURES_HEADER.lower()))
    async with anyio.create_task_group() as tasks:
        server = StreamServer(ctx.net, api_address(ctx.node_name), tasks, _STREAMS, ctx.log)
        tunnel = Tunnel(socket, window=window, on_connect=server.on_connect, on_end=lambda _: ended.set())
        if window and not ctx.site.get("single_process"):
            socket.keep_alive(_OWN_PING_S, _OWN_SILENCE_S)
        elif not window:
            socket.keep_alive(_PING_S, _SILENCE_S, _PING, always=True)
        ctx.log.info("stream tunnel to the cloud is open")
        try:
            await ended.wait()
        finally:
            tunnel.close("this edge role stops")
            tasks.cancel_scope.cancel()
    socket.abort()
    return tunnel.ended or "the connection was closed"
