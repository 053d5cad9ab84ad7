"""Reads one container's log as a request wants it, and follows it: over rotation, until the container has ended.

Units   Seconds, bytes.
Errors  OSError from the file, but a file that is not there yet is empty.
State   One open file. Followers look for more at growing intervals, from `_FIRST_S` after the last entry up to `_MOST_S`.
Source  kubelet (a log is that of the newest file of the container's attempt; a follower goes on in the next after rotation).
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgesite.edge.edged.server.crilog import Renderer, since_offset, tail_offset

if TYPE_CHECKING:
    from edgesite.context import Clock, Threads
    from edgesite.edge.edged.server.options import LogOptions
    from edgesite.edge.edged.server.source import ContainerLog

__all__ = ["read_log"]

_READ_BYTES: Final = 256 * 1024
_LINE_BYTES: Final = 1024 * 1024  #: runtimes split lines far below; a longer one is passed on in pieces
_FIRST_S: Final = 0.05
_MOST_S: Final = 0.5


@dataclass(slots=True)
class _File:
    """An open log file and how far it was read."""

    path: str
    descriptor: int = -1
    offset: int = 0

    def open(self, options: LogOptions | None) -> None:
        """Open if it is there, at what ``options`` ask for, else at its beginning. Blocking."""
        try:
            self.descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        self.offset = 0
        if options is not None:
            size = os.fstat(self.descriptor).st_size
            if options.since_ns is not None:
                self.offset = since_offset(self.descriptor, size, options.since_ns)
            if options.tail_lines is not None:
                self.offset = max(self.offset, tail_offset(self.descriptor, size, options.tail_lines))

    def read(self) -> bytes:
        """Return what comes next, b"" at the end. Blocking."""
        if self.descriptor < 0:
            self.open(None)
            if self.descriptor < 0:
                return b""
        data = os.pread(self.descriptor, _READ_BYTES, self.offset)
        self.offset += len(data)
        if not data and os.fstat(self.descriptor).st_size < self.offset:
            self.offset = 0  # emptied in place
        return data

    def renewed(self) -> bool:
        """Whether another file has taken the name. Blocking."""
        if self.descriptor < 0:
            return False
        try:
            return not os.path.samestat(os.stat(self.path), os.fstat(self.descriptor))
        except FileNotFoundError:
            return False  # between the two steps of a rotation, or removed with its pod

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


async def read_log(log: ContainerLog, options: LogOptions, threads: Threads, clock: Clock) -> AsyncGenerator[bytes]:
    """Give the output piece by piece. Raises OSError."""
    renderer = Renderer(timestamps=options.timestamps, since_ns=options.since_ns, limit_bytes=options.limit_bytes)
    file = _File(os.fspath(log.path))
    try:
        await threads.run(file.open, options)
        rest = b""
        wait_s = _FIRST_S
        while not renderer.full:
            running = options.follow and log.running()  # asked before the read: what is written before the end is read
            data = await threads.run(file.read)
            if data:
                wait_s = _FIRST_S
                entries, rest = _whole_lines(rest + data)
                if entries and (output := renderer.render(entries)):
                    yield output
            elif options.follow and await threads.run(file.renewed):
                if output := renderer.render(_closed(rest)):
                    yield output
                rest = b""
                file.close()
                await threads.run(file.open, None)
            elif not running:
                break
            else:
                await clock.sleep(wait_s)
                wait_s = min(wait_s * 2, _MOST_S)
        if not renderer.full and (output := renderer.render(_closed(rest))):
            yield output
    finally:
        file.close()


def _whole_lines(data: bytes) -> tuple[bytes, bytes]:
    end = data.rfind(b"\n") + 1
    if not end and len(data) > _LINE_BYTES:
        return data + b"\n", b""
    return data[:end], data[end:]


def _closed(rest: bytes) -> bytes:
    """A last entry whose line end never came."""
    return rest + b"\n" if rest else b""
