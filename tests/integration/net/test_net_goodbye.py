"""TLS connections that end while their peer, or their event loop, does not wait."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

import anyio
import pytest

from edgesite.net import tls
from edgesite.net.pki import KeyPair, RealPki
from edgesite.net.real import RealClock, RealNet, loop_factory

pytestmark = pytest.mark.anyio
Factory = Callable[[], asyncio.AbstractEventLoop]


class Ended(asyncio.Protocol):
    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.error: Exception | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        self.error = exc
        self.ended.set()


@pytest.fixture(scope="module")
def pair() -> tuple[KeyPair, KeyPair]:
    async def make() -> tuple[KeyPair, KeyPair]:
        async with RealPki(RealClock()).session() as pki:
            ca = await pki.make_ca("test")
            return ca, await pki.issue(ca, "localhost", dns_names=["localhost"], ips=["127.0.0.1"])

    return anyio.run(make)


@pytest.fixture
def mute(pair: tuple[KeyPair, KeyPair]) -> Iterator[tuple[str, list[bytes]]]:
    """A server that shakes hands, then says nothing and ends nothing; and what it has read to the client's end."""
    context = tls.server_context(pair[1].certificate, pair[1].key)
    over, ends = threading.Event(), []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            sock, _ = listening.accept()
            with context.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False) as peer:
                try:
                    ends.append(peer.recv(1024))
                    ends.append(peer.recv(1024))  # close_notify
                except ssl.SSLError as exc:
                    ends.append(str(exc).encode())
                over.wait(30)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}", ends
        over.set()
        thread.join()


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, loop_factory()], ids=["asyncio", "uvloop"])
def test_a_loop_that_ends_first_leaves_no_socket_open(
    pair: tuple[KeyPair, KeyPair], mute: tuple[str, list[bytes]], factory: Factory, recwarn: pytest.WarningsRecorder
) -> None:
    async def say_goodbye() -> None:
        context = tls.client_context(ca=pair[0].certificate)
        transport, _ = await RealNet().connect(Ended, mute[0], tls=context)
        transport.write(b"hello")
        transport.close()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(say_goodbye())
    gc.collect()
    assert [str(one.message) for one in recwarn] == []


async def test_what_was_written_arrives_and_then_the_goodbye(
    pair: tuple[KeyPair, KeyPair], mute: tuple[str, list[bytes]]
) -> None:
    """A peer that does not answer it is waited for two seconds, no longer."""
    transport, protocol = await RealNet().connect(Ended, mute[0], tls=tls.client_context(ca=pair[0].certificate))
    transport.write(b"hello")
    transport.close()
    with anyio.fail_after(10):
        await protocol.ended.wait()
    assert protocol.error is None
    assert mute[1] == [b"hello", b""]
