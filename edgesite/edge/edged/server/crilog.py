"""Container logs in CRI's format: what a request wants of a file, and the file's entries as output. No I/O but on files given.

    2026-11-20T05:28:16.123456789Z stdout F a whole line
    2026-11-20T05:28:16.123456789Z stdout P the beginning of a long line, without its end

Units   Times are Unix nanoseconds; sizes bytes.
Errors  OSError from files. A line that is no CRI entry is passed through as it is.
State   `Renderer` remembers whether its output stands at the beginning of a line.
Source  kubelet's design "CRI: container logs"; k8s.io/cri-client logs (behaviour of tail, since, limit, timestamps).
"""

from __future__ import annotations

import os
from typing import Final

from edgesite.kube import times

__all__ = ["Renderer", "entry_time_ns", "since_offset", "tail_offset"]

_BLOCK_BYTES: Final = 64 * 1024
_PARTIAL: Final = b"P"


def entry_time_ns(line: bytes) -> int | None:
    """Return the time of an entry, None for what is none."""
    stamp, space, _ = line.partition(b" ")
    if not space or len(stamp) > 40:
        return None
    try:
        return times.parse_time_ns(stamp.decode("ascii"))
    except ValueError:
        return None


def tail_offset(descriptor: int, size: int, lines: int) -> int:
    """Return where the last ``lines`` entries of the first ``size`` bytes begin, reading backwards from there only."""
    if lines <= 0:
        return size
    wanted = lines
    at = size
    while at > 0:
        start = max(0, at - _BLOCK_BYTES)
        block = os.pread(descriptor, at - start, start)
        end = len(block)
        if at == size and block.endswith(b"\n"):
            end -= 1  # it ends the last entry
        while (found := block.rfind(b"\n", 0, end)) >= 0:
            wanted -= 1
            if wanted == 0:
                return start + found + 1
            end = found
        at = start
    return 0


def since_offset(descriptor: int, size: int, since_ns: int) -> int:
    """Return an offset at the beginning of an entry before which all entries are older: entries are in order of time, so
    the file need not be read."""
    low, high = 0, size  # the entry wanted begins in [low, high]
    while high - low > _BLOCK_BYTES:
        middle = (low + high) // 2
        block = os.pread(descriptor, _BLOCK_BYTES, middle)
        first = block.find(b"\n") + 1
        time_ns = entry_time_ns(block[first : block.find(b"\n", first) + 1]) if first else None
        if time_ns is None:
            break  # a line longer than a block, or no entry: read from here on
        if time_ns < since_ns:
            low = middle + first
        else:
            high = middle
    return low


class Renderer:
    """Turns entries into what the client gets."""

    def __init__(
        self, *, timestamps: bool = False, since_ns: int | None = None, limit_bytes: int | None = None
    ) -> None:
        self._timestamps = timestamps
        self._since_ns = since_ns
        self._left = limit_bytes
        self._line_begins = True

    @property
    def full(self) -> bool:
        """Whether the byte limit is reached."""
        return self._left is not None and self._left <= 0

    def render(self, entries: bytes) -> bytes:
        """Return the output of whole lines of the file (each with its line end)."""
        out: list[bytes] = []
        for line in entries.split(b"\n")[:-1]:
            self._entry(line, out)
        data = b"".join(out)
        if self._left is not None:
            data = data[: max(0, self._left)]
            self._left -= len(data)
        return data

    def _entry(self, line: bytes, out: list[bytes]) -> None:
        parts = line.split(b" ", 3)
        if len(parts) < 3 or parts[1] not in (b"stdout", b"stderr"):
            out.append(line + b"\n")  # written by no runtime that keeps to CRI; better shown than lost
            self._line_begins = True
            return
        if self._since_ns is not None:
            time_ns = entry_time_ns(line)
            if time_ns is not None and time_ns < self._since_ns:
                return
            self._since_ns = None  # all that follow are newer
        if self._timestamps and self._line_begins:
            out.append(parts[0] + b" ")
        if len(parts) == 4:
            out.append(parts[3])
        self._line_begins = _PARTIAL not in parts[2].split(b":")
        if self._line_begins:
            out.append(b"\n")
