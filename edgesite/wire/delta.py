"""Changes of objects: what turns the version that the other end holds into the next one, as a JSON merge patch (RFC 7386).

    content of a delta    {"base": "4711", "uid": "...", "patch": {...}}; its message has type `DELTA`

`Bases` keeps the objects that edges were last told, many edges sharing one, so that a delta can be made.

State   `Bases` is bounded by the number of objects; the oldest is forgotten, and its next version is sent whole.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

__all__ = ["DELTA", "Bases", "NoDelta", "apply_delta", "make_patch"]

DELTA: Final = "delta"  #: message type, and the feature's name
Object = dict[str, Any]


class NoDelta(ValueError):
    """The change cannot be told as a patch, or the patch does not fit what is held."""


def make_patch(old: Object, new: Object) -> Object:
    """Return the merge patch from ``old`` to ``new``. Raises NoDelta for a new null, which a merge patch cannot tell."""
    patch: Object = {}
    if old.keys() != new.keys():
        patch = {name: None for name in old if name not in new}
    for name, value in new.items():
        before = old.get(name)
        if before is value and before is not None:
            continue  # told from the same cache: most of an object is
        if isinstance(value, dict) and isinstance(before, dict):
            inner = make_patch(before, value)
            if inner:
                patch[name] = inner
        elif name not in old or before != value or type(before) is not type(value):
            if _holds_null(value):
                raise NoDelta("it holds a null")
            patch[name] = value
    return patch


def _holds_null(value: Any) -> bool:
    """Lists are replaced whole, so what is in them does not matter."""
    if isinstance(value, dict):
        return any(_holds_null(one) for one in value.values())
    return value is None


def merge(old: Object, patch: Object) -> Object:
    """Return ``old`` with a merge patch applied; shares what did not change."""
    merged = dict(old)
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            before = merged.get(name)
            merged[name] = merge(before if isinstance(before, dict) else {}, value)
        else:
            merged[name] = value
    return merged


def apply_delta(held: Object | None, content: Any) -> Object:
    """Return the object that a delta makes of what is held. Raises NoDelta if that is not its base."""
    match content:
        case {"base": str(base), "uid": str(uid), "patch": dict(patch)}:
            metadata = (held or {}).get("metadata") or {}
            if held is None or metadata.get("uid") != uid or metadata.get("resourceVersion") != base:
                raise NoDelta(f"version {metadata.get('resourceVersion')} is held, not {base}")
            return merge(held, patch)
    raise NoDelta("it is malformed")


class Bases:
    """The objects that edges hold, newest use last."""

    def __init__(self, most: int = 16_384) -> None:
        self._objects: OrderedDict[tuple[str, int], Object] = OrderedDict()
        self._most = most

    def keep(self, uid: str, version: int, obj: Object) -> None:
        """Some edge holds this now."""
        key = (uid, version)
        self._objects[key] = obj
        self._objects.move_to_end(key)
        if len(self._objects) > self._most:
            self._objects.popitem(last=False)

    def find(self, uid: str, version: int) -> Object | None:
        return self._objects.get((uid, version))
