"""The attach controller as a module: one VolumeAttachment for each volume and node that a pod brings together.

Drivers whose CSIDriver says that nothing is to be attached have none. A pod that has run to its end needs none any more. An edge gives
the volumes of a pod back before it deletes the object; but a pod may have been deleted by force, or evicted from a node that is out
of reach. So what a node still names in ``volumesInUse`` stays attached: two nodes that write to one disk destroy it. Only a node that
has not been ready for ``FORCE_S`` is not waited for.

A node begins to use a volume only while ``volumesAttached`` of its status has it, after it has said so in ``volumesInUse``. So a volume is
taken out of that list first, by a write that fails if the node has said anything since it was looked at, and detached then.

Units   Seconds.
Errors  ApiError from the API goes to the work queue, which retries.
State   Since when attachments have not been needed, in memory: after a restart a node that is away is waited for anew.
Source  storage/v1 VolumeAttachment; core/v1 NodeStatus (volumesInUse, volumesAttached); kube-controller-manager's attach-detach controller: names of
        attachments, a driver without a CSIDriver is attached, six minutes for a node that is not ready.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Final

from edgesite.client import Controller, ObjectKey, Result
from edgesite.controlplane.cluster import Cluster, ControlPlaneModule
from edgesite.controlplane.persistentvolumes.matching import claims_of
from edgesite.controlplane.pods import condition, is_terminal, is_terminating
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import (
    CSI_DRIVERS,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    VOLUME_ATTACHMENTS,
)

__all__ = ["AttachModule", "attachment_name"]

_OURS: Final = re.compile(r"csi-[0-9a-f]{64}")
_CLAIM: Final = "attach-claim"
_NODE: Final = "node"  #: in place of a namespace, in keys of nodes
_CSI: Final = "kubernetes.io/csi/"
FORCE_S: Final = 360.0
AGAIN_S: Final = 1.0
Object = dict[str, Any]


def attachment_name(handle: str, driver: str, node: str) -> str:
    """Return the name under which a node looks for the attachment of a volume."""
    return f"csi-{hashlib.sha256(f'{handle}{driver}{node}'.encode()).hexdigest()}"


class AttachModule(ControlPlaneModule):
    """Has volumes attached and detached."""

    name = "attachdetach"
    component = "attachdetach-controller"

    async def control(self, cluster: Cluster, ready: Callable[[], None]) -> None:
        await AttachController(cluster).run(ready)


class AttachController:
    """Reconciles one PersistentVolume at a time (on which nodes it is needed, which attachments it has) or one node: what it may use."""

    def __init__(self, cluster: Cluster) -> None:
        ctx, informers = cluster.ctx, cluster.informers
        self._client, self._clock = cluster.client, ctx.clock
        self._nodes = informers.of(NODES)
        self._pods = informers.of(PODS)
        self._claims = informers.of(PERSISTENT_VOLUME_CLAIMS)
        self._volumes = informers.of(PERSISTENT_VOLUMES)
        self._drivers = informers.of(CSI_DRIVERS)
        self._attachments = informers.of(VOLUME_ATTACHMENTS)
        self._pods.add_index(_CLAIM, _claim_keys)
        self._leaving: dict[
            str, str
        ] = {}  # attachments that have been deleted, with their uids, until the cache shows it
        self._unneeded: dict[str, float] = {}  # attachments that a node still uses: since when nobody needs them
        self._controller = Controller("attachdetach", self.reconcile, ctx.clock, ctx.random, workers=1, log=ctx.log)

    async def run(self, ready: Callable[[], None]) -> None:
        """Control until cancelled."""
        with ExitStack() as handlers:
            handlers.enter_context(
                self._pods.add_handler(self._pod_seen, lambda old, new: self._pod_changed(old, new), self._pod_seen)
            )
            handlers.enter_context(self._claims.on_change(self._claim_seen))
            handlers.enter_context(self._volumes.on_change(lambda one: self._add(one["metadata"]["name"])))
            handlers.enter_context(self._drivers.on_change(lambda one: self._all()))
            handlers.enter_context(
                self._attachments.add_handler(
                    self._attachment_seen, lambda old, new: self._attachment_seen(new), self._attachment_seen
                )
            )
            handlers.enter_context(self._nodes.add_handler(self._node_added, self._node_changed, self._node_gone))
            caches = (self._pods, self._claims, self._volumes, self._drivers, self._attachments, self._nodes)
            await self._controller.run(caches, ready=ready)

    def _add(self, volume: str) -> None:
        self._controller.queue.add(ObjectKey("", volume))

    def _all(self) -> None:
        for volume in self._volumes.list():
            self._add(volume["metadata"]["name"])

    def _pod_changed(self, old: Object, new: Object) -> None:
        if old["spec"].get("nodeName") != new["spec"].get("nodeName") or is_terminal(old) != is_terminal(new):
            self._pod_seen(new)

    def _pod_seen(self, pod: Object) -> None:
        for name in claims_of(pod):
            claim = self._claims.get(name, pod["metadata"]["namespace"])
            if claim is not None:
                self._claim_seen(claim)

    def _claim_seen(self, claim: Object) -> None:
        if volume := (claim.get("spec") or {}).get("volumeName"):
            self._add(volume)

    def _attachment_seen(self, attachment: Object) -> None:
        if volume := ((attachment.get("spec") or {}).get("source") or {}).get("persistentVolumeName"):
            self._add(volume)
        self._controller.queue.add(ObjectKey(_NODE, _node_of(attachment)))

    def _node_added(self, node: Object) -> None:
        self._controller.queue.add(ObjectKey(_NODE, node["metadata"]["name"]))

    def _node_changed(self, old: Object, new: Object) -> None:
        if _usable(old) != _usable(new):
            self._node_added(new)
        if _in_use(old) != _in_use(new) and self._unneeded:
            self._node_gone(new)

    def _node_gone(self, node: Object) -> None:
        for attachment in self._attachments.list():
            if attachment["metadata"]["name"] in self._unneeded and _node_of(attachment) == node["metadata"]["name"]:
                self._attachment_seen(attachment)

    async def reconcile(self, key: ObjectKey) -> Result | None:
        """Bring one volume or node forward. Raises ApiError."""
        if key.namespace == _NODE:
            await self._tell(key.name)
            return None
        return await self._volume(key.name)

    async def _volume(self, volume: str) -> Result | None:
        """Make attachments of one volume that are missing, and delete those that are not needed. Raises ApiError."""
        wanted = {one["metadata"]["name"]: one for one in self._wanted(volume)}
        left: list[float] = []
        there = self._attachments.list()
        if self._unneeded:
            names = {one["metadata"]["name"] for one in there}
            self._unneeded = {name: since for name, since in self._unneeded.items() if name in names}
        for attachment in there:
            name = attachment["metadata"]["name"]
            source = (attachment.get("spec") or {}).get("source") or {}
            if source.get("persistentVolumeName") != volume or not _OURS.fullmatch(name):
                continue
            if wanted.pop(name, None) is not None or is_terminating(attachment):
                self._unneeded.pop(name, None)
            elif (left_s := await self._detach(attachment, volume)) > 0:
                left.append(left_s)
            else:
                self._unneeded.pop(name, None)
        for attachment in wanted.values():
            try:
                await self._client.create(VOLUME_ATTACHMENTS, attachment)
            except ApiError as exc:
                if exc.reason != "AlreadyExists":
                    raise
        return Result(requeue_after_s=min(left)) if left else None

    async def _detach(self, attachment: Object, volume: str) -> float:
        """End an attachment that no pod needs; returns for how long that has to wait. Raises ApiError."""
        left_s = self._to_wait_s(attachment, volume)
        if left_s > 0:
            return left_s
        by_force = attachment["metadata"]["name"] in self._unneeded  # still in use, and waited for long enough
        if not await self._withdraw(_node_of(attachment), self._unique_name(volume), by_force=by_force):
            return AGAIN_S
        await self._delete(attachment)
        return 0.0

    async def _withdraw(self, name: str, volume: str, *, by_force: bool) -> bool:
        """Keep a node from beginning to use a volume; False if it does already. Raises ApiError: a Conflict if it says something
        meanwhile."""
        try:
            node = await self._client.get(NODES, name)
        except ApiError as exc:
            if exc.reason != "NotFound":
                raise
            return True
        if volume in _in_use(node) and not by_force:
            return False
        await self._write(node, [one for one in _usable(node) if one.get("name") != volume])
        return True

    async def _tell(self, name: str) -> None:
        """Tell a node which volumes are attached to it. Raises ApiError."""
        there = {one["metadata"]["name"]: one["metadata"].get("uid", "") for one in self._attachments.list()}
        self._leaving = {one: uid for one, uid in self._leaving.items() if there.get(one) == uid}
        if self._nodes.get(name) is None:
            return
        wanted = sorted(
            self._unique_name((attachment["spec"].get("source") or {}).get("persistentVolumeName") or "")
            for attachment in self._attachments.list()
            if _node_of(attachment) == name and self._is_attached_here(attachment)
        )
        node = await self._client.get(NODES, name)
        kept = [one for one in _usable(node) if not str(one.get("name", "")).startswith(_CSI)]
        await self._write(node, kept + [{"name": one, "devicePath": ""} for one in wanted if one])

    def _is_attached_here(self, attachment: Object) -> bool:
        metadata = attachment["metadata"]
        leaving = is_terminating(attachment) or self._leaving.get(metadata["name"]) == metadata.get("uid", "")
        attached = (attachment.get("status") or {}).get("attached")
        return bool(attached) and not leaving and bool(_OURS.fullmatch(metadata["name"]))

    async def _write(self, node: Object, usable: list[Object]) -> None:
        if usable != _usable(node):
            await self._client.update_status(
                NODES, {**node, "status": {**(node.get("status") or {}), "volumesAttached": usable}}
            )

    def _unique_name(self, volume: str) -> str:
        """What nodes call a PersistentVolume; "" for one that is not there any more."""
        source = ((self._volumes.get(volume) or {}).get("spec") or {}).get("csi") or {}
        return f"{_CSI}{source.get('driver')}^{source.get('volumeHandle')}" if source else ""

    def _to_wait_s(self, attachment: Object, volume: str) -> float:
        """For how long a volume that no pod needs stays attached, as its node still uses it; 0: not any more."""
        node = self._nodes.get(_node_of(attachment))
        if node is None or self._unique_name(volume) not in _in_use(node):
            self._unneeded.pop(attachment["metadata"]["name"], None)
            return 0.0
        now, name = self._clock.monotonic(), attachment["metadata"]["name"]
        since = self._unneeded.setdefault(name, now)
        if (condition(node, "Ready") or {}).get("status") == "True":
            self._unneeded[name] = now  # it tells when it has given the volume back
            return FORCE_S
        return since + FORCE_S - now

    async def _delete(self, attachment: Object) -> None:
        name, uid = attachment["metadata"]["name"], attachment["metadata"].get("uid", "")
        self._leaving[name] = uid
        try:
            await self._client.delete(VOLUME_ATTACHMENTS, name, uid=uid)
        except ApiError as exc:
            if exc.reason not in ("NotFound", "Conflict"):
                raise

    def _wanted(self, name: str) -> Iterator[Object]:
        volume = self._volumes.get(name)
        spec = (volume or {}).get("spec") or {}
        source, claim = spec.get("csi"), spec.get("claimRef") or {}
        if not source or not claim.get("name") or not self._is_attached(source.get("driver", "")):
            return
        found = self._claims.get(claim["name"], claim.get("namespace", ""))
        if found is None or found["spec"].get("volumeName") != name:
            return
        pods = self._pods.by_index(_CLAIM, f"{claim.get('namespace', '')}/{claim['name']}")
        for node in {
            one["spec"]["nodeName"]: None for one in pods if one["spec"].get("nodeName") and not is_terminal(one)
        }:
            yield {
                "apiVersion": "storage.k8s.io/v1",
                "kind": "VolumeAttachment",
                "metadata": {"name": attachment_name(source.get("volumeHandle", ""), source["driver"], node)},
                "spec": {
                    "attacher": source["driver"],
                    "nodeName": node,
                    "source": {"persistentVolumeName": name},
                },
            }

    def _is_attached(self, driver: str) -> bool:
        found = self._drivers.get(driver)
        return found is None or (found.get("spec") or {}).get("attachRequired") is not False


def _node_of(attachment: Object) -> str:
    return str((attachment.get("spec") or {}).get("nodeName") or "")


def _usable(node: Object) -> list[Object]:
    return (node.get("status") or {}).get("volumesAttached") or []


def _in_use(node: Object) -> list[str]:
    return (node.get("status") or {}).get("volumesInUse") or []


def _claim_keys(pod: Object) -> Iterator[str]:
    return (f"{pod['metadata'].get('namespace', '')}/{name}" for name in sorted(claims_of(pod)))
