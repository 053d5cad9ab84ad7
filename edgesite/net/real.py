"""The real world behind a module's context: sockets, clock, threads, SQLite files.

Units   Seconds.
Errors  OSError from sockets, apsw.Error from disks, ValueError for an address that is none.
State   `RealNet` holds the names of its ``mem:`` listeners: addresses are private to one RealNet. Its TLS connections share a buffer
        to read into: it belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
import anyio.lowlevel

from edgesite.net import address as addresses
from edgesite.net.mem import MemTransport, connect_pair
from edgesite.net.threads import RealThreads, RealWorker
from edgesite.net.tls_listener import HandshakeLimits, TlsListener, bind
from edgesite.net.tls_transport import RECORD_BYTES, TlsTransport, shake_hands
from edgesite.net.udp import UdpTransport, open_udp

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    import apsw

    from edgesite.context import Listener

__all__ = ["RealClock", "RealDisk", "RealNet", "RealThreads", "RealWorker", "loop_factory"]

P = TypeVar("P", bound=asyncio.BaseProtocol)
D = TypeVar("D", bound=asyncio.DatagramProtocol)
_BACKLOG: Final = 4096  #: many nodes reconnect at once after an outage
_HANDSHAKE_S: Final = 30.0
_GOODBYE_S: Final = 2.0  #: for a TLS peer that does not answer our close
_ATTEMPT_S: Final = 3.0  #: for one of several addresses, as of a host whose IPv6 leads nowhere
_BUSY_MS: Final = 10_000
_DATAGRAMS_BYTES: Final = 4 << 20  #: the kernel gives what it may: bursts of many peers wait there


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return the maker of the event loop: uvloop where it is installed, else asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


class RealClock:
    """The machine's clock."""

    def monotonic(self) -> float:
        return time.monotonic()

    def time(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


class _SocketListener:
    """A listening socket."""

    def __init__(self, server: asyncio.Server, address: str, path: str = "") -> None:
        self.address = address
        self._server: asyncio.Server | None = server
        self._path = path

    async def close(self) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        if self._path:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        server.close()
        await anyio.lowlevel.checkpoint()  # the loop lets go of the socket in its next turn


class _MemListener:
    """A name within one RealNet."""

    def __init__(self, names: dict[str, _MemListener], name: str, factory: Callable[[], asyncio.BaseProtocol]) -> None:
        self.address = f"mem:{name}"
        self.factory = factory
        self._names = names
        self._name = name

    async def close(self) -> None:
        if self._names.get(self._name) is self:
            del self._names[self._name]


class RealNet:
    """Sockets of this machine, and ``mem:`` names of its own."""

    def __init__(self, handshakes: HandshakeLimits = HandshakeLimits()) -> None:
        self._names: dict[str, _MemListener] = {}
        self._handshakes = handshakes
        self._shared: memoryview | None = None

    async def listen(
        self, factory: Callable[[], asyncio.BaseProtocol], address: str, *, tls: ssl.SSLContext | None = None
    ) -> Listener:
        """See `edgesite.context.Net.listen`. A unix socket gets mode 0600. TLS is ignored for ``mem:``."""
        at = addresses.parse(address)
        if at.kind == "mem":
            if at.host in self._names:
                raise OSError(98, f"{address} is in use")
            listener = self._names[at.host] = _MemListener(self._names, at.host, factory)
            return listener
        loop = asyncio.get_running_loop()
        if tls is not None and at.kind == "tcp":
            return await self._listen_tls(loop, factory, at, tls)
        options: dict[str, Any] = {"ssl": tls, "backlog": _BACKLOG}
        if tls is not None:
            options |= {"ssl_handshake_timeout": _HANDSHAKE_S, "ssl_shutdown_timeout": _GOODBYE_S}
        if at.kind == "unix":
            sock = _bind_unix(at.host)
            server = await loop.create_unix_server(factory, sock=sock, **options)
            return _SocketListener(server, address, at.host)
        server = await loop.create_server(factory, at.host or None, at.port, **options)
        bound = server.sockets[0].getsockname()[1]
        return _SocketListener(server, addresses.join(at.host, bound))

    async def _listen_tls(
        self,
        loop: asyncio.AbstractEventLoop,
        factory: Callable[[], asyncio.BaseProtocol],
        at: addresses.Address,
        tls: ssl.SSLContext,
    ) -> TlsListener:
        sockets = await bind(loop, at.host, at.port, self._handshakes.backlog)
        bound = addresses.join(at.host, sockets[0].getsockname()[1])
        listener = TlsListener(loop, sockets, bound, tls, factory, self._buffer(), self._handshakes)
        listener.start()
        return listener

    def _buffer(self) -> memoryview:
        if self._shared is None:
            self._shared = memoryview(bytearray(RECORD_BYTES))
        return self._shared

    async def connect(
        self,
        factory: Callable[[], P],
        address: str,
        *,
        tls: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
    ) -> tuple[asyncio.Transport, P]:
        """See `edgesite.context.Net.connect`."""
        at = addresses.parse(address)
        loop = asyncio.get_running_loop()
        if at.kind == "mem":
            return await self._connect_mem(loop, factory, at.host)
        if tls is not None and at.kind == "tcp":
            sock = await _connect_tcp(loop, at.host, at.port)
            tls_sock = await shake_hands(loop, sock, tls, server_hostname or at.host, _HANDSHAKE_S)
            protocol = factory()
            transport = TlsTransport(loop, tls_sock, protocol, self._buffer())
            transport.start()
            return transport, protocol
        options: dict[str, Any] = {"ssl": tls}
        if tls is not None:
            options |= {
                "server_hostname": server_hostname or "localhost",
                "ssl_handshake_timeout": _HANDSHAKE_S,
                "ssl_shutdown_timeout": _GOODBYE_S,
            }
        if at.kind == "unix":
            return await loop.create_unix_connection(factory, at.host, **options)
        sock = await _connect_tcp(loop, at.host, at.port)
        return await loop.create_connection(factory, sock=sock)

    async def datagrams(
        self, factory: Callable[[], D], *, local: str = "", remote: str = ""
    ) -> tuple[asyncio.DatagramTransport, D]:
        """See `edgesite.context.Net.datagrams`."""
        at = addresses.parse(local or remote)
        if at.kind != "tcp":
            raise OSError(95, f"{at} takes no datagrams")
        loop = asyncio.get_running_loop()
        failure: OSError | None = None
        for family, place in await _resolved(loop, at.host or "0.0.0.0", at.port):
            try:
                if local:
                    sock = open_udp(family, local=place, buffer_bytes=_DATAGRAMS_BYTES)
                else:
                    sock = open_udp(family, remote=place)
            except OSError as exc:
                failure = exc
                continue
            protocol = factory()
            transport = UdpTransport(loop, sock, protocol)
            transport.start()
            return transport, protocol
        raise failure or OSError(f"{at.host!r} has no address")

    async def _connect_mem(
        self, loop: asyncio.AbstractEventLoop, factory: Callable[[], P], name: str
    ) -> tuple[MemTransport, P]:
        await anyio.lowlevel.checkpoint()
        listener = self._names.get(name)
        if listener is None:
            raise ConnectionRefusedError(111, f"nobody listens on mem:{name}")
        client = factory()
        near, _ = connect_pair(loop, name, client, listener.factory())
        return near, client


async def _resolved(
    loop: asyncio.AbstractEventLoop, host: str, port: int
) -> list[tuple[socket.AddressFamily, tuple[Any, ...]]]:
    """Addresses need no resolver, which works in a thread. Raises OSError."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError, ValueError):
            socket.inet_pton(family, host)
            return [(family, (host, port))]
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, where) for family, _, _, _, where in found]


async def _connect_tcp(loop: asyncio.AbstractEventLoop, host: str, port: int) -> socket.socket:
    """Try each address of the host in turn; only the last may take as long as the caller allows. Raises OSError, the last one."""
    failure: OSError | None = None
    found = await _resolved(loop, host, port)
    for number, (family, where) in enumerate(found, 1):
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as exc:  # a family that this kernel does not have
            failure = exc
            continue
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with anyio.fail_after(_ATTEMPT_S if number < len(found) else None):
                await _connected(loop, sock, where)
        except OSError as exc:
            sock.close()
            failure = exc
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure or OSError(f"{host!r} has no address")


async def _connected(loop: asyncio.AbstractEventLoop, sock: socket.socket, where: tuple[Any, ...]) -> None:
    """Connect to a numeric address. uvloop's own way asks its resolver even then: four threads and the codec of IDNA, 2 MB. Raises OSError."""
    code = sock.connect_ex(where)
    if code == errno.EINPROGRESS:
        done = asyncio.Event()
        descriptor = sock.fileno()
        loop.add_writer(descriptor, done.set)
        try:
            await done.wait()
        finally:
            loop.remove_writer(descriptor)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


def _bind_unix(path: str) -> socket.socket:
    """Bind, so that nobody else can connect: the mode is set before anybody may. A socket that nobody serves is replaced."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode):
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(path) == 0:
                    raise OSError(98, f"{path} is in use")
            os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        os.chmod(path, 0o600)
    except OSError:
        sock.close()
        raise
    return sock


class RealDisk:
    """SQLite files on the machine's disk."""

    def connect(self, path: Path) -> apsw.Connection:
        """Open or create a database, mode 0600. Blocking. Raises apsw.Error, OSError."""
        import apsw

        with contextlib.suppress(FileExistsError):  # a file of our own mode: SQLite gives it to -wal and -shm too
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        connection = apsw.Connection(str(path))
        try:
            connection.set_busy_timeout(_BUSY_MS)
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
        return connection

    def set_aside(self, path: Path) -> Path:
        """Rename a database with its log and index: ``state.db`` to ``state.db.corrupt-1``. Raises OSError."""
        number = 1
        while (aside := path.with_name(f"{path.name}.corrupt-{number}")).exists():
            number += 1
        for suffix in ("-wal", "-shm", ""):  # the database last: until then a restart finds it corrupt again
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{path}{suffix}", f"{aside}{suffix}")
        return aside
