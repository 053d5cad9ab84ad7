"""Revisions of a template, kept as ControllerRevisions: what ``kubectl rollout history`` and ``undo`` read.

A pod says by its label controller-revision-hash of which revision it is: pods of DaemonSets by the digest alone, those of StatefulSets
by the revision's whole name.

Errors  ApiError from the API.
State   None: the revisions are in the API.
Source  apps/v1 ControllerRevision; kube-controller-manager (form of the data, label controller-revision-hash).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from edgesite.controlplane.deployment.revisions import template_hash
from edgesite.controlplane.ownership import reference_to
from edgesite.controlplane.podcontrol import namespace_is_ending
from edgesite.controlplane.pods import controller_of
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import CONTROLLER_REVISIONS

if TYPE_CHECKING:
    from edgesite.client import Client
    from edgesite.kube.resources import Resource

__all__ = ["HASH_LABEL", "History", "digest_of", "find", "name_of", "outdated", "template_of"]

HASH_LABEL: Final = "controller-revision-hash"
Object = dict[str, Any]


def data_of(owner: Object) -> Object:
    """Return what a revision records: a patch that brings the template back."""
    return {"spec": {"template": {**owner["spec"]["template"], "$patch": "replace"}}}


def template_of(revision: Object) -> Object:
    """Return the template that a revision records."""
    return {name: value for name, value in revision["data"]["spec"]["template"].items() if name != "$patch"}


def find(owner: Object, revisions: Iterable[Object]) -> Object | None:
    """Return the revision of the current template; of several, the newest."""
    wanted = data_of(owner)
    return max((one for one in revisions if one.get("data") == wanted), key=_number, default=None)


def newest(revisions: Iterable[Object]) -> int:
    return max((_number(one) for one in revisions), default=0)


def digest_of(revision: Object) -> str:
    return str((revision["metadata"].get("labels") or {}).get(HASH_LABEL, ""))


def name_of(revision: Object) -> str:
    return str(revision["metadata"]["name"])


def make(owner: Object, resource: Resource, number: int, collisions: int) -> Object:
    """Return the revision of the current template, not yet written."""
    meta = owner["metadata"]
    digest = template_hash(owner["spec"]["template"], collisions)
    labels = (owner["spec"]["template"].get("metadata") or {}).get("labels") or {}
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": f"{meta['name']}-{digest}",
            "namespace": meta["namespace"],
            "labels": {**labels, HASH_LABEL: digest},
            "annotations": dict(meta.get("annotations") or {}),
            "ownerReferences": [reference_to(owner, resource)],
        },
        "data": data_of(owner),
        "revision": number,
    }


def outdated(owner: Object, revisions: Sequence[Object], in_use: set[str]) -> list[Object]:
    """Return the revisions beyond the limit, the oldest first; those that pods still have, by digest or name, are kept."""
    limit = owner["spec"].get("revisionHistoryLimit")
    if limit is None:
        return []
    idle = sorted((one for one in revisions if not {digest_of(one), name_of(one)} & in_use), key=_number)
    return idle[: max(len(idle) - int(limit), 0)]


def _number(revision: Object) -> int:
    return int(revision.get("revision") or 0)


class History:
    """Writes the revisions of owners of one kind."""

    def __init__(self, client: Client, resource: Resource) -> None:
        self._client, self._resource = client, resource

    async def settle(self, owner: Object, revisions: list[Object]) -> Object | None:
        """Make sure that the current template is the newest revision; None: it cannot be recorded there. Raises ApiError."""
        current = find(owner, revisions)
        if current is None:
            collisions = int((owner.get("status") or {}).get("collisionCount") or 0)
            fresh = make(owner, self._resource, newest(revisions) + 1, collisions)
            try:
                return await self._client.create(CONTROLLER_REVISIONS, fresh)
            except ApiError as exc:
                if namespace_is_ending(exc):
                    return None
                if exc.reason != "AlreadyExists":
                    raise
            return await self._same_or_collision(owner, fresh, collisions)
        others = newest([each for each in revisions if each is not current])
        if int(current["revision"]) <= others:
            return await self._client.update(CONTROLLER_REVISIONS, {**current, "revision": others + 1})
        return current

    async def trim(self, owner: Object, revisions: list[Object], in_use: set[str]) -> None:
        """Delete what is beyond the limit of the owner. Raises ApiError."""
        for revision in outdated(owner, revisions, in_use):
            meta = revision["metadata"]
            try:
                await self._client.delete(CONTROLLER_REVISIONS, meta["name"], meta["namespace"], uid=meta["uid"])
            except ApiError as exc:
                if exc.code != 404:
                    raise

    async def _same_or_collision(self, owner: Object, fresh: Object, collisions: int) -> Object:
        """The name is taken: by our own revision that the cache lacks, or by another's, then the hash must change."""
        meta = fresh["metadata"]
        there = await self._client.get(CONTROLLER_REVISIONS, meta["name"], meta["namespace"])
        if there.get("data") == fresh["data"] and (controller_of(there) or {}).get("uid") == owner["metadata"]["uid"]:
            return there
        status = {**(owner.get("status") or {}), "collisionCount": collisions + 1}
        await self._client.update_status(self._resource, {**owner, "status": status})
        raise ApiError(409, "Conflict", f"revision {meta['name']} is of another template; trying another name")
