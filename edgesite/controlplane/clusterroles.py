"""Cluster roles that are joined from others: the rules of every role that the selectors find, kept up to date.

Any change of a role is a reason to look at all: there are few roles, and they seldom change. Only their metadata is cached.

Errors  ApiError from the API goes to the work queue, which retries.
State   In the API.
Source  Kubernetes documentation "Using RBAC Authorization" (aggregated ClusterRoles): roles in order of their names, each rule once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from edgesite.client import Controller, ObjectKey, Result
from edgesite.controlplane.cluster import Cluster, ControlPlaneModule
from edgesite.kube import selectors
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import CLUSTER_ROLES

__all__ = ["ClusterRoleModule", "aggregated"]

Object = dict[str, Any]
_ALL: Final = ObjectKey("", "*")


class ClusterRoleModule(ControlPlaneModule):
    """Keeps admin, edit and view, and whatever else is joined, complete."""

    name = "clusterrole-aggregation"
    component = "clusterrole-aggregation-controller"

    async def control(self, cluster: Cluster, ready: Callable[[], None]) -> None:
        ctx, client = cluster.ctx, cluster.client
        roles = cluster.informers.of(CLUSTER_ROLES, metadata_only=True)

        async def reconcile(key: ObjectKey) -> Result | None:
            """Raises ApiError."""
            found = (await client.list(CLUSTER_ROLES)).get("items") or []
            for role in found:
                if role.get("aggregationRule") is None:
                    continue
                rules = aggregated(role, found)
                if rules != (role.get("rules") or []):
                    try:
                        await client.update(CLUSTER_ROLES, {**role, "rules": rules})
                    except ApiError as exc:
                        if exc.code not in (404, 409):  # these bring an event of their own
                            raise
            return None

        controller = Controller(self.name, reconcile, ctx.clock, ctx.random, workers=1, log=ctx.log)
        with roles.on_change(lambda role: controller.queue.add(_ALL)):
            await controller.run((roles,), ready=ready)


def aggregated(role: Object, roles: Sequence[Object]) -> list[Object]:
    """The rules that a role gets from those that its selectors find."""
    rules: list[Object] = []
    for given in role["aggregationRule"].get("clusterRoleSelectors") or ():
        try:
            selector = selectors.from_object(given)
        except selectors.InvalidSelector:
            continue  # validated when it was written
        for other in sorted(roles, key=lambda one: str(one["metadata"]["name"])):
            metadata = other["metadata"]
            if metadata["name"] != role["metadata"]["name"] and selector.matches(metadata.get("labels") or {}):
                rules.extend(rule for rule in other.get("rules") or () if rule not in rules)
    return rules
