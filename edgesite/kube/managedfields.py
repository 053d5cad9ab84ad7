"""``metadata.managedFields``: who set which field, kept up to date by every write.

    tracker = Tracker(schemas, definition)
    tracker.updated(old, new, manager="kubectl-edit", api_version="apps/v1", now="2026-01-02T03:04:05Z")

gives the list for ``new.metadata.managedFields``. Only what differs is walked: a change of status costs the change, not the object.
`edgesite.kube.apply` does the same for server-side apply.

Entries are told apart by manager, operation, subresource and, for updates, apiVersion. An update by one manager takes fields from all
others; an entry without fields goes. Beyond ten update entries the oldest are merged into "ancient-changes".

Errors  None raised: what a client sends as managedFields and cannot be read is as if it had sent none.
State   None. Times are arguments, as text.
Source  kubernetes.io, "Server-Side Apply"; apimachinery pkg/util/managedfields (order, limits, which metadata is nobody's).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from edgesite.kube.apply_sets import FieldSet, InvalidFieldSet, check, difference, subtract, union
from edgesite.kube.apply_typed import Walker
from edgesite.kube.patch_strategic import MergeSchema

__all__ = ["APPLY", "UPDATE", "Entry", "Tracker", "read_entries", "removed_from", "taken_from", "write_entries"]

APPLY: Final = "Apply"
UPDATE: Final = "Update"
MAX_UPDATE_ENTRIES: Final = 10  #: As kube-apiserver.
ANCIENT: Final = "ancient-changes"

#: Fields that belong to nobody: the server's own, and what names the object.
UNOWNED: Final[FieldSet] = {
    "f:apiVersion": {},
    "f:kind": {},
    "f:metadata": {
        f"f:{name}": {}
        for name in (
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "clusterName",
            "generation",
            "managedFields",
            "resourceVersion",
        )
    },
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One manager's fields. ``time`` is RFC 3339 or ""."""

    manager: str
    operation: str
    api_version: str
    fields: FieldSet
    time: str = ""
    subresource: str = ""

    @property
    def identity(self) -> tuple[str, str, str, str]:
        version = "" if self.operation == APPLY else self.api_version
        return self.manager, self.operation, version, self.subresource


def read_entries(obj: Mapping[str, Any] | None) -> list[Entry]:
    """Return the entries of a stored object."""
    stored = (obj or {}).get("metadata", {}).get("managedFields") or ()
    return [_entry(one, one.get("fieldsV1") or {}) for one in stored]


def _entry(one: Mapping[str, Any], fields: FieldSet) -> Entry:
    return Entry(
        one.get("manager", ""),
        one.get("operation", ""),
        one.get("apiVersion", ""),
        fields,
        one.get("time") or "",
        one.get("subresource", ""),
    )


def write_entries(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Return entries as the API has them, in its order: applied ones first, then by time."""
    out = []
    for one in sorted(
        entries, key=lambda each: (each.operation, each.time, each.manager, each.api_version, each.subresource)
    ):
        written = {
            "manager": one.manager,
            "operation": one.operation,
            "apiVersion": one.api_version,
            "time": one.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": one.fields,
            "subresource": one.subresource,
        }
        out.append({name: value for name, value in written.items() if value != ""})
    return out


def taken_from(entries: Iterable[Entry], fields: FieldSet) -> list[Entry]:
    """Return ``entries`` after somebody else took ``fields``; those with nothing left are gone."""
    return _left(entries, fields, difference)


def removed_from(entries: Iterable[Entry], fields: FieldSet) -> list[Entry]:
    """Return ``entries`` after ``fields`` and all below them left the object; those with nothing left are gone."""
    return _left(entries, fields, subtract)


def _left(entries: Iterable[Entry], fields: FieldSet, without: Callable[[FieldSet, FieldSet], FieldSet]) -> list[Entry]:
    out = []
    for one in entries:
        left = without(one.fields, fields)
        if left:
            out.append(one if left is one.fields else replace(one, fields=left))
    return out


class Tracker:
    """Keeps managedFields for one kind; ``definition`` as for `Walker`."""

    def __init__(self, schemas: MergeSchema, definition: str | None) -> None:
        self.walker = Walker(schemas, definition)

    def updated(
        self,
        old: Mapping[str, Any] | None,
        new: Mapping[str, Any],
        *,
        manager: str,
        api_version: str,
        now: str,
        subresource: str = "",
        reset: FieldSet | None = None,
    ) -> list[dict[str, Any]]:
        """Return the managedFields of ``new``, which ``manager`` writes over ``old`` (None: creates).

        ``reset`` holds what this endpoint never writes (``{"f:status": {}}``); ``subresource`` is "" or such as "status".
        """
        entries, given = _start(old, new, subresource)
        changed, removed = self.walker.compare(old or {}, new)
        changed = subtract(changed, UNOWNED)
        removed = subtract(removed, UNOWNED)
        if reset:
            changed, removed = subtract(changed, reset), subtract(removed, reset)
        if not changed and not removed:
            return given if given is not None else write_entries(entries)
        mine = Entry(manager, UPDATE, api_version, changed, now, subresource)
        if removed:
            entries = removed_from(entries, removed)
        if changed:
            entries = _taken(entries, mine)
        return write_entries(_capped(entries))


def _start(
    old: Mapping[str, Any] | None, new: Mapping[str, Any], subresource: str
) -> tuple[list[Entry], list[dict[str, Any]] | None]:
    """The entries to begin with, and how they are stored already if nothing changes.

    What the client sent counts, unless it sent none, sent it to a subresource, or what it sent cannot be read; one empty entry
    means that it wants to forget all.
    """
    live = (old or {}).get("metadata", {}).get("managedFields")
    sent = new.get("metadata", {}).get("managedFields")
    if subresource or not sent or sent == live:
        return read_entries(old), live or []
    if sent == [{}]:
        return [], None
    try:
        entries = [_entry(one, check(one.get("fieldsV1") or {})) for one in sent]
    except (InvalidFieldSet, AttributeError):
        return read_entries(old), live or []
    if any(one.operation not in (APPLY, UPDATE) for one in entries):
        return read_entries(old), live or []
    return [one for one in entries if one.fields], None


def _taken(entries: list[Entry], mine: Entry) -> list[Entry]:
    """``entries`` after ``mine`` took its fields; they join what the same manager had."""
    out = []
    fields = mine.fields
    for one in entries:
        if one.identity == mine.identity:
            fields = union(one.fields, fields)
        else:
            out += taken_from([one], mine.fields)
    return [*out, replace(mine, fields=fields)]


def _capped(entries: list[Entry]) -> list[Entry]:
    """Merge the oldest update entries of each version until there are no more than the limit."""
    updates = [one for one in entries if one.operation == UPDATE]
    if len(updates) <= MAX_UPDATE_ENTRIES:
        return entries
    kept = [one for one in entries if one.operation != UPDATE]
    updates.sort(key=lambda one: (one.time, one.manager))
    excess = len(updates) - MAX_UPDATE_ENTRIES
    buckets: dict[str, list[Entry]] = {}
    for place, one in enumerate(updates):
        if excess <= 0:
            kept += updates[place:]
            break
        bucket = buckets.setdefault(one.api_version, [])
        excess -= bool(bucket)
        bucket.append(one)
    for version, merged in buckets.items():
        if len(merged) == 1:
            kept.append(merged[0])
            continue
        fields: FieldSet = {}
        for one in merged:
            fields = union(fields, one.fields)
        kept.append(Entry(ANCIENT, UPDATE, version, fields, merged[-1].time))
    return kept
