"""Requests that cross each other, or are cut off half-way."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest
from apiserver_site import Site, site_at

from edgesite.apiserver.kinds import prefix_of
from edgesite.hookspecs import AdmissionRequest
from edgesite.kube.resources import Resource

pytestmark = pytest.mark.anyio
SERVICES = "/api/v1/namespaces/default/services"


class Gate:
    """An admission plugin that lets ConfigMaps wait until it is opened."""

    name: ClassVar[str] = "gate"
    mutating = False

    def __init__(self) -> None:
        self.reached, self.opened = anyio.Event(), anyio.Event()

    def wants(self, resource: Resource, operation: str, subresource: str) -> bool:
        return resource.plural == "configmaps"

    async def admit(self, request: AdmissionRequest) -> None:
        self.reached.set()
        await self.opened.wait()


async def test_nothing_is_made_in_a_namespace_that_was_deleted_meanwhile(tmp_path: Path) -> None:
    gate = Gate()
    async with site_at(tmp_path, plugins=[gate]) as site:
        await site.post("/api/v1/namespaces", {"metadata": {"name": "n"}})
        codes: list[int] = []

        async def create() -> None:
            answer = await site.post("/api/v1/namespaces/n/configmaps", {"metadata": {"name": "late"}})
            codes.append(answer.status)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(create)
            with anyio.fail_after(60):
                await gate.reached.wait()
            assert (await site.delete("/api/v1/namespaces/n")).status == 200
            gate.opened.set()
        assert codes == [403]


async def test_an_address_stays_taken_by_a_write_whose_caller_has_left(site: Site) -> None:
    key = f"{prefix_of('', 'services')}default/a"
    wanted: dict[str, Any] = {"clusterIP": "10.96.77.1", "ports": [{"port": 80}]}

    async def create(scope: anyio.CancelScope) -> None:
        with scope:
            await site.post(SERVICES, {"metadata": {"name": "a"}, "spec": wanted})

    async with anyio.create_task_group() as tasks:
        scope = anyio.CancelScope()
        tasks.start_soon(create, scope)
        with anyio.fail_after(60):
            while site.store.latest(key) is None:
                await anyio.lowlevel.checkpoint()
        scope.cancel()
    with anyio.fail_after(60):
        while site.store.get(key) is None:
            await anyio.lowlevel.checkpoint()
    answer = await site.post(SERVICES, {"metadata": {"name": "b"}, "spec": wanted})
    assert (answer.status, answer.obj["reason"]) == (422, "Invalid")


async def test_pages_of_what_matches_seldom_are_complete(site: Site) -> None:
    configs = "/api/v1/namespaces/default/configmaps"
    for number in range(30):
        labels = {"odd": "yes"} if number % 7 == 3 else {}
        await site.post(configs, {"metadata": {"name": f"c{number:02}", "labels": labels}})
    found, token, pages = [], "", 0
    while True:
        page = (await site.get(f"{configs}?labelSelector=odd&limit=2&continue={token}")).obj
        found += [one["metadata"]["name"] for one in page["items"]]
        pages += 1
        token = page["metadata"].get("continue", "")
        await site.post(configs, {"metadata": {"name": f"c00-{pages}", "labels": {"odd": "yes"}}})
        if not token:
            break
    assert found == ["c03", "c10", "c17", "c24"]
    assert pages in (2, 3)


async def test_a_node_may_not_move_pods_or_itself_to_others_by_labels(site: Site) -> None:
    node = site.as_user("system:node:n1", "system:nodes")
    pods = "/api/v1/namespaces/default/pods"
    pod = {"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "x"}]}}
    await site.post(pods, pod)
    status = {"status": {"phase": "Running"}}
    assert (await node.patch(f"{pods}/p/status", status)).status == 200
    assert (await node.patch(f"{pods}/p/status", {**status, "metadata": {"labels": {"app": "db"}}})).status == 403
    reserved = {"metadata": {"name": "n1", "labels": {"node-restriction.kubernetes.io/zone": "secure"}}}
    assert (await node.post("/api/v1/nodes", reserved)).status == 403
    assert (await node.post("/api/v1/nodes", {"metadata": {"name": "n1"}})).status == 201


async def test_evictions_at_the_same_moment_do_not_overdraw_a_budget(site: Site) -> None:
    pods, budgets = "/api/v1/namespaces/default/pods", "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
    selector = {"matchLabels": {"app": "db"}}
    await site.post(budgets, {"metadata": {"name": "db"}, "spec": {"selector": selector, "minAvailable": 2}})
    assert (await site.patch(f"{budgets}/db/status", {"status": {"disruptionsAllowed": 1}})).status == 200
    codes: list[int] = []

    async def evict(name: str) -> None:
        codes.append((await site.post(f"{pods}/{name}/eviction", {"metadata": {"name": name}})).status)

    for name in ("a", "b", "c"):
        metadata = {"name": name, "labels": {"app": "db"}}
        await site.post(pods, {"metadata": metadata, "spec": {"containers": [{"name": "c", "image": "x"}]}})
    async with anyio.create_task_group() as tasks:
        for name in ("a", "b", "c"):
            tasks.start_soon(evict, name)
    assert sorted(codes) == [201, 429, 429]
    assert len((await site.get(pods)).obj["items"]) == 2
