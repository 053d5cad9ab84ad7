"""Devices on an API server that is not ours: DeviceStatus of KubeEdge v1.23, two instances, devices that move while nobody looks."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest
from go_edge import V1_23, GoEdge
from link_site import Edge, Site, SiteMaker, node_object
from test_link_devices import MODEL, confirmed, device, edge_updated, expected, prepare, status, twins, wish
from test_link_tls import read_token

from edgesite.client import Client
from edgesite.cloud.devicecontroller.module import DeviceController
from edgesite.cloud.devicecontroller.served import DEVICE_STATUSES
from edgesite.edge.devicetwin import Reported
from edgesite.edge.devicetwin.module import DeviceTwin
from edgesite.kube.devices.crds import status_definition
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import CUSTOM_RESOURCE_DEFINITIONS, DEVICE_MODELS, DEVICES, NAMESPACES, NODES
from edgesite.testing.waiting import until

pytestmark = pytest.mark.anyio
Object = dict[str, Any]


def kubeedges_definition() -> Object:
    """As v1.23 installs it, with a v1alpha2 that nobody stores."""
    definition = status_definition()
    twins = {"type": "array", "items": {"type": "object", "properties": {"propertyName": {"type": "string"}}}}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"twins": twins}}}
    old = {"name": "v1alpha2", "served": True, "storage": False, "schema": schema}
    definition["spec"]["versions"].insert(0, old)
    return definition


async def with_statuses(client: Client, definition: Object) -> None:
    """Have the API serve DeviceStatus."""
    await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition)

    async def is_served() -> bool:
        try:
            await client.list(DEVICE_STATUSES)
        except ApiError:
            return False
        return True

    await until(is_served)


async def device_status(client: Client, name: str = "pump-1") -> Object:
    """What a DeviceStatus says: reported and observed values by name, the state as "state"."""
    try:
        found = await client.get(DEVICE_STATUSES, name, "default")
    except ApiError:
        return {}
    told: Object = {"state": found["status"].get("state")}
    for one in found["status"].get("twins") or ():
        told[one["propertyName"]] = (one.get("reported") or {}).get("value")
        if "observedDesired" in one:
            told[f"{one['propertyName']}?"] = one["observedDesired"]["value"]
    return told


async def test_reports_are_written_to_device_statuses_too(make_site: SiteMaker) -> None:
    async with make_site(single_process=False) as site, site.cluster() as client:
        await with_statuses(client, status_definition())
        site.token = await read_token_of(site, client)
        async with (
            site.instance("one", DeviceController) as (port, _),
            site.edge("edge-1", DeviceTwin, servers=f"127.0.0.1:{port}") as edge,
        ):
            await prepare(client, "edge-1", "edge-2")
            await client.create(DEVICES, device())
            await client.create(DEVICES, device("away", node="edge-2"))
            await expected(edge, "40")
            await twins(edge).report_twins("default", "pump-1", [Reported("speed", "38")])
            await twins(edge).report_state("default", "pump-1", "online")
            await status(client, lambda told: told == {"speed": "38", "state": "online"})

            async def has(speed: str) -> bool:
                told = await device_status(client)
                return bool(told.get("speed") == speed and told.get("state") == "online")

            await until(lambda: has("38"))
            found = await client.get(DEVICE_STATUSES, "pump-1", "default")
            owner = (await client.get(DEVICES, "pump-1", "default"))["metadata"]
            reference = found["metadata"]["ownerReferences"][0]
            assert (reference["kind"], reference["uid"], reference["controller"]) == ("Device", owner["uid"], True)
            extensions = {"status": {"extensions": {"theirs": {"a": 1}}}}
            await client.patch(DEVICE_STATUSES, "pump-1", extensions, "default")
            await twins(edge).report_twins("default", "pump-1", [Reported("speed", "39")])
            await until(lambda: has("39"))
            found = await client.get(DEVICE_STATUSES, "pump-1", "default")
            assert found["status"]["extensions"] == {"theirs": {"a": 1}}
            assert await device_status(client, "away") == {}, "its node is another instance's, or nobody's"
            await client.delete(DEVICE_STATUSES, "pump-1", "default")
            await twins(edge).report_twins("default", "pump-1", [Reported("speed", "41")])
            await until(lambda: has("41"))


async def test_a_go_edge_of_v1_23_reports_into_both(make_site: SiteMaker) -> None:
    async with make_site(single_process=False) as site, site.cluster() as client:
        await with_statuses(client, kubeedges_definition())
        token = await read_token_of(site, client)
        async with site.instance("one", DeviceController) as (port, _):
            await client.create(DEVICE_MODELS, MODEL)
            edge = GoEdge(site, "go-1", V1_23)
            await edge.join(token)
            async with edge.linked(port):
                await edge.register()
                await client.create(DEVICES, device(node="go-1"))
                await until(lambda: "default/device/pump-1" in edge.meta)
                content = edge_updated("38", 1, 1000)
                content["twin"]["speed"]["expected"] = {"value": "40", "metadata": {"timestamp": 900}}
                await confirmed(edge, "device/default/pump-1/twin/edge_updated", content)
                told = {"name": "pump-1", "state": "online", "lastOnlineTime": "2026-11-20T05:25:57Z"}
                state = {"event_id": "s", "timestamp": 1, "device": told}
                await confirmed(edge, "device/default/pump-1/state/update", state)
                await status(client, lambda told: told == {"speed": "38", "state": "online"})

                async def has_all() -> bool:
                    return await device_status(client) == {"state": "online", "speed": "38", "speed?": "40"}

                await until(has_all)
                as_alpha = replace(DEVICE_STATUSES, version="v1alpha2")
                found = await client.get(as_alpha, "pump-1", "default")
                assert found["metadata"]["ownerReferences"][0]["name"] == "pump-1", "it is no device to be converted"


async def test_a_device_is_bound_elsewhere_while_nobody_looks(make_site: SiteMaker) -> None:
    """Both nodes are away, and the cloud role ends in between: its former node gives it up, the other gets it."""
    async with make_site(single_process=False) as site, site.cluster() as client:
        site.token = await read_token_of(site, client)
        async with site.instance("one", DeviceController) as (port, _):
            await prepare(client, "edge-1", "edge-2")
            await client.create(DEVICES, device())
            async with site.edge("edge-1", DeviceTwin, servers=f"127.0.0.1:{port}") as edge:
                await expected(edge, "40")
        await client.patch(DEVICES, "pump-1", {"spec": {"nodeName": "edge-2"}}, "default")
        await client.patch(DEVICES, "pump-1", wish("44"), "default", kind="json")
        async with (
            site.instance("two", DeviceController) as (port, _),
            site.edge("edge-1", DeviceTwin, servers=f"127.0.0.1:{port}") as former,
            site.edge("edge-2", DeviceTwin, servers=f"127.0.0.1:{port}") as latter,
        ):
            await until(lambda: not twins(former).namespace_of("pump-1"))
            await expected(latter, "44")


async def test_a_node_changes_instances_and_nothing_of_its_devices_is_lost(make_site: SiteMaker) -> None:
    async with make_site(single_process=False) as site, site.cluster() as client:
        site.token = await read_token_of(site, client)
        async with (
            site.instance("one", DeviceController) as (one, _),
            site.instance("two", DeviceController) as (two, _),
        ):
            await prepare(client, "edge-1")
            await client.create(DEVICES, device())
            async with site.edge("edge-1", DeviceTwin, servers=f"127.0.0.1:{one}") as edge:
                await expected(edge, "40")
                await twins(edge).report_twins("default", "pump-1", [Reported("speed", "38")])
                await status(client, lambda told: told.get("speed") == "38")
            await client.patch(DEVICES, "pump-1", wish("50"), "default", kind="json")
            async with site.edge("edge-1", DeviceTwin, servers=f"127.0.0.1:{two}") as edge:
                await expected(edge, "50")
                await twins(edge).report_twins("default", "pump-1", [Reported("speed", "50")])
                await status(client, lambda told: told.get("speed") == "50")
                stale = {"twins": [{"propertyName": "speed", "reported": {"value": "38"}}]}
                await client.patch(
                    DEVICES, "pump-1", {"status": stale}, "default"
                )  # as an instance that is behind does
                await status(client, lambda told: told.get("speed") == "50")


async def test_a_model_that_is_made_anew_reaches_the_nodes_of_its_devices(make_site: SiteMaker) -> None:
    async with make_site() as site, site.cloud(DeviceController) as client, site.edge("edge-1", DeviceTwin) as edge:
        await prepare(client, "edge-1")
        await client.create(DEVICES, device())
        await expected(edge, "40")

        async def maximum() -> str | None:
            models = await twins(edge).models()
            return next((one["spec"]["properties"][0].get("maximum") for one in models), None)

        await client.delete(DEVICE_MODELS, "pump", "default")
        await until(lambda: no_model(edge))
        properties = [{"name": "speed", "type": "INT", "maximum": "60"}, {"name": "temp", "type": "DOUBLE"}]
        changed = {**MODEL, "spec": {"properties": properties}}
        await client.create(DEVICE_MODELS, changed)

        async def is_there() -> bool:
            return await maximum() == "60"

        await until(is_there)
        await client.patch(DEVICES, "pump-1", wish("55"), "default", kind="json")
        await expected(edge, "55")


async def no_model(edge: Edge) -> bool:
    return not await twins(edge).models()


@pytest.mark.parametrize("models_first", [True, False])
async def test_devices_go_with_their_namespace(
    make_site: SiteMaker, caplog: pytest.LogCaptureFixture, models_first: bool
) -> None:
    """In whatever order they go; what they report meanwhile does no harm."""
    async with make_site() as site, site.cloud(DeviceController) as client, site.edge("edge-1", DeviceTwin) as edge:
        await client.create(NODES, node_object("edge-1"))
        await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}})
        await client.create(DEVICE_MODELS, {**MODEL, "metadata": {"name": "pump", "namespace": "other"}})
        for name in ("pump-1", "pump-2"):
            await client.create(DEVICES, device(name, namespace="other"))
        await until(lambda: twins(edge).namespace_of("pump-1") and twins(edge).namespace_of("pump-2"))
        caplog.set_level(logging.WARNING)
        caplog.clear()
        await client.delete(NAMESPACES, "other")
        order = [DEVICE_MODELS, DEVICES] if models_first else [DEVICES, DEVICE_MODELS]
        await client.delete_collection(order[0], "other")
        await twins(edge).report_twins("other", "pump-1", [Reported("speed", "38")])
        await client.delete_collection(order[1], "other")
        await until(lambda: not twins(edge).namespace_of("pump-1") and not twins(edge).namespace_of("pump-2"))
        await until(lambda: no_model(edge))
        assert not [one for one in caplog.records if one.levelno >= logging.WARNING and "device" in one.getMessage()]


async def read_token_of(site: Site, client: Client) -> str:
    """The join token, which the first instance makes."""
    async with site.instance("token", DeviceController):
        return await read_token(client)
