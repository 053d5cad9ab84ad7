"""Watches: who wants which changes, in which form; each change is matched and encoded once for all who want the same.

Watchers of the same collection, selectors and form share a `Channel`, which reads the store's events and writes one frame to all of its
watchers. No watcher has a task: one that reads slowly keeps what it has not taken yet, up to a bound, and is then cut off.

Units   Deadlines are monotonic seconds.
Errors  ApiError when a watch cannot begin. What goes wrong later is told in an ERROR event, or by ending the watch.
State   The watchers, in memory.
Source  Kubernetes API concepts (efficient detection of changes, watch bookmarks, streaming lists).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.apiserver import selection
from edgesite.apiserver.registry import too_large_revision
from edgesite.kube import errors, json
from edgesite.kube.encoding import watch_line, with_revision
from edgesite.kube.errors import ApiError
from edgesite.net.http import Frame
from edgesite.net.outflow import Outflow
from edgesite.store.errors import Compacted, FutureRevision, StoreError
from edgesite.store.rows import Event, EventType, Row

if TYPE_CHECKING:
    import random

    from edgesite.apiserver.kinds import Kind
    from edgesite.apiserver.views import Views
    from edgesite.context import Clock
    from edgesite.kube.negotiate import View
    from edgesite.kube.options import ListOptions
    from edgesite.net.http import BodyWriter
    from edgesite.store.store import Store
    from edgesite.store.watch import Watch

__all__ = ["Opener", "WatchWanted", "Watches"]

#: Opens the streamed answer: ``on_close`` is called when the client leaves, ``on_drain`` when there is room again.
Opener = Callable[[Callable[[], None], Callable[[], None]], "BodyWriter"]
PIECE_BYTES: Final = 64 * 1024  #: initial events are written in pieces of about this size
BOOKMARK_S: Final = 60.0
MIN_TIMEOUT_S: Final = 1800.0  #: a watch without a timeout ends after one to two times this, as kube-apiserver's
QUEUE: Final = 16384  #: events that a channel may be behind the store


@dataclass(frozen=True, slots=True)
class WatchWanted:
    """What one client wants to watch."""

    kind: Kind
    namespace: str
    options: ListOptions
    view: View


class Watcher(Outflow):
    """One client's watch."""

    __slots__ = ("bookmarks", "channel", "deadline", "since")

    MOST_FRAMES = 4096
    MOST_BYTES = sys.maxsize  #: frames are shared by all who watch

    def __init__(self, channel: Channel, since: int, deadline: float, bookmarks: bool) -> None:
        super().__init__()
        self.channel = channel
        self.since = since  #: events up to this revision are in the initial ones
        self.deadline = deadline
        self.bookmarks = bookmarks

    def left(self) -> None:
        self.channel.remove(self)


class Channel:
    """Watchers who want the same."""

    def __init__(
        self, owner: Watches, key: Any, wanted: WatchWanted, matches: selection.Matcher | None, watch: Watch
    ) -> None:
        self._owner = owner
        self._key = key
        self._wanted = wanted
        self._matches = matches
        self.watch = watch
        self.watchers: dict[Watcher, None] = {}
        watch.on_ready = self._pump

    def remove(self, watcher: Watcher) -> None:
        self.watchers.pop(watcher, None)
        if not self.watchers:
            self.watch.close()
            self._owner.forget(self._key, self)

    def _pump(self) -> None:
        """Hand on what the store has; called by its watch."""
        try:
            events = self.watch.take()
        except StoreError:  # too far behind, or the store is closing: clients watch again from where they are
            for watcher in tuple(self.watchers):
                watcher.end()
            return
        for event in events:
            frame = self.frame(event)
            if frame is None:
                continue
            revision = event.row.revision
            for watcher in tuple(self.watchers):
                if revision > watcher.since:
                    watcher.put(frame)

    def frame(self, event: Event) -> Frame | None:
        """One event as this channel's watchers see it; None if they do not."""
        what, row, previous = event.type, event.row, event.previous
        if self._matches is not None:
            now = what is not EventType.DELETED and self._matches(row)
            before = previous is not None and self._matches(previous)
            if not (now or before):
                return None
            if now is not before or what is EventType.DELETED:
                what = EventType.ADDED if now else EventType.DELETED
        left = what is EventType.DELETED and event.type is not EventType.DELETED
        memo = event.memo
        if memo is None:
            memo = event.memo = {}
        key = (self._wanted.kind, self._wanted.view, what)
        frame: Frame | None = memo.get(key)
        if frame is None:
            if left and previous is not None:
                row = Row(
                    row.key, with_revision(previous.value, row.revision), row.revision, row.created, previous.attrs
                )
            frame = memo[key] = Frame(self.line(what, row))
        return frame

    def line(self, what: str, row: Row) -> bytes:
        return watch_line(what, self._owner.views.object(self._wanted.kind, row, self._wanted.view))

    def bookmark(self, revision: int, *, initial_end: bool = False) -> bytes:
        view = self._owner.views.bookmark(self._wanted.kind, self._wanted.view, revision, initial_end=initial_end)
        return watch_line("BOOKMARK", view)


class Watches:
    """All watches of one server. `run` ends those whose time is up and sends bookmarks."""

    def __init__(self, store: Store, views: Views, clock: Clock, random: random.Random) -> None:
        self.views = views
        self._store = store
        self._clock = clock
        self._random = random
        self._channels: dict[Any, Channel] = {}
        self._changed = anyio.Event()
        self._due = float("inf")  # when `run` wakes up next

    def __len__(self) -> int:
        return sum(len(channel.watchers) for channel in self._channels.values())

    def open(self, wanted: WatchWanted, opener: Opener) -> None:
        """Begin a watch. Raises ApiError, ClosedByPeer."""
        channel, options = self._channel(wanted), wanted.options
        try:
            initial, since = self._initial(channel, wanted)
        except Compacted as exc:
            self._drop_if_idle(channel)
            _refuse(opener, errors.expired(f"too old resource version: {exc.asked} ({exc.floor})"))
            return
        except BaseException:
            self._drop_if_idle(channel)
            raise
        timeout_s = options.timeout_s or MIN_TIMEOUT_S * (1 + self._random.random())
        watcher = Watcher(channel, since, self._clock.monotonic() + timeout_s, options.bookmarks)
        channel.watchers[watcher] = None
        try:
            watcher.begin(opener(watcher.leave, watcher.flush), initial)
        except BaseException:
            watcher.leave()
            raise
        self._expect(watcher.deadline)
        if options.bookmarks:
            self._expect(self._clock.monotonic() + BOOKMARK_S)

    def end_below(self, prefix: str) -> None:
        """End the watches of a resource that is no longer served."""
        for channel in [one for one in self._channels.values() if one.watch.prefix.startswith(prefix)]:
            for watcher in tuple(channel.watchers):
                watcher.end()

    def forget(self, key: Any, channel: Channel) -> None:
        if self._channels.get(key) is channel:
            del self._channels[key]

    def _drop_if_idle(self, channel: Channel) -> None:
        if not channel.watchers:
            channel.watch.close()
            for key in [key for key, one in self._channels.items() if one is channel]:
                del self._channels[key]

    def _channel(self, wanted: WatchWanted) -> Channel:
        """Return the channel of what is wanted. Raises ApiError."""
        kind, options = wanted.kind, wanted.options
        key = (kind, wanted.namespace, str(options.labels or ""), str(options.fields or ""), wanted.view)
        channel = self._channels.get(key)
        if channel is None or channel.watch.ended:
            matches = selection.matcher(kind, options.labels, options.fields)
            watch = self._store.watch(_prefix(wanted), size=QUEUE)
            channel = self._channels[key] = Channel(self, key, wanted, matches, watch)
        return channel

    def _initial(self, channel: Channel, wanted: WatchWanted) -> tuple[Iterator[bytes], int]:
        """Return what comes before the changes, and the revision that it brings the client to. Raises ApiError, Compacted."""
        options, store = wanted.options, self._store
        after = options.revision or 0
        if after > store.revision:
            raise too_large_revision(after, store.revision)
        if options.initial_events or (options.initial_events is None and not after):
            page = store.list(_prefix(wanted))
            matches = selection.matcher(wanted.kind, options.labels, options.fields)
            rows = page.rows if matches is None else [row for row in page.rows if matches(row)]
            lines: Iterable[bytes] = (channel.line("ADDED", row) for row in rows)
            end = channel.bookmark(page.revision, initial_end=True) if options.initial_events else b""
            return _pieces(lines, end), page.revision
        if not after:
            return iter(()), store.revision
        try:
            with store.watch(_prefix(wanted), after=after) as replay:
                events = replay.take()
        except FutureRevision as exc:
            raise too_large_revision(exc.asked, exc.newest) from None
        frames = (channel.frame(event) for event in events)
        return _pieces((frame.payload for frame in frames if frame is not None), b""), store.revision

    # time

    def _expect(self, due: float) -> None:
        if due < self._due:
            self._due = due
            self._changed.set()

    async def run(self) -> None:
        """Serve until cancelled."""
        next_bookmark = self._clock.monotonic() + BOOKMARK_S
        while True:
            now = self._clock.monotonic()
            if now >= next_bookmark:
                self._send_bookmarks()
                next_bookmark = now + BOOKMARK_S
            self._due = self._end_overdue(now)
            if any(watcher.bookmarks for channel in self._channels.values() for watcher in channel.watchers):
                self._due = min(self._due, next_bookmark)
            self._changed = anyio.Event()
            with anyio.move_on_after(max(0.0, self._due - now) if self._due < float("inf") else None):
                await self._changed.wait()

    def _end_overdue(self, now: float) -> float:
        """End the watches whose time is up; return when the next one's is."""
        due = float("inf")
        for channel in tuple(self._channels.values()):
            for watcher in tuple(channel.watchers):
                if watcher.deadline <= now:
                    watcher.end()
                else:
                    due = min(due, watcher.deadline)
        return due

    def _send_bookmarks(self) -> None:
        for channel in tuple(self._channels.values()):
            frame: Frame | None = None
            progress = channel.watch.progress
            for watcher in tuple(channel.watchers):
                # One that has just come may be ahead of what the channel has handed on, and must not be sent back.
                if watcher.bookmarks and progress >= watcher.since:
                    frame = frame or Frame(channel.bookmark(progress))
                    watcher.put(frame)


def _refuse(opener: Opener, error: ApiError) -> None:
    """Answer with one ERROR event, as watches are refused once they were let in."""
    writer = opener(_nothing, _nothing)
    writer.write_nowait(watch_line("ERROR", json.dumps(error.status())))
    writer.close()


def _nothing() -> None:
    """Nobody is left who would have to know."""


def _prefix(wanted: WatchWanted) -> str:
    """The narrowest prefix that holds all that is wanted."""
    kind, name = wanted.kind, selection.exact_name(wanted.options.fields)
    if name is not None and (wanted.namespace or not kind.resource.namespaced):
        return kind.key(wanted.namespace, name)
    return kind.collection(wanted.namespace)


def _pieces(lines: Iterable[bytes], end: bytes) -> Iterator[bytes]:
    """Join lines to pieces that are worth a write each."""
    piece: list[bytes] = []
    size = 0
    for line in lines:
        piece.append(line)
        size += len(line)
        if size >= PIECE_BYTES:
            yield b"".join(piece)
            piece, size = [], 0
    if end:
        piece.append(end)
    if piece:
        yield b"".join(piece)
