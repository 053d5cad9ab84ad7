"""Custom resources from their definition to their end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from apiserver_site import Site, site_at

pytestmark = pytest.mark.anyio
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
NAME = "sensors.example.com"
SENSORS = "/apis/example.com/v1/namespaces/default/sensors"


def definition(**spec: Any) -> dict[str, Any]:
    properties = {
        "rate": {"type": "integer", "minimum": 1, "default": 10},
        "unit": {"type": "string", "enum": ["C", "F"]},
        "replicas": {"type": "integer"},
    }
    schema = {
        "type": "object",
        "properties": {
            "spec": {"type": "object", "properties": properties, "required": ["unit"]},
            "status": {"type": "object", "properties": {"value": {"type": "string"}, "replicas": {"type": "integer"}}},
        },
    }
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {
            "status": {},
            "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"},
        },
        "additionalPrinterColumns": [{"name": "Unit", "type": "string", "jsonPath": ".spec.unit"}],
        "selectableFields": [{"jsonPath": ".spec.unit"}],
    }
    names = {"plural": "sensors", "singular": "sensor", "kind": "Sensor", "shortNames": ["sn"]}
    whole = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version], **spec}
    return {"metadata": {"name": NAME}, "spec": whole}


def sensor(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "example.com/v1", "kind": "Sensor", "metadata": {"name": name}, "spec": spec}


async def until(site: Site, target: str, code: int) -> Any:
    with anyio.fail_after(60):
        while True:
            answer = await site.get(target)
            if answer.status == code:
                return answer
            await anyio.lowlevel.checkpoint()


async def served(site: Site) -> None:
    made = await site.post(CRDS, definition())
    assert made.status == 201, made.body
    await until(site, SENSORS, 200)


async def test_served_validated_and_pruned(site: Site) -> None:
    assert (await site.get(SENSORS)).status == 404
    await served(site)
    conditions = {one["type"]: one["status"] for one in (await site.get(f"{CRDS}/{NAME}")).obj["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}
    made = await site.post(SENSORS, {**sensor("a", unit="C", more=1), "status": {"value": "1"}})
    assert made.status == 201, made.body
    assert made.obj["spec"] == {"unit": "C", "rate": 10}
    assert "status" not in made.obj
    assert 'unknown field "spec.more"' in made.headers["warning"].replace("\\", "")
    strict = await site.post(f"{SENSORS}?fieldValidation=Strict", sensor("b", unit="C", more=1))
    assert (strict.status, 'unknown field "spec.more"' in strict.obj["message"]) == (400, True)
    for bad in ({"unit": "K"}, {"unit": "C", "rate": 0}, {"unit": "C", "rate": "x"}, {}):
        refused = await site.post(SENSORS, sensor("b", **bad))
        assert refused.status == 422, bad
        assert refused.obj["message"].startswith('Sensor.example.com "b" is invalid: ')


async def test_lists_tables_and_selection(site: Site) -> None:
    await served(site)
    for name, unit in (("a", "C"), ("b", "F")):
        await site.post(SENSORS, sensor(name, unit=unit))
    listed = (await site.get(f"{SENSORS}?fieldSelector=spec.unit%3DF")).obj
    assert (listed["kind"], [one["metadata"]["name"] for one in listed["items"]]) == ("SensorList", ["b"])
    table = (await site.get(SENSORS, accept="application/json;as=Table;v=v1;g=meta.k8s.io")).obj
    assert [row["cells"][:2] for row in table["rows"]] == [["a", "C"], ["b", "F"]]
    rows = (await site.get("/apis/example.com/v1")).obj["resources"]
    assert {row["name"] for row in rows} == {"sensors", "sensors/status", "sensors/scale"}


async def test_subresources_and_patches(site: Site) -> None:
    await served(site)
    await site.post(SENSORS, sensor("a", unit="C"))
    patched = await site.patch(f"{SENSORS}/a/status", {"status": {"value": "7"}, "spec": {"unit": "F"}})
    assert (patched.obj["status"], patched.obj["spec"]["unit"]) == ({"value": "7"}, "C")
    scaled = await site.patch(f"{SENSORS}/a/scale", {"spec": {"replicas": 3}})
    assert scaled.obj["spec"] == {"replicas": 3}
    changed = (await site.patch(f"{SENSORS}/a", [{"op": "replace", "path": "/spec/unit", "value": "F"}], "json")).obj
    assert (changed["spec"], changed["metadata"]["generation"]) == ({"unit": "F", "rate": 10, "replicas": 3}, 3)
    assert (await site.patch(f"{SENSORS}/a", {}, "strategic-merge")).status == 415
    config = sensor("z", unit="C")
    assert (await site.patch(f"{SENSORS}/z?fieldManager=me", config, "apply")).status == 201
    conflict = await site.patch(f"{SENSORS}/z?fieldManager=you", sensor("z", unit="F"), "apply")
    assert (conflict.status, ".spec.unit" in conflict.obj["message"]) == (409, True)


async def test_new_version_of_the_definition(site: Site) -> None:
    await served(site)
    await site.post(SENSORS, sensor("a", unit="C"))
    crd = (await site.get(f"{CRDS}/{NAME}")).obj
    second = {**crd["spec"]["versions"][0], "name": "v2", "storage": False}
    crd["spec"]["versions"].append(second)
    assert (await site.put(f"{CRDS}/{NAME}", crd)).status == 200
    other = (await until(site, SENSORS.replace("v1", "v2") + "/a", 200)).obj
    assert (other["apiVersion"], other["spec"]["unit"]) == ("example.com/v2", "C")
    made = await site.post(SENSORS.replace("v1", "v2"), {**sensor("b", unit="F"), "apiVersion": "example.com/v2"})
    assert made.obj["apiVersion"] == "example.com/v2"
    assert (await site.get(f"{SENSORS}/b")).obj["apiVersion"] == "example.com/v1"


async def test_deletion_takes_the_objects_along(site: Site) -> None:
    await served(site)
    await site.post(SENSORS, sensor("a", unit="C"))
    held = sensor("b", unit="C")
    held["metadata"]["finalizers"] = ["example.com/mine"]
    await site.post(SENSORS, held)
    async with site.watch(f"{SENSORS}?watch=true") as following:
        assert (await site.delete(f"{CRDS}/{NAME}")).obj["metadata"]["deletionTimestamp"]
        await until(site, f"{SENSORS}/a", 404)
        assert (await site.get(f"{CRDS}/{NAME}")).status == 200
        await site.patch(f"{SENSORS}/b", {"metadata": {"finalizers": None}})
        await until(site, f"{CRDS}/{NAME}", 404)
        await until(site, SENSORS, 404)
        while await following() is not None:
            pass
    await served(site)
    assert (await site.get(SENSORS)).obj["items"] == []


async def test_served_at_once_after_a_restart(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await served(site)
        await site.post(SENSORS, sensor("a", unit="C"))
    async with site_at(tmp_path) as site:
        assert (await site.get(f"{SENSORS}/a")).status == 200
        assert len((await site.get(f"{SENSORS}?fieldSelector=spec.unit%3DC")).obj["items"]) == 1


async def test_bad_definitions(site: Site) -> None:
    assert (await site.post(CRDS, {**definition(), "metadata": {"name": "x"}})).status == 422
    assert (await site.post(CRDS, definition(versions=[]))).status == 422
