"""Claims stay as long as a pod uses them, and volumes as long as they are bound, whoever deletes them.

Errors  ApiError from the API goes to the work queue, which retries; a conflict is such a one.
State   None.
Source  kube-controller-manager's pvc-protection and pv-protection controllers: finalizers, what counts as use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Final

from edgesite.client import Controller, ObjectKey, Result, key_of
from edgesite.controlplane.cluster import Cluster, ControlPlaneModule
from edgesite.controlplane.persistentvolumes.matching import claims_of
from edgesite.controlplane.pods import is_terminal, is_terminating
from edgesite.kube.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS

__all__ = ["StorageProtectionModule"]

_CLAIM: Final = "kubernetes.io/pvc-protection"
_VOLUME: Final = "kubernetes.io/pv-protection"
_BY_CLAIM: Final = "protection-claim"
Object = dict[str, Any]


class StorageProtectionModule(ControlPlaneModule):
    """Lets claims and volumes go once nobody uses them."""

    name = "storageprotection"
    component = "pvc-protection-controller"

    async def control(self, cluster: Cluster, ready: Callable[[], None]) -> None:
        await StorageProtection(cluster).run(ready)


class StorageProtection:
    """Reconciles one claim (key with a namespace) or one volume (without) at a time."""

    def __init__(self, cluster: Cluster) -> None:
        ctx, informers = cluster.ctx, cluster.informers
        self._client = cluster.client
        self._claims = informers.of(PERSISTENT_VOLUME_CLAIMS)
        self._volumes = informers.of(PERSISTENT_VOLUMES)
        self._pods = informers.of(PODS)
        self._pods.add_index(_BY_CLAIM, _claim_keys)
        self._controller = Controller("storageprotection", self.reconcile, ctx.clock, ctx.random, log=ctx.log)

    async def run(self, ready: Callable[[], None]) -> None:
        """Control until cancelled."""
        add = self._controller.queue.add
        with ExitStack() as handlers:
            for informer in (self._claims, self._volumes):
                handlers.enter_context(informer.on_change(lambda one: add(key_of(one))))
            handlers.enter_context(self._pods.add_handler(None, self._pod_changed, self._pod_gone))
            await self._controller.run((self._claims, self._volumes, self._pods), ready=ready)

    def _pod_changed(self, old: Object, new: Object) -> None:
        if is_terminal(new) and not is_terminal(old):
            self._pod_gone(new)

    def _pod_gone(self, pod: Object) -> None:
        for name in claims_of(pod):
            self._controller.queue.add(ObjectKey(pod["metadata"].get("namespace", ""), name))

    async def reconcile(self, key: ObjectKey) -> Result | None:
        """Protect one, or let it go. Raises ApiError."""
        kind, cache, finalizer = PERSISTENT_VOLUMES, self._volumes, _VOLUME
        if key.namespace:
            kind, cache, finalizer = PERSISTENT_VOLUME_CLAIMS, self._claims, _CLAIM
        obj = cache.by_key(key)
        if obj is None:
            return None
        before = list(obj["metadata"].get("finalizers") or ())
        wanted = before
        if not is_terminating(obj):
            wanted = before if finalizer in before else [*before, finalizer]  # it is older than the protection
        elif finalizer in before and not await self._is_used(obj):
            wanted = [one for one in before if one != finalizer]
        if wanted != before:
            metadata = {"uid": obj["metadata"]["uid"], "resourceVersion": obj["metadata"]["resourceVersion"]}
            patch = {"metadata": {**metadata, "finalizers": wanted}}
            await self._client.patch(kind, key.name, patch, key.namespace, kind="merge")
        return None

    async def _is_used(self, obj: Object) -> bool:
        metadata = obj["metadata"]
        if not metadata.get("namespace"):
            return (obj.get("status") or {}).get("phase") == "Bound"
        if any(map(_uses_volumes, self._pods.by_index(_BY_CLAIM, f"{metadata['namespace']}/{metadata['name']}"))):
            return True
        pods = (await self._client.list(PODS, metadata["namespace"]))[
            "items"
        ]  # the cache may not have the last one yet
        return any(_uses_volumes(one) and metadata["name"] in claims_of(one) for one in pods)


def _uses_volumes(pod: Object) -> bool:
    """A pod without a node is kept from claims that are being deleted, and one that has ended has given its volumes back."""
    return bool(pod["spec"].get("nodeName")) and not is_terminal(pod)


def _claim_keys(pod: Object) -> Iterator[str]:
    return (f"{pod['metadata'].get('namespace', '')}/{name}" for name in sorted(claims_of(pod)))
