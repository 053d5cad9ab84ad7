"""The CustomResourceDefinitions of Device and DeviceModel, both versions served, v1beta1 stored.

What KubeEdge's definitions take, these take too; unlike those they name the keys of lists, so that several writers may
share one, and tell kubectl what to show.

Errors  None.
Source  KubeEdge v1.12 to v1.23, build/crds/devices (names of fields, types, enumerations).
"""

from __future__ import annotations

from typing import Any, Final

from edgesite.kube import json
from edgesite.kube.devices.conversion import GROUP

__all__ = ["definitions", "status_definition"]

Object = dict[str, Any]
TEXT: Final[Object] = {"type": "string"}
INT: Final[Object] = {"type": "integer", "format": "int64"}
INT32: Final[Object] = {"type": "integer", "format": "int32"}
NUMBER: Final[Object] = {"type": "number"}
FLAG: Final[Object] = {"type": "boolean"}
LIMIT: Final[Object] = {"type": "string", "pattern": r"^([+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?)?$"}
FREE: Final[Object] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
TEXTS: Final[Object] = {"type": "object", "additionalProperties": TEXT}
MODE: Final[Object] = {"type": "string", "enum": ["ReadWrite", "ReadOnly"]}
BAUD_RATES: Final = [115200, 57600, 38400, 19200, 9600, 4800, 2400, 1800, 1200, 600, 300, 200, 150, 134, 110, 75, 50]


def _object(required: str = "", /, **properties: Object) -> Object:
    made: Object = {"type": "object", "properties": properties}
    if required:
        made["required"] = required.split()
    return made


def _texts(names: str) -> dict[str, Object]:
    return dict.fromkeys(names.split(), TEXT)


def _list(items: Object, key: str = "") -> Object:
    made: Object = {"type": "array", "items": items}
    if key:
        made["items"] = {**items, "required": [key]}
        made |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}
    return made


def _choice(values: list[Any]) -> Object:
    return {**(INT if isinstance(values[0], int) else TEXT), "enum": values}


MODEL_REF: Final = _object(name=TEXT)
TWIN_VALUE: Final = _object("value", value=TEXT, metadata=TEXTS)


def _alpha_device() -> Object:
    expression = _object("key operator", key=TEXT, operator=TEXT, values=_list(TEXT))
    term = _object(matchExpressions=_list(expression), matchFields=_list(expression))
    customized = _object(protocolName=TEXT, configData=FREE)
    com = _object(
        serialPort=TEXT,
        baudRate=_choice(BAUD_RATES),
        dataBits=_choice([8, 7, 6, 5]),
        parity=_choice(["none", "even", "odd"]),
        stopBits=_choice([1, 2]),
    )
    common = _object(
        com=com,
        tcp=_object(ip=TEXT, port=INT),
        commType=TEXT,
        reconnTimeout=INT,
        reconnRetryTimes=INT,
        collectTimeout=INT,
        collectRetryTimes=INT,
        collectType=_choice(["sync", "async"]),
        customizedValues=FREE,
    )
    opcua = _object(timeout=INT, **_texts("url userName password securityPolicy securityMode certificate privateKey"))
    protocol = _object(
        opcua=opcua,
        modbus=_object(slaveID={**INT, "minimum": 0, "maximum": 255}),
        bluetooth=_object(macAddress=TEXT),
        customizedProtocol=customized,
        common=common,
    )
    twin = _object(propertyName=TEXT, desired=TWIN_VALUE, reported=TWIN_VALUE)
    spec = _object(
        deviceModelRef=MODEL_REF,
        protocol=protocol,
        propertyVisitors=_list(_alpha_visitor(customized)),
        data=_object(dataProperties=_list(_object(propertyName=TEXT, metadata=TEXTS)), dataTopic=TEXT),
        nodeSelector=_object("nodeSelectorTerms", nodeSelectorTerms=_list(term)),
    )
    return _object(spec=spec, status=_object(twins=_list(twin)))


def _alpha_visitor(customized: Object) -> Object:
    operation = _object(operationType=TEXT, operationValue=NUMBER)
    shifts: dict[str, Object] = {
        name: {"type": "integer"} for name in ("startIndex", "endIndex", "shiftLeft", "shiftRight")
    }
    converter = _object(orderOfOperations=_list(operation), **shifts)
    command: Object = {"x-kubernetes-preserve-unknown-fields": True}  # bytes in base64, or a list of their numbers
    modbus = _object(
        register=_choice(["CoilRegister", "DiscreteInputRegister", "InputRegister", "HoldingRegister"]),
        offset=INT,
        limit=INT,
        scale=NUMBER,
        isSwap=FLAG,
        isRegisterSwap=FLAG,
    )
    bluetooth = _object(
        characteristicUUID=TEXT,
        dataWrite={"type": "object", "additionalProperties": command},
        dataConverter=converter,
    )
    return _object(
        propertyName=TEXT,
        reportCycle=INT,
        collectCycle=INT,
        customizedValues=FREE,
        opcua=_object(nodeID=TEXT, browseName=TEXT),
        modbus=modbus,
        bluetooth=bluetooth,
        customizedProtocol=customized,
    )


def _beta_push_method() -> Object:
    influx = _object(
        influxdb2ClientConfig=_object(**_texts("url org bucket")),
        influxdb2DataConfig=_object(measurement=TEXT, tag=TEXTS, fieldKey=TEXT),
    )
    redis = _object(addr=TEXT, db={"type": "integer"}, poolsize={"type": "integer"}, minIdleConns={"type": "integer"})
    databases = _object(
        influxdb2=influx,
        redis=_object(redisClientConfig=redis),
        TDEngine=_object(TDEngineClientConfig=_object(**_texts("addr dbName"))),
        Kwdb=_object(KWDBClientConfig=_object(**_texts("addr dbName"))),
        mysql=_object(mysqlClientConfig=_object(**_texts("addr database userName"))),
    )
    return _object(
        http=_object(hostName=TEXT, port=INT, requestPath=TEXT, timeout=INT),
        mqtt=_object(address=TEXT, topic=TEXT, qos=INT32, retained=FLAG),
        dbMethod=databases,
        otel=_object(endpointURL=TEXT),
        anomalyDetection=FREE,
    )


def _beta_device() -> Object:
    access = _object(protocolName=TEXT, configData=FREE)
    one = _object(
        name=TEXT,
        desired=TWIN_VALUE,
        visitors=access,
        reportCycle=INT,
        collectCycle=INT,
        reportToCloud=FLAG,
        pushMethod=_beta_push_method(),
    )
    spec = _object(
        deviceModelRef=MODEL_REF,
        nodeName=TEXT,
        protocol=access,
        properties=_list(one, "name"),
        methods=_list(_object(name=TEXT, description=TEXT, propertyNames=_list(TEXT)), "name"),
        stateReport=_object(reportToCloud=FLAG, reportCycle=INT),
    )
    twin = _object(propertyName=TEXT, reported=TWIN_VALUE, observedDesired=TWIN_VALUE)
    status = _object(
        twins=_list(twin, "propertyName"),
        state=TEXT,
        lastOnlineTime=TEXT,
        reportToCloud=FLAG,
        reportCycle=INT,
    )
    return _object(spec=spec, status={**status, "x-kubernetes-preserve-unknown-fields": True})


def _alpha_model() -> Object:
    def number(kind: Object) -> Object:
        return _object(accessMode=MODE, defaultValue=kind, minimum=kind, maximum=kind, unit=TEXT)

    types = _object(
        int=number(INT),
        double=number(NUMBER),
        float=number(NUMBER),
        string=_object(accessMode=MODE, defaultValue=TEXT),
        boolean=_object(accessMode=MODE, defaultValue=FLAG),
        bytes=_object(accessMode=MODE),
    )
    properties = _list(_object(name=TEXT, description=TEXT, type=types))
    return _object(spec=_object(protocol=TEXT, properties=properties, propertyVisitors=_list(FREE)))


def _beta_model() -> Object:
    kinds = _choice(["INT", "FLOAT", "DOUBLE", "STRING", "BOOLEAN", "BYTES", "STREAM"])
    one = _object(
        type=kinds,
        accessMode=MODE,
        visitors=FREE,
        minimum=LIMIT,
        maximum=LIMIT,
        **_texts("name description unit"),
    )
    return _object(spec=_object(protocol=TEXT, properties=_list(one, "name"), protocolConfigData=FREE))


def _column(name: str, path: str, type_: str = "string", priority: int = 0) -> Object:
    made: Object = {"name": name, "type": type_, "jsonPath": path}
    if priority:
        made["priority"] = priority
    return made


_AGE: Final = _column("Age", ".metadata.creationTimestamp", "date")


def definitions(*, converts: bool = True) -> list[Object]:
    """Return both definitions, devices first. ``converts``: the API can turn one version into the other, itself or by a webhook. One that
    cannot would cut off what v1beta1 does not know, so that there v1alpha2 is known, but not served."""
    beta = [
        _column("Model", ".spec.deviceModelRef.name"),
        _column("Node", ".spec.nodeName"),
        _column("State", ".status.state"),
        _column("Desired", ".spec.properties[*].desired.value"),
        _column("Reported", ".status.twins[*].reported.value"),
        _AGE,
    ]
    alpha = [
        _column("Model", ".spec.deviceModelRef.name"),
        _column("Desired", ".status.twins[*].desired.value"),
        _column("Reported", ".status.twins[*].reported.value"),
        _AGE,
    ]
    model = [_column("Protocol", ".spec.protocol"), _AGE]
    made = [
        _definition("Device", "devices", (_alpha_device(), alpha), (_beta_device(), beta), converts),
        _definition("DeviceModel", "devicemodels", (_alpha_model(), model), (_beta_model(), model), converts),
    ]
    whole: list[Object] = json.loads(
        json.dumps(made)
    )  # no part of them is another's, as whoever writes YAML would show
    return whole


def status_definition() -> Object:
    """Return the definition of DeviceStatus (KubeEdge v1.23): what a device reports, as an object of its own."""
    twin = _object(propertyName=TEXT, reported=TWIN_VALUE, observedDesired=TWIN_VALUE)
    status = _object(twins=_list(twin, "propertyName"), state=TEXT, lastOnlineTime=TEXT, extensions=FREE)
    columns = [
        _column("State", ".status.state"),
        _column("Reported", ".status.twins[*].reported.value"),
        _column("Online", ".status.lastOnlineTime", priority=1),
        _AGE,
    ]
    version: Object = {
        "name": "v1beta1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": _object(spec={"type": "object"}, status=status)},
        "additionalPrinterColumns": columns,
    }
    return _crd("DeviceStatus", "devicestatuses", [version])


def _definition(
    kind: str, plural: str, alpha: tuple[Object, list[Object]], beta: tuple[Object, list[Object]], converts: bool
) -> Object:
    versions = []
    for name, (schema, columns) in (("v1beta1", beta), ("v1alpha2", alpha)):
        version: Object = {
            "name": name,
            "served": converts or name == "v1beta1",
            "storage": name == "v1beta1",
            "schema": {"openAPIV3Schema": schema},
            "additionalPrinterColumns": columns,
        }
        versions.append(version)
    return _crd(kind, plural, versions)


def _crd(kind: str, plural: str, versions: list[Object]) -> Object:
    names = {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {"group": GROUP, "names": names, "scope": "Namespaced", "versions": versions},
    }
