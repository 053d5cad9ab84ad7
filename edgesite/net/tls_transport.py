"""TLS on a socket, driven by the loop's readiness events: OpenSSL reads and writes the socket itself.

An asyncio transport like any other, but for what an idle connection costs. The transports of asyncio and of uvloop hold a read
buffer (256 and 64 KiB) and two BIOs for each TLS connection; here all share one buffer, and OpenSSL gives its own back.

    Handshake        before there is a transport; ends with ``done(error)``, at the latest at its deadline
    TlsTransport     after it

Units   Bytes; seconds of the event loop's clock.
Errors  ``connection_lost`` tells OSErrors (ssl errors are OSErrors), None after a goodbye of either side.
State   OPEN, then FLUSHING (what was written still leaves), GOODBYE (the peer's end is waited for, without TLS), LOST.
Source  RFC 8446 section 6.1 (close_notify); asyncio's transport interface.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Any, Final

__all__ = ["RECORD_BYTES", "Handshake", "TlsTransport", "shake_hands"]

#: The most that one record holds (RFC 8446 section 5.1): a read of this size leaves nothing of it inside OpenSSL.
RECORD_BYTES: Final = 16 * 1024
_READS: Final = 8  #: full records taken in one turn of the loop, so that a fast peer does not starve others
_HIGH_BYTES: Final = 64 * 1024
_GOODBYE_S: Final = 2.0  #: for a peer that does not end its side after our close_notify


class _State(IntEnum):
    OPEN = 0
    FLUSHING = 1
    GOODBYE = 2
    LOST = 3


class Handshake:
    """One TLS handshake on a connected socket that does not block. Call `step` first; ``ready`` is called with it when its turn may
    have come again, and has to call `step`."""

    __slots__ = ("_deadline", "_done", "_loop", "_ready", "fd", "sock")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: ssl.SSLSocket,
        timeout_s: float,
        ready: Callable[[Handshake], None],
        done: Callable[[Handshake, OSError | None], None],
    ) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self._loop = loop
        self._ready = ready
        self._done: Callable[[Handshake, OSError | None], None] | None = done
        self._deadline = loop.call_later(timeout_s, self.fail, TimeoutError("the TLS handshake took too long"))

    def step(self) -> None:
        """Go on with it; calls ``done`` when it is over."""
        if self._done is None:
            return
        try:
            self.sock.do_handshake()
        except ssl.SSLWantReadError:
            self._loop.add_reader(self.fd, self._wake)
        except ssl.SSLWantWriteError:
            self._loop.add_writer(self.fd, self._wake)
        except OSError as exc:
            self.fail(exc)
        except ValueError as exc:  # the peer had left before the socket was wrapped
            self.fail(ConnectionResetError(str(exc)))
        else:
            self._end(None)

    def _wake(self) -> None:
        self._unwatch()
        self._ready(self)

    def fail(self, error: OSError) -> None:
        """Give it up."""
        if self._done is not None:
            self._end(error)
            self.sock.close()

    def _unwatch(self) -> None:
        self._loop.remove_reader(self.fd)
        self._loop.remove_writer(self.fd)

    def _end(self, error: OSError | None) -> None:
        done, self._done = self._done, None
        self._deadline.cancel()
        self._unwatch()
        if done is not None:
            done(self, error)


async def shake_hands(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, context: ssl.SSLContext, hostname: str, timeout_s: float
) -> ssl.SSLSocket:
    """The client's handshake on a connected socket, which is closed if it fails. Raises OSError."""
    ended: asyncio.Future[None] = loop.create_future()

    def done(_: Handshake, error: OSError | None) -> None:
        if not ended.done():
            ended.set_result(None) if error is None else ended.set_exception(error)

    try:
        wrapped = context.wrap_socket(sock, server_hostname=hostname or None, do_handshake_on_connect=False)
    except BaseException as exc:
        sock.close()
        if isinstance(exc, ValueError):  # a name that cannot be one, or the peer has left
            raise OSError(str(exc)) from exc
        raise
    handshake = Handshake(loop, wrapped, timeout_s, Handshake.step, done)
    handshake.step()
    try:
        await ended
    except asyncio.CancelledError:
        handshake.fail(ConnectionAbortedError("the handshake was given up"))
        wrapped.close()
        raise
    return wrapped


class TlsTransport(asyncio.Transport):
    """``sock`` has its handshake behind it. ``shared`` is what all transports of a loop read into: `RECORD_BYTES` long."""

    __slots__ = (
        "_fd",
        "_high",
        "_loop",
        "_out",
        "_out_bytes",
        "_protocol",
        "_reading",
        "_shared",
        "_sock",
        "_state",
        "_timer",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: ssl.SSLSocket, protocol: asyncio.BaseProtocol, shared: memoryview
    ) -> None:
        # `_extra` of the base class stays unset: `get_extra_info` asks the socket
        self._loop = loop
        self._sock = sock
        self._fd = sock.fileno()
        self._protocol: Any = protocol
        self._shared = shared
        self._state = _State.OPEN
        self._reading = False
        self._out: deque[bytes | memoryview] | None = None  # only while the peer is behind
        self._out_bytes = 0
        self._high = _HIGH_BYTES
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Tell the protocol, and begin to read."""
        self._protocol.connection_made(self)
        if self._state is _State.OPEN:
            self.resume_reading()

    # What a protocol asks

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        sock = self._sock
        try:
            match name:
                case "peername":
                    return sock.getpeername()
                case "sockname":
                    return sock.getsockname()
                case "peercert":
                    return sock.getpeercert()
                case "cipher":
                    return sock.cipher()
                case "sslcontext":
                    return sock.context
                case "ssl_object" | "socket":
                    return sock
        except (OSError, ValueError):  # the connection is over
            return default
        return default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def is_closing(self) -> bool:
        return self._state is not _State.OPEN

    def is_reading(self) -> bool:
        return self._reading

    def get_write_buffer_size(self) -> int:
        return self._out_bytes

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._high // 4, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """``low`` is always a quarter of ``high``, which it stands for if that is not given."""
        if high is None:
            high = _HIGH_BYTES if low is None else 4 * low
        self._high = high

    def can_write_eof(self) -> bool:
        return False

    # Reading

    def pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)

    def resume_reading(self) -> None:
        if not self._reading and self._state is _State.OPEN:
            self._reading = True
            self._loop.add_reader(self._fd, self._on_readable)

    def _on_readable(self) -> None:
        shared = self._shared
        for _ in range(_READS):
            try:
                size: Any = self._sock.read(RECORD_BYTES, shared)  # an int, as it is given a buffer
            except ssl.SSLWantReadError:
                return
            except ssl.SSLWantWriteError:
                self._watch_writes()
                return
            except ssl.SSLZeroReturnError:
                size = 0
            except OSError as exc:
                self._lose(exc)
                return
            if not size:
                self._on_eof()
                return
            if self._state is not _State.OPEN:
                continue  # we are about to say goodbye
            self._protocol.data_received(bytes(shared[:size]))
            if size < RECORD_BYTES or not self._reading:
                return

    def _on_eof(self) -> None:
        if self._state is not _State.OPEN:
            self._lose(None)
            return
        self._protocol.eof_received()
        self.close()

    # Writing

    def write(self, data: Any) -> None:
        if self._state is not _State.OPEN or not data:
            return
        if self._out is None:
            sent = self._send(data)
            if sent is None or sent == len(data):
                return
            self._out = deque()
            self._watch_writes()
            # the rest is kept, so it must not be the caller's to change
            data = memoryview(data)[sent:] if type(data) is bytes else bytes(memoryview(data)[sent:])
        elif type(data) is not bytes:
            data = bytes(data)
        below = self._out_bytes <= self._high
        self._out.append(data)
        self._out_bytes += len(data)
        if below and self._out_bytes > self._high:
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.write(b"".join(list_of_data))

    def _send(self, data: bytes | memoryview) -> int | None:
        """Write what the socket takes; None if the connection is over."""
        view, sent = data, 0
        try:
            while sent < len(data):
                sent += self._sock.send(view)
                if sent < len(data):  # OpenSSL returns after each record, so that what is left goes in as a view
                    view = memoryview(data)[sent:]
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass
        except OSError as exc:
            self._lose(exc)
            return None
        return sent

    def _watch_writes(self) -> None:
        self._loop.add_writer(self._fd, self._on_writable)

    def _on_writable(self) -> None:
        out = self._out
        above = self._out_bytes > self._high // 4
        while out:
            chunk = out[0]
            sent = self._send(chunk)
            if sent is None:
                return
            self._out_bytes -= sent
            if sent < len(chunk):
                out[0] = memoryview(chunk)[sent:]
                break
            out.popleft()
        if not out:
            self._out = None
            self._loop.remove_writer(self._fd)
            if self._state is _State.FLUSHING:
                self._say_goodbye()
                return
        if above and self._out_bytes <= self._high // 4 and self._state is _State.OPEN:
            self._protocol.resume_writing()

    # The end

    def close(self) -> None:
        if self._state is not _State.OPEN:
            return
        self._state = _State.FLUSHING
        if not self._out:
            self._say_goodbye()

    def _say_goodbye(self) -> None:
        """Send our close_notify; the socket stays until the peer's end, or a reset could overtake what we have written."""
        try:
            self._sock.unwrap()
        except ssl.SSLWantWriteError:
            self._watch_writes()
            return
        except ssl.SSLError:  # the peer's has not come, or data of it is still on the way
            pass
        except (OSError, ValueError):
            self._lose(None)
            return
        else:
            self._lose(None)  # the peer's came first
            return
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._lose(None)
            return
        self._state = _State.GOODBYE
        self._loop.remove_reader(self._fd)
        # From here on the descriptor is ours alone: should the loop end before the peer does, `__del__` closes it.
        self._fd = self._sock.detach()
        self._timer = self._loop.call_later(_GOODBYE_S, self._lose, None)
        self._reading = True
        self._loop.add_reader(self._fd, self._discard)

    def _discard(self) -> None:
        """Take what the peer sends until its end: unread, it would make our close a reset."""
        try:
            if os.readv(self._fd, [self._shared]):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._lose(None)

    def abort(self) -> None:
        self._lose(None)

    def _lose(self, error: OSError | None) -> None:
        if self._state is _State.LOST:
            return
        self._state = _State.LOST
        self._reading = False
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._out, self._out_bytes = None, 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._loop.call_soon(self._tell_lost, error)

    def _tell_lost(self, error: OSError | None) -> None:
        protocol, self._protocol = self._protocol, None
        try:
            protocol.connection_lost(error)
        finally:
            self._release()

    def _release(self) -> None:
        fd, self._fd = self._fd, -1
        if self._sock.fileno() >= 0:
            self._sock.close()
        elif fd >= 0:  # detached for the goodbye
            os.close(fd)

    def __del__(self) -> None:
        if self._state is _State.GOODBYE:
            self._release()
