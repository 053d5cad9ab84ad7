"""Listening sockets with TLS: how many peers may be in a handshake, and how much of a turn of the loop they may take.

A handshake is a millisecond of CPU and some tens of KiB while it lasts. When thousands come back at once, they wait in the kernel's
backlog, where they cost nothing, until one of ``at_once`` places is free; and those that have a place share a few steps in
each turn of the loop, so that established connections go on in time.

Units   Seconds of the event loop's clock.
Errors  OSError when an address cannot be bound. Peers that fail are cut and counted in ``failed``.
State   The handshakes under way, oldest first. Who dawdles gives way to who waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edgesite.net.tls_faults import clock_fault
from edgesite.net.tls_transport import RECORD_BYTES, Handshake, TlsTransport

__all__ = ["HandshakeLimits", "TlsListener", "bind"]

logger = logging.getLogger(__name__)
_TELL_S: Final = 60.0  #: between two words about this machine's clock
_BREATH_S: Final = 0.5  #: when the system has no descriptors or memory left
_REFUSED_S: Final = 1.0  #: for a peer that was refused to read why
_REFUSED_BYTES: Final = 256 * 1024  #: taken from it meanwhile
_TCP_INFO: Final = 11  #: Linux; the first byte is the state (include/net/tcp_states.h)
_LEFT_STATES: Final = frozenset({7, 8})  #: CLOSE, CLOSE_WAIT
_SCARCE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@dataclass(frozen=True, slots=True)
class HandshakeLimits:
    """Bounds of one listener."""

    backlog: int = 4096  #: peers that the kernel keeps waiting; it cuts this to net.core.somaxconn
    at_once: int = 256  #: handshakes under way
    steps: int = 8  #: of handshakes in one turn of the loop, about a third of a millisecond each
    timeout_s: float = 30.0  #: for one handshake
    patience_s: float = 10.0  #: after this one gives way if others wait for a place


class _Refused:
    """A socket with an alert on its way: closed at once, what the peer has sent beyond would make that a reset, which overtakes it."""

    __slots__ = ("_ended", "_left", "_loop", "_sock", "_timer")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, ended: Callable[[_Refused], object]
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._ended = ended
        self._left = _REFUSED_BYTES
        self._timer = loop.call_later(_REFUSED_S, self.close)
        with contextlib.suppress(OSError):  # then it is gone, as the next look shows
            sock.shutdown(socket.SHUT_WR)
        loop.add_reader(sock.fileno(), self._discard)

    def _discard(self) -> None:
        try:
            size = len(self._sock.recv(RECORD_BYTES))
        except BlockingIOError:
            return
        except OSError:
            size = 0
        self._left -= size
        if not size or self._left < 0:
            self.close()

    def close(self) -> None:
        self._ended(self)
        self._timer.cancel()
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()


class TlsListener:
    """Serves each peer that completes its handshake with a new protocol. Call `start` once."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sockets: list[socket.socket],
        address: str,
        context: ssl.SSLContext,
        factory: Callable[[], asyncio.BaseProtocol],
        shared: memoryview,
        limits: HandshakeLimits = HandshakeLimits(),
    ) -> None:
        self.address = address
        self.failed = 0  #: handshakes that came to nothing
        self.gave_up = (
            0  #: peers that had left before it was their turn: a handshake with them would be work for nobody
        )
        self._loop = loop
        self._sockets = sockets
        self._context = context
        self._factory = factory
        self._shared = shared
        self._limits = limits
        self._under_way: dict[Handshake, float] = {}  # since when
        self._due: deque[Handshake] = deque()  # have something to do
        self._refused: dict[_Refused, None] = {}
        self._stepping = False
        self._accepting = False
        self._closed = False
        self._again: asyncio.TimerHandle | None = None
        self._told_at = -_TELL_S

    @property
    def under_way(self) -> int:
        return len(self._under_way)

    def start(self) -> None:
        """Accept from now on."""
        if self._accepting or self._closed:
            return
        self._accepting = True
        self._again = None
        for sock in self._sockets:
            self._loop.add_reader(sock.fileno(), self._accept, sock)

    def _stop(self) -> None:
        self._accepting = False
        for sock in self._sockets:
            self._loop.remove_reader(sock.fileno())

    async def close(self) -> None:
        """Stop listening; who is in a handshake is cut, connections go on. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._stop()
        if self._again is not None:
            self._again.cancel()
        for sock in self._sockets:
            sock.close()
        for one in tuple(self._under_way):
            one.fail(ConnectionAbortedError("the listener is closed"))
        for refused in tuple(self._refused):
            refused.close()

    # Accepting

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(self._limits.steps):
            if not self._has_place():
                return
            try:
                sock, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as exc:
                if exc.errno not in _SCARCE:
                    raise
                logger.warning("%s: cannot accept for now: %s", self.address, exc)
                self._wait(_BREATH_S)
                return
            self._begin(sock)

    def _has_place(self) -> bool:
        """Whether one more may begin. If not, nobody is accepted until somebody ends or has had the time that is due to him."""
        if len(self._under_way) < self._limits.at_once:
            return True
        oldest, since = next(iter(self._under_way.items()))
        spent = self._loop.time() - since
        if spent >= self._limits.patience_s:
            oldest.fail(TimeoutError("others wait for a place"))
            return True
        self._wait(self._limits.patience_s - spent)
        return False

    def _wait(self, seconds: float) -> None:
        self._stop()
        if self._again is None:
            self._again = self._loop.call_later(seconds, self.start)

    def _begin(self, sock: socket.socket) -> None:
        if _has_left(sock):
            self.gave_up += 1
            sock.close()
            return
        try:
            sock.setblocking(False)
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            wrapped = self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        except (OSError, ValueError):  # gone already
            self.failed += 1
            sock.close()
            return
        one = Handshake(self._loop, wrapped, self._limits.timeout_s, self._queue, self._done)
        self._under_way[one] = self._loop.time()
        self._queue(one)

    # Handshakes

    def _queue(self, one: Handshake) -> None:
        self._due.append(one)
        if not self._stepping:
            self._stepping = True
            self._loop.call_soon(self._step)

    def _step(self) -> None:
        for _ in range(min(self._limits.steps, len(self._due))):
            self._due.popleft().step()
        self._stepping = bool(self._due)
        if self._stepping:
            self._loop.call_soon(self._step)

    def _done(self, one: Handshake, error: OSError | None) -> None:
        self._under_way.pop(one, None)
        if error is None:
            TlsTransport(self._loop, one.sock, self._factory(), self._shared).start()
        else:
            self.failed += 1
            self._tell(error)
            if isinstance(error, ssl.SSLError) and not self._closed and len(self._refused) < self._limits.at_once:
                raw = socket.socket(fileno=one.sock.detach())
                self._refused[_Refused(self._loop, raw, lambda ended: self._refused.pop(ended, None))] = None
        if not self._accepting and not self._closed and len(self._under_way) < self._limits.at_once:
            if self._again is not None:
                self._again.cancel()
            self.start()

    def _tell(self, error: OSError) -> None:
        """Log a failure: strangers may cause any number, but where this machine's clock may be the cause that is told once a minute."""
        why = clock_fault(error, time.time())
        if why and self._loop.time() - self._told_at >= _TELL_S:
            self._told_at = self._loop.time()
            logger.warning("%s: a TLS handshake failed: %s", self.address, why)
        else:
            logger.debug("%s: a TLS handshake failed: %s", self.address, error)


def _has_left(sock: socket.socket) -> bool:
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 1)[0] in _LEFT_STATES
    except OSError:  # another system, or no TCP
        return False


async def bind(loop: asyncio.AbstractEventLoop, host: str, port: int, backlog: int) -> list[socket.socket]:
    """Listen on all addresses of ``host``, "" for every one. Raises OSError."""
    found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, where in dict.fromkeys(found):
            try:
                sock = socket.socket(family, kind, protocol)
            except OSError:  # a family that this kernel does not have
                continue
            sockets.append(sock)
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(where)
            sock.listen(backlog)
        if not sockets:
            raise OSError(errno.EADDRNOTAVAIL, f"no address of {host!r} can be listened on")
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets
