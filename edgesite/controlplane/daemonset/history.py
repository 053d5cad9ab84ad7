"""The revisions of a DaemonSet, kept as ControllerRevisions: what ``kubectl rollout history`` and ``undo`` read. Pure.

Source  apps/v1 ControllerRevision; kube-controller-manager (form of the data, label controller-revision-hash).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from edgesite.controlplane.daemonset.placement import HASH_LABEL
from edgesite.controlplane.deployment.revisions import template_hash
from edgesite.controlplane.ownership import reference_to
from edgesite.kube.resources import DAEMON_SETS

__all__ = ["data_of", "digest_of", "find", "make", "newest", "outdated"]

Object = dict[str, Any]


def data_of(daemon_set: Object) -> Object:
    """Return what a revision records: a patch that brings the template back."""
    return {"spec": {"template": {**daemon_set["spec"]["template"], "$patch": "replace"}}}


def find(daemon_set: Object, revisions: Iterable[Object]) -> Object | None:
    """Return the revision of the current template; of several, the newest."""
    wanted = data_of(daemon_set)
    return max((one for one in revisions if one.get("data") == wanted), key=_number, default=None)


def newest(revisions: Iterable[Object]) -> int:
    return max((_number(one) for one in revisions), default=0)


def digest_of(revision: Object) -> str:
    return str((revision["metadata"].get("labels") or {}).get(HASH_LABEL, ""))


def make(daemon_set: Object, number: int, collisions: int) -> Object:
    """Return the revision of the current template, not yet written."""
    meta = daemon_set["metadata"]
    digest = template_hash(daemon_set["spec"]["template"], collisions)
    labels = (daemon_set["spec"]["template"].get("metadata") or {}).get("labels") or {}
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": f"{meta['name']}-{digest}",
            "namespace": meta["namespace"],
            "labels": {**labels, HASH_LABEL: digest},
            "annotations": dict(meta.get("annotations") or {}),
            "ownerReferences": [reference_to(daemon_set, DAEMON_SETS)],
        },
        "data": data_of(daemon_set),
        "revision": number,
    }


def outdated(daemon_set: Object, revisions: Sequence[Object], in_use: set[str]) -> list[Object]:
    """Return the revisions beyond the limit, the oldest first; those that pods still have are kept."""
    limit = daemon_set["spec"].get("revisionHistoryLimit")
    if limit is None:
        return []
    idle = sorted((one for one in revisions if digest_of(one) not in in_use), key=_number)
    return idle[: max(len(idle) - int(limit), 0)]


def _number(revision: Object) -> int:
    return int(revision.get("revision") or 0)
