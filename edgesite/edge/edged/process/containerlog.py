"""Log file of one container, in the format that kubelet reads: ``<RFC 3339 time> <stream> <P|F> <text>``. Standard library only.

Units   A line longer than `MAX_LINE_BYTES` is written in parts, all but the last marked P.
Errors  None: what cannot be written (a full disk) is dropped, so that the program goes on.
Source  Kubernetes, CRI container log format.
"""

from __future__ import annotations

import contextlib
import os
import time

__all__ = ["ContainerLog"]

MAX_LINE_BYTES = 16384  #: As containerd.


class ContainerLog:
    """``path`` empty keeps nothing."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        self._rest = {"stdout": b"", "stderr": b""}  # what has no line end yet
        self._open()

    def _open(self) -> None:
        if self._path:
            with contextlib.suppress(OSError):
                os.makedirs(os.path.dirname(self._path), mode=0o755, exist_ok=True)
                self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)

    def write(self, stream: str, data: bytes) -> None:
        *lines, rest = (self._rest[stream] + data).split(b"\n")
        now = _now()
        out = bytearray()
        for line in lines:
            while len(line) > MAX_LINE_BYTES:
                out += b"%b %b P %b\n" % (now, stream.encode(), line[:MAX_LINE_BYTES])
                line = line[MAX_LINE_BYTES:]
            out += b"%b %b F %b\n" % (now, stream.encode(), line)
        while len(rest) > MAX_LINE_BYTES:
            out += b"%b %b P %b\n" % (now, stream.encode(), rest[:MAX_LINE_BYTES])
            rest = rest[MAX_LINE_BYTES:]
        self._rest[stream] = rest
        self._put(out)

    def _put(self, data: bytes | bytearray) -> None:
        if self._fd >= 0 and data:
            with contextlib.suppress(OSError):
                view = memoryview(data)
                while view:
                    view = view[os.write(self._fd, view) :]

    def reopen(self) -> None:
        """Begin a new file at the same path: the old one was moved away."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._open()

    def close(self) -> None:
        """Write what has no line end and close."""
        for stream, rest in self._rest.items():
            if rest:
                self._put(b"%b %b F %b\n" % (_now(), stream.encode(), rest))
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _now() -> bytes:
    at = time.time_ns()
    return b"%b.%09dZ" % (time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at // 10**9)).encode(), at % 10**9)
