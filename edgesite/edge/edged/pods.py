"""All pods of the node: gives each a worker, tells workers what concerns them, ends what nobody wants any more.

State   Workers by uid, in memory; the last uids that have ended, so that a late message does not start a pod again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Final

from edgesite.edge.edged.adoption import LABEL_NODE, stray_pod
from edgesite.edge.edged.environment import references
from edgesite.edge.edged.leftovers import found_uids, remove_leftovers
from edgesite.edge.edged.pleg import Inventory
from edgesite.edge.edged.pod import Pod
from edgesite.edge.edged.runtime import ContainerEvent, RuntimeFault
from edgesite.edge.edged.services import PodServices
from edgesite.edge.edged.state import PodState, Termination
from edgesite.edge.edged.volumes.claims import claim_names
from edgesite.edge.edged.volumes.payload import volume_references
from edgesite.edge.edged.worker import PodWorker

__all__ = ["Pods"]

ENDED_HELD: Final = 1024
DOUBT_S: Final = (
    60.0  #: with a link: in this time a cloud, ours or KubeEdge's, has sent the pods of a node that connects
)


class Pods:
    """Nothing here waits: workers do the work in tasks of their own."""

    def __init__(self, services: PodServices) -> None:
        self._services = services
        self._workers: dict[str, PodWorker] = {}
        self._waiting: dict[str, Pod] = {}  # seen before the runtime was listed for the first time
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._doubtful: set[str] = set()  # uids that run here, and nobody knows whether they should
        self._inventory: Inventory = {}
        self._listed = False
        self._loaded = False  # the full set of wanted pods is known: what else runs is nobody's

    def states(self) -> Iterable[PodState]:
        return [one.state for one in self._workers.values()]

    def find(self, namespace: str, name: str) -> PodState | None:
        """The pod of that name; of two, the one that is not on its way out."""
        found = [
            one for one in self._workers.values() if (one.state.pod.namespace, one.state.pod.name) == (namespace, name)
        ]
        return min(found, key=lambda one: one.ending).state if found else None

    def load(self, objects: Iterable[dict[str, Any]]) -> None:
        """Take the full set of pods, as stored on this node."""
        for obj in objects:
            self.applied(obj)
        self._loaded = True
        if self._listed:
            self._end_orphans()
            self._services.beside(self._remove_leftovers)

    def applied(self, obj: dict[str, Any]) -> None:
        """A pod is new or has changed."""
        pod = Pod(obj)
        if not pod.uid or pod.spec.get("nodeName") != self._services.node.name:
            return
        if not self._listed:
            self._waiting[pod.uid] = pod
        elif pod.uid in self._ended and pod.deleting:  # the cloud has not heard that it has ended
            self._services.beside(self._services.meta.confirm_deleted, pod.namespace, pod.name, pod.uid)
        elif (worker := self._workers.get(pod.uid)) is not None:
            worker.update(pod)
        else:
            # One that has ended and is wanted again is no late message, for the store has let it pass: the cloud was restored
            # from a backup.
            self._ended.pop(pod.uid, None)
            self._end_namesakes(pod)
            self._start(pod)

    def apply_static(self, pod: Pod) -> bool:
        """Run a static pod; return whether nothing stands in its way: an older version ends first."""
        if not self._listed:
            self._waiting[pod.uid] = pod
            return True
        others = [one for one in self._workers.values() if one.state.pod.key == pod.key]
        for worker in others:
            if worker.state.pod.uid != pod.uid:
                worker.end(gone=True)
            elif not worker.ending:
                return True
        if others:
            return False
        self._ended.pop(pod.uid, None)  # its file has come back
        self._start(pod)
        return True

    def end_static(self, pod: Pod) -> None:
        """The file of a static pod is gone."""
        self._waiting.pop(pod.uid, None)
        if (worker := self._workers.get(pod.uid)) is not None:
            worker.end(gone=True)

    def mirrored(self, uid: str, mirror_uid: str) -> None:
        """A static pod has a mirror: that is whose status it reports."""
        if (worker := self._workers.get(uid)) is not None:
            worker.mirrored(mirror_uid)

    def terminate(self, uid: str, why: Termination, grace_s: float | None = None) -> None:
        """Fail a pod for the node's reasons."""
        if (worker := self._workers.get(uid)) is not None:
            worker.terminate(why, grace_s)

    def removed(self, obj: dict[str, Any]) -> None:
        """A pod is gone from the cloud."""
        pod = Pod(obj)
        self._waiting = {uid: one for uid, one in self._waiting.items() if not _same_pod(one, pod)}
        for worker in tuple(self._workers.values()):
            if _same_pod(worker.state.pod, pod):
                grace = pod.metadata.get("deletionGracePeriodSeconds")
                worker.end(gone=True, grace_s=None if grace is None else float(grace))

    def object_changed(self, kind: str, namespace: str, name: str) -> None:
        """A ConfigMap or Secret has changed: whoever names it looks at it again."""
        for worker in self._workers.values():
            pod = worker.state.pod
            if pod.namespace == namespace and any((one.kind, one.name) == (kind, name) for one in _references(pod)):
                worker.objects_changed()

    def volumes_may_be_had(self) -> None:
        """A driver has come: pods that wait for it, or that could not go without it, are looked at again."""
        for worker in self._workers.values():
            worker.wake()
        if self._listed and self._loaded:
            self._services.beside(self._remove_leftovers)

    def volume_changed(self, volume: dict[str, Any]) -> None:
        """A PersistentVolume is another now: it may have grown."""
        claim = (volume.get("spec") or {}).get("claimRef") or {}
        self.claim_changed(claim.get("namespace", ""), claim.get("name", ""))

    def claim_changed(self, namespace: str, name: str) -> None:
        """A PersistentVolumeClaim is another now: it may have been bound."""
        for worker in self._workers.values():
            pod = worker.state.pod
            if pod.namespace == namespace and name in set(claim_names(pod)):
                worker.objects_changed()

    def report_again(self) -> None:
        """Tell the cloud of every pod anew: it may have taken the node for dead and the pods for not ready."""
        for worker in self._workers.values():
            worker.report_again()

    def listed(self, changed: set[str], inventory: Inventory) -> None:
        """The runtime was listed; pods in ``changed`` differ from the list before."""
        self._inventory = inventory
        if not self._listed:
            self._listed = True
            if self._loaded:
                self._services.beside(self._remove_leftovers)
            waiting, self._waiting = self._waiting, {}
            for pod in waiting.values():
                self._start(pod)
            changed = set(inventory)
        for uid in sorted(changed):
            if (worker := self._workers.get(uid)) is not None:
                worker.listed(inventory.get(uid))
        if self._loaded:
            self._end_orphans()

    def exited(self, event: ContainerEvent) -> None:
        """An event tells of a container's end."""
        for worker in self._workers.values():
            if worker.has(event.container_id) or worker.state.pod.uid == event.pod_uid:
                worker.exited(event.container_id)
                return

    def _start(self, pod: Pod) -> None:
        worker = PodWorker(self._services, pod, known=pod.uid in self._inventory)
        self._workers[pod.uid] = worker
        self._services.tasks.start_soon(self._run, worker)

    async def _run(self, worker: PodWorker) -> None:
        uid = worker.state.pod.uid
        try:
            await worker.run()
        finally:
            del self._workers[uid]
        self._ended[uid] = None
        while len(self._ended) > ENDED_HELD:
            self._ended.popitem(last=False)

    def _end_namesakes(self, pod: Pod) -> None:
        """A new pod of the same name means that the older one is gone from the cloud, whatever was heard of that."""
        for worker in self._workers.values():
            other = worker.state.pod
            if other.key == pod.key and other.uid != pod.uid:
                worker.end(gone=True)

    def _end_orphans(self) -> None:
        """End what runs here for this node and belongs to no pod."""
        self._doubtful &= self._inventory.keys()
        for uid, found in self._inventory.items():
            if uid in self._workers or uid in self._ended or uid in self._doubtful:
                continue
            pod = stray_pod(uid, found)
            if pod is None:
                continue
            nodes = {one.labels.get(LABEL_NODE) for one in found.sandboxes}
            if self._services.node.name in nodes:
                self._settle(pod)
            elif nodes == {None}:  # of another make: perhaps of the program that ran here before
                self._doubtful.add(uid)
                self._services.beside(self._claim, pod)

    async def _claim(self, pod: Pod) -> None:
        """A stray sandbox without a node's name is this node's if the pod has its folder here; else it stays as it is."""
        if await self._services.threads.run(self._services.paths.pod(pod.uid).is_dir):
            self._doubtful.discard(pod.uid)
            if pod.uid not in self._workers and pod.uid not in self._ended:
                self._settle(pod)

    def _settle(self, pod: Pod) -> None:
        if self._services.meta.has_ended(pod.uid):
            self._end_orphan(pod)
        else:  # the store may have been lost: then the cloud sends the pod again
            self._doubtful.add(pod.uid)
            self._services.log.warning("pod=%s uid=%s runs here and is not known; left alone for now", pod.key, pod.uid)
            self._services.beside(self._end_unless_sent, pod)

    async def _remove_leftovers(self) -> None:
        """At the start, and when a driver comes that they may need: remove folders of pods that ended without their folders, as
        edgesite was stopped just then."""
        services = self._services
        for uid in sorted(await services.threads.run(found_uids, services.paths)):
            known = uid in self._workers or uid in self._inventory or uid in self._doubtful
            if not known and services.meta.has_ended(uid):
                services.log.info("uid=%s has ended, its folders are removed", uid)
                await services.cgroups.remove(uid)
                try:
                    await services.image_volumes.unmount(uid)
                    await services.csi.unmount(uid)
                    await services.threads.run(remove_leftovers, services.paths, uid)
                except (OSError, RuntimeFault) as exc:
                    services.log.warning("uid=%s: what is left of it cannot be removed yet: %s", uid, exc)

    async def _end_unless_sent(self, pod: Pod) -> None:
        """End an unknown pod once there has been a link for long enough and the cloud did not send it."""
        meta, clock = self._services.meta, self._services.clock
        linked_s = 0.0
        while linked_s < DOUBT_S:
            await meta.wait_connected()
            await clock.sleep(DOUBT_S / 4)
            linked_s = linked_s + DOUBT_S / 4 if meta.connected else 0.0
            if pod.uid in self._workers or pod.uid in self._ended:
                break
        self._doubtful.discard(pod.uid)
        if pod.uid not in self._workers and pod.uid not in self._ended and pod.uid in self._inventory:
            self._end_orphan(pod)

    def _end_orphan(self, pod: Pod) -> None:
        self._services.log.info("pod=%s uid=%s runs here and is not wanted any more", pod.key, pod.uid)
        self._start(pod)
        self._workers[pod.uid].end(gone=True)


def _same_pod(one: Pod, other: Pod) -> bool:
    """A message about a pod may lack its uid; then its name must do."""
    return one.uid == other.uid if other.uid else one.key == other.key


def _references(pod: Pod) -> Iterable[Any]:
    yield from volume_references(pod)
    for container in (*pod.init_containers, *pod.containers, *pod.ephemeral_containers):
        yield from references(container)
