"""MetaManager and DeviceTwin on the bus of an edge role, with the test in place of EventBus and of EdgeHub.

async with twin_rig(tmp_path) as rig:
    await rig.cloud("insert", "default/device/pump-1", device)
    await rig.say("$hw/events/device/pump-1/twin/update", {"event_id": "e", "twin": {…}})
    payload = await rig.heard("$hw/events/device/pump-1/twin/update/delta")
"""

from __future__ import annotations

import base64
import random
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import anyio

from edgesite.context import Context, Disk, Module, Section
from edgesite.edge.devicetwin import Devices
from edgesite.edge.devicetwin.module import DeviceTwin
from edgesite.edge.edgehub.link import CONNECTED, DISCONNECTED, Link
from edgesite.edge.metamanager.module import MetaManager
from edgesite.edge.metamanager.rows import Rows
from edgesite.kube import json
from edgesite.net.real import RealClock, RealDisk
from edgesite.runtime.role import RoleHost
from edgesite.testing.rolerig import GivenHooks, real_world, running
from edgesite.wire.message import Message, MessageMaker

__all__ = ["SteppedClock", "TwinRig", "twin_rig"]

NODE = "edge-1"


class SteppedClock(RealClock):
    """Real time, but its wall clock may be put forward and back."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def time(self) -> float:
        return super().time() + self.ahead_s


class _Link:
    """Implements `Link`."""

    def __init__(self) -> None:
        self.connected = False
        self.own_peer = True


class TwinRig:
    """The test's side."""

    def __init__(self) -> None:
        self.host: RoleHost
        self.link = _Link()
        self.clock = SteppedClock()
        self.published: list[tuple[str, bytes]] = []
        self.told: list[Message] = []  #: what the cloud got
        self.acknowledged: list[Message] = []
        self.answer: Callable[[Message], Any] = lambda message: (
            "OK"
        )  #: content of the cloud's answer; None: there is none
        self._came = anyio.Event()
        self._maker = MessageMaker(self.clock.time, random.getrandbits)
        self._read: dict[str, int] = {}
        self._unheard: dict[str, deque[bytes]] = {}
        self.forgets = False  #: whether publications are counted alone, for benchmarks
        self.count = 0

    @property
    def devices(self) -> Devices:
        return self.host.services.get(Devices)  # type: ignore[type-abstract]

    @property
    def rows(self) -> Rows:
        return self.host.services.get(Rows)  # type: ignore[type-abstract]

    async def table(self, sql: str) -> list[tuple[Any, ...]]:
        return list(await self.rows.query(sql))

    # -- clients -------------------------------------------------------------------------------------------------

    async def say(self, topic: str, payload: Any) -> None:
        """Publish as a client does."""
        data = payload if isinstance(payload, bytes) else json.dumps(payload)
        resource = base64.urlsafe_b64encode(topic.encode()).decode()
        await self.host.bus.send_group("twin", self._maker.make("bus", "user", "response", resource, data))

    async def heard(self, topic: str, timeout_s: float = 5.0) -> Any:
        """The next publication on a topic that was not read yet, as JSON. Raises TimeoutError."""
        with anyio.fail_after(timeout_s):
            while not (waiting := self._unheard.get(topic)):
                await self.wait()
            return json.loads(waiting.popleft())

    def clear(self) -> None:
        """Forget all that was heard."""
        for heard in (self.published, self.told, self.acknowledged, self._unheard, self._read):
            heard.clear()

    def topics(self) -> list[str]:
        return [topic for topic, _ in self.published]

    # -- the cloud -----------------------------------------------------------------------------------------------

    async def cloud(
        self,
        operation: str,
        resource: str,
        content: Any,
        *,
        group: str = "resource",
        source: str = "devicecontroller",
        **more: Any,
    ) -> Message:
        """Send as the cloud does."""
        message = self._maker.make(source, group, operation, resource, content, **more)
        await self.host.bus.send_group("meta" if group == "resource" else group, message)
        return message

    async def connect(self, *, own: bool = True) -> None:
        self.link.connected, self.link.own_peer = True, own
        await self._announce(CONNECTED)

    async def disconnect(self) -> None:
        """Cut the link; as EdgeHub does, what was asked is answered that there is none."""
        self.link.connected = False
        for message in self.told:
            self.host.bus.respond(self._maker.error(message, "the link to the cloud was lost"))
        await self._announce(DISCONNECTED)

    async def _announce(self, content: str) -> None:
        for group in ("meta", "twin"):
            message = self._maker.make("edgehub", "resource", "connect", "node/connection", content)
            await self.host.bus.send_group(group, message)

    async def cloud_heard(self, about: str, timeout_s: float = 5.0) -> Message:
        """The next message to the cloud whose resource contains this. Raises TimeoutError."""
        with anyio.fail_after(timeout_s):
            while True:
                at = self._read.get(f"cloud:{about}", 0)
                found = [one for one in self.told if about in one.resource]
                if len(found) > at:
                    self._read[f"cloud:{about}"] = at + 1
                    return found[at]
                await self.wait()

    async def settled(self, timeout_s: float = 5.0) -> None:
        """Wait until what was said before has been worked on: a question comes back last."""
        event = self._maker.new_id()
        await self.say(f"$hw/events/node/{NODE}/membership/get", {"event_id": event})
        topic = f"$hw/events/node/{NODE}/membership/get/result"
        while (await self.heard(topic, timeout_s))["event_id"] != event:
            pass

    async def stored(self, message: Message) -> None:
        """Wait until metamanager has acknowledged a message."""
        with anyio.fail_after(5):
            while not any(one.parent_msg_id == message.msg_id for one in self.acknowledged):
                await self.wait()

    async def wait(self) -> None:
        self._came = anyio.Event()
        await self._came.wait()

    def _wake(self) -> None:
        self._came.set()

    async def serve(self, ctx: Context) -> None:
        """Play EventBus and EdgeHub."""
        ctx.services.provide(Link, self.link)  # type: ignore[type-abstract]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._eventbus, ctx)
            tasks.start_soon(self._hub, ctx)
            ctx.ready()

    async def _eventbus(self, ctx: Context) -> None:
        async for message in ctx.bus.join("eventbus", "bus"):
            several = message.operation == "publishall"
            self._publish(message.content if several else [(message.resource, message.data())])
            self._wake()

    def _publish(self, publications: Iterable[tuple[str, bytes]]) -> None:
        for topic, payload in publications:
            self.count += 1
            if self.forgets and "/membership/" not in topic:
                continue
            self.published.append((topic, payload))
            self._unheard.setdefault(topic, deque()).append(payload)

    async def _hub(self, ctx: Context) -> None:
        async for message in ctx.bus.join("websocket", "hub"):
            if message.parent_msg_id:
                self.acknowledged.append(message)
            else:
                self.told.append(message)
                content = self.answer(message)
                if content is not None and message.operation == "update":
                    answer = self._maker.make(
                        "devicecontroller", "resource", "response", message.resource, content, parent=message.msg_id
                    )
                    if not ctx.bus.respond(answer):
                        await ctx.bus.send_group("twin", answer)
            self._wake()


def _bench(rig: TwinRig) -> type[Module]:
    class Bench:
        name: ClassVar[str] = "edgehub"
        roles: ClassVar[frozenset[str]] = frozenset({"edge"})
        needs: ClassVar[frozenset[str]] = frozenset()
        section: ClassVar[str] = ""

        def enabled(self, settings: Section) -> bool:
            return True

        async def run(self, ctx: Context) -> None:
            await rig.serve(ctx)

    return Bench


@asynccontextmanager
async def twin_rig(
    data_dir: Path,
    settings: Mapping[str, Any] | None = None,
    *,
    more: Iterable[type[Module]] = (),
    disk: Disk | None = None,
) -> AsyncGenerator[TwinRig]:
    """Run until the block ends. ``settings`` are those of ``deviceTwin``."""
    rig = TwinRig()
    section = Section({"modules": {"metaManager": {}, "deviceTwin": dict(settings or {})}})
    modules = [_bench(rig), MetaManager, DeviceTwin, *more]
    async with real_world(GivenHooks(), clock=rig.clock, disk=disk or RealDisk()) as world:
        rig.host = RoleHost("edge", modules, section, world, data_dir=data_dir, node_name=NODE)
        async with running(rig.host):
            yield rig
