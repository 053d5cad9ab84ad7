"""A D-Bus connection: method calls, their answers, signals, and file descriptors that come with them.

    async with connect(address) as bus:
        answer = await bus.call("org.freedesktop.login1", "/org/freedesktop/login1", MANAGER, "Inhibit", "ssss", (...))
        signal = await bus.receive()

Messages and the authentication are jeepney's, which does no I/O there; its own connection for asyncio passes no descriptors on. One
task uses a connection at a time; what comes while a call waits for its answer is kept for `receive`.

Units   Seconds.
Errors  BusError (OSError): no bus, it refused, it left, or a message that cannot be read.
State   Messages that came meanwhile: at most KEPT, of which the oldest go first.
Source  D-Bus specification: unix sockets, authentication with descriptors.
"""

from __future__ import annotations

import array
import socket
import struct
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
from jeepney import DBusAddress, HeaderFields, Message, MessageType, Parser, new_method_call
from jeepney.auth import BEGIN, AuthenticationError, Authenticator
from jeepney.fds import FileDescriptor, fds_buf_size

__all__ = ["BUS", "Bus", "BusError", "connect", "field"]

BUS: Final = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
KEPT: Final = 64
CALL_S: Final = 10.0
READ_BYTES: Final = 65_536


class BusError(OSError):
    """The bus cannot be used, or says no."""


def field(message: Message, name: str) -> Any:
    """Return a field of a message's header ("member"); "" if it has none."""
    return message.header.fields.get(HeaderFields[name], "")


class Bus:
    """Made by `connect`."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._serial = 0
        self._parser = Parser()
        self._waiting: deque[Message] = deque()

    async def call(
        self, destination: str, path: str, interface: str, member: str, signature: str = "", body: Sequence[Any] = ()
    ) -> Message:
        """Call a method and return its answer. Raises BusError."""
        address = DBusAddress(path, destination, interface)
        serial = await self.send(new_method_call(address, member, signature or None, tuple(body)))
        try:
            with anyio.fail_after(CALL_S):
                while field(got := await self._next(), "reply_serial") != serial:
                    self._keep(got)
        except TimeoutError:
            raise BusError(f"{destination} does not answer {member}") from None
        if got.header.message_type is MessageType.error:
            raise BusError(f"{member}: {field(got, 'error_name')}: {got.body[0] if got.body else ''}")
        return got

    async def receive(self) -> Message:
        """Return the next message that is no answer of `call`. Raises BusError."""
        return self._waiting.popleft() if self._waiting else await self._next()

    async def send(self, message: Message) -> int:
        """Send a message, with the descriptors in its body, and return its serial number. Raises BusError."""
        self._serial += 1
        fds = array.array("i")
        await self._write(message.serialise(self._serial, fds=fds), fds)
        return self._serial

    def close(self) -> None:
        self._socket.close()
        for message in self._waiting:
            _drop(message.body)
        _drop(self._parser.fds)
        self._waiting.clear()

    def _keep(self, message: Message) -> None:
        self._waiting.append(message)
        if len(self._waiting) > KEPT:
            _drop(self._waiting.popleft().body)

    async def _next(self) -> Message:
        while True:
            try:
                if (message := self._parser.get_next_message()) is not None:
                    return message
            except (struct.error, ValueError, LookupError) as exc:
                raise BusError(f"a message of the bus cannot be read: {exc!r}") from exc
            self._parser.add_data(*await self._read())

    async def authenticate(self) -> None:
        """Say who we are, as the kernel knows already. Raises BusError."""
        asked = Authenticator(enable_fds=True)
        try:
            for line in asked:
                await self._write(line)
                asked.feed((await self._read())[0])
        except AuthenticationError as exc:
            raise BusError(f"the bus refuses: {exc}") from exc
        await self._write(BEGIN)
        await self.call(*BUS, "Hello")

    async def _write(self, data: bytes, fds: Sequence[int] = ()) -> None:
        sent = 0
        try:
            while sent < len(data):
                try:
                    sent += socket.send_fds(self._socket, [data[sent:]], [] if sent else list(fds))
                except BlockingIOError:
                    await anyio.wait_writable(self._socket)
        except OSError as exc:
            raise BusError(str(exc)) from exc

    async def _read(self) -> tuple[bytes, list[FileDescriptor]]:
        while True:
            await anyio.wait_readable(self._socket)
            try:
                # No program that is started meanwhile may inherit a lock of logind's.
                data, told, _, _ = self._socket.recvmsg(READ_BYTES, fds_buf_size(), socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                continue
            except OSError as exc:
                raise BusError(str(exc)) from exc
            if not data:
                raise BusError("the bus has closed the connection")
            return data, FileDescriptor.from_ancdata(told)


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


def _drop(values: Sequence[Any]) -> None:
    for one in values:
        if isinstance(one, FileDescriptor):
            one.close()
