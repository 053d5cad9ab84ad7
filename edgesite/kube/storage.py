"""Storage classes and who has which. Pure functions on API objects.

Source  storage/v1 StorageClass; core/v1 PersistentVolumeClaim: the annotation that was there before storageClassName; which of several
        default classes counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

__all__ = ["class_of", "default_class"]

_OLD_CLASS: Final = "volume.beta.kubernetes.io/storage-class"
_DEFAULT: Final = ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")
Object = Mapping[str, Any]


def class_of(obj: Object) -> str | None:
    """The storage class that a claim or a volume names, "" for none at all; None if it says nothing."""
    annotations = (obj.get("metadata") or {}).get("annotations") or {}
    if _OLD_CLASS in annotations:
        return str(annotations[_OLD_CLASS])
    named = (obj.get("spec") or {}).get("storageClassName")
    return None if named is None else str(named)


def default_class(classes: Iterable[Object]) -> dict[str, Any] | None:
    """The class for claims that name none: the newest of those that are marked so."""
    marked = [one for one in classes if _is_default(one)]
    marked.sort(key=lambda one: one["metadata"]["name"])
    newest = max(marked, key=lambda one: str(one["metadata"].get("creationTimestamp") or ""), default=None)
    return dict(newest) if newest is not None else None


def _is_default(one: Object) -> bool:
    annotations = (one.get("metadata") or {}).get("annotations") or {}
    return any(annotations.get(name) == "true" for name in _DEFAULT)
