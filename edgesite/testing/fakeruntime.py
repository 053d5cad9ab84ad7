"""A container runtime in memory: scripted programs, exits and faults, for the simulator and for tests of edged.

`edgesite.testing.fakeengine.FakeEngine` is the machine's part; `FakeRuntime` is one client of it and speaks
`edgesite.edge.edged.runtime.Runtime`. Both can be imported from here.

Units   Durations are seconds of the engine's clock.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import anyio
import anyio.lowlevel

from edgesite.edge.edged.runtime import (
    ContainerConfig,
    ContainerEvent,
    ContainerInfo,
    ContainerState,
    ContainerStats,
    ContainerStatus,
    DeadlineReached,
    ExecResult,
    FilesystemUsage,
    HostMount,
    Image,
    InvalidReference,
    Isolation,
    LinuxResources,
    NamespaceMode,
    NotInRuntime,
    PullProgress,
    RegistryAuth,
    RuntimeCondition,
    RuntimeFault,
    RuntimeUnavailable,
    RuntimeUnsupported,
    RuntimeVersion,
    SandboxConfig,
    SandboxInfo,
    SandboxState,
    SandboxStatus,
)
from edgesite.edge.edged.streams import StreamAddress, StreamOptions
from edgesite.testing.fakeengine import FakeContainer, FakeEngine, FakeSandbox, Script

__all__ = ["FakeContainer", "FakeEngine", "FakeRuntime", "Script"]


class FakeRuntime:
    """One connection to a `FakeEngine`."""

    def __init__(self, engine: FakeEngine, isolation: Isolation = Isolation.CONTAINER) -> None:
        self.isolation = isolation
        self._engine = engine

    async def run(self, started: Callable[[], None]) -> None:
        started()
        await anyio.sleep_forever()

    async def version(self) -> RuntimeVersion:
        await self._call()
        return RuntimeVersion("fake", "1.0.0")

    async def status(self) -> Sequence[RuntimeCondition]:
        await self._call()
        return (RuntimeCondition("RuntimeReady", True), RuntimeCondition("NetworkReady", True))

    async def user_namespaces(self, handler: str) -> bool:
        await self._call()
        return handler == "with-users"

    async def run_sandbox(self, config: SandboxConfig) -> str:
        await self._call()
        return self._engine.add_sandbox(config).id

    async def stop_sandbox(self, sandbox_id: str) -> None:
        await self._call()
        if (sandbox := self._engine.sandboxes.get(sandbox_id)) is None:
            return
        self._engine.settle()
        for container in self._containers_of(sandbox):
            if container.state is ContainerState.RUNNING:
                self._engine.signal(container, 0.0)
        self._engine.settle()
        sandbox.state = SandboxState.NOT_READY

    async def remove_sandbox(self, sandbox_id: str) -> None:
        await self.stop_sandbox(sandbox_id)
        if (sandbox := self._engine.sandboxes.pop(sandbox_id, None)) is not None:
            for container in self._containers_of(sandbox):
                self._engine.forget(container)

    async def sandbox_status(self, sandbox_id: str) -> SandboxStatus:
        await self._call()
        sandbox = self._engine.sandbox(sandbox_id)
        row = _sandbox_row(sandbox)
        in_host = sandbox.config.security.namespaces.network is NamespaceMode.NODE
        return SandboxStatus(
            id=row.id,
            name=row.name,
            namespace=row.namespace,
            uid=row.uid,
            attempt=row.attempt,
            state=row.state,
            created_ns=row.created_ns,
            labels=row.labels,
            annotations=row.annotations,
            ips=() if in_host or sandbox.state is SandboxState.NOT_READY else (sandbox.ip,),
            host_network=in_host,
        )

    async def list_sandboxes(self, labels: Mapping[str, str] | None = None) -> Sequence[SandboxInfo]:
        await self._call()
        return [_sandbox_row(one) for one in self._engine.sandboxes.values() if _carries(one.config.labels, labels)]

    async def create_container(self, sandbox_id: str, config: ContainerConfig, sandbox: SandboxConfig) -> str:
        await self._call()
        return self._engine.add_container(self._engine.sandbox(sandbox_id), config).id

    async def start_container(self, container_id: str) -> None:
        await self._call()
        self._engine.start(self._engine.container(container_id))

    async def stop_container(self, container_id: str, grace_s: float) -> None:
        await self._call()
        if container_id not in self._engine.containers:
            return
        container = self._engine.container(container_id)
        if container.state is ContainerState.RUNNING:
            self._engine.signal(container, grace_s)
        while container.state is ContainerState.RUNNING:
            with anyio.move_on_after(max(container.ends_at - self._engine.clock.monotonic(), 0.0)):
                await container.nudge.wait()
            self._engine.settle()

    async def remove_container(self, container_id: str) -> None:
        await self._call()
        if (container := self._engine.containers.get(container_id)) is not None:
            self._engine.forget(container)

    async def list_containers(
        self, sandbox_id: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Sequence[ContainerInfo]:
        await self._call()
        self._engine.settle()
        return [
            _container_row(one)
            for one in self._engine.containers.values()
            if (sandbox_id is None or one.sandbox.id == sandbox_id) and _carries(one.config.labels, labels)
        ]

    async def container_status(self, container_id: str) -> ContainerStatus:
        await self._call()
        container = self._engine.container(container_id)
        config = container.config
        image = self._engine.find_image(config.image)
        log_directory = container.sandbox.config.log_directory
        return ContainerStatus(
            id=container.id,
            name=config.name,
            attempt=config.attempt,
            state=container.state,
            created_ns=container.created_ns,
            started_ns=container.started_ns,
            finished_ns=container.finished_ns,
            exit_code=container.exit_code if container.state is ContainerState.EXITED else 0,
            image=config.user_image or config.image,
            image_ref=image.digests[0] if image else config.image,
            reason=container.reason,
            message=container.message,
            labels=config.labels,
            annotations=config.annotations,
            mounts=config.mounts,
            log_path=f"{log_directory}/{config.log_path}" if config.log_path else "",
        )

    async def update_resources(self, container_id: str, resources: LinuxResources) -> None:
        await self._call()
        self._engine.container(container_id).resources = resources

    async def reopen_log(self, container_id: str) -> None:
        await self._call()
        self._engine.container(container_id)

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_s: float) -> ExecResult:
        await self._call()
        container = self._engine.container(container_id)
        if container.state is not ContainerState.RUNNING:
            raise RuntimeFault(f"container {container_id} is not running")
        takes_s, result = container.script.exec(command)
        if timeout_s and takes_s > timeout_s:
            await self._engine.clock.sleep(timeout_s)
            raise DeadlineReached(f"command timed out after {timeout_s:g}s")
        await self._engine.clock.sleep(takes_s)
        return result

    async def exec(self, container_id: str, command: Sequence[str], options: StreamOptions) -> StreamAddress:
        raise RuntimeUnsupported("there are no processes to stream from")

    async def attach(self, container_id: str, options: StreamOptions) -> StreamAddress:
        raise RuntimeUnsupported("there are no processes to stream from")

    async def port_forward(self, sandbox_id: str, ports: Sequence[int]) -> StreamAddress:
        raise RuntimeUnsupported("there are no processes to stream from")

    async def container_stats(self, labels: Mapping[str, str] | None = None) -> Sequence[ContainerStats]:
        await self._call()
        self._engine.settle()
        now_ns = int(self._engine.clock.time() * 1e9)
        return [
            ContainerStats(one.id, one.config.name, one.config.labels, now_ns, now_ns - one.started_ns, 1 << 20)
            for one in self._engine.containers.values()
            if one.state is ContainerState.RUNNING and _carries(one.config.labels, labels)
        ]

    async def list_images(self) -> Sequence[Image]:
        await self._call()
        return tuple(self._engine.images.values())

    async def image_status(self, reference: str) -> Image | None:
        await self._call()
        _check_reference(reference)
        return self._engine.find_image(reference)

    async def pull_image(self, reference: str, auth: RegistryAuth | None = None) -> str:
        await self._call()
        _check_reference(reference)
        if not self._engine.registry(reference):
            raise NotInRuntime(f"failed to resolve reference {reference!r}: not found")
        return self._engine.add_image(reference).id

    async def pull_progress(self) -> PullProgress | None:
        await self._call()
        return self._engine.pulling

    async def remove_image(self, reference: str) -> None:
        await self._call()
        if (image := self._engine.find_image(reference)) is not None:
            self._engine.images = {name: one for name, one in self._engine.images.items() if one.id != image.id}

    async def image_mounts(self, image_id: str, key: str) -> Sequence[HostMount]:
        raise RuntimeUnsupported("nothing is mounted here")

    async def forget_image_mounts(self, key: str) -> None:
        raise NotInRuntime(key)

    async def image_filesystems(self) -> Sequence[FilesystemUsage]:
        await self._call()
        used = sum(one.size_bytes for one in self._engine.images.values())
        return (FilesystemUsage("/", used, len(self._engine.images), int(self._engine.clock.time() * 1e9)),)

    def events(self) -> AsyncIterator[ContainerEvent]:
        return self._engine.listen()

    async def _call(self) -> None:
        if self._engine.latency_s:
            await self._engine.clock.sleep(self._engine.latency_s)
        else:
            await anyio.lowlevel.checkpoint()
        if not self._engine.reachable:
            raise RuntimeUnavailable("the runtime does not answer")

    def _containers_of(self, sandbox: FakeSandbox) -> list[FakeContainer]:
        return [one for one in self._engine.containers.values() if one.sandbox is sandbox]


def _carries(labels: Mapping[str, str], wanted: Mapping[str, str] | None) -> bool:
    return not wanted or all(labels.get(name) == value for name, value in wanted.items())


def _check_reference(reference: str) -> None:
    if (
        not reference
        or reference != reference.strip()
        or any(char.isspace() or char.isupper() for char in reference.partition(":")[0])
    ):
        raise InvalidReference(f"couldn't parse image name {reference!r}: invalid reference format")


def _sandbox_row(sandbox: FakeSandbox) -> SandboxInfo:
    config = sandbox.config
    return SandboxInfo(
        sandbox.id,
        config.name,
        config.namespace,
        config.uid,
        config.attempt,
        sandbox.state,
        sandbox.created_ns,
        config.labels,
        config.annotations,
    )


def _container_row(container: FakeContainer) -> ContainerInfo:
    config = container.config
    return ContainerInfo(
        container.id,
        container.sandbox.id,
        config.name,
        config.attempt,
        container.state,
        container.created_ns,
        config.image,
        config.image,
        config.labels,
        config.annotations,
    )
