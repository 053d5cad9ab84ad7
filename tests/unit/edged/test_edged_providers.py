"""Edged goes on with whatever metamanager there is: after a crash of that module, with the one that took its place."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import anyio
import pytest

from edgesite.context import Context, Section
from edgesite.edge.edged.runtime import ContainerState
from edgesite.edge.metamanager.meta import Meta
from edgesite.net.real import RealClock
from edgesite.testing.edgedrig import NODE, edged_rig
from edgesite.testing.fakemeta import FakeCloud
from edgesite.testing.fakeruntime import FakeEngine, FakeRuntime

pytestmark = pytest.mark.anyio
IMAGE = "docker.io/library/busybox:1"


class CrashingMeta:
    """Stands for metamanager, and crashes when it is told to."""

    name: ClassVar[str] = "metamanager"
    roles: ClassVar[frozenset[str]] = frozenset({"edge"})
    needs: ClassVar[frozenset[str]] = frozenset()
    section: ClassVar[str] = ""
    clouds: ClassVar[list[FakeCloud]] = []
    crash: ClassVar[anyio.Event]

    def enabled(self, settings: Section) -> bool:
        return True

    async def run(self, ctx: Context) -> None:
        cloud = self.clouds[0]
        cloud.attach(ctx.bus)
        ctx.services.provide(Meta, cloud)  # type: ignore[type-abstract]
        ctx.ready()
        await self.crash.wait()
        del self.clouds[0]
        CrashingMeta.crash = anyio.Event()
        raise RuntimeError("as if it had met a fault of ours")


async def test_pods_are_looked_after_when_metamanager_was_started_anew(tmp_path: Path) -> None:
    first, second = FakeCloud(NODE), FakeCloud(NODE)
    pod = {"metadata": {"name": "web"}, "spec": {"containers": [{"name": "one", "image": IMAGE}]}}
    for cloud in (first, second):
        await cloud.apply("pod", pod)
    await second.apply("pod", {**pod, "metadata": {"name": "later"}})
    CrashingMeta.clouds, CrashingMeta.crash = [first, second], anyio.Event()
    engine = FakeEngine(RealClock(), images=[IMAGE])
    async with edged_rig(lambda ctx: FakeRuntime(engine), tmp_path, cloud=first, metamanager=CrashingMeta):
        await first.until(lambda: first.status("web").get("phase") == "Running")
        CrashingMeta.crash.set()
        await second.until(lambda: second.status("later").get("phase") == "Running")
        await second.until(lambda: second.status("web").get("phase") == "Running")
    running = [one for one in engine.containers.values() if one.state is ContainerState.RUNNING]
    assert len(running) == 2, "the first pod's container went on all the time"
