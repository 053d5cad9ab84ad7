"""The programs that a supervisor keeps: start, output, signals, end, and what an earlier supervisor left. Standard library only.

A program prints into two FIFOs that it holds open itself, both ways: so it never meets a pipe without a reader, whatever becomes of
the supervisor. It gets the word to go on only when its process id is written down: so none runs that nobody knows of.

Errors  Refused, for an operation that cannot be done; OSError.
State   state.json of each container: pid, ticks, boot, started_ns, finished_ns, exit_code, reason, message.
Source  pidfd_open(2), prctl(2) PR_SET_CHILD_SUBREAPER, fifo(7).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    Answer: TypeAlias = Callable[[dict[str, Any]], None]
if TYPE_CHECKING or __package__:
    from edgesite.edge.edged.process import launch, procfs
    from edgesite.edge.edged.process.containerlog import ContainerLog
    from edgesite.edge.edged.process.feeder import Feeder
    from edgesite.edge.edged.process.pollloop import PollLoop
else:
    import launch
    import procfs
    from containerlog import ContainerLog
    from feeder import Feeder

__all__ = ["Container", "Programs", "Refused"]

READ_BYTES = 65536
LAST_READS = 32  #: Of what a FIFO still holds at the end: enough for the largest; a stray may go on printing for ever.
MAX_ERROR_BYTES = 2000
SWEEP_S = 0.05


class Refused(Exception):
    """``kind`` tells the caller what to make of it: "missing", "deadline" or "failed"."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Container:
    """A program that was started and whose end was not seen yet."""

    def __init__(self, directory: str, plan: dict[str, Any], state: dict[str, Any]) -> None:
        self.id = os.path.basename(directory)
        self.directory = directory
        self.plan = plan
        self.state = state
        self.log = ContainerLog(plan.get("log", ""))
        self.streams: dict[int, str] = {}  # fd -> "stdout" or "stderr"
        self.listeners: list[Callable[[str, bytes], None]] = []  #: of clients that are attached
        self.feeder: Feeder | None = None  #: of its standard input, if it has one
        self.pidfd = -1  # of one that an earlier supervisor started: not our child
        self.error_fd = -1
        self.error = b""
        self.answer_start: Answer | None = None  # until it runs
        self.answer_stops: list[Answer] = []

    @property
    def pid(self) -> int:
        return int(self.state["pid"])


class Programs:
    """``changed`` is called with each container whose state is new."""

    def __init__(self, directory: str, loop: PollLoop, changed: Callable[[Container], None]) -> None:
        self._places = os.path.join(directory, "containers")
        self._loop = loop
        self._changed = changed
        self._boot = procfs.read("/proc/sys/kernel/random/boot_id").strip()
        self.running: dict[str, Container] = {}
        self.others: set[int] = set()  #: our children that are no container's main process: commands run inside

    # -- starting

    def start(self, container_id: str, answer: Answer) -> None:
        """Start a program; ``answer`` is called once it runs, or cannot. Raises Refused, OSError."""
        directory = os.path.join(self._places, container_id)
        if container_id in self.running:
            raise Refused("failed", "the container runs already")
        plan = procfs.load(os.path.join(directory, "plan.json"))
        if plan is None:
            raise Refused("missing", f"container {container_id} not found")
        container = Container(directory, plan, {})
        container.answer_start = answer
        tty = bool(plan.get("tty"))
        ends = self._terminal(container) if tty else self._fifos(container)
        error_read, error_write = os.pipe()
        go_read, go_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(go_write)
            if os.read(go_read, 1) != b"g":
                os._exit(127)  # the supervisor died before it could write down that this process exists
            launch.become(plan, directory, ends[1], ends[2], error_write, ends[0], terminal=tty)
        for fd in {go_read, error_write, *ends} - {-1}:
            os.close(fd)
        container.state = {
            "pid": pid,
            "ticks": procfs.start_ticks(pid),
            "boot": self._boot,
            "started_ns": time.time_ns(),
            "finished_ns": 0,
            "exit_code": 0,
            "reason": "",
            "message": "",
        }
        self.running[container_id] = container
        self._write_state(container)
        os.write(go_write, b"g")
        os.close(go_write)
        container.error_fd = error_read
        self._loop.watch(error_read, lambda events: self._started(container))
        self._watch_streams(container)

    def _fifos(self, container: Container) -> tuple[int, int, int]:
        """Return the program's ends of stdin (-1: none), stdout and stderr."""
        stdin = -1
        if container.plan.get("stdin"):
            path = self._make_fifo(container, "stdin")
            stdin = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            container.feeder = Feeder(self._loop, os.open(path, os.O_WRONLY | os.O_NONBLOCK))
            os.set_blocking(stdin, True)
        return stdin, self._output(container, "stdout"), self._output(container, "stderr")

    def _terminal(self, container: Container) -> tuple[int, int, int]:
        """Return the program's end of a terminal, three times. It is hung up if this supervisor dies."""
        master, slave = os.openpty()
        if container.plan.get("uid") is not None and os.getuid() == 0:
            os.fchown(slave, container.plan["uid"], -1)
        container.streams[master] = "stdout"
        container.feeder = Feeder(self._loop, os.dup(master))
        return slave, slave, slave

    def _make_fifo(self, container: Container, name: str) -> str:
        path = os.path.join(container.directory, name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.mkfifo(path, 0o600)
        if container.plan.get("uid") is not None and os.getuid() == 0:
            os.chown(path, container.plan["uid"], -1)  # programs open /dev/stdout anew
        return path

    def _output(self, container: Container, name: str) -> int:
        """Make a FIFO for one stream, take its reading end, and return the program's end."""
        path = self._make_fifo(container, name)
        container.streams[os.open(path, os.O_RDONLY | os.O_NONBLOCK)] = name
        return os.open(path, os.O_RDWR)

    def _watch_streams(self, container: Container) -> None:
        for fd in container.streams:
            self._loop.watch(fd, lambda events, fd=fd: self._printed(container, fd))  # type: ignore[misc]

    def _started(self, container: Container) -> None:
        """The pipe for errors has something, or was closed by exec: then the program runs."""
        container.error = os.read(container.error_fd, MAX_ERROR_BYTES)
        self._loop.forget(container.error_fd)
        container.error_fd = -1
        if container.error:
            return  # answered when the child has ended
        self._changed(container)
        self._answer_start(container, {})

    def _answer_start(self, container: Container, message: dict[str, Any]) -> None:
        answer, container.answer_start = container.answer_start, None
        if answer is not None:
            answer(message)

    def _write_state(self, container: Container) -> None:
        # Should the disk be full, those who are connected still hear of it.
        with contextlib.suppress(OSError):
            procfs.store(os.path.join(container.directory, "state.json"), container.state)

    # -- running

    def _printed(self, container: Container, fd: int) -> bool:
        """Take what a program printed; False if there is nothing now."""
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:  # a terminal that nobody has open any more
            data = b""
        if data:
            stream = container.streams[fd]
            container.log.write(stream, data)
            for listener in tuple(container.listeners):
                listener(stream, data)
            return True
        del container.streams[fd]
        self._loop.forget(fd)
        return False

    def stop(self, container: Container, grace_s: float, answer: Answer) -> None:
        """Ask a program to end, and kill it after ``grace_s``; ``answer`` is called when it has ended."""
        container.answer_stops.append(answer)
        if grace_s <= 0:
            self._kill(container)
            return
        number = int(container.plan.get("stop_signal", signal.SIGTERM))
        with contextlib.suppress(ProcessLookupError):
            if container.pidfd >= 0:
                signal.pidfd_send_signal(container.pidfd, number)
            else:
                os.kill(container.pid, number)
        self._loop.after(grace_s, lambda: self._kill(container))

    def _kill(self, container: Container) -> None:
        """Kill the program with its whole process group."""
        if self.running.get(container.id) is not container:
            return
        if container.pidfd < 0 or procfs.start_ticks(container.pid) == container.state["ticks"]:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(container.pid, signal.SIGKILL)
            procfs.kill(container.pid)  # it may have no group of its own yet

    def kill_all(self) -> None:
        for container in list(self.running.values()):
            self._kill(container)

    # -- ends

    def reap(self, ended: Callable[[int, int], bool]) -> None:
        """Collect all children that have ended; ``ended(pid, code)`` says whether it knows one that is no container's."""
        while True:
            try:
                info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if info is None:
                return
            container = next((one for one in self.running.values() if one.pid == info.si_pid and one.pidfd < 0), None)
            if container is not None:  # not reaped yet: its process group cannot be anybody else's
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(info.si_pid, signal.SIGKILL)
            _, status = os.waitpid(info.si_pid, 0)
            code = os.waitstatus_to_exitcode(status)
            code = code if code >= 0 else 128 - code
            if container is not None:
                self._finish(container, code)
            elif not ended(info.si_pid, code):
                self._sweep()

    def _finish(self, container: Container, code: int, reason: str = "", message: str = "") -> None:
        self._kill_rest(container)
        if container.error_fd >= 0:
            container.error = os.read(container.error_fd, MAX_ERROR_BYTES)
            self._loop.forget(container.error_fd)
        for fd in list(container.streams):
            for _ in range(LAST_READS):
                if not self._printed(container, fd):
                    break
            if fd in container.streams:
                self._loop.forget(fd)
        container.log.close()
        if container.feeder is not None:
            container.feeder.close()
        if container.pidfd >= 0:
            self._loop.forget(container.pidfd)
        if container.error:
            code, reason, message = 128, "StartError", container.error.decode(errors="replace")
        elif code == 128 + signal.SIGKILL and procfs.oom_kills(container.plan.get("oom", "")):
            reason = "OOMKilled"
        container.state |= {"finished_ns": time.time_ns(), "exit_code": code, "reason": reason, "message": message}
        self._write_state(container)
        del self.running[container.id]
        self._changed(container)
        failed = {"error": message, "kind": "failed"}
        self._answer_start(container, failed if container.error else {})
        for answer in container.answer_stops:
            answer({})
        self._sweep()

    def _kill_rest(self, container: Container) -> None:
        """Kill what outlived the program: in its control groups, and of an adopted one whatever carries its mark."""
        for path in container.plan.get("cgroups", ()):
            for text in procfs.read(path).split():
                procfs.kill(int(text))
        if container.pidfd >= 0:
            for name in os.listdir("/proc"):
                if name.isdigit() and procfs.mark(name) == container.id:
                    procfs.kill(int(name))

    def _sweep(self) -> None:
        """Kill what outlived its container in a session of its own: it became our child, and carries the container's mark."""
        known = {one.pid for one in self.running.values()} | self.others
        strays = [pid for pid in procfs.children() if pid not in known]
        found = [pid for pid in strays if (of := procfs.mark(pid)) and of not in self.running]
        for pid in found:
            procfs.kill(pid)
        if found:
            self._loop.after(SWEEP_S, self._sweep)  # their own children become ours next

    # -- what an earlier supervisor left

    def adopt(self) -> None:
        """Take over the programs that still run, and note the end of those that do not."""
        for name in sorted(os.listdir(self._places) if os.path.isdir(self._places) else ()):
            directory = os.path.join(self._places, name)
            state, plan = (procfs.load(os.path.join(directory, one)) for one in ("state.json", "plan.json"))
            if state is None or plan is None or state.get("finished_ns"):
                continue
            container = self.running[name] = Container(directory, plan, state)
            pidfd = self._pidfd(container)
            if pidfd is None:
                self._lost(container)
                continue
            container.pidfd = pidfd
            self._loop.watch(pidfd, lambda events, one=container: self._lost(one))  # type: ignore[misc]
            for stream in ("stdout", "stderr"):
                with contextlib.suppress(OSError):
                    path = os.path.join(directory, stream)
                    container.streams[os.open(path, os.O_RDONLY | os.O_NONBLOCK)] = stream
            self._watch_streams(container)
            if plan.get("stdin") and not plan.get("tty"):
                with contextlib.suppress(OSError):  # without a reader there is nothing to feed
                    path = os.path.join(directory, "stdin")
                    container.feeder = Feeder(self._loop, os.open(path, os.O_WRONLY | os.O_NONBLOCK))

    def _pidfd(self, container: Container) -> int | None:
        """A handle on the program; None if it does not run any more."""
        if container.state["boot"] != self._boot:
            return None
        try:
            pidfd = os.pidfd_open(container.pid)
        except OSError:
            return None
        if procfs.start_ticks(container.pid) == container.state["ticks"]:  # looked at after: then the handle is on it
            return pidfd
        os.close(pidfd)
        return None

    def _lost(self, container: Container) -> None:
        """A program ended of which we are not the parent: nobody knows its exit code."""
        self._finish(container, 255, "Unknown", "the program ended while nothing watched it")
