"""Validation of networking, RBAC, storage classes, leases, endpoint slices, priorities, certificates, CRDs and the like.

Errors  None raised: what is wrong goes into `Causes`.
Source  Rules and texts of kube-apiserver's validation of these groups.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any, Final

from edgesite.kube import names
from edgesite.kube.causes import Causes
from edgesite.kube.validation_container import PROTOCOLS
from edgesite.kube.validation_crd import check_crd, check_crd_update
from edgesite.kube.validation_meta import check_selector
from edgesite.kube.validation_pod import is_ip

__all__ = ["CHECKS", "UPDATES"]

Object = dict[str, Any]
_RBAC: Final = "rbac.authorization.k8s.io"
MAX_USER_PRIORITY: Final = 1_000_000_000  #: above are the system's own
_PATH_TYPES: Final = ("Exact", "ImplementationSpecific", "Prefix")


def _ingress(causes: Causes, obj: Object) -> None:
    spec = obj.get("spec", {})
    if not spec.get("rules") and "defaultBackend" not in spec:
        causes.invalid("spec", spec, "either `defaultBackend` or `rules` must be specified")
    if "defaultBackend" in spec:
        _ingress_backend(causes, "spec.defaultBackend", spec["defaultBackend"])
    for index, rule in enumerate(spec.get("rules", ())):
        path, host = f"spec.rules[{index}]", rule.get("host", "")
        if host:
            if is_ip(host):
                causes.invalid(f"{path}.host", host, "must be a DNS name, not an IP address")
            else:
                plain = host.removeprefix("*.")
                causes.each(f"{path}.host", host, names.dns1123_subdomain_problems(plain))
        if "http" not in rule:
            continue
        if not rule["http"].get("paths"):
            causes.required(f"{path}.http.paths")
        for number, one in enumerate(rule["http"].get("paths", ())):
            _ingress_path(causes, f"{path}.http.paths[{number}]", one)


def _ingress_path(causes: Causes, path: str, one: Object) -> None:
    kind, place = one.get("pathType"), one.get("path", "")
    if kind is None:
        causes.required(f"{path}.pathType", "pathType must be specified")
    elif kind not in _PATH_TYPES:
        causes.not_supported(f"{path}.pathType", kind, _PATH_TYPES)
    elif kind != "ImplementationSpecific" or place:
        if not place.startswith("/"):
            causes.invalid(f"{path}.path", place, "must be an absolute path")
        for bad in ("//", "/./", "/../", "%2f", "%2F"):
            if bad in place and kind != "ImplementationSpecific":
                causes.invalid(f"{path}.path", place, f"must not contain '{bad}'")
    _ingress_backend(causes, f"{path}.backend", one.get("backend", {}))


def _ingress_backend(causes: Causes, path: str, backend: Object) -> None:
    service = backend.get("service")
    if service is None and "resource" not in backend:
        causes.required(path, "resource or service backend is required")
    elif service is not None and "resource" in backend:
        causes.invalid(path, "", "cannot set both resource and service backends")
    elif service is not None:
        if not service.get("name"):
            causes.required(f"{path}.service.name")
        else:
            causes.each(f"{path}.service.name", service["name"], names.dns1035_label_problems(service["name"]))
        port = service.get("port", {})
        if "name" in port and "number" in port:
            causes.invalid(path, "", "cannot set both port name & port number")
        elif port.get("name"):
            causes.each(f"{path}.service.port.name", port["name"], names.port_name_problems(port["name"]))
        elif port.get("number"):
            causes.port(f"{path}.service.port.number", port["number"])
        else:
            causes.required(path, "port name or number is required")


def _network_policy(causes: Causes, obj: Object) -> None:
    spec = obj.get("spec", {})
    check_selector(causes, "spec.podSelector", spec.get("podSelector"))
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(direction, ())):
            path = f"spec.{direction}[{index}]"
            for number, port in enumerate(rule.get("ports", ())):
                _policy_port(causes, f"{path}.ports[{number}]", port)
            for number, peer in enumerate(rule.get(peers, ())):
                _policy_peer(causes, f"{path}.{peers}[{number}]", peer)
    kinds = ("Egress", "Ingress")
    if len(spec.get("policyTypes", ())) > len(kinds):
        causes.invalid("spec.policyTypes", spec["policyTypes"], "may not specify more than two policyTypes")
    for index, kind in enumerate(spec.get("policyTypes", ())):
        if kind not in kinds:
            causes.not_supported(f"spec.policyTypes[{index}]", kind, kinds)


def _policy_port(causes: Causes, path: str, port: Object) -> None:
    causes.choice(f"{path}.protocol", port.get("protocol"), PROTOCOLS)
    number = port.get("port")
    if isinstance(number, int):
        causes.port(f"{path}.port", number)
        end = port.get("endPort")
        if end is not None and end < number:
            causes.invalid(f"{path}.endPort", end, "must be greater than or equal to `port`")
    elif number is not None:
        causes.each(f"{path}.port", number, names.port_name_problems(number))
    if "endPort" in port and not isinstance(number, int):
        causes.required(f"{path}.port", "must be specified as a number when endPort is set")


def _policy_peer(causes: Causes, path: str, peer: Object) -> None:
    if not peer:
        causes.required(path, "must specify a peer")
    check_selector(causes, f"{path}.podSelector", peer.get("podSelector"))
    check_selector(causes, f"{path}.namespaceSelector", peer.get("namespaceSelector"))
    block = peer.get("ipBlock")
    if block is None:
        return
    if len(peer) > 1:
        causes.forbidden(path, "may not specify both ipBlock and another peer")
    if not block.get("cidr"):
        causes.required(f"{path}.ipBlock.cidr")
    for field, values in (("cidr", [block.get("cidr", "")]), ("except", block.get("except", []))):
        for value in values:
            if value and not _is_network(value):
                causes.invalid(
                    f"{path}.ipBlock.{field}", value, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
                )


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return "/" in text


def _role(causes: Causes, obj: Object, namespaced: bool = True) -> None:
    for index, rule in enumerate(obj.get("rules", ())):
        path = f"rules[{index}]"
        if not rule.get("verbs"):
            causes.required(f"{path}.verbs", "verbs must contain at least one value")
        if rule.get("nonResourceURLs"):
            if namespaced:
                detail = "namespaced rules cannot apply to non-resource URLs"
                causes.invalid(f"{path}.nonResourceURLs", rule["nonResourceURLs"], detail)
            elif any(rule.get(field) for field in ("apiGroups", "resources", "resourceNames")):
                detail = "rules cannot apply to both regular resources and non-resource URLs"
                causes.invalid(f"{path}.nonResourceURLs", rule["nonResourceURLs"], detail)
            continue
        if not rule.get("apiGroups"):
            causes.required(f"{path}.apiGroups", "resource rules must supply at least one api group")
        if not rule.get("resources"):
            causes.required(f"{path}.resources", "resource rules must supply at least one resource")


def _cluster_role(causes: Causes, obj: Object) -> None:
    _role(causes, obj, namespaced=False)
    for index, selector in enumerate(obj.get("aggregationRule", {}).get("clusterRoleSelectors", ())):
        check_selector(causes, f"aggregationRule.clusterRoleSelectors[{index}]", selector)


def _role_binding(causes: Causes, obj: Object, kinds: tuple[str, ...] = ("ClusterRole", "Role")) -> None:
    role = obj.get("roleRef", {})
    if role.get("apiGroup") != _RBAC:
        causes.not_supported("roleRef.apiGroup", role.get("apiGroup", ""), (_RBAC,))
    if role.get("kind") not in kinds:
        causes.not_supported("roleRef.kind", role.get("kind", ""), kinds)
    if not role.get("name"):
        causes.required("roleRef.name")
    else:
        causes.each("roleRef.name", role["name"], names.path_segment_problems(role["name"]))
    for index, subject in enumerate(obj.get("subjects", ())):
        path, kind, group = f"subjects[{index}]", subject.get("kind", ""), subject.get("apiGroup", "")
        if not subject.get("name"):
            causes.required(f"{path}.name")
        if kind == "ServiceAccount":
            if not subject.get("namespace"):
                causes.required(f"{path}.namespace")
            if group:
                causes.not_supported(f"{path}.apiGroup", group, ("",))
        elif kind in ("User", "Group"):
            if group != _RBAC:
                causes.not_supported(f"{path}.apiGroup", group, (_RBAC,))
        else:
            causes.not_supported(f"{path}.kind", kind, ("Group", "ServiceAccount", "User"))


def _cluster_role_binding(causes: Causes, obj: Object) -> None:
    _role_binding(causes, obj, ("ClusterRole",))


def _role_binding_update(causes: Causes, new: Object, old: Object) -> None:
    causes.unchanged("roleRef", new.get("roleRef"), old.get("roleRef"), "cannot change roleRef")


def _storage_class(causes: Causes, obj: Object) -> None:
    if not obj.get("provisioner"):
        causes.required("provisioner")
    else:
        causes.each("provisioner", obj["provisioner"], names.qualified_name_problems(obj["provisioner"].lower()))
    causes.choice("volumeBindingMode", obj.get("volumeBindingMode"), ("Immediate", "WaitForFirstConsumer"))
    policy = obj.get("reclaimPolicy")
    if policy is not None and policy not in ("Delete", "Retain"):
        causes.not_supported("reclaimPolicy", policy, ("Delete", "Retain"))


def _storage_class_update(causes: Causes, new: Object, old: Object) -> None:
    for field in ("parameters", "provisioner", "reclaimPolicy"):
        if new.get(field) != old.get(field):
            causes.forbidden(field, f"updates to {field} are forbidden.")
    causes.unchanged("volumeBindingMode", new.get("volumeBindingMode"), old.get("volumeBindingMode"))


def _priority_class(causes: Causes, obj: Object) -> None:
    name = obj.get("metadata", {}).get("name", "")
    value = obj.get("value", 0)
    if name.startswith("system-"):
        if _SYSTEM_PRIORITIES.get(name) != value:
            detail = "priority class names with 'system-' prefix are reserved for system use only. error: " + (
                f"{name} is not a known system priority class"
                if name not in _SYSTEM_PRIORITIES
                else f"value of {name} PriorityClass must be {_SYSTEM_PRIORITIES[name]}"
            )
            causes.forbidden("metadata.name", detail)
    elif value > MAX_USER_PRIORITY:
        causes.forbidden("value", f"maximum allowed value of a user defined priority is {MAX_USER_PRIORITY}")
    choices = ("Never", "PreemptLowerPriority")
    causes.choice("preemptionPolicy", obj.get("preemptionPolicy"), choices)


_SYSTEM_PRIORITIES: Final = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}


def _priority_class_update(causes: Causes, new: Object, old: Object) -> None:
    if new.get("value", 0) != old.get("value", 0):
        causes.forbidden("value", "may not be changed in an update.")
    causes.unchanged("preemptionPolicy", new.get("preemptionPolicy"), old.get("preemptionPolicy"))


def _lease(causes: Causes, obj: Object) -> None:
    spec = obj.get("spec", {})
    seconds = spec.get("leaseDurationSeconds")
    if seconds is not None and seconds <= 0:
        causes.invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0")
    causes.not_negative("spec.leaseTransitions", spec.get("leaseTransitions"))


_ADDRESS_TYPES: Final = ("FQDN", "IPv4", "IPv6")
_MAX_ENDPOINTS: Final = 1000
_MAX_ENDPOINT_ADDRESSES: Final = 100


def _endpoint_slice(causes: Causes, obj: Object) -> None:
    kind = obj.get("addressType", "")
    causes.choice("addressType", kind, _ADDRESS_TYPES)
    endpoints = obj.get("endpoints", [])
    if len(endpoints) > _MAX_ENDPOINTS:
        causes.too_many("endpoints", len(endpoints), _MAX_ENDPOINTS)
    for index, endpoint in enumerate(endpoints):
        path, addresses = f"endpoints[{index}]", endpoint.get("addresses", [])
        if not addresses:
            causes.required(f"{path}.addresses", "must contain at least 1 address")
        elif len(addresses) > _MAX_ENDPOINT_ADDRESSES:
            causes.too_many(f"{path}.addresses", len(addresses), _MAX_ENDPOINT_ADDRESSES)
        for number, address in enumerate(addresses):
            at = f"{path}.addresses[{number}]"
            if kind == "FQDN":
                causes.each(at, address, names.dns1123_subdomain_problems(address))
            elif kind in _ADDRESS_TYPES and not _is_family(address, kind):
                causes.invalid(at, address, f"must be an {kind} address")
    seen: set[str] = set()
    for index, port in enumerate(obj.get("ports", ())):
        path, name = f"ports[{index}]", port.get("name", "")
        if name in seen:
            causes.duplicate(f"{path}.name", name)
        seen.add(name)
        causes.choice(f"{path}.protocol", port.get("protocol"), PROTOCOLS)


def _is_family(address: str, kind: str) -> bool:
    try:
        return ipaddress.ip_address(address).version == (4 if kind == "IPv4" else 6)
    except ValueError:
        return False


def _endpoint_slice_update(causes: Causes, new: Object, old: Object) -> None:
    causes.unchanged("addressType", new.get("addressType"), old.get("addressType"))


def _runtime_class(causes: Causes, obj: Object) -> None:
    handler = obj.get("handler", "")
    causes.each("handler", handler, names.dns1123_label_problems(handler))


def _runtime_class_update(causes: Causes, new: Object, old: Object) -> None:
    causes.unchanged("handler", new.get("handler"), old.get("handler"))


def _signing_request(causes: Causes, obj: Object) -> None:
    spec = obj.get("spec", {})
    if not spec.get("request"):
        causes.required("spec.request")
    if not spec.get("usages"):
        causes.required("spec.usages")
    if not spec.get("signerName"):
        causes.required("spec.signerName")
    seconds = spec.get("expirationSeconds")
    if seconds is not None and seconds < 600:
        causes.invalid(
            "spec.expirationSeconds", seconds, "may not specify a duration less than 600 seconds (10 minutes)"
        )


def _signing_request_update(causes: Causes, new: Object, old: Object) -> None:
    causes.unchanged("spec", new.get("spec"), old.get("spec"))


def _webhooks(causes: Causes, obj: Object) -> None:
    seen: set[str] = set()
    for index, webhook in enumerate(obj.get("webhooks", ())):
        path, name = f"webhooks[{index}]", webhook.get("name", "")
        problems = names.dns1123_subdomain_problems(name)
        causes.each(f"{path}.name", name, problems)
        if not problems and name.count(".") < 2:
            causes.invalid(f"{path}.name", name, "should be a domain with at least three segments separated by dots")
        if name in seen:
            causes.duplicate(f"{path}.name", name)
        seen.add(name)
        if not webhook.get("admissionReviewVersions"):
            causes.required(f"{path}.admissionReviewVersions", "must specify one of v1, v1beta1")
        if webhook.get("sideEffects") not in ("None", "NoneOnDryRun"):
            choices = ("None", "NoneOnDryRun")
            causes.not_supported(f"{path}.sideEffects", webhook.get("sideEffects", ""), choices)
        seconds = webhook.get("timeoutSeconds", 10)
        if not 1 <= seconds <= 30:
            detail = f"the timeout value must be between 1 and 30 seconds, got {seconds}"
            causes.invalid(f"{path}.timeoutSeconds", seconds, detail)
        config = webhook.get("clientConfig", {})
        if ("url" in config) == ("service" in config):
            causes.required(f"{path}.clientConfig", "exactly one of url or service is required")


CHECKS: Final[dict[tuple[str, str], Callable[[Causes, Object], None]]] = {
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"): _webhooks,
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"): _webhooks,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): check_crd,
    ("certificates.k8s.io", "CertificateSigningRequest"): _signing_request,
    ("coordination.k8s.io", "Lease"): _lease,
    ("discovery.k8s.io", "EndpointSlice"): _endpoint_slice,
    ("networking.k8s.io", "Ingress"): _ingress,
    ("networking.k8s.io", "NetworkPolicy"): _network_policy,
    ("node.k8s.io", "RuntimeClass"): _runtime_class,
    (_RBAC, "ClusterRole"): _cluster_role,
    (_RBAC, "ClusterRoleBinding"): _cluster_role_binding,
    (_RBAC, "Role"): _role,
    (_RBAC, "RoleBinding"): _role_binding,
    ("scheduling.k8s.io", "PriorityClass"): _priority_class,
    ("storage.k8s.io", "StorageClass"): _storage_class,
}
UPDATES: Final[dict[tuple[str, str], Callable[[Causes, Object, Object], None]]] = {
    ("apiextensions.k8s.io", "CustomResourceDefinition"): check_crd_update,
    ("certificates.k8s.io", "CertificateSigningRequest"): _signing_request_update,
    ("discovery.k8s.io", "EndpointSlice"): _endpoint_slice_update,
    ("node.k8s.io", "RuntimeClass"): _runtime_class_update,
    (_RBAC, "ClusterRoleBinding"): _role_binding_update,
    (_RBAC, "RoleBinding"): _role_binding_update,
    ("scheduling.k8s.io", "PriorityClass"): _priority_class_update,
    ("storage.k8s.io", "StorageClass"): _storage_class_update,
}
