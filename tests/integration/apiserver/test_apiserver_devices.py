"""Devices and DeviceModels in the embedded API: both versions over one store, and bad ones refused with the field's path."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from apiserver_site import Site, site_at

pytestmark = pytest.mark.anyio
ALPHA = "/apis/devices.kubeedge.io/v1alpha2/namespaces/default"
BETA = "/apis/devices.kubeedge.io/v1beta1/namespaces/default"
MODEL = {
    "apiVersion": "devices.kubeedge.io/v1alpha2",
    "kind": "DeviceModel",
    "metadata": {"name": "boiler", "namespace": "default"},
    "spec": {
        "protocol": "modbus",
        "properties": [
            {
                "name": "target",
                "description": "wanted temperature",
                "type": {"int": {"accessMode": "ReadWrite", "defaultValue": 1, "maximum": 90, "unit": "degree"}},
            },
            {"name": "pressure", "type": {"double": {"accessMode": "ReadOnly", "minimum": 0.5, "maximum": 3.5}}},
            {"name": "mode", "type": {"string": {"accessMode": "ReadWrite", "defaultValue": "eco"}}},
        ],
    },
}
DEVICE = {
    "apiVersion": "devices.kubeedge.io/v1alpha2",
    "kind": "Device",
    "metadata": {"name": "boiler-1", "namespace": "default", "labels": {"description": "cellar"}},
    "spec": {
        "deviceModelRef": {"name": "boiler"},
        "protocol": {"modbus": {"slaveID": 1}, "common": {"com": {"serialPort": "/dev/ttyS0", "baudRate": 9600}}},
        "nodeSelector": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "", "operator": "In", "values": ["edge-1"]}]}]
        },
        "propertyVisitors": [
            {"propertyName": "target", "collectCycle": 5000, "modbus": {"register": "HoldingRegister", "offset": 2}},
            {"propertyName": "pressure", "modbus": {"register": "InputRegister", "offset": 3, "scale": 0.1}},
        ],
        "data": {"dataTopic": "cellar/data", "dataProperties": [{"propertyName": "pressure"}]},
    },
    "status": {
        "twins": [
            {"propertyName": "target", "desired": {"value": "60", "metadata": {"type": "integer"}}},
            {"propertyName": "mode"},
        ]
    },
}


def without_server_fields(obj: dict[str, Any]) -> dict[str, Any]:
    given = copy.deepcopy(obj)
    for name in ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"):
        given["metadata"].pop(name, None)
    return given


async def test_what_was_written_in_the_old_version_is_read_in_both(site: Site) -> None:
    assert (await site.post(f"{ALPHA}/devicemodels", MODEL)).status == 201
    made = await site.post(f"{ALPHA}/devices", DEVICE)
    assert made.status == 201, made.obj
    assert without_server_fields(made.obj) == DEVICE
    assert without_server_fields((await site.get(f"{ALPHA}/devices/boiler-1")).obj) == DEVICE
    assert without_server_fields((await site.get(f"{ALPHA}/devicemodels/boiler")).obj) == MODEL
    beta = (await site.get(f"{BETA}/devices/boiler-1")).obj
    assert beta["apiVersion"] == "devices.kubeedge.io/v1beta1"
    assert beta["spec"]["nodeName"] == "edge-1"
    assert beta["spec"]["protocol"]["protocolName"] == "modbus"
    names = {one["name"]: one for one in beta["spec"]["properties"]}
    assert names["target"]["desired"]["value"] == "60"
    assert names["pressure"]["visitors"]["configData"]["scale"] == 0.1
    model = (await site.get(f"{BETA}/devicemodels/boiler")).obj
    assert [one["type"] for one in model["spec"]["properties"]] == ["INT", "DOUBLE", "STRING"]
    assert model["spec"]["properties"][0]["maximum"] == "90"


async def test_changes_in_either_version_are_seen_in_the_other(site: Site) -> None:
    await site.post(f"{ALPHA}/devicemodels", MODEL)
    await site.post(f"{ALPHA}/devices", DEVICE)
    patch = [{"op": "replace", "path": "/status/twins/0/desired/value", "value": "70"}]
    done = await site.patch(f"{ALPHA}/devices/boiler-1", patch, "json")
    assert done.status == 200, done.obj
    assert done.obj["metadata"]["generation"] == 2
    beta = (await site.get(f"{BETA}/devices/boiler-1")).obj
    target = next(i for i, one in enumerate(beta["spec"]["properties"]) if one["name"] == "target")
    assert beta["spec"]["properties"][target]["desired"]["value"] == "70"
    more = [
        {"op": "replace", "path": f"/spec/properties/{target}/desired/value", "value": "75"},
        {"op": "add", "path": f"/spec/properties/{target}/reportToCloud", "value": True},
    ]
    assert (await site.patch(f"{BETA}/devices/boiler-1", more, "json")).status == 200
    alpha = (await site.get(f"{ALPHA}/devices/boiler-1")).obj
    assert alpha["status"]["twins"][0]["desired"]["value"] == "75"
    assert alpha["spec"]["data"] == DEVICE["spec"]["data"]  # type: ignore[index]
    alpha["spec"]["protocol"]["modbus"]["slaveID"] = 2
    assert (await site.put(f"{ALPHA}/devices/boiler-1", alpha)).status == 200
    beta = (await site.get(f"{BETA}/devices/boiler-1")).obj
    assert beta["spec"]["properties"][target]["reportToCloud"] is True
    assert beta["spec"]["protocol"]["configData"]["slaveID"] == 2


async def test_reports_do_not_count_as_changes_of_what_is_wanted(site: Site) -> None:
    await site.post(f"{ALPHA}/devicemodels", MODEL)
    await site.post(f"{ALPHA}/devices", DEVICE)
    twins = [{"propertyName": "target", "reported": {"value": "58", "metadata": {"timestamp": "1"}}}]
    done = await site.patch(f"{BETA}/devices/boiler-1", {"status": {"twins": twins, "state": "online"}})
    assert done.obj["metadata"]["generation"] == 1
    alpha = (await site.get(f"{ALPHA}/devices/boiler-1")).obj
    assert alpha["status"]["twins"][0]["reported"]["value"] == "58"
    assert "state" not in alpha["status"]


def device(**changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = copy.deepcopy(DEVICE)
    made["metadata"]["name"] = "bad"
    for path, value in changes.items():
        place: Any = made
        *steps, last = [int(step) if step.isdigit() else step for step in path.split("__")]
        for step in steps:
            place = place[step]
        place[last] = value
    return made


BAD = {
    "unknown model": (
        {"spec__deviceModelRef__name": "kettle"},
        "spec.deviceModelRef.name",
        'Not found: "kettle"',
    ),
    "no model": ({"spec__deviceModelRef": {}}, "spec.deviceModelRef.name", "Required value"),
    "wrong type": ({"status__twins__0__desired__value": "hot"}, "status.twins[0].desired.value", "not int"),
    "above the maximum": ({"status__twins__0__desired__value": "91"}, "status.twins[0].desired.value", "at most 90"),
    "property not in the model": (
        {"spec__propertyVisitors__1__propertyName": "level"},
        "spec.propertyVisitors[1].propertyName",
        'Not found: "level"',
    ),
    "property twice": (
        {"spec__propertyVisitors__1__propertyName": "target"},
        "spec.propertyVisitors[1].propertyName",
        "Duplicate value",
    ),
    "register of no kind": (
        {"spec__propertyVisitors__0__modbus__register": "Coil"},
        "spec.propertyVisitors[0].modbus.register",
        "Unsupported value",
    ),
    "slave out of range": (
        {"spec__protocol__modbus__slaveID": 256},
        "spec.protocol.modbus.slaveID",
        "less than or equal to 255",
    ),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
async def test_a_bad_device_is_refused_with_the_path_of_the_field(site: Site, case: Any) -> None:
    changes, field, text = case
    await site.post(f"{ALPHA}/devicemodels", MODEL)
    answer = await site.post(f"{ALPHA}/devices", device(**changes))
    assert answer.status == 422, answer.obj
    causes = {one["field"]: one["message"] for one in answer.obj["details"]["causes"]}
    assert text in causes[field]


async def test_a_bad_device_of_the_new_version_is_told_its_own_paths(site: Site) -> None:
    await site.post(f"{ALPHA}/devicemodels", MODEL)
    properties = [
        {"name": "target", "desired": {"value": "1000"}},
        {"name": "level"},
        {"name": "pressure", "desired": {"value": "1"}},
    ]
    spec = {"deviceModelRef": {"name": "boiler"}, "nodeName": "edge-1", "properties": properties}
    made = {"metadata": {"name": "b"}, "spec": {**spec, "methods": [{"name": "m", "propertyNames": ["nothing"]}]}}
    answer = await site.post(f"{BETA}/devices", made)
    assert {one["field"] for one in answer.obj["details"]["causes"]} == {
        "spec.properties[0].desired.value",
        "spec.properties[1].name",
        "spec.methods[0].propertyNames[0]",
    }
    made["spec"]["properties"] = properties[2:]  # type: ignore[index]
    made["spec"].pop("methods")  # type: ignore[attr-defined]
    answer = await site.post(f"{BETA}/devices", made)
    assert answer.status == 201
    assert "read-only" in answer.headers["warning"]


async def test_a_device_that_its_model_no_longer_allows_still_gets_its_status(site: Site) -> None:
    await site.post(f"{ALPHA}/devicemodels", MODEL)
    await site.post(f"{ALPHA}/devices", DEVICE)
    assert (await site.delete(f"{ALPHA}/devicemodels/boiler")).status == 200
    done = await site.patch(f"{BETA}/devices/boiler-1", {"status": {"state": "online"}})
    assert done.status == 200
    label = await site.patch(f"{ALPHA}/devices/boiler-1", {"metadata": {"labels": {"a": "b"}}})
    assert label.status == 200
    assert (await site.patch(f"{BETA}/devices/boiler-1", {"spec": {"nodeName": "edge-2"}})).status == 422


async def test_bad_models_are_refused(site: Site) -> None:
    both = {"name": "x", "type": {"int": {}, "string": {}}}
    model = {**MODEL, "spec": {"properties": [both, {"name": "x", "type": {"int": {"minimum": 5, "maximum": 4}}}, {}]}}
    answer = await site.post(f"{ALPHA}/devicemodels", model)
    fields = {one["field"] for one in answer.obj["details"]["causes"]}
    assert {
        "spec.properties[0].type.string",
        "spec.properties[1].name",
        "spec.properties[1].type.int.minimum",
    } <= fields
    assert {"spec.properties[2].name", "spec.properties[2].type"} <= fields
    beta = {"metadata": {"name": "m"}, "spec": {"properties": [{"name": "x", "type": "INT", "minimum": "low"}]}}
    answer = await site.post(f"{BETA}/devicemodels", beta)
    assert {one["field"] for one in answer.obj["details"]["causes"]} == {"spec.properties[0].minimum"}


async def test_kubectl_is_shown_values_and_versions_are_watched_in_their_own_form(site: Site, tmp_path: Any) -> None:
    await site.post(f"{ALPHA}/devicemodels", MODEL)
    async with site.watch(f"{ALPHA}/devices?watch=1") as following:
        await site.post(f"{ALPHA}/devices", DEVICE)
        kind, obj = await following()
        assert (kind, without_server_fields(obj)) == ("ADDED", DEVICE)
    table = (await site.get(f"{BETA}/devices", accept="application/json;as=Table;g=meta.k8s.io;v=v1")).obj
    names = [one["name"] for one in table["columnDefinitions"]]
    row = dict(zip(names, table["rows"][0]["cells"], strict=True))
    assert row["Desired"] == "target=60"
    assert row["Model"] == "boiler"
    assert row["Node"] == "edge-1"
    groups = (await site.get("/apis/devices.kubeedge.io")).obj
    assert groups["preferredVersion"]["version"] == "v1beta1"
    assert [one["version"] for one in groups["versions"]] == ["v1beta1", "v1alpha2"]


async def test_devices_outlive_the_process(tmp_path: Any) -> None:
    async with site_at(tmp_path) as first:
        await first.post(f"{ALPHA}/devicemodels", MODEL)
        await first.post(f"{ALPHA}/devices", DEVICE)
    async with site_at(tmp_path) as second:
        assert without_server_fields((await second.get(f"{ALPHA}/devices/boiler-1")).obj) == DEVICE


async def test_server_side_apply_owns_single_properties(site: Site) -> None:
    await site.post(f"{ALPHA}/devicemodels", MODEL)
    await site.post(f"{ALPHA}/devices", DEVICE)
    turn = {
        "apiVersion": "devices.kubeedge.io/v1beta1",
        "kind": "Device",
        "spec": {"properties": [{"name": "mode", "desired": {"value": "comfort"}}]},
    }
    done = await site.patch(f"{BETA}/devices/boiler-1?fieldManager=dial", turn, "apply")
    assert done.status == 200, done.obj
    desired = {one["name"]: one.get("desired", {}).get("value") for one in done.obj["spec"]["properties"]}
    assert desired == {"target": "60", "pressure": None, "mode": "comfort"}


async def test_who_turns_what_another_has_set_has_to_force_it(site: Site) -> None:
    await site.post(f"{ALPHA}/devicemodels", MODEL)
    properties = [{"name": "target", "desired": {"value": "60"}}, {"name": "mode"}]
    spec = {"deviceModelRef": {"name": "boiler"}, "nodeName": "edge-1", "properties": properties}
    await site.post(f"{BETA}/devices", {"metadata": {"name": "b"}, "spec": spec})
    named = {"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device"}
    turn = {**named, "spec": {"properties": [{"name": "target", "desired": {"value": "65"}}]}}
    assert (await site.patch(f"{BETA}/devices/b?fieldManager=dial", turn, "apply")).status == 409
    done = await site.patch(f"{BETA}/devices/b?fieldManager=dial&force=true", turn, "apply")
    assert [one.get("desired") for one in done.obj["spec"]["properties"]] == [{"value": "65"}, None]
