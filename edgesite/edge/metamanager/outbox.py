"""Reports to the cloud that must arrive: kept until the cloud has answered them.

One slot per subject, the newest state wins. Reports about one object leave in order, one after the other; different objects
do not wait for each other. A report is in memory only while there is a link; it is written to disk when there is none, or
when the link breaks before its answer.

Bounds  ``events`` waiting events (the oldest is dropped); other reports are bounded by the number of objects.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import anyio

from edgesite.edge.metamanager.database import Statement
from edgesite.wire.message import InvalidMessage, Message

__all__ = ["Entry", "Outbox"]

_PUT: Final = "REPLACE INTO edgesite_outbox (seq, key, object, message) VALUES (?, ?, ?, ?)"
_DROP: Final = "DELETE FROM edgesite_outbox WHERE seq = ?"
LOAD: Final = "SELECT seq, key, object, message FROM edgesite_outbox ORDER BY seq"


@dataclass(slots=True)
class Entry:
    """``key`` is the subject (what a newer report replaces), ``object`` what must stay in order."""

    seq: int
    key: str
    object: str
    message: Message
    is_event: bool = False
    saved: bool = False
    attempts: int = field(default=0)


class Outbox:
    """The waiting reports, oldest first. It decides; whoever owns it sends and writes."""

    def __init__(self, *, events: int = 256) -> None:
        self._entries: dict[str, Entry] = {}  # by key; in order of seq
        self._busy: set[str] = set()  # objects with a report under way
        self._seq = 0
        self._most_events = events
        self._changed = anyio.Event()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._entries)

    def load(self, rows: Iterable[tuple[int, str, str, str]]) -> None:
        """Take what was saved; rows that cannot be read are left out."""
        for seq, key, object_, text in rows:
            self._seq = max(self._seq, seq)
            try:
                message = Message.from_json(text)
            except InvalidMessage:
                continue
            self._entries[key] = Entry(seq, key, object_, message, is_event=key.startswith("event/"), saved=True)

    def put(self, key: str, object_: str, message: Message, *, is_event: bool = False) -> list[Statement]:
        """Add a report in place of an older one on the same subject; returns what the disk must forget."""
        statements: list[Statement] = []
        old = self._entries.pop(key, None)
        if old is not None and old.saved:
            statements.append((_DROP, (old.seq,)))
        self._seq += 1
        self._entries[key] = Entry(self._seq, key, object_, message, is_event)
        if is_event:
            statements += self._drop_oldest_event()
        self._wake()
        return statements

    def _drop_oldest_event(self) -> list[Statement]:
        events = [one for one in self._entries.values() if one.is_event]
        if len(events) <= self._most_events:
            return []
        self.dropped += 1
        oldest = self._entries.pop(events[0].key)
        return [(_DROP, (oldest.seq,))] if oldest.saved else []

    def next(self) -> Entry | None:
        """Return the oldest report whose object has none under way, and count it as under way."""
        blocked = set(self._busy)
        for entry in self._entries.values():
            if entry.object not in blocked:
                self._busy.add(entry.object)
                return entry
            blocked.add(entry.object)
        return None

    def waiting(self, key: str) -> Message | None:
        """The report on a subject that the cloud has not answered."""
        entry = self._entries.get(key)
        return entry.message if entry is not None else None

    def finished(self, entry: Entry) -> list[Statement]:
        """The cloud has answered; returns what the disk must forget. A newer report on the subject stays."""
        if self._entries.get(entry.key) is entry:
            del self._entries[entry.key]
        self.released(entry)
        return [(_DROP, (entry.seq,))] if entry.saved else []

    def released(self, entry: Entry) -> None:
        """No answer: it may be tried again."""
        self._busy.discard(entry.object)
        self._wake()

    def unsaved(self) -> tuple[list[Entry], list[Statement]]:
        """Return what the disk does not have yet, and how to write it."""
        entries = [one for one in self._entries.values() if not one.saved]
        return entries, [(_PUT, (one.seq, one.key, one.object, one.message.to_json().decode())) for one in entries]

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def wait_change(self) -> None:
        await self._changed.wait()
