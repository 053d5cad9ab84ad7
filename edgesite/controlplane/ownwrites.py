"""What a controller wrote last, where its cache does not show it yet.

A reconcile that starts from an object older than the controller's own last write ends in a Conflict, and is done twice.

State   In memory, by key; an entry ends when the cache has caught up or the object is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgesite.client import ObjectKey, key_of

if TYPE_CHECKING:
    from edgesite.client import Informer

__all__ = ["OwnWrites"]


class OwnWrites:
    """Reads through a cache, but never behind what was handed to `wrote`."""

    def __init__(self, cache: Informer) -> None:
        self._cache = cache
        self._written: dict[ObjectKey, dict[str, Any]] = {}

    def wrote(self, obj: dict[str, Any]) -> dict[str, Any]:
        """Note the answer to a write of the whole object or of its status, and return it."""
        self._written[key_of(obj)] = obj
        return obj

    def newest(self, key: ObjectKey) -> dict[str, Any] | None:
        """The object as the cache has it or as it was written, whichever is the newer; None when it is gone."""
        cached, written = self._cache.by_key(key), self._written.get(key)
        if written is None:
            return cached
        if cached is None or _is_behind(written, cached):
            del self._written[key]
            return cached
        return written


def _is_behind(written: dict[str, Any], cached: dict[str, Any]) -> bool:
    """Whether the cache shows the write or something later, or an object that has taken its name."""
    mine, shown = written["metadata"], cached["metadata"]
    if mine.get("uid") != shown.get("uid"):
        return True
    try:
        return int(shown["resourceVersion"]) >= int(mine["resourceVersion"])
    except (KeyError, ValueError):  # a server whose versions cannot be compared
        return True
