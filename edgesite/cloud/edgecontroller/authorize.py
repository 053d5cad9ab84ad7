"""What a node may ask of the cloud: its own node, lease and pods, and what its pods refer to. Nothing of other nodes.

The node is that of the connection, whose certificate the hub has compared. Deciding takes no request to the API: the caches
tell, and where they may be behind, `Doubt` asks the caller to look.

Source  Kubernetes node authorisation (rules by name); KubeEdge v1.18's cloudHub.authorization.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from edgesite.cloud.cloudhub.identities import BARRED
from edgesite.kube.podtokens import strange_audience
from edgesite.wire.message import InvalidMessage

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesite.cloud.edgecontroller.objects import EdgeObjects
    from edgesite.wire.resource import ResourcePath

__all__ = ["Answer", "NodeRules", "fits_token", "node_metadata", "node_patch", "pod_patch"]

LEASES: Final = "kube-node-lease"
_SHARED: Final = frozenset({"csidriver", "runtimeclass", "servicelist"})  #: that every node of a cluster may read
_POD_TYPES: Final = frozenset({"pod", "podpatch", "podstatus"})
#: labels by which operators keep pods from or on a node, whatever that node says of itself
_RESERVED_LABELS: Final = "node-restriction.kubernetes.io"
_PRECONDITIONS: Final = ("uid", "resourceVersion")
_NODE_TYPES: Final = frozenset({"node", "nodepatch", "nodestatus"})


class Answer(Enum):
    YES = "yes"
    NO = "no"
    ASK = "ask"  #: the cache does not know the pod, or knows it elsewhere: it may be behind


class NodeRules:
    """Decides by the caches. ``task_needs(node, namespace, secret)``: whether a task of the node wants that secret."""

    def __init__(self, objects: EdgeObjects, task_needs: Callable[[str, str, str], bool] = lambda *_: False) -> None:
        self._objects = objects
        self._task_needs = task_needs

    def may(self, node: str, path: ResourcePath, content: Any) -> Answer:
        """Whether ``node`` may send a request about ``path``."""
        namespace, name = path.object_namespace, path.name
        if path.type in _NODE_TYPES or path.type == "csinode":
            return _yes(name == node)
        if path.type == "lease":
            return _yes(namespace == LEASES and name == node)
        if path.type in _POD_TYPES:
            return self._own_pod(node, namespace, name)
        if path.type in ("configmap", "secret"):
            needed = node in self._objects.nodes_needing(path.type, namespace, name)
            if needed or (path.type == "secret" and self._needs_apart_from_pods(node, namespace, name)):
                return Answer.YES
            return Answer.ASK
        if path.type == "serviceaccounttoken":
            return self._own_token(node, namespace, name, content)
        if path.type == "persistentvolumeclaim":
            return _yes(node in self._objects.nodes_claiming(namespace, name))
        if path.type == "event":
            return self._own_event(node, namespace, content)
        if path.type in _SHARED:
            return Answer.YES
        return _yes(path.type in ("persistentvolume", "volumeattachment"))  # judged by the object, see `may_have`

    def knows_node(self, name: str) -> bool:
        """Whether the node was there when it was last looked at."""
        return self._objects.nodes.get(name) is not None

    def ended_pod(self, namespace: str, name: str, uid: str) -> dict[str, Any] | None:
        """The pod as last seen, if it has ended for good. Shared: not to be changed."""
        pod = self._objects.pods.get(name, namespace)
        if pod is None or (uid and pod["metadata"]["uid"] != uid):
            return None
        return pod if (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded") else None

    def _own_pod(self, node: str, namespace: str, name: str) -> Answer:
        pod = self._objects.pods.get(name, namespace)
        bound = (pod.get("spec") or {}).get("nodeName") if pod is not None else None
        return Answer.YES if bound == node else Answer.ASK

    def _needs_apart_from_pods(self, node: str, namespace: str, secret: str) -> bool:
        return self._objects.mounts_with(node, namespace, secret) or self._task_needs(node, namespace, secret)

    def _own_token(self, node: str, namespace: str, account: str, content: Any) -> Answer:
        """A token must be bound to a pod of the node that runs as this account, and for whom that pod's tokens are."""
        bound = ((content.get("spec") or {}).get("boundObjectRef") or {}) if isinstance(content, dict) else {}
        if bound.get("kind") != "Pod" or not bound.get("uid"):
            return Answer.NO
        pod = self._objects.pods.get(str(bound.get("name") or ""), namespace)
        if pod is None:
            return Answer.ASK
        return _yes(fits_token(pod, node, account, content["spec"]))

    def _own_event(self, node: str, namespace: str, content: Any) -> Answer:
        event = content.get("event", content) if isinstance(content, dict) else None
        involved = event.get("involvedObject") if isinstance(event, dict) else None
        if not isinstance(involved, dict):
            return Answer.NO
        if involved.get("kind") == "Node":
            return _yes(involved.get("name") == node)
        name = str(involved.get("name") or "")
        if (involved.get("namespace") or namespace) != namespace:
            return Answer.NO
        if involved.get("kind") == "PersistentVolumeClaim":
            return _yes(node in self._objects.nodes_claiming(namespace, name))
        if involved.get("kind") != "Pod":
            return Answer.NO
        pod = self._objects.pods.get(name, namespace)
        # A pod that is gone may still be spoken of: its end is often the last event.
        return _yes(pod is None or (pod.get("spec") or {}).get("nodeName") == node)

    def may_have(self, node: str, type_: str, obj: dict[str, Any]) -> bool:
        """Whether ``node`` may be given this volume or attachment."""
        spec = obj.get("spec") or {}
        if type_ == "volumeattachment":
            return bool(spec.get("nodeName") == node)
        claim = spec.get("claimRef") or {}
        return node in self._objects.nodes_claiming(str(claim.get("namespace") or ""), str(claim.get("name") or ""))


def fits_token(pod: dict[str, Any], node: str, account: str, asked: dict[str, Any]) -> bool:
    """Whether the spec of a TokenRequest is for this pod, which runs on the node as this account."""
    spec = pod.get("spec") or {}
    audiences = asked.get("audiences")
    return (
        spec.get("nodeName") == node
        and pod["metadata"].get("uid") == asked["boundObjectRef"].get("uid")
        and (spec.get("serviceAccountName") or "default") == account
        and strange_audience(pod, audiences if isinstance(audiences, list) else None) is None
    )


def _yes(condition: bool) -> Answer:
    return Answer.YES if condition else Answer.NO


# -- what of a permitted write is the node's to say: as the API server's own NodeRestriction, which these writes do not pass


def pod_patch(patch: Any) -> dict[str, Any]:
    """Return what a node may say of a pod: its status. Raises InvalidMessage."""
    metadata, status = _parts(patch)
    kept = {name: metadata[name] for name in _PRECONDITIONS if name in metadata}
    return {"metadata": kept, **status}


def node_patch(patch: Any) -> dict[str, Any]:
    """Return what a node may say of itself through its status. Raises InvalidMessage."""
    metadata, status = _parts(patch)
    kept = {name: metadata[name] for name in _PRECONDITIONS if name in metadata}
    return {"metadata": kept | node_metadata(metadata), **status}


def node_metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the labels and annotations that a node may give itself."""
    labels, annotations = metadata.get("labels"), metadata.get("annotations")
    kept: dict[str, Any] = {}
    if isinstance(labels, dict) and labels:
        kept["labels"] = {
            name: value for name, value in labels.items() if not name.partition("/")[0].endswith(_RESERVED_LABELS)
        }
    if isinstance(annotations, dict) and annotations:
        kept["annotations"] = {name: value for name, value in annotations.items() if name != BARRED}
    return kept


def _parts(patch: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    metadata = patch.get("metadata") if isinstance(patch, dict) else None
    if not isinstance(patch, dict) or not isinstance(metadata, dict | None):
        raise InvalidMessage("a patch is an object")
    return metadata or {}, {"status": patch["status"]} if "status" in patch else {}
