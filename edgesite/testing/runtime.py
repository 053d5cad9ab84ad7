"""The contract of `edgesite.edge.edged.runtime.Runtime`: what every container runtime must do, ours or a plugin's.

Subclass `RuntimeContract` in a test module marked ``anyio`` and provide the fixture ``open_runtime``: called, it gives an
async context manager of a running Runtime. Opening it again, in the same test, must show the containers of the first.
Override `image` and `commands` where the runtime needs others; needs a ``/bin/sh`` in the image by default.

Errors  AssertionError from tests; TimeoutError from `edgesite.testing.waiting.until`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import anyio
import pytest

from edgesite.edge.edged.runtime import (
    ANNOTATION_HASH,
    ANNOTATION_RESTARTS,
    LABEL_CONTAINER,
    LABEL_POD_NAME,
    LABEL_POD_NAMESPACE,
    LABEL_POD_UID,
    ContainerConfig,
    ContainerState,
    ContainerStatus,
    DeadlineReached,
    NotInRuntime,
    Runtime,
    RuntimeFault,
    SandboxConfig,
    SandboxState,
)
from edgesite.testing.waiting import DEADLINE_S, until

__all__ = ["Commands", "OpenRuntime", "RuntimeContract", "running", "until"]

OpenRuntime = Callable[[], AbstractAsyncContextManager[Runtime]]


@dataclass(frozen=True, slots=True)
class Commands:
    """Programs that the contract runs; a fake runtime recognises them, a real one has a shell."""

    forever: tuple[str, ...] = ("/bin/sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait")
    stubborn: tuple[str, ...] = ("/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done")
    #: ignores SIGTERM from when it has printed a line
    willing: tuple[str, ...] = ("/bin/sh", "-c", "trap 'exit 0' TERM; echo ready; sleep 1000 & wait")
    #: ends at SIGTERM from when it has printed a line
    exit_0: tuple[str, ...] = ("/bin/sh", "-c", "exit 0")
    exit_3: tuple[str, ...] = ("/bin/sh", "-c", "exit 3")
    prints: tuple[str, ...] = ("/bin/sh", "-c", "echo to-out; echo to-err >&2")
    missing: tuple[str, ...] = ("/no/such/program",)
    exec_echo: tuple[str, ...] = ("/bin/sh", "-c", "echo out; echo err >&2; exit 7")  #: run inside a container
    exec_slow: tuple[str, ...] = ("/bin/sh", "-c", "sleep 100")


@asynccontextmanager
async def running(runtime: Runtime) -> AsyncGenerator[Runtime]:
    """Keep a runtime's background work going for the length of the block."""
    started = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runtime.run, started.set)
        with anyio.fail_after(DEADLINE_S):
            await started.wait()
        try:
            yield runtime
        finally:
            tasks.cancel_scope.cancel()


class RuntimeContract:
    @pytest.fixture
    def open_runtime(self) -> OpenRuntime:
        raise NotImplementedError("the subclass provides this fixture")

    @pytest.fixture
    async def runtime(self, open_runtime: OpenRuntime) -> AsyncGenerator[Runtime]:
        async with open_runtime() as opened:
            yield opened

    @pytest.fixture
    def image(self) -> str:
        """A reference to an image that is there."""
        return "docker.io/library/busybox:test"

    @pytest.fixture
    def commands(self) -> Commands:
        return Commands()

    @pytest.fixture
    async def sandbox(self, runtime: Runtime, tmp_path: Path) -> AsyncGenerator[tuple[str, SandboxConfig]]:
        """A sandbox of its own, removed in the end."""
        config = sandbox_config(tmp_path)
        sandbox_id = await runtime.run_sandbox(config)
        yield sandbox_id, config
        await runtime.stop_sandbox(sandbox_id)
        await runtime.remove_sandbox(sandbox_id)

    # Sandboxes

    async def test_a_new_sandbox_is_ready_and_listed_by_its_labels(
        self, runtime: Runtime, sandbox: tuple[str, SandboxConfig]
    ) -> None:
        sandbox_id, config = sandbox
        status = await runtime.sandbox_status(sandbox_id)
        assert status.state is SandboxState.READY
        assert (status.name, status.namespace, status.uid) == (config.name, config.namespace, config.uid)
        listed = await runtime.list_sandboxes({LABEL_POD_UID: config.uid})
        assert [one.id for one in listed] == [sandbox_id]
        assert listed[0].labels[LABEL_POD_NAME] == config.name
        assert await runtime.list_sandboxes({LABEL_POD_UID: "another"}) == []

    async def test_a_stopped_sandbox_stays_listed_until_removed(self, runtime: Runtime, tmp_path: Path) -> None:
        config = sandbox_config(tmp_path)
        sandbox_id = await runtime.run_sandbox(config)
        await runtime.stop_sandbox(sandbox_id)
        await runtime.stop_sandbox(sandbox_id)
        assert (await runtime.sandbox_status(sandbox_id)).state is SandboxState.NOT_READY
        await runtime.remove_sandbox(sandbox_id)
        await runtime.remove_sandbox(sandbox_id)
        assert await runtime.list_sandboxes({LABEL_POD_UID: config.uid}) == []
        with pytest.raises(NotInRuntime):
            await runtime.sandbox_status(sandbox_id)

    async def test_stopping_a_sandbox_ends_its_containers(
        self, runtime: Runtime, sandbox: tuple[str, SandboxConfig], image: str, commands: Commands
    ) -> None:
        container_id = await start(runtime, sandbox, container_config(image, commands.stubborn))
        await runtime.stop_sandbox(sandbox[0])
        assert (await runtime.container_status(container_id)).state is ContainerState.EXITED

    # Containers

    async def test_a_container_is_created_then_runs(
        self, runtime: Runtime, sandbox: tuple[str, SandboxConfig], image: str, commands: Commands
    ) -> None:
        config = container_config(image, commands.forever, attempt=2)
        container_id = await runtime.create_container(sandbox[0], config, sandbox[1])
        status = await runtime.container_status(container_id)
        assert (status.state, status.started_ns, status.attempt) == (ContainerState.CREATED, 0, 2)
        await runtime.start_container(container_id)
        status = await runtime.container_status(container_id)
        assert status.state is ContainerState.RUNNING
        assert status.started_ns >= status.created_ns > 0
        assert status.finished_ns == 0

    async def test_labels_and_annotations_come_back_as_given(
        self, runtime: Runtime, sandbox: tuple[str, SandboxConfig], image: str, commands: Commands
    ) -> None:
        config = container_config(image, commands.forever)
        container_id = await start(runtime, sandbox, config)
        (row,) = await runtime.list_containers(labels={LABEL_POD_UID: sandbox[1].uid})
        assert (row.id, row.sandbox_id, row.name, row.attempt) == (container_id, sandbox[0], config.name, 0)
        assert dict(row.labels) == dict(config.labels)
        assert dict(row.annotations) == dict(config.annotations)
        assert row.state is ContainerState.RUNNING
        assert await runtime.list_containers(sandbox_id="another") == []

    @pytest.mark.parametrize(("program", "code"), [("exit_0", 0), ("exit_3", 3)])
    async def test_an_exit_keeps_its_code_and_time(
        self,
        runtime: Runtime,
        sandbox: tuple[str, SandboxConfig],
        image: str,
        commands: Commands,
        program: str,
        code: int,
    ) -> None:
        container_id = await start(runtime, sandbox, container_config(image, getattr(commands, program)))
        status = await ended(runtime, container_id)
        assert status.exit_code == code
        assert status.started_ns > 0
        # Not compared with the start: a runtime may note a very short run's end before its start call returns.
        assert status.finished_ns >= status.created_ns

    async def test_a_program_that_is_not_there_fails_to_start(
        self, runtime: Runtime, sandbox: tuple[str, SandboxConfig], image: str, commands: Commands
    ) -> None:
        config = container_config(image, commands.missing)
        with pytest.raises(RuntimeFault):
            await start(runtime, sandbox, config)
        (row,) = await runtime.list_containers(sandbox_id=sandbox[0])
        assert row.state in (ContainerState.EXITED, ContainerState.CREATED)

    async def test_stop_waits_for_a_program_that_ends_itself(
        self, runtime: Runtime, sandbox: tuple[str, SandboxConfig], image: str, commands: Commands
    ) -> None:
        config = container_config(image, commands.willing)
        container_id = await start(runtime, sandbox, config)
        await until(lambda: _has_text(anyio.Path(sandbox[1].log_directory, config.log_path)))
        with anyio.fail_after(DEADLINE_S):
            await runtime.stop_container(container_id, 600.0)
        assert (await runtime.container_status(container_id)).state is ContainerState.EXITED

    async def test_stop_kills_a_stubborn_program_after_the_grace_period(
        self, runtime: Runtime, sandbox: tuple[str, SandboxConfig], image: str, commands: Commands
    ) -> None:
        config = container_config(image, commands.stubborn)
        container_id = await start(runtime, sandbox, config)
        await until(lambda: _has_text(anyio.Path(sandbox[1].log_directory, config.log_path)))
        await runtime.stop_container(container_id, 1.0)
        status = await runtime.container_status(container_id)
        assert (status.state, status.exit_code) == (ContainerState.EXITED, 137)
        assert status.finished_ns - status.started_ns >= 0.9e9

    async def test_stopping_and_removing_repeat_and_forgive(
        self, runtime: Runtime, sandbox: tuple[str, SandboxConfig], image: str, commands: Commands
    ) -> None:
        container_id = await start(runtime, sandbox, container_config(image, commands.exit_0))
        await ended(runtime, container_id)
        await runtime.stop_container(container_id, 0.0)
        await runtime.remove_container(container_id)
        await runtime.remove_container(container_id)
        await runtime.stop_container(container_id, 0.0)
        with pytest.raises(NotInRuntime):
            await runtime.container_status(container_id)

    async def test_a_container_of_an_unknown_sandbox_or_image_is_refused(
        self, runtime: Runtime, sandbox: tuple[str, SandboxConfig], image: str, commands: Commands
    ) -> None:
        config = container_config(image, commands.exit_0)
        with pytest.raises(NotInRuntime):
            await runtime.create_container("0" * 64, config, sandbox[1])

    async def test_both_streams_reach_the_log_file(
        self, runtime: Runtime, sandbox: tuple[str, SandboxConfig], image: str, commands: Commands
    ) -> None:
        config = container_config(image, commands.prints)
        container_id = await start(runtime, sandbox, config)
        await ended(runtime, container_id)
        path = anyio.Path(sandbox[1].log_directory, config.log_path)

        async def complete() -> bool:
            return await path.exists() and len((await path.read_text()).splitlines()) == 2

        await until(complete)
        lines = [line.split(" ", 3)[1:] for line in (await path.read_text()).splitlines()]
        assert sorted(lines) == [["stderr", "F", "to-err"], ["stdout", "F", "to-out"]]
        assert (await runtime.container_status(container_id)).log_path == str(path)

    # Commands inside

    async def test_exec_gives_streams_and_code(
        self, runtime: Runtime, sandbox: tuple[str, SandboxConfig], image: str, commands: Commands
    ) -> None:
        container_id = await start(runtime, sandbox, container_config(image, commands.forever))
        result = await runtime.exec_sync(container_id, commands.exec_echo, 10.0)
        assert (result.stdout, result.stderr, result.exit_code) == (b"out\n", b"err\n", 7)

    async def test_exec_that_takes_too_long_is_ended(
        self, runtime: Runtime, sandbox: tuple[str, SandboxConfig], image: str, commands: Commands
    ) -> None:
        container_id = await start(runtime, sandbox, container_config(image, commands.forever))
        with pytest.raises(DeadlineReached):
            await runtime.exec_sync(container_id, commands.exec_slow, 1.0)
        assert (await runtime.container_status(container_id)).state is ContainerState.RUNNING

    # Restart of edgesite

    async def test_containers_outlive_the_connection(
        self, open_runtime: OpenRuntime, tmp_path: Path, image: str, commands: Commands
    ) -> None:
        config = sandbox_config(tmp_path)
        async with open_runtime() as first:
            sandbox_id = await first.run_sandbox(config)
            container = replace(container_config(image, commands.forever), attempt=4)
            container_id = await start(first, (sandbox_id, config), container)
            before = await first.container_status(container_id)
        async with open_runtime() as second:
            (row,) = await second.list_containers(labels={LABEL_POD_UID: config.uid})
            after = await second.container_status(container_id)
            assert (row.id, row.attempt, row.state) == (container_id, 4, ContainerState.RUNNING)
            assert (after.started_ns, after.annotations) == (before.started_ns, before.annotations)
            await second.stop_container(container_id, 5.0)
            assert (await second.container_status(container_id)).state is ContainerState.EXITED
            await second.stop_sandbox(sandbox_id)
            await second.remove_sandbox(sandbox_id)

    # Images and the runtime itself

    async def test_an_image_that_is_there_has_a_status(self, runtime: Runtime, image: str) -> None:
        found = await runtime.image_status(image)
        assert found is not None
        assert found.id
        assert await runtime.image_status(found.id) is not None

    async def test_the_runtime_names_itself_and_is_ready(self, runtime: Runtime) -> None:
        version = await runtime.version()
        assert version.name
        assert version.version
        conditions = {one.type: one.status for one in await runtime.status()}
        assert conditions["RuntimeReady"]
        assert conditions["NetworkReady"]


def sandbox_config(directory: Path, uid: str = "b2f0c1de-0000-4000-8000-000000000001") -> SandboxConfig:
    """A sandbox for a pod of its own, its logs below ``directory``."""
    logs = directory / f"default_contract_{uid}"
    (logs / "main").mkdir(parents=True, exist_ok=True)
    labels = {LABEL_POD_NAME: "contract", LABEL_POD_NAMESPACE: "default", LABEL_POD_UID: uid}
    return SandboxConfig("contract", "default", uid, hostname="contract", log_directory=str(logs), labels=labels)


def container_config(image: str, command: tuple[str, ...], attempt: int = 0) -> ContainerConfig:
    """The container ``main`` of that pod."""
    labels = {
        LABEL_POD_NAME: "contract",
        LABEL_POD_NAMESPACE: "default",
        LABEL_POD_UID: "b2f0c1de-0000-4000-8000-000000000001",
        LABEL_CONTAINER: "main",
    }
    return ContainerConfig(
        "main",
        image,
        attempt=attempt,
        user_image=image,
        command=command,
        labels=labels,
        annotations={ANNOTATION_HASH: "5f1e", ANNOTATION_RESTARTS: str(attempt)},
        log_path=f"main/{attempt}.log",
    )


async def start(runtime: Runtime, sandbox: tuple[str, SandboxConfig], config: ContainerConfig) -> str:
    container_id = await runtime.create_container(sandbox[0], config, sandbox[1])
    await runtime.start_container(container_id)
    return container_id


async def _has_text(path: anyio.Path) -> bool:
    return await path.exists() and bool(await path.read_text())


async def ended(runtime: Runtime, container_id: str) -> ContainerStatus:
    async def exited() -> bool:
        return (await runtime.container_status(container_id)).state is ContainerState.EXITED

    await until(exited)
    return await runtime.container_status(container_id)
