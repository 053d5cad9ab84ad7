"""What every edge of ours may ask of its cluster: runtime classes, and the services that pods are told of."""

from __future__ import annotations

import pytest
from link_site import SiteMaker
from raw_edge import raw_edge

from edgesite.kube.resources import NAMESPACES, RUNTIME_CLASSES, SERVICES

pytestmark = pytest.mark.anyio


async def test_an_edge_is_told_of_runtime_classes_and_services(make_site: SiteMaker) -> None:
    async with make_site() as site, site.cloud() as client:
        await client.create(RUNTIME_CLASSES, {"metadata": {"name": "gvisor"}, "handler": "runsc"})
        await client.create(NAMESPACES, {"metadata": {"name": "shop"}})
        spec = {"ports": [{"name": "http", "port": 80}], "selector": {"a": "b"}}
        web = await client.create(SERVICES, {"metadata": {"name": "web", "namespace": "shop"}, "spec": spec})
        headless = {"metadata": {"name": "none", "namespace": "shop"}, "spec": {**spec, "clusterIP": "None"}}
        await client.create(SERVICES, headless)
        async with raw_edge(site, "edge-1", own=True) as edge:
            found = await edge.ask("query", "default/runtimeclass/gvisor")
            assert found["handler"] == "runsc"
            assert await edge.reason("query", "default/runtimeclass/none") == "NotFound"
            listed = await edge.ask("query", "shop/servicelist/shop")
            hosts = {(one["namespace"], one["name"]): one["clusterIP"] for one in listed["items"]}
            api = await client.get(SERVICES, "kubernetes", "default")
            assert hosts == {
                ("default", "kubernetes"): api["spec"]["clusterIP"],
                ("shop", "web"): web["spec"]["clusterIP"],
            }
            assert listed["items"][-1]["ports"] == [{"name": "http", "port": 80, "protocol": "TCP"}]
