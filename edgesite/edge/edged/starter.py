"""Making and starting one container: image, environment, mounts, create, start, postStart.

Errors  None: what goes wrong becomes the container's waiting reason and events, and is tried again later.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import anyio

from edgesite.edge.edged.devices.allocation import AllocationError
from edgesite.edge.edged.devices.manager import ContainerDevices
from edgesite.edge.edged.environment import ConfigError, Reference, environment, references
from edgesite.edge.edged.events import NORMAL, WARNING
from edgesite.edge.edged.hooks import HookFailed, run_hook
from edgesite.edge.edged.images import Pull
from edgesite.edge.edged.loglinks import add_link
from edgesite.edge.edged.mounts import Sources, devices_of, mounts_of
from edgesite.edge.edged.pod import Pod
from edgesite.edge.edged.runtime import (
    ContainerConfig,
    ContainerState,
    Image,
    Isolation,
    Mount,
    RuntimeFault,
    RuntimeUnavailable,
)
from edgesite.edge.edged.serviceenv import service_environment
from edgesite.edge.edged.services import PodServices
from edgesite.edge.edged.specs import TERMINATION_PATH, SpecError, container_config, noted_resources, resizable
from edgesite.edge.edged.state import PodState, Seen, Unhealthy, Waiting
from edgesite.edge.edged.together import together
from edgesite.edge.edged.volumes.payload import VolumeError

__all__ = ["ContainerStarter"]

RETRY_S: Final = 10.0
BUSY_S: Final = (
    1.0  #: An earlier start of the same container, cut off with the edgesite that asked for it, may still go on.
)


class ContainerStarter:
    """One for a pod. ``wake`` is called when a pull has got on or is over, and when a container is to be restarted at once."""

    def __init__(self, services: PodServices, wake: Callable[[], None]) -> None:
        self._services = services
        self._wake = wake
        self._pulls: dict[str, Pull] = {}

    def want_image(self, state: PodState, container: Mapping[str, Any], *, key: str = "") -> Pull:
        """Begin to look for the image, unless that goes on already or has succeeded. ``key`` is that of a volume's image."""
        name = key or container["name"]
        pull = self._pulls.get(name)
        now = self._services.clock.monotonic()
        expired = pull is not None and pull.retry_at is not None and pull.retry_at <= now
        if pull is None or expired or pull.reference != container.get("image", ""):
            pull = self._pulls[name] = self._services.images.request(state.pod, container, self._wake)
        return pull

    def abandon_pulls(self) -> None:
        """The pod ends: images that it still waits for are not wanted on its account."""
        for pull in self._pulls.values():
            pull.abandon()
        self._pulls.clear()

    async def start(self, state: PodState, container: Mapping[str, Any], attempt: int) -> float | None:
        """Start one container; return when (monotonic) to look again if it could not be, None if it runs or a wake will come."""
        name = container["name"]
        pull = self.want_image(state, container)
        await pull.checked.wait()
        if pull.image is None:
            if pull.waiting is not None:
                state.waiting[name] = pull.waiting
            return pull.retry_at
        if (missing := await self._volume_images(state, container)) is not None:
            if missing.waiting is not None:
                state.waiting[name] = missing.waiting
            return missing.retry_at
        image = pull.image
        del self._pulls[name]  # the next start asks anew: pull policy Always means each start
        try:
            config = await self._config(state, container, attempt, image)
        except (ConfigError, SpecError, VolumeError, AllocationError) as exc:
            return self._refused(state, name, "CreateContainerConfigError", str(exc))
        except OSError as exc:
            return self._refused(state, name, "CreateContainerConfigError", f"{exc.strerror}: {exc.filename}")
        return await self._run(state, container, config)

    async def resume(self, state: PodState, container: Mapping[str, Any], container_id: str) -> float | None:
        """Start a container that was made before edgesite was stopped."""
        return await self._start_made(state, container, container_id)

    async def _run(self, state: PodState, container: Mapping[str, Any], config: ContainerConfig) -> float | None:
        sandbox, sandbox_config = state.sandbox, state.sandbox_config
        assert sandbox is not None
        assert sandbox_config is not None
        try:
            container_id = await self._services.runtime.create_container(sandbox.id, config, sandbox_config)
        except RuntimeUnavailable:
            raise
        except RuntimeFault as exc:
            state.unsure = True
            return self._refused(state, config.name, "CreateContainerError", str(exc))
        state.made.add(container_id)
        self._say(state, NORMAL, "Created", f"Created container: {config.name}", config.name)
        return await self._start_made(state, container, container_id)

    async def _start_made(self, state: PodState, container: Mapping[str, Any], container_id: str) -> float | None:
        runtime, name = self._services.runtime, container["name"]
        failure: RuntimeFault | None = None
        try:
            await runtime.start_container(container_id)
        except RuntimeUnavailable:
            raise
        except RuntimeFault as exc:
            failure = exc
        status = await runtime.container_status(container_id)
        sandbox = state.sandbox
        state.containers[container_id] = Seen(status, sandbox.id if sandbox else "")
        if failure is not None and status.state is ContainerState.CREATED:
            self._services.log.info("container=%s cannot be started yet: %s", container_id, failure)
            return self._services.clock.monotonic() + BUSY_S
        if failure is not None:
            return self._refused(state, name, "RunContainerError", str(failure))
        state.waiting.pop(name, None)
        state.actual[container_id] = noted_resources(status, resizable(container))
        self._services.metrics.container_starts.inc()
        if (links := self._services.paths.log_links) is not None:
            try:
                await self._services.threads.run(add_link, links, state.pod, name, container_id, status.log_path)
            except OSError as exc:  # the container runs, and its log has its proper name
                self._services.log.warning("container=%s log has no name in %s: %s", container_id, links, exc)
        self._say(state, NORMAL, "Started", f"Started container {name}", name)
        handler = (container.get("lifecycle") or {}).get("postStart")
        if handler:
            await self._post_start(state, container, container_id, handler)
        return None

    async def _post_start(
        self, state: PodState, container: Mapping[str, Any], container_id: str, handler: Mapping[str, Any]
    ) -> None:
        """Run the hook to its end, or until the pod is to end: one that hangs must not keep it from that."""
        services = self._services
        ip = next(iter(_ips(state, services)), "127.0.0.1")
        failure: HookFailed | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_cancel_when, state.ending, tasks.cancel_scope)
            try:
                await run_hook(services, state.pod, container, container_id, handler, ip)
            except HookFailed as exc:
                failure = exc
            tasks.cancel_scope.cancel()
        if failure is not None:
            self._say(state, WARNING, "FailedPostStartHook", f"PostStartHook failed: {failure}", container["name"])
            state.unhealthy[container_id] = Unhealthy(f"Container {container['name']} failed its PostStartHook")
            self._wake()

    def _refused(self, state: PodState, name: str, reason: str, why: str) -> float:
        state.waiting[name] = Waiting(reason, why)
        self._say(state, WARNING, "Failed", f"Error: {why}", name)
        return self._services.clock.monotonic() + RETRY_S

    def _say(self, state: PodState, type: str, reason: str, message: str, name: str) -> None:
        pod = state.pod
        self._services.events.report(pod.reference(), type, reason, message, name, member=pod.member_of(name))

    async def _config(
        self, state: PodState, container: Mapping[str, Any], attempt: int, image: Image
    ) -> ContainerConfig:
        services, pod = self._services, state.pod
        objects, told = {}, {}

        async def get_objects() -> None:
            objects.update(await self._objects(state, container))

        async def get_services() -> None:
            told.update(await self._services_of(state))

        await together(*((get_objects, get_services) if any(references(container)) else (get_services,)))
        env = environment(pod, container, objects, services.node.seen_by(_ips(state, services)), told)
        message_file = services.paths.termination_message(pod.uid, container["name"], attempt)
        sources = await self._sources(state, container)
        mounts = await services.threads.run(self._mounts, state, container, env, message_file, sources)
        settings = services.settings
        made = container_config(
            pod,
            container,
            attempt=attempt,
            image=image,
            env=env,
            mounts=mounts,
            resources=services.resources_of(pod, container),
            seccomp_default=settings.seccomp_default,
            seccomp_root=settings.seccomp_root,
            target=_target(state, container),
        )
        made = replace(made, devices=tuple(devices_of(container, sources)))
        return _with_devices(made, await services.devices.for_container(pod, container))

    async def _sources(self, state: PodState, container: Mapping[str, Any]) -> Sources:
        """Where the volumes are; images of volumes are there by now. Raises VolumeError, RuntimeUnavailable, OSError."""
        services, uid = self._services, state.pod.uid
        paths, images = dict(state.volumes), {}
        for name in _image_volumes(state.pod, container):
            pull = self._pulls[_pull_name(name)]
            assert pull.image is not None
            try:
                place = await services.image_volumes.mount(uid, name, pull.image.id)
            except RuntimeUnavailable:
                raise
            except RuntimeFault as exc:
                raise VolumeError(f'image volume "{name}" cannot be mounted: {exc}') from exc
            if place is None:
                images[name] = pull.image.id
            else:
                paths[name] = str(place)
        isolates = services.runtime.isolation is not Isolation.NONE
        return Sources(paths, images, services.paths.sub_paths(uid), isolates, services.node.recursive_read_only)

    async def _volume_images(self, state: PodState, container: Mapping[str, Any]) -> Pull | None:
        """Have the images of volumes pulled; return the first that is not there."""
        pulls = []
        for name, source in _image_volumes(state.pod, container).items():
            wanted = {"name": container["name"], "image": source.get("reference", "")}
            if source.get("pullPolicy"):
                wanted["imagePullPolicy"] = source["pullPolicy"]
            pulls.append(self.want_image(state, wanted, key=_pull_name(name)))
        for pull in pulls:
            await pull.checked.wait()
        return next((one for one in pulls if one.image is None), None)

    async def _services_of(self, state: PodState) -> dict[str, str]:
        pod = state.pod
        if pod.is_static:
            return {}  # it starts with no cloud at all, and alike each time
        found = await self._services.cluster.services(pod.namespace, state.seen_at)
        links = pod.spec.get("enableServiceLinks") is not False
        master = self._services.settings.master_namespace
        return service_environment(found, pod.namespace, links=links, master_namespace=master)

    async def _objects(
        self, state: PodState, container: Mapping[str, Any]
    ) -> dict[tuple[str, str], Mapping[str, Any] | None]:
        found: dict[tuple[str, str], Mapping[str, Any] | None] = {}

        async def get(ref: Reference) -> None:
            found[ref.kind, ref.name] = await self._services.objects.get(ref.kind, state.pod.namespace, ref.name)

        wanted = {(one.kind, one.name): one for one in references(container)}.values()
        await together(*(functools.partial(get, ref) for ref in wanted))
        return found

    def _mounts(
        self,
        state: PodState,
        container: Mapping[str, Any],
        env: Mapping[str, str],
        message_file: Path,
        sources: Sources,
    ) -> list[Mount]:
        """Blocking: looks at sub-paths and makes the file of the termination message. Raises VolumeError, OSError."""
        mounts = mounts_of(state.pod, container, env, sources)
        taken = {mount.container_path for mount in mounts}
        hosts = self._services.paths.etc_hosts(state.pod.uid)
        if "/etc/hosts" not in taken and hosts.exists():
            mounts.append(Mount("/etc/hosts", str(hosts)))
        message_path = container.get("terminationMessagePath") or TERMINATION_PATH
        if message_path not in taken:
            message_file.parent.mkdir(parents=True, exist_ok=True)
            message_file.touch()
            message_file.chmod(0o666)  # whoever the container runs as may write its last words
            mounts.append(Mount(message_path, str(message_file)))
        return mounts


def _with_devices(config: ContainerConfig, devices: ContainerDevices) -> ContainerConfig:
    """Add what comes with the devices of a container; its own variables and mounts come first."""
    if devices == ContainerDevices():
        return config
    taken = {one.container_path for one in config.mounts}
    return replace(
        config,
        envs=tuple({**devices.envs, **dict(config.envs)}.items()),
        mounts=(*config.mounts, *(one for one in devices.mounts if one.container_path not in taken)),
        devices=(*config.devices, *devices.devices),
        annotations={**devices.annotations, **config.annotations},
        cdi_devices=devices.cdi,
    )


def _image_volumes(pod: Pod, container: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The volumes of a container that are images."""
    mounted = {one.get("name") for one in container.get("volumeMounts") or ()}
    volumes = pod.spec.get("volumes") or ()
    return {one["name"]: one["image"] or {} for one in volumes if one.get("name") in mounted and "image" in one}


def _pull_name(volume: str) -> str:
    """No container has such a name."""
    return f"volume/{volume}"


async def _cancel_when(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


def _ips(state: PodState, services: PodServices) -> tuple[str, ...]:
    return services.node.ips if state.pod.host_network else state.ips


def _target(state: PodState, container: Mapping[str, Any]) -> str:
    """The id of the container whose processes an ephemeral one is to see. Raises SpecError."""
    name = container.get("targetContainerName")
    if not name:
        return ""
    found = state.current(name)
    if found is None or found.state is not ContainerState.RUNNING:
        raise SpecError(f'unable to find target container "{name}"')
    return found.id
