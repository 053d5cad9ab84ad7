"""metrics.k8s.io over a connector that stands for the links to nodes: figures, selection, nodes that do not answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from apiserver_site import Site, site_at

from edgesite.kube import json
from edgesite.kube.errors import unavailable

pytestmark = pytest.mark.anyio
METRICS = "/apis/metrics.k8s.io/v1beta1"
PODS = "/api/v1/namespaces/default/pods"


class Stream:
    headers: Mapping[str, str] = {}

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body

    async def close(self) -> None:
        """Nothing is open."""


class Connector:
    """Nodes by name; one that is not here cannot be reached."""

    def __init__(self) -> None:
        self.nodes: dict[str, Stream] = {}
        self.asked: list[str] = []

    async def open(
        self,
        node: str,
        method: str,
        target: str,
        headers: Mapping[str, Sequence[str]] | None = None,
        body: bytes = b"",
    ) -> Any:
        assert (method, target) == ("GET", "/stats/summary")
        self.asked.append(node)
        if node not in self.nodes:
            raise unavailable("no way")
        return self.nodes[node]


def used(**more: Any) -> dict[str, Any]:
    cpu = {"time": "2026-11-20T05:28:16Z", "usageNanoCores": 1500}
    return {"cpu": cpu, "memory": {"workingSetBytes": 4096}, **more}


@pytest.fixture
def connector() -> Connector:
    return Connector()


@pytest.fixture
async def site(tmp_path: Path, connector: Connector) -> AsyncIterator[Site]:
    async with site_at(tmp_path, connector=lambda: connector) as made:
        for node in ("n1", "n2", "n3"):
            await made.post("/api/v1/nodes", {"metadata": {"name": node}})
        told = []
        for name in ("a", "b"):
            spec = {"containers": [{"name": "web", "image": "x"}], "nodeName": "n1"}
            answer = await made.post(PODS, {"metadata": {"name": name, "labels": {"app": name}}, "spec": spec})
            ref = {"name": name, "namespace": "default", "uid": answer.obj["metadata"]["uid"]}
            told.append(used(podRef=ref, containers=[used(name="web")]))
        gone = used(podRef={"name": "a", "namespace": "default", "uid": "another"}, containers=[used(name="web")])
        connector.nodes["n1"] = Stream(200, json.dumps({"node": used(nodeName="n1"), "pods": [*told, gone]}))
        connector.nodes["n2"] = Stream(200, b"no json")
        yield made


async def test_nodes(site: Site, connector: Connector) -> None:
    listed = (await site.get(f"{METRICS}/nodes")).obj
    assert (listed["kind"], listed["apiVersion"]) == ("NodeMetricsList", "metrics.k8s.io/v1beta1")
    (one,) = listed["items"]  # the others have no figures
    assert one["usage"] == {"cpu": "1500n", "memory": "4Ki"}
    assert (await site.get(f"{METRICS}/nodes/n1")).obj["metadata"]["name"] == "n1"
    assert (await site.get(f"{METRICS}/nodes/n3")).status == 404
    assert (await site.get(f"{METRICS}/nodes/no")).status == 404
    assert connector.asked.count("n1") == 1  # fresh enough
    site.clock.ahead_s = 60
    await site.get(f"{METRICS}/nodes/n1")
    assert connector.asked.count("n1") == 2


async def test_pods(site: Site) -> None:
    def names(answer: Any) -> list[str]:
        return [one["metadata"]["name"] for one in answer.obj["items"]]

    assert names(await site.get(f"{METRICS}/pods")) == ["a", "b"]
    assert names(await site.get(f"{METRICS}/namespaces/default/pods?labelSelector=app%3Db")) == ["b"]
    assert names(await site.get(f"{METRICS}/namespaces/kube-system/pods")) == []
    one = (await site.get(f"{METRICS}/namespaces/default/pods/a")).obj
    assert one["containers"] == [{"name": "web", "usage": {"cpu": "1500n", "memory": "4Ki"}}]
    assert (await site.get(f"{METRICS}/namespaces/default/pods/no")).status == 404


async def test_figures_can_only_be_read(site: Site) -> None:
    assert (await site.delete(f"{METRICS}/nodes/n1")).status == 405
    assert (await site.get(f"{METRICS}/nodes?watch=true")).status == 405
    found = (await site.get(METRICS)).obj["resources"]
    assert {one["name"]: one["verbs"] for one in found} == {"nodes": ["get", "list"], "pods": ["get", "list"]}
    assert (await site.as_user("nobody").get(f"{METRICS}/nodes")).status == 403
