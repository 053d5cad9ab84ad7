"""Connections through real proxies on loopback: HTTP CONNECT and SOCKS5, with TLS to the destination inside."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from edgesite.net.client import HttpClient
from edgesite.net.http import HttpServer, Request, Response
from edgesite.net.pki import RealPki
from edgesite.net.proxy import ProxyError, bypasses, parse_proxy, through_proxy
from edgesite.net.real import RealClock, RealNet
from edgesite.net.tls import client_context, server_context
from edgesite.net.websocket import accept, connect

pytestmark = pytest.mark.anyio


class Proxy:
    """Takes one kind of proxy's requests and carries bytes; ``asked`` are the destinations."""

    def __init__(self, kind: str, login: str = "", refuse: bool = False) -> None:
        self.asked: list[str] = []
        self._kind, self._login, self._refuse = kind, login, refuse

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._kind == "nonsense":
                writer.write(b"\x00\x01nonsense\r\n\r\n")
                return
            place = await (self._http if self._kind == "http" else self._socks)(reader, writer)
            if place is None:
                return
            self.asked.append(f"{place[0]}:{place[1]}")
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", place[1])
            await asyncio.gather(_carry(reader, to_writer), _carry(to_reader, writer))
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    async def _http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, int] | None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = head.split("\r\n")[0].split(" ")
        assert method == "CONNECT"
        expected = base64.b64encode(self._login.encode()).decode()
        if self._refuse or (self._login and f"Proxy-Authorization: Basic {expected}" not in head):
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            return None
        writer.write(b"HTTP/1.1 200 Connection ")
        await writer.drain()
        writer.write(b"established\r\nX: y\r\n\r\n")
        host, _, port = target.rpartition(":")
        return host, int(port)

    async def _socks(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, int] | None:
        _, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        wanted = 2 if self._login else 0
        if wanted not in methods:
            writer.write(b"\x05\xff")
            return None
        writer.write(bytes((5, wanted)))
        if self._login:
            _, length = await reader.readexactly(2)
            user = await reader.readexactly(length)
            secret = await reader.readexactly((await reader.readexactly(1))[0])
            ok = f"{user.decode()}:{secret.decode()}" == self._login
            writer.write(bytes((1, not ok)))
            if not ok:
                return None
        _, _, _, kind = await reader.readexactly(4)
        if kind == 3:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            host = ".".join(str(one) for one in await reader.readexactly(4))
        port = int.from_bytes(await reader.readexactly(2), "big")
        writer.write(bytes((5, 5 if self._refuse else 0, 0, 1, 0, 0, 0, 0, 0, 0)))
        return None if self._refuse else (host, port)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def proxy_at(proxy: Proxy) -> AsyncIterator[str]:
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@asynccontextmanager
async def destination() -> AsyncIterator[tuple[str, Any]]:
    """A TLS server that answers HTTP and echoes over WebSocket."""
    pki = RealPki(RealClock())
    ca = await pki.make_ca("test")
    pair = await pki.issue(ca, "localhost", dns_names=["localhost"], ips=["127.0.0.1"])

    def handle(request: Request) -> Response | None:
        if request.path != "/socket":
            return Response(200, {}, b"hello")
        socket = accept(request)
        socket.on_message = lambda message: socket.send_nowait(message.data)
        return None

    async with HttpServer(handle) as server:
        tls = server_context(pair.certificate, pair.key)
        listener = await server.listen(RealNet(), "127.0.0.1:0", tls=tls)
        yield listener.address.rpartition(":")[2], client_context(ca=ca.certificate)


@pytest.mark.parametrize("kind", ["http", "socks5"])
@pytest.mark.parametrize("login", ["", "user:se:cret"])
async def test_a_tunnel_with_tls_inside(kind: str, login: str) -> None:
    proxy = Proxy(kind, login)
    async with proxy_at(proxy) as at, destination() as (port, tls):
        net = through_proxy(RealNet(), f"{kind}://{login.replace('se:', 'se%3A')}{'@' if login else ''}{at}")
        with anyio.fail_after(60):
            async with HttpClient(net, f"localhost:{port}", tls=tls) as client:
                assert (await client.request("GET", "/")).body == b"hello"
            socket = await connect(net, f"127.0.0.1:{port}", "/socket", tls=tls)
            await socket.send(b"x" * 100_000)
            assert (await socket.recv()).data == b"x" * 100_000
            await socket.close()
        assert proxy.asked == [f"localhost:{port}", f"127.0.0.1:{port}"]


@pytest.mark.parametrize(
    ("kind", "url", "reason"),
    [
        ("http", "http://{}", "407"),
        ("socks5", "socks5://{}", "connection refused"),
        ("nonsense", "socks5://{}", "does not speak SOCKS5"),
        ("nonsense", "http://{}", "does not speak HTTP"),
    ],
)
async def test_a_refusal_is_told(kind: str, url: str, reason: str) -> None:
    async with proxy_at(Proxy(kind, refuse=True)) as at:
        net = through_proxy(RealNet(), url.format(at))
        with anyio.fail_after(60), pytest.raises(ProxyError, match=reason):
            await net.connect(asyncio.Protocol, "localhost:9")


async def test_wrong_password() -> None:
    for kind, reason in (("http", "407"), ("socks5", "name and password")):
        async with proxy_at(Proxy(kind, "user:right")) as at:
            net = through_proxy(RealNet(), f"{kind}://user:wrong@{at}")
            with anyio.fail_after(60), pytest.raises(ProxyError, match=reason):
                await net.connect(asyncio.Protocol, "localhost:9")


def test_proxies_are_read_and_bypassed() -> None:
    assert parse_proxy("10.0.0.9").address == "10.0.0.9:3128"
    assert parse_proxy("socks5h://[::1]").address == "[::1]:1080"
    assert "secret" not in repr(parse_proxy("http://u:secret@h:1"))
    for bad in ("ftp://x", "http://", "socks4://h"):
        with pytest.raises(ValueError, match="no proxy"):
            parse_proxy(bad)
    assert bypasses("localhost, .example.org,10.0.0.0/8", "10.1.2.3")
    assert bypasses("example.org", "a.example.org")
    assert bypasses("*", "x")
    assert not bypasses("example.org,10.0.0.0/33", "other.org")
    net = RealNet()
    assert through_proxy(net, "") is net
