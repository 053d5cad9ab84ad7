"""CRI on a real containerd keeps the contract of runtimes."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import anyio
import pytest

from edgesite.edge.edged.cri.runtime import CriRuntime
from edgesite.edge.edged.runtime import ContainerEventType, InvalidReference, Runtime, RuntimeUnavailable
from edgesite.testing.containerd import BUSYBOX, Containerd
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


def cri(endpoint: str) -> AbstractAsyncContextManager[Runtime]:
    return running(CriRuntime(endpoint, "", request_timeout_s=30.0))


class TestCri(RuntimeContract):
    @pytest.fixture
    def open_runtime(self, daemon: Containerd) -> OpenRuntime:
        return lambda: cri(daemon.endpoint)

    @pytest.fixture
    def image(self) -> str:
        return BUSYBOX


async def test_a_pod_has_an_address(daemon: Containerd, tmp_path: Path) -> None:
    async with cri(daemon.endpoint) as runtime:
        sandbox_id = await runtime.run_sandbox(sandbox_config(tmp_path))
        (ip,) = (await runtime.sandbox_status(sandbox_id)).ips
        assert ip.startswith(str(daemon.subnet.network_address).rsplit(".", 1)[0])
        await runtime.remove_sandbox(sandbox_id)


async def test_exits_are_told_without_being_asked(daemon: Containerd, tmp_path: Path) -> None:
    async with cri(daemon.endpoint) as runtime:
        config = sandbox_config(tmp_path)
        sandbox_id = await runtime.run_sandbox(config)
        heard = anyio.Event()
        started: list[str] = []

        async def listen() -> None:
            async for event in runtime.events():
                # A runtime may first tell of what ended before anybody listened.
                if event.type is ContainerEventType.STOPPED and event.container_id in started:
                    heard.set()
                    return

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(listen)
                # Only what is heard proves that the subscription stands, so exits go on until one is.
                while not heard.is_set():
                    container = container_config(BUSYBOX, Commands().exit_0, len(started))
                    started.append(await start(runtime, (sandbox_id, config), container))
                    with anyio.move_on_after(0.5):
                        await heard.wait()
        await runtime.remove_sandbox(sandbox_id)


async def test_a_missing_socket_is_named(tmp_path: Path) -> None:
    async with cri(f"unix://{tmp_path}/none.sock") as runtime:
        with pytest.raises(RuntimeUnavailable, match=r"none\.sock"):
            await runtime.version()


async def test_an_impossible_image_name_is_told_apart(daemon: Containerd) -> None:
    async with cri(daemon.endpoint) as runtime:
        with pytest.raises(InvalidReference):
            await runtime.pull_image("UPPER/Case:%%")


async def test_calls_work_again_after_containerd_comes_back(daemon: Containerd) -> None:
    async with cri(daemon.endpoint) as runtime:
        assert (await runtime.version()).name == "containerd"
        daemon.kill()
        with pytest.raises(RuntimeUnavailable):
            await runtime.version()
        daemon.start()
        with anyio.fail_after(60):
            while True:
                try:
                    assert (await runtime.version()).name == "containerd"
                    break
                except RuntimeUnavailable:
                    await anyio.sleep(0.05)
