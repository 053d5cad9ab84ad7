"""The persistent volume binder as a module: brings claims and volumes together, and lets go of volumes whose claim is gone.

A class that binds when first used waits until the scheduler has selected a node, or a pod is on one, and takes a volume that this
node can reach. Where a class names a provisioner of others, the claim is marked for it: the volume that it makes is then bound.

Errors  ApiError from the API goes to the work queue, which retries; a conflict is such a one.
State   None: everything is in the API. A bind that was cut off between its two writes goes on where it stands.
Source  kube-controller-manager's persistent volume controller: phases, annotations; it also provisions, which this does not.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

from edgesite.client import Controller, ObjectKey, Result, key_of
from edgesite.controlplane.cluster import Cluster, ControlPlaneModule
from edgesite.controlplane.persistentvolumes.matching import (
    ON_FIRST_USE,
    SELECTED_NODE,
    amount_of,
    choose,
    claims_of,
    class_of,
    is_claimed_by,
    provisioner_of,
    reachable_from,
)
from edgesite.controlplane.pods import is_terminating
from edgesite.kube.resources import NODES, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, STORAGE_CLASSES
from edgesite.kube.storage import class_of as class_named
from edgesite.kube.storage import default_class

__all__ = ["PersistentVolumeModule", "VolumeBinder"]

BY_CONTROLLER: Final = "pv.kubernetes.io/bound-by-controller"
PROVISIONER: Final = "volume.kubernetes.io/storage-provisioner"
OLD_PROVISIONER: Final = "volume.beta.kubernetes.io/storage-provisioner"
COMPLETE: Final = "pv.kubernetes.io/bind-completed"
Object = dict[str, Any]


class PersistentVolumeModule(ControlPlaneModule):
    """Binds claims to volumes."""

    name = "persistentvolume"
    component = "persistentvolume-controller"

    async def control(self, cluster: Cluster, ready: Callable[[], None]) -> None:
        await VolumeBinder(cluster).run(ready)


class VolumeBinder:
    """Reconciles one claim (key with a namespace) or one volume (without) at a time: two binds at once might take one volume."""

    def __init__(self, cluster: Cluster) -> None:
        ctx, informers = cluster.ctx, cluster.informers
        self._client, self._recorder = cluster.client, cluster.recorder
        self._claims = informers.of(PERSISTENT_VOLUME_CLAIMS)
        self._volumes = informers.of(PERSISTENT_VOLUMES)
        self._classes = informers.of(STORAGE_CLASSES)
        self._pods = informers.of(PODS)
        self._nodes = informers.of(NODES)
        self._controller = Controller("persistentvolume", self.reconcile, ctx.clock, ctx.random, workers=1, log=ctx.log)

    async def run(self, ready: Callable[[], None]) -> None:
        """Control until cancelled."""
        add = self._controller.queue.add
        with ExitStack() as handlers:
            handlers.enter_context(self._claims.on_change(lambda one: add(key_of(one))))
            handlers.enter_context(self._claims.add_handler(deleted=self._claim_gone))
            handlers.enter_context(self._volumes.on_change(self._volume_changed))
            handlers.enter_context(self._classes.on_change(lambda one: self._look_at_waiting()))
            handlers.enter_context(self._pods.on_change(self._pod_changed))
            caches = (self._claims, self._volumes, self._classes, self._pods, self._nodes)
            await self._controller.run(caches, ready=ready)

    def _claim_gone(self, claim: Object) -> None:
        if name := (claim.get("spec") or {}).get("volumeName"):
            self._controller.queue.add(ObjectKey("", name))

    def _volume_changed(self, volume: Object) -> None:
        self._controller.queue.add(key_of(volume))
        self._look_at_waiting()

    def _look_at_waiting(self) -> None:
        for claim in self._claims.list():
            if (claim.get("status") or {}).get("phase") != "Bound":
                self._controller.queue.add(key_of(claim))

    def _pod_changed(self, pod: Object) -> None:
        if (pod.get("spec") or {}).get("nodeName"):
            for name in claims_of(pod):
                self._controller.queue.add(ObjectKey(pod["metadata"]["namespace"], name))

    async def reconcile(self, key: ObjectKey) -> Result | None:
        """Bring one claim or volume forward. Raises ApiError."""
        if key.namespace:
            claim = self._claims.by_key(key)
            if claim is not None and not is_terminating(claim):
                await self._claim(claim)
        elif (volume := self._volumes.by_key(key)) is not None:
            await self._volume(volume)
        return None

    async def _claim(self, claim: Object) -> None:
        status = claim.get("status") or {}
        if status.get("phase") == "Bound" and (claim["spec"].get("volumeName") or "") != "":
            self._tell_of_growth(claim)
            return
        volume = self._find(claim)
        if volume is None:
            claim = await self._give_class(claim)
            if not status.get("phase"):
                claim = await self._client.update_status(
                    PERSISTENT_VOLUME_CLAIMS, {**claim, "status": {"phase": "Pending"}}
                )
            await self._mark_for_provisioner(claim)
            return
        volume = await self._bind_volume(volume, claim)
        claim = await self._bind_claim(claim, volume)
        spec = volume["spec"]
        shown = {"phase": "Bound", "accessModes": spec.get("accessModes") or [], "capacity": spec.get("capacity") or {}}
        await self._client.update_status(PERSISTENT_VOLUME_CLAIMS, {**claim, "status": {**status, **shown}})

    async def _give_class(self, claim: Object) -> Object:
        """Let a claim that names no class have the default one, if there is one by now. Raises ApiError."""
        if class_named(claim) is not None or (found := default_class(self._classes.list())) is None:
            return claim
        spec = {**claim["spec"], "storageClassName": found["metadata"]["name"]}
        return await self._client.update(PERSISTENT_VOLUME_CLAIMS, {**claim, "spec": spec})

    def _tell_of_growth(self, claim: Object) -> None:
        """Say who has to make a volume larger, if its claim wants that: the resizer of its driver, which is another's."""
        requests = (claim["spec"].get("resources") or {}).get("requests") or {}
        capacity = (claim.get("status") or {}).get("capacity") or {}
        if amount_of(requests.get("storage")) <= amount_of(capacity.get("storage")):
            return
        volume = self._volumes.get(claim["spec"]["volumeName"])
        if volume is not None and "csi" in volume["spec"]:
            text = "waiting for an external controller to expand this PVC"
            self._recorder.event(claim, "Normal", "ExternalExpanding", text)
        elif volume is not None:
            text = "Ignoring the PVC: didn't find a plugin capable of expanding the volume; waiting for an external controller to process this PVC."
            self._recorder.event(claim, "Warning", "ExternalExpanding", text)

    def _find(self, claim: Object) -> Object | None:
        """The volume that the claim names, or the one to be chosen now."""
        if name := claim["spec"].get("volumeName"):
            named = self._volumes.get(name)
            free = named is not None and (not named["spec"].get("claimRef") or is_claimed_by(named, claim))
            return named if free else None
        candidates = self._volumes.list()
        if kept := next((one for one in candidates if is_claimed_by(one, claim)), None):
            return kept  # also where the node is another one by now: a bind is never begun twice
        if self._waits_for_use(claim):
            nodes = self._nodes_of(claim)
            if not nodes:
                return None
            candidates = [one for one in candidates if all(reachable_from(one, *node) for node in nodes)]
        found = choose(claim, candidates)
        return dict(found) if found is not None else None

    async def _mark_for_provisioner(self, claim: Object) -> None:
        """Let the provisioner of the claim's class know that it is its turn."""
        name = provisioner_of(self._classes.get(class_of(claim)))
        annotations = claim["metadata"].get("annotations") or {}
        ready = not self._waits_for_use(claim) or annotations.get(SELECTED_NODE)
        if not name or not ready or claim["spec"].get("volumeName") or annotations.get(PROVISIONER) == name:
            return
        metadata = {**claim["metadata"], "annotations": {**annotations, PROVISIONER: name, OLD_PROVISIONER: name}}
        await self._client.update(PERSISTENT_VOLUME_CLAIMS, {**claim, "metadata": metadata})
        text = f"Waiting for a volume to be created either by the external provisioner '{name}' or manually by the system administrator."
        self._recorder.event(claim, "Normal", "ExternalProvisioning", text)

    def _waits_for_use(self, claim: Object) -> bool:
        storage_class = self._classes.get(class_of(claim))
        return storage_class is not None and storage_class.get("volumeBindingMode") == ON_FIRST_USE

    def _nodes_of(self, claim: Object) -> list[tuple[str, dict[str, str]]]:
        """Nodes of the pods that use a claim, with their labels."""
        metadata = claim["metadata"]
        names = {
            pod["spec"].get("nodeName"): None
            for pod in self._pods.list(metadata["namespace"])
            if metadata["name"] in claims_of(pod)
        } | {(metadata.get("annotations") or {}).get(SELECTED_NODE): None}
        found = [self._nodes.get(name) for name in names if name]
        return [(one["metadata"]["name"], one["metadata"].get("labels") or {}) for one in found if one is not None]

    async def _bind_volume(self, volume: Object, claim: Object) -> Object:
        metadata = claim["metadata"]
        reference = volume["spec"].get("claimRef") or {}
        if reference.get("uid") != metadata["uid"]:
            wanted = {
                "kind": "PersistentVolumeClaim",
                "apiVersion": "v1",
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
                "resourceVersion": metadata.get("resourceVersion", ""),
            }
            annotated = volume if reference else _annotated(volume, BY_CONTROLLER)
            volume = await self._client.update(
                PERSISTENT_VOLUMES, {**annotated, "spec": {**volume["spec"], "claimRef": wanted}}
            )
        if (volume.get("status") or {}).get("phase") != "Bound":
            volume = await self._client.update_status(PERSISTENT_VOLUMES, {**volume, "status": {"phase": "Bound"}})
        return volume

    async def _bind_claim(self, claim: Object, volume: Object) -> Object:
        marks = [COMPLETE] if claim["spec"].get("volumeName") else [COMPLETE, BY_CONTROLLER]
        if all(one in (claim["metadata"].get("annotations") or {}) for one in marks) and claim["spec"].get(
            "volumeName"
        ):
            return claim
        spec = {**claim["spec"], "volumeName": volume["metadata"]["name"]}
        return await self._client.update(PERSISTENT_VOLUME_CLAIMS, {**_annotated(claim, *marks), "spec": spec})

    async def _volume(self, volume: Object) -> None:
        """Tell whether a volume is free, bound, or left by its claim. What it holds is never touched here."""
        reference = volume["spec"].get("claimRef")
        phase = "Available"
        if reference:
            claim = self._claims.get(reference.get("name", ""), reference.get("namespace", ""))
            ours = claim is not None and is_claimed_by(volume, claim)
            if not reference.get("uid"):
                return  # kept for a claim that is to come
            phase = "Bound" if ours else "Released"
            if ours and (claim or {}).get("spec", {}).get("volumeName") != volume["metadata"]["name"]:
                return  # the bind is under way
        if (volume.get("status") or {}).get("phase") != phase:
            await self._client.update_status(PERSISTENT_VOLUMES, {**volume, "status": {"phase": phase}})


def _annotated(obj: Object, *names: str) -> Object:
    metadata = obj["metadata"]
    annotations = {**(metadata.get("annotations") or {}), **dict.fromkeys(names, "yes")}
    return {**obj, "metadata": {**metadata, "annotations": annotations}}
