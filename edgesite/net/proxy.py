"""Connections through a proxy: HTTP CONNECT and SOCKS5, with name and password where it wants them.

    net = through_proxy(ctx.net, "http://user:secret@10.0.0.9:3128")     # or socks5://…; https:// speaks TLS to the proxy itself
    await net.connect(factory, "cloud:10000", tls=context)

The name of the destination is resolved by the proxy. TLS runs from here to the destination, within the tunnel.

Units   Bytes. Callers set deadlines (``anyio.fail_after``).
Errors  ValueError for a URL that names no proxy; ProxyError (an OSError) when the proxy refuses or speaks something else.
State   None.
Source  RFC 9110 section 9.3.6 (CONNECT); RFC 1928, RFC 1929 (SOCKS5 and its passwords).
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

from edgesite.net import address as addresses
from edgesite.net.tls import client_context

if TYPE_CHECKING:
    import ssl

    from edgesite.context import Listener, Net

__all__ = ["Proxy", "ProxyError", "ProxyNet", "bypasses", "parse_proxy", "through_proxy"]

P = TypeVar("P", bound=asyncio.BaseProtocol)
D = TypeVar("D", bound=asyncio.DatagramProtocol)
_PORTS: Final = {"http": 3128, "https": 3128, "socks5": 1080, "socks5h": 1080}
_HEAD_BYTES: Final = 16 * 1024
_REFUSALS: Final = {
    1: "general failure",
    2: "not allowed by its rules",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "time to live expired",
    7: "command not supported",
    8: "kind of address not supported",
}


class ProxyError(OSError):
    """The proxy did not make the connection."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """``kind`` is "http", "https" or "socks5"."""

    kind: str
    address: str
    user: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return f"Proxy({self.kind}://{self.address})"  # never a password in a log


def parse_proxy(url: str) -> Proxy:
    """Read a URL. Raises ValueError."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError(
            f"{parts.scheme}://{parts.hostname or ''} is no proxy: write http://, https:// or socks5://HOST:PORT"
        )
    address = addresses.join(parts.hostname, parts.port or _PORTS[parts.scheme])
    kind = "socks5" if parts.scheme == "socks5h" else parts.scheme
    return Proxy(kind, address, unquote(parts.username or ""), unquote(parts.password or ""))


def bypasses(no_proxy: str, host: str) -> bool:
    """Whether a list as in NO_PROXY (names, ``.suffix``, addresses, networks, ``*``) names this host."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        ip = None
    for one in (part.strip().lower() for part in no_proxy.split(",")):
        if not one:
            continue
        if one == "*" or host.lower() == one.lstrip(".") or host.lower().endswith("." + one.lstrip(".")):
            return True
        if ip is not None and "/" in one:
            try:
                if ip in ipaddress.ip_network(one, strict=False):
                    return True
            except ValueError:
                continue
    return False


def through_proxy(net: Net, url: str) -> Net:
    """Return a Net that connects through the proxy of the URL; ``net`` itself if that is empty. Raises ValueError."""
    return ProxyNet(net, parse_proxy(url)) if url else net


class ProxyNet:
    """A `Net`; only connections over TCP take the proxy."""

    def __init__(self, net: Net, proxy: Proxy) -> None:
        self._net = net
        self._proxy = proxy

    async def listen(
        self, factory: Callable[[], asyncio.BaseProtocol], address: str, *, tls: ssl.SSLContext | None = None
    ) -> Listener:
        return await self._net.listen(factory, address, tls=tls)

    async def connect(
        self,
        factory: Callable[[], P],
        address: str,
        *,
        tls: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
    ) -> tuple[asyncio.Transport, P]:
        """See `edgesite.context.Net.connect`. Raises ProxyError too."""
        at = addresses.parse(address)
        if at.kind != "tcp":
            return await self._net.connect(factory, address, tls=tls, server_hostname=server_hostname)
        proxy = self._proxy
        talk = _http(proxy, at) if proxy.kind != "socks5" else _socks(proxy, at)
        outer = client_context() if proxy.kind == "https" else None
        _, tunnel = await self._net.connect(lambda: _Handshake(talk), proxy.address, tls=outer)
        transport: asyncio.Transport | None = None
        try:
            await tunnel.done
            transport, protocol = tunnel.transport, factory()
            assert transport is not None
            if tls is not None:
                # Nothing of the destination may have come yet: in TLS the client speaks first.
                loop = asyncio.get_running_loop()
                name = server_hostname or at.host
                secured = await loop.start_tls(transport, protocol, tls, server_hostname=name)
                if secured is None:
                    raise ProxyError("the connection was lost while TLS began")
                transport = secured
            else:
                transport.set_protocol(protocol)
            protocol.connection_made(transport)
        except BaseException:
            if tunnel.transport is not None:
                tunnel.transport.abort()
            raise
        return transport, protocol

    async def datagrams(
        self, factory: Callable[[], D], *, local: str = "", remote: str = ""
    ) -> tuple[asyncio.DatagramTransport, D]:
        """A proxy carries streams only. Raises ProxyError."""
        raise ProxyError("no UDP through a proxy")


#: A conversation with a proxy: yields what to send, is sent what came; ends when the tunnel stands. Raises ProxyError.
Talk = Generator[bytes, bytes, None]


class _Handshake(asyncio.Protocol):
    """Drives a conversation; ``done`` tells its end."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self.transport: asyncio.Transport | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self._step(lambda: next(self._talk))

    def data_received(self, data: bytes) -> None:
        if not self.done.done():
            self._step(lambda: self._talk.send(data))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(ProxyError(f"the proxy closed the connection{f': {exc}' if exc else ''}"))

    def _step(self, advance: Callable[[], bytes]) -> None:
        try:
            out = advance()
        except StopIteration:
            self.done.set_result(None)
        except ProxyError as exc:
            self.done.set_exception(exc)
        else:
            if out and self.transport is not None:
                self.transport.write(out)


def _http(proxy: Proxy, at: addresses.Address) -> Talk:
    lines = [f"CONNECT {at} HTTP/1.1", f"Host: {at}"]
    if proxy.user:
        credentials = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode("ascii")
        lines.append(f"Proxy-Authorization: Basic {credentials}")
    head = yield "\r\n".join((*lines, "", "")).encode("latin-1")
    while b"\r\n\r\n" not in head:
        if len(head) > _HEAD_BYTES:
            raise ProxyError("the proxy's answer is too long")
        head += yield b""
    status_line = head.split(b"\r\n", 1)[0].decode("latin-1")
    words = status_line.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
        raise ProxyError("the proxy does not speak HTTP")
    if not 200 <= int(words[1]) < 300:
        raise ProxyError(f"the proxy refused: {' '.join(words[1:])[:100]}")


def _socks(proxy: Proxy, at: addresses.Address) -> Talk:
    methods = b"\x00\x02" if proxy.user else b"\x00"
    buffered = yield b"\x05" + bytes((len(methods),)) + methods
    while len(buffered) < 2:
        buffered += yield b""
    version, method = buffered[:2]
    if version != 5 or method == 0xFF:
        raise ProxyError(
            "the proxy does not speak SOCKS5" if version != 5 else "the proxy takes none of our ways to log in"
        )
    if method == 2:
        user, password = proxy.user.encode()[:255], proxy.password.encode()[:255]
        buffered = yield b"\x01" + bytes((len(user),)) + user + bytes((len(password),)) + password
        while len(buffered) < 2:
            buffered += yield b""
        if buffered[1]:
            raise ProxyError("the proxy refused name and password")
    elif method != 0:
        raise ProxyError("the proxy wants a way to log in that was not offered")
    buffered = yield b"\x05\x01\x00" + _socks_address(at) + at.port.to_bytes(2, "big")
    while len(buffered) < 5:
        buffered += yield b""
    if buffered[1]:
        raise ProxyError(f"the proxy refused: {_REFUSALS.get(buffered[1], f'reason {buffered[1]}')}")
    length = {1: 10, 4: 22}.get(buffered[3], 7 + buffered[4])
    while len(buffered) < length:
        buffered += yield b""


def _socks_address(at: addresses.Address) -> bytes:
    try:
        ip: Any = ipaddress.ip_address(at.host)
    except ValueError:
        name = at.host.encode("idna")
        return b"\x03" + bytes((len(name),)) + name
    return (b"\x01" if ip.version == 4 else b"\x04") + bytes(ip.packed)
