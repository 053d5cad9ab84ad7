"""How a device and its properties are reached, in both versions' forms.

v1alpha2 has a member for each of three protocols and one for all others; v1beta1 has a name and free data. The members of a
known protocol are the data; what v1alpha2 has beside it ("common", "customizedValues") is a member of that name in the data.

Errors  None raised.
Source  KubeEdge v1.12 and v1.15, the CRDs in build/crds/devices.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["KNOWN", "to_alpha", "to_beta", "visitor_to_alpha", "visitor_to_beta"]

Object = dict[str, Any]
KNOWN: Final = ("opcua", "modbus", "bluetooth")  #: in the order in which KubeEdge looks for them
CUSTOMIZED: Final = "customizedProtocol"
_PROTOCOL_FIELDS: Final[dict[str, frozenset[str]]] = {
    "opcua": frozenset(
        ["url", "userName", "password", "securityPolicy", "securityMode", "certificate", "privateKey", "timeout"]
    ),
    "modbus": frozenset({"slaveID"}),
    "bluetooth": frozenset({"macAddress"}),
}
_VISITOR_FIELDS: Final[dict[str, frozenset[str]]] = {
    "opcua": frozenset({"nodeID", "browseName"}),
    "modbus": frozenset({"register", "offset", "limit", "scale", "isSwap", "isRegisterSwap"}),
    "bluetooth": frozenset({"characteristicUUID", "dataWrite", "dataConverter"}),
}
_COMMON_FIELDS: Final = frozenset(
    [
        "com",
        "tcp",
        "commType",
        "reconnTimeout",
        "reconnRetryTimes",
        "collectTimeout",
        "collectRetryTimes",
        "collectType",
        "customizedValues",
    ]
)


def to_beta(protocol: Any) -> Object:
    """``spec.protocol`` of v1alpha2 as that of v1beta1."""
    if not isinstance(protocol, dict):
        return {}
    made = _named(protocol)
    if protocol.get("common") is not None:
        made["configData"] = {**made.get("configData", {}), "common": protocol["common"]}
    return made


def to_alpha(protocol: Any) -> Object:
    """``spec.protocol`` of v1beta1 as that of v1alpha2."""
    if not isinstance(protocol, dict):
        return {}
    name, config = protocol.get("protocolName"), protocol.get("configData")
    made: Object = {}
    common = config.get("common") if isinstance(config, dict) else None
    if isinstance(config, dict) and isinstance(common, dict) and common.keys() <= _COMMON_FIELDS:
        config = {key: value for key, value in config.items() if key != "common"}
        made["common"] = common
    return {**_typed(name, config, _PROTOCOL_FIELDS), **made}


def visitor_to_beta(visitor: Object) -> Object:
    """Members of a property of v1beta1 that say what ``propertyVisitors[]`` of v1alpha2 says."""
    made: Object = {key: visitor[key] for key in ("collectCycle", "reportCycle") if key in visitor}
    access = _named(visitor)
    if visitor.get("customizedValues") is not None:
        access["configData"] = {**access.get("configData", {}), "customizedValues": visitor["customizedValues"]}
    if access or not made:
        made["visitors"] = access
    return made


def visitor_to_alpha(name: str, access: Object) -> Object:
    """An entry of ``propertyVisitors[]`` from a property's cycles and visitors."""
    made: Object = {"propertyName": name}
    made.update({key: access[key] for key in ("collectCycle", "reportCycle") if key in access})
    visitors = access.get("visitors")
    if not isinstance(visitors, dict):
        return made
    config = visitors.get("configData")
    if isinstance(config, dict) and isinstance(config.get("customizedValues"), dict):
        made["customizedValues"] = config["customizedValues"]
        config = {key: value for key, value in config.items() if key != "customizedValues"}
    made.update(_typed(visitors.get("protocolName"), config, _VISITOR_FIELDS))
    return made


def _named(part: Object) -> Object:
    """Name and data of whichever protocol is there: KubeEdge takes the first."""
    for name in KNOWN:
        if isinstance(part.get(name), dict):
            return {"protocolName": name, "configData": part[name]}
    customized = part.get(CUSTOMIZED)
    return dict(customized) if isinstance(customized, dict) else {}


def _typed(name: Any, config: Any, fields: dict[str, frozenset[str]]) -> Object:
    if name in fields and isinstance(config, dict) and config.keys() <= fields[name]:
        return {name: config}
    made: Object = {}
    if name is not None:
        made["protocolName"] = name
    if config is not None:
        made["configData"] = config
    return {CUSTOMIZED: made} if made else {}
