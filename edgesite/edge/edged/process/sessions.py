"""Streams between clients of the supervisor and programs: commands with a terminal or pipes, and attachments. Standard library only.

After the answer to an operation ``stream`` the connection carries frames: a byte that names the channel, four bytes of length (big-endian),
data.

    to us     0 stdin (empty: its end)    4 resize (rows and columns, 16 bits each)
    from us   1 stdout    2 stderr    3 the end: JSON {"exit_code": n} or {"error": text}; nothing follows

Units   Bytes.
Errors  A client that breaks the rules, or leaves, loses its streams: a command then finds its terminal hung up, or its pipes closed.
Bounds  `HIGH_BYTES` wait for a client before its command is no longer read from; an attached client that is `BEHIND_BYTES` behind is cut
        off instead, as the container must go on.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import struct
import termios

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from edgesite.edge.edged.process.pollloop import PollLoop
    from edgesite.edge.edged.process.programs import Container
if TYPE_CHECKING or __package__:
    from edgesite.edge.edged.process import launch, procfs
    from edgesite.edge.edged.process.feeder import Feeder
else:
    import launch
    import procfs
    from feeder import Feeder

__all__ = ["Sessions"]

HIGH_BYTES = 256 << 10
BEHIND_BYTES = 4 << 20
READ_BYTES = 65536
FRAME_BYTES = 1 << 20  #: of one frame of a client
LAST_READS = 32  #: Of what is still there at the end; a process left behind may go on printing for ever.
MAX_ERROR_BYTES = 2000
STDIN, STDOUT, STDERR, END, RESIZE = range(5)
_CHANNELS = {"stdout": STDOUT, "stderr": STDERR}


class Session:
    """The frames of one client. Its owner sets the callbacks."""

    def __init__(self, loop: PollLoop, sock: socket.socket, received: bytes) -> None:
        self._loop = loop
        self._sock = sock
        self._received = bytearray(received)
        self._unsent = bytearray()
        self._held = False
        self._ending = False
        self.over = False
        self.on_input: Callable[[bytes], None] = lambda data: None  # b"": the end
        self.on_resize: Callable[[int, int], None] = lambda rows, columns: None
        self.on_room: Callable[[], None] = lambda: None
        self.on_gone: Callable[[], None] = lambda: None

    def begin(self) -> None:
        """Serve the client."""
        self._loop.watch(self._sock.fileno(), self._served)
        self._parse()

    @property
    def waiting(self) -> int:
        """How much the client has not taken yet."""
        return len(self._unsent)

    def send(self, channel: int, data: bytes) -> None:
        if not self.over and not self._ending:
            self._unsent += struct.pack(">BI", channel, len(data)) + data
            self._flush()

    def finish(self, message: dict[str, Any]) -> None:
        """Tell the end; the connection is closed once the client has taken it."""
        self.send(END, json.dumps(message).encode())
        self._ending = True
        self._flush()

    def hold(self, held: bool) -> None:
        """Take no input for now, or take it again."""
        self._held = held
        if not held:
            self._parse()
        self._adjust()

    def drop(self) -> None:
        """Leave the client."""
        if not self.over:
            self.over = True
            self._loop.forget(self._sock.fileno(), close=False)
            self._sock.close()
            self.on_gone()

    def _served(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush()
        if self.over or not events & ~select.EPOLLOUT:
            return
        try:
            data = self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.drop()
            return
        self._received += data
        self._parse()
        self._adjust()

    def _parse(self) -> None:
        while not self.over and not self._held and len(self._received) >= 5:
            channel, length = struct.unpack_from(">BI", self._received)
            if length > FRAME_BYTES:
                self.drop()
                return
            if len(self._received) < 5 + length:
                return
            data = bytes(self._received[5 : 5 + length])
            del self._received[: 5 + length]
            if channel == STDIN:
                self.on_input(data)
            elif channel == RESIZE and length == 4:
                self.on_resize(*struct.unpack(">HH", data))

    def _flush(self) -> None:
        if self.over:
            return
        before = len(self._unsent)
        try:
            while self._unsent:
                with memoryview(self._unsent) as view:
                    sent = self._sock.send(view[: READ_BYTES * 4])
                del self._unsent[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self.drop()
            return
        if self._ending and not self._unsent:
            self.drop()
            return
        self._adjust()
        if before > HIGH_BYTES >= len(self._unsent):
            self.on_room()

    def _adjust(self) -> None:
        if not self.over:
            wanted = (0 if self._held else select.EPOLLIN) | (select.EPOLLOUT if self._unsent else 0)
            self._loop.want(self._sock.fileno(), wanted)


class Command:
    """A command with streams, run inside a container."""

    def __init__(self, loop: PollLoop, session: Session, container_id: str, pid: int) -> None:
        self._loop = loop
        self._session = session
        self.container_id = container_id
        self.pid = pid
        self.outputs: dict[int, int] = {}  # fd -> channel
        self.feeder: Feeder | None = None
        self.error_fd = -1
        session.on_room = lambda: self._read_outputs(True)
        session.on_gone = self._hang_up

    def watch(self, fd: int, channel: int) -> None:
        """Send what comes from ``fd``."""
        os.set_blocking(fd, False)
        self.outputs[fd] = channel
        self._loop.watch(fd, lambda events: self._printed(fd))

    def _printed(self, fd: int) -> bool:
        """Take what the command printed; False if there is nothing now."""
        if fd not in self.outputs:
            return False
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:  # a terminal that nobody has open any more
            data = b""
        if not data:
            del self.outputs[fd]
            self._loop.forget(fd)
            return False
        self._session.send(self.outputs[fd], data)
        if self._session.waiting > HIGH_BYTES:
            self._read_outputs(False)
        return True

    def _read_outputs(self, wanted: bool) -> None:
        for fd in self.outputs:
            self._loop.want(fd, select.EPOLLIN if wanted else 0)

    def _hang_up(self) -> None:
        """The client has left: the command's streams end, as those of a terminal that is closed."""
        for fd in list(self.outputs):
            self._loop.forget(fd)
        self.outputs.clear()
        if self.feeder is not None:
            self.feeder.close()

    def ended(self, code: int) -> None:
        """The command has ended."""
        error = os.read(self.error_fd, MAX_ERROR_BYTES)
        os.close(self.error_fd)
        for fd in list(self.outputs):
            for _ in range(LAST_READS):
                if not self._printed(fd):
                    break
        self._session.finish({"error": error.decode(errors="replace")} if error else {"exit_code": code})
        self._hang_up()


class Sessions:
    """``others`` is kept up to date with the process ids of what runs."""

    def __init__(self, loop: PollLoop, others: set[int]) -> None:
        self._loop = loop
        self._others = others
        self._commands: dict[int, Command] = {}
        self._attached: dict[Session, Container] = {}

    def __bool__(self) -> bool:
        return bool(self._commands or self._attached)

    def run(self, container: Container, wish: dict[str, Any], sock: socket.socket, received: bytes) -> None:
        """Run ``wish["argv"]`` inside, its streams on ``sock``. Raises OSError."""
        session = Session(self._loop, sock, received)
        tty = bool(wish.get("tty"))
        error_read, error_write = os.pipe()
        theirs, ours = _terminal(container) if tty else _pipes(bool(wish.get("stdin")))
        pid = os.fork()
        if pid == 0:
            plan = {**container.plan, "env": {"TERM": "xterm", **container.plan["env"]}} if tty else container.plan
            launch.join(plan, container.pid, wish["argv"], theirs[1], theirs[2], error_write, theirs[0], terminal=tty)
        for fd in {*theirs, error_write} - {-1}:
            os.close(fd)
        command = self._commands[pid] = Command(self._loop, session, container.id, pid)
        command.error_fd = error_read
        self._others.add(pid)
        stdin, *outputs = ours
        for fd, channel in zip(outputs, (STDOUT, STDERR), strict=False):
            command.watch(fd, channel)
        if stdin >= 0:
            feeder = command.feeder = Feeder(self._loop, stdin, lambda: session.hold(False))
            session.on_input = lambda data: _feed(session, feeder, data, ends=not tty)
        if tty:
            session.on_resize = lambda rows, columns: _resize(command.feeder, rows, columns)
        session.begin()

    def attach(self, container: Container, wish: dict[str, Any], sock: socket.socket, received: bytes) -> None:
        """Give a client what the container prints from now on, and the container what the client sends."""
        session = Session(self._loop, sock, received)
        wanted = {name for name in _CHANNELS if wish.get(name)}

        def heard(stream: str, data: bytes) -> None:
            if stream in wanted:
                session.send(_CHANNELS[stream], data)
                if session.waiting > BEHIND_BYTES:
                    session.drop()

        def gone() -> None:
            self._attached.pop(session, None)
            container.listeners.remove(heard)
            if wish.get("stdin") and container.plan.get("stdin_once") and container.feeder is not None:
                container.feeder.end()

        session.on_gone = gone
        container.listeners.append(heard)
        self._attached[session] = container
        feeder = container.feeder
        if wish.get("stdin") and feeder is not None:
            once = bool(container.plan.get("stdin_once")) and not container.plan.get("tty")
            feeder.on_room = lambda: session.hold(False)
            session.on_input = lambda data: _feed(session, feeder, data, ends=once)
        if container.plan.get("tty") and feeder is not None:
            session.on_resize = lambda rows, columns: _resize(feeder, rows, columns)
        session.begin()

    def ended(self, pid: int, code: int) -> bool:
        """Note the end of a child; False if it is none of ours."""
        command = self._commands.pop(pid, None)
        if command is None:
            return False
        self._others.discard(pid)
        command.ended(code)
        return True

    def container_ended(self, container_id: str) -> None:
        """End what is left of a container's streams."""
        for session, container in list(self._attached.items()):
            if container.id == container_id:
                session.finish({"exit_code": 0})
        for command in list(self._commands.values()):
            if command.container_id == container_id:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(command.pid, signal.SIGKILL)
                procfs.kill(command.pid)  # it may have no group of its own yet


def _feed(session: Session, feeder: Feeder, data: bytes, *, ends: bool) -> None:
    if data:
        feeder.write(data)
        if feeder.waiting > HIGH_BYTES:
            session.hold(True)
    elif ends:
        feeder.end()


def _pipes(stdin: bool) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Return the program's ends and ours, of stdin, stdout, stderr; -1 for none."""
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    in_read, in_write = os.pipe() if stdin else (-1, -1)
    return (in_read, out_write, err_write), (in_write, out_read, err_read)


def _terminal(container: Container) -> tuple[tuple[int, int, int], tuple[int, int]]:
    """Return the program's ends, which are one terminal, and ours: to write to and to read from."""
    master, slave = os.openpty()
    uid = container.plan.get("uid")
    if uid is not None and os.getuid() == 0:
        os.fchown(slave, uid, -1)
    return (slave, slave, slave), (os.dup(master), master)


def _resize(feeder: Feeder | None, rows: int, columns: int) -> None:
    """Change the size of a terminal; its foreground program is told by a signal."""
    if feeder is not None and not feeder.closed:
        with contextlib.suppress(OSError):
            fcntl.ioctl(feeder.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
