"""Claims that pods bring with them, made and owned: the garbage collector removes them with their pods.

Errors  ApiError from the API goes to the work queue, which retries.
State   None.
Source  core/v1 EphemeralVolumeSource; kube-controller-manager's ephemeral volume controller: names, owner, words of its event.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from edgesite.client import Controller, ObjectKey, Result, key_of
from edgesite.controlplane.cluster import Cluster, ControlPlaneModule
from edgesite.controlplane.pods import controller_of, is_terminating
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import PERSISTENT_VOLUME_CLAIMS, PODS

__all__ = ["EphemeralVolumeModule"]

Object = dict[str, Any]


class EphemeralVolumeModule(ControlPlaneModule):
    """Makes the claims of generic ephemeral volumes."""

    name = "ephemeralvolume"
    component = "ephemeral-volume-controller"

    async def control(self, cluster: Cluster, ready: Callable[[], None]) -> None:
        await EphemeralVolumes(cluster).run(ready)


class EphemeralVolumes:
    """Reconciles one pod at a time."""

    def __init__(self, cluster: Cluster) -> None:
        ctx = cluster.ctx
        self._client, self._recorder = cluster.client, cluster.recorder
        self._pods = cluster.informers.of(PODS)
        self._claims = cluster.informers.of(PERSISTENT_VOLUME_CLAIMS)
        self._controller = Controller("ephemeralvolume", self.reconcile, ctx.clock, ctx.random, workers=1, log=ctx.log)

    async def run(self, ready: Callable[[], None]) -> None:
        """Control until cancelled."""
        with ExitStack() as handlers:
            handlers.enter_context(self._pods.add_handler(self._pod_seen, lambda old, new: None))
            handlers.enter_context(self._claims.add_handler(deleted=self._claim_gone))
            await self._controller.run((self._pods, self._claims), ready=ready)

    def _pod_seen(self, pod: Object) -> None:
        if any(one.get("ephemeral") for one in pod["spec"].get("volumes") or ()):
            self._controller.queue.add(key_of(pod))

    def _claim_gone(self, claim: Object) -> None:
        owner = controller_of(claim) or {}
        if owner.get("kind") == "Pod":
            self._controller.queue.add(ObjectKey(claim["metadata"]["namespace"], owner["name"]))

    async def reconcile(self, key: ObjectKey) -> Result | None:
        """Make the claims that a pod lacks. Raises ApiError."""
        pod = self._pods.by_key(key)
        if pod is None or is_terminating(pod):
            return None
        for volume in pod["spec"].get("volumes") or ():
            if (source := volume.get("ephemeral")) is not None:
                await self._ensure(pod, volume["name"], (source or {}).get("volumeClaimTemplate") or {})
        return None

    async def _ensure(self, pod: Object, volume: str, template: Object) -> None:
        metadata, namespace = pod["metadata"], pod["metadata"]["namespace"]
        name = f"{metadata['name']}-{volume}"
        found = self._claims.get(name, namespace)
        if found is not None:
            self._check(pod, found)
            return
        owner = {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": metadata["name"],
            "uid": metadata.get("uid", ""),
            "controller": True,
            "blockOwnerDeletion": True,
        }
        given = {
            one: value for one, value in (template.get("metadata") or {}).items() if one in ("labels", "annotations")
        }
        claim = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {**given, "name": name, "namespace": namespace, "ownerReferences": [owner]},
            "spec": template.get("spec") or {},
        }
        try:
            await self._client.create(PERSISTENT_VOLUME_CLAIMS, claim)
        except ApiError as exc:
            if exc.reason != "AlreadyExists":  # else the cache is behind: it comes, and is looked at
                self._recorder.event(pod, "Warning", "FailedEphemeralVolume", f"creating claim {name}: {exc.message}")
                raise

    def _check(self, pod: Object, claim: Object) -> None:
        if (controller_of(claim) or {}).get("uid") != pod["metadata"].get("uid"):
            name = claim["metadata"]["name"]
            text = f"PVC {claim['metadata']['namespace']}/{name} was not created for the pod"
            self._recorder.event(pod, "Warning", "FailedEphemeralVolume", text)
