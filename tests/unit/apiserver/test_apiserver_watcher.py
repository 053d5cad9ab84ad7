"""Watchers that read slowly, leave, or come late: over a writer that takes as much as the test lets it."""

from __future__ import annotations

from typing import Any

import pytest

from edgesite.apiserver.watch import Watcher
from edgesite.net.errors import ClosedByPeer, WouldBlock
from edgesite.net.http import Frame


class Channel:
    def __init__(self) -> None:
        self.left: list[Any] = []

    def remove(self, watcher: Any) -> None:
        self.left.append(watcher)


class Writer:
    """Takes ``room`` pieces."""

    def __init__(self, room: int = 1000) -> None:
        self.room = room
        self.got: list[bytes] = []
        self.closed = self.gone = False

    def write_nowait(self, data: bytes | Frame) -> None:
        if self.gone:
            raise ClosedByPeer("left")
        if not self.room:
            raise WouldBlock("full")
        self.room -= 1
        self.got.append(data.payload if isinstance(data, Frame) else data)

    def close(self) -> None:
        self.closed = True


def begun(writer: Writer, *initial: bytes) -> tuple[Watcher, Channel]:
    channel = Channel()
    watcher = Watcher(channel, 0, 0.0, False)  # type: ignore[arg-type]
    watcher.begin(writer, iter(initial))  # type: ignore[arg-type]
    return watcher, channel


def test_order_is_kept_when_the_reader_is_slow() -> None:
    writer = Writer(room=1)
    watcher, _ = begun(writer, b"a", b"b")
    watcher.put(Frame(b"c"))
    assert writer.got == [b"a"]
    for room in (1, 0, 1, 1):
        writer.room = room
        watcher.flush()
    writer.room = 5
    watcher.put(Frame(b"d"))
    assert writer.got == [b"a", b"b", b"c", b"d"]


def test_events_during_the_initial_ones_come_after_them() -> None:
    writer = Writer(room=0)
    watcher, _ = begun(writer, b"a", b"b", b"c")
    watcher.put(Frame(b"d"))
    watcher.put(Frame(b"e"))
    writer.room = 10
    watcher.flush()
    assert writer.got == [b"a", b"b", b"c", b"d", b"e"]


def test_a_reader_too_far_behind_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watcher, "MOST_FRAMES", 3)
    writer = Writer(room=0)
    watcher, channel = begun(writer)
    for number in range(10):
        watcher.put(Frame(b"%d" % number))
    assert writer.closed
    assert channel.left


def test_a_reader_that_left_is_forgotten() -> None:
    writer = Writer()
    watcher, channel = begun(writer)
    writer.gone = True
    watcher.put(Frame(b"a"))
    assert channel.left == [watcher]
