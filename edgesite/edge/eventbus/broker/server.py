"""The embedded broker on sockets: bytes between transports and `wire.mqtt`, who may come in, timers.

    async with BrokerServer(broker, settings.who, clock=, threads=, journal=) as server:
        await server.listen(ctx.net, address, tls=)
        await server.run()

Clients are not read while the journal or the host has too much to do: the kernel, then the client, holds what comes.

Errors  OSError from `listen`. What a client does wrong ends its connection, is counted, and logged (one line a minute).
Bounds  `HELD_BYTES` of packets that are not complete, beyond which who holds most goes; `UNSENT_BYTES` that clients are slow to take, beyond which the next slow one goes; `CHECKS` passwords
        checked at once; `LEAVE_S` for a client that does not take our last words.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

import anyio

from edgesite.wire.mqtt.connection import Connection, Peer
from edgesite.wire.mqtt.packets import ProtocolError, Reason

if TYPE_CHECKING:
    import ssl

    from edgesite.context import Clock, Listener, Net, Threads
    from edgesite.edge.eventbus.broker.journal import SqliteJournal
    from edgesite.edge.eventbus.broker.settings import Who
    from edgesite.wire.mqtt.broker import Broker

__all__ = ["BrokerServer"]

logger = logging.getLogger(__name__)
HELD_BYTES: Final = 32 << 20
UNSENT_BYTES: Final = 64 << 20
CHECKS: Final = 1
LEAVE_S: Final = 5.0
_LOG_S: Final = 60.0
_PROBE_IDLE_S: Final = 300  #: TCP looks for clients that have no keep-alive and are gone


class _Client(asyncio.Protocol):
    """One transport and its connection."""

    def __init__(self, server: BrokerServer) -> None:
        self._server = server
        self.transport: asyncio.Transport
        self.connection: Connection | None = None
        self.held = 0
        self.unsent = 0
        self.is_slow = False  #: it does not take what it is sent

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        _probe_when_idle(transport.get_extra_info("socket"))
        self.connection = self._server.came(self, _peer_of(transport))
        if self.connection is None:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self.connection is not None:
            self._server.received(self, self.connection, data)

    def pause_writing(self) -> None:
        self._server.writable(self, False)

    def resume_writing(self) -> None:
        self._server.writable(self, True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.left(self)


class BrokerServer:
    """See the module docstring."""

    def __init__(
        self,
        broker: Broker,
        who: Who,
        *,
        clock: Clock,
        threads: Threads,
        journal: SqliteJournal | None = None,
        host_is_full: Callable[[], bool] = lambda: False,
    ) -> None:
        self.who = who
        self._broker, self._clock, self._threads = broker, clock, threads
        self._journal = journal
        self._host_is_full = host_is_full
        self._clients: dict[Connection, _Client] = {}
        self._stopped: dict[_Client, None] = {}  # not read: there is too much to do
        self._leaving: dict[_Client, float] = {}  # until when they may take our last words
        self._held = 0
        self._unsent = 0
        broker.is_user = lambda name: self.who.knows(name)
        self._tasks = anyio.create_task_group()
        self._checks = anyio.CapacityLimiter(CHECKS)
        self._armed: float | None = None
        self._moved = anyio.Event()
        self._logged_at = float("-inf")
        self._unlogged = 0

    async def __aenter__(self) -> BrokerServer:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, *failure: Any) -> bool | None:
        self._tasks.cancel_scope.cancel()
        return await self._tasks.__aexit__(*failure)

    async def listen(self, net: Net, address: str, tls: ssl.SSLContext | None = None) -> Listener:
        """Take clients. Raises OSError."""
        return await net.listen(lambda: _Client(self), address, tls=tls)

    async def run(self) -> None:
        """Follow the broker's deadlines and the journal until cancelled."""
        if self._journal is not None:
            self._tasks.start_soon(self._journal.run, self._stored)
        while True:
            now = self._clock.monotonic()
            self._broker.handle_timer(now)
            self._abort_late(now)
            self.flush()
            self._armed = self._next()
            self._moved = anyio.Event()
            with anyio.move_on_after(None if self._armed is None else max(0.0, self._armed - self._clock.monotonic())):
                await self._moved.wait()

    def _next(self) -> float | None:
        marks = [at for at in (self._broker.next_timer(), min(self._leaving.values(), default=None)) if at is not None]
        return min(marks, default=None)

    def close(self) -> None:
        """Say goodbye to all; what was said goes out as the transports close."""
        self._broker.close(self._clock.monotonic())
        self.flush()
        for client in list(self._leaving):
            client.transport.abort()

    # Transports

    def came(self, client: _Client, peer: Peer) -> Connection | None:
        connection = self._broker.open(peer, self._clock.monotonic())
        if connection is None:
            self._say(peer, "there are too many connections")
        else:
            self._clients[connection] = client
            self._arm()
        return connection

    def received(self, client: _Client, connection: Connection, data: bytes) -> None:
        now = self._clock.monotonic()
        connection.receive(data, now)
        self._held += connection.held - client.held
        client.held = connection.held
        if self._held > HELD_BYTES:
            worst = max(self._clients.values(), key=lambda one: one.held, default=None)
            if worst is not None and worst.connection is not None:
                worst.connection.fail(ProtocolError(Reason.QUOTA, "too much of packets that are not complete"), now)
        if self._broker.logins:
            self._log_in(now)
        self.flush()
        if self.is_busy and not connection.is_over:
            client.transport.pause_reading()
            self._stopped[client] = None

    def writable(self, client: _Client, is_writable: bool) -> None:
        if client.connection is None:
            return
        now = self._clock.monotonic()
        client.is_slow = not is_writable
        client.connection.set_writable(is_writable, now)
        self._count_unsent(client, client.connection, now)
        self.flush()

    def _count_unsent(self, client: _Client, connection: Connection, now: float) -> None:
        """Messages wait for a slow client to take what it has; answers to what it sends do not."""
        unsent = client.transport.get_write_buffer_size() if client.is_slow else 0
        self._unsent += unsent - client.unsent
        client.unsent = unsent
        if self._unsent > UNSENT_BYTES and client.is_slow:
            connection.fail(ProtocolError(Reason.QUOTA, "too much that slow clients do not take"), now)

    def left(self, client: _Client) -> None:
        self._stopped.pop(client, None)
        self._leaving.pop(client, None)
        if client.connection is not None:
            self._held -= client.held
            self._unsent -= client.unsent
            self._clients.pop(client.connection, None)
            client.connection.lost(self._clock.monotonic())
            self.flush()

    @property
    def is_busy(self) -> bool:
        return self._host_is_full() or self._broker.is_behind or (self._journal is not None and self._journal.is_full)

    def go_on(self) -> None:
        """Read those again who were stopped, if there is room; whoever made room calls it."""
        if self._stopped and not self.is_busy:
            stopped, self._stopped = self._stopped, {}
            for client in stopped:
                client.transport.resume_reading()

    def flush(self) -> None:
        """Send what there is, close what is over; each call of the broker is followed by this one."""
        broker, now = self._broker, self._clock.monotonic()
        while broker.dirty:
            for connection in broker.take_dirty():
                client = self._clients.get(connection)
                if client is None:
                    continue
                if data := connection.take():
                    client.transport.write(data)
                    if client.is_slow:
                        self._count_unsent(client, connection, now)
                if connection.is_over:
                    self._part(client, connection, now)
                elif data:
                    connection.flushed(now)
        self._arm()

    def _part(self, client: _Client, connection: Connection, now: float) -> None:
        self._clients.pop(connection, None)
        self._held -= client.held
        client.held = 0
        self._leaving[client] = now + LEAVE_S
        if connection.why not in _USUAL:
            self._say(connection.peer, connection.why, connection.client_id)
        if client.is_slow:
            client.transport.abort()  # it takes no last words, and what it has not taken has no more use
        else:
            client.transport.close()

    def _abort_late(self, now: float) -> None:
        for client in [one for one, until in self._leaving.items() if until <= now]:
            client.transport.abort()

    def _arm(self) -> None:
        """Look at the deadlines again if there is an earlier one."""
        at = self._next()
        if at is not None and (self._armed is None or at < self._armed):
            self._armed = at
            self._moved.set()

    def _stored(self, sequence: int) -> None:
        self._broker.stored(sequence, self._clock.monotonic())
        self.flush()
        self.go_on()

    def _say(self, peer: Peer, why: str, client_id: str = "") -> None:
        now = self._clock.monotonic()
        if now - self._logged_at < _LOG_S:
            self._unlogged += 1
            return
        more = f" (and {self._unlogged} more since the last such line)" if self._unlogged else ""
        logger.warning("MQTT client %r at %s: %s%s", client_id[:64], peer.address, why, more)
        self._logged_at, self._unlogged = now, 0

    # Who it is

    def _log_in(self, now: float) -> None:
        asking, self._broker.logins = self._broker.logins, []
        for connection in asking:
            name = connection.connect.username
            certified = connection.peer.certificate_name if self.who.by_certificate else ""
            if certified:
                self._broker.admit(connection, certified, now)
            elif name is not None and self.who.passwords is not None:
                self._tasks.start_soon(self._check, connection, name, connection.connect.password or b"")
            elif self.who.takes_anonymous(connection.peer.is_local):
                self._broker.admit(connection, "", now)
            else:
                connection.refuse(Reason.NOT_AUTHORIZED, "it did not say who it is", now)

    async def _check(self, connection: Connection, name: str, given: bytes) -> None:
        passwords = self.who.passwords or {}
        known = passwords.get(name)
        checked = known or next(iter(passwords.values()), None)  # a name that is unknown must not be known by its time
        async with self._checks:
            if connection.is_over:
                return
            is_right = checked is not None and await self._threads.run(checked.matches, given) and known is not None
        now = self._clock.monotonic()
        if is_right:
            self._broker.admit(connection, name, now)
        elif not connection.is_over:
            connection.refuse(Reason.BAD_LOGIN, "user name or password is wrong", now)
        self.flush()


_USUAL: Final = frozenset({"the client disconnected", "the connection was lost", "the broker ends"})


def _peer_of(transport: asyncio.BaseTransport) -> Peer:
    address = transport.get_extra_info("peername")
    if transport.get_extra_info("in_process"):
        return Peer(str(address), True)
    if not isinstance(address, tuple):
        return Peer("unix", True)  # of a socket that only this user may open
    certificate = transport.get_extra_info("peercert") or {}
    names = {name: value for part in certificate.get("subject", ()) for name, value in part}
    return Peer(f"{address[0]}:{address[1]}", _is_loopback(address[0]), names.get("commonName", ""))


def _is_loopback(host: str) -> bool:
    found = ipaddress.ip_address(host.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None)
    return bool((mapped or found).is_loopback)


def _probe_when_idle(sock: socket.socket | None) -> None:
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_IDLE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
