"""Dialling the cloud: the in-process address, QUIC, or WebSocket; of several addresses each in turn.

With both transports enabled QUIC goes first. Where it does not get through though WebSocket does, as where UDP is blocked, it is
left alone for ``_QUIC_AGAIN_S``, then tried beside the link that there is, which gives way to it.

Units   Seconds.
Errors  What `Dialler.dial` raises: CloudRefused (the cloud has answered, and said no), OSError, JoinError.
State   Which address is next, and when QUIC is tried again.
Source  Keys of KubeEdge's edgecore configuration: ``modules.edgeHub.{websocket,quic}.{enable, server, handshakeTimeout}``.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import anyio

from edgesite.edge.edgehub.certificates import Certificates, JoinError
from edgesite.net import websocket
from edgesite.net.errors import NetError
from edgesite.net.messagesocket import WRITE_BYTES
from edgesite.wire.frames import MESSAGE_BYTES

if TYPE_CHECKING:
    from edgesite.context import Context, Net
    from edgesite.net.messagesocket import MessageSocket
    from edgesite.net.quic.client import ClientSocket

__all__ = ["MEM_ADDRESS", "CloudRefused", "Dialler", "addresses_of", "retry_after_s"]

MEM_ADDRESS: Final = "mem:cloudhub"
_PROJECT: Final = "e632aba927ea4ac2b575ec1603d56f10"  #: KubeEdge's default
_QUIC_PATIENCE_S: Final = 4.0  #: where there is WebSocket too
_QUIC_AGAIN_S: Final = 60.0  #: first; doubles
_QUIC_AGAIN_MOST_S: Final = 1800.0
_REASON_BYTES: Final = 200
#: After which the kernel ends a connection whose data nobody acknowledges, for which it would try for a quarter of an hour. A cloud of
#: KubeEdge answers no keepalives, by which that would show, and has given the node up itself by then.
_UNACKNOWLEDGED_S: Final = 30.0


class CloudRefused(NetError):
    """The cloud has answered, and said no. ``status`` is HTTP's."""

    def __init__(self, status: int, reason: str, retry_after_s: float = 0.0) -> None:
        super().__init__(f"the cloud refuses this node ({status}): {reason}")
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s


class Dialler:
    """``certificates`` None dials within the process. ``net`` may lead through a proxy, which carries no QUIC. ``note_date`` gets the
    time that the cloud tells when it answers."""

    def __init__(
        self, ctx: Context, net: Net, certificates: Certificates | None, note_date: Callable[[str | None], object]
    ) -> None:
        config = ctx.config
        self._ctx, self._net, self._certificates = ctx, net, certificates
        self._note_date = note_date
        self._websocket, self._quic = config.get("websocket", {}), config.get("quic", {})
        self._use_websocket = bool(self._websocket.get("enable", True))
        self._use_quic = bool(self._quic.get("enable", False)) and certificates is not None
        self._web_servers = addresses_of(str(self._websocket.get("server") or ""))
        self._quic_servers = addresses_of(str(self._quic.get("server") or ""))
        self._turn = 0
        self._quic_at = 0.0
        self._quic_pause_s = _QUIC_AGAIN_S

    @property
    def round_is_over(self) -> bool:
        """Whether all addresses were tried since the last that answered."""
        count = max(len(self._web_servers), len(self._quic_servers)) if self._use_quic else len(self._web_servers)
        return self._turn % count == 0

    async def dial(self) -> MessageSocket:
        """Connect. Raises CloudRefused, OSError, JoinError."""
        try:
            return await self._dial()
        except (OSError, JoinError):
            self._turn += 1
            raise

    async def _dial(self) -> MessageSocket:
        if self._certificates is not None:
            await self._certificates.ensure()
        failure: OSError | None = None
        if self._use_quic and (not self._use_websocket or self._ctx.clock.monotonic() >= self._quic_at):
            try:
                return await self._dial_quic()
            except CloudRefused:
                raise
            except OSError as exc:
                if not self._use_websocket:
                    raise
                failure = exc
        link = await self._dial_websocket()
        if failure is not None:
            self._quic_at = self._ctx.clock.monotonic() + self._quic_pause_s
            self._quic_pause_s = min(self._quic_pause_s * 2, _QUIC_AGAIN_MOST_S)
            self._ctx.log.warning("QUIC does not reach the cloud (%s): WebSocket is used meanwhile", failure)
        return link

    async def _dial_websocket(self) -> websocket.WebSocket:
        config, node = self._ctx.config, self._ctx.node_name
        address, tls = MEM_ADDRESS, None
        if self._certificates is not None:
            address, tls = self._web_servers[self._turn % len(self._web_servers)], self._certificates.context()
        project = str(config.get("projectID") or _PROJECT)
        headers = {"Node_id": node, "Project_id": project, "Connectionuse": "msg"}
        path = f"/{project}/{node}/events"
        try:
            with anyio.fail_after(float(self._websocket.get("handshakeTimeout") or 30)):
                connected = await websocket.connect(
                    self._net,
                    address,
                    path,
                    headers,
                    tls=tls,
                    max_message_bytes=MESSAGE_BYTES,
                    write_bytes=WRITE_BYTES,
                )
        except websocket.UpgradeRefused as exc:
            reason = exc.answer.body[:_REASON_BYTES].decode("utf-8", "replace")
            raise CloudRefused(exc.answer.status, reason, retry_after_s(exc.answer.headers.get("retry-after"))) from exc
        if tls is not None:
            self._note_date(connected.headers.get("date"))
            _bound_silence(connected.extra_info("socket"))
        return connected

    async def _dial_quic(self) -> ClientSocket:
        """Raises CloudRefused, OSError, JoinError."""
        assert self._certificates is not None
        try:
            from edgesite.net.quic import client
            from edgesite.net.quic.core import Credentials
            from edgesite.net.quic.framing import Hello
        except ImportError as exc:
            raise OSError(f"modules.edgeHub.quic needs aioquic (pip install 'edgesite[quic]'): {exc}") from exc
        pem = await self._certificates.pem()
        credentials = Credentials(pem.certificate, pem.key, pem.ca)
        hello = Hello(self._ctx.node_name, str(self._ctx.config.get("projectID") or _PROJECT))
        address = self._quic_servers[self._turn % len(self._quic_servers)]
        idle_s = max(60.0, 4 * float(self._ctx.config.get("heartbeat") or 15))
        patience = float(self._quic.get("handshakeTimeout") or 30)
        if self._use_websocket:
            patience = min(patience, _QUIC_PATIENCE_S)
        try:
            with anyio.fail_after(patience):
                return await client.connect(
                    self._net, address, hello, credentials, max_message_bytes=MESSAGE_BYTES, idle_s=idle_s
                )
        except client.Refused as exc:
            answer = exc.answer
            raise CloudRefused(answer.status, answer.reason[:_REASON_BYTES], answer.retry_after_s) from exc
        except TimeoutError:
            raise TimeoutError(f"no answer over UDP from {address} in {patience:g} s") from None
        except ValueError as exc:
            raise JoinError(f"the certificate files cannot be used: {exc}") from exc

    # -- while there is a link -----------------------------------------------------------------------------------

    async def better(self, present: MessageSocket) -> MessageSocket:
        """Wait for a link over QUIC where the present one is a makeshift; for ever where it is not."""
        if not (self._use_quic and self._use_websocket) or present.lanes > 1:
            await anyio.sleep_forever()
        clock = self._ctx.clock
        while True:
            await clock.sleep(max(1.0, self._quic_at - clock.monotonic()) * (1 + 0.1 * self._ctx.random.random()))
            try:
                link = await self._dial_quic()
            except (OSError, JoinError) as exc:
                self._ctx.log.debug("QUIC still does not reach the cloud: %s", exc)
                self._quic_at = clock.monotonic() + self._quic_pause_s
                self._quic_pause_s = min(self._quic_pause_s * 2, _QUIC_AGAIN_MOST_S)
            else:
                self._quic_pause_s = _QUIC_AGAIN_S
                return link


def _bound_silence(sock: object) -> None:
    if isinstance(sock, socket.socket) and hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * _UNACKNOWLEDGED_S))


def addresses_of(text: str) -> list[str]:
    """The addresses of a comma-separated list; one empty address if there is none."""
    return [one.strip() for one in text.split(",") if one.strip()] or [""]


def retry_after_s(header: str | None) -> float:
    """Retry-After as seconds; a date is not understood."""
    text = (header or "").strip()
    return float(text) if text.isascii() and text.isdigit() else 0.0
