"""An edge that is told to stop: what is under way comes to its end, and nobody new comes in."""

from __future__ import annotations

from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import anyio
import pytest
from metaserver_site import OBJECTS, Program, connected, meta_site

# isort: split

from edgesite.edge.metaserver import module
from edgesite.hookspecs import AdmissionRequest
from edgesite.kube import json
from edgesite.kube.resources import CONFIG_MAPS, Resource
from edgesite.net.client import Answer
from edgesite.testing.waiting import DEADLINE_S

pytestmark = pytest.mark.anyio


class Gate:
    """An admission plugin that lets creations through when it is told to."""

    name = "gate"
    mutating = False

    def __init__(self) -> None:
        self.came, self.open = anyio.Event(), anyio.Event()

    def wants(self, resource: Resource, operation: str, subresource: str) -> bool:
        return resource.plural == "configmaps" and operation == "CREATE"

    def admit(self, request: AdmissionRequest) -> Awaitable[None]:
        self.came.set()
        return self.open.wait()


async def refused(program: Program) -> None:
    """Wait until nobody new is let in."""
    with anyio.fail_after(DEADLINE_S):
        while True:
            try:
                await program.ask("GET", "/version")
                await program.http.close()
            except OSError:
                return
            await anyio.sleep(0.01)


async def test_what_is_under_way_ends_in_order_and_nobody_new_comes_in(tmp_path: Path) -> None:
    async with meta_site(tmp_path) as site:
        gate = Gate()
        site.site.world.hooks.admission = lambda settings: [gate]  # type: ignore[method-assign,assignment]
        written: list[Answer] = []
        over = anyio.Event()

        async def create() -> None:
            new = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "late", "namespace": "default"}}
            written.append(await site.program.ask("POST", OBJECTS, new))

        async def watch(*, task_status: Any) -> None:
            async with site.program.http.stream("GET", f"{OBJECTS}?watch=true") as events:
                task_status.started()
                await events.read_all()  # raises unless the last chunk comes
                over.set()

        async def let_through_then() -> None:
            with anyio.fail_after(DEADLINE_S):
                await over.wait()
            await refused(site.program)
            gate.open.set()

        async with site.cloud() as client, anyio.create_task_group() as tasks:
            async with site.edge() as edge:
                await connected(edge)
                at_rest = site.program
                await at_rest.get("/version")
                await tasks.start(watch)
                tasks.start_soon(create)
                await gate.came.wait()
                tasks.start_soon(let_through_then)
            assert [one.status for one in written] == [201]
            assert written[0].headers.get("connection") == "close"
            assert (await client.get(CONFIG_MAPS, "late", "default"))["metadata"]["name"] == "late"
            with pytest.raises(OSError, match="refused"):
                await at_rest.ask("POST", OBJECTS, {})


async def test_what_does_not_come_to_its_end_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what was read before is whole after the next start, though nobody said goodbye to it."""
    monkeypatch.setattr(module, "GRACE_S", 0.2)
    async with meta_site(tmp_path) as site:
        gate = Gate()
        async with site.cloud() as client:
            for name in ("a", "b"):
                await client.create(
                    CONFIG_MAPS,
                    {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name, "namespace": "default"}},
                )
        site.site.world.hooks.admission = lambda settings: [gate]  # type: ignore[method-assign,assignment]
        failed: list[OSError] = []

        async def create() -> None:
            try:
                await site.program.ask("POST", OBJECTS, {"metadata": {"name": "stuck"}})
            except OSError as exc:
                failed.append(exc)

        async with site.cloud(), anyio.create_task_group() as tasks:
            async with site.edge() as edge:
                await connected(edge)
                assert len((await site.program.get(OBJECTS))["items"]) == 2
                tasks.start_soon(create)
                await gate.came.wait()
            assert len(failed) == 1
        async with site.edge():
            answer = await site.program.ask("GET", OBJECTS)
            assert answer.headers.get("x-edgesite-served-from") == "node-cache"
            assert [one["metadata"]["name"] for one in json.loads(answer.body)["items"]] == ["a", "b"]
