"""Objects that programs read again and again, in memory: what they ask is answered without the disk's thread.

Units   Bytes of values.
Errors  None.
State   The objects that were read last, within `HOT_BYTES`. Whoever writes what they are made of says so before and after: an object that was
        being read meanwhile is not taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from edgesite.edge.metamanager.replica import KindKey, Stored

__all__ = ["Hot", "Place"]

HOT_BYTES: Final = 256 * 1024
OBJECT_BYTES: Final = 32 * 1024

Place = tuple["KindKey", str, str]  #: kind, namespace, name


class Hot:
    """A cache by least recent use."""

    def __init__(self) -> None:
        self._objects: dict[Place, Stored] = {}
        self._size = 0
        self.changes = 0  #: how often anything was written

    def find(self, place: Place) -> Stored | None:
        """What was read last, if nothing was written since."""
        found = self._objects.pop(place, None)
        if found is not None:
            self._objects[place] = found
        return found

    def put(self, place: Place, stored: Stored, changes: int) -> None:
        """Keep what was read; ``changes`` as they were before the reading."""
        size = len(stored.value)
        if changes != self.changes or size > OBJECT_BYTES:
            return
        self.drop(place, changed=False)
        self._objects[place] = stored
        self._size += size
        while self._size > HOT_BYTES:
            self.drop(next(iter(self._objects)), changed=False)

    def drop(self, place: Place, *, changed: bool = True) -> None:
        """One object is written."""
        self.changes += changed
        found = self._objects.pop(place, None)
        if found is not None:
            self._size -= len(found.value)

    def clear(self) -> None:
        """Any object may be written."""
        self.changes += 1
        self._objects.clear()
        self._size = 0
