"""The process that keeps containers running while edgesite itself comes and goes. Standard library only.

One for each edge role, started by `edgesite.edge.edged.process.link` as ``python -I -S -E supervisor.py DIRECTORY``. It starts programs, reads
what they print into log files, waits for their end and writes that down. One for the whole node, not one for each pod: a bare interpreter
costs 4 MB that nothing shares. Its own death costs little: programs print into FIFOs that they hold open themselves, so they go on, and
the next supervisor finds them by process id and start time; only the exit code of a program that ends in between is lost.

It ends by itself when no program runs and nobody is connected.

    DIRECTORY/supervisor.sock                       JSON, a line each: {"n": 1, "op": ...} answered by {"n": 1, ...}; events have no "n"
    DIRECTORY/containers/ID/plan.json               what to start, written by edgesite: see `launch`; also "log", "stop_signal", "oom"
    DIRECTORY/containers/ID/state.json              pid, ticks, boot, started_ns, finished_ns, exit_code, reason, message: written here

Operations: hello, start (id), stop (id, grace_s), exec (id, argv, limit_s), reopen (id), states.

Errors  An operation that fails is answered by {"n": …, "error": text, "kind": "missing" | "deadline" | "failed"}.
State   state.json of each container, written before its program runs and when it has ended.
Source  Log format: Kubernetes' CRI logging (``time stream P|F text``); prctl(2), pidfd_open(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import json
import os
import select
import signal
import socket
import struct
import sys
import time

if __package__:  # within a frozen program
    from edgesite.edge.edged.process import launch
    from edgesite.edge.edged.process.containerlog import ContainerLog
else:
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # isolated mode leaves our own directory out
    import launch
    from containerlog import ContainerLog

VERSION = 1
FIRST_CLIENT_S = 15.0  #: Without anybody to serve for this long after its start, it ends.
SWEEP_S = 0.05
MAX_REQUEST_BYTES = 1 << 20
MAX_EXEC_BYTES = 4 << 20  #: of each stream of a command run inside; the rest is read and dropped
MAX_UNSENT_BYTES = 64 << 20
READ_BYTES = 65536
_PR_SET_CHILD_SUBREAPER = 36


class Refused(Exception):
    """An operation that cannot be done; ``kind`` tells the caller what to make of it."""

    def __init__(self, kind, text):
        super().__init__(text)
        self.kind = kind


class Client:
    """One connection."""

    def __init__(self, sock):
        self.sock = sock
        self.received = b""
        self.unsent = b""


class Container:
    """A program that was started and whose end was not seen yet."""

    def __init__(self, directory, plan, state):
        self.id = os.path.basename(directory)
        self.directory = directory
        self.plan = plan
        self.state = state
        self.log = ContainerLog(plan.get("log", ""))
        self.streams = {}  # fd -> "stdout" or "stderr"
        self.pidfd = -1  # of one that an earlier supervisor started
        self.error_fd = -1
        self.error = b""
        self.starter = None  # (client, number) until it runs
        self.stoppers = []  # [(client, number)]

    @property
    def pid(self):
        return self.state["pid"]


class Exec:
    """A command that runs inside a container."""

    def __init__(self, pid, client, number):
        self.pid = pid
        self.client = client
        self.number = number
        self.output = {"stdout": bytearray(), "stderr": bytearray(), "error": bytearray()}
        self.streams = {}
        self.late = False


class Supervisor:
    def __init__(self, directory):
        self.directory = directory
        self.epoll = select.epoll()
        self.handlers = {}  # fd -> function(events)
        self.timers = []
        self.sequence = 0
        self.clients = {}
        self.containers = {}
        self.execs = {}
        self.boot = _read("/proc/sys/kernel/random/boot_id").strip()
        self.mounting = launch.can_mount()
        self.until = time.monotonic() + FIRST_CLIENT_S

    # -- the loop

    def run(self):
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        wake_read, wake_write = socket.socketpair()
        wake_read.setblocking(False)
        wake_write.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(wake_write.fileno(), warn_on_full_buffer=False)
        self._watch(wake_read.fileno(), lambda events: self._woken(wake_read))
        listener = self._listen()
        self._watch(listener.fileno(), lambda events: self._accept(listener))
        self._adopt()
        while self._wanted():
            for fd, events in self.epoll.poll(self._wait_s()):
                if fd in self.handlers:  # a handler before may have closed it
                    self.handlers[fd](events)
            self._run_timers()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.directory, "supervisor.sock"))

    def _wanted(self):
        return bool(self.clients or self.containers or self.execs) or time.monotonic() < self.until

    def _wait_s(self):
        now = time.monotonic()
        wait_s = max(self.timers[0][0] - now, 0.0) if self.timers else -1
        if not self.clients and not self.containers and not self.execs:
            left_s = max(self.until - now, 0.0)
            return left_s if wait_s < 0 else min(wait_s, left_s)
        return wait_s

    def _watch(self, fd, handler, events=select.EPOLLIN):
        self.handlers[fd] = handler
        self.epoll.register(fd, events)

    def _unwatch(self, fd, close=True):
        if self.handlers.pop(fd, None) is not None:
            self.epoll.unregister(fd)
        if close:
            os.close(fd)

    def _after(self, seconds, action):
        self.sequence += 1
        heapq.heappush(self.timers, (time.monotonic() + seconds, self.sequence, action))

    def _run_timers(self):
        while self.timers and self.timers[0][0] <= time.monotonic():
            heapq.heappop(self.timers)[2]()

    # -- connections

    def _listen(self):
        os.chdir(self.directory)  # the path of a socket must be short; a relative one is
        with contextlib.suppress(FileNotFoundError):
            os.unlink("supervisor.sock")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        old = os.umask(0o177)
        listener.bind("supervisor.sock")
        os.umask(old)
        listener.listen(8)
        listener.setblocking(False)
        return listener

    def _accept(self, listener):
        with contextlib.suppress(BlockingIOError):
            sock, _ = listener.accept()
            _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if uid not in (os.getuid(), 0):
                sock.close()
                return
            sock.setblocking(False)
            client = self.clients[sock.fileno()] = Client(sock)
            self.until = 0.0
            self._watch(sock.fileno(), lambda events: self._serve(client, events))

    def _serve(self, client, events):
        if events & select.EPOLLOUT:
            self._flush(client)
        if not events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
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
            self._request(client, json.loads(line))

    def _drop(self, client):
        fd = client.sock.fileno()
        if self.clients.pop(fd, None) is not None:
            self._unwatch(fd, close=False)
            client.sock.close()

    def _send(self, client, message):
        if client.sock.fileno() in self.clients:
            client.unsent += json.dumps(message).encode() + b"\n"
            self._flush(client)

    def _flush(self, client):
        fd = client.sock.fileno()
        try:
            while client.unsent:
                client.unsent = client.unsent[client.sock.send(client.unsent) :]
        except BlockingIOError:
            if len(client.unsent) <= MAX_UNSENT_BYTES:
                self.epoll.modify(fd, select.EPOLLIN | select.EPOLLOUT)
            else:
                self._drop(client)
            return
        except OSError:
            self._drop(client)
            return
        self.epoll.modify(fd, select.EPOLLIN)

    def _tell(self, container):
        for client in list(self.clients.values()):
            self._send(client, {"event": "state", "id": container.id, "state": container.state})

    def _request(self, client, message):
        number = message.get("n")
        try:
            answer = getattr(self, "_op_" + message.get("op", ""))(client, number, message)
        except Refused as exc:
            answer = {"error": str(exc), "kind": exc.kind}
        except OSError as exc:
            answer = {"error": str(exc), "kind": "failed"}
        if answer is not None:
            self._send(client, {"n": number, **answer})

    # -- operations; None: the answer comes later

    def _op_hello(self, client, number, message):
        return {"version": VERSION, "mounting": self.mounting, "pid": os.getpid()}

    def _op_states(self, client, number, message):
        return {"states": {one.id: one.state for one in self.containers.values()}}

    def _op_start(self, client, number, message):
        directory = os.path.join(self.directory, "containers", message["id"])
        if message["id"] in self.containers:
            raise Refused("failed", "the container runs already")
        plan = _load(os.path.join(directory, "plan.json"))
        if plan is None:
            raise Refused("missing", f"container {message['id']} not found")
        container = Container(directory, plan, {})
        container.starter = (client, number)
        self._start(container)

    def _op_stop(self, client, number, message):
        container = self.containers.get(message["id"])
        if container is None:
            return {}
        container.stoppers.append((client, number))
        grace_s = message["grace_s"]
        if grace_s > 0:
            self._signal(container, container.plan.get("stop_signal", signal.SIGTERM))
            self._after(grace_s, lambda: self._kill(container))
        else:
            self._kill(container)
        return None

    def _op_exec(self, client, number, message):
        container = self.containers.get(message["id"])
        if container is None or container.starter is not None:
            raise Refused("missing", f"container {message['id']} is not running")
        self._exec(container, message["argv"], message["limit_s"], client, number)

    def _op_reopen(self, client, number, message):
        container = self.containers.get(message["id"])
        if container is not None:
            container.log.reopen()
        return {}

    # -- starting

    def _start(self, container):
        ends = {}
        for name in ("stdout", "stderr"):
            path = os.path.join(container.directory, name)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            os.mkfifo(path, 0o600)
            if container.plan.get("uid") is not None and os.getuid() == 0:
                os.chown(path, container.plan["uid"], -1)  # programs open /dev/stdout anew
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            # Both ends: whoever prints into it never meets a pipe without a reader.
            ends[name] = os.open(path, os.O_RDWR)
            container.streams[fd] = name
        error_read, error_write = os.pipe()
        go_read, go_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(go_write)
            if os.read(go_read, 1) != b"g":
                os._exit(127)  # the supervisor died before it could write down that this process exists
            launch.become(container.plan, container.directory, ends["stdout"], ends["stderr"], error_write)
        for fd in (go_read, error_write, *ends.values()):
            os.close(fd)
        container.state = {
            "pid": pid,
            "ticks": _ticks(pid),
            "boot": self.boot,
            "started_ns": time.time_ns(),
            "finished_ns": 0,
            "exit_code": 0,
            "reason": "",
            "message": "",
        }
        self.containers[container.id] = container
        self._write_state(container)
        os.write(go_write, b"g")
        os.close(go_write)
        container.error_fd = error_read
        os.set_blocking(error_read, False)
        self._watch(error_read, lambda events: self._started(container))
        self._watch_streams(container)

    def _watch_streams(self, container):
        for fd in container.streams:
            self._watch(fd, lambda events, fd=fd: self._printed(container, fd))

    def _started(self, container):
        """The pipe for errors has something, or is closed by exec: the program runs."""
        text = os.read(container.error_fd, 2000)
        self._unwatch(container.error_fd)
        container.error_fd = -1
        if text:
            container.error = text
            return  # answered when the child has ended
        self._answer_start(container, {"state": container.state})
        self._tell(container)

    def _answer_start(self, container, answer):
        starter, container.starter = container.starter, None
        if starter is not None:
            client, number = starter
            self._send(client, {"n": number, **answer})

    def _write_state(self, container):
        _store(os.path.join(container.directory, "state.json"), container.state)

    # -- running

    def _printed(self, container, fd):
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return
        if data:
            container.log.write(container.streams[fd], data)
        else:
            del container.streams[fd]
            self._unwatch(fd)

    def _signal(self, container, number):
        if container.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(container.pidfd, number)
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(container.pid, number)

    def _kill(self, container):
        if self.containers.get(container.id) is not container:
            return
        self._kill_group(container)
        self._signal(container, signal.SIGKILL)  # it may have no group of its own yet

    def _kill_group(self, container):
        """Kill the program with its whole process group."""
        if container.pidfd < 0 or _ticks(container.pid) == container.state["ticks"]:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(container.pid, signal.SIGKILL)

    def _kill_rest(self, container):
        """Kill what outlived the program: in its control groups, and of an adopted one whatever carries its mark."""
        for path in container.plan.get("cgroups", ()):
            for text in _read(path).split():
                _end(int(text))
        if container.pidfd >= 0:
            for name in os.listdir("/proc"):
                if name.isdigit() and _mark(name) == container.id:
                    _end(int(name))

    # -- ends

    def _woken(self, wake):
        with contextlib.suppress(BlockingIOError):
            wake.recv(4096)
        while True:
            try:
                info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if info is None:
                return
            # Not reaped yet, so that its process group cannot be anybody else's.
            if any(one.state["pid"] == info.si_pid and one.pidfd < 0 for one in self.containers.values()):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(info.si_pid, signal.SIGKILL)
            _, status = os.waitpid(info.si_pid, 0)
            code = os.waitstatus_to_exitcode(status)
            self._ended(info.si_pid, code if code >= 0 else 128 - code)

    def _ended(self, pid, code):
        if (run := self.execs.pop(pid, None)) is not None:
            self._exec_ended(run, code)
            return
        for container in self.containers.values():
            if container.state["pid"] == pid and container.pidfd < 0:
                self._finish(container, code)
                return
        self._sweep()

    def _finish(self, container, code, reason="", message=""):
        self._kill_rest(container)
        if container.error_fd >= 0:
            container.error = os.read(container.error_fd, 2000)
            self._unwatch(container.error_fd)
        for fd in list(container.streams):
            while fd in container.streams and select.select([fd], [], [], 0)[0]:
                self._printed(container, fd)
        for fd in list(container.streams):
            self._unwatch(fd)
        container.log.close()
        if container.pidfd >= 0:
            self._unwatch(container.pidfd)
        if container.error:
            code, reason, message = 128, "StartError", container.error.decode(errors="replace")
        elif code == 128 + signal.SIGKILL and _oom_kills(container.plan.get("oom", "")):
            reason = "OOMKilled"
        container.state |= {"finished_ns": time.time_ns(), "exit_code": code, "reason": reason, "message": message}
        self._write_state(container)
        del self.containers[container.id]
        if container.error:
            self._answer_start(container, {"error": message, "kind": "failed"})
        else:
            self._answer_start(container, {"state": container.state})
        for client, number in container.stoppers:
            self._send(client, {"n": number})
        self._tell(container)
        self._sweep()

    def _sweep(self):
        """Kill what outlived its container in a session of its own: it became our child, and carries the container's mark."""
        left = False
        for pid in _children():
            if pid in self.execs or any(one.state["pid"] == pid for one in self.containers.values()):
                continue
            mark = _mark(pid)
            if mark and mark not in self.containers:
                left = True
                _end(pid)
        if left:
            self._after(SWEEP_S, self._sweep)  # its own children become ours next

    # -- commands inside

    def _exec(self, container, argv, limit_s, client, number):
        pipes = {name: os.pipe() for name in ("stdout", "stderr", "error")}
        pid = os.fork()
        if pid == 0:
            writes = [pipes[name][1] for name in ("stdout", "stderr", "error")]
            launch.join(container.plan, container.pid, argv, *writes)
        run = self.execs[pid] = Exec(pid, client, number)
        for name, (read, write) in pipes.items():
            os.close(write)
            os.set_blocking(read, False)
            run.streams[read] = name
            self._watch(read, lambda events, read=read: self._exec_printed(run, read))
        self._after(limit_s, lambda: self._exec_late(run))

    def _exec_printed(self, run, fd):
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return
        if data:
            kept = run.output[run.streams[fd]]
            kept += data[: MAX_EXEC_BYTES - len(kept)]
        else:
            del run.streams[fd]
            self._unwatch(fd)

    def _exec_late(self, run):
        if run.pid in self.execs:
            run.late = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)
            _end(run.pid)  # it may have no group of its own yet

    def _exec_ended(self, run, code):
        for fd in list(run.streams):
            while fd in run.streams and select.select([fd], [], [], 0)[0]:
                self._exec_printed(run, fd)
        for fd in list(run.streams):
            self._unwatch(fd)
        if run.late:
            answer = {"error": "the command took too long", "kind": "deadline"}
        elif run.output["error"]:
            answer = {"error": run.output["error"].decode(errors="replace"), "kind": "failed"}
        else:
            texts = {name: run.output[name].decode("latin-1") for name in ("stdout", "stderr")}
            answer = {**texts, "exit_code": code}
        self._send(run.client, {"n": run.number, **answer})

    # -- what an earlier supervisor left

    def _adopt(self):
        places = os.path.join(self.directory, "containers")
        for name in sorted(os.listdir(places) if os.path.isdir(places) else ()):
            directory = os.path.join(places, name)
            state, plan = (_load(os.path.join(directory, one)) for one in ("state.json", "plan.json"))
            if state is None or plan is None or state["finished_ns"]:
                continue
            container = Container(directory, plan, state)
            self.containers[name] = container
            if state["boot"] != self.boot or _ticks(state["pid"]) != state["ticks"]:
                self._lost(container)
                continue
            container.pidfd = os.pidfd_open(state["pid"])
            self._watch(container.pidfd, lambda events, one=container: self._lost(one))
            for stream in ("stdout", "stderr"):
                with contextlib.suppress(OSError):
                    fd = os.open(os.path.join(directory, stream), os.O_RDONLY | os.O_NONBLOCK)
                    container.streams[fd] = stream
            self._watch_streams(container)

    def _lost(self, container):
        """A program ended of which we are not the parent: nobody knows its exit code."""
        self._finish(container, 255, "Unknown", "the program ended while nothing watched it")


def _end(pid):
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _read(path):
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _load(path):
    try:
        with open(path, "rb") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def _store(path, value):
    """Replace a file as a whole: a reader, or a crash, never meets half of it."""
    with open(path + ".new", "w") as file:
        json.dump(value, file)
    os.replace(path + ".new", path)


def _ticks(pid):
    """When a process started, in clock ticks since boot: with its id, what tells it from every other. 0: gone or a zombie."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 and fields[0] not in "ZX" else 0


def _children():
    return [int(one) for one in _read(f"/proc/self/task/{os.getpid()}/children").split()]


def _mark(pid):
    for one in _read(f"/proc/{pid}/environ").split("\0"):
        name, _, value = one.partition("=")
        if name == "EDGESITE_CONTAINER":
            return value
    return ""


def _oom_kills(path):
    """How many processes of a control group were killed for want of memory."""
    for line in _read(path).splitlines():
        name, _, value = line.partition(" ")
        if name == "oom_kill":
            return int(value)
    return 0


def main(directory):
    """Serve ``directory`` until nobody needs it; return at once where another supervisor does."""
    if os.fork():
        os._exit(0)  # whoever started us waits for this process only
    lock = os.open(os.path.join(directory, "supervisor.lock"), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("-999")
    Supervisor(directory).run()


if __name__ == "__main__":
    main(sys.argv[1])
