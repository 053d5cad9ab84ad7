"""The real parts of net: sockets, TLS, certificates, threads, SQLite files."""

from __future__ import annotations

import asyncio
import gzip
import os
import socket
import ssl
import stat
import threading
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest
from anyio.lowlevel import checkpoint

from edgesite.net import pem, real, tls, websocket
from edgesite.net.client import HttpClient
from edgesite.net.http import Frame, HttpServer, Limits, Request, Response
from edgesite.net.pki import BOTH, CLIENT, KeyPair, PkiError, RealPki
from edgesite.net.real import RealClock, RealDisk, RealNet, loop_factory
from edgesite.net.threads import RealThreads

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    return "asyncio", {"loop_factory": loop_factory() if request.param == "uvloop" else asyncio.new_event_loop}


def who(request: Request) -> Response:
    return Response(200, None, f"{request.peer.common_name}/{','.join(request.peer.organizations)}".encode())


async def make_site(pki: RealPki) -> SimpleNamespace:
    async with pki.session() as keeper:
        ca = await keeper.make_ca("KubeEdge", serial=1024)
        server = await keeper.issue(ca, "KubeEdge", dns_names=["localhost", ""], ips=["127.0.0.1"])
        csr = await keeper.make_csr("system:node:n1", organizations=["system:nodes"])
        node = KeyPair(await keeper.sign_csr(ca, pem.to_der(csr.request)), csr.key)
    return SimpleNamespace(ca=ca, server=server, node=node)


async def test_mutual_tls_names_the_peer_and_is_optional_where_asked() -> None:
    site = await make_site(RealPki(RealClock()))
    net = RealNet()
    context = tls.server_context(site.server.certificate, site.server.key, client_ca=site.ca.certificate)
    async with HttpServer(who, clock=RealClock()) as server:
        listener = await server.listen(net, "127.0.0.1:0", tls=context)
        trusting = {"ca": site.ca.certificate}
        async with HttpClient(net, listener.address, tls=tls.client_context(**trusting)) as client:
            assert (await client.request("GET", "/")).body == b"/"
        context = tls.client_context(**trusting, certificate=site.node.certificate, key=site.node.key)
        async with HttpClient(net, listener.address, tls=context) as client:
            answer = await client.request("GET", "/")
        assert answer.body == b"system:node:n1/system:nodes"
        assert answer.headers["date"].endswith("GMT")


async def test_strangers_are_refused() -> None:
    pki = RealPki(RealClock())
    site, other = await make_site(pki), await make_site(pki)
    net = RealNet()
    context = tls.server_context(
        site.server.certificate, site.server.key, client_ca=site.ca.certificate, require_client=True
    )
    async with HttpServer(who) as server:
        listener = await server.listen(net, "127.0.0.1:0", tls=context)
        for client_context in (
            tls.client_context(ca=site.ca.certificate),  # no certificate
            tls.client_context(ca=site.ca.certificate, certificate=other.node.certificate, key=other.node.key),
            tls.client_context(ca=other.ca.certificate, certificate=site.node.certificate, key=site.node.key),
        ):
            async with HttpClient(net, listener.address, tls=client_context) as client:
                with pytest.raises(OSError):  # noqa: PT011 - TLS 1.3 tells by the first read, and in several ways
                    await client.request("GET", "/")


async def test_the_server_name_must_fit() -> None:
    site = await make_site(RealPki(RealClock()))
    net = RealNet()
    async with HttpServer(who) as server:
        listener = await server.listen(
            net, "127.0.0.1:0", tls=tls.server_context(site.server.certificate, site.server.key)
        )
        context = tls.client_context(ca=site.ca.certificate)
        async with HttpClient(net, listener.address, tls=context, server_hostname="elsewhere") as client:
            with pytest.raises(ssl.SSLCertVerificationError):
                await client.request("GET", "/")
        async with HttpClient(net, listener.address, tls=context, server_hostname="localhost") as client:
            assert (await client.request("GET", "/")).status == 200


async def test_a_common_name_is_no_server_name() -> None:
    pki, net = RealPki(RealClock()), RealNet()
    ca = await pki.make_ca("KubeEdge")
    named = await pki.issue(ca, "localhost")
    async with HttpServer(who) as server:
        listener = await server.listen(net, "127.0.0.1:0", tls=tls.server_context(named.certificate, named.key))
        async with HttpClient(
            net, listener.address, tls=tls.client_context(ca=ca.certificate), server_hostname="localhost"
        ) as client:
            with pytest.raises(ssl.SSLCertVerificationError):
                await client.request("GET", "/")


async def test_tls_below_1_2_is_refused_and_kubeedges_only_cipher_works() -> None:
    site = await make_site(RealPki(RealClock()))
    net = RealNet()
    async with HttpServer(who) as server:
        listener = await server.listen(
            net, "127.0.0.1:0", tls=tls.server_context(site.server.certificate, site.server.key)
        )
        context = tls.client_context(ca=site.ca.certificate)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
        async with HttpClient(net, listener.address, tls=context) as client:
            assert (await client.request("GET", "/")).status == 200


async def test_large_messages_pass_a_websocket_over_tls_both_ways() -> None:
    site = await make_site(RealPki(RealClock()))
    net = RealNet()

    async def echo(request: Request) -> None:
        socket = websocket.accept(request)
        async for message in socket:
            await socket.send(message.data, text=message.text)

    async with HttpServer(echo) as server:
        context = tls.server_context(site.server.certificate, site.server.key, client_ca=site.ca.certificate)
        listener = await server.listen(net, "127.0.0.1:0", tls=context)
        socket = await websocket.connect(
            net, listener.address, "/x", {"A": "b"}, tls=tls.client_context(ca=site.ca.certificate)
        )
        data = os.urandom(10 * 1024 * 1024)
        with anyio.fail_after(60):
            await socket.send(data, text=True)
            message = await socket.recv()
            assert message.text
            assert message.data == data
            await socket.close()
        assert socket.closed is not None
        assert socket.closed.code == 1000


async def test_leaving_the_server_ends_upgraded_and_streaming_connections() -> None:
    net = RealNet()

    async def handler(request: Request) -> None:
        if request.path == "/ws":
            async for _ in websocket.accept(request):
                pass
        else:
            writer = await request.stream()
            await writer.write(b"x")
            await anyio.sleep_forever()

    before = asyncio.all_tasks()
    for _ in range(2):
        async with HttpServer(handler) as server:
            listener = await server.listen(net, "127.0.0.1:0")
            socket = await websocket.connect(net, listener.address, "/ws")
            client = HttpClient(net, listener.address)
            stream = client.stream("GET", "/")
            answer = await stream.__aenter__()
            assert await answer.read() == b"x"
        with anyio.fail_after(60):
            with pytest.raises(websocket.SocketClosed):
                await socket.recv()
            with pytest.raises(OSError):  # noqa: PT011 - cut, which has no errno
                await answer.read()
        await stream.__aexit__(None, None, None)
        await client.close()
        with pytest.raises(ConnectionRefusedError):
            await net.connect(asyncio.Protocol, listener.address)
    assert asyncio.all_tasks() == before


async def test_a_unix_socket_is_private_and_a_dead_one_is_replaced(tmp_path: Path) -> None:
    net = RealNet()
    path = tmp_path / "x.sock"
    address = f"unix://{path}"
    async with HttpServer(who) as server:
        await server.listen(net, address)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with pytest.raises(OSError, match="in use"):
            await net.listen(asyncio.Protocol, address)
        async with HttpClient(net, address) as client:
            assert (await client.request("GET", "/")).status == 200
    assert not path.exists()
    import socket

    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    await (await net.listen(asyncio.Protocol, address)).close()


async def test_large_answers_are_compressed_for_who_accepts_it() -> None:
    body = b'{"kind":"PodList"}' * 20_000
    net = RealNet()
    threads = RealThreads()
    async with HttpServer(lambda _: Response(200, None, body), Limits(gzip_loopback=True), threads=threads) as server:
        listener = await server.listen(net, "127.0.0.1:0")
        async with HttpClient(net, listener.address) as client:
            packed = await client.request("GET", "/", {"Accept-Encoding": "gzip"})
            assert packed.headers["content-encoding"] == "gzip"
            assert gzip.decompress(packed.body) == body
            assert (await client.request("GET", "/", {"Accept-Encoding": "gzip;q=0"})).body == body
            assert (await client.request("GET", "/")).body == body
    await threads.close()


async def test_slow_senders_hold_nothing_up() -> None:
    net = RealNet()
    async with HttpServer(who, Limits(head_timeout_s=0.1)) as server:
        listener = await server.listen(net, "127.0.0.1:0")
        slow = []
        # Each speaks at once: on a busy machine the first ones have been told before the last connects.
        for _ in range(50):
            slow.append(await anyio.connect_tcp("127.0.0.1", int(listener.address.rpartition(":")[2])))
            await slow[-1].send(b"GET / HTTP/1.1\r\nX-")
        async with HttpClient(net, listener.address) as client:
            assert (await client.request("GET", "/")).status == 200
            with anyio.fail_after(60):
                for one in slow:
                    assert (await one.receive()).startswith(b"HTTP/1.1 408 ")
                    await one.aclose()
        with anyio.fail_after(60):
            while server.connections > 0:
                await checkpoint()


async def test_one_frame_reaches_many_streams() -> None:
    net = RealNet()
    writers = []
    async with HttpServer(lambda request: writers.append(request.open_stream(200)), clock=RealClock()) as server:
        listener = await server.listen(net, "127.0.0.1:0")
        client = HttpClient(net, listener.address)
        streams = [client.stream("GET", "/watch") for _ in range(20)]
        answers = [await one.__aenter__() for one in streams]
        frame = Frame(b"event\n")
        for writer in writers:
            writer.write_nowait(frame)
        with anyio.fail_after(60):
            for answer in answers:
                assert await answer.read() == b"event\n"
        for writer in writers:
            writer.close()
        for answer, stream in zip(answers, streams, strict=True):
            assert await answer.read() == b""
            await stream.__aexit__(None, None, None)
        await client.close()


async def test_certificates_have_kubeedges_form() -> None:
    clock = RealClock()
    pki = RealPki(clock)
    site = await make_site(pki)
    ca = pem.facts(site.ca.certificate)
    assert (ca.subject, ca.serial) == ((("CN", "KubeEdge"),), 1024)
    assert ca.not_before < clock.time() - 3600
    assert ca.not_after > clock.time() + 36_000 * 86_400
    assert b"BEGIN EC PRIVATE KEY" in site.ca.key
    node = pem.facts(site.node.certificate)
    assert (node.common_name, node.organizations) == ("system:node:n1", ("system:nodes",))
    assert pem.from_der(pem.to_der(site.ca.key), "EC PRIVATE KEY") == site.ca.key
    again = await pki.issue(
        KeyPair(pem.from_der(pem.to_der(site.ca.certificate)), site.ca.key), "x", usages=BOTH, days=1
    )
    assert pem.facts(again.certificate).not_after < clock.time() + 86_401


async def test_bad_requests_for_certificates_are_refused_and_the_session_goes_on() -> None:
    pki = RealPki(RealClock())
    site, other = await make_site(pki), await make_site(pki)
    async with pki.session() as keeper:
        nameless = await keeper.make_csr("x")
        good = pem.to_der(nameless.request)
        for csr in (b"", b"junk", good[:-1], good[:-3] + bytes([good[-3] ^ 1]) + good[-2:]):
            with pytest.raises(PkiError):
                await keeper.sign_csr(site.ca, csr, usages=CLIENT)
        with pytest.raises(PkiError, match="does not belong"):
            await keeper.sign_csr(KeyPair(site.ca.certificate, other.ca.key), good)
        with pytest.raises(PkiError):
            await keeper.issue(site.ca, "x", ips=["not an address"])
        assert await keeper.sign_csr(site.ca, good)


async def test_a_worker_runs_in_order_and_wakes_the_loop_for_many_at_once() -> None:
    before = set(threading.enumerate())
    threads = RealThreads()
    worker = threads.worker("test")
    seen: list[int] = []
    futures = [worker.submit(seen.append, number) for number in range(1000)]
    await futures[-1]
    assert seen == list(range(1000))

    def fail() -> None:
        raise LookupError("no")

    with pytest.raises(LookupError):
        await worker.submit(fail)
    given_up = worker.submit(seen.append, -1)
    given_up.cancel()
    await worker.close()
    assert seen[-1] == -1
    with pytest.raises(RuntimeError):
        worker.submit(fail)
    assert await threads.run(sum, [1, 2]) == 3
    with pytest.raises(LookupError):
        await threads.run(fail)
    await threads.close()
    await checkpoint()
    assert not [one for one in set(threading.enumerate()) - before if one.name.startswith(("test", "edgesite"))]


def test_a_database_is_private_durable_and_waits_for_others(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    connection = RealDisk().connect(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    pragmas = {
        name: connection.execute(f"PRAGMA {name}").get for name in ("journal_mode", "synchronous", "foreign_keys")
    }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    connection.execute("CREATE TABLE t(x)")
    assert [stat.S_IMODE(one.stat().st_mode) for one in sorted(tmp_path.iterdir())] == [0o600] * 3
    connection.close()


async def test_an_address_that_leads_nowhere_does_not_keep_from_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a host has IPv6 in the DNS and none on its way."""
    monkeypatch.setattr(real, "_ATTEMPT_S", 0.2)
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # more than wait for a listener that accepts none: the next gets no answer
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        async with HttpServer(lambda request: Response(200, None, b"here"), clock=RealClock()) as server:
            listener = await server.listen(RealNet(), "127.0.0.1:0")
            good = ("127.0.0.1", int(listener.address.rpartition(":")[2]))

            async def resolved(*_: object) -> list[object]:
                return [(socket.AF_INET, full.getsockname()), (socket.AF_INET, good)]

            monkeypatch.setattr(real, "_resolved", resolved)
            with anyio.fail_after(60):
                async with HttpClient(RealNet(), "cloud.example:1") as client:
                    assert (await client.request("GET", "/")).body == b"here"
