"""Devices and models: both versions' forms, and values against their model."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.kube.devices import to_v1alpha2, to_v1beta1, values
from edgesite.kube.devices.conversion import KEPT_ALPHA
from edgesite.kube.devices.crds import definitions
from edgesite.kube.devices.model import rules_of
from edgesite.kube.devices.profile import profile

ALPHA = "devices.kubeedge.io/v1alpha2"
BETA = "devices.kubeedge.io/v1beta1"
NAMES = st.sampled_from(["speed", "temp", "mode", "label"])
TEXT = st.text("ab<é \n", max_size=3)
NONE: dict[str, Any] = {}
DATA = st.dictionaries(
    st.sampled_from(["url", "slaveID", "common", "register", "x"]), TEXT | st.integers() | st.booleans()
)
VALUE = st.fixed_dictionaries({"value": TEXT}, optional={"metadata": st.dictionaries(TEXT, TEXT)})
CYCLES = {"collectCycle": st.integers(-1, 5), "reportCycle": st.integers(0, 5)}
ALPHA_VISITOR = st.fixed_dictionaries(
    {"propertyName": NAMES},
    optional={
        **CYCLES,
        "modbus": st.fixed_dictionaries(
            NONE, optional={"register": TEXT, "offset": st.integers(), "scale": st.floats(-9, 9)}
        ),
        "opcua": st.fixed_dictionaries({"nodeID": TEXT}),
        "customizedProtocol": st.fixed_dictionaries(NONE, optional={"protocolName": TEXT, "configData": DATA}),
        "customizedValues": DATA,
    },
)
ALPHA_TWIN = st.fixed_dictionaries({"propertyName": NAMES}, optional={"desired": VALUE, "reported": VALUE})
UNIQUE = {"unique_by": lambda one: one.get("propertyName") or one.get("name"), "max_size": 4}
ALPHA_DEVICE = st.fixed_dictionaries(
    {"deviceModelRef": st.just({"name": "m"})},
    optional={
        "protocol": st.fixed_dictionaries(
            NONE,
            optional={
                "modbus": st.fixed_dictionaries(NONE, optional={"slaveID": st.integers()}),
                "bluetooth": st.fixed_dictionaries({"macAddress": TEXT}),
                "customizedProtocol": st.fixed_dictionaries(NONE, optional={"protocolName": TEXT, "configData": DATA}),
                "common": st.fixed_dictionaries(NONE, optional={"tcp": DATA, "customizedValues": DATA}),
            },
        ),
        "nodeSelector": st.sampled_from(
            [
                {"nodeSelectorTerms": []},
                {"nodeSelectorTerms": [{"matchExpressions": [{"key": "", "operator": "In", "values": ["e"]}]}]},
                {"nodeSelectorTerms": [{"matchExpressions": [{"key": "k", "operator": "In", "values": []}]}]},
            ]
        ),
        "propertyVisitors": st.lists(ALPHA_VISITOR, min_size=1, **UNIQUE),  # type: ignore[arg-type]
        "data": st.fixed_dictionaries({"dataTopic": TEXT}),
    },
)
BETA_PROPERTY = st.fixed_dictionaries(
    {"name": NAMES},
    optional={
        **CYCLES,
        "desired": VALUE,
        "visitors": st.fixed_dictionaries(
            NONE, optional={"protocolName": st.sampled_from(["modbus", "x"]), "configData": DATA}
        ),
        "reportToCloud": st.booleans(),
        "pushMethod": st.just({"http": {"port": 80}}),
    },
)
BETA_TWIN = st.fixed_dictionaries({"propertyName": NAMES, "reported": VALUE}, optional={"observedDesired": VALUE})
BETA_DEVICE = st.fixed_dictionaries(
    {"deviceModelRef": st.just({"name": "m"})},
    optional={
        "nodeName": st.sampled_from(["edge-1", "e"]),
        "protocol": st.fixed_dictionaries(
            NONE, optional={"protocolName": st.sampled_from(["modbus", "opcua", "x"]), "configData": DATA}
        ),
        "properties": st.lists(BETA_PROPERTY, min_size=1, **UNIQUE),  # type: ignore[arg-type]
        "methods": st.just([{"name": "go"}]),
        "stateReport": st.just({"reportCycle": 5}),
    },
)


def thing(version: str, kind: str, spec: Any, status: Any = None) -> dict[str, Any]:
    made = {"apiVersion": version, "kind": kind, "metadata": {"name": "d", "annotations": {"a": "b"}}, "spec": spec}
    return {**made, "status": status} if status else made


def plain(obj: dict[str, Any]) -> dict[str, Any]:
    """Without the mark of objects that were written as v1alpha2; reported values in any order."""
    obj = copy.deepcopy(obj)
    obj["metadata"]["annotations"].pop(KEPT_ALPHA, None)
    twins = (obj.get("status") or {}).get("twins")
    if twins:
        twins.sort(key=lambda one: one["propertyName"])
    return obj


@given(ALPHA_DEVICE, st.lists(ALPHA_TWIN, min_size=1, **UNIQUE) | st.none())  # type: ignore[arg-type]
def test_a_v1alpha2_device_comes_back_as_it_was(spec: Any, twins: Any) -> None:
    obj = thing(ALPHA, "Device", spec, {"twins": twins} if twins else None)
    before = copy.deepcopy(obj)
    assert to_v1alpha2(to_v1beta1(obj)) == before
    assert obj == before


@given(BETA_DEVICE, st.lists(BETA_TWIN, min_size=1, **UNIQUE) | st.none())  # type: ignore[arg-type]
def test_a_v1beta1_device_comes_back_as_it_was(spec: Any, twins: Any) -> None:
    status = {"twins": twins, "state": "ok", "other": {"x": 1}} if twins else None
    obj = thing(BETA, "Device", spec, status)
    before = copy.deepcopy(obj)
    assert plain(to_v1beta1(to_v1alpha2(obj))) == plain(before)
    assert obj == before


NUMBERS = st.fixed_dictionaries(
    NONE,
    optional={
        "accessMode": st.sampled_from(["ReadWrite", "ReadOnly"]),
        "defaultValue": st.integers(),
        "minimum": st.integers() | st.floats(-9, 9),
        "maximum": st.integers(),
        "unit": TEXT,
    },
)
ALPHA_PROPERTY = st.fixed_dictionaries(
    {"name": NAMES},
    optional={
        "description": TEXT,
        "type": st.fixed_dictionaries(NONE, optional={"int": NUMBERS, "double": NUMBERS, "bytes": st.just({})}),
    },
)
BETA_MODEL_PROPERTY = st.fixed_dictionaries(
    {"name": NAMES},
    optional={
        "type": st.sampled_from(["INT", "FLOAT", "BYTES", "STREAM"]),
        "minimum": st.sampled_from(["", "1", "1.50", "x"]),
        "maximum": st.sampled_from(["3", "1e3"]),
        "visitors": st.just({"a": 1}),
    },
)


@given(st.lists(ALPHA_PROPERTY, min_size=1, **UNIQUE))  # type: ignore[arg-type]
def test_a_v1alpha2_model_comes_back_as_it_was(properties: Any) -> None:
    obj = thing(ALPHA, "DeviceModel", {"protocol": "x", "properties": properties})
    assert to_v1alpha2(to_v1beta1(obj)) == obj


@given(st.lists(BETA_MODEL_PROPERTY, min_size=1, **UNIQUE))  # type: ignore[arg-type]
def test_a_v1beta1_model_comes_back_as_it_was(properties: Any) -> None:
    obj = thing(BETA, "DeviceModel", {"protocol": "x", "properties": properties, "protocolConfigData": {"a": 1}})
    assert plain(to_v1beta1(to_v1alpha2(obj))) == obj


def test_what_is_reported_later_does_not_move_twins_that_patches_name_by_place() -> None:
    visitors = [{"propertyName": name, "modbus": {"register": "CoilRegister"}} for name in ("speed", "temp")]
    twins = [{"propertyName": "temp", "desired": {"value": "1"}}]
    beta = to_v1beta1(thing(ALPHA, "Device", {"propertyVisitors": visitors}, {"twins": twins}))
    beta["status"] = {"twins": [{"propertyName": name, "reported": {"value": "0"}} for name in ("speed", "temp")]}
    assert [one["propertyName"] for one in to_v1alpha2(beta)["status"]["twins"]] == ["temp", "speed"]


def test_limits_keep_their_text_when_json_is_written_by_others() -> None:
    """Whoever reads v1alpha2 and writes it back may write 100.0 as 100."""
    model = thing(BETA, "DeviceModel", {"properties": [{"name": "t", "type": "FLOAT", "maximum": "100.0"}]})
    alpha = to_v1alpha2(model)
    maximum = alpha["spec"]["properties"][0]["type"]["float"]["maximum"]
    assert (maximum, type(maximum)) == (100, int)
    assert plain(to_v1beta1(alpha)) == model


def test_what_is_kept_gives_way_to_what_was_changed() -> None:
    """A selector that means another node than ``nodeName`` says by now is not brought back."""
    selector = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "", "operator": "In", "values": ["old"]}]}]}
    beta = to_v1beta1(thing(ALPHA, "Device", {"nodeSelector": selector}))
    beta["spec"]["nodeName"] = "new"
    found = to_v1alpha2(beta)["spec"]["nodeSelector"]
    assert found["nodeSelectorTerms"][0]["matchExpressions"][0]["values"] == ["new"]


@given(
    st.dictionaries(
        st.sampled_from(["spec", "status", "metadata"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | TEXT,
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        ["properties", "twins", "propertyVisitors", "protocol", "type", "name", "nodeSelector"]
                    ),
                    inner,
                    max_size=3,
                )
            ),
            max_leaves=8,
        ),
    )
)
def test_nonsense_does_no_harm(obj: Any) -> None:
    for version in (ALPHA, BETA):
        for kind in ("Device", "DeviceModel"):
            given_obj = {"apiVersion": version, "kind": kind, **obj, "metadata": {"name": "x"}}
            to_v1alpha2(given_obj)
            to_v1beta1(given_obj)
            rules_of(given_obj)


@pytest.mark.parametrize(
    ("type_", "value", "good"),
    [
        ("int", "-12", True),
        ("int", "1.0", False),
        ("int", "9223372036854775807", True),
        ("int", "9223372036854775808", False),
        ("int", "1_0", False),
        ("integer", "", False),
        ("float", "1e3", True),
        ("float", "NaN", True),
        ("float", "1e999", False),
        ("double", "0x1", False),
        ("boolean", "True", False),
        ("boolean", "false", True),
        ("string", "a b", True),
        ("bytes", "a+b=", True),
        ("colour", "red", False),
    ],
)
def test_values_that_types_allow(type_: str, value: str, good: bool) -> None:
    assert (values.problem(type_, value) == "") is good


def test_a_model_bounds_its_values() -> None:
    model = thing(
        ALPHA, "DeviceModel", {"properties": [{"name": "t", "type": {"double": {"minimum": 0.5, "maximum": 2}}}]}
    )
    rule = rules_of(model)["t"]
    assert [bool(rule.problem(text)) for text in ("0.5", "0.4", "2", "2.1", "nan", "x")] == [0, 1, 0, 1, 1, 1]


def test_the_profile_is_as_kubeedge_writes_it() -> None:
    """Members and their order as recorded from KubeEdge v1.12.7."""
    model = {
        **thing(ALPHA, "DeviceModel", {}),
        "metadata": {"name": "pump"},
        "spec": {
            "protocol": "modbus",
            "properties": [
                {
                    "name": "speed",
                    "description": "rotor speed",
                    "type": {"int": {"accessMode": "ReadWrite", "maximum": 100, "unit": "percent"}},
                },
                {"name": "label", "type": {"string": {"accessMode": "ReadWrite", "defaultValue": "a"}}},
            ],
        },
    }
    device = {
        **thing(ALPHA, "Device", {}),
        "metadata": {"name": "pump-1"},
        "spec": {
            "deviceModelRef": {"name": "pump"},
            "protocol": {"common": {"tcp": {"ip": "10.0.0.7", "port": 502}}, "modbus": {"slaveID": 1}},
            "propertyVisitors": [
                {
                    "propertyName": "speed",
                    "collectCycle": 1000000000,
                    "modbus": {"limit": 1, "offset": 2, "register": "HoldingRegister", "scale": 1},
                }
            ],
        },
        "status": {
            "twins": [
                {
                    "propertyName": "speed",
                    "desired": {"value": "40", "metadata": {"type": "int"}},
                    "reported": {"value": "9"},
                }
            ]
        },
    }
    text = profile([to_v1beta1(device)], lambda name: to_v1beta1(model) if name == "pump" else None)
    assert text == (
        '{"deviceInstances":[{"id":"pump-1","name":"pump-1","protocol":"modbus-pump-1","model":"pump","twins":[{"propertyName":"speed",'
        '"desired":{"value":"40","metadata":{"type":"int"}},"reported":{"value":""}}],"propertyVisitors":[{"name":"speed",'
        '"propertyName":"speed","modelName":"pump","protocol":"modbus","collectCycle":1000000000,"visitorConfig":{"register":'
        '"HoldingRegister","offset":2,"limit":1,"scale":1}}]}],"deviceModels":[{"name":"pump","properties":[{"name":"speed",'
        '"dataType":"int","description":"rotor speed","accessMode":"ReadWrite","defaultValue":0,"minimum":0,"maximum":100,'
        '"unit":"percent"},{"name":"label","dataType":"string","accessMode":"ReadWrite","defaultValue":"a"}]}],"protocols":'
        '[{"name":"modbus-pump-1","protocol":"modbus","protocolConfig":{"slaveID":1},"protocolCommonConfig":{"tcp":{"ip":"10.0.0.7",'
        '"port":502}}}]}'
    )
    assert profile([device], lambda name: None) == ""


def test_definitions_share_nothing_and_serve_both_versions() -> None:
    found = definitions()
    assert [one["metadata"]["name"] for one in found] == [
        "devices.devices.kubeedge.io",
        "devicemodels.devices.kubeedge.io",
    ]
    for one in found:
        assert [(v["name"], v["served"], v["storage"]) for v in one["spec"]["versions"]] == [
            ("v1beta1", True, True),
            ("v1alpha2", True, False),
        ]
    assert json.dumps(definitions()) == json.dumps(found)
