"""Server-side apply: one manager's wishes merged into an object, with the ownership of fields that resolves conflicts.

    applier = Applier(schemas, definition)
    obj = applier.apply(live, config, manager="kubectl", now="2026-01-02T03:04:05Z", force=False)

``config`` is what the client sent, decoded; ``live`` the stored object or None. The result carries its managedFields and still has to
be defaulted, admitted and validated; it is ``live`` itself if nothing changes. Fields that the manager applied before and does not name
any more are removed, unless somebody else owns them too.

kubectl's client-side annotation is honoured: conflicts over fields that it last applied itself, and that nobody changed since, are no
conflicts for manager "kubectl", and the annotation is kept up to date where it exists.

Errors  ApiError: 400 for a configuration that does not fit, 409 with a FieldManagerConflict cause for each field owned by others.
State   None.
Source  kubernetes.io, "Server-Side Apply"; apimachinery pkg/util/managedfields (texts, migration from last-applied).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from edgesite.kube import json
from edgesite.kube.apply_sets import FieldSet, difference, intersection, paths, subtract, union
from edgesite.kube.apply_typed import InvalidConfig, Walker
from edgesite.kube.errors import ApiError, bad_request
from edgesite.kube.managedfields import (
    APPLY,
    UNOWNED,
    UPDATE,
    Entry,
    read_entries,
    removed_from,
    taken_from,
    write_entries,
)
from edgesite.kube.patch import check_depth
from edgesite.kube.patch_strategic import MergeSchema

__all__ = ["LAST_APPLIED", "Applier"]

LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
KUBECTL: Final = "kubectl"
BEFORE_FIRST_APPLY: Final = "before-first-apply"  #: Owner of what was there before anybody was noted.


class Applier:
    """Applies configurations to objects of one kind; ``definition`` as for `Walker`."""

    def __init__(self, schemas: MergeSchema, definition: str | None) -> None:
        self._walker = Walker(schemas, definition)

    def apply(
        self,
        live: dict[str, Any] | None,
        config: Mapping[str, Any],
        *,
        manager: str,
        now: str,
        force: bool = False,
        subresource: str = "",
        reset: FieldSet | None = None,
    ) -> dict[str, Any]:
        """Return the merged object, or ``live`` if nothing changes. Raises ApiError.

        ``now`` is RFC 3339; ``reset`` holds what this endpoint never writes (``{"f:status": {}}``).
        """
        stored = live or {}
        wanted = self._fields(config, reset)
        entries = read_entries(live)
        if live is not None and not entries:
            entries = [self._before_first(live)]
        mine = Entry(manager, APPLY, config.get("apiVersion", ""), wanted, now, subresource)
        previous = next((one for one in entries if one.identity == mine.identity), None)
        others = [one for one in entries if one is not previous]

        merged = self._merged(stored, config, reset, previous, wanted, others)
        changed, removed = self._walker.compare(stored, merged)
        changed, removed = subtract(changed, UNOWNED), subtract(removed, UNOWNED)
        if live is not None and not force:
            self._refuse_conflicts(live, others, changed, manager)
        others = taken_from(removed_from(others, removed), changed)
        if manager == KUBECTL:
            merged = _with_last_applied(merged, config)
        same_fields = previous is not None and previous.fields == wanted and previous.api_version == mine.api_version
        if live is not None and same_fields and merged == live:
            return live
        metadata = dict(merged.get("metadata") or {})
        metadata["managedFields"] = write_entries([*others, mine] if wanted else others)
        merged["metadata"] = metadata
        return merged

    def _fields(self, config: Mapping[str, Any], reset: FieldSet | None) -> FieldSet:
        if (config.get("metadata") or {}).get("managedFields") is not None:
            raise bad_request("metadata.managedFields must be nil")
        check_depth(config)
        try:
            wanted = self._walker.fields_of(config)
        except InvalidConfig as exc:
            raise bad_request(f"failed to create typed patch object ({_shown(config)}): {exc}") from None
        wanted = subtract(wanted, UNOWNED)
        return subtract(wanted, reset) if reset else wanted

    def _before_first(self, live: Mapping[str, Any]) -> Entry:
        created = (live.get("metadata") or {}).get("creationTimestamp") or ""
        fields = subtract(self._walker.compare({}, live)[0], UNOWNED)
        return Entry(BEFORE_FIRST_APPLY, UPDATE, live.get("apiVersion", ""), fields, created)

    def _merged(
        self,
        stored: Mapping[str, Any],
        config: Mapping[str, Any],
        reset: FieldSet | None,
        previous: Entry | None,
        wanted: FieldSet,
        others: Sequence[Entry],
    ) -> dict[str, Any]:
        """The object with the configuration in it and without what the manager gave up."""
        skipped = {element[2:] for element, node in (reset or {}).items() if not node}
        config = {name: value for name, value in config.items() if name not in skipped}
        merged = self._walker.merge(stored, config)
        if previous is None or not previous.fields:
            return merged
        kept = wanted
        for one in others:
            kept = union(kept, one.fields)
        pruned = self._walker.prune(merged, previous.fields, kept)
        return self._walker.merge(pruned, config)  # what the configuration names is there, even if empty

    def _refuse_conflicts(
        self, live: Mapping[str, Any], others: Sequence[Entry], changed: FieldSet, manager: str
    ) -> None:
        """Raise ApiError if others own what would change."""
        allowed = self._last_applied_unchanged(live) if manager == KUBECTL else {}
        conflicts: list[tuple[str, str]] = []
        for one in others:
            theirs = difference(intersection(one.fields, changed), allowed)
            conflicts += [(_owner(one), path) for path in paths(theirs)]
        if conflicts:
            raise _conflict(sorted(conflicts))

    def _last_applied_unchanged(self, live: Mapping[str, Any]) -> FieldSet:
        """The fields that kubectl last applied on its own side and that still are as it left them."""
        text = ((live.get("metadata") or {}).get("annotations") or {}).get(LAST_APPLIED)
        if not text:
            return {}
        try:
            config = json.loads(text)
            applied = self._walker.fields_of(config)
        except (json.InvalidJson, InvalidConfig, AttributeError):
            return {}
        changed, removed = self._walker.compare(config, live)
        return difference(difference(applied, changed), removed)


def _with_last_applied(merged: dict[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Keep kubectl's own annotation up to date where it exists, so that client-side apply can be used again."""
    annotations = (merged.get("metadata") or {}).get("annotations") or {}
    if LAST_APPLIED not in annotations:
        return merged
    plain = dict(config)
    metadata = dict(plain.get("metadata") or {})
    if LAST_APPLIED in (given := metadata.get("annotations") or {}):
        metadata["annotations"] = {name: value for name, value in given.items() if name != LAST_APPLIED}
    plain["metadata"] = metadata
    text = json.dumps(plain).decode() + "\n"
    return {**merged, "metadata": {**merged["metadata"], "annotations": {**annotations, LAST_APPLIED: text}}}


def _shown(config: Mapping[str, Any]) -> str:
    metadata = config.get("metadata") or {}
    namespace, name = metadata.get("namespace") or "", metadata.get("name") or ""
    where = f"{namespace}/{name}" if namespace else f"/{name}"
    return f"{where}; {config.get('apiVersion')}, Kind={config.get('kind')}"


def _owner(entry: Entry) -> str:
    text = f'"{entry.manager}"'
    if entry.subresource:
        text += f' with subresource "{entry.subresource}"'
    return f"{text} using {entry.api_version}" if entry.operation == UPDATE else text


def _conflict(conflicts: Sequence[tuple[str, str]]) -> ApiError:
    """``conflicts``: owner and path, sorted."""
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {owner}", "field": path}
        for owner, path in conflicts
    ]
    if len(conflicts) == 1:
        owner, path = conflicts[0]
        return ApiError(
            409, "Conflict", f"Apply failed with 1 conflict: conflict with {owner}: {path}", {"causes": causes}
        )
    lines: list[str] = []
    last = ""
    for owner, path in conflicts:
        if owner != last:
            lines.append(f"conflicts with {owner}:")
            last = owner
        lines.append(f"- {path}")
    message = f"Apply failed with {len(conflicts)} conflicts: " + "\n".join(lines)
    return ApiError(409, "Conflict", message, {"causes": causes})
