"""Validation of the core kinds beside pods: services, configuration, namespaces, nodes, storage, quotas, events.

Errors  None raised: what is wrong goes into `Causes`.
Source  Rules and texts of kube-apiserver's validation of core/v1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from edgesite.kube import names, quantity
from edgesite.kube.causes import NOT_NEGATIVE, PORT_RANGE, Causes
from edgesite.kube.validation_container import PROTOCOLS
from edgesite.kube.validation_meta import check_labels
from edgesite.kube.validation_pod import check_node_term, check_pod, check_pod_update, is_ip
from edgesite.kube.validation_volume import ACCESS_MODES, check_claim_spec, check_volume_source

__all__ = ["CHECKS", "UPDATES"]

Object = dict[str, Any]
MAX_CONFIG_BYTES: Final = 1024 * 1024  #: of all values of a ConfigMap or Secret
_SERVICE_TYPES: Final = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_MAX_AFFINITY_S: Final = 86400
_IMMUTABLE_SET: Final = "field is immutable when `immutable` is set"


def _service(causes: Causes, obj: Object) -> None:
    spec = obj.get("spec", {})
    kind = spec.get("type", "")
    headless = spec.get("clusterIP") == "None"
    if not spec.get("ports") and not headless and kind != "ExternalName":
        causes.required("spec.ports")
    causes.choice("spec.type", kind, _SERVICE_TYPES)
    if headless and kind in ("LoadBalancer", "NodePort"):
        detail = f"may not be set to 'None' for {kind} services"
        causes.invalid("spec.clusterIPs[0]", spec["clusterIP"], detail)
    if kind == "ExternalName":
        name = spec.get("externalName", "").removesuffix(".")
        if not name:
            causes.required("spec.externalName")
        else:
            causes.each("spec.externalName", name, names.dns1123_subdomain_problems(name))
    address = spec.get("clusterIP", "")
    if address and not headless and not is_ip(address):
        causes.invalid("spec.clusterIPs", [address], "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")
    check_labels(causes, "spec.selector", spec.get("selector"))
    causes.choice("spec.sessionAffinity", spec.get("sessionAffinity"), ("ClientIP", "None"))
    seconds = spec.get("sessionAffinityConfig", {}).get("clientIP", {}).get("timeoutSeconds")
    if seconds is not None and not 0 < seconds <= _MAX_AFFINITY_S:
        path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
        causes.invalid(path, seconds, f"must be greater than 0 and less than {_MAX_AFFINITY_S}")
    for field in ("externalTrafficPolicy", "internalTrafficPolicy"):
        if spec.get(field) and spec[field] not in ("Cluster", "Local"):
            causes.not_supported(f"spec.{field}", spec[field], ("Cluster", "Local"))
    for index, one in enumerate(spec.get("externalIPs", ())):
        if not is_ip(one):
            causes.invalid(
                f"spec.externalIPs[{index}]", one, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
            )
    _service_ports(causes, spec, headless)


def _service_ports(causes: Causes, spec: Object, headless: bool) -> None:
    ports = spec.get("ports", [])
    seen: set[str] = set()
    places: set[tuple[str, int]] = set()
    node_ports: set[tuple[str, int]] = set()
    for index, port in enumerate(ports):
        path = f"spec.ports[{index}]"
        name = port.get("name", "")
        if not name and len(ports) > 1:
            causes.required(f"{path}.name")
        elif name:
            causes.each(f"{path}.name", name, names.dns1123_label_problems(name))
            if name in seen:
                causes.duplicate(f"{path}.name", name)
            seen.add(name)
        causes.port(f"{path}.port", port.get("port"))
        protocol = port.get("protocol", "")
        causes.choice(f"{path}.protocol", protocol, PROTOCOLS)
        target = port.get("targetPort", port.get("port", 0))
        if isinstance(target, int):
            if not 0 < target < 65536 and not headless:
                causes.invalid(f"{path}.targetPort", target, PORT_RANGE)
        else:
            causes.each(f"{path}.targetPort", target, names.port_name_problems(target))
        place = (protocol, port.get("port", 0))
        if place in places:
            causes.duplicate(path, {key: port[key] for key in ("protocol", "port") if key in port})
        places.add(place)
        node_port = port.get("nodePort", 0)
        if node_port and spec.get("type") == "ClusterIP":
            causes.forbidden(f"{path}.nodePort", "may not be used when `type` is 'ClusterIP'")
        elif node_port:
            if (protocol, node_port) in node_ports:
                causes.duplicate(f"{path}.nodePort", node_port)
            node_ports.add((protocol, node_port))


def _service_update(causes: Causes, new: Object, old: Object) -> None:
    after, before = new.get("spec", {}), old.get("spec", {})
    if "ExternalName" in (after.get("type"), before.get("type")):
        return
    if before.get("clusterIP") and after.get("clusterIP") != before["clusterIP"]:
        causes.invalid("spec.clusterIPs[0]", [after.get("clusterIP", "")], "may not change once set")


def _config_map(causes: Causes, obj: Object) -> None:
    data, binary = obj.get("data", {}), obj.get("binaryData", {})
    for key in data:
        causes.each(f"data[{key}]", key, names.config_map_key_problems(key))
        if key in binary:
            causes.invalid(f"data[{key}]", key, "duplicate of key present in binaryData")
    for key in binary:
        causes.each(f"binaryData[{key}]", key, names.config_map_key_problems(key))
    size = sum(len(value.encode("utf-8", "surrogatepass")) for value in data.values())
    size += sum(len(value) * 3 // 4 for value in binary.values())
    if size > MAX_CONFIG_BYTES:
        causes.too_long("", MAX_CONFIG_BYTES)


def _immutable_update(causes: Causes, new: Object, old: Object, *fields: str) -> None:
    if not old.get("immutable"):
        return
    if not new.get("immutable"):
        causes.forbidden("immutable", _IMMUTABLE_SET)
    for field in fields:
        if new.get(field, {}) != old.get(field, {}):
            causes.forbidden(field, _IMMUTABLE_SET)


def _config_map_update(causes: Causes, new: Object, old: Object) -> None:
    _immutable_update(causes, new, old, "data", "binaryData")


#: Keys that a Secret of a type has to have.
_SECRET_KEYS: Final = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}


def _secret(causes: Causes, obj: Object) -> None:
    data, kind = obj.get("data", {}), obj.get("type", "")
    for key in data:
        causes.each(f"data[{key}]", key, names.config_map_key_problems(key))
    if sum(len(value) * 3 // 4 for value in data.values()) > MAX_CONFIG_BYTES:
        causes.too_long("data", MAX_CONFIG_BYTES)
    if kind == "kubernetes.io/service-account-token":
        key = "kubernetes.io/service-account.name"
        if not obj.get("metadata", {}).get("annotations", {}).get(key):
            causes.required(f"metadata.annotations[{key}]")
    elif kind == "kubernetes.io/basic-auth" and "username" not in data and "password" not in data:
        causes.required("data[username]")
        causes.required("data[password]")
    for key in _SECRET_KEYS.get(kind, ()):
        if key not in data:
            causes.required(f"data[{key}]")


def _secret_update(causes: Causes, new: Object, old: Object) -> None:
    causes.unchanged("type", new.get("type"), old.get("type"))
    _immutable_update(causes, new, old, "data")


def _namespace(causes: Causes, obj: Object) -> None:
    for finalizer in obj.get("spec", {}).get("finalizers", ()):
        causes.each("spec.finalizers", finalizer, names.qualified_name_problems(finalizer))


def _node(causes: Causes, obj: Object) -> None:
    effects = ("NoExecute", "NoSchedule", "PreferNoSchedule")
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate(obj.get("spec", {}).get("taints", ())):
        path = f"metadata.taints[{index}]"
        key, effect = taint.get("key", ""), taint.get("effect", "")
        causes.each(f"{path}.key", key, names.qualified_name_problems(key))
        causes.each(f"{path}.value", taint.get("value", ""), names.label_value_problems(taint.get("value", "")))
        causes.choice(f"{path}.effect", effect, effects)
        if (key, effect) in seen:
            causes.duplicate(path, taint)
        seen.add((key, effect))
    for field in ("capacity", "allocatable"):
        for name, amount in obj.get("status", {}).get(field, {}).items():
            if quantity.parse(amount) < quantity.ZERO:
                causes.invalid(f"status.{field}.{name}", amount, NOT_NEGATIVE)


def _node_update(causes: Causes, new: Object, old: Object) -> None:
    after, before = new.get("spec", {}), old.get("spec", {})
    for field in ("podCIDR", "providerID"):
        if before.get(field) and after.get(field) != before[field]:
            causes.forbidden(f"spec.{field}", "node updates may not change " + field + ' except from "" to valid')


_VOLUME_SETTINGS: Final = (
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
)  #: what a volume's spec holds beside its source


def _source(spec: Object) -> Object:
    return {name: value for name, value in spec.items() if name not in _VOLUME_SETTINGS}


def _volume(causes: Causes, obj: Object) -> None:
    spec = obj.get("spec", {})
    if not spec.get("accessModes"):
        causes.required("spec.accessModes")
    for mode in spec.get("accessModes", ()):
        if mode not in ACCESS_MODES:
            causes.not_supported("spec.accessModes", mode, ACCESS_MODES)
    capacity = spec.get("capacity", {})
    if not capacity:
        causes.required("spec.capacity")
    elif "storage" not in capacity or len(capacity) > 1:
        causes.not_supported("spec.capacity", capacity, ("storage",))
    elif quantity.parse(capacity["storage"]) <= quantity.ZERO:
        causes.invalid("spec.capacity[storage]", capacity["storage"], "must be greater than zero")
    policy = spec.get("persistentVolumeReclaimPolicy")
    choices = ("Delete", "Recycle", "Retain")
    if policy is not None and policy not in choices:
        causes.not_supported("spec.persistentVolumeReclaimPolicy", policy, choices)
    check_volume_source(causes, "spec", _source(spec))
    affinity = spec.get("nodeAffinity")
    if "local" in spec and affinity is None:
        causes.required("spec.nodeAffinity", "Local volume requires node affinity")
    terms = (affinity or {}).get("required", {}).get("nodeSelectorTerms", ())
    for index, term in enumerate(terms):
        check_node_term(causes, f"spec.nodeAffinity.required.nodeSelectorTerms[{index}]", term)


def _volume_update(causes: Causes, new: Object, old: Object) -> None:
    after, before = new.get("spec", {}), old.get("spec", {})
    if _source(after) != _source(before):
        path = "spec.persistentvolumesource"
        causes.forbidden(path, "spec.persistentvolumesource is immutable after creation")
    causes.unchanged("spec.volumeMode", after.get("volumeMode"), before.get("volumeMode"))


def _claim(causes: Causes, obj: Object) -> None:
    check_claim_spec(causes, "spec", obj.get("spec", {}))


def _claim_update(causes: Causes, new: Object, old: Object) -> None:
    def rest(spec: Object) -> Object:
        changeable = ["resources", "volumeAttributesClassName"]
        # A binder names the volume, and a default class is given later to a claim that came without one.
        changeable += [name for name in ("storageClassName", "volumeName") if name not in old.get("spec", {})]
        return {name: value for name, value in spec.items() if name not in changeable}

    after, before = new.get("spec", {}), old.get("spec", {})
    if rest(after) != rest(before):
        causes.forbidden(
            "spec",
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        )
    new_size = after.get("resources", {}).get("requests", {}).get("storage", "0")
    old_size = before.get("resources", {}).get("requests", {}).get("storage", "0")
    if quantity.parse(new_size) < quantity.parse(old_size):
        causes.forbidden("spec.resources.requests.storage", "field can not be less than status.capacity")


def _endpoints(causes: Causes, obj: Object) -> None:
    for index, subset in enumerate(obj.get("subsets", ())):
        path = f"subsets[{index}]"
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            causes.required(path, "must specify `addresses` or `notReadyAddresses`")
        for field in ("addresses", "notReadyAddresses"):
            for number, one in enumerate(subset.get(field, ())):
                if not is_ip(one.get("ip", "")):
                    detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
                    causes.invalid(f"{path}.{field}[{number}].ip", one.get("ip", ""), detail)
        for number, port in enumerate(subset.get("ports", ())):
            at = f"{path}.ports[{number}]"
            if not port.get("name") and len(subset["ports"]) > 1:
                causes.required(f"{at}.name")
            causes.port(f"{at}.port", port.get("port"))
            causes.choice(f"{at}.protocol", port.get("protocol"), PROTOCOLS)


def _event(causes: Causes, obj: Object) -> None:
    namespace = obj.get("metadata", {}).get("namespace", "")
    involved = obj.get("involvedObject", {}).get("namespace", "")
    # Events of cluster-scoped objects go to "default".
    if (involved or "default") != namespace and not (not involved and namespace == "kube-system"):
        causes.invalid("involvedObject.namespace", involved, "does not match event.namespace")


def _resource_quota(causes: Causes, obj: Object) -> None:
    for name, amount in obj.get("spec", {}).get("hard", {}).items():
        path = f"spec.hard[{name}]"
        causes.each(path, name, names.qualified_name_problems(name))
        if quantity.parse(amount) < quantity.ZERO:
            causes.invalid(path, amount, NOT_NEGATIVE)


def _limit_range(causes: Causes, obj: Object) -> None:
    seen: set[str] = set()
    for index, limit in enumerate(obj.get("spec", {}).get("limits", ())):
        path, kind = f"spec.limits[{index}]", limit.get("type", "")
        causes.each(f"{path}.type", kind, names.qualified_name_problems(kind))
        if kind in seen:
            causes.duplicate(f"{path}.type", kind)
        seen.add(kind)
        low, high = limit.get("min", {}), limit.get("max", {})
        for name, amount in low.items():
            if name in high and quantity.parse(amount) > quantity.parse(high[name]):
                causes.invalid(
                    f"{path}.min[{name}]", amount, f"min value {amount} is greater than max value {high[name]}"
                )
        for name, amount in limit.get("default", {}).items():
            if name in high and quantity.parse(amount) > quantity.parse(high[name]):
                detail = f"default value {amount} is greater than max value {high[name]}"
                causes.invalid(f"{path}.default[{name}]", amount, detail)


CHECKS: Final[dict[tuple[str, str], Callable[[Causes, Object], None]]] = {
    ("", "ConfigMap"): _config_map,
    ("", "Endpoints"): _endpoints,
    ("", "Event"): _event,
    ("", "LimitRange"): _limit_range,
    ("", "Namespace"): _namespace,
    ("", "Node"): _node,
    ("", "PersistentVolume"): _volume,
    ("", "PersistentVolumeClaim"): _claim,
    ("", "Pod"): check_pod,
    ("", "ResourceQuota"): _resource_quota,
    ("", "Secret"): _secret,
    ("", "Service"): _service,
}
UPDATES: Final[dict[tuple[str, str], Callable[[Causes, Object, Object], None]]] = {
    ("", "ConfigMap"): _config_map_update,
    ("", "Node"): _node_update,
    ("", "PersistentVolume"): _volume_update,
    ("", "PersistentVolumeClaim"): _claim_update,
    ("", "Pod"): check_pod_update,
    ("", "Secret"): _secret_update,
    ("", "Service"): _service_update,
}
