"""Commands that a supervisor runs inside containers, each to its end or its deadline. Standard library only.

Units   Seconds, bytes.
Errors  Refused through the answer: "deadline", or "failed" with why the command could not be run.
"""

from __future__ import annotations

import contextlib
import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from edgesite.edge.edged.process.pollloop import PollLoop
    from edgesite.edge.edged.process.programs import Answer, Container
if TYPE_CHECKING or __package__:
    from edgesite.edge.edged.process import launch, procfs
else:
    import launch
    import procfs

__all__ = ["Execs"]

MAX_BYTES = 4 << 20  #: of each stream; the rest is read and dropped
READ_BYTES = 65536
LAST_READS = 32  #: Of what a pipe still holds at the end; a process left behind may go on printing for ever.


class Exec:
    def __init__(self, pid: int, answer: Answer) -> None:
        self.pid = pid
        self.answer = answer
        self.output = {"stdout": bytearray(), "stderr": bytearray(), "error": bytearray()}
        self.streams: dict[int, str] = {}
        self.late = False


class Execs:
    """``others`` is kept up to date with the process ids of what runs."""

    def __init__(self, loop: PollLoop, others: set[int]) -> None:
        self._loop = loop
        self._others = others
        self._running: dict[int, Exec] = {}

    def __bool__(self) -> bool:
        return bool(self._running)

    def start(self, container: Container, argv: list[str], limit_s: float, answer: Answer) -> None:
        """Run ``argv`` inside; ``answer`` is called when it has ended. Raises OSError."""
        pipes = {name: os.pipe() for name in ("stdout", "stderr", "error")}
        pid = os.fork()
        if pid == 0:
            out, err, error = (pipes[name][1] for name in ("stdout", "stderr", "error"))
            launch.join(container.plan, container.pid, argv, out, err, error)
        run = self._running[pid] = Exec(pid, answer)
        self._others.add(pid)
        for name, (read, write) in pipes.items():
            os.close(write)
            os.set_blocking(read, False)
            run.streams[read] = name
            self._loop.watch(read, lambda events, read=read: self._printed(run, read))  # type: ignore[misc]
        self._loop.after(limit_s, lambda: self._expire(run))

    def _printed(self, run: Exec, fd: int) -> bool:
        """Take what a command printed; False if there is nothing now."""
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return False
        if data:
            kept = run.output[run.streams[fd]]
            kept += data[: MAX_BYTES - len(kept)]
            return True
        del run.streams[fd]
        self._loop.forget(fd)
        return False

    def _expire(self, run: Exec) -> None:
        if run.pid in self._running:
            run.late = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)
            procfs.kill(run.pid)  # it may have no group of its own yet

    def ended(self, pid: int, code: int) -> bool:
        """Note the end of a child; False if it is none of ours."""
        run = self._running.pop(pid, None)
        if run is None:
            return False
        self._others.discard(pid)
        for fd in list(run.streams):
            for _ in range(LAST_READS):
                if not self._printed(run, fd):
                    break
            if fd in run.streams:
                self._loop.forget(fd)
        if run.late:
            run.answer({"error": "the command took too long", "kind": "deadline"})
        elif run.output["error"]:
            run.answer({"error": run.output["error"].decode(errors="replace"), "kind": "failed"})
        else:
            out, err = (run.output[name].decode("latin-1") for name in ("stdout", "stderr"))
            run.answer({"stdout": out, "stderr": err, "exit_code": code})
        return True
