"""The process that keeps containers running while edgesite itself comes and goes. Standard library only.

One for each edge role, started by `edgesite.edge.edged.process.link` as ``python -I -S -E supervisor.py DIRECTORY``. It starts programs,
writes what they print into log files, waits for their end and writes that down. One for the whole node, not one for each pod: a bare
interpreter costs 4 MB that nothing shares. Its own death costs little: programs go on, and the next supervisor finds them by process id and
start time; only the exit code of a program that ends in between is lost.

It ends by itself when no program runs and nobody is connected, and with all its programs when its directory was removed.

    DIRECTORY/supervisor.sock                  JSON, a line each: {"n": 1, "op": ...} answered by {"n": 1, ...}; events have no "n"
    DIRECTORY/containers/ID/plan.json          what to start, written by edgesite: see `launch`; also "log", "stop_signal", "oom"
    DIRECTORY/containers/ID/state.json         see `programs`

Operations: hello, states, start (id), stop (id, grace_s), exec (id, argv, limit_s), reopen (id), stream (id, argv, tty, stdin,
stdout, stderr; without argv it attaches): the connection then carries the frames of `sessions`.

Errors  An operation that fails is answered by {"n": …, "error": text, "kind": "missing" | "deadline" | "failed"}.
State   In the files.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any
if TYPE_CHECKING or __package__:
    from edgesite.edge.edged.process import launch
    from edgesite.edge.edged.process.execs import Execs
    from edgesite.edge.edged.process.pollloop import PollLoop
    from edgesite.edge.edged.process.programs import Container, Programs, Refused
    from edgesite.edge.edged.process.sessions import Sessions
else:
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # isolated mode leaves our own directory out
    import launch
    from execs import Execs
    from pollloop import PollLoop
    from programs import Programs, Refused
    from sessions import Sessions

__all__ = ["main"]

VERSION = 1
LOOK_S = 60.0  #: How often it looks whether its directory is still there.
FIRST_CLIENT_S = 15.0  #: Without anybody to serve for this long after its start, it ends.
MAX_REQUEST_BYTES = 1 << 20
MAX_UNSENT_BYTES = 64 << 20
READ_BYTES = 65536
SOCKET = "supervisor.sock"
_PR_SET_CHILD_SUBREAPER = 36


class Client:
    """One connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = b""
        self.unsent = b""


class Supervisor:
    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._loop = PollLoop()
        self._programs = Programs(directory, self._loop, self._tell)
        self._execs = Execs(self._loop, self._programs.others)
        self._sessions = Sessions(self._loop, self._programs.others)
        self._clients: dict[int, Client] = {}
        self._mounting = launch.can_mount()
        self._until = time.monotonic() + FIRST_CLIENT_S

    def run(self) -> None:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        wake_read, wake_write = socket.socketpair()
        for one in (wake_read, wake_write):
            one.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(wake_write.fileno(), warn_on_full_buffer=False)
        self._loop.watch(wake_read.fileno(), lambda events: self._woken(wake_read))
        self._programs.adopt()
        listener = self._listen()
        self._loop.watch(listener.fileno(), lambda events: self._accept(listener))
        while True:
            busy = self._clients or self._programs.running or self._execs or self._sessions
            left_s = LOOK_S if busy else self._until - time.monotonic()
            if left_s <= 0 or self._directory_is_gone():
                break
            self._loop.turn(left_s)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(SOCKET)

    def _directory_is_gone(self) -> bool:
        """Whether the node's files were removed: then nobody will ever ask for these programs again, and they end."""
        if os.stat(".").st_nlink > 0:
            return False
        self._programs.kill_all()
        return True

    def _woken(self, wake: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            wake.recv(4096)
        self._programs.reap(lambda pid, code: self._execs.ended(pid, code) or self._sessions.ended(pid, code))

    # -- connections

    def _listen(self) -> socket.socket:
        os.chdir(self._directory)  # the path of a socket must be short; a relative one is
        with contextlib.suppress(FileNotFoundError):
            os.unlink(SOCKET)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        old = os.umask(0o177)
        listener.bind(SOCKET)
        os.umask(old)
        listener.listen(8)
        listener.setblocking(False)
        return listener

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            sock, _ = listener.accept()
            _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if uid not in (os.getuid(), 0):
                sock.close()
                return
            sock.setblocking(False)
            client = self._clients[sock.fileno()] = Client(sock)
            self._until = 0.0
            self._loop.watch(sock.fileno(), lambda events: self._serve(client, events))

    def _serve(self, client: Client, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush(client)
        if client.sock.fileno() not in self._clients or not events & ~select.EPOLLOUT:
            return
        try:
            data = client.sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        client.received += data
        if not data or len(client.received) > MAX_REQUEST_BYTES:
            self._drop(client)
            return
        *lines, client.received = client.received.split(b"\n")
        for line in lines:
            if client.sock.fileno() not in self._clients:
                return  # it has gone, or was given over to streams
            try:
                message = json.loads(line)
            except ValueError:
                self._drop(client)
                return
            self._request(client, message)

    def _drop(self, client: Client) -> None:
        fd = client.sock.fileno()
        if self._clients.pop(fd, None) is not None:
            self._loop.forget(fd, close=False)
            client.sock.close()

    def _send(self, client: Client, message: dict[str, Any]) -> None:
        if client.sock.fileno() in self._clients:
            client.unsent += json.dumps(message).encode() + b"\n"
            self._flush(client)

    def _flush(self, client: Client) -> None:
        try:
            while client.unsent:
                client.unsent = client.unsent[client.sock.send(client.unsent) :]
        except BlockingIOError:
            if len(client.unsent) > MAX_UNSENT_BYTES:
                self._drop(client)
        except OSError:
            self._drop(client)
        self._loop.want_write(client.sock.fileno(), bool(client.unsent))

    def _tell(self, container: Container) -> None:
        for client in list(self._clients.values()):
            self._send(client, {"event": "state", "id": container.id, "state": container.state})
        if container.state["finished_ns"]:
            self._sessions.container_ended(container.id)

    # -- operations; None: the answer comes later

    def _request(self, client: Client, message: dict[str, Any]) -> None:
        number = message.get("n")

        def answer(body: dict[str, Any]) -> None:
            self._send(client, {"n": number, **body})

        try:
            body = self._operate(client, message, answer)
        except Refused as exc:
            body = {"error": str(exc), "kind": exc.kind}
        except (OSError, KeyError) as exc:
            body = {"error": str(exc), "kind": "failed"}
        if body is not None:
            answer(body)

    def _operate(self, client: Client, message: dict[str, Any], answer: Any) -> dict[str, Any] | None:
        op = message.get("op")
        if op == "hello":
            return {"version": VERSION, "mounting": self._mounting, "pid": os.getpid()}
        if op == "states":
            return {"states": {one.id: one.state for one in self._programs.running.values()}}
        container = self._programs.running.get(message["id"])
        if op == "start":
            self._programs.start(message["id"], answer)
            return None
        if op == "stop":
            if container is None:
                return {}
            self._programs.stop(container, message["grace_s"], answer)
            return None
        if op == "exec":
            if container is None or container.answer_start is not None:
                raise Refused("missing", f"container {message['id']} is not running")
            self._execs.start(container, message["argv"], message["limit_s"], answer)
            return None
        if op == "stream":
            if container is None or container.answer_start is not None:
                raise Refused("missing", f"container {message['id']} is not running")
            self._stream(client, container, message)
            return None
        if op == "reopen":
            if container is not None:
                container.log.reopen()
            return {}
        raise Refused("failed", f"there is no operation {op}")

    def _stream(self, client: Client, container: Container, message: dict[str, Any]) -> None:
        """Give a connection over to streams; its client waits for the answer before it sends any."""
        self._send(client, {"n": message.get("n")})
        fd = client.sock.fileno()
        if client.unsent or self._clients.pop(fd, None) is None:
            self._drop(client)
            return
        self._loop.forget(fd, close=False)
        serve = self._sessions.run if message.get("argv") else self._sessions.attach
        try:
            serve(container, message, client.sock, client.received)
        except OSError:
            client.sock.close()


def main(directory: str) -> None:
    """Serve ``directory`` until nobody needs it; end at once where another supervisor does."""
    if os.fork():
        os._exit(0)  # whoever started us waits for this process only
    lock = os.open(os.path.join(directory, "supervisor.lock"), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("-999")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # three for each container
    Supervisor(directory).run()


if __name__ == "__main__":
    main(sys.argv[1])
