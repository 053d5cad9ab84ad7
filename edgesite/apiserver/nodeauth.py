"""What a node may do: read what its pods need, write its own node, lease, pods and their status. Nothing of other nodes.

Errors  None: decisions with reasons. `NodeRestriction` raises ApiError Forbidden.
State   None; looks into the store.
Source  Kubernetes: Using Node Authorization; the NodeRestriction admission plugin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from edgesite.apiserver.authz import Attributes, Decision
from edgesite.kube import errors, json, selectors
from edgesite.kube.podtokens import strange_audience
from edgesite.kube.resources import PODS, Resource

if TYPE_CHECKING:
    from edgesite.apiserver.authn import User
    from edgesite.apiserver.kinds import Kinds
    from edgesite.hookspecs import AdmissionRequest
    from edgesite.store.store import Store

__all__ = ["NodeAuthorizer", "NodeRestriction", "exact_field", "node_of"]

Object = dict[str, Any]
GROUP: Final = "system:nodes"
PREFIX: Final = "system:node:"
LEASES: Final = "kube-node-lease"
_READ: Final = ("get", "list", "watch")
_RESERVED_LABELS: Final = "node-restriction.kubernetes.io"
_ALLOW: Final = (Decision.ALLOW, "")
_NO: Final = (Decision.NO_OPINION, "")
#: (group, resource) that every node may read.
_SHARED: Final = frozenset(
    {
        ("", "services"),
        ("", "endpoints"),
        ("discovery.k8s.io", "endpointslices"),
        ("node.k8s.io", "runtimeclasses"),
        ("storage.k8s.io", "csidrivers"),
        ("", "nodes"),
        ("", "namespaces"),
    }
)
_OF_PODS: Final = frozenset({"secrets", "configmaps", "persistentvolumeclaims", "serviceaccounts"})
_REVIEWS: Final = frozenset({"tokenreviews", "subjectaccessreviews", "localsubjectaccessreviews"})


def node_of(user: User) -> str | None:
    """The node that a user is, or None."""
    if GROUP not in user.groups or not user.name.startswith(PREFIX):
        return None
    return user.name.removeprefix(PREFIX) or None


class NodeAuthorizer:
    """Lets nodes do what their work needs."""

    def __init__(self, store: Store, kinds: Kinds) -> None:
        self._store = store
        self._kinds = kinds

    def authorize(self, user: User, wanted: Attributes) -> tuple[Decision, str]:
        node = node_of(user)
        if node is None or not wanted.is_resource:
            return _NO
        where = (wanted.group, wanted.resource)
        if wanted.verb in _READ and where in _SHARED and not wanted.subresource:
            return _ALLOW
        if wanted.resource in _REVIEWS:
            return _ALLOW if wanted.verb == "create" else _NO
        if wanted.group == "" and wanted.resource in _OF_PODS:
            return self._of_pods(node, wanted)
        rule = _RULES.get(where)
        return rule(self, node, wanted) if rule is not None else _NO

    def _of_pods(self, node: str, wanted: Attributes) -> tuple[Decision, str]:
        """What a pod names may be read, one by one, by the node on which it runs."""
        name = wanted.name or exact_field(wanted.field_selector, "metadata.name")
        if wanted.resource == "serviceaccounts" and wanted.subresource == "token":
            allowed = wanted.verb == "create"
        else:
            allowed = wanted.verb in _READ and not wanted.subresource
        if not allowed or not name or not wanted.namespace:
            return Decision.NO_OPINION, "can only read resources of this type that are named"
        for pod in self.pods(node, wanted.namespace):
            if (wanted.resource, name) in set(_references(pod)):
                return _ALLOW
        return Decision.NO_OPINION, f"no relationship found between node '{node}' and this object"

    def pods(self, node: str, namespace: str) -> Iterator[Object]:
        """The pods of a namespace that are bound to a node."""
        kind = self._kinds.of(PODS)
        for row in self._store.list(kind.collection(namespace)).rows:
            if row.attrs and row.attrs[1] and row.attrs[1].get("spec.nodeName") == node:
                yield json.loads(row.value)

    def _pods(self, node: str, wanted: Attributes) -> tuple[Decision, str]:
        if wanted.verb in ("list", "watch") and not wanted.name:
            if exact_field(wanted.field_selector, "spec.nodeName") == node:
                return _ALLOW
            return Decision.NO_OPINION, f"can only list/watch pods with spec.nodeName field selector set to {node}"
        if wanted.verb == "create" and wanted.subresource in ("", "eviction"):
            return _ALLOW  # NodeRestriction looks at the object
        if wanted.verb not in ("get", "delete", "update", "patch") or wanted.subresource not in ("", "status"):
            return _NO
        if wanted.verb in ("update", "patch") and wanted.subresource != "status":
            return _NO
        row = self._store.get(self._kinds.of(PODS).key(wanted.namespace, wanted.name))
        if row is not None and not (row.attrs and row.attrs[1] and row.attrs[1].get("spec.nodeName") == node):
            return Decision.NO_OPINION, f"no relationship found between node '{node}' and this object"
        return _ALLOW

    def _nodes(self, node: str, wanted: Attributes) -> tuple[Decision, str]:
        if wanted.verb == "create" and not wanted.subresource:
            return _ALLOW
        if wanted.verb in ("update", "patch") and wanted.subresource in ("", "status") and wanted.name == node:
            return _ALLOW
        return Decision.NO_OPINION, f"node '{node}' cannot write this node"

    def _leases(self, node: str, wanted: Attributes) -> tuple[Decision, str]:
        if wanted.namespace != LEASES:
            return Decision.NO_OPINION, f'can only access leases in the "{LEASES}" system namespace'
        if wanted.verb == "create" or (wanted.name == node and wanted.verb in ("get", "update", "patch", "delete")):
            return _ALLOW
        return Decision.NO_OPINION, "can only access node lease with the same name as the requesting node"

    def _events(self, node: str, wanted: Attributes) -> tuple[Decision, str]:
        return _ALLOW if wanted.verb in ("create", "update", "patch") else _NO

    def _csi_nodes(self, node: str, wanted: Attributes) -> tuple[Decision, str]:
        return _ALLOW if wanted.name == node or wanted.verb == "create" else _NO


_RULES: Final[dict[tuple[str, str], Callable[[NodeAuthorizer, str, Attributes], tuple[Decision, str]]]] = {
    ("", "pods"): NodeAuthorizer._pods,
    ("", "nodes"): NodeAuthorizer._nodes,
    ("", "events"): NodeAuthorizer._events,
    ("events.k8s.io", "events"): NodeAuthorizer._events,
    ("coordination.k8s.io", "leases"): NodeAuthorizer._leases,
    ("storage.k8s.io", "csinodes"): NodeAuthorizer._csi_nodes,
}


def exact_field(field_selector: str, field: str) -> str | None:
    """The one value that a selector asks a field to have, or None."""
    try:
        return selectors.parse_fields(field_selector).exact(field) if field_selector else None
    except selectors.InvalidSelector:
        return None


def _references(pod: Object) -> Iterator[tuple[str, str]]:
    """What a pod names in its namespace: (plural, name)."""
    spec = pod.get("spec") or {}
    if spec.get("serviceAccountName"):
        yield "serviceaccounts", spec["serviceAccountName"]
    for one in spec.get("imagePullSecrets") or ():
        yield "secrets", one.get("name", "")
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        for source in container.get("envFrom") or ():
            yield from _sources(source, ("configMapRef", "configmaps"), ("secretRef", "secrets"))
        for variable in container.get("env") or ():
            yield from _sources(
                variable.get("valueFrom") or {}, ("configMapKeyRef", "configmaps"), ("secretKeyRef", "secrets")
            )
    for volume in spec.get("volumes") or ():
        yield from _sources(volume, ("configMap", "configmaps"))
        if "secret" in volume:
            yield "secrets", volume["secret"].get("secretName", "")
        if "persistentVolumeClaim" in volume:
            yield "persistentvolumeclaims", volume["persistentVolumeClaim"].get("claimName", "")
        for source in (volume.get("projected") or {}).get("sources") or ():
            yield from _sources(source, ("configMap", "configmaps"), ("secret", "secrets"))


def _sources(holder: Object, *fields: tuple[str, str]) -> Iterator[tuple[str, str]]:
    for field, plural in fields:
        if field in holder:
            yield plural, holder[field].get("name", "")


class NodeRestriction:
    """Refuses objects by which a node would speak for others."""

    name = "NodeRestriction"
    mutating = False

    def __init__(self, store: Store, kinds: Kinds) -> None:
        self._store = store
        self._kinds = kinds

    def wants(self, resource: Resource, operation: str, subresource: str) -> bool:
        if resource.plural == "serviceaccounts" and not resource.group:
            return subresource == "token"
        groups = ("", "coordination.k8s.io", "storage.k8s.io")
        return resource.group in groups and resource.plural in ("pods", "nodes", "leases", "csinodes")

    def admit(self, request: AdmissionRequest) -> None:
        """Raises ApiError (Forbidden)."""
        if GROUP not in request.groups or not request.user.startswith(PREFIX):
            return
        node = request.user.removeprefix(PREFIX)
        plural = request.resource.plural
        if plural == "serviceaccounts":
            self._check_token(node, request, (request.object or {}).get("spec") or {})
            return
        if plural == "nodes" and request.name != node:
            raise errors.forbidden(
                "nodes", request.name, f'node "{node}" is not allowed to modify node "{request.name}"'
            )
        if plural == "leases" and request.operation == "CREATE" and request.name != node:
            why = "can only access node lease with the same name as the requesting node"
            raise errors.forbidden("leases", request.name, why, "coordination.k8s.io")
        if plural == "csinodes" and request.name != node:
            why = "can only access CSINode with the same name as the requesting node"
            raise errors.forbidden("csinodes", request.name, why, "storage.k8s.io")
        pod = request.object or request.old_object
        if plural == "pods" and pod is not None:
            self._check_pod(node, request, pod)
        if plural == "nodes" and request.operation in ("CREATE", "UPDATE") and request.object is not None:
            self._check_node(node, request, request.object, request.old_object)

    def _check_token(self, node: str, request: AdmissionRequest, spec: Object) -> None:
        """A node gets tokens for the pods that run on it, bound to these. Raises ApiError (Forbidden)."""
        bound = spec.get("boundObjectRef") or {}
        if bound.get("kind") != "Pod" or bound.get("apiVersion") != "v1" or not bound.get("name"):
            raise self._no_token(request, "node requested token not bound to a pod")
        if not bound.get("uid"):
            raise self._no_token(request, "node requested token with a pod binding without a uid")
        row = self._store.latest(self._kinds.of(PODS).key(request.namespace, bound["name"]))
        if row is None:
            raise errors.not_found("pods", bound["name"])
        pod = json.loads(row.value)
        if pod["metadata"]["uid"] != bound["uid"]:
            why = f"the UID in the bound object reference ({bound['uid']}) does not match the UID in record."
            raise self._no_token(request, why)
        if pod["spec"].get("nodeName") != node:
            raise self._no_token(request, "node requested token bound to a pod scheduled on a different node")
        strange = strange_audience(pod, spec.get("audiences"))
        if strange is not None:
            raise self._no_token(request, f'audience "{strange}" not found in pod spec volume')

    def _no_token(self, request: AdmissionRequest, why: str) -> errors.ApiError:
        return errors.forbidden("serviceaccounts", request.name, why)

    def _check_node(self, node: str, request: AdmissionRequest, new: Object, old: Object | None) -> None:
        """A node may not choose for which pods it is meant; the taints that it begins with are its own."""
        if old is not None and (new.get("spec") or {}).get("taints") != (old.get("spec") or {}).get("taints"):
            raise errors.forbidden("nodes", request.name, f'node "{node}" is not allowed to modify taints')
        changed = _changed_labels(new, old)
        if reserved := sorted(key for key in changed if key.partition("/")[0].endswith(_RESERVED_LABELS)):
            why = f'node "{node}" is not allowed to modify labels: {", ".join(reserved)}'
            raise errors.forbidden("nodes", request.name, why)

    def _check_pod(self, node: str, request: AdmissionRequest, pod: Object) -> None:
        if (pod.get("spec") or {}).get("nodeName") != node:
            raise errors.forbidden(
                "pods", request.name, f'node "{node}" can only touch pods with spec.nodeName set to itself'
            )
        old = request.old_object
        if request.operation == "UPDATE" and old is not None and _changed_labels(pod, old):
            why = f'node "{node}" cannot update labels through pod status'
            raise errors.forbidden("pods", request.name, why)
        mirror = "kubernetes.io/config.mirror" in (pod["metadata"].get("annotations") or {})
        if request.operation == "CREATE" and not request.subresource and not mirror:
            raise errors.forbidden(
                "pods",
                request.name,
                f'pod does not have "kubernetes.io/config.mirror" annotation, node "{node}" can only create mirror pods',
            )
        if request.operation == "CREATE" and not request.subresource and next(_references(pod), None):
            why = f'node "{node}" can not create pods that reference secrets, configmaps, claims or service accounts'
            raise errors.forbidden("pods", request.name, why)


def _changed_labels(new: Object, old: Object | None) -> set[str]:
    """The names of labels that come, go or change."""
    labels = [(one["metadata"].get("labels") or {}) if one else {} for one in (new, old)]
    return {key for key in {*labels[0], *labels[1]} if labels[0].get(key) != labels[1].get(key)}
