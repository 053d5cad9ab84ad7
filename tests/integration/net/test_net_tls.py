"""TLS on the sockets themselves: bytes whole and in order, ends that are clean, and many peers that come at once."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from edgesite.net import tls
from edgesite.net.pki import RealPki
from edgesite.net.real import RealClock, RealNet, loop_factory
from edgesite.net.tls_listener import HandshakeLimits, TlsListener
from edgesite.testing.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    return "asyncio", {"loop_factory": loop_factory() if request.param == "uvloop" else asyncio.new_event_loop}


class End(asyncio.Protocol):
    """Keeps what comes."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.eof = False
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.pauses = 0
        self.may_write = asyncio.Event()
        self.may_write.set()
        self.came = asyncio.Event()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.came.set()

    def eof_received(self) -> None:
        self.eof = True

    def pause_writing(self) -> None:
        self.pauses += 1
        self.may_write.clear()

    def resume_writing(self) -> None:
        self.may_write.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)

    async def has(self, count: int) -> bytes:
        while len(self.received) < count:
            self.came.clear()
            await self.came.wait()
        return bytes(self.received)


class Echo(End):
    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


@asynccontextmanager
async def site(limits: HandshakeLimits = HandshakeLimits(), protocol: type[End] = End) -> AsyncIterator[Any]:
    pki = RealPki(RealClock())
    async with pki.session() as keeper:
        ca = await keeper.make_ca("test")
        server = await keeper.issue(ca, "server", dns_names=["localhost"], ips=["127.0.0.1"])
    net, ends = RealNet(limits), []

    def make() -> End:
        ends.append(protocol())
        return ends[-1]

    listener = await net.listen(make, "127.0.0.1:0", tls=tls.server_context(server.certificate, server.key))
    assert isinstance(listener, TlsListener)
    trusting = tls.client_context(ca=ca.certificate)
    try:
        with anyio.fail_after(60):
            yield SimpleNamespace(
                net=net,
                server=server,
                ends=ends,
                listener=listener,
                address=listener.address,
                tls=trusting,
                ca=ca.certificate,
            )
    finally:
        await listener.close()
        for end in ends:
            end.transport.abort()


async def connect(made: Any) -> End:
    _, end = await made.net.connect(End, made.address, tls=made.tls)
    return end


async def test_large_writes_arrive_whole_while_the_reader_pauses() -> None:
    async with site() as made:
        near = await connect(made)
        await until(lambda: made.ends)
        far = made.ends[0]
        far.transport.pause_reading()
        for end, option in ((near, socket.SO_SNDBUF), (far, socket.SO_RCVBUF)):
            end.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, option, 65_536)
        digest, size = hashlib.sha256(), 0
        for length in (1, 16_384, 16_385, 3_000_000, 70_000, 5):
            piece = os.urandom(length)
            digest.update(piece)
            size += length
            near.transport.write(bytearray(piece) if length % 2 else piece)
        assert near.pauses == 1
        assert near.transport.get_write_buffer_size() > 1_000_000
        await anyio.sleep(0.05)
        assert not far.received
        far.transport.resume_reading()
        assert hashlib.sha256(await far.has(size)).digest() == digest.digest()
        await near.may_write.wait()
        assert near.transport.get_write_buffer_size() == 0
        near.transport.abort()


async def test_what_was_written_before_close_still_arrives_and_both_ends_end_cleanly() -> None:
    async with site() as made:
        near = await connect(made)
        near.transport.write(b"x" * 2_000_000)
        near.transport.close()
        near.transport.write(b"too late")
        await until(lambda: made.ends)
        far = made.ends[0]
        assert await far.lost is None
        assert (len(far.received), far.eof) == (2_000_000, True)
        assert await near.lost is None


async def test_a_peer_that_goes_without_a_word_ends_the_connection() -> None:
    async with site() as made:
        near = await connect(made)
        await until(lambda: made.ends)
        raw = made.ends[0].transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
        made.ends[0].transport.abort()
        assert isinstance(await near.lost, ConnectionResetError | None)  # OpenSSL takes some resets for an end
        near.transport.write(b"into the void")
        near.transport.close()


async def test_bytes_that_are_not_tls_are_cut_and_others_go_on() -> None:
    async with site() as made:
        host, _, port = made.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" * 10)
        assert len(await reader.read()) < 100  # an alert at most
        writer.close()
        near = await connect(made)
        assert made.listener.failed == 1
        near.transport.abort()


async def test_a_client_that_is_refused_reads_why_though_it_has_sent_more() -> None:
    async with site() as made:
        context = tls.server_context(
            made.server.certificate, made.server.key, client_ca=made.server.certificate, require_client=True
        )
        listener = await made.net.listen(End, "127.0.0.1:0", tls=context)
        _, end = await made.net.connect(End, listener.address, tls=made.tls)  # TLS 1.3: its own part is done by now
        end.transport.write(b"hello" * 1000)
        assert "certificate required" in str(await end.lost).lower().replace("_", " ")
        await listener.close()


async def test_a_wrong_name_fails_the_connect() -> None:
    async with site() as made:
        with pytest.raises(ssl.SSLCertVerificationError):
            await made.net.connect(End, made.address, tls=made.tls, server_hostname="elsewhere.example")
        with pytest.raises(ConnectionRefusedError):
            await made.net.connect(End, "127.0.0.1:1", tls=made.tls)


async def test_who_dawdles_in_the_handshake_gives_way_to_who_waits() -> None:
    async with site(HandshakeLimits(at_once=3, patience_s=0.05)) as made:
        host, _, port = made.address.rpartition(":")
        idle = [await asyncio.open_connection(host, int(port)) for _ in range(6)]
        await until(lambda: made.listener.under_way == 3)
        near = await connect(made)
        assert made.listener.failed >= 4
        for _, writer in idle:
            writer.close()
        near.transport.abort()


async def test_who_has_given_up_waiting_costs_no_handshake() -> None:
    async with site(HandshakeLimits(at_once=1, patience_s=10)) as made:
        host, _, port = made.address.rpartition(":")
        _, idle = await asyncio.open_connection(host, int(port))
        await until(lambda: made.listener.under_way == 1)
        for _ in range(5):
            _, impatient = await asyncio.open_connection(host, int(port))
            impatient.write(b"hello?")
            impatient.close()
            await impatient.wait_closed()
        idle.close()
        near = await connect(made)
        assert (made.listener.gave_up, made.listener.failed) == (5, 1)
        near.transport.abort()


async def test_a_handshake_that_is_not_completed_ends_at_its_deadline() -> None:
    async with site(HandshakeLimits(timeout_s=0.05)) as made:
        host, _, port = made.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        assert await reader.read() == b""
        assert (made.listener.failed, made.listener.under_way) == (1, 0)
        writer.close()


async def test_strangers_that_stay_after_a_refusal_hold_few_places() -> None:
    async with site(HandshakeLimits(at_once=4)) as made:
        host, _, port = made.address.rpartition(":")
        writers = []
        for _ in range(12):
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            writers.append(writer)
        most = 0
        while made.listener.failed < 12:
            most = max(most, len(made.listener._refused))
            await anyio.sleep(0.002)
        assert 0 < most <= 4
        for writer in writers:
            writer.close()


async def test_hundreds_come_at_once_and_who_is_connected_goes_on_in_time() -> None:
    """The rest waits in the backlog: nobody is refused, and no turn of the loop is filled with handshakes."""
    async with site(HandshakeLimits(at_once=32), Echo) as made:
        steady, passed, most = await connect(made), 0, 0
        waiting, ends = 300, []

        async def come() -> None:
            nonlocal waiting
            ends.append(await connect(made))
            waiting -= 1

        async with anyio.create_task_group() as tasks:
            for _ in range(waiting):
                tasks.start_soon(come)
            asked = 0
            while waiting:
                before = waiting
                steady.transport.write(b"?")
                asked += 1
                await steady.has(asked)
                passed = max(passed, before - waiting)
                most = max(most, made.listener.under_way)
                await anyio.sleep(0.005)
        assert len(made.ends) == 301
        assert made.listener.failed == 0
        assert 1 < most <= 32
        assert passed < 75  # whatever the machine does beside: few come in between a question and its answer
        for end in ends:
            end.transport.abort()


async def test_closing_the_listener_cuts_handshakes_and_keeps_connections() -> None:
    async with site(protocol=Echo) as made:
        near = await connect(made)
        host, _, port = made.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        await until(lambda: made.listener.under_way == 1)
        await made.listener.close()
        assert await reader.read() == b""
        writer.close()
        near.transport.write(b"still here")
        assert await near.has(10) == b"still here"
        near.transport.abort()
