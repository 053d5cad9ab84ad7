"""Devices and DeviceModels from v1alpha2 to v1beta1 and back, so that nothing is lost on the way through the other version.

What one version cannot say travels in an annotation of the other's form:

    devices.kubeedge.io/v1alpha2    on v1beta1 objects: parts that would come back from there in another form
    devices.kubeedge.io/v1beta1     on v1alpha2 objects: the same the other way round

A kept part counts only as long as it still means what stands in its place; who has changed that since has the last word.
The first annotation is on every object that was written as v1alpha2, if only empty.

    v1alpha2                                            v1beta1
    spec.nodeSelector, its first value                  spec.nodeName
    spec.protocol.<modbus, opcua, bluetooth>, .common   spec.protocol.protocolName, .configData (and "common" in it)
    spec.protocol.customizedProtocol                    the same
    spec.propertyVisitors[] and status.twins[].desired  spec.properties[]
    status.twins[].reported                             status.twins[].reported
    spec.data                                           kept

Errors  None raised: what has not the shape of its version is carried as it is, or left out.
Source  KubeEdge v1.12 and v1.15, the CRDs in build/crds/devices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from edgesite.kube import json
from edgesite.kube.devices import modelforms, protocols

__all__ = ["GROUP", "KEPT_ALPHA", "KEPT_BETA", "V1ALPHA2", "V1BETA1", "to_v1alpha2", "to_v1beta1"]

Object = dict[str, Any]
GROUP: Final = "devices.kubeedge.io"
V1ALPHA2: Final = f"{GROUP}/v1alpha2"
V1BETA1: Final = f"{GROUP}/v1beta1"
KEPT_ALPHA: Final = V1ALPHA2  #: the annotation on v1beta1 objects
KEPT_BETA: Final = V1BETA1  #: the annotation on v1alpha2 objects
_SPEC_OF_BETA: Final = ("methods", "stateReport")
_PROPERTY_OF_BETA: Final = ("reportToCloud", "pushMethod")
_HOST: Final = "kubernetes.io/hostname"


def to_v1beta1(obj: Object) -> Object:
    """Return the object in its v1beta1 form."""
    if obj.get("apiVersion") == V1BETA1:
        return obj
    metadata, kept = _take(obj, KEPT_BETA)
    if obj.get("kind") == "DeviceModel":
        spec, lost = modelforms.spec_to_beta(_dict(obj.get("spec")), kept)
        return _made(obj, V1BETA1, metadata, spec, obj.get("status"), KEPT_ALPHA, lost, always=True)
    spec, status, lost = _device_to_beta(_dict(obj.get("spec")), _dict(obj.get("status")), kept)
    return _made(obj, V1BETA1, metadata, spec, status or None, KEPT_ALPHA, lost, always=True)


def to_v1alpha2(obj: Object) -> Object:
    """Return the object in its v1alpha2 form."""
    if obj.get("apiVersion") == V1ALPHA2:
        return obj
    metadata, kept = _take(obj, KEPT_ALPHA)
    if obj.get("kind") == "DeviceModel":
        spec, lost = modelforms.spec_to_alpha(_dict(obj.get("spec")), kept)
        return _made(obj, V1ALPHA2, metadata, spec, obj.get("status"), KEPT_BETA, lost)
    spec, status, lost = _device_to_alpha(_dict(obj.get("spec")), _dict(obj.get("status")), kept)
    return _made(obj, V1ALPHA2, metadata, spec, status or None, KEPT_BETA, lost)


def _take(obj: Object, annotation: str) -> tuple[Object, Object]:
    """Metadata without the annotation, and what it keeps."""
    metadata = dict(_dict(obj.get("metadata")))
    annotations = metadata.get("annotations")
    text = annotations.get(annotation) if isinstance(annotations, dict) else None
    if text is None or not isinstance(annotations, dict):
        return metadata, {}
    annotations = {name: value for name, value in annotations.items() if name != annotation}
    if annotations:
        metadata["annotations"] = annotations
    else:
        del metadata["annotations"]
    try:
        kept = json.loads(text)
    except (json.InvalidJson, TypeError, RecursionError):
        return metadata, {}
    return metadata, _dict(kept)


def _made(
    obj: Object,
    version: str,
    metadata: Object,
    spec: Object,
    status: Any,
    annotation: str,
    lost: Object,
    *,
    always: bool = False,
) -> Object:
    if lost or always:
        text = json.dumps(lost).decode()
        metadata["annotations"] = {**_dict(metadata.get("annotations")), annotation: text}
    made = {**obj, "apiVersion": version, "metadata": metadata}
    for name, value in (("spec", spec), ("status", status)):
        if value or (name in obj and value is not None):
            made[name] = value
        else:
            made.pop(name, None)
    return made


# -- devices ---------------------------------------------------------------------------------------------------------


def _device_to_beta(spec: Object, status: Object, kept: Object) -> tuple[Object, Object, Object]:
    lost: Object = {}
    made: Object = {}
    if "deviceModelRef" in spec:
        made["deviceModelRef"] = spec["deviceModelRef"]
    node = _one_way(lost, "nodeSelector", spec.get("nodeSelector"), _node_name, _node_selector)
    if node:
        made["nodeName"] = node
    if "protocol" in spec:
        was = kept.get("protocol")
        if isinstance(was, dict) and protocols.to_alpha(was) == spec["protocol"]:
            made["protocol"] = was
        else:
            made["protocol"] = _one_way(lost, "protocol", spec["protocol"], protocols.to_beta, protocols.to_alpha)
    if "data" in spec:
        lost["data"] = spec["data"]
    properties = _properties_to_beta(spec, status, kept, lost)
    if properties:
        made["properties"] = properties
    for name in _SPEC_OF_BETA:
        if name in kept:
            made[name] = kept[name]
    return made, _status_to_beta(status, kept), lost


def _one_way(lost: Object, name: str, part: Any, there: Callable[[Any], Any], back: Callable[[Any], Any]) -> Any:
    """Return the part in the other form; it is kept in ``lost`` if it would come back from there changed."""
    other = there(part) if part is not None else None
    if part is not None and back(other) != part:
        lost[name] = part
    return other


def _properties_to_beta(spec: Object, status: Object, kept: Object, lost: Object) -> list[Object]:
    visitors = [one for one in _list(spec.get("propertyVisitors")) if isinstance(one, dict)]
    twins = [one for one in _list(status.get("twins")) if isinstance(one, dict)]
    twin_of = {str(one.get("propertyName") or ""): one for one in reversed(twins)}
    more, whole, order = _dict(kept.get("properties")), _dict(kept.get("visitors")), _list(kept.get("order"))
    strays = _list(kept.get("strays"))  # reported, without being a property of the device
    made: dict[str, Object] = {}
    again: list[Object] = []  # of a name that has been there: admission refuses it, and shall see it
    changed: Object = {}
    for visitor in visitors:
        name = str(visitor.get("propertyName") or "")
        one = {"name": name, **_desired(twin_of.get(name)), **_dict(more.get(name))}
        access = _dict(whole.get(name))
        if not access or protocols.visitor_to_alpha(name, access) != visitor:
            access = protocols.visitor_to_beta(visitor)
            if protocols.visitor_to_alpha(name, access) != visitor:
                changed[name] = visitor
        one.update(access)
        if name in made:
            again.append(one)
        else:
            made[name] = one
    for twin in twins:
        name = str(twin.get("propertyName") or "")
        if name not in made and (name not in strays or twin.get("desired") is not None):
            made[name] = {"name": name, **_desired(twin), **_dict(more.get(name))}
    if changed:
        lost["visitors"] = changed
    properties = [*_in_order(list(made.values()), order, "name"), *again]
    shown, listed = [one.get("propertyName") for one in twins], [one.get("propertyName") for one in visitors]
    if shown != [one["name"] for one in properties if _is_twin(one)] or listed != [
        one["name"] for one in properties if _is_visited(one)
    ]:
        lost["twins"], lost["listed"] = shown, listed
    return properties


def _desired(twin: Object | None) -> Object:
    return {"desired": twin["desired"]} if twin is not None and twin.get("desired") is not None else {}


def _is_visited(one: Object) -> bool:
    return any(name in one for name in ("visitors", "reportCycle", "collectCycle"))


def _is_twin(one: Object) -> bool:
    return one.get("desired") is not None or not _is_visited(one)


def _in_order(items: list[Object], order: list[Any], key: str) -> list[Object]:
    """The items in an order by name as far as it names them, the others behind."""
    place = {name: at for at, name in enumerate(order) if isinstance(name, str)}
    return sorted(items, key=lambda one: place.get(one.get(key) or "", len(place)))


def _status_to_beta(status: Object, kept: Object) -> Object:
    made: Object = {name: value for name, value in status.items() if name != "twins"}
    made.update(_dict(kept.get("status")))
    observed = _dict(kept.get("observed"))
    twins = []
    for twin in _list(status.get("twins")):
        if not isinstance(twin, dict):
            continue
        name = str(twin.get("propertyName") or "")
        entry: Object = {"propertyName": name}
        if twin.get("reported") is not None:
            entry["reported"] = twin["reported"]
        if name in observed:
            entry["observedDesired"] = observed[name]
        if len(entry) > 1:
            twins.append(entry)
    if twins:
        made["twins"] = twins
    return made


def _device_to_alpha(spec: Object, status: Object, kept: Object) -> tuple[Object, Object, Object]:
    lost: Object = {}
    made: Object = {}
    if "deviceModelRef" in spec:
        made["deviceModelRef"] = spec["deviceModelRef"]
    node, selector = spec.get("nodeName"), kept.get("nodeSelector")
    if isinstance(selector, dict) and _node_name(selector) == (node or ""):
        made["nodeSelector"] = selector
    elif node:
        made["nodeSelector"] = _node_selector(node)
    if "protocol" in spec:
        was = kept.get("protocol")
        if isinstance(was, dict) and protocols.to_beta(was) == spec["protocol"]:
            made["protocol"] = was
        else:
            made["protocol"] = _one_way(lost, "protocol", spec["protocol"], protocols.to_alpha, protocols.to_beta)
    if "data" in kept:
        made["data"] = kept["data"]
    lost.update({name: spec[name] for name in _SPEC_OF_BETA if name in spec})
    visitors, twins = _properties_to_alpha(spec, status, kept, lost)
    if visitors:
        made["propertyVisitors"] = visitors
    rest = {name: value for name, value in status.items() if name != "twins"}
    if rest:
        lost["status"] = rest
    return made, ({"twins": twins} if twins else {}), lost


def _properties_to_alpha(spec: Object, status: Object, kept: Object, lost: Object) -> tuple[list[Object], list[Object]]:
    properties = [one for one in _list(spec.get("properties")) if isinstance(one, dict)]
    reported = {str(one.get("propertyName") or ""): one for one in _list(status.get("twins")) if isinstance(one, dict)}
    whole, shown = _dict(kept.get("visitors")), _list(kept.get("twins"))
    visitors, twins = [], []
    merely: list[Object] = []  # reported alone: behind those that somebody wrote, whose places patches name
    more: Object = {}
    changed: Object = {}
    for one in properties:
        name = str(one.get("name") or "")
        access = {key: one[key] for key in ("visitors", "reportCycle", "collectCycle") if key in one}
        if access:
            was = whole.get(name)
            if isinstance(was, dict) and protocols.visitor_to_beta(was) == access:
                visitors.append(was)
            else:
                visitors.append(protocols.visitor_to_alpha(name, access))
                if protocols.visitor_to_beta(visitors[-1]) != access:
                    changed[name] = access
        value = reported.pop(name, {}).get("reported")
        if _is_twin(one) or name in shown:
            twins.append(_twin(name, one.get("desired"), value))
        elif value is not None:
            merely.append(_twin(name, None, value))
        extra = {key: one[key] for key in _PROPERTY_OF_BETA if key in one}
        if extra:
            more[name] = extra
    strays = [_twin(name, None, one.get("reported")) for name, one in reported.items() if one.get("reported")]
    twins += [*merely, *strays]
    observed = {
        str(one.get("propertyName") or ""): one["observedDesired"]
        for one in _list(status.get("twins"))
        if isinstance(one, dict) and one.get("observedDesired") is not None
    }
    stray_names = [one["propertyName"] for one in strays]
    for name, part in (("properties", more), ("visitors", changed), ("observed", observed), ("strays", stray_names)):
        if part:
            lost[name] = part
    visitors = _in_order(visitors, _list(kept.get("listed")), "propertyName")
    twins = _in_order(twins, shown, "propertyName")
    natural = dict.fromkeys(one.get("propertyName") for one in (*visitors, *twins))
    names = [str(one.get("name") or "") for one in properties]
    if names != [name for name in natural if name in names]:
        lost["order"] = names
    return visitors, twins


def _twin(name: str, desired: Any, reported: Any) -> Object:
    twin: Object = {"propertyName": name}
    if desired is not None:
        twin["desired"] = desired
    if reported is not None:
        twin["reported"] = reported
    return twin


def _node_name(selector: Any) -> str:
    """The node that KubeEdge reads from a selector: the first value of the first expression of the first term."""
    value = selector
    for step in ("nodeSelectorTerms", 0, "matchExpressions", 0, "values", 0):
        if isinstance(step, str) and isinstance(value, dict):
            value = value.get(step)
        elif isinstance(step, int) and isinstance(value, list) and value:
            value = value[step]
        else:
            return ""
    return value.strip() if isinstance(value, str) else ""


def _node_selector(node: Any) -> Object:
    if not node:
        return {}
    return {"nodeSelectorTerms": [{"matchExpressions": [{"key": _HOST, "operator": "In", "values": [node]}]}]}


def _dict(value: Any) -> Object:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
