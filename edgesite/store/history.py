"""Keys in order, recent events and watchers, by bucket.

A bucket holds all keys with the same first path segment ("/pods/..."): what is written to one kind neither crowds out the
events of another nor slows its lists. Bucket names end in the separator, so that their order is the order of their keys.

State   In memory. Events are bounded by number and by bytes; ``floor`` says from where on they are complete.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterator, Mapping

from edgesite.store.errors import Compacted
from edgesite.store.rows import Event, Row
from edgesite.store.watch import Watch

__all__ = ["Bucket", "Watchers", "bucket_name", "prefix_end"]

MEMO_EVENTS = 32  #: Newest events of a bucket that keep their shared encoding; a watcher further behind encodes again.


def bucket_name(key: str) -> str:
    """ "/pods/default/web" is in bucket "/pods/"; a key without a second "/" is a bucket of its own."""
    end = key.find("/", 1)
    return key if end < 0 else key[: end + 1]


def prefix_end(prefix: str) -> str | None:
    """The smallest text above all keys with this prefix; None if there is none (an empty prefix)."""
    stripped = prefix.rstrip("\U0010ffff")
    if not stripped:
        return None
    following = ord(stripped[-1]) + 1
    if 0xD800 <= following <= 0xDFFF:  # surrogates are no characters
        following = 0xE000
    return stripped[:-1] + chr(following)


class Watchers:
    """Watches by prefix: a key is compared once with each prefix, not with each watch."""

    __slots__ = ("_by_prefix",)

    def __init__(self) -> None:
        self._by_prefix: dict[str, dict[Watch, None]] = {}

    def add(self, watch: Watch) -> None:
        self._by_prefix.setdefault(watch.prefix, {})[watch] = None

    def discard(self, watch: Watch) -> None:
        watches = self._by_prefix.get(watch.prefix, {})
        watches.pop(watch, None)
        if not watches:
            self._by_prefix.pop(watch.prefix, None)

    def push(self, key: str, event: Event) -> None:
        for prefix, watches in tuple(self._by_prefix.items()):
            if key.startswith(prefix):
                for watch in tuple(watches):  # a slow watch leaves while we go
                    watch.push(event)

    def __iter__(self) -> Iterator[Watch]:
        return iter([watch for watches in self._by_prefix.values() for watch in watches])

    def __len__(self) -> int:
        return sum(map(len, self._by_prefix.values()))


class Bucket:
    """Keys, events and watchers of one first segment."""

    __slots__ = ("_bytes", "_max_bytes", "_max_events", "events", "floor", "keys", "watchers")

    def __init__(self, floor: int, max_events: int, max_bytes: int) -> None:
        self.keys: list[str] = []
        self.events: deque[Event] = deque()
        self.floor = floor  #: every event above this revision is in ``events``
        self.watchers = Watchers()
        self._bytes = 0
        self._max_events = max_events
        self._max_bytes = max_bytes

    def add_key(self, key: str) -> None:
        insort(self.keys, key)

    def remove_key(self, key: str) -> None:
        del self.keys[bisect_left(self.keys, key)]

    def record(self, event: Event) -> None:
        """Keep an event, forgetting the oldest ones above the bounds."""
        events = self.events
        events.append(event)
        self._bytes += len(event.row.value)
        while len(events) > self._max_events or (self._bytes > self._max_bytes and len(events) > 1):
            self._forget_oldest()
        if len(events) > MEMO_EVENTS:
            events[-MEMO_EVENTS - 1].memo = None

    def trim(self, revision: int) -> None:
        """Forget the events up to ``revision``. Who has seen the last of them may still watch on."""
        while self.events and self.events[0].revision <= revision:
            self._forget_oldest()

    def compact(self, revision: int) -> None:
        """Forget all that was before ``revision``."""
        self.trim(revision)
        self.floor = max(self.floor, revision)

    def _forget_oldest(self) -> None:
        event = self.events.popleft()
        self._bytes -= len(event.row.value)
        self.floor = event.revision

    def events_after(self, revision: int, prefix: str) -> list[Event]:
        """Raises Compacted."""
        if revision < self.floor:
            raise Compacted(revision, self.floor)
        newer: list[Event] = []
        for event in reversed(self.events):
            if event.revision <= revision:
                break
            if event.row.key.startswith(prefix):
                newer.append(event)
        newer.reverse()
        return newer

    def span(self, prefix: str, after: str | None) -> tuple[int, int]:
        """Where in ``keys`` those with this prefix that come behind ``after`` begin and end."""
        keys = self.keys
        start = bisect_left(keys, prefix) if after is None or after < prefix else bisect_right(keys, after)
        end = prefix_end(prefix)
        return start, max(start, len(keys) if end is None else bisect_left(keys, end))

    def rows_at(self, revision: int, prefix: str, after: str | None, current: Mapping[str, Row]) -> list[Row]:
        """The rows as they were at ``revision``: the current ones with newer events undone. Raises Compacted."""
        before: dict[str, Row | None] = {}
        for event in self.events_after(revision, prefix):
            before.setdefault(event.row.key, event.previous)
        start, stop = self.span(prefix, after)
        keys = [key for key in self.keys[start:stop] if key not in before]
        keys += [key for key, row in before.items() if row is not None and (after is None or key > after)]
        keys.sort()
        return [before.get(key) or current[key] for key in keys]
