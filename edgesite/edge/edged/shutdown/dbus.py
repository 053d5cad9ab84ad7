"""A small D-Bus connection: method calls, their answers, signals, and file descriptors that come with them.

    async with connect(address) as bus:
        answer = await bus.call("org.freedesktop.login1", "/org/freedesktop/login1", MANAGER, "Inhibit", "ssss", (...))
        signal = await bus.receive()

One task uses a connection at a time; what comes while a call waits for its answer is kept for `receive`. It works on a socket of its
own, because transports of the event loop pass no descriptors on.

Units   Seconds; message sizes are bytes.
Errors  BusError (OSError): no bus, it refused, it left, or a message that cannot be read.
State   Messages that came meanwhile: at most KEPT, of which the oldest go first.
Source  D-Bus specification 0.4x: authentication, message format, marshalling.
"""

from __future__ import annotations

import os
import socket
import struct
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import anyio

__all__ = ["Bus", "BusError", "Message", "connect", "system_address"]

METHOD_CALL, METHOD_RETURN, ERROR, SIGNAL = 1, 2, 3, 4
KEPT: Final = 64
CALL_S: Final = 10.0
MESSAGE_BYTES: Final = 1 << 20
FDS: Final = 4
_FIELDS: Final = {
    1: "path",
    2: "interface",
    3: "member",
    4: "error",
    5: "reply_serial",
    6: "destination",
    7: "sender",
    8: "signature",
}
_CODES: Final = {
    name: (code, {"path": "o", "reply_serial": "u", "signature": "g"}.get(name, "s")) for code, name in _FIELDS.items()
}
_UNIX_FDS: Final = 9
_ALIGNED: Final = {
    "y": 1,
    "b": 4,
    "n": 2,
    "q": 2,
    "i": 4,
    "u": 4,
    "h": 4,
    "x": 8,
    "t": 8,
    "d": 8,
    "s": 4,
    "o": 4,
    "g": 1,
    "v": 1,
}
_FORMATS: Final = {"y": "B", "b": "I", "n": "h", "q": "H", "i": "i", "u": "I", "h": "I", "x": "q", "t": "Q", "d": "d"}


class BusError(OSError):
    """The bus cannot be used, or says no."""


@dataclass(frozen=True, slots=True)
class Message:
    """Fields that a message does not have are empty."""

    type: int
    serial: int = 0
    path: str = ""
    interface: str = ""
    member: str = ""
    error: str = ""
    reply_serial: int = 0
    destination: str = ""
    sender: str = ""
    signature: str = ""
    body: tuple[Any, ...] = ()
    fds: tuple[int, ...] = ()  #: whoever gets the message closes them


def system_address() -> str:
    """Path of the system bus' socket."""
    for one in os.environ.get("DBUS_SYSTEM_BUS_ADDRESS", "").split(";"):
        if one.startswith("unix:path="):
            return one.removeprefix("unix:path=").partition(",")[0]
    return "/run/dbus/system_bus_socket"


class Bus:
    """Made by `connect`."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._serial = 0
        self._data = bytearray()
        self._fds: deque[int] = deque()
        self._waiting: deque[Message] = deque()

    async def call(
        self, destination: str, path: str, interface: str, member: str, signature: str = "", body: Sequence[Any] = ()
    ) -> Message:
        """Call a method and return its answer. Raises BusError; TimeoutError is one, too."""
        wanted = Message(METHOD_CALL, 0, path, interface, member, "", 0, destination, "", signature, tuple(body))
        serial = await self.send(wanted)
        try:
            with anyio.fail_after(CALL_S):
                while True:
                    got = await self._next()
                    if got.reply_serial == serial:
                        break
                    self._keep(got)
        except TimeoutError:
            raise BusError(f"{destination} does not answer {member}") from None
        if got.type == ERROR:
            raise BusError(f"{member}: {got.error}: {got.body[0] if got.body else ''}")
        return got

    async def receive(self) -> Message:
        """Return the next message that is no answer of `call`. Raises BusError."""
        return self._waiting.popleft() if self._waiting else await self._next()

    async def send(self, message: Message, fds: Sequence[int] = ()) -> int:
        """Send a message and return its serial number. Raises BusError."""
        self._serial += 1
        data = _encoded(message, self._serial, len(fds))
        sent = 0
        try:
            while sent < len(data):
                try:
                    sent += socket.send_fds(self._socket, [data[sent:]], [] if sent else list(fds))
                except BlockingIOError:
                    await anyio.wait_writable(self._socket)
        except OSError as exc:
            raise BusError(str(exc)) from exc
        return self._serial

    def close(self) -> None:
        self._socket.close()
        for fd in (*self._fds, *(fd for one in self._waiting for fd in one.fds)):
            os.close(fd)
        self._fds.clear()
        self._waiting.clear()

    def _keep(self, message: Message) -> None:
        self._waiting.append(message)
        if len(self._waiting) > KEPT:
            for fd in self._waiting.popleft().fds:
                os.close(fd)

    async def _next(self) -> Message:
        while True:
            size = _size(self._data)
            if size and len(self._data) >= size:
                data = bytes(self._data[:size])
                del self._data[:size]
                try:
                    return _decoded(data, self._fds)
                except (struct.error, IndexError, UnicodeDecodeError, KeyError) as exc:
                    raise BusError(f"a message of the bus cannot be read: {exc!r}") from exc
            await self._read()

    async def authenticate(self) -> None:
        """Say who we are, as the kernel knows already. Raises BusError."""
        uid = str(os.getuid()).encode().hex()
        await self._line(f"\0AUTH EXTERNAL {uid}\r\n", "OK")
        await self._line("NEGOTIATE_UNIX_FD\r\n", "AGREE_UNIX_FD")
        self._socket.send(b"BEGIN\r\n")
        await self.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello")

    async def _line(self, text: str, expected: str) -> None:
        self._socket.send(text.encode())
        while b"\r\n" not in self._data:
            await self._read()
        answer, _, rest = bytes(self._data).partition(b"\r\n")
        self._data[:] = rest
        if not answer.startswith(expected.encode()):
            raise BusError(f"the bus refuses: {answer.decode(errors='replace')}")

    async def _read(self) -> None:
        await anyio.wait_readable(self._socket)
        try:
            data, fds, _, _ = socket.recv_fds(self._socket, 65_536, FDS)
        except BlockingIOError:
            return
        except OSError as exc:
            raise BusError(str(exc)) from exc
        self._fds.extend(fds)
        if not data:
            raise BusError("the bus has closed the connection")
        self._data += data


@asynccontextmanager
async def connect(path: str) -> AsyncGenerator[Bus]:
    """Connect to the bus behind a unix socket. Raises BusError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    bus = Bus(sock)
    try:
        try:
            sock.connect(path)
            with anyio.fail_after(CALL_S):
                await bus.authenticate()
        except BusError:
            raise
        except OSError as exc:
            raise BusError(f"{path}: {exc.strerror or exc}") from exc
        yield bus
    finally:
        bus.close()


def _pad(out: bytearray, to: int) -> None:
    out += bytes(-len(out) % to)


def _put(out: bytearray, kind: str, value: Any) -> None:
    _pad(out, _ALIGNED[kind])
    if kind in _FORMATS:
        out += struct.pack(f"<{_FORMATS[kind]}", value)
    elif kind == "v":
        inner, content = value
        _put(out, "g", inner)
        _put(out, inner, content)
    else:
        data = value.encode()
        out += struct.pack("<B" if kind == "g" else "<I", len(data)) + data + b"\0"


def _encoded(message: Message, serial: int, fds: int) -> bytes:
    body = bytearray()
    for kind, value in zip(message.signature, message.body, strict=True):
        _put(body, kind, value)
    fields = bytearray()
    for name, (code, kind) in _CODES.items():
        if value := getattr(message, name):
            _pad(fields, 8)
            _put(fields, "y", code)
            _put(fields, "v", (kind, value))
    if fds:
        _pad(fields, 8)
        _put(fields, "y", _UNIX_FDS)
        _put(fields, "v", ("u", fds))
    out = bytearray(struct.pack("<BBBBIII", ord("l"), message.type, 0, 1, len(body), serial, len(fields)))
    out += fields
    _pad(out, 8)
    return bytes(out + body)


def _size(data: bytearray) -> int:
    """Length of the message that begins here, 0 while that is not known. Raises BusError."""
    if len(data) < 16:
        return 0
    order = "<" if data[0] == ord("l") else ">"
    body, _, fields = struct.unpack_from(f"{order}III", data, 4)
    size = 16 + fields + -fields % 8 + body
    if size > MESSAGE_BYTES:
        raise BusError(f"a message of {size} bytes")
    return int(size)


def _decoded(data: bytes, fds: deque[int]) -> Message:
    order = "<" if data[0] == ord("l") else ">"
    _, serial, length = struct.unpack_from(f"{order}III", data, 4)
    found: dict[str, Any] = {}
    count, at = 0, 16
    while at < 16 + length:
        at += -at % 8
        code = data[at]
        value, at = _get(data, at + 1, "v", order)
        if code == _UNIX_FDS:
            count = value
        elif code in _FIELDS:
            found[_FIELDS[code]] = value
    at += -at % 8
    taken = tuple(fds.popleft() for _ in range(min(count, len(fds))))
    body = []
    for kind in found.get("signature", ""):
        if kind not in _ALIGNED:
            break  # arrays and structures, which nobody here asks for
        value, at = _get(data, at, kind, order)
        body.append(value)
    return Message(type=data[1], serial=serial, body=tuple(body), fds=taken, **found)


def _get(data: bytes, at: int, kind: str, order: str) -> tuple[Any, int]:
    at += -at % _ALIGNED[kind]
    if kind in _FORMATS:
        layout = f"{order}{_FORMATS[kind]}"
        (value,) = struct.unpack_from(layout, data, at)
        return bool(value) if kind == "b" else value, at + struct.calcsize(layout)
    if kind == "v":
        inner, at = _get(data, at, "g", order)
        return _get(data, at, inner, order)
    layout = "B" if kind == "g" else f"{order}I"
    (length,) = struct.unpack_from(layout, data, at)
    at += struct.calcsize(layout)
    return data[at : at + length].decode(), at + length + 1
