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
        whole, end, rest = (self._rest[stream] + data).rpartition(b"\n")
        now = _now()
        full, part = (b"%b %b %b " % (now, stream.encode(), tag) for tag in (b"F", b"P"))
        out = bytearray()
        if end and _has_short_lines(whole):
            out += full + whole.replace(b"\n", b"\n" + full) + b"\n"
        elif end:
            for line in whole.split(b"\n"):
                out += _parts(line, part)
                out += full + line[-_last(line) :] + b"\n" if line else full + b"\n"
        if len(rest) > MAX_LINE_BYTES:
            out += _parts(rest, part)
            rest = rest[-_last(rest) :]
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


def _has_short_lines(text: bytes) -> bool:
    """Whether surely no line is longer than may be: every stretch of half that length has a line end."""
    half = MAX_LINE_BYTES // 2
    return all(text.find(b"\n", at, at + half) >= 0 for at in range(0, len(text) - half, half))


def _last(line: bytes) -> int:
    """The length of the last part of a line that is not empty."""
    return (len(line) - 1) % MAX_LINE_BYTES + 1


def _parts(line: bytes, part: bytes) -> bytes:
    """All parts of a long line but the last."""
    end = len(line) - _last(line) if line else 0
    return b"".join(part + line[at : at + MAX_LINE_BYTES] + b"\n" for at in range(0, end, MAX_LINE_BYTES))


def _now() -> bytes:
    at = time.time_ns()
    return b"%b.%09dZ" % (time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at // 10**9)).encode(), at % 10**9)
