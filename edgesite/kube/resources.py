"""Resources of the API: one row per kind. What a kind is called and where it is served follows from its row alone.

    PODS, NODES, DEPLOYMENTS, …   the common ones
    BUILTIN                       all rows of the embedded API server, in the order of its API groups
    ResourceTable(BUILTIN)        look-up by (group, version, plural) or by kind; rows may be added (CRDs, plugins) and removed

Some kinds are views of another row's objects (``stored_as``): events.k8s.io Events are stored as core ones, devices of v1alpha2 as v1beta1, autoscaling/v1
HorizontalPodAutoscalers as v2; `edgesite.kube.conversion` turns one into the other.

Source  Discovery of kube-apiserver 1.36 (names, scopes, verbs, subresources), KubeEdge's reliablesyncs CRDs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from edgesite.kube.resourcetable import ALL_VERBS, SUBRESOURCES, Resource, ResourceTable, Subresource

__all__ = [
    "BUILTIN",
    "CLUSTER_OBJECT_SYNCS",
    "CLUSTER_ROLES",
    "CLUSTER_ROLE_BINDINGS",
    "CONFIG_MAPS",
    "CONTROLLER_REVISIONS",
    "CRON_JOBS",
    "CSI_DRIVERS",
    "CSI_NODES",
    "CUSTOM_RESOURCE_DEFINITIONS",
    "DAEMON_SETS",
    "DEPLOYMENTS",
    "DEVICES",
    "DEVICE_MODELS",
    "ENDPOINTS",
    "ENDPOINT_SLICES",
    "EVENTS",
    "EVENTS_V1",
    "HORIZONTAL_POD_AUTOSCALERS",
    "IMAGE_PRE_PULL_JOBS",
    "INGRESSES",
    "JOBS",
    "LEASES",
    "NAMESPACES",
    "NETWORK_POLICIES",
    "NODES",
    "NODE_UPGRADE_JOBS",
    "OBJECT_SYNCS",
    "PERSISTENT_VOLUMES",
    "PERSISTENT_VOLUME_CLAIMS",
    "PODS",
    "POD_DISRUPTION_BUDGETS",
    "PRIORITY_CLASSES",
    "REPLICATION_CONTROLLERS",
    "REPLICA_SETS",
    "ROLES",
    "ROLE_BINDINGS",
    "RUNTIME_CLASSES",
    "SECRETS",
    "SERVICES",
    "SERVICE_ACCOUNTS",
    "SERVICE_ACCOUNT_ACCESSES",
    "STATEFUL_SETS",
    "STORAGE_CLASSES",
    "SUBRESOURCES",
    "VOLUME_ATTACHMENTS",
    "Resource",
    "ResourceTable",
    "Subresource",
]


def _rows(group: str, version: str, *rows: Resource) -> tuple[Resource, ...]:
    return tuple(replace(row, group=group, version=version) for row in rows)


def _row(kind: str, plural: str, short: str = "", subresources: str = "", **more: object) -> Resource:
    """A row whose group is filled in by `_rows`; ``short`` and ``subresources`` are words."""
    row = Resource("", "", kind, plural, short_names=tuple(short.split()), subresources=tuple(subresources.split()))
    return replace(row, **more)  # type: ignore[arg-type]


def _cluster(kind: str, plural: str, short: str = "", subresources: str = "", **more: object) -> Resource:
    return _row(kind, plural, short, subresources, namespaced=False, **more)


_IN_ALL: Final = ("all",)
_EXTENSIONS: Final = ("api-extensions",)
_CREATE_ONLY: Final = ("create",)
_NAMESPACE_VERBS: Final = tuple(verb for verb in ALL_VERBS if verb != "deletecollection")

_CORE: Final = _rows(
    "",
    "v1",
    _row("Binding", "bindings", verbs=_CREATE_ONLY),
    _cluster("ComponentStatus", "componentstatuses", "cs", verbs=("get", "list")),
    _row("ConfigMap", "configmaps", "cm"),
    _row("Endpoints", "endpoints", "ep", singular="endpoints"),
    _row(
        "Event",
        "events",
        "ev",
        selectable=(
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source:source.component",
            "type",
        ),
    ),
    _row("LimitRange", "limitranges", "limits"),
    _cluster("Namespace", "namespaces", "ns", "finalize status", verbs=_NAMESPACE_VERBS, selectable=("status.phase",)),
    _cluster("Node", "nodes", "no", "proxy status", selectable=("spec.unschedulable",)),
    _row("PersistentVolumeClaim", "persistentvolumeclaims", "pvc", "status"),
    _cluster("PersistentVolume", "persistentvolumes", "pv", "status"),
    _row(
        "Pod",
        "pods",
        "po",
        "attach binding ephemeralcontainers eviction exec log portforward proxy resize status",
        categories=_IN_ALL,
        selectable=(
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ),
    ),
    _row("PodTemplate", "podtemplates"),
    _row(
        "ReplicationController",
        "replicationcontrollers",
        "rc",
        "scale status",
        categories=_IN_ALL,
        selectable=("status.replicas",),
    ),
    _row("ResourceQuota", "resourcequotas", "quota", "status"),
    _row("Secret", "secrets", selectable=("type",)),
    _row("ServiceAccount", "serviceaccounts", "sa", "token"),
    _row(
        "Service",
        "services",
        "svc",
        "proxy status",
        categories=_IN_ALL,
        selectable=("spec.clusterIP", "spec.type"),
    ),
)

_APPS: Final = _rows(
    "apps",
    "v1",
    _row("ControllerRevision", "controllerrevisions"),
    _row("DaemonSet", "daemonsets", "ds", "status", categories=_IN_ALL),
    _row("Deployment", "deployments", "deploy", "scale status", categories=_IN_ALL),
    _row("ReplicaSet", "replicasets", "rs", "scale status", categories=_IN_ALL, selectable=("status.replicas",)),
    _row("StatefulSet", "statefulsets", "sts", "scale status", categories=_IN_ALL),
)

_BATCH: Final = _rows(
    "batch",
    "v1",
    _row("CronJob", "cronjobs", "cj", "status", categories=_IN_ALL),
    _row("Job", "jobs", "", "status", categories=_IN_ALL, selectable=("status.successful:status.succeeded",)),
)

_REVIEWS: Final = (
    *_rows(
        "authentication.k8s.io",
        "v1",
        _cluster("SelfSubjectReview", "selfsubjectreviews", verbs=_CREATE_ONLY),
        _cluster("TokenReview", "tokenreviews", verbs=_CREATE_ONLY),
    ),
    *_rows(
        "authorization.k8s.io",
        "v1",
        _row("LocalSubjectAccessReview", "localsubjectaccessreviews", verbs=_CREATE_ONLY),
        _cluster("SelfSubjectAccessReview", "selfsubjectaccessreviews", verbs=_CREATE_ONLY),
        _cluster("SelfSubjectRulesReview", "selfsubjectrulesreviews", verbs=_CREATE_ONLY),
        _cluster("SubjectAccessReview", "subjectaccessreviews", verbs=_CREATE_ONLY),
    ),
)

_HPA: Final = _row("HorizontalPodAutoscaler", "horizontalpodautoscalers", "hpa", "status", categories=_IN_ALL)
_AUTOSCALING: Final = (
    *_rows("autoscaling", "v2", _HPA),
    *_rows("autoscaling", "v1", replace(_HPA, stored_as=("autoscaling", "v2", "horizontalpodautoscalers"))),
)

_EVENTS_V1: Final = _rows(
    "events.k8s.io",
    "v1",
    _row(
        "Event",
        "events",
        "ev",
        stored_as=("", "v1", "events"),
        selectable=(
            "regarding.kind:involvedObject.kind",
            "regarding.namespace:involvedObject.namespace",
            "regarding.name:involvedObject.name",
            "regarding.uid:involvedObject.uid",
            "regarding.apiVersion:involvedObject.apiVersion",
            "regarding.resourceVersion:involvedObject.resourceVersion",
            "regarding.fieldPath:involvedObject.fieldPath",
            "reason",
            "reportingController:reportingComponent",
            "type",
        ),
    ),
)

_POLICY: Final = _rows("policy", "v1", _row("PodDisruptionBudget", "poddisruptionbudgets", "pdb", "status"))

_NETWORKING: Final = _rows(
    "networking.k8s.io",
    "v1",
    _cluster("IngressClass", "ingressclasses"),
    _row("Ingress", "ingresses", "ing", "status"),
    _cluster("IPAddress", "ipaddresses", "ip", selectable=("spec.parentRef.resource",)),
    _row("NetworkPolicy", "networkpolicies", "netpol"),
    _cluster("ServiceCIDR", "servicecidrs", "", "status"),
)

_RBAC: Final = _rows(
    "rbac.authorization.k8s.io",
    "v1",
    _cluster("ClusterRoleBinding", "clusterrolebindings"),
    _cluster("ClusterRole", "clusterroles"),
    _row("RoleBinding", "rolebindings"),
    _row("Role", "roles"),
)

_STORAGE: Final = _rows(
    "storage.k8s.io",
    "v1",
    _cluster("CSIDriver", "csidrivers"),
    _cluster("CSINode", "csinodes"),
    _row("CSIStorageCapacity", "csistoragecapacities"),
    _cluster("StorageClass", "storageclasses", "sc"),
    _cluster("VolumeAttachment", "volumeattachments", "", "status"),
    _cluster("VolumeAttributesClass", "volumeattributesclasses", "vac"),
)

_ADMISSION: Final = _rows(
    "admissionregistration.k8s.io",
    "v1",
    _cluster("MutatingAdmissionPolicy", "mutatingadmissionpolicies", categories=_EXTENSIONS),
    _cluster("MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings", categories=_EXTENSIONS),
    _cluster("MutatingWebhookConfiguration", "mutatingwebhookconfigurations", categories=_EXTENSIONS),
    _cluster("ValidatingAdmissionPolicy", "validatingadmissionpolicies", "", "status", categories=_EXTENSIONS),
    _cluster("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", categories=_EXTENSIONS),
    _cluster("ValidatingWebhookConfiguration", "validatingwebhookconfigurations", categories=_EXTENSIONS),
)

_OTHERS: Final = (
    *_rows(
        "apiextensions.k8s.io",
        "v1",
        _cluster(
            "CustomResourceDefinition",
            "customresourcedefinitions",
            "crd crds",
            "status",
            categories=_EXTENSIONS,
        ),
    ),
    *_rows("scheduling.k8s.io", "v1", _cluster("PriorityClass", "priorityclasses", "pc")),
    *_rows("coordination.k8s.io", "v1", _row("Lease", "leases")),
    *_rows("node.k8s.io", "v1", _cluster("RuntimeClass", "runtimeclasses")),
    *_rows("discovery.k8s.io", "v1", _row("EndpointSlice", "endpointslices")),
    *_rows(
        "flowcontrol.apiserver.k8s.io",
        "v1",
        _cluster("FlowSchema", "flowschemas", "", "status"),
        _cluster("PriorityLevelConfiguration", "prioritylevelconfigurations", "", "status"),
    ),
    *_rows(
        "operations.kubeedge.io",
        "v1alpha1",
        _cluster("ImagePrePullJob", "imageprepulljobs", "", "status"),
        _cluster("NodeUpgradeJob", "nodeupgradejobs", "", "status"),
    ),
    *_rows(
        "policy.kubeedge.io",
        "v1alpha1",
        _row("ServiceAccountAccess", "serviceaccountaccesses", "saaccess", "status"),
    ),
    *_rows(
        "reliablesyncs.kubeedge.io",
        "v1alpha1",
        _cluster("ClusterObjectSync", "clusterobjectsyncs", "", "status"),
        _row("ObjectSync", "objectsyncs", "", "status"),
    ),
    *_rows("rules.kubeedge.io", "v1", _row("Rule", "rules"), _row("RuleEndpoint", "ruleendpoints", "re")),
)

_DEVICE: Final = _row("Device", "devices")
_DEVICE_MODEL: Final = _row("DeviceModel", "devicemodels")
_DEVICES: Final = (
    *_rows("devices.kubeedge.io", "v1beta1", _DEVICE, _DEVICE_MODEL),
    *_rows(
        "devices.kubeedge.io",
        "v1alpha2",
        replace(_DEVICE, stored_as=("devices.kubeedge.io", "v1beta1", "devices")),
        replace(_DEVICE_MODEL, stored_as=("devices.kubeedge.io", "v1beta1", "devicemodels")),
    ),
)

_APIREGISTRATION: Final = _rows(
    "apiregistration.k8s.io", "v1", _cluster("APIService", "apiservices", "", "status", categories=_EXTENSIONS)
)

_CERTIFICATES: Final = _rows(
    "certificates.k8s.io",
    "v1",
    _cluster(
        "CertificateSigningRequest",
        "certificatesigningrequests",
        "csr",
        "approval status",
        selectable=("spec.signerName",),
    ),
)

#: All rows, groups in the order in which discovery names them; the first version of a group is the preferred one.
BUILTIN: Final[tuple[Resource, ...]] = (
    *_CORE,
    *_APIREGISTRATION,
    *_APPS,
    *_EVENTS_V1,
    *_REVIEWS,
    *_AUTOSCALING,
    *_BATCH,
    *_CERTIFICATES,
    *_NETWORKING,
    *_POLICY,
    *_RBAC,
    *_STORAGE,
    *_ADMISSION,
    *_OTHERS,
    *_DEVICES,
)

_TABLE: Final = ResourceTable(BUILTIN)


def _builtin(plural: str, group: str = "", version: str = "v1") -> Resource:
    row = _TABLE.find(group, version, plural)
    assert row is not None, plural
    return row


CLUSTER_OBJECT_SYNCS: Final = _builtin("clusterobjectsyncs", "reliablesyncs.kubeedge.io", "v1alpha1")
CLUSTER_ROLES: Final = _builtin("clusterroles", "rbac.authorization.k8s.io")
CLUSTER_ROLE_BINDINGS: Final = _builtin("clusterrolebindings", "rbac.authorization.k8s.io")
CONFIG_MAPS: Final = _builtin("configmaps")
CONTROLLER_REVISIONS: Final = _builtin("controllerrevisions", "apps")
CRON_JOBS: Final = _builtin("cronjobs", "batch")
CUSTOM_RESOURCE_DEFINITIONS: Final = _builtin("customresourcedefinitions", "apiextensions.k8s.io")
DAEMON_SETS: Final = _builtin("daemonsets", "apps")
DEPLOYMENTS: Final = _builtin("deployments", "apps")
DEVICES: Final = _builtin("devices", "devices.kubeedge.io", "v1beta1")
DEVICE_MODELS: Final = _builtin("devicemodels", "devices.kubeedge.io", "v1beta1")
ENDPOINTS: Final = _builtin("endpoints")
ENDPOINT_SLICES: Final = _builtin("endpointslices", "discovery.k8s.io")
EVENTS: Final = _builtin("events")
EVENTS_V1: Final = _builtin("events", "events.k8s.io")
HORIZONTAL_POD_AUTOSCALERS: Final = _builtin("horizontalpodautoscalers", "autoscaling", "v2")
IMAGE_PRE_PULL_JOBS: Final = _builtin("imageprepulljobs", "operations.kubeedge.io", "v1alpha1")
INGRESSES: Final = _builtin("ingresses", "networking.k8s.io")
JOBS: Final = _builtin("jobs", "batch")
LEASES: Final = _builtin("leases", "coordination.k8s.io")
NAMESPACES: Final = _builtin("namespaces")
NETWORK_POLICIES: Final = _builtin("networkpolicies", "networking.k8s.io")
NODES: Final = _builtin("nodes")
NODE_UPGRADE_JOBS: Final = _builtin("nodeupgradejobs", "operations.kubeedge.io", "v1alpha1")
OBJECT_SYNCS: Final = _builtin("objectsyncs", "reliablesyncs.kubeedge.io", "v1alpha1")
PERSISTENT_VOLUMES: Final = _builtin("persistentvolumes")
PERSISTENT_VOLUME_CLAIMS: Final = _builtin("persistentvolumeclaims")
PODS: Final = _builtin("pods")
POD_DISRUPTION_BUDGETS: Final = _builtin("poddisruptionbudgets", "policy")
PRIORITY_CLASSES: Final = _builtin("priorityclasses", "scheduling.k8s.io")
REPLICATION_CONTROLLERS: Final = _builtin("replicationcontrollers")
REPLICA_SETS: Final = _builtin("replicasets", "apps")
ROLES: Final = _builtin("roles", "rbac.authorization.k8s.io")
ROLE_BINDINGS: Final = _builtin("rolebindings", "rbac.authorization.k8s.io")
RUNTIME_CLASSES: Final = _builtin("runtimeclasses", "node.k8s.io")
SECRETS: Final = _builtin("secrets")
SERVICES: Final = _builtin("services")
SERVICE_ACCOUNTS: Final = _builtin("serviceaccounts")
SERVICE_ACCOUNT_ACCESSES: Final = _builtin("serviceaccountaccesses", "policy.kubeedge.io", "v1alpha1")
STATEFUL_SETS: Final = _builtin("statefulsets", "apps")
STORAGE_CLASSES: Final = _builtin("storageclasses", "storage.k8s.io")
VOLUME_ATTACHMENTS: Final = _builtin("volumeattachments", "storage.k8s.io")
CSI_DRIVERS: Final = _builtin("csidrivers", "storage.k8s.io")
CSI_NODES: Final = _builtin("csinodes", "storage.k8s.io")
