"""Devices from the API to the edge and back: edges of ours, and edges of KubeEdge by their recorded form."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from go_edge import VERSIONS, GoEdge, Version
from link_site import Edge, SiteMaker, node_object
from test_link_tls import read_token

from edgesite.client import Client
from edgesite.cloud.devicecontroller.module import DeviceController
from edgesite.edge.devicetwin import Devices, Reported
from edgesite.edge.devicetwin.module import DeviceTwin
from edgesite.edge.metamanager.rows import Rows
from edgesite.kube.resources import BUILTIN, CONFIG_MAPS, DEVICE_MODELS, DEVICES, NODES, OBJECT_SYNCS, Resource
from edgesite.testing.waiting import DEADLINE_S, until
from edgesite.wire.message import MessageMaker

pytestmark = pytest.mark.anyio
Object = dict[str, Any]
ALPHA = next(one for one in BUILTIN if (one.plural, one.version) == ("devices", "v1alpha2"))
MODEL = {
    "metadata": {"name": "pump", "namespace": "default"},
    "spec": {
        "protocol": "modbus",
        "properties": [
            {"name": "speed", "type": "INT", "accessMode": "ReadWrite", "maximum": "100"},
            {"name": "temp", "type": "DOUBLE", "accessMode": "ReadOnly"},
        ],
    },
}


def device(name: str = "pump-1", node: str = "edge-1", speed: str = "40", namespace: str = "default") -> Object:
    desired = {"value": speed, "metadata": {"type": "int"}}
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": {"description": "cellar"}},
        "spec": {
            "deviceModelRef": {"name": "pump"},
            "nodeName": node,
            "protocol": {"protocolName": "modbus", "configData": {"slaveID": 1}},
            "properties": [{"name": "speed", "desired": desired}, {"name": "temp"}],
        },
    }


def alpha(name: str = "pump-1", node: str = "go-1", speed: str = "40") -> Object:
    expression = {"key": "", "operator": "In", "values": [node]}
    return {
        "metadata": {"name": name, "namespace": "default", "labels": {"description": "cellar"}},
        "spec": {
            "deviceModelRef": {"name": "pump"},
            "protocol": {"modbus": {"slaveID": 1}},
            "nodeSelector": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]},
        },
        "status": {"twins": [{"propertyName": "speed", "desired": {"value": speed, "metadata": {"type": "int"}}}]},
    }


def wish(speed: str) -> list[Object]:
    return [{"op": "replace", "path": "/spec/properties/0/desired/value", "value": speed}]


async def becomes(look: Callable[[], Awaitable[Any]]) -> None:
    """Wait until what is asked again and again is so."""
    with anyio.fail_after(DEADLINE_S):
        while True:
            if await look():
                return
            await anyio.sleep(0.01)


def twins(edge: Edge) -> Devices:
    return edge.host.services.get(Devices)  # type: ignore[type-abstract]


async def expected(edge: Edge, value: str | None) -> None:
    """Wait until this is what the edge wants of the pump."""
    rows = edge.host.services.get(Rows)  # type: ignore[type-abstract]

    async def is_wanted() -> bool:
        return [(value,)] == list(await rows.query("SELECT expected FROM device_twin WHERE name = 'speed'"))

    await becomes(is_wanted)


async def status(client: Client, good: Callable[[Object], bool], name: str = "pump-1") -> Object:
    """Wait for a status: reported values by name, the state as "state"."""
    with anyio.fail_after(DEADLINE_S):
        while True:
            found = (await client.get(DEVICES, name, "default")).get("status") or {}
            told = {
                one["propertyName"]: one["reported"]["value"] for one in found.get("twins") or () if "reported" in one
            }
            if good({**told, "state": found.get("state")}):
                return found
            await anyio.sleep(0.01)


async def prepare(client: Client, *nodes: str) -> None:
    await client.create(DEVICE_MODELS, MODEL)
    for node in nodes:
        await client.create(NODES, node_object(node))


async def test_a_device_goes_down_and_its_reports_come_up(make_site: SiteMaker) -> None:
    async with make_site() as site, site.cloud(DeviceController) as client, site.edge("edge-1", DeviceTwin) as edge:
        await prepare(client, "edge-1")
        await client.create(DEVICES, device())
        await expected(edge, "40")
        await twins(edge).report_twins("default", "pump-1", [Reported("speed", "38"), Reported("temp", "21.5")])
        await twins(edge).report_state("default", "pump-1", "online")
        found = await status(client, lambda told: told == {"speed": "38", "temp": "21.5", "state": "online"})
        assert found["twins"][1]["reported"]["metadata"]["type"] == "double"
        assert found["lastOnlineTime"].endswith("Z")
        await client.patch(DEVICES, "pump-1", wish("55"), "default", kind="json")
        await expected(edge, "55")
        held = await twins(edge).device("default", "pump-1")
        assert held is not None
        assert "status" not in held, "reports are not sent down again"
        await client.delete(DEVICES, "pump-1", "default")
        await until(lambda: twins(edge).namespace_of("pump-1") is None)

        async def has_no_model() -> bool:
            return not await twins(edge).models()

        await becomes(has_no_model)


async def test_what_was_wanted_while_the_node_was_away_arrives(make_site: SiteMaker) -> None:
    """KubeEdge v1.12 loses it."""
    async with make_site() as site, site.cloud(DeviceController) as client:
        await prepare(client, "edge-1")
        for name in ("pump-1", "pump-2"):
            await client.create(DEVICES, device(name))
        async with site.edge("edge-1", DeviceTwin) as edge:
            await until(lambda: twins(edge).namespace_of("pump-1") and twins(edge).namespace_of("pump-2"))
        await client.patch(DEVICES, "pump-1", wish("77"), "default", kind="json")
        await client.delete(DEVICES, "pump-2", "default")
        await client.create(DEVICES, device("pump-3"))
        async with site.edge("edge-1", DeviceTwin) as edge:
            await until(lambda: twins(edge).namespace_of("pump-3") and not twins(edge).namespace_of("pump-2"))
            rows = edge.host.services.get(Rows)  # type: ignore[type-abstract]
            found = await rows.query("SELECT deviceid, expected FROM device_twin WHERE name = 'speed' ORDER BY 1")
            assert found == [("pump-1", "77"), ("pump-3", "40")]


async def test_a_device_that_is_bound_elsewhere_leaves(make_site: SiteMaker) -> None:
    async with (
        make_site() as site,
        site.cloud(DeviceController) as client,
        site.edge("edge-1", DeviceTwin) as one,
        site.edge("edge-2", DeviceTwin) as two,
    ):
        await prepare(client, "edge-1", "edge-2")
        await client.create(DEVICES, device())
        await until(lambda: twins(one).namespace_of("pump-1"))
        await client.patch(DEVICES, "pump-1", {"spec": {"nodeName": "edge-2"}}, "default")
        await until(lambda: twins(two).namespace_of("pump-1") and not twins(one).namespace_of("pump-1"))
        await client.patch(DEVICES, "pump-1", {"spec": {"nodeName": None}}, "default")
        await until(lambda: not twins(two).namespace_of("pump-1"))


async def test_devices_of_one_name_in_two_namespaces_are_two(make_site: SiteMaker) -> None:
    """KubeEdge's caches know names alone."""
    async with make_site() as site, site.cloud(DeviceController) as client, site.edge("edge-1", DeviceTwin) as edge:
        await prepare(client, "edge-1")
        other = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}}
        await client.create(next(one for one in BUILTIN if one.plural == "namespaces"), other)
        await client.create(DEVICE_MODELS, {**MODEL, "metadata": {"name": "pump", "namespace": "other"}})
        await client.create(DEVICES, device())
        await client.create(DEVICES, device(namespace="other", speed="1"))
        rows = edge.host.services.get(Rows)  # type: ignore[type-abstract]

        async def both() -> bool:
            return len(await rows.query("SELECT id FROM device")) == 2

        async def reported() -> Any:
            return (await client.get(DEVICES, "pump-1", "other")).get("status")

        await becomes(both)
        await twins(edge).report_twins("other", "pump-1", [Reported("speed", "2")])
        await becomes(reported)
        assert not (await client.get(DEVICES, "pump-1", "default")).get("status")


async def test_a_manifest_that_is_applied_again_does_not_leave_old_reports(make_site: SiteMaker) -> None:
    async with make_site() as site, site.cloud(DeviceController) as client, site.edge("edge-1", DeviceTwin) as edge:
        await prepare(client, "edge-1")
        await client.create(ALPHA, alpha(node="edge-1"))
        await expected(edge, "40")
        await twins(edge).report_twins("default", "pump-1", [Reported("speed", "38")])
        await status(client, lambda told: told.get("speed") == "38")
        found = await client.get(ALPHA, "pump-1", "default")
        stale = copy.deepcopy(found)
        stale["status"]["twins"][0]["reported"] = {"value": "0", "metadata": {"timestamp": "1550049403598"}}
        await client.update(ALPHA, stale)
        await status(client, lambda told: told.get("speed") == "38")


async def test_a_node_reports_about_its_own_devices_alone(make_site: SiteMaker) -> None:
    async with make_site() as site, site.cloud(DeviceController) as client, site.edge("edge-1", DeviceTwin) as edge:
        await prepare(client, "edge-1", "edge-2")
        await client.create(DEVICES, device("mine"))
        await client.create(DEVICES, device("other", node="edge-2"))
        await until(lambda: twins(edge).namespace_of("mine"))
        bus = edge.host.bus
        maker = MessageMaker(lambda: 1.0, random.getrandbits)
        content = {
            "base": 1000,
            "names": ["speed"],
            "devices": [["default/other", 0, "9", 0], ["default/mine", 0, "8", 0]],
        }
        answer = await bus.call("websocket", maker.make("twin", "resource", "update", "devices/reported", content))
        assert answer.content == "OK"
        await status(client, lambda told: told.get("speed") == "8", "mine")
        assert not (await client.get(DEVICES, "other", "default")).get("status")


# -- edges of KubeEdge -------------------------------------------------------------------------------------------------

every_version = pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)


def heard(edge: GoEdge, path: str, operation: str = "") -> list[Object]:
    return [
        one for one in edge.heard if one["route"]["resource"] == path and operation in ("", one["route"]["operation"])
    ]


async def confirmed(edge: GoEdge, path: str, content: Any) -> None:
    """Tell the cloud something as DeviceTwin does, and wait until it is confirmed."""
    asked = await edge._send("twin", "resource", "update", path, content)
    await until(lambda: asked in edge._answers)
    answer = edge._answers.pop(asked)
    assert (answer["route"]["group"], answer["route"]["resource"], answer["content"]) == ("twin", "twin", "OK")


def edge_updated(value: str, version: int, at_ms: int) -> Object:
    actual = {"value": value, "metadata": {"timestamp": at_ms}}
    versions = {"cloud": 0, "edge": version}
    twin = {"actual": actual, "optional": False, "metadata": {"type": "int"}, "actual_version": versions}
    return {"event_id": "e", "timestamp": at_ms, "twin": {"speed": twin}}


@every_version
async def test_kubeedges_edges_get_devices_in_their_form(make_site: SiteMaker, version: Version) -> None:
    old = version is VERSIONS["v1.12.7"]
    own_id = "pump-1" if old else "default/pump-1"
    async with make_site(single_process=False) as site, site.cloud(DeviceController) as client:
        await client.create(DEVICE_MODELS, MODEL)
        edge = GoEdge(site, "go-1", version)
        await edge.join(await read_token(client))
        async with edge.linked():
            await edge.register()
            await client.create(ALPHA, alpha())
            await until(lambda: heard(edge, "default/device/pump-1", "insert"))
            content = heard(edge, "default/device/pump-1")[0]
            assert content["route"]["source"] == "devicecontroller"
            assert content["content"]["apiVersion"] == f"devices.kubeedge.io/{'v1alpha2' if old else 'v1beta1'}"
            assert edge.meta["default/devicemodel/pump"]["kind"] == "DeviceModel"
            added = heard(edge, "membership")[0]
            assert (added["route"]["source"], added["route"]["group"]) == ("devicecontroller", "twin")
            entry = added["content"]["added_devices"][0]
            assert (entry["id"], entry["name"], entry["description"]) == (own_id, "pump-1", "cellar")
            assert added["content"]["removed_devices"] is None
            if old:
                assert entry["twin"]["speed"]["expected"]["value"] == "40"
                assert entry["twin"]["speed"]["expected_version"]["edge"] == 0
            await confirmed(edge, f"device/{own_id}/twin/edge_updated", edge_updated("38", 1, 1000))
            text = json.dumps(
                {
                    "event_id": "s",
                    "timestamp": 1,
                    "device": {"name": "pump-1", "state": "online", "last_online": "2026-11-20 05:14:13"},
                }
            )
            await confirmed(edge, f"device/{own_id}/state/update", text)
            await status(client, lambda told: told == {"speed": "38", "state": "online"})
            await confirmed(edge, f"device/{own_id}/twin/edge_updated", edge_updated("39", 2, 2000))
            await confirmed(edge, f"device/{own_id}/twin/edge_updated", edge_updated("38", 1, 1000))  # repeated, late
            await status(client, lambda told: told["speed"] == "39")
            await client.patch(DEVICES, "pump-1", wish("55"), "default", kind="json")
            await until(lambda: heard(edge, "default/device/pump-1", "update"))
            if old:
                await until(lambda: heard(edge, "device/pump-1/twin/cloud_updated"))
                told = heard(edge, "device/pump-1/twin/cloud_updated")[0]["content"]["twin"]["speed"]
                assert told["expected"]["value"] == "55"
            await client.delete(DEVICES, "pump-1", "default")
            await until(
                lambda: "default/device/pump-1" not in edge.meta and "default/devicemodel/pump" not in edge.meta
            )
            gone = heard(edge, "membership")[-1]["content"]
            assert (gone["added_devices"], gone["removed_devices"][0]["id"]) == (None, own_id)


async def test_an_old_edge_hears_of_what_changed_while_it_was_away(make_site: SiteMaker) -> None:
    """KubeEdge's own cloud does not tell it."""
    async with make_site(single_process=False) as site, site.cloud(DeviceController) as client:
        await client.create(DEVICE_MODELS, MODEL)
        edge = GoEdge(site, "go-1", VERSIONS["v1.12.7"])
        await edge.join(await read_token(client))
        async with edge.linked():
            await edge.register()
            await client.create(ALPHA, alpha())
            await until(lambda: heard(edge, "default/device/pump-1"))
        await client.patch(DEVICES, "pump-1", wish("66"), "default", kind="json")
        edge.heard.clear()
        async with edge.linked():
            await until(lambda: heard(edge, "membership/detail"))
            detail = heard(edge, "membership/detail")[-1]["content"]["devices"]
            assert detail[0]["twin"]["speed"]["expected"]["value"] == "66"
            await until(lambda: heard(edge, "default/device/pump-1", "update"))


async def test_mappers_of_v1_12_get_their_profile(make_site: SiteMaker) -> None:
    async with make_site() as site, site.cloud(DeviceController) as client:
        await prepare(client, "edge-1")
        await client.create(ALPHA, alpha(node="edge-1"))
        await client.create(DEVICES, device("new"))
        name = "device-profile-config-edge-1"
        found = await _appears(client, CONFIG_MAPS, name)
        profile = json.loads(found["data"]["deviceProfile.json"])
        assert [one["id"] for one in profile["deviceInstances"]] == ["pump-1"]  # the other was written as v1beta1
        assert profile["deviceInstances"][0]["twins"][0]["desired"]["value"] == "40"
        await client.delete(DEVICES, "pump-1", "default")

        async def is_gone() -> bool:
            items = (await client.list(CONFIG_MAPS, "default"))["items"]
            return all(one["metadata"]["name"] != name for one in items)

        await becomes(is_gone)


async def test_deliveries_are_recorded_and_forgotten(make_site: SiteMaker) -> None:
    async with make_site() as site, site.cloud(DeviceController) as client:
        await prepare(client, "edge-1")
        async with site.edge("edge-1", DeviceTwin) as edge:
            await client.create(DEVICES, device())
            await until(lambda: twins(edge).namespace_of("pump-1"))
        with anyio.fail_after(DEADLINE_S):
            while True:
                items = (await client.list(OBJECT_SYNCS, "default"))["items"]
                if {"Device", "DeviceModel"} <= {one["spec"]["objectKind"] for one in items}:
                    return
                await anyio.sleep(0.02)


async def _appears(client: Client, kind: Resource, name: str) -> Object:
    with anyio.fail_after(DEADLINE_S):
        while True:
            for one in (await client.list(kind, "default"))["items"]:
                if one["metadata"]["name"] == name:
                    return one
            await anyio.sleep(0.02)
