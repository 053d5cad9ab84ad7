"""Printers of the core kinds beside workloads.

Source  Columns of kubectl for these kinds.
"""

from __future__ import annotations

from typing import Any, Final

from edgesite.kube.tablecells import NONE, UNKNOWN, UNSET, Printer, access_modes, age, columns, labels, since

__all__ = ["PRINTERS", "endpoint_list"]

Object = dict[str, Any]
_SHOWN_ENDPOINTS: Final = 3


def _node(node: Object, now: float) -> list[Any]:
    status = node.get("status", {})
    info = status.get("nodeInfo", {})
    conditions = [
        "Ready" if one.get("status") == "True" else "NotReady"
        for one in status.get("conditions", ())
        if one.get("type") == "Ready"
    ] or ["Unknown"]
    if node.get("spec", {}).get("unschedulable"):
        conditions.append("SchedulingDisabled")
    return [
        node["metadata"].get("name", ""),
        ",".join(conditions),
        ",".join(_roles(node)) or NONE,
        age(node, now),
        info.get("kubeletVersion", ""),
        _address(status, "InternalIP"),
        _address(status, "ExternalIP"),
        info.get("osImage") or UNKNOWN,
        info.get("kernelVersion") or UNKNOWN,
        info.get("containerRuntimeVersion") or UNKNOWN,
    ]


def _roles(node: Object) -> list[str]:
    prefix = "node-role.kubernetes.io/"
    roles = set()
    for key, value in node["metadata"].get("labels", {}).items():
        if key.startswith(prefix) and len(key) > len(prefix):
            roles.add(key[len(prefix) :])
        elif key == "kubernetes.io/role" and value:
            roles.add(value)
    return sorted(roles)


def _address(status: Object, kind: str) -> str:
    return next((str(one.get("address")) for one in status.get("addresses", ()) if one.get("type") == kind), NONE)


def _service(service: Object, now: float) -> list[Any]:
    spec = service.get("spec", {})
    addresses = spec.get("clusterIPs", [])
    return [
        service["metadata"].get("name", ""),
        spec.get("type", ""),
        (addresses[0] if addresses else spec.get("clusterIP")) or NONE,
        _external(service),
        ",".join(_service_port(one) for one in spec.get("ports", ())) or NONE,
        age(service, now),
        labels(spec.get("selector")),
    ]


def _external(service: Object) -> str:
    spec = service.get("spec", {})
    external = list(spec.get("externalIPs", ()))
    kind = spec.get("type")
    if kind == "ExternalName":
        return str(spec.get("externalName", ""))
    if kind == "LoadBalancer":
        ingress = service.get("status", {}).get("loadBalancer", {}).get("ingress", ())
        given = [one.get("ip") or one.get("hostname", "") for one in ingress]
        return ",".join([*given, *external]) or "<pending>"
    return ",".join(external) or NONE


def _service_port(port: Object) -> str:
    node = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port.get('port', 0)}{node}/{port.get('protocol', '')}"


def _endpoints(obj: Object, now: float) -> list[Any]:
    places = [
        f"[{one.get('ip')}]:{port.get('port')}" if ":" in one.get("ip", "") else f"{one.get('ip')}:{port.get('port')}"
        for subset in obj.get("subsets", ())
        for port in subset.get("ports", ())
        for one in subset.get("addresses", ())
    ] or [
        str(one.get("ip"))
        for subset in obj.get("subsets", ())
        if not subset.get("ports")
        for one in subset.get("addresses", ())
    ]
    return [obj["metadata"].get("name", ""), endpoint_list(places), age(obj, now)]


def endpoint_list(places: list[str]) -> str:
    """The first few of many, and how many more there are."""
    if not places:
        return NONE
    more = len(places) - _SHOWN_ENDPOINTS
    shown = ",".join(places[:_SHOWN_ENDPOINTS])
    return f"{shown} + {more} more..." if more > 0 else shown


def _event(event: Object, now: float) -> list[Any]:
    start = event.get("firstTimestamp") or event.get("eventTime")
    end, count = event.get("lastTimestamp") or start, event.get("count") or 1
    if "series" in event:
        end, count = event["series"].get("lastObservedTime"), event["series"].get("count", 0)
    involved, source = event.get("involvedObject", {}), event.get("source", {})
    kind = str(involved.get("kind", "")).lower()
    component = source.get("component") or event.get("reportingComponent", "")
    host = source.get("host") or (event.get("reportingInstance", "") if not source.get("component") else "")
    return [
        since(end, now),
        event.get("type", ""),
        event.get("reason", ""),
        f"{kind}/{involved['name']}" if involved.get("name") else kind,
        involved.get("fieldPath", ""),
        f"{component}, {host}" if host else component,
        str(event.get("message", "")).strip(),
        since(start, now),
        count,
        event["metadata"].get("name", ""),
    ]


def _namespace(obj: Object, now: float) -> list[Any]:
    return [obj["metadata"].get("name", ""), obj.get("status", {}).get("phase", ""), age(obj, now)]


def _secret(obj: Object, now: float) -> list[Any]:
    return [obj["metadata"].get("name", ""), obj.get("type", ""), len(obj.get("data", ())), age(obj, now)]


def _config_map(obj: Object, now: float) -> list[Any]:
    count = len(obj.get("data", ())) + len(obj.get("binaryData", ()))
    return [obj["metadata"].get("name", ""), count, age(obj, now)]


def _service_account(obj: Object, now: float) -> list[Any]:
    return [obj["metadata"].get("name", ""), len(obj.get("secrets", ())), age(obj, now)]


def _volume(obj: Object, now: float) -> list[Any]:
    spec, status = obj.get("spec", {}), obj.get("status", {})
    claim = spec.get("claimRef")
    return [
        obj["metadata"].get("name", ""),
        spec.get("capacity", {}).get("storage", "0"),
        access_modes(spec.get("accessModes", ())),
        spec.get("persistentVolumeReclaimPolicy", ""),
        _phase(obj),
        f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else "",
        _class_of(obj),
        spec.get("volumeAttributesClassName") or UNSET,
        status.get("reason", ""),
        age(obj, now),
        spec.get("volumeMode", UNSET),
    ]


def _claim(obj: Object, now: float) -> list[Any]:
    spec, status = obj.get("spec", {}), obj.get("status", {})
    bound = bool(spec.get("volumeName"))
    return [
        obj["metadata"].get("name", ""),
        _phase(obj),
        spec.get("volumeName", ""),
        status.get("capacity", {}).get("storage", "0") if bound else "",
        access_modes(status.get("accessModes", ())) if bound else "",
        _class_of(obj),
        spec.get("volumeAttributesClassName") or UNSET,
        age(obj, now),
        spec.get("volumeMode", UNSET),
    ]


def _phase(obj: Object) -> str:
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    return str(obj.get("status", {}).get("phase", ""))


def _class_of(obj: Object) -> str:
    old = obj["metadata"].get("annotations", {}).get("volume.beta.kubernetes.io/storage-class")
    return str(old or obj.get("spec", {}).get("storageClassName", ""))


def _resource_quota(obj: Object, now: float) -> list[Any]:
    hard = obj.get("status", {}).get("hard", obj.get("spec", {}).get("hard", {}))
    used = obj.get("status", {}).get("used", {})
    requests: list[str] = []
    limits: list[str] = []
    for name in sorted(hard):
        text = f"{name}: {used.get(name, '0')}/{hard[name]}"
        (limits if name.startswith("limits.") else requests).append(text)
    return [obj["metadata"].get("name", ""), ", ".join(requests), ", ".join(limits), age(obj, now)]


def _component_status(obj: Object, now: float) -> list[Any]:
    for one in obj.get("conditions", ()):
        if one.get("type") == "Healthy":
            state = {"True": "Healthy", "False": "Unhealthy"}.get(one.get("status", ""), "Unknown")
            return [obj["metadata"].get("name", ""), state, one.get("message", ""), one.get("error", "")]
    return [obj["metadata"].get("name", ""), "Unknown", "", ""]


_EVENT: Final = Printer(
    columns("Last Seen | Type | Reason | Object | Subobject+ | Source+ | Message | First Seen+ | Count#+ | Name+"),
    _event,
)

PRINTERS: Final = {
    ("", "ComponentStatus"): Printer(columns("Name | Status | Message | Error"), _component_status),
    ("", "ConfigMap"): Printer(columns("Name | Data# | Age"), _config_map),
    ("", "Endpoints"): Printer(columns("Name | Endpoints | Age"), _endpoints),
    ("", "Event"): _EVENT,
    ("events.k8s.io", "Event"): _EVENT,
    ("", "Namespace"): Printer(columns("Name | Status | Age"), _namespace),
    ("", "Node"): Printer(
        columns(
            "Name | Status | Roles | Age | Version | Internal-IP+ | External-IP+ | OS-Image+ | Kernel-Version+ | Container-Runtime+"
        ),
        _node,
    ),
    ("", "PersistentVolume"): Printer(
        columns(
            "Name | Capacity | Access Modes | Reclaim Policy | Status | Claim | StorageClass | VolumeAttributesClass | Reason | Age | VolumeMode+"
        ),
        _volume,
    ),
    ("", "PersistentVolumeClaim"): Printer(
        columns(
            "Name | Status | Volume | Capacity | Access Modes | StorageClass | VolumeAttributesClass | Age | VolumeMode+"
        ),
        _claim,
    ),
    ("", "ResourceQuota"): Printer(columns("Name | Request | Limit | Age"), _resource_quota),
    ("", "Secret"): Printer(columns("Name | Type | Data# | Age"), _secret),
    ("", "Service"): Printer(columns("Name | Type | Cluster-IP | External-IP | Port(s) | Age | Selector+"), _service),
    ("", "ServiceAccount"): Printer(columns("Name | Secrets# | Age"), _service_account),
}
