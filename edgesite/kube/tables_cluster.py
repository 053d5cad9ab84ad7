"""Printers of networking, RBAC, storage, leases, certificates, admission and the like.

Source  Columns of kubectl for these kinds.
"""

from __future__ import annotations

from typing import Any, Final

from edgesite.kube import times
from edgesite.kube.tablecells import NONE, UNSET, Printer, age, columns, selector
from edgesite.kube.tables_core import endpoint_list

__all__ = ["PRINTERS"]

Object = dict[str, Any]


def _name(obj: Object) -> str:
    return str(obj["metadata"].get("name", ""))


def _ingress(obj: Object, now: float) -> list[Any]:
    spec = obj.get("spec", {})
    hosts = [one["host"] for one in spec.get("rules", ()) if one.get("host")]
    text = ",".join(hosts) if len(hosts) <= 3 else f"{','.join(hosts[:3])} + {len(hosts) - 3} more..."
    ingress = obj.get("status", {}).get("loadBalancer", {}).get("ingress", ())
    address = ",".join(one.get("ip") or one.get("hostname", "") for one in ingress)
    old = obj["metadata"].get("annotations", {}).get("kubernetes.io/ingress.class")
    ports = "80, 443" if spec.get("tls") else "80"
    return [_name(obj), spec.get("ingressClassName") or old or NONE, text or "*", address, ports, age(obj, now)]


def _ingress_class(obj: Object, now: float) -> list[Any]:
    spec = obj.get("spec", {})
    parameters = spec.get("parameters")
    text = NONE
    if parameters:
        group = f".{parameters['apiGroup']}" if parameters.get("apiGroup") else ""
        text = f"{parameters.get('kind', '')}{group}/{parameters.get('name', '')}"
    return [_name(obj), spec.get("controller", ""), text, age(obj, now)]


def _network_policy(obj: Object, now: float) -> list[Any]:
    return [_name(obj), selector(obj.get("spec", {}).get("podSelector")), age(obj, now)]


def _endpoint_slice(obj: Object, now: float) -> list[Any]:
    ports = [str(one.get("port", "*")) for one in obj.get("ports", ())]
    addresses = [address for one in obj.get("endpoints", ()) for address in one.get("addresses", ())]
    shown = endpoint_list(ports) if ports else UNSET
    return [_name(obj), obj.get("addressType", ""), shown, _unset(endpoint_list(addresses)), age(obj, now)]


def _unset(text: str) -> str:
    return UNSET if text == NONE else text


def _created_at(obj: Object, now: float) -> list[Any]:
    return [_name(obj), obj["metadata"].get("creationTimestamp", "")]


def _role_binding(obj: Object, now: float) -> list[Any]:
    role = obj.get("roleRef", {})
    subjects: dict[str, list[str]] = {"User": [], "Group": [], "ServiceAccount": []}
    for one in obj.get("subjects", ()):
        name = one.get("name", "")
        account = one.get("kind") == "ServiceAccount"
        subjects.get(one.get("kind", ""), []).append(f"{one.get('namespace', '')}/{name}" if account else name)
    return [
        _name(obj),
        f"{role.get('kind', '')}/{role.get('name', '')}",
        age(obj, now),
        *(", ".join(one) for one in subjects.values()),
    ]


def _storage_class(obj: Object, now: float) -> list[Any]:
    annotations = obj["metadata"].get("annotations", {})
    default = annotations.get("storageclass.kubernetes.io/is-default-class") == "true"
    return [
        f"{_name(obj)} (default)" if default else _name(obj),
        obj.get("provisioner", ""),
        obj.get("reclaimPolicy", "Delete"),
        obj.get("volumeBindingMode", "Immediate"),
        bool(obj.get("allowVolumeExpansion", False)),
        age(obj, now),
    ]


def _csi_driver(obj: Object, now: float) -> list[Any]:
    spec = obj.get("spec", {})
    return [
        _name(obj),
        bool(spec.get("attachRequired", True)),
        bool(spec.get("podInfoOnMount", False)),
        bool(spec.get("storageCapacity", False)),
        ",".join(one.get("audience", "") for one in spec.get("tokenRequests", ())) or UNSET,
        bool(spec.get("requiresRepublish", False)),
        ",".join(spec.get("volumeLifecycleModes", ())) or NONE,
        age(obj, now),
    ]


def _csi_node(obj: Object, now: float) -> list[Any]:
    return [_name(obj), len(obj.get("spec", {}).get("drivers", ())), age(obj, now)]


def _csi_capacity(obj: Object, now: float) -> list[Any]:
    return [_name(obj), obj.get("storageClassName", ""), obj.get("capacity", UNSET)]


def _volume_attachment(obj: Object, now: float) -> list[Any]:
    spec = obj.get("spec", {})
    volume = spec.get("source", {}).get("persistentVolumeName", "")
    attached = bool(obj.get("status", {}).get("attached", False))
    return [_name(obj), spec.get("attacher", ""), volume, spec.get("nodeName", ""), attached, age(obj, now)]


def _attributes_class(obj: Object, now: float) -> list[Any]:
    return [_name(obj), obj.get("driverName", ""), age(obj, now)]


def _lease(obj: Object, now: float) -> list[Any]:
    return [_name(obj), obj.get("spec", {}).get("holderIdentity", ""), age(obj, now)]


def _priority_class(obj: Object, now: float) -> list[Any]:
    policy = obj.get("preemptionPolicy", "")
    return [_name(obj), obj.get("value", 0), bool(obj.get("globalDefault", False)), age(obj, now), policy]


def _runtime_class(obj: Object, now: float) -> list[Any]:
    return [_name(obj), obj.get("handler", ""), age(obj, now)]


def _signing_request(obj: Object, now: float) -> list[Any]:
    spec, status = obj.get("spec", {}), obj.get("status", {})
    seconds = spec.get("expirationSeconds")
    return [
        _name(obj),
        age(obj, now),
        spec.get("signerName") or NONE,
        spec.get("username", ""),
        times.human_duration(seconds) if seconds else NONE,
        _signing_state(status),
    ]


def _signing_state(status: Object) -> str:
    kinds = {one.get("type") for one in status.get("conditions", ())}
    states = ["Denied" if "Denied" in kinds else "Approved" if "Approved" in kinds else "Pending"]
    if "Failed" in kinds:
        states.append("Failed")
    if status.get("certificate"):
        states.append("Issued")
    return ",".join(states)


def _webhooks(obj: Object, now: float) -> list[Any]:
    return [_name(obj), len(obj.get("webhooks", ())), age(obj, now)]


def _admission_policy(obj: Object, now: float) -> list[Any]:
    spec = obj.get("spec", {})
    param = spec.get("paramKind")
    text = f"{param.get('apiVersion', '')}/{param.get('kind', '')}" if param else UNSET
    return [_name(obj), len(spec.get("validations", spec.get("mutations", ()))), text, age(obj, now)]


def _admission_policy_binding(obj: Object, now: float) -> list[Any]:
    spec = obj.get("spec", {})
    param = spec.get("paramRef")
    text = UNSET
    if param:
        text = f"{param.get('namespace') or '*'}/{param.get('name') or '*'}"
    return [_name(obj), spec.get("policyName", ""), text, age(obj, now)]


def _flow_schema(obj: Object, now: float) -> list[Any]:
    spec = obj.get("spec", {})
    missing = "?"
    for one in obj.get("status", {}).get("conditions", ()):
        if one.get("type") == "Dangling":
            missing = one.get("status", "?")
    return [
        _name(obj),
        spec.get("priorityLevelConfiguration", {}).get("name", ""),
        spec.get("matchingPrecedence", 0),
        spec.get("distinguisherMethod", {}).get("type", NONE),
        age(obj, now),
        missing,
    ]


def _priority_level(obj: Object, now: float) -> list[Any]:
    spec = obj.get("spec", {})
    limited = spec.get("limited") or spec.get("exempt") or {}
    queuing = limited.get("limitResponse", {}).get("queuing", {})
    return [
        _name(obj),
        spec.get("type", ""),
        limited.get("nominalConcurrencyShares", NONE),
        queuing.get("queues", NONE),
        queuing.get("handSize", NONE),
        queuing.get("queueLengthLimit", NONE),
        age(obj, now),
    ]


def _ip_address(obj: Object, now: float) -> list[Any]:
    parent = obj.get("spec", {}).get("parentRef", {})
    parts = [parent.get(name) for name in ("group", "resource", "namespace", "name")]
    return [_name(obj), "/".join(str(one) for one in parts if one) or NONE, age(obj, now)]


def _service_cidr(obj: Object, now: float) -> list[Any]:
    return [_name(obj), ",".join(obj.get("spec", {}).get("cidrs", ())), age(obj, now)]


def _api_service(obj: Object, now: float) -> list[Any]:
    service = obj.get("spec", {}).get("service")
    available = "Unknown"
    for one in obj.get("status", {}).get("conditions", ()):
        if one.get("type") == "Available":
            good = one.get("status") == "True"
            available = "True" if good else f"{one.get('status', '')} ({one.get('reason', '')})"
    text = f"{service.get('namespace', '')}/{service.get('name', '')}" if service else "Local"
    return [_name(obj), text, available, age(obj, now)]


_CREATED_AT: Final = Printer(columns("Name | Created At"), _created_at)
_BINDING: Final = Printer(columns("Name | Role | Age | Users+ | Groups+ | ServiceAccounts+"), _role_binding)
_WEBHOOKS: Final = Printer(columns("Name | Webhooks# | Age"), _webhooks)
_POLICY_BINDING: Final = Printer(columns("Name | PolicyName | ParamRef | Age"), _admission_policy_binding)
_ADMISSION: Final = "admissionregistration.k8s.io"
_RBAC: Final = "rbac.authorization.k8s.io"
_STORAGE: Final = "storage.k8s.io"

PRINTERS: Final = {
    (_ADMISSION, "MutatingAdmissionPolicy"): Printer(columns("Name | Mutations# | ParamKind | Age"), _admission_policy),
    (_ADMISSION, "MutatingAdmissionPolicyBinding"): _POLICY_BINDING,
    (_ADMISSION, "MutatingWebhookConfiguration"): _WEBHOOKS,
    (_ADMISSION, "ValidatingAdmissionPolicy"): Printer(
        columns("Name | Validations# | ParamKind | Age"), _admission_policy
    ),
    (_ADMISSION, "ValidatingAdmissionPolicyBinding"): _POLICY_BINDING,
    (_ADMISSION, "ValidatingWebhookConfiguration"): _WEBHOOKS,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _CREATED_AT,
    ("apiregistration.k8s.io", "APIService"): Printer(columns("Name | Service | Available | Age"), _api_service),
    ("certificates.k8s.io", "CertificateSigningRequest"): Printer(
        columns("Name | Age | SignerName | Requestor | RequestedDuration | Condition"), _signing_request
    ),
    ("coordination.k8s.io", "Lease"): Printer(columns("Name | Holder | Age"), _lease),
    ("discovery.k8s.io", "EndpointSlice"): Printer(
        columns("Name | AddressType | Ports | Endpoints | Age"), _endpoint_slice
    ),
    ("flowcontrol.apiserver.k8s.io", "FlowSchema"): Printer(
        columns("Name | PriorityLevel | MatchingPrecedence# | DistinguisherMethod | Age | MissingPL"), _flow_schema
    ),
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"): Printer(
        columns("Name | Type | NominalConcurrencyShares | Queues | HandSize | QueueLengthLimit | Age"), _priority_level
    ),
    ("networking.k8s.io", "IPAddress"): Printer(columns("Name | ParentRef | Age"), _ip_address),
    ("networking.k8s.io", "Ingress"): Printer(columns("Name | Class | Hosts | Address | Ports | Age"), _ingress),
    ("networking.k8s.io", "IngressClass"): Printer(columns("Name | Controller | Parameters | Age"), _ingress_class),
    ("networking.k8s.io", "NetworkPolicy"): Printer(columns("Name | Pod-Selector | Age"), _network_policy),
    ("networking.k8s.io", "ServiceCIDR"): Printer(columns("Name | CIDRs | Age"), _service_cidr),
    ("node.k8s.io", "RuntimeClass"): Printer(columns("Name | Handler | Age"), _runtime_class),
    (_RBAC, "ClusterRole"): _CREATED_AT,
    (_RBAC, "ClusterRoleBinding"): _BINDING,
    (_RBAC, "Role"): _CREATED_AT,
    (_RBAC, "RoleBinding"): _BINDING,
    ("scheduling.k8s.io", "PriorityClass"): Printer(
        columns("Name | Value# | Global-Default | Age | PreemptionPolicy"), _priority_class
    ),
    (_STORAGE, "CSIDriver"): Printer(
        columns(
            "Name | AttachRequired | PodInfoOnMount | StorageCapacity | TokenRequests | RequiresRepublish | Modes | Age"
        ),
        _csi_driver,
    ),
    (_STORAGE, "CSINode"): Printer(columns("Name | Drivers# | Age"), _csi_node),
    (_STORAGE, "CSIStorageCapacity"): Printer(columns("Name | StorageClassName | Capacity"), _csi_capacity),
    (_STORAGE, "StorageClass"): Printer(
        columns("Name | Provisioner | ReclaimPolicy | VolumeBindingMode | AllowVolumeExpansion | Age"), _storage_class
    ),
    (_STORAGE, "VolumeAttachment"): Printer(
        columns("Name | Attacher | PV | Node | Attached | Age"), _volume_attachment
    ),
    (_STORAGE, "VolumeAttributesClass"): Printer(columns("Name | DriverName | Age"), _attributes_class),
}
