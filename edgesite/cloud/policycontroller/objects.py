"""Which node needs the rights of which service account: those of the pods that run there. A view of caches.

State   Informers shared with the role; an index on the pods.
Source  KubeEdge v1.14, cloud/pkg/policycontroller (type word, who is sent what).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from edgesite.cloud.edgecontroller.objects import is_since
from edgesite.kube.resources import NODES, PODS, SERVICE_ACCOUNT_ACCESSES

if TYPE_CHECKING:
    from edgesite.client import Informer, SharedInformers
    from edgesite.kube.resources import Resource

__all__ = ["ACCESS", "PolicyObjects", "account_of"]

Object = dict[str, Any]
ACCESS: Final = "serviceaccountaccess"
EDGE_LABEL: Final = "node-role.kubernetes.io/edge"
_BY_ACCOUNT: Final = "edge-account"
_BY_NODE: Final = "edge-node"
_ENDED: Final = ("Succeeded", "Failed")
_SINCE: Final = (1, 14)


def account_of(pod: Object) -> tuple[str, str] | None:
    """Namespace and name of the account of a pod that is on a node and has not ended."""
    spec = pod.get("spec") or {}
    if not spec.get("nodeName") or (pod.get("status") or {}).get("phase") in _ENDED:
        return None
    return pod["metadata"].get("namespace") or "", spec.get("serviceAccountName") or "default"


def _by_account(pod: Object) -> Iterable[str]:
    place = account_of(pod)
    return () if place is None else ("/".join(place),)


def _by_node(pod: Object) -> Iterable[str]:
    node = (pod.get("spec") or {}).get("nodeName")
    return (node,) if node else ()


class PolicyObjects:
    """What edgecontroller and synccontroller ask. ``is_own(node)``: whether a connected node is one of ours."""

    kinds: Final[dict[str, Resource]] = {ACCESS: SERVICE_ACCOUNT_ACCESSES}

    def __init__(self, informers: SharedInformers, is_own: Callable[[str], bool]) -> None:
        self.pods: Informer = informers.of(PODS)
        self.nodes: Informer = informers.of(NODES)
        self.accesses: Informer = informers.of(SERVICE_ACCOUNT_ACCESSES)
        self.pods.add_index(_BY_ACCOUNT, _by_account)
        self.pods.add_index(_BY_NODE, _by_node)
        self._is_own = is_own

    def nodes_using(self, namespace: str, account: str) -> dict[str, None]:
        """Edge nodes with a pod of the account, in order."""
        pods = self.pods.by_index(_BY_ACCOUNT, f"{namespace}/{account}")
        return {node: None for node in sorted({one["spec"]["nodeName"] for one in pods}) if self._is_edge(node)}

    def takes(self, node: str) -> bool:
        """Whether the node's edge knows such objects: KubeEdge's does since v1.14."""
        return self._is_own(node) or is_since(self.nodes.get(node) or {}, _SINCE)

    def _is_edge(self, node: str) -> bool:
        found = self.nodes.get(node)
        return found is not None and EDGE_LABEL in (found["metadata"].get("labels") or {})

    # -- for the comparison of what an edge holds ----------------------------------------------------------------

    def desired(self, node: str) -> Iterator[tuple[str, Object]]:
        """Type word and object of all that a node should hold."""
        if not self._is_edge(node) or not self.takes(node):
            return
        for place in dict.fromkeys(account_of(pod) for pod in self.pods.by_index(_BY_NODE, node)):
            found = None if place is None else self.accesses.get(place[1], place[0])
            if found is not None:
                yield ACCESS, _typed(found)

    def get(self, type_: str, namespace: str, name: str) -> Object | None:
        found = self.accesses.get(name, namespace)
        return None if found is None else _typed(found)

    def belongs(self, type_: str, namespace: str, name: str, node: str) -> bool:
        """Whether a node should hold this object."""
        return node in self.nodes_using(namespace, name)


def _typed(obj: Object) -> Object:
    row = SERVICE_ACCOUNT_ACCESSES
    return {"kind": row.kind, "apiVersion": row.api_version, **obj}
