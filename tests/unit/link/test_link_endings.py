"""What MetaManager leaves behind when it is stopped, and when whoever waits for it gives up."""

from __future__ import annotations

import random
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import anyio
import apsw
import pytest

from edgesite.context import Context, Section
from edgesite.edge.edgehub.link import CONNECTED, Link
from edgesite.edge.metamanager.database import EdgeDatabase, Statement
from edgesite.edge.metamanager.meta import Meta
from edgesite.edge.metamanager.module import MetaManager
from edgesite.edge.metamanager.store import Arrival, EdgeStore, StoreError
from edgesite.net.real import RealClock, RealDisk, RealNet, RealThreads
from edgesite.runtime.role import RoleHost, World
from edgesite.wire.message import Message, Operation

pytestmark = pytest.mark.anyio


class SilentHub:
    """A link to a cloud that never answers."""

    name: ClassVar[str] = "edgehub"
    roles: ClassVar[frozenset[str]] = frozenset({"edge"})
    needs: ClassVar[frozenset[str]] = frozenset({"metamanager"})
    section: ClassVar[str] = ""
    connected = True
    own_peer = True

    def __init__(self) -> None:
        self.heard: list[Message] = []
        self._more = anyio.Event()

    def enabled(self, settings: Section) -> bool:
        return True

    async def run(self, ctx: Context) -> None:
        inbox = ctx.bus.join("websocket", "hub")
        ctx.services.provide(Link, self)  # type: ignore[type-abstract]
        connect = Message("1", 0, "edgehub", "resource", Operation.CONNECT, "node/connection", CONNECTED)
        await ctx.bus.send_group("meta", connect)
        ctx.ready()
        async for message in inbox:
            self.heard.append(message)
            self._more.set()

    async def answer_to(self, msg_id: str) -> str:
        """The operation of what metamanager says to a message."""
        with anyio.fail_after(5):
            while not (found := [one.operation for one in self.heard if one.parent_msg_id == msg_id]):
                await self._more.wait()
                self._more = anyio.Event()
        return found[0]


@asynccontextmanager
async def edge_role(data_dir: Path) -> AsyncIterator[RoleHost]:
    threads = RealThreads()
    world = World(
        clock=RealClock(),
        random=random.Random(1),
        net=RealNet(),
        threads=threads,
        disk=RealDisk(),
        hooks=None,  # type: ignore[arg-type]
    )
    host = RoleHost(
        "edge",
        [MetaManager, SilentHub],
        Section({"modules": {"metaManager": {}}}),
        world,
        data_dir=data_dir,
        node_name="edge-1",
    )
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(host.run)
            with anyio.fail_after(10):
                await host.ready.wait()
            yield host
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await threads.close()


def saved(data_dir: Path) -> list[Any]:
    database = apsw.Connection(str(data_dir / "edgecore.db"))
    try:
        return [key for (key,) in database.execute("SELECT key FROM edgesite_outbox ORDER BY seq")]
    finally:
        database.close()


async def test_reports_that_were_not_answered_are_on_disk_after_a_stop(tmp_path: Path) -> None:
    async with edge_role(tmp_path) as host:
        meta = host.services.get(Meta)  # type: ignore[type-abstract]
        with anyio.fail_after(5):
            await meta.wait_connected()
        for name in ("web-0", "web-1"):
            await meta.report_status(
                "pod", "default", name, {"metadata": {"uid": name}, "status": {"phase": "Running"}}
            )
        stopping = anyio.current_time()
    assert anyio.current_time() - stopping < 3.0, "a stop need not wait for anything"
    assert saved(tmp_path) == ["default/podpatch/web-0/web-0", "default/podpatch/web-1/web-1"]


class HeldDatabase(EdgeDatabase):
    """Writes when it is let."""

    def __init__(self, path: Path) -> None:
        super().__init__(RealDisk(), path)
        self.let = threading.Event()

    def execute(self, statements: Sequence[Statement]) -> None:
        self.let.wait(5)
        super().execute(statements)


async def test_memory_and_disk_agree_though_the_asker_gave_up(tmp_path: Path) -> None:
    threads = RealThreads()
    database = HeldDatabase(tmp_path / "edge.db")
    worker = threads.worker("test")
    await worker.submit(database.open)
    store = EdgeStore(database, worker)
    pod = {"metadata": {"name": "web", "namespace": "default", "uid": "u", "resourceVersion": "7"}}

    async def ask(scope: anyio.CancelScope) -> None:
        with scope:
            await store.apply([Arrival("default/pod/web", pod)])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store.run)
        asked = anyio.CancelScope()
        tasks.start_soon(ask, asked)
        await anyio.wait_all_tasks_blocked()
        asked.cancel()
        await anyio.wait_all_tasks_blocked()
        database.let.set()
        with anyio.fail_after(5):
            while await store.get("default/pod/web") is None:
                await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    with pytest.raises(StoreError):
        await store.write([])
    await worker.submit(database.close)
    await threads.close()


async def test_an_object_whose_name_is_taken_is_not_acknowledged_unread(tmp_path: Path) -> None:
    """A cloud that began anew counts versions from 1: its pods must not be lost behind those of the cloud before."""

    def told(operation: str, msg_id: str, uid: str, version: int) -> Message:
        metadata = {"name": "web", "namespace": "default", "uid": uid, "resourceVersion": str(version)}
        return Message(msg_id, 0, "edgecontroller", "resource", operation, "default/pod/web", {"metadata": metadata})

    async with edge_role(tmp_path) as host:
        hub: SilentHub = host.services.get(Link)  # type: ignore[type-abstract, assignment]
        for message, answer in (
            (told("insert", "a", "old", 900), "response"),
            (told("insert", "b", "new", 7), "error"),
            (told("delete", "c", "old", 901), "response"),
            (told("insert", "b", "new", 7), "response"),
            (told("update", "d", "old", 950), "error"),  # refused for good: if the cloud was restored, it must know
        ):
            hub.heard.clear()
            await host.bus.send_group("meta", message)
            assert await hub.answer_to(message.msg_id) == answer, message.msg_id
        held = await host.services.get(Meta).get("pod", "default", "web")  # type: ignore[type-abstract]
        assert held is not None
        assert held["metadata"]["uid"] == "new"
