"""What a pod's volumes ask of its node, in kube-scheduler's words.

A claim that binds when first used is given a node before its pod is: the pod is placed once the claim is bound, where its volume
can be reached. So two pods never count on one volume.

Errors  None: what is missing is a reason to wait.
State   None: reads the caches.
Source  kube-scheduler's VolumeBinding and VolumeRestrictions (rules and messages); storage/v1 StorageClass: volumeBindingMode, allowedTopologies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from edgesite.controlplane.persistentvolumes.matching import (
    ON_FIRST_USE,
    SELECTED_NODE,
    choose,
    class_of,
    is_claimed_by,
    provisioner_of,
    reachable_from,
)
from edgesite.controlplane.pods import controller_of, is_terminating
from edgesite.controlplane.scheduler.refusal import Refusal

if TYPE_CHECKING:
    from edgesite.client import Informer
    from edgesite.controlplane.scheduler.cache import NodeState

__all__ = ["VolumeNeeds", "Volumes", "selected_before"]

Object = Mapping[str, Any]
_AFFINITY: Final = "node(s) didn't match PersistentVolume's node affinity"
_SOLE: Final = "ReadWriteOncePod"
_NOTHING: Final = "node(s) didn't find available persistent volumes to bind"


@dataclass(slots=True)
class VolumeNeeds:
    """What the volumes of one pod come to."""

    problem: str = ""  #: why it can run nowhere now
    bound: list[Object] = field(default_factory=list)  #: PersistentVolumes of its claims
    unbound: list[Object] = field(default_factory=list)  #: claims that are bound when their node is known
    sole: set[str] = field(default_factory=set)  #: claims that one pod at a time may use


def selected_before(needs: VolumeNeeds, nodes: Sequence[NodeState]) -> list[NodeState]:
    """The node for which claims are being bound already, if it is among ``nodes``: a choice is not made twice."""
    chosen = {(one["metadata"].get("annotations") or {}).get(SELECTED_NODE) for one in needs.unbound}
    return [one for one in nodes if one.name in chosen]


class Volumes:
    """The caches of claims, volumes and classes."""

    def __init__(self, claims: Informer, volumes: Informer, classes: Informer) -> None:
        self.claims, self.volumes, self.classes = claims, volumes, classes

    def needs(self, pod: Object) -> VolumeNeeds:
        found, namespace = VolumeNeeds(), pod["metadata"].get("namespace", "")
        for volume in pod["spec"].get("volumes") or ():
            is_own = volume.get("ephemeral") is not None
            name = f"{pod['metadata']['name']}-{volume['name']}" if is_own else ""
            name = name or (volume.get("persistentVolumeClaim") or {}).get("claimName", "")
            if name:
                claim = self.claims.get(name, namespace)
                self._add(found, pod, name, claim, is_own=is_own)
                if claim is not None and _SOLE in (claim["spec"].get("accessModes") or ()):
                    found.sole.add(name)
            if found.problem:
                break
        return found

    def _add(self, found: VolumeNeeds, pod: Object, name: str, claim: Object | None, *, is_own: bool) -> None:
        if claim is None:
            waits = "waiting for ephemeral volume controller to create the persistentvolumeclaim"
            found.problem = f'{waits} "{name}"' if is_own else f'persistentvolumeclaim "{name}" not found'
        elif is_terminating(claim):
            found.problem = f'persistentvolumeclaim "{name}" is being deleted'
        elif is_own and (controller_of(claim) or {}).get("uid") != pod["metadata"].get("uid"):
            found.problem = f"PVC {claim['metadata']['namespace']}/{name} was not created for the pod"
        elif (claim.get("status") or {}).get("phase") == "Lost":
            found.problem = f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{claim["spec"].get("volumeName")}"'
        elif claim["spec"].get("volumeName") and (claim.get("status") or {}).get("phase") == "Bound":
            volume = self.volumes.get(claim["spec"]["volumeName"])
            if volume is None:
                found.problem = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
            else:
                found.bound.append(volume)
        elif self._waits_for_use(claim):
            found.unbound.append(claim)
        else:
            found.problem = "pod has unbound immediate PersistentVolumeClaims"

    def _waits_for_use(self, claim: Object) -> bool:
        storage_class = self.classes.get(class_of(claim))
        return storage_class is not None and storage_class.get("volumeBindingMode") == ON_FIRST_USE

    def judge(self, needs: VolumeNeeds, node: NodeState) -> Refusal | None:
        """Return why a node cannot reach the volumes, or None if it can."""
        if not all(reachable_from(one, node.name, node.labels) for one in needs.bound):
            return Refusal((_AFFINITY,), False)
        if not all(self._can_be_had(one, node) for one in needs.unbound):
            return Refusal((_NOTHING,), False)
        return None

    def _can_be_had(self, claim: Object, node: NodeState) -> bool:
        """Whether a volume that is there suits, or one can be made for the node."""
        storage_class = self.classes.get(class_of(claim)) or {}
        kept = next((one for one in self.volumes.list() if is_claimed_by(one, claim)), None)
        if kept is not None:  # it is being bound
            return reachable_from(kept, node.name, node.labels)
        if choose(claim, (one for one in self.volumes.list() if reachable_from(one, node.name, node.labels))):
            return True
        if not provisioner_of(storage_class):
            return False
        selected = (claim["metadata"].get("annotations") or {}).get(SELECTED_NODE)
        if selected and selected != node.name:
            return False  # the volume is being made over there
        terms = storage_class.get("allowedTopologies") or ()
        return not terms or any(
            all(
                node.labels.get(one.get("key", "")) in (one.get("values") or ())
                for one in term.get("matchLabelExpressions") or ()
            )
            for term in terms
        )
