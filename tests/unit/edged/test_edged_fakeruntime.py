"""The fake runtime keeps the contract, and does what the simulator needs beyond it."""

from __future__ import annotations

import math
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from time import monotonic, time

import anyio
import pytest

from edgesite.edge.edged.runtime import (
    ContainerConfig,
    ContainerEventType,
    ExecResult,
    Runtime,
    RuntimeUnavailable,
    SandboxState,
)
from edgesite.testing.fakeruntime import FakeEngine, FakeRuntime, Script
from edgesite.testing.runtime import (
    Commands,
    OpenRuntime,
    RuntimeContract,
    container_config,
    running,
    sandbox_config,
    start,
)

pytestmark = pytest.mark.anyio
IMAGE = "docker.io/library/busybox:test"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class WallClock:
    def monotonic(self) -> float:
        return monotonic()

    def time(self) -> float:
        return time()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


def shell(config: ContainerConfig) -> Script:
    """What the contract's commands do."""
    commands = Commands()

    def inside(command: object) -> tuple[float, ExecResult]:
        slow = command == commands.exec_slow
        return (100.0 if slow else 0.0), ExecResult(b"out\n", b"err\n", 7)

    return {
        commands.forever: Script(exec=inside),
        commands.stubborn: Script(stop_s=math.inf, stdout=("ready",)),
        commands.willing: Script(stdout=("ready",)),
        commands.exit_0: Script(run_s=0.0),
        commands.exit_3: Script(run_s=0.0, exit_code=3),
        commands.prints: Script(run_s=0.0, stdout=("to-out",), stderr=("to-err",)),
        commands.missing: Script(start_error="exec: no such file"),
    }[config.command]


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(WallClock(), shell, images=[IMAGE])


class TestFakeRuntime(RuntimeContract):
    @pytest.fixture
    def open_runtime(self, engine: FakeEngine) -> OpenRuntime:
        def opened() -> AbstractAsyncContextManager[Runtime]:
            return running(FakeRuntime(engine))

        return opened


async def test_reboot_ends_what_ran_and_keeps_the_lists(engine: FakeEngine, tmp_path: Path) -> None:
    runtime = FakeRuntime(engine)
    config = sandbox_config(tmp_path)
    sandbox_id = await runtime.run_sandbox(config)
    container_id = await start(runtime, (sandbox_id, config), container_config(IMAGE, Commands().forever))
    engine.reboot()
    assert (await runtime.sandbox_status(sandbox_id)).state is SandboxState.NOT_READY
    assert (await runtime.container_status(container_id)).exit_code == 255


async def test_events_tell_of_exits_that_come_by_themselves(engine: FakeEngine, tmp_path: Path) -> None:
    runtime = FakeRuntime(engine)
    config = sandbox_config(tmp_path)
    sandbox_id = await runtime.run_sandbox(config)
    seen: list[ContainerEventType] = []

    async def listen() -> None:
        async for event in runtime.events():
            seen.append(event.type)
            if event.type is ContainerEventType.STOPPED:
                return

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            await anyio.wait_all_tasks_blocked()
            await start(runtime, (sandbox_id, config), container_config(IMAGE, Commands().exit_0))
    assert seen == [ContainerEventType.CREATED, ContainerEventType.STARTED, ContainerEventType.STOPPED]


async def test_an_unreachable_runtime_refuses_every_call(engine: FakeEngine) -> None:
    engine.reachable = False
    with pytest.raises(RuntimeUnavailable):
        await FakeRuntime(engine).list_containers()
    engine.reachable = True
    assert list(await FakeRuntime(engine).list_containers()) == []
