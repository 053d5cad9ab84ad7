"""Brings the default roles and bindings to what they must at least hold; what users have added to them stays.

An object whose annotation rbac.authorization.kubernetes.io/autoupdate is "false" is left alone.

Errors  ApiError, but for those that a concurrent writer explains.
State   In the store.
Source  Kubernetes documentation "Using RBAC Authorization" (auto-reconciliation).
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.apiserver.authn import User
from edgesite.apiserver.rbacdefaults import AUTOUPDATE, bindings, cluster_roles, roles
from edgesite.apiserver.strategies.base import Write
from edgesite.kube.errors import ApiError
from edgesite.kube.options import DeleteOptions
from edgesite.kube.rbac import compact, uncovered
from edgesite.kube.resources import CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES

if TYPE_CHECKING:
    from edgesite.apiserver.registry import Registry

__all__ = ["reconcile_roles"]

Object = dict[str, Any]
_USER: Final = User("system:apiserver", ("system:masters",))
_MANAGER: Final = "kube-apiserver"
_ROWS: Final = {row.kind: row for row in (CLUSTER_ROLES, ROLES, CLUSTER_ROLE_BINDINGS, ROLE_BINDINGS)}


async def reconcile_roles(registry: Registry) -> None:
    """Create what is missing, complete what is there. Raises ApiError."""
    async with anyio.create_task_group() as tasks:  # together they share commits
        for wanted in (*cluster_roles(), *roles(), *bindings()):
            tasks.start_soon(_reconcile, registry, wanted)


async def _reconcile(registry: Registry, wanted: Object) -> None:
    kind = registry.kinds.of(_ROWS[wanted["kind"]])
    name, namespace = wanted["metadata"]["name"], wanted["metadata"].get("namespace", "")
    found = registry.find(kind, namespace, name)

    def write(operation: str) -> Write:
        now = registry.clock.time()
        return Write(operation, kind, namespace, name, "", _USER, now, registry, manager=_MANAGER)

    try:
        if found is not None and _leaves_role(found, wanted):
            await registry.delete(write("DELETE"), DeleteOptions())  # a binding cannot change its role
            found = None
        if found is None:
            await registry.create(write("CREATE"), wanted)
        elif completed(found, wanted) != found:
            await registry.change(write("UPDATE"), lambda old: completed(old, wanted))
    except ApiError as exc:
        if exc.reason not in ("AlreadyExists", "NotFound"):  # else somebody was quicker: the next start looks again
            raise


def _is_protected(found: Object) -> bool:
    return (found["metadata"].get("annotations") or {}).get(AUTOUPDATE) == "false"


def _leaves_role(found: Object, wanted: Object) -> bool:
    return "roleRef" in wanted and not _is_protected(found) and found["roleRef"] != wanted["roleRef"]


def completed(found: Object, wanted: Object) -> Object:
    """What is there, with what it lacks of what is wanted."""
    if _is_protected(found):
        return found
    new = copy.deepcopy(found)
    for field in ("labels", "annotations"):
        held = new["metadata"].get(field) or {}
        new["metadata"][field] = {**wanted["metadata"][field], **held}
    if "subjects" in wanted:
        held = new.get("subjects") or []
        new["subjects"] = [*held, *(one for one in wanted["subjects"] if one not in held)]
    if "aggregationRule" in wanted:
        held = (new.get("aggregationRule") or {}).get("clusterRoleSelectors") or []
        more = [one for one in wanted["aggregationRule"]["clusterRoleSelectors"] if one not in held]
        new["aggregationRule"] = {"clusterRoleSelectors": [*held, *more]}
    elif wanted.get("rules"):
        held = new.get("rules") or []
        if held != wanted["rules"]:
            new["rules"] = [*held, *compact(uncovered(held, wanted["rules"]))]
    return new
