"""The machine's part of the fake runtime: containers in memory that run scripted programs.

It outlives the edgesite process, as containerd does, and `FakeEngine.reboot` is the end of the machine's uptime.

Units   Durations are seconds of the engine's clock.
State   Containers do not run anything: whether one has ended is worked out from the clock when somebody asks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
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
    ContainerState,
    ExecResult,
    Image,
    LinuxResources,
    NotInRuntime,
    PullProgress,
    RuntimeFault,
    RuntimeUnavailable,
    SandboxConfig,
    SandboxState,
)

__all__ = ["FakeContainer", "FakeEngine", "FakeSandbox", "Script"]

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
        self.pulling: PullProgress | None = None  #: what is told of pulls that are under way
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
