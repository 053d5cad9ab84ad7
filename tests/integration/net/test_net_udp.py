"""UDP sockets on loopback: batches, with the kernel's help and without, and what happens when it has no room."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from edgesite.net import udp
from edgesite.net.real import RealNet
from edgesite.net.udp import UdpTransport, send_all
from edgesite.testing.waiting import until

pytestmark = pytest.mark.anyio


class OneByOne(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.calls = 0
        self.addr: Any = None
        self.errors: list[Exception] = []
        self.lost = False

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.got.append(data)
        self.calls += 1
        self.addr = addr

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


class Batches(OneByOne):
    def datagrams_received(self, datagrams: Sequence[bytes], addr: Any) -> None:
        self.got += datagrams
        self.calls += 1
        self.addr = addr


async def pair(make: Callable[[], OneByOne] = Batches) -> tuple[Any, OneByOne, Any, OneByOne]:
    net = RealNet()
    far, server = await net.datagrams(make, local="127.0.0.1:0")
    near, client = await net.datagrams(make, remote=f"127.0.0.1:{far.get_extra_info('sockname')[1]}")
    return far, server, near, client


#: Sizes as QUIC has them, and as nobody has them.
SENT = [
    bytes([n % 256]) * size
    for n, size in enumerate([1200] * 40 + [700] + [1200] * 3 + [1, 2, 3] + [30_000] + [1200, 1201])
]


@pytest.mark.parametrize("make", [OneByOne, Batches])
@pytest.mark.parametrize("helped", [True, False], ids=["with the kernel's help", "without"])
async def test_all_arrive_as_they_were_sent(
    make: Callable[[], OneByOne], helped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not helped:
        monkeypatch.setattr(udp, "_takes_batches", lambda sock: False)
    far, server, near, client = await pair(make)
    send_all(near, SENT)
    await until(lambda: len(server.got) == len(SENT))
    assert server.got == SENT
    assert server.addr == near.get_extra_info("sockname")
    send_all(far, SENT[:50], server.addr)
    await until(lambda: len(client.got) == 50)
    assert client.got == SENT[:50]
    assert client.addr == far.get_extra_info("sockname")
    if helped and make is Batches:
        assert client.calls < 20, "what belongs together comes together"
    for one in (near, far):
        one.close()
        one.close()
    await until(lambda: server.lost and client.lost)


async def test_peers_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    far, server, near, _ = await pair(OneByOne)
    other, _ = await RealNet().datagrams(OneByOne, remote=f"127.0.0.1:{far.get_extra_info('sockname')[1]}")
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(server, "datagram_received", lambda data, addr: seen.append((data[0], addr[1])))
    for n in range(20):
        send_all((near, other)[n % 2], [bytes([n])] * 3)
    await until(lambda: len(seen) == 60)
    ports = [one.get_extra_info("sockname")[1] for one in (near, other)]
    assert sorted(seen) == [(n, ports[n % 2]) for n in range(20) for _ in range(3)]
    for one in (near, other, far):
        one.close()


async def test_what_the_kernel_does_not_send_in_one_is_sent_one_by_one() -> None:
    far, server, near, _ = await pair()
    assert isinstance(near, UdpTransport)

    class Card:
        """A socket whose device cannot cut batches."""

        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock

        def sendmsg(self, *_: Any) -> int:
            raise OSError(5, "Input/output error")

        def __getattr__(self, name: str) -> Any:
            return getattr(self.sock, name)

    near._sock = Card(near._sock)  # type: ignore[assignment]
    send_all(near, SENT[:41])
    await until(lambda: len(server.got) == 41)
    assert server.got == SENT[:41]
    near.close()
    far.close()


async def test_what_finds_no_room_waits_and_then_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    far, server, near, _ = await pair()
    assert isinstance(near, UdpTransport)
    monkeypatch.setattr(near, "_sent", lambda batch: False)
    for n in range(200):
        near.sendto(bytes([n]))
    monkeypatch.undo()
    await until(lambda: len(server.got) == udp._WAITING)
    assert server.got == [bytes([n]) for n in range(udp._WAITING)]
    near.sendto(b"next")
    await until(lambda: server.got[-1] == b"next")
    near.close()
    far.close()


async def test_a_port_where_nobody_listens_is_told() -> None:
    far, _, near, client = await pair()
    far.close()
    await anyio.lowlevel.checkpoint()
    with anyio.fail_after(5):
        while not client.errors:
            send_all(near, [b"x", b"y"])
            await anyio.sleep(0.01)
    assert isinstance(client.errors[0], ConnectionRefusedError)
    near.close()


async def test_addresses_that_cannot_be_had() -> None:
    far, _, near, _ = await pair()
    with pytest.raises(OSError, match="in use"):
        await RealNet().datagrams(Batches, local=f"127.0.0.1:{far.get_extra_info('sockname')[1]}")
    with pytest.raises(OSError, match="takes no datagrams"):
        await RealNet().datagrams(Batches, local="unix:///tmp/x")
    six, _ = await RealNet().datagrams(Batches, local="[::1]:0")
    for one in (far, near, six):
        one.close()
