"""Defaulting: what the API server fills in where a user leaves something out, kind by kind.

    apply(group, version, kind, obj)      in place; obj is as `schema_decode` leaves it
    add_default_tolerations(pod)          what admission adds to a new pod
    add_job_selector(job)                 what the registry adds to a new Job
    new_status(group, version, kind)      the status of an object that nobody has worked on yet

Only defaults that follow from the object alone are here; what needs other objects or an allocator (cluster IPs, service
accounts, priorities) belongs to the registry.

Errors  None raised.
Source  Defaults of kube-apiserver 1.36 (values only).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from edgesite.kube import defaults_workloads
from edgesite.kube.defaults_pod import add_default_tolerations, claim_spec_defaults, fill, pod_defaults
from edgesite.kube.defaults_workloads import add_job_selector

__all__ = ["add_default_tolerations", "add_job_selector", "apply", "new_status"]

Object = dict[str, Any]
_RBAC: Final = "rbac.authorization.k8s.io"
_CLIENT_AFFINITY_S: Final = 10800


def apply(group: str, version: str, kind: str, obj: Object) -> None:
    """Fill in the defaults of ``obj`` in place; a kind without defaults stays as it is."""
    function = defaults_workloads.OTHER_VERSIONS.get((group, version, kind)) or _DEFAULTS.get((group, kind))
    if function is not None:
        obj.setdefault("metadata", {})
        function(obj)


def new_status(group: str, version: str, kind: str) -> Object:
    """Return the status of a new object: counts that clients expect to be there are 0, all else is missing."""
    counts = _COUNTS.get((group, kind), ())
    if (group, version) == ("autoscaling", "v1"):
        counts = ("currentReplicas", "desiredReplicas")
    return dict.fromkeys(counts, 0)


_COUNTS: Final[dict[tuple[str, str], tuple[str, ...]]] = {
    ("", "ReplicationController"): ("replicas",),
    ("apps", "DaemonSet"): ("currentNumberScheduled", "desiredNumberScheduled", "numberMisscheduled", "numberReady"),
    ("apps", "ReplicaSet"): ("replicas",),
    ("apps", "StatefulSet"): ("availableReplicas", "replicas"),
    ("autoscaling", "HorizontalPodAutoscaler"): ("desiredReplicas",),
    ("policy", "PodDisruptionBudget"): ("currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods"),
}


def _service(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    fill(spec, sessionAffinity="None", type="ClusterIP")
    if spec["sessionAffinity"] == "ClientIP":
        config = spec.setdefault("sessionAffinityConfig", {})
        fill(config.setdefault("clientIP", {}), timeoutSeconds=_CLIENT_AFFINITY_S)
    elif spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    for port in spec.get("ports", ()):
        fill(port, protocol="TCP")
        if port.get("targetPort") in (None, "", 0) and "port" in port:
            port["targetPort"] = port["port"]
    kind = spec["type"]
    external = kind in ("NodePort", "LoadBalancer")
    if external or (kind == "ClusterIP" and spec.get("externalIPs")):
        fill(spec, externalTrafficPolicy="Cluster")
    if external or kind == "ClusterIP":
        fill(spec, internalTrafficPolicy="Cluster")
    if kind == "LoadBalancer":
        fill(spec, allocateLoadBalancerNodePorts=True)
    obj.setdefault("status", {}).setdefault("loadBalancer", {})


def _endpoints(obj: Object) -> None:
    for subset in obj.get("subsets", ()):
        for port in subset.get("ports", ()):
            fill(port, protocol="TCP")


def _endpoint_slice(obj: Object) -> None:
    for port in obj.get("ports", ()):
        port.setdefault("name", "")
        fill(port, protocol="TCP")


def _secret(obj: Object) -> None:
    fill(obj, type="Opaque")


def _namespace(obj: Object) -> None:
    name = obj["metadata"].get("name")
    if name:
        obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = name
    obj.setdefault("spec", {})
    fill(obj.setdefault("status", {}), phase="Active")


def _node(obj: Object) -> None:
    status = obj.setdefault("status", {})
    obj.setdefault("spec", {})
    if "allocatable" not in status and "capacity" in status:
        status["allocatable"] = dict(status["capacity"])


def _volume(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    fill(spec, persistentVolumeReclaimPolicy="Retain", volumeMode="Filesystem")
    if "hostPath" in spec:
        spec["hostPath"].setdefault("type", "")
    if "iscsi" in spec:
        fill(spec["iscsi"], iscsiInterface="default")
    fill(obj.setdefault("status", {}), phase="Pending")


def _claim(obj: Object) -> None:
    claim_spec_defaults(obj.setdefault("spec", {}))
    fill(obj.setdefault("status", {}), phase="Pending")


def _limit_range(obj: Object) -> None:
    for item in obj.setdefault("spec", {}).get("limits", ()):
        if item.get("type") != "Container":
            continue
        for target, sources in (("default", ("max",)), ("defaultRequest", ("default", "min"))):
            amounts = {**item.get(target, {})}
            for source in sources:
                amounts = {**item.get(source, {}), **amounts}
            if amounts:
                item[target] = amounts


def _network_policy(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("podSelector", {})
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    for rule in (*spec.get("ingress", ()), *spec.get("egress", ())):
        for port in rule.get("ports", ()):
            fill(port, protocol="TCP")


def _ingress(obj: Object) -> None:
    obj.setdefault("spec", {})
    obj.setdefault("status", {}).setdefault("loadBalancer", {})


def _ingress_class(obj: Object) -> None:
    parameters = obj.setdefault("spec", {}).get("parameters")
    if parameters is not None:
        fill(parameters, scope="Cluster")


def _binding(obj: Object) -> None:
    fill(obj.setdefault("roleRef", {}), apiGroup=_RBAC)
    for subject in obj.get("subjects", ()):
        if subject.get("kind") in ("User", "Group"):
            fill(subject, apiGroup=_RBAC)


def _storage_class(obj: Object) -> None:
    fill(obj, reclaimPolicy="Delete", volumeBindingMode="Immediate")


def _csi_driver(obj: Object) -> None:
    fill(
        obj.setdefault("spec", {}),
        attachRequired=True,
        podInfoOnMount=False,
        storageCapacity=False,
        fsGroupPolicy="ReadWriteOnceWithFSType",
        volumeLifecycleModes=["Persistent"],
        requiresRepublish=False,
        seLinuxMount=False,
    )


def _priority_class(obj: Object) -> None:
    fill(obj, preemptionPolicy="PreemptLowerPriority")
    obj.setdefault("value", 0)


def _webhooks(obj: Object) -> None:
    for webhook in obj.get("webhooks", ()):
        fill(webhook, failurePolicy="Fail", matchPolicy="Equivalent", timeoutSeconds=10)
        webhook.setdefault("namespaceSelector", {})
        webhook.setdefault("objectSelector", {})
        for rule in webhook.get("rules", ()):
            fill(rule, scope="*")
        service = webhook.get("clientConfig", {}).get("service")
        if service is not None:
            fill(service, port=443)


def _mutating_webhooks(obj: Object) -> None:
    _webhooks(obj)
    for webhook in obj.get("webhooks", ()):
        fill(webhook, reinvocationPolicy="Never")


def _match_resources(match: Object) -> None:
    fill(match, matchPolicy="Equivalent")
    match.setdefault("namespaceSelector", {})
    match.setdefault("objectSelector", {})
    for rule in (*match.get("resourceRules", ()), *match.get("excludeResourceRules", ())):
        fill(rule, scope="*")


def _admission_policy(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    fill(spec, failurePolicy="Fail")
    if "matchConstraints" in spec:
        _match_resources(spec["matchConstraints"])


def _admission_policy_binding(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    if "matchResources" in spec:
        _match_resources(spec["matchResources"])


def _custom_resource_definition(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    names = spec.setdefault("names", {})
    if names.get("kind"):
        fill(names, singular=names["kind"].lower(), listKind=f"{names['kind']}List")
    conversion = spec.setdefault("conversion", {})
    fill(conversion, strategy="None")
    service = conversion.get("webhook", {}).get("clientConfig", {}).get("service")
    if service is not None:
        fill(service, port=443)


def _api_service(obj: Object) -> None:
    service = obj.setdefault("spec", {}).get("service")
    if service is not None:
        fill(service, port=443)
    obj.setdefault("status", {})


def _flow_schema(obj: Object) -> None:
    fill(obj.setdefault("spec", {}), matchingPrecedence=1000)


def _token_request(obj: Object) -> None:
    fill(obj.setdefault("spec", {}), expirationSeconds=3600)


def _disruption_budget(obj: Object) -> None:
    obj.setdefault("spec", {})
    status = obj.setdefault("status", {})
    for name in _COUNTS["policy", "PodDisruptionBudget"]:
        status.setdefault(name, 0)


def _with_spec_and_status(obj: Object) -> None:
    obj.setdefault("spec", {})
    obj.setdefault("status", {})


_DEFAULTS: Final[dict[tuple[str, str], Callable[[Object], None]]] = {
    **defaults_workloads.DEFAULTS,
    ("", "Endpoints"): _endpoints,
    ("", "LimitRange"): _limit_range,
    ("", "Namespace"): _namespace,
    ("", "Node"): _node,
    ("", "PersistentVolume"): _volume,
    ("", "PersistentVolumeClaim"): _claim,
    ("", "Pod"): pod_defaults,
    ("", "ResourceQuota"): _with_spec_and_status,
    ("", "Secret"): _secret,
    ("", "Service"): _service,
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicy"): _admission_policy,
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding"): _admission_policy_binding,
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"): _mutating_webhooks,
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"): _admission_policy,
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding"): _admission_policy_binding,
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"): _webhooks,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _custom_resource_definition,
    ("apiregistration.k8s.io", "APIService"): _api_service,
    ("authentication.k8s.io", "TokenRequest"): _token_request,
    ("certificates.k8s.io", "CertificateSigningRequest"): _with_spec_and_status,
    ("discovery.k8s.io", "EndpointSlice"): _endpoint_slice,
    ("flowcontrol.apiserver.k8s.io", "FlowSchema"): _flow_schema,
    ("networking.k8s.io", "Ingress"): _ingress,
    ("networking.k8s.io", "IngressClass"): _ingress_class,
    ("networking.k8s.io", "NetworkPolicy"): _network_policy,
    ("policy", "PodDisruptionBudget"): _disruption_budget,
    (_RBAC, "ClusterRoleBinding"): _binding,
    (_RBAC, "RoleBinding"): _binding,
    ("scheduling.k8s.io", "PriorityClass"): _priority_class,
    ("storage.k8s.io", "CSIDriver"): _csi_driver,
    ("storage.k8s.io", "StorageClass"): _storage_class,
}
