"""Who manages which field: managedFields kept by every write, and server-side apply.

Errors  ApiError Conflict and BadRequest, from apply.
State   Walkers of the kinds met so far; they hold no objects.
Source  Kubernetes: Server-Side Apply.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from edgesite.kube import times
from edgesite.kube.apply import Applier
from edgesite.kube.managedfields import Tracker

if TYPE_CHECKING:
    from edgesite.apiserver.strategies.base import Write
    from edgesite.kube.schema import Schemas

__all__ = ["Managers"]

Object = dict[str, Any]
_STATUS: Final[dict[str, Any]] = {"f:status": {}}


class Managers:
    """Notes on objects who wrote what."""

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas
        self._trackers: dict[str | None, Tracker] = {}
        self._appliers: dict[str | None, Applier] = {}

    def note(self, write: Write, old: Object | None, new: Object) -> None:
        """Set the managedFields of what a client sent in place of ``old``; apply has done so already."""
        if write.applied:
            return
        definition = write.kind.definition
        tracker = self._trackers.get(definition)
        if tracker is None:
            tracker = self._trackers[definition] = Tracker(self._schemas, definition)
        fields = tracker.updated(
            old,
            new,
            manager=write.manager,
            api_version=write.kind.resource.api_version,
            now=times.format_time(write.now_s),
            subresource=write.subresource,
            reset=_reset(write),
        )
        if fields:
            new["metadata"]["managedFields"] = fields
        else:
            new["metadata"].pop("managedFields", None)

    def forget(self, definition: str) -> None:
        """A definition has changed: what was derived from it is no longer true."""
        self._trackers.pop(definition, None)
        self._appliers.pop(definition, None)

    def apply(self, write: Write, live: Object | None, config: Object, *, force: bool) -> Object:
        """Return what a client's configuration makes of an object. Raises ApiError."""
        definition = write.kind.definition
        applier = self._appliers.get(definition)
        if applier is None:
            applier = self._appliers[definition] = Applier(self._schemas, definition)
        return applier.apply(
            live,
            config,
            manager=write.manager,
            now=times.format_time(write.now_s),
            force=force,
            subresource=write.subresource,
            reset=_reset(write),
        )


def _reset(write: Write) -> dict[str, Any] | None:
    """What the endpoint never writes."""
    return _STATUS if not write.subresource and "status" in write.kind.resource.subresources else None
