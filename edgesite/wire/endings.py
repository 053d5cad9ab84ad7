"""What a node's session remembers of objects that are gone, or of no use to the edge.

Units   Resources are as they stand on the wire, without the node.
State   In memory, bounded; what falls out is found again by comparing versions.
"""

from __future__ import annotations

from typing import Final

from edgesite.wire.delivery import ObjectRef

__all__ = ["Endings"]

_KEPT: Final = 256


class Endings:
    """Deletes that are under way, objects that are deleted, and versions that the edge could not read."""

    __slots__ = ("_deleted", "_deleting", "_unreadable")

    def __init__(self) -> None:
        # None while empty, as they mostly are
        self._deleted: dict[str, None] | None = None  # uids
        self._unreadable: dict[str, int] | None = None  # uid -> version
        self._deleting: dict[str, str] | None = None  # resources with a delete that is not confirmed -> uid

    def deleting(self, wire: str, uid: str) -> None:
        """A delete was queued."""
        if self._deleting is None:
            self._deleting = {}
        self._deleting[wire] = uid

    def is_deleting(self, wire: str) -> bool:
        return self._deleting is not None and wire in self._deleting

    def deleted(self, wire: str, uid: str) -> None:
        """The edge has confirmed a delete."""
        if self._deleting is not None and self._deleting.get(wire) == uid:
            del self._deleting[wire]
        if self._deleted is None:
            self._deleted = {}
        self._deleted[uid] = None
        if len(self._deleted) > _KEPT:
            del self._deleted[next(iter(self._deleted))]

    def unreadable(self, ref: ObjectRef) -> None:
        """The edge cannot read this version."""
        if self._unreadable is None:
            self._unreadable = {}
        self._unreadable[ref.uid] = ref.version
        if len(self._unreadable) > _KEPT:
            del self._unreadable[next(iter(self._unreadable))]

    def has_ended(self, uid: str) -> bool:
        """Whether the edge has confirmed its delete."""
        return self._deleted is not None and uid in self._deleted

    def forget(self, uid: str) -> None:
        """The API is another one than it was: what was told of this object no longer counts."""
        for known in (self._deleted, self._unreadable):
            if known is not None:
                known.pop(uid, None)

    def is_useless(self, ref: ObjectRef) -> bool:
        """Whether sending this version cannot help."""
        if self.has_ended(ref.uid):
            return True
        return self._unreadable is not None and 0 < ref.version <= self._unreadable.get(ref.uid, 0)
