"""A container runtime in memory: scripted programs, exits and faults, for the simulator and for tests of edged.

`FakeEngine` is the machine's part: it outlives the edgesite process, as containerd does, and `FakeEngine.reboot` is the end of
the machine's uptime. `FakeRuntime` is one client of it and speaks `edgesite.edge.edged.runtime.Runtime`.

Units   Durations are seconds of the engine's clock.
State   Containers do not run anything: whether one has ended is worked out from the clock when somebody asks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import anyio
import anyio.lowlevel
from anyio.streams.memory import MemoryObjectSendStream

from edgesite.context import Clock
from edgesite.edge.edged.runtime import (
    LABEL_POD_UID,
    ContainerConfig,
    ContainerEvent,
    ContainerEventType,
    ContainerInfo,
    ContainerState,
    ContainerStats,
    ContainerStatus,
    DeadlineReached,
    ExecResult,
    FilesystemUsage,
    Image,
    InvalidReference,
    Isolation,
    LinuxResources,
    NamespaceMode,
    NotInRuntime,
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

__all__ = ["FakeContainer", "FakeEngine", "FakeRuntime", "Script"]

EVENTS_HELD: Final = 1024  #: A listener further behind than this loses its connection, as with a real runtime.


@dataclass(frozen=True, slots=True)
class Script:
    """What the program of one container does."""

    run_s: float = math.inf  #: ends by itself after this long
    exit_code: int = 0
    reason: str = ""  #: "OOMKilled"; empty: Completed or Error by the code
    stop_s: float = 0.0  #: from the stop signal to its end; inf ignores the signal
    stop_code: int = 0  #: exit code after a stop signal
    stdout: tuple[str, ...] = ()  #: lines, written to the log as soon as it starts
    stderr: tuple[str, ...] = ()
    start_error: str = ""  #: the program cannot be run
    exec: Callable[[Sequence[str]], tuple[float, ExecResult]] = lambda command: (0.0, ExecResult(b"", b"", 0))
    #: seconds that a command run inside takes, and what it gives


@dataclass(slots=True)
class FakeSandbox:
    id: str
    config: SandboxConfig
    created_ns: int
    ip: str
    state: SandboxState = SandboxState.READY


@dataclass(slots=True)
class FakeContainer:
    id: str
    sandbox: FakeSandbox
    config: ContainerConfig
    script: Script
    created_ns: int
    started_ns: int = 0
    finished_ns: int = 0
    ends_at: float = math.inf  #: monotonic
    state: ContainerState = ContainerState.CREATED
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    resources: LinuxResources = field(default_factory=LinuxResources)
    nudge: anyio.Event = field(default_factory=anyio.Event)  #: set when its end comes nearer than it was


class FakeEngine:
    """Containers of one machine.

    ``script`` tells what a container's program does. ``images`` are those present; ``registry`` those that can be pulled.
    ``latency_s`` is what each call takes. ``started`` is told of each start, for invariants.
    """

    def __init__(
        self,
        clock: Clock,
        script: Callable[[ContainerConfig], Script] = lambda config: Script(),
        *,
        images: Iterable[str] = (),
        registry: Callable[[str], bool] = lambda reference: True,
        latency_s: float = 0.0,
        started: Callable[[FakeContainer], None] | None = None,
    ) -> None:
        self.clock = clock
        self.script = script
        self.registry = registry
        self.latency_s = latency_s
        self.reachable = True  #: False: as if the runtime's socket were gone
        self.images: dict[str, Image] = {}
        self.sandboxes: dict[str, FakeSandbox] = {}
        self.containers: dict[str, FakeContainer] = {}
        self._started = started
        self._numbers = itertools.count(1)
        self._listeners: dict[
            MemoryObjectSendStream[ContainerEvent], None
        ] = {}  # in order, for simulations that replay
        for reference in images:
            self.add_image(reference)

    def add_image(self, reference: str) -> Image:
        image = Image(f"sha256:{reference}", (reference,), (f"{reference}@sha256:fake",), 1_000_000)
        self.images[reference] = image
        return image

    def reboot(self) -> None:
        """End the uptime: what ran has ended, with a code that nobody saw; what was listed is listed still."""
        self.settle()
        for sandbox in self.sandboxes.values():
            sandbox.state = SandboxState.NOT_READY
        for container in self.containers.values():
            if container.state is ContainerState.RUNNING:
                self._end(container, 255, "Unknown", self._wall_ns())
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    def settle(self) -> None:
        """End the containers whose time has come."""
        now = self.clock.monotonic()
        for container in self.containers.values():
            if container.state is ContainerState.RUNNING and container.ends_at <= now:
                at_ns = self._wall_ns() - int((now - container.ends_at) * 1e9)
                self._end(container, container.exit_code, container.script.reason, at_ns)

    def next_end(self) -> float:
        """Monotonic time of the next exit that is already certain, or inf."""
        running = (one.ends_at for one in self.containers.values() if one.state is ContainerState.RUNNING)
        return min(running, default=math.inf)

    def container(self, container_id: str) -> FakeContainer:
        self.settle()
        if (found := self.containers.get(container_id)) is None:
            raise NotInRuntime(f"container {container_id} not found")
        return found

    def sandbox(self, sandbox_id: str) -> FakeSandbox:
        if (found := self.sandboxes.get(sandbox_id)) is None:
            raise NotInRuntime(f"sandbox {sandbox_id} not found")
        return found

    def add_sandbox(self, config: SandboxConfig) -> FakeSandbox:
        for other in self.sandboxes.values():
            if (other.config.uid, other.config.attempt) == (config.uid, config.attempt):
                raise RuntimeFault(f"name of sandbox is reserved for {other.id}")
        number = next(self._numbers)
        ip = f"10.88.{number // 250}.{number % 250 + 1}"
        sandbox = FakeSandbox(f"sandbox-{number}", config, self._wall_ns(), ip)
        self.sandboxes[sandbox.id] = sandbox
        return sandbox

    def add_container(self, sandbox: FakeSandbox, config: ContainerConfig) -> FakeContainer:
        for other in self.containers.values():
            if other.sandbox is sandbox and (other.config.name, other.config.attempt) == (config.name, config.attempt):
                raise RuntimeFault(f"name of container is reserved for {other.id}")
        if self.find_image(config.image) is None:
            raise NotInRuntime(f"image {config.image} not found")
        container_id = f"container-{next(self._numbers)}"
        container = FakeContainer(container_id, sandbox, config, self.script(config), self._wall_ns())
        container.resources = config.resources
        self.containers[container_id] = container
        self._tell(container, ContainerEventType.CREATED)
        return container

    def find_image(self, reference: str) -> Image | None:
        if (found := self.images.get(reference)) is not None:
            return found
        return next((one for one in self.images.values() if reference == one.id or reference in one.digests), None)

    def start(self, container: FakeContainer) -> None:
        if container.state is not ContainerState.CREATED:
            raise RuntimeFault(f"container {container.id} is {container.state.value}")
        if container.script.start_error:
            self._end(container, 128, "StartError", self._wall_ns())
            container.message = container.script.start_error
            raise RuntimeFault(container.script.start_error)
        container.state = ContainerState.RUNNING
        container.started_ns = self._wall_ns()
        container.ends_at = self.clock.monotonic() + container.script.run_s
        container.exit_code = container.script.exit_code
        self._write_log(container)
        if self._started is not None:
            self._started(container)
        self._tell(container, ContainerEventType.STARTED)

    def signal(self, container: FakeContainer, grace_s: float) -> None:
        """Ask a running container to end: after its own time, or killed after ``grace_s``."""
        now = self.clock.monotonic()
        polite, killed = now + container.script.stop_s, now + grace_s
        ends_at = min(polite, killed)
        if ends_at < container.ends_at:
            container.ends_at = ends_at
            container.exit_code = container.script.stop_code if polite < killed or not container.script.stop_s else 137
            container.nudge.set()
            container.nudge = anyio.Event()

    def forget(self, container: FakeContainer) -> None:
        del self.containers[container.id]
        self._tell(container, ContainerEventType.DELETED)

    async def listen(self) -> AsyncIterator[ContainerEvent]:
        send, receive = anyio.create_memory_object_stream[ContainerEvent](EVENTS_HELD)
        self._listeners[send] = None
        try:
            while True:
                wait_s = self.next_end() - self.clock.monotonic()
                event = None
                with anyio.move_on_after(None if wait_s == math.inf else max(wait_s, 0.0)):
                    try:
                        event = await receive.receive()
                    except anyio.EndOfStream:
                        raise RuntimeUnavailable("the event stream ended") from None
                if event is not None:
                    yield event
                self.settle()
        finally:
            self._listeners.pop(send, None)
            send.close()
            receive.close()

    def _end(self, container: FakeContainer, code: int, reason: str, at_ns: int) -> None:
        container.state = ContainerState.EXITED
        container.exit_code = code
        container.reason = reason or ("Completed" if code == 0 else "Error")
        container.finished_ns = at_ns
        container.ends_at = math.inf
        self._tell(container, ContainerEventType.STOPPED)

    def _tell(self, container: FakeContainer, kind: ContainerEventType) -> None:
        event = ContainerEvent(container.id, kind, container.config.labels.get(LABEL_POD_UID, ""))
        for listener in tuple(self._listeners):
            try:
                listener.send_nowait(event)
            except anyio.WouldBlock:
                self._listeners.pop(listener, None)
                listener.close()

    def _write_log(self, container: FakeContainer) -> None:
        lines = [("stdout", line) for line in container.script.stdout]
        lines += [("stderr", line) for line in container.script.stderr]
        if not lines or not container.config.log_path:
            return
        path = Path(container.sandbox.config.log_directory, container.config.log_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as log:
            log.writelines(f"1970-01-01T00:00:00.000000000Z {stream} F {line}\n" for stream, line in lines)

    def _wall_ns(self) -> int:
        return int(self.clock.time() * 1e9)


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

    async def remove_image(self, reference: str) -> None:
        await self._call()
        if (image := self._engine.find_image(reference)) is not None:
            self._engine.images = {name: one for name, one in self._engine.images.items() if one.id != image.id}

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
