"""`Runtime` on processes of the host: where there is no container runtime, pods run nevertheless, isolated by nothing.

A sandbox is a record; a container is a process group under the supervisor (`supervisor`), which outlives edgesite. Images are names
only: every one counts as present, and the program comes from the pod's ``command``. All pods share the node's network and have its address.

State   Records on disk (`records`), all of them in memory too; what runs is the supervisor's to say.
Bounds  A listener of `events` that is `EVENTS_HELD` behind loses its stream and lists anew.
"""

from __future__ import annotations

import os
import posixpath
import random as randoms
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec
from anyio.streams.memory import MemoryObjectSendStream

import edgesite
from edgesite.context import Clock, Net, Threads
from edgesite.edge.edged.imagenames import InvalidImageName, normalized
from edgesite.edge.edged.process.cgroups import Cgroups
from edgesite.edge.edged.process.link import ProcessLink, Spawn, spawn_supervisor
from edgesite.edge.edged.process.plan import Host, check, plan
from edgesite.edge.edged.process.records import ContainerRecord, ProgramState, Records, SandboxRecord
from edgesite.edge.edged.process.remote import Wish
from edgesite.edge.edged.process.streaming import ProcessStreams
from edgesite.edge.edged.process.use import uses
from edgesite.edge.edged.runtime import (
    LABEL_POD_UID,
    ContainerConfig,
    ContainerEvent,
    ContainerEventType,
    ContainerInfo,
    ContainerState,
    ContainerStats,
    ContainerStatus,
    ExecResult,
    FilesystemUsage,
    HostMount,
    Image,
    InvalidReference,
    Isolation,
    LinuxResources,
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
from edgesite.edge.edged.together import together

__all__ = ["ProcessRuntime"]

EVENTS_HELD: Final = 1024
STOP_MARGIN_S: Final = 30.0
FOREVER_S: Final = 7 * 86400.0  #: For a command inside that has no limit of its own.
CGROUP_TRIES: Final = 20
CGROUP_WAIT_S: Final = 0.01
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class ProcessRuntime:
    """``address`` gives the node's own; it may block and is asked in a thread. Made without side effects."""

    isolation = Isolation.NONE

    def __init__(
        self,
        root: Path,
        *,
        net: Net,
        clock: Clock,
        threads: Threads,
        random: randoms.Random,
        address: Callable[[], str],
        spawn: Spawn = spawn_supervisor,
    ) -> None:
        self._clock = clock
        self._threads = threads
        self._random = random
        self._address = address
        self._ip = ""
        self._boot = ""
        self._records = Records(root)
        self._cgroups = Cgroups()
        self._link = ProcessLink(root, net, clock, threads, self._changed, spawn)
        self._streams = ProcessStreams(root, self._link, net, clock, random)
        self._host: Host | None = None
        self._sandboxes: dict[str, SandboxRecord] = {}
        self._containers: dict[str, ContainerRecord] = {}
        self._listeners: set[MemoryObjectSendStream[ContainerEvent]] = set()

    async def run(self, started: Callable[[], None]) -> None:
        self._boot, self._ip, (self._sandboxes, self._containers) = await self._threads.run(self._begin)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._streams.run)
                await self._link.run(self._connected, started)
        finally:
            self._host = None
            for listener in self._listeners:
                listener.close()
            self._listeners.clear()

    def _begin(self) -> tuple[str, str, tuple[dict[str, SandboxRecord], dict[str, ContainerRecord]]]:
        self._records.make_folders()
        return _BOOT_ID.read_text(encoding="ascii").strip(), self._address(), self._records.load()

    async def _connected(self, hello: dict[str, Any]) -> None:
        """Learn what became of the programs while nobody listened."""
        states = (await self._link.ask("states"))["states"]
        silent = [one for one in self._containers.values() if one.id not in states and not one.state.finished_ns]
        for one, state in zip(silent, await self._threads.run(self._read_states, silent), strict=True):
            if not one.state.finished_ns:
                one.state = state
        for container_id, state in states.items():
            self._changed(container_id, state)
        await self._give_up(silent)
        self._host = Host(os.getuid(), os.getgid(), hello["mounting"])

    async def _give_up(self, containers: Sequence[ContainerRecord]) -> None:
        """End those that run by their file and not by the supervisor: it could not write down their end, as on a full disk."""
        states = (await self._link.ask("states"))["states"]
        for one in containers:
            if one.state.container_state is ContainerState.RUNNING and one.id not in states:
                one.state.finished_ns, one.state.exit_code, one.state.reason = self._now_ns(), 255, "Unknown"

    def _read_states(self, containers: Sequence[ContainerRecord]) -> list[ProgramState]:
        return [self._records.read_state(one.id) for one in containers]

    def _changed(self, container_id: str, state: dict[str, Any]) -> None:
        container = self._containers.get(container_id)
        if container is None or container.state.finished_ns:
            return  # an end is final: what comes after it was said before
        before = container.state.container_state
        container.state = msgspec.convert(state, ProgramState)
        after = container.state.container_state
        if after is not before:
            ended = after is ContainerState.EXITED
            self._tell(container, ContainerEventType.STOPPED if ended else ContainerEventType.STARTED)

    def _tell(self, container: ContainerRecord, type: ContainerEventType) -> None:
        event = ContainerEvent(container.id, type, container.config.labels.get(LABEL_POD_UID, ""))
        for listener in list(self._listeners):
            try:
                listener.send_nowait(event)
            except (anyio.WouldBlock, anyio.BrokenResourceError):
                self._listeners.discard(listener)
                listener.close()

    # -- the runtime itself

    async def version(self) -> RuntimeVersion:
        return RuntimeVersion("edgesite-process", edgesite.__version__)

    async def status(self) -> Sequence[RuntimeCondition]:
        ready = self._host is not None
        why = "" if ready else "the supervisor of host processes does not answer"
        return [
            RuntimeCondition("RuntimeReady", ready, "" if ready else "NoSupervisor", why),
            RuntimeCondition("NetworkReady", True),
        ]

    async def user_namespaces(self, handler: str) -> bool:
        return False

    def _ready(self) -> Host:
        if self._host is None:
            raise RuntimeUnavailable("the supervisor of host processes is not there yet")
        return self._host

    # -- sandboxes

    async def run_sandbox(self, config: SandboxConfig) -> str:
        for other in self._sandboxes.values():
            if (other.config.uid, other.config.attempt) == (config.uid, config.attempt):
                raise RuntimeFault(f"the pod has a sandbox of attempt {config.attempt} already: {other.id}")
        sandbox = SandboxRecord(self._new_id(), config, self._now_ns(), self._boot)
        await self._save(self._records.save_sandbox, sandbox)
        self._sandboxes[sandbox.id] = sandbox
        return sandbox.id

    async def stop_sandbox(self, sandbox_id: str) -> None:
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None:
            return
        await together(*(partial(self.stop_container, one.id, 0.0) for one in self._of(sandbox_id)))
        sandbox.stopped = True
        await self._save(self._records.save_sandbox, sandbox)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None:
            return
        for container in self._of(sandbox_id):
            await self.remove_container(container.id)
        await self._save(self._records.remove_sandbox, sandbox_id)
        await self._threads.run(self._cgroups.remove_parent, sandbox.config.cgroup_parent)
        self._sandboxes.pop(sandbox_id, None)

    async def sandbox_status(self, sandbox_id: str) -> SandboxStatus:
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None:
            raise NotInRuntime(f"sandbox {sandbox_id} not found")
        info = self._sandbox_info(sandbox)
        return SandboxStatus(**{name: getattr(info, name) for name in SandboxInfo.__slots__}, ips=(self._ip,))

    async def list_sandboxes(self, labels: Mapping[str, str] | None = None) -> Sequence[SandboxInfo]:
        return [self._sandbox_info(one) for one in self._sandboxes.values() if _carries(one.config.labels, labels)]

    def _sandbox_info(self, sandbox: SandboxRecord) -> SandboxInfo:
        config = sandbox.config
        ready = not sandbox.stopped and sandbox.boot == self._boot
        return SandboxInfo(
            id=sandbox.id,
            name=config.name,
            namespace=config.namespace,
            uid=config.uid,
            attempt=config.attempt,
            state=SandboxState.READY if ready else SandboxState.NOT_READY,
            created_ns=sandbox.created_ns,
            labels=config.labels,
            annotations=config.annotations,
        )

    # -- containers

    async def create_container(self, sandbox_id: str, config: ContainerConfig, sandbox: SandboxConfig) -> str:
        host = self._ready()
        record = self._sandboxes.get(sandbox_id)
        if record is None:
            raise NotInRuntime(f"sandbox {sandbox_id} not found")
        if record.stopped or record.boot != self._boot:
            raise RuntimeFault(f"sandbox {sandbox_id} is not running")
        for other in self._of(sandbox_id):
            if (other.config.name, other.config.attempt) == (config.name, config.attempt):
                raise RuntimeFault(f"the sandbox has such a container already: {other.id}")
        check(config, host)
        log = os.path.join(sandbox.log_directory, config.log_path) if sandbox.log_directory and config.log_path else ""
        container = ContainerRecord(self._new_id(), sandbox_id, config, self._now_ns(), log)
        await self._save(self._records.save_container, container)
        self._containers[container.id] = container
        self._tell(container, ContainerEventType.CREATED)
        return container.id

    async def start_container(self, container_id: str) -> None:
        host = self._ready()
        container = self._container(container_id)
        if container.state.container_state is not ContainerState.CREATED:
            raise RuntimeFault(f"container {container_id} is {container.state.container_state.value}")
        await self._save(self._prepare, container, self._sandboxes[container.sandbox].config, host)
        await self._link.ask("start", id=container_id)  # that it runs was told before the answer

    def _prepare(self, container: ContainerRecord, sandbox: SandboxConfig, host: Host) -> None:
        config = container.config
        container.cgroup = self._cgroups.make(sandbox.cgroup_parent, container.id, config.resources)
        self._records.save_container(container)
        work = str(self._records.directory(container.id) / "work")
        self._records.save_plan(
            container.id, plan(config, sandbox, container.id, work, container.log, container.cgroup, host)
        )

    async def stop_container(self, container_id: str, grace_s: float) -> None:
        container = self._containers.get(container_id)
        if container is None or container.state.container_state is not ContainerState.RUNNING:
            return
        await self._link.ask("stop", grace_s + STOP_MARGIN_S, id=container_id, grace_s=grace_s)
        if container.state.container_state is ContainerState.RUNNING:
            # It ended while the supervisor that started it was gone: its last word is on disk.
            container.state = await self._threads.run(self._records.read_state, container_id)

    async def remove_container(self, container_id: str) -> None:
        container = self._containers.get(container_id)
        if container is None:
            return
        await self.stop_container(container_id, 0.0)
        sandbox = self._sandboxes.get(container.sandbox)
        parent = sandbox.config.cgroup_parent if sandbox is not None else ""
        for _ in range(CGROUP_TRIES):
            if await self._threads.run(self._remove_cgroup, parent, container_id):
                break
            await self._clock.sleep(CGROUP_WAIT_S)  # the kernel lets go of the killed a moment later
        await self._threads.run(self._records.remove_container, container_id)
        if self._containers.pop(container_id, None) is not None:
            self._tell(container, ContainerEventType.DELETED)

    def _remove_cgroup(self, parent: str, container_id: str) -> bool:
        group = self._cgroups.find(parent, container_id)
        return group is None or self._cgroups.remove(group)

    async def list_containers(
        self, sandbox_id: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Sequence[ContainerInfo]:
        return [
            ContainerInfo(
                id=one.id,
                sandbox_id=one.sandbox,
                name=one.config.name,
                attempt=one.config.attempt,
                state=one.state.container_state,
                created_ns=one.created_ns,
                image=one.config.user_image or one.config.image,
                image_ref=one.config.image,
                labels=one.config.labels,
                annotations=one.config.annotations,
            )
            for one in self._containers.values()
            if sandbox_id in (None, one.sandbox) and _carries(one.config.labels, labels)
        ]

    async def container_status(self, container_id: str) -> ContainerStatus:
        one = self._container(container_id)
        state, config = one.state, one.config
        reason = state.reason
        if state.finished_ns and not reason:
            reason = "Error" if state.exit_code else "Completed"
        return ContainerStatus(
            id=one.id,
            name=config.name,
            attempt=config.attempt,
            state=state.container_state,
            created_ns=one.created_ns,
            started_ns=state.started_ns,
            finished_ns=state.finished_ns,
            exit_code=state.exit_code,
            image=config.user_image or config.image,
            image_ref=config.image,
            reason=reason,
            message=state.message,
            labels=config.labels,
            annotations=config.annotations,
            mounts=config.mounts,
            log_path=one.log,
        )

    async def update_resources(self, container_id: str, resources: LinuxResources) -> None:
        container = self._container(container_id)
        if container.cgroup is None:
            raise RuntimeUnsupported("this host has no control group for the container: its limits cannot change")
        await self._save(container.cgroup.limit, resources)

    async def reopen_log(self, container_id: str) -> None:
        self._container(container_id)
        await self._link.ask("reopen", id=container_id)

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_s: float) -> ExecResult:
        self._container(container_id)
        limit_s = timeout_s if timeout_s > 0 else FOREVER_S
        answer = await self._link.ask(
            "exec", limit_s + STOP_MARGIN_S, id=container_id, argv=list(command), limit_s=limit_s
        )
        return ExecResult(answer["stdout"].encode("latin-1"), answer["stderr"].encode("latin-1"), answer["exit_code"])

    async def exec(self, container_id: str, command: Sequence[str], options: StreamOptions) -> StreamAddress:
        self._container(container_id)
        self._ready()
        return self._streams.prepare(Wish(container_id, tuple(command), options))

    async def attach(self, container_id: str, options: StreamOptions) -> StreamAddress:
        return await self.exec(container_id, (), options)

    async def port_forward(self, sandbox_id: str, ports: Sequence[int]) -> StreamAddress:
        if sandbox_id not in self._sandboxes:
            raise NotInRuntime(f"sandbox {sandbox_id} not found")
        return self._streams.prepare(None)

    async def container_stats(self, labels: Mapping[str, str] | None = None) -> Sequence[ContainerStats]:
        running = [
            one
            for one in self._containers.values()
            if one.state.container_state is ContainerState.RUNNING and _carries(one.config.labels, labels)
        ]
        found = await self._threads.run(uses, running)
        return [
            ContainerStats(
                id=one.id,
                name=one.config.name,
                labels=one.config.labels,
                at_ns=self._now_ns(),
                cpu_ns=use.cpu_ns,
                memory_working_set_bytes=use.working_set_bytes,
                memory_usage_bytes=use.memory_bytes,
                memory_rss_bytes=use.rss_bytes,
            )
            for one, use in zip(running, found, strict=True)
            if use is not None
        ]

    # -- images: names, nothing else

    async def list_images(self) -> Sequence[Image]:
        return []

    async def image_status(self, reference: str) -> Image | None:
        try:
            normalized(reference)
        except InvalidImageName as exc:
            raise InvalidReference(str(exc)) from None
        return Image(reference, (reference,), (), 0)

    async def pull_image(self, reference: str, auth: RegistryAuth | None = None) -> str:
        image = await self.image_status(reference)
        assert image is not None
        return image.id

    async def pull_progress(self) -> None:
        return None  # images are names here

    async def remove_image(self, reference: str) -> None:
        return

    async def image_mounts(self, image_id: str, key: str) -> Sequence[HostMount]:
        raise RuntimeUnsupported("host processes have the host's files")

    async def forget_image_mounts(self, key: str) -> None:
        raise NotInRuntime(key)

    async def image_filesystems(self) -> Sequence[FilesystemUsage]:
        root = str(self._records.root)
        disk = await self._threads.run(os.statvfs, root)
        used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
        return [FilesystemUsage(root, used, disk.f_files - disk.f_ffree, self._now_ns())]

    # -- events

    async def events(self) -> AsyncIterator[ContainerEvent]:
        self._ready()
        send, receive = anyio.create_memory_object_stream[ContainerEvent](EVENTS_HELD)
        self._listeners.add(send)
        try:
            async for event in receive:
                yield event
            raise RuntimeUnavailable("the event stream ended")
        finally:
            self._listeners.discard(send)
            send.close()
            receive.close()

    # -- helpers

    def _of(self, sandbox_id: str) -> list[ContainerRecord]:
        return [one for one in self._containers.values() if one.sandbox == sandbox_id]

    def _container(self, container_id: str) -> ContainerRecord:
        try:
            return self._containers[container_id]
        except KeyError:
            raise NotInRuntime(f"container {container_id} not found") from None

    def _new_id(self) -> str:
        return f"{self._random.getrandbits(256):064x}"

    def _now_ns(self) -> int:
        return int(self._clock.time() * 1e9)

    async def _save(self, function: Callable[..., Any], *args: Any) -> None:
        """Write to disk in a thread. Raises RuntimeFault."""
        try:
            await self._threads.run(function, *args)
        except OSError as exc:
            where = f": {posixpath.basename(str(exc.filename))}" if exc.filename else ""
            raise RuntimeFault(f"{exc.strerror}{where}") from exc


def _carries(labels: Mapping[str, str], wanted: Mapping[str, str] | None) -> bool:
    return all(labels.get(name) == value for name, value in (wanted or {}).items())
