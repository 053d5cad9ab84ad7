"""UDP sockets that send and receive many datagrams with one call of the kernel, where it can (Linux), and one by one elsewhere.

    transport.send_batch([data, data, …], addr)          to one peer; ``addr`` None for the one that it is connected to
    protocol.datagrams_received([data, data, …], addr)   instead of ``datagram_received``, where a protocol has it

A bulk transfer over QUIC is thousands of datagrams a second: by themselves each costs a call and a turn of the loop.

Units   Bytes.
Errors  OSError from `open_udp`; later ones go to the protocol's ``error_received``.
State   What the kernel has no room for waits, up to ``_WAITING`` batches; then datagrams are lost, as they are on any road.
Source  Linux udp(7): UDP_SEGMENT (4.18), UDP_GRO (5.0).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Final

__all__ = ["UdpTransport", "open_udp", "send_all"]

_SOL_UDP: Final = 17
_UDP_SEGMENT: Final = 103
_UDP_GRO: Final = 104
_MOST_SEGMENTS: Final = 64
_MOST_BYTES: Final = 65_000  #: of a batch: what fits in one datagram of IP
_READ_BYTES: Final = 1 << 16
_READS: Final = 8  #: calls in one turn of the loop, so that others have theirs
_WAITING: Final = 64
_CONTROL_BYTES: Final = socket.CMSG_SPACE(4) if hasattr(socket, "CMSG_SPACE") else 0
_SEGMENT: Final = struct.Struct("H")
_GRO: Final = struct.Struct("i")

Batch = tuple[bytes, int, Any]  #: datagrams joined, the size of each but the last (0: it is one), where to


class UdpTransport(asyncio.DatagramTransport):
    """Drives a protocol on a socket that does not block, which it owns from then on."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, protocol: asyncio.DatagramProtocol
    ) -> None:
        self._peer = _peer_of(sock)
        super().__init__({"socket": sock, "sockname": sock.getsockname(), "peername": self._peer})
        self._loop = loop
        self._sock = sock
        self._descriptor = sock.fileno()
        self._protocol = protocol
        self._takes_batches = getattr(protocol, "datagrams_received", None) is not None
        self._waiting: deque[Batch] = deque()
        self._closing = False
        self._segments = _takes_batches(sock)
        self._buffer = memoryview(bytearray(_READ_BYTES if self._segments else 0))

    def start(self) -> None:
        """Tell the protocol that its socket is open, and read."""
        self._protocol.connection_made(self)
        if not self._closing:
            self._loop.add_reader(self._descriptor, self._on_readable)

    # Sending

    def sendto(self, data: Any, addr: Any = None) -> None:
        if not self._closing:
            self._put((data, 0, addr))

    def send_batch(self, datagrams: Sequence[bytes], addr: Any = None) -> None:
        """Send several to one peer."""
        if self._closing:
            return
        if not self._segments or len(datagrams) == 1:
            for data in datagrams:
                self._put((data, 0, addr))
            return
        for batch in _batches(datagrams, addr):
            self._put(batch)

    def _put(self, batch: Batch) -> None:
        if not self._waiting and self._sent(batch):
            return
        if len(self._waiting) < _WAITING:
            if not self._waiting:
                self._loop.add_writer(self._descriptor, self._on_writable)
            self._waiting.append(batch)

    def _sent(self, batch: Batch) -> bool:
        """Whether it is done with: False if the kernel has no room."""
        data, size, addr = batch
        target = None if self._peer is not None else addr
        try:
            if size:
                control = ((_SOL_UDP, _UDP_SEGMENT, _SEGMENT.pack(size)),)
                self._sock.sendmsg((data,), control, 0, target)
            elif target is None:
                self._sock.send(data)
            else:
                self._sock.sendto(data, target)
        except (BlockingIOError, InterruptedError):
            return False
        except ConnectionRefusedError as exc:  # about an earlier one: this one was not sent
            self._protocol.error_received(exc)
            return True
        except OSError as exc:
            if size:  # a card that cannot, or a path with less room than our datagrams need
                self._segments = False
                return all(self._sent((data[at : at + size], 0, addr)) for at in range(0, len(data), size))
            self._protocol.error_received(exc)
        return True

    def _on_writable(self) -> None:
        while self._waiting and self._sent(self._waiting[0]):
            if self._waiting:  # an error may have closed us
                self._waiting.popleft()
        if not self._waiting and not self._closing:
            self._loop.remove_writer(self._descriptor)

    # Receiving

    def _on_readable(self) -> None:
        came: list[bytes] = []
        sender: Any = None
        for _ in range(_READS):
            try:
                found, addr = self._read()
            except (BlockingIOError, InterruptedError):
                break
            except OSError as exc:
                self._hand_out(came, sender)
                came = []
                if not self._closing:
                    self._protocol.error_received(exc)
                break
            if addr != sender and came:
                self._hand_out(came, sender)
                came = []
                if self._closing:
                    return
            sender = addr
            came += found
        self._hand_out(came, sender)

    def _read(self) -> tuple[Iterator[bytes] | tuple[bytes], Any]:
        """Raises OSError."""
        if not self._segments:
            data, addr = self._sock.recvfrom(_READ_BYTES)
            return (data,), addr
        buffer = self._buffer
        count, control, _, addr = self._sock.recvmsg_into((buffer,), _CONTROL_BYTES)
        for level, kind, value in control:
            if level == _SOL_UDP and kind == _UDP_GRO:
                (size,) = _GRO.unpack_from(value)
                return (bytes(buffer[at : min(at + size, count)]) for at in range(0, count, size)), addr
        return (bytes(buffer[:count]),), addr

    def _hand_out(self, datagrams: list[bytes], addr: Any) -> None:
        if not datagrams or self._closing:
            return
        addr = addr or self._peer
        if self._takes_batches:
            self._protocol.datagrams_received(datagrams, addr)  # type: ignore[attr-defined]
            return
        for data in datagrams:
            if not self._closing:
                self._protocol.datagram_received(data, addr)

    # Ending

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        """Close; what waits for room is lost. Idempotent."""
        if self._closing:
            return
        self._closing = True
        self._waiting.clear()
        self._loop.remove_reader(self._descriptor)
        self._loop.remove_writer(self._descriptor)
        self._loop.call_soon(self._closed)

    def abort(self) -> None:
        self.close()

    def _closed(self) -> None:
        self._sock.close()
        self._protocol.connection_lost(None)


def open_udp(family: int, *, local: Any = None, remote: Any = None, buffer_bytes: int = 0) -> socket.socket:
    """Return a socket that does not block, bound to ``local`` or connected to ``remote``, numeric addresses. The kernel gives of
    ``buffer_bytes`` what it may. Raises OSError."""
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if buffer_bytes:
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, option, buffer_bytes)
        if local is not None:
            sock.bind(local)
        if remote is not None:
            sock.connect(remote)
    except BaseException:
        sock.close()
        raise
    return sock


def send_all(transport: asyncio.DatagramTransport, datagrams: Sequence[bytes], addr: Any = None) -> None:
    """Send several datagrams to one peer by any transport."""
    if isinstance(transport, UdpTransport):
        transport.send_batch(datagrams, addr)
    else:
        for data in datagrams:
            transport.sendto(data, addr)


def _takes_batches(sock: socket.socket) -> bool:
    """Whether the kernel cuts what it is given together, and gives together what it has."""
    if sys.platform != "linux" or not _CONTROL_BYTES:
        return False
    try:
        sock.setsockopt(_SOL_UDP, _UDP_GRO, 1)
    except OSError:  # before 5.0
        return False
    return True


def _peer_of(sock: socket.socket) -> Any:
    try:
        return sock.getpeername()
    except OSError:
        return None


def _batches(datagrams: Sequence[bytes], addr: Any) -> Iterator[Batch]:
    """Join neighbours of one size, of which the last may be shorter."""
    run: list[bytes] = []
    size = total = 0
    for data in datagrams:
        length = len(data)
        if run and (length > size or len(run[-1]) < size or total + length > _MOST_BYTES or len(run) >= _MOST_SEGMENTS):
            yield _joined(run, size, addr)
            run = []
        if not run:
            size, total = length, 0
        run.append(data)
        total += length
    if run:
        yield _joined(run, size, addr)


def _joined(run: list[bytes], size: int, addr: Any) -> Batch:
    return (run[0], 0, addr) if len(run) == 1 else (b"".join(run), size, addr)
