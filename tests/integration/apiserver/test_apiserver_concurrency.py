"""Many writers at once: nobody's change is lost, and one of many equal claims wins."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest
from apiserver_site import Answer, Site, site_at

from edgesite.hookspecs import AdmissionRequest
from edgesite.kube.resources import Resource

pytestmark = pytest.mark.anyio
CMS = "/api/v1/namespaces/default/configmaps"
WRITERS = 40


class Slow:
    """An admission plugin that lets others go first."""

    name: ClassVar[str] = "slow"
    mutating = False

    def __init__(self) -> None:
        self._rng = random.Random(1)

    def wants(self, resource: Resource, operation: str, subresource: str) -> bool:
        return resource.plural == "configmaps"

    async def admit(self, request: AdmissionRequest) -> None:
        for _ in range(self._rng.randint(0, 2)):
            await anyio.lowlevel.checkpoint()


async def together(*calls: Any) -> list[Answer]:
    answers: list[Any] = [None] * len(calls)

    async def one(number: int, call: Any) -> None:
        answers[number] = await call

    async with anyio.create_task_group() as tasks:
        for number, call in enumerate(calls):
            tasks.start_soon(one, number, call)
    return answers


async def test_no_patch_is_lost(site: Site) -> None:
    await site.post(CMS, {"metadata": {"name": "a"}})
    answers = await together(*(site.patch(f"{CMS}/a", {"data": {f"k{n}": "v"}}) for n in range(WRITERS)))
    assert {one.status for one in answers} == {200}
    assert len((await site.get(f"{CMS}/a")).obj["data"]) == WRITERS
    assert len({one.obj["metadata"]["resourceVersion"] for one in answers}) == WRITERS


async def test_refused_patches_are_told_and_others_kept(tmp_path: Path) -> None:
    async with site_at(tmp_path, plugins=[Slow()]) as site:
        await site.post(CMS, {"metadata": {"name": "a"}})
        answers = await together(*(site.patch(f"{CMS}/a", {"data": {f"k{n}": "v"}}) for n in range(WRITERS)))
        assert {one.status for one in answers} <= {200, 409}
        taken = {f"k{n}" for n, one in enumerate(answers) if one.status == 200}
        assert set((await site.get(f"{CMS}/a")).obj["data"]) == taken
        assert taken


async def test_one_of_many_updates_of_one_revision_wins(tmp_path: Path) -> None:
    async with site_at(tmp_path, plugins=[Slow()]) as site:
        old = (await site.post(CMS, {"metadata": {"name": "a"}})).obj
        answers = await together(*(site.put(f"{CMS}/a", {**old, "data": {"by": str(n)}}) for n in range(WRITERS)))
        winners = [n for n, one in enumerate(answers) if one.status == 200]
        assert len(winners) == 1
        assert {one.status for one in answers} == {200, 409}
        assert (await site.get(f"{CMS}/a")).obj["data"] == {"by": str(winners[0])}


async def test_one_of_many_creations_wins(site: Site) -> None:
    answers = await together(*(site.post(CMS, {"metadata": {"name": "a"}}) for _ in range(WRITERS)))
    assert sorted(one.status for one in answers) == [201] + [409] * (WRITERS - 1)


async def test_a_watch_sees_every_change_once_and_in_order(site: Site) -> None:
    since = site.store.revision
    seen: list[tuple[str, int]] = []
    async with site.watch(f"{CMS}?watch=true&resourceVersion={since}") as following:
        await together(*(site.post(CMS, {"metadata": {"name": f"c{n}"}}) for n in range(WRITERS)))
        await together(*(site.patch(f"{CMS}/c{n}", {"data": {"k": "v"}}) for n in range(WRITERS)))
        await together(*(site.delete(f"{CMS}/c{n}") for n in range(WRITERS)))
        for _ in range(3 * WRITERS):
            kind, obj = await following()
            seen.append((kind, int(obj["metadata"]["resourceVersion"])))
    revisions = [revision for _, revision in seen]
    assert revisions == sorted(set(revisions))
    assert [kind for kind, _ in seen] == ["ADDED"] * WRITERS + ["MODIFIED"] * WRITERS + ["DELETED"] * WRITERS


async def test_services_never_share_an_address(site: Site) -> None:
    services = "/api/v1/namespaces/default/services"
    body = {"metadata": {"generateName": "s-"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}}
    answers = await together(*(site.post(services, body) for _ in range(WRITERS)))
    assert {one.status for one in answers} == {201}
    assert len({one.obj["spec"]["clusterIP"] for one in answers}) == WRITERS
    assert len({one.obj["spec"]["ports"][0]["nodePort"] for one in answers}) == WRITERS
