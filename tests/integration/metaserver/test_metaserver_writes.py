"""A write has one outcome, whatever happens to the link while it is under way: its caller is told, and it is carried out at most once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from metaserver_site import OBJECTS, MetaSite, connected, meta_site

# isort: split
from link_site import Edge

from edgesite.edge.edgehub.link import Link
from edgesite.edge.metaserver import cloudlink
from edgesite.hookspecs import AdmissionRequest
from edgesite.kube.resources import CONFIG_MAPS, Resource
from edgesite.net.client import Answer

pytestmark = pytest.mark.anyio
NEW = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a", "namespace": "default"}}


class Gate:
    """An admission plugin that lets creations through when it is told to."""

    name = "gate"
    mutating = False

    def __init__(self) -> None:
        self.came = anyio.Event()
        self.open = anyio.Event()
        self.count = 0

    def wants(self, resource: Resource, operation: str, subresource: str) -> bool:
        return resource.plural == "configmaps" and operation == "CREATE"

    async def admit(self, request: AdmissionRequest) -> None:
        self.count += 1
        self.came.set()
        await self.open.wait()


def guarded(site: MetaSite) -> Gate:
    gate = Gate()
    site.site.world.hooks.admission = lambda settings: [gate]  # type: ignore[method-assign,assignment]
    return gate


def cut(edge: Edge) -> None:
    """Break the connection; the edge makes a new one at once."""
    hub: Any = edge.host.services.find(Link)  # type: ignore[type-abstract]
    hub._connection.drop("cut by the test")


async def names(site: MetaSite) -> list[str]:
    return [one["metadata"]["name"] for one in (await site.client.list(CONFIG_MAPS, "default"))["items"]]


async def test_a_write_goes_on_over_a_cut_and_is_carried_out_once(tmp_path: Path) -> None:
    async with meta_site(tmp_path) as site:
        gate = guarded(site)
        async with site.cloud(), site.edge() as edge:
            await connected(edge)
            program, answers = site.program, list[Answer]()

            async def create() -> None:
                answers.append(await program.ask("POST", OBJECTS, NEW))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(create)
                await gate.came.wait()
                for _ in range(3):
                    cut(edge)
                    await connected(edge)
                gate.open.set()
            assert answers[0].status == 201, answers[0].body
            assert (gate.count, await names(site)) == (1, ["a"])


async def test_a_write_whose_caller_was_told_that_it_failed_is_not_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloudlink, "ANSWER_S", 1.0)
    monkeypatch.setattr(cloudlink, "MARGIN_S", 0.3)
    async with meta_site(tmp_path) as site:
        gate = guarded(site)
        async with site.cloud(), site.edge() as edge:
            await connected(edge)
            refused = await site.program.ask("POST", OBJECTS, NEW)
            assert refused.status == 504, refused.body
            gate.open.set()
            await anyio.wait_all_tasks_blocked()
            assert await names(site) == []


async def test_a_cloud_that_has_gone_meanwhile_leaves_no_doubt_open_for_long(tmp_path: Path) -> None:
    """What it has not carried out is not carried out by the next one, though the edge asks it."""
    async with meta_site(tmp_path) as site:
        gate = guarded(site)
        async with site.edge() as edge:
            program, answers = site.program, list[Answer]()

            async def create() -> None:
                answers.append(await program.ask("POST", OBJECTS, NEW))

            async with anyio.create_task_group() as tasks:
                async with site.cloud():
                    await connected(edge)
                    tasks.start_soon(create)
                    await gate.came.wait()
                gate.open.set()
                async with site.cloud():
                    await connected(edge)
                    with anyio.fail_after(60):
                        while not answers:  # noqa: ASYNC110 - the edge asks by itself
                            await anyio.sleep(0.05)
                    assert answers[0].status in (503, 504), answers[0].body
                    assert await names(site) == []
