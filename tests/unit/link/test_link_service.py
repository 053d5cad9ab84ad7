"""`Meta` and the delivery of reports, on a real bus and store, with a cloud that answers as each test says."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from edgesite.edge.edgehub.link import Link
from edgesite.edge.metamanager import outbox as outbox_rows
from edgesite.edge.metamanager.database import EdgeDatabase
from edgesite.edge.metamanager.delivery import Delivery
from edgesite.edge.metamanager.outbox import Outbox
from edgesite.edge.metamanager.service import MetaService
from edgesite.edge.metamanager.store import Arrival, EdgeStore
from edgesite.kube import errors, times
from edgesite.kube.errors import ApiError
from edgesite.net.real import RealClock, RealDisk, RealThreads
from edgesite.runtime.bus import LocalBus
from edgesite.runtime.services import LocalServices
from edgesite.wire.message import Message, MessageMaker, Operation, error_content

pytestmark = pytest.mark.anyio
NOW = 1_700_000_000.0


class Clock(RealClock):
    """Wall-clock time as the test says; waits are short, so that a backoff is one turn of the loop."""

    now = NOW

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        await anyio.lowlevel.checkpoint()


class OwnCloud:
    connected = True
    own_peer = True


class Cloud:
    """Answers requests at module ``websocket`` as ``answer`` says; None leaves a request without an answer."""

    def __init__(self) -> None:
        self.requests: list[Message] = []
        self.acks: list[Message] = []
        self.answer: Callable[[Message], Any] = lambda request: "OK"


class World:
    def __init__(self, service: MetaService, store: EdgeStore, outbox: Outbox, cloud: Cloud, clock: Clock) -> None:
        self.meta = service
        self.store = store
        self.outbox = outbox
        self.cloud = cloud
        self.clock = clock

    def asked(self) -> list[str]:
        return [f"{one.operation} {one.resource}" for one in self.cloud.requests]


@asynccontextmanager
async def world_at(path: Path, *, own: bool = True) -> AsyncIterator[World]:
    threads, bus, services, clock, cloud = RealThreads(), LocalBus(), LocalServices(), Clock(), Cloud()
    worker = threads.worker("test")
    database = EdgeDatabase(RealDisk(), path / "edge.db")
    maker = MessageMaker(clock.time, random.Random(1).getrandbits)
    inbox = bus.join("websocket", "hub")
    if own:
        services.provide(Link, OwnCloud())  # type: ignore[type-abstract]

    async def answer() -> None:
        async for request in inbox:
            if request.operation == Operation.RESPONSE:
                cloud.acks.append(request)
                continue
            cloud.requests.append(request)
            content = cloud.answer(request)
            if content is not None:
                bus.respond(maker.reply(request, content, source="edgecontroller"))

    try:
        await worker.submit(database.open)
        store, outbox = EdgeStore(database, worker), Outbox()
        await store.load()
        outbox.load(await worker.submit(database.query, outbox_rows.LOAD))
        service = MetaService(store, outbox, bus, maker, clock)
        delivery = Delivery(outbox, store, service, bus, services, clock, random.Random(1), logging.getLogger("test"))
        async with anyio.create_task_group() as tasks:
            for work in (store.run, answer, delivery.run):
                tasks.start_soon(work)
            yield World(service, store, outbox, cloud, clock)
            tasks.cancel_scope.cancel()
    finally:
        inbox.close()
        with anyio.CancelScope(shield=True):
            await worker.submit(database.close)
            await threads.close()


async def settled(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - a turn of the loop at a time
            await anyio.sleep(0.001)


def secret(version: int, **data: str) -> dict[str, Any]:
    metadata = {"name": "s", "namespace": "default", "uid": "u", "resourceVersion": str(version)}
    return {"kind": "Secret", "apiVersion": "v1", "metadata": metadata, "data": data}


async def test_a_query_is_stored_and_acknowledged(tmp_path: Path) -> None:
    async with world_at(tmp_path) as world:
        world.meta.set_connected(True)
        world.cloud.answer = lambda request: secret(5, k="v")
        assert (await world.meta.query_remote("secret", "default", "s"))["data"] == {"k": "v"}
        assert await world.meta.get("secret", "default", "s") == secret(5, k="v")
        await settled(lambda: len(world.cloud.acks) == 1)
        assert world.cloud.acks[0].resource == "default/secret/s"


async def test_an_old_answer_does_not_replace_newer_state(tmp_path: Path) -> None:
    async with world_at(tmp_path) as world:
        world.meta.set_connected(True)
        await world.store.apply([Arrival("default/secret/s", secret(9, k="new"))])
        world.cloud.answer = lambda request: secret(5, k="old")
        await world.meta.query_remote("secret", "default", "s")
        stored = await world.meta.get("secret", "default", "s")
        assert stored is not None
        assert stored["data"] == {"k": "new"}


async def test_without_a_link_or_an_answer_the_stored_object_serves(tmp_path: Path) -> None:
    async with world_at(tmp_path) as world:
        with pytest.raises(ApiError) as offline:
            await world.meta.query_remote("secret", "default", "s")
        assert (offline.value.code, world.cloud.requests) == (503, [])
        await world.store.apply([Arrival("default/secret/s", secret(1))])
        assert await world.meta.query_remote("secret", "default", "s") == secret(1)
        world.meta.set_connected(True)
        world.cloud.answer = lambda request: None
        assert await world.meta.query_remote("secret", "default", "s", timeout_s=0.01) == secret(1)
        with pytest.raises(ApiError) as late:
            await world.meta.query_remote("configmap", "default", "c", timeout_s=0.01)
        assert late.value.code == 504
        world.cloud.answer = lambda request: error_content(errors.unavailable("busy").status())
        assert await world.meta.query_remote("secret", "default", "s") == secret(1)
        world.cloud.answer = lambda request: error_content(errors.not_found("secrets", "s").status())
        with pytest.raises(ApiError, match="not found"):
            await world.meta.query_remote("secret", "default", "s")


async def test_refusals_in_all_their_forms(tmp_path: Path) -> None:
    async with world_at(tmp_path) as world:
        world.meta.set_connected(True)
        conflict = error_content(errors.conflict("leases", "e", "newer").status())
        for content in ({"Object": None, "Err": conflict}, {"Object": {}, "Err": conflict}, conflict):
            world.cloud.answer = lambda request, content=content: content
            with pytest.raises(ApiError) as refused:
                await world.meta.update("lease", "kube-node-lease", "e", {})
            assert refused.value.reason == "Conflict"
        world.cloud.answer = lambda request: {"Object": {"kind": "Lease"}, "Err": None}
        assert await world.meta.insert("lease", "kube-node-lease", "e", {}) == {"kind": "Lease"}
        world.cloud.answer = lambda request: [1]
        with pytest.raises(ApiError):
            await world.meta.insert("lease", "kube-node-lease", "e", {})


async def test_tokens_are_kept_until_a_fifth_of_their_life_is_left(tmp_path: Path) -> None:
    def issue(request: Message) -> dict[str, Any]:
        expiry = times.format_time(world.clock.now + 3600)
        return {
            "spec": {"expirationSeconds": 3600},
            "status": {"token": str(world.clock.now), "expirationTimestamp": expiry},
        }

    request = {"spec": {"expirationSeconds": 3600, "boundObjectRef": {"uid": "u"}}}
    async with world_at(tmp_path) as world:
        world.cloud.answer = issue
        world.meta.set_connected(True)
        first = await world.meta.token("default", "sa", request)
        world.clock.now = NOW + 2879
        assert await world.meta.token("default", "sa", request) == first
        world.clock.now = NOW + 2881
        second = await world.meta.token("default", "sa", request)
        assert second != first
        world.meta.set_connected(False)
        world.clock.now += 3500
        assert await world.meta.token("default", "sa", request) == second
        world.clock.now += 200
        with pytest.raises(ApiError):
            await world.meta.token("default", "sa", request)


def status(phase: str) -> dict[str, Any]:
    return {"metadata": {"uid": "u"}, "status": {"phase": phase}}


async def test_reports_wait_for_a_link_and_only_the_last_state_is_told(tmp_path: Path) -> None:
    async with world_at(tmp_path) as world:
        for phase in ("Pending", "Running", "Failed"):
            await world.meta.report_status("pod", "default", "web-0", status(phase))
        await world.meta.confirm_deleted("default", "web-0", "u")
        assert world.cloud.requests == []
        world.meta.set_connected(True)
        await settled(lambda: not len(world.outbox))
        assert world.asked() == ["patch default/podpatch/web-0", "delete default/pod/web-0"]
        assert "Failed" in world.cloud.requests[0].content
        assert world.cloud.requests[1].content == {"gracePeriodSeconds": 0, "preconditions": {"uid": "u"}}


async def test_an_end_that_waits_to_be_told_is_known_after_a_restart(tmp_path: Path) -> None:
    pods = [
        {"metadata": {"name": name, "namespace": "default", "uid": uid}}
        for name, uid in (("web-0", "u"), ("web-1", "v"))
    ]
    async with world_at(tmp_path) as world:
        await world.store.apply(
            [Arrival(f"default/pod/{one['metadata']['name']}", {"kind": "Pod", **one}) for one in pods]
        )
        await world.meta.report_status("pod", "default", "web-0", status("Failed"))
        await world.meta.report_status("pod", "default", "web-1", {**status("Running"), "metadata": {"uid": "v"}})
    async with world_at(tmp_path) as world:
        found = {one["metadata"]["name"]: one.get("status") for one in await world.meta.list("pod")}
    assert found == {"web-0": {"phase": "Failed"}, "web-1": None}


async def test_what_may_pass_is_tried_again_and_what_cannot_is_dropped(tmp_path: Path) -> None:
    async with world_at(tmp_path) as world:
        answers = [
            error_content(errors.unavailable("busy").status()),
            error_content(errors.internal("x").status()),
            "OK",
        ]
        world.cloud.answer = lambda request: {"Object": {}, "Err": answers.pop(0)} if len(answers) > 1 else answers[0]
        world.meta.set_connected(True)
        await world.meta.report_status("pod", "default", "web-0", status("Running"))
        await settled(lambda: not len(world.outbox))
        assert len(world.cloud.requests) == 3
        world.cloud.answer = lambda request: {
            "Object": {},
            "Err": error_content(errors.not_found("pods", "web-0").status()),
        }
        await world.meta.report_status("pod", "default", "web-0", status("Running"))
        await settled(lambda: not len(world.outbox))
        assert len(world.cloud.requests) == 4
        world.cloud.answer = lambda request: {
            "Object": {},
            "Err": error_content(errors.conflict("pods", "p", "x").status()),
        }
        await world.meta.report_status("pod", "default", "web-0", status("Running"))
        await settled(lambda: not len(world.outbox))
        assert len(world.cloud.requests) == 7, "a conflict may pass, but not for ever"


async def test_reports_survive_a_restart(tmp_path: Path) -> None:
    async with world_at(tmp_path) as world:
        await world.meta.report_status("node", "", "edge-1", {"status": {}})
    async with world_at(tmp_path) as world:
        world.meta.set_connected(True)
        await settled(lambda: world.asked() == ["patch default/nodepatch/edge-1"])


async def test_a_kubeedge_cloud_does_not_answer_events(tmp_path: Path) -> None:
    event = {"metadata": {"name": "e", "namespace": "default"}, "count": 1}
    async with world_at(tmp_path, own=False) as world:
        world.cloud.answer = lambda request: None
        world.meta.set_connected(True)
        await world.meta.report_event(event)
        await world.meta.report_event({**event, "count": 2})
        await settled(lambda: not len(world.outbox))
        assert world.asked()[-1] == "update default/event/e"
