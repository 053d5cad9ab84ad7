"""One end of a simulated stream, as asyncio's transports behave, and ``Net`` on top of it.

Errors  What sockets raise: ConnectionRefusedError, ConnectionResetError, TimeoutError, OSError for an address in use.
State   TLS contexts are accepted and not used. ``identify`` may tell whose certificate a context holds: the peer sees that.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable
from contextvars import Context, copy_context
from typing import Any, Final, TypeVar

from edgesite.net import address as addresses
from edgesite.net.real import RealNet
from edgesite.testing.simulator.datagrams import SimDatagrams, address_of
from edgesite.testing.simulator.network import Endpoint, Listening, Network, Pipe

__all__ = ["SimNet", "SimTransport"]

P = TypeVar("P", bound=asyncio.BaseProtocol)
D = TypeVar("D", bound=asyncio.DatagramProtocol)
Identify = Callable[[Any], dict[str, Any] | None]
HIGH_BYTES: Final = 64 * 1024
SYN_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  #: between the attempts to connect, as Linux makes them


class SimTransport(asyncio.Transport):
    """Runs its protocol in the context of the process that owns it."""

    def __init__(
        self,
        network: Network,
        owner: Endpoint,
        peer: Endpoint,
        protocol: asyncio.BaseProtocol,
        context: Context,
        extra: dict[str, Any],
    ) -> None:
        super().__init__(extra)
        self.peer_machine = peer.machine
        self.out = Pipe(network, owner, peer)
        self.out.sender = self
        self.incoming: Pipe | None = None
        self._network, self._owner, self._context = network, owner, context
        self._protocol: Any = protocol
        self._loop = network.loop
        self._reading, self._closing, self._lost = True, False, False
        self._paused_writer = self._eof_sent = False
        self._high, self._low = HIGH_BYTES, HIGH_BYTES // 4
        network.joined(self, owner)

    # What a protocol calls

    def write(self, data: Any) -> None:
        if self._closing or self._eof_sent or not data:
            return
        self.out.send(bytes(data))
        if self.out.size > self._high and not self._paused_writer:
            self._paused_writer = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        if not self._closing and not self._eof_sent:
            self._eof_sent = True
            self.out.send(None)

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self.out.send(None)
            self._loop.call_soon(self._end, None, context=self._context)

    def abort(self) -> None:
        self.lose(None)

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            if self.incoming is not None:
                self.incoming.kick()

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol  # type: ignore[no-any-return]

    def get_write_buffer_size(self) -> int:
        return self.out.size

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = HIGH_BYTES if low is None else 4 * low
        self._high, self._low = high, high // 4 if low is None else low

    # What the network calls

    @property
    def reads(self) -> bool:
        return self._reading or self._closing

    @property
    def takes(self) -> bool:
        """Whether somebody is there to take what arrives."""
        return not self._closing and self._owner.alive

    def start(self) -> None:
        """Tell the protocol that it is connected."""
        self._call(self._protocol.connection_made, self)

    def receive(self, data: bytes, end: bool) -> None:
        if data:
            self._call(self._protocol.data_received, data)
        if end and self.takes and not self._call(self._protocol.eof_received):
            self.close()

    def drained(self) -> None:
        """Bytes have left: the writer may go on."""
        if self._paused_writer and self.out.size <= self._low and not self._closing:
            self._paused_writer = False
            self._call(self._protocol.resume_writing)

    def reset_later(self, seconds: float) -> None:
        if not self._closing:
            error = ConnectionResetError(104, "simulated reset by peer")
            self._loop.call_later(seconds, self._reset, error, context=self._network.context)

    def _reset(self, error: OSError) -> None:
        if self._network.reachable(self.peer_machine, self._owner.machine):
            self.lose(error, tell_peer=False)

    def lose(self, error: Exception | None, *, tell_peer: bool = True) -> None:
        """The stream breaks here and now; the peer learns of it unless it does already."""
        if self._lost or not self._owner.alive:
            return
        was_closing, self._closing = self._closing, True
        self.out.vanish()
        if tell_peer:
            self._tell_peer()
        if not was_closing:
            self._loop.call_soon(self._end, error, context=self._context)

    def die(self, *, silently: bool) -> None:
        """The process is gone: no callback runs any more."""
        self._closing = self._lost = True
        self._network.left(self)
        if not silently:
            self.out.send(None)

    def _tell_peer(self) -> None:
        peer = self.incoming.sender if self.incoming is not None else None
        if peer is not None:
            peer.reset_later(self._network.travel_s(self._network.link(self._owner.machine, self.peer_machine)))

    def _end(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            self._network.left(self)
            self._protocol.connection_lost(error)

    def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        try:
            return self._context.run(function, *args)
        except Exception as exc:
            message = {"message": f"Fatal error: {function!r} failed", "exception": exc, "transport": self}
            self._loop.call_exception_handler(message)
            self.lose(exc)
            return True


class _Port:
    """A listening address of a process."""

    def __init__(self, network: Network, at: tuple[str, str], address: str, listening: Listening) -> None:
        self.address = address
        self._network, self._at, self._listening = network, at, listening

    async def close(self) -> None:
        if self._network.ports.get(self._at) is self._listening:
            del self._network.ports[self._at]


class SimNet:
    """`edgesite.context.Net` of one process. ``mem:`` addresses live inside the process."""

    def __init__(self, network: Network, owner: Endpoint, identify: Identify = lambda context: None) -> None:
        self._network, self._owner, self._identify = network, owner, identify
        self._inside = RealNet()
        self._next_port = 32768

    async def listen(
        self, factory: Callable[[], asyncio.BaseProtocol], address: str, *, tls: ssl.SSLContext | None = None
    ) -> Any:
        """Raises OSError for an address in use."""
        at = addresses.parse(address)
        if at.kind == "mem":
            return await self._inside.listen(factory, address)
        if at.kind == "tcp" and at.port == 0:
            self._next_port += 1
            at = addresses.Address("tcp", at.host, self._next_port)
        where = (self._owner.machine, at.host if at.kind == "unix" else str(at.port))
        if where in self._network.ports:
            raise OSError(98, f"{address} is in use")
        listening = Listening(self._owner, factory, copy_context(), tls)
        self._network.ports[where] = listening
        return _Port(self._network, where, str(at), listening)

    async def connect(
        self,
        factory: Callable[[], P],
        address: str,
        *,
        tls: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
    ) -> tuple[asyncio.Transport, P]:
        """Raises OSError."""
        at = addresses.parse(address)
        if at.kind == "mem":
            return await self._inside.connect(factory, address)
        machine = self._owner.machine if at.kind == "unix" else self._machine(at.host)
        await self._handshake(machine)
        listening = self._network.ports.get((machine, at.host if at.kind == "unix" else str(at.port)))
        if listening is None:
            raise ConnectionRefusedError(111, f"nobody listens on {address}")
        return self._establish(factory, listening, at, tls)

    async def datagrams(
        self, factory: Callable[[], D], *, local: str = "", remote: str = ""
    ) -> tuple[asyncio.DatagramTransport, D]:
        """Raises OSError for a port in use or a host that is none."""
        at = addresses.parse(local or remote)
        self._next_port += 1
        port = at.port if local and at.port else self._next_port
        if (address_of(self._owner.machine), port) in self._network.datagrams:
            raise OSError(98, f"{local} is in use")
        peer = None if local else (address_of(self._machine(at.host)), at.port)
        protocol = factory()
        transport = SimDatagrams(self._network, self._owner, protocol, copy_context(), port, peer)
        transport.start()
        return transport, protocol

    def _machine(self, host: str) -> str:
        if host in ("127.0.0.1", "::1", "localhost", ""):
            return self._owner.machine
        if host not in self._network.hosts:
            raise OSError(-2, f"no machine is called {host}")
        return self._network.hosts[host]

    async def _handshake(self, machine: str) -> None:
        network, own = self._network, self._owner.machine
        link = network.link(own, machine)
        for pause_s in (*SYN_S, None):
            await asyncio.sleep(2 * network.travel_s(link))
            if network.reachable(own, machine) and network.reachable(machine, own):
                return
            if pause_s is not None:
                await asyncio.sleep(pause_s)
        raise TimeoutError(110, f"{machine} does not answer")

    def _establish(
        self, factory: Callable[[], P], listening: Listening, at: addresses.Address, tls: Any
    ) -> tuple[asyncio.Transport, P]:
        network, owner, server = self._network, self._owner, listening.owner
        self._next_port += 1
        here, there = (owner.machine, self._next_port), (server.machine, at.port)
        client = factory()
        near_extra: dict[str, Any] = {"sockname": here, "peername": there}
        far_extra: dict[str, Any] = {"sockname": there, "peername": here}
        if tls is not None:
            near_extra["sslcontext"], far_extra["sslcontext"] = tls, listening.tls
            far_extra["peercert"] = self._identify(tls)
        near = SimTransport(network, owner, server, client, copy_context(), near_extra)
        context = listening.context.copy()
        far = SimTransport(network, server, owner, context.run(listening.factory), context, far_extra)
        near.incoming, far.incoming = far.out, near.out
        near.out.receiver, far.out.receiver = far, near
        network.trace(f"net connect {owner.machine} {server.machine} {at.port}")
        far.start()
        client.connection_made(near)
        return near, client
