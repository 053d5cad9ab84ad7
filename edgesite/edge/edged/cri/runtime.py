"""`Runtime` on CRI v1.

Events come from the runtime's own stream (GetContainerEvents) or, on containerd 1, from containerd's event service on the same
socket: 1.6 lacks the stream, and 1.7 hands each event to one listener alone, be it one that is gone. Other runtimes are listed.

Units   Deadlines are seconds; CRI's own are whole seconds, rounded up.
State   None beside the connections: whatever is, is in the runtime.
Source  k8s.io/cri-api runtime/v1; containerd's events API (topic /tasks/exit), namespace k8s.io.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import anyio

from edgesite.context import Net
from edgesite.edge.edged.cri import convert
from edgesite.edge.edged.cri.client import CriClient
from edgesite.edge.edged.cri.imagemounts import SNAPSHOTS, mounts_of_image, remove_view
from edgesite.edge.edged.cri.tables import CONTAINERD, CRI, IMAGE_SERVICE, RUNTIME_SERVICE
from edgesite.edge.edged.runtime import (
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
    Isolation,
    LinuxResources,
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
    SandboxStatus,
)
from edgesite.edge.edged.streams import StreamAddress, StreamOptions
from edgesite.kube.protowire import WireFormatError, decode
from edgesite.net.real import RealNet

__all__ = ["CriRuntime"]

PULL_TIMEOUT_S: Final = 3600.0  #: A pull may be long on a thin line; whoever no longer wants it cancels it.
FINISH_S: Final = 5.0  #: What a call that makes something is given to end when edgesite is being stopped.
_MAKING: Final = frozenset(
    {"RunPodSandbox", "StopPodSandbox", "RemovePodSandbox", "CreateContainer", "StartContainer", "RemoveContainer"}
)
STOP_MARGIN_S: Final = 60.0  #: Beyond the grace period: the runtime kills and cleans up in it.
_CUT_OFF: Final = ("context canceled", "signal: killed")  #: How containerd words a start whose caller has gone.
_EVENT_TYPES: Final = (
    ContainerEventType.CREATED,
    ContainerEventType.STARTED,
    ContainerEventType.STOPPED,
    ContainerEventType.DELETED,
)


class CriRuntime:
    """One CRI socket, or two where images have their own."""

    isolation = Isolation.CONTAINER

    def __init__(
        self,
        endpoint: str,
        image_endpoint: str,
        *,
        request_timeout_s: float,
        finish_s: float = FINISH_S,
        net: Net | None = None,
    ) -> None:
        """``net`` is this machine's own unless given. ``finish_s`` is how long a cancelled call that makes something may go on; 0 cuts it off, as a kill would."""
        self._net = net or RealNet()
        self._endpoint = endpoint
        self._image_endpoint = image_endpoint
        self._timeout_s = request_timeout_s
        self._finish_s = finish_s
        self._clients: list[CriClient] = []

    async def run(self, started: Callable[[], None]) -> None:
        runtime = CriClient(self._net, self._endpoint)
        same = self._image_endpoint in ("", self._endpoint)
        self._clients = [runtime, runtime if same else CriClient(self._net, self._image_endpoint)]
        try:
            started()
            await anyio.sleep_forever()
        finally:
            clients, self._clients = self._clients, []
            with anyio.move_on_after(5.0, shield=True):
                for client in {id(one): one for one in clients}.values():
                    await client.close()

    async def version(self) -> RuntimeVersion:
        answer = await self._call("Version", {"version": "v1"}, timeout_s=5.0)
        return RuntimeVersion(
            answer.get("runtime_name", ""),
            answer.get("runtime_version", ""),
            answer.get("runtime_api_version", ""),
            await self._cgroup_driver(),
        )

    async def _cgroup_driver(self) -> str:
        """Ask for it; older containerds tell it among their settings, others not at all."""
        try:
            linux = (await self._call("RuntimeConfig", {}, timeout_s=5.0)).get("linux")
            return "" if linux is None else "cgroupfs" if linux.get("cgroup_driver", 0) else "systemd"
        except RuntimeUnsupported:
            info = (await self._call("Status", {"verbose": True}, timeout_s=5.0)).get("info", {})
            return convert.cgroup_driver(info.get("config", ""))

    async def status(self) -> Sequence[RuntimeCondition]:
        answer = await self._call("Status", {}, timeout_s=10.0)
        return [
            RuntimeCondition(
                one.get("type", ""), one.get("status", False), one.get("reason", ""), one.get("message", "")
            )
            for one in answer.get("status", {}).get("conditions", ())
        ]

    async def user_namespaces(self, handler: str) -> bool:
        answer = await self._call("Status", {}, timeout_s=10.0)
        features = {one.get("name", ""): one.get("features", {}) for one in answer.get("runtime_handlers", ())}
        return bool(features.get(handler, {}).get("user_namespaces"))

    async def run_sandbox(self, config: SandboxConfig) -> str:
        body = {"config": convert.sandbox_config(config), "runtime_handler": config.runtime_handler}
        # Twice the usual deadline, as kubelet has it: the first sandbox may have to pull its own image.
        answer = await self._call("RunPodSandbox", body, timeout_s=2 * self._timeout_s)
        return str(answer.get("pod_sandbox_id", ""))

    async def stop_sandbox(self, sandbox_id: str) -> None:
        await self._forgiving("StopPodSandbox", {"pod_sandbox_id": sandbox_id})

    async def remove_sandbox(self, sandbox_id: str) -> None:
        await self._forgiving("RemovePodSandbox", {"pod_sandbox_id": sandbox_id})

    async def sandbox_status(self, sandbox_id: str) -> SandboxStatus:
        answer = await self._call("PodSandboxStatus", {"pod_sandbox_id": sandbox_id})
        return convert.sandbox_status(answer.get("status", {}))

    async def list_sandboxes(self, labels: Mapping[str, str] | None = None) -> Sequence[SandboxInfo]:
        answer = await self._call("ListPodSandbox", {"filter": {"label_selector": labels or {}}})
        return [convert.sandbox_info(one) for one in answer.get("items", ())]

    async def create_container(self, sandbox_id: str, config: ContainerConfig, sandbox: SandboxConfig) -> str:
        if (users := sandbox.security.namespaces.users) is not None:
            security = config.security
            namespaces = replace(security.namespaces, users=users)
            config = replace(config, security=replace(security, namespaces=namespaces))
        body = {
            "pod_sandbox_id": sandbox_id,
            "config": convert.container_config(config),
            "sandbox_config": convert.sandbox_config(sandbox),
        }
        answer = await self._call("CreateContainer", body)
        return str(answer.get("container_id", ""))

    async def start_container(self, container_id: str) -> None:
        await self._call("StartContainer", {"container_id": container_id})

    async def stop_container(self, container_id: str, grace_s: float) -> None:
        if (seconds := math.ceil(grace_s)) == grace_s:
            await self._stop(container_id, seconds)
            return
        # CRI counts whole seconds: a second call ends the wait of the first when the time is really over.
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._kill_after, container_id, grace_s)
            failure = None
            try:
                await self._stop(container_id, seconds)
            except RuntimeFault as exc:  # must not leave as part of a group
                failure = exc
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _stop(self, container_id: str, seconds: int) -> None:
        body = {"container_id": container_id, "timeout": seconds}
        await self._forgiving("StopContainer", body, timeout_s=seconds + STOP_MARGIN_S)

    async def _kill_after(self, container_id: str, grace_s: float) -> None:
        await anyio.sleep(grace_s)
        with contextlib.suppress(RuntimeFault):  # whoever waits for the stop itself hears of it
            await self._stop(container_id, 0)

    async def remove_container(self, container_id: str) -> None:
        try:
            await self._forgiving("RemoveContainer", {"container_id": container_id})
        except RuntimeFault as exc:
            if "cannot delete running task" in str(exc):
                await self._kill_lost_task(container_id)
            raise

    async def list_containers(
        self, sandbox_id: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Sequence[ContainerInfo]:
        body = {"filter": {"pod_sandbox_id": sandbox_id or "", "label_selector": labels or {}}}
        answer = await self._call("ListContainers", body)
        return [convert.container_info(one) for one in answer.get("containers", ())]

    async def container_status(self, container_id: str) -> ContainerStatus:
        answer = await self._call("ContainerStatus", {"container_id": container_id})
        status = convert.container_status(answer.get("status", {}))
        if status.reason == "StartError" and any(words in status.message for words in _CUT_OFF):
            # Its start was cut off by the end of an edgesite; whether the program runs is not known.
            return replace(status, state=ContainerState.UNKNOWN)
        return status

    async def update_resources(self, container_id: str, resources: LinuxResources) -> None:
        body = {"container_id": container_id, "linux": convert.linux_resources(resources)}
        await self._call("UpdateContainerResources", body)

    async def reopen_log(self, container_id: str) -> None:
        await self._call("ReopenContainerLog", {"container_id": container_id})

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_s: float) -> ExecResult:
        body = {"container_id": container_id, "cmd": list(command), "timeout": math.ceil(timeout_s)}
        # The runtime kills the command at its own deadline; ours is there for a runtime that hangs.
        answer = await self._call("ExecSync", body, timeout_s=timeout_s + 10.0 if timeout_s else None)
        return ExecResult(answer.get("stdout", b""), answer.get("stderr", b""), answer.get("exit_code", 0))

    async def exec(self, container_id: str, command: Sequence[str], options: StreamOptions) -> StreamAddress:
        body = {"container_id": container_id, "cmd": list(command), **_stream_fields(options)}
        return StreamAddress.of_url((await self._call("Exec", body)).get("url", ""))

    async def attach(self, container_id: str, options: StreamOptions) -> StreamAddress:
        body = {"container_id": container_id, **_stream_fields(options)}
        return StreamAddress.of_url((await self._call("Attach", body)).get("url", ""))

    async def port_forward(self, sandbox_id: str, ports: Sequence[int]) -> StreamAddress:
        body = {"pod_sandbox_id": sandbox_id, "port": list(ports)}
        return StreamAddress.of_url((await self._call("PortForward", body)).get("url", ""))

    async def container_stats(self, labels: Mapping[str, str] | None = None) -> Sequence[ContainerStats]:
        answer = await self._call("ListContainerStats", {"filter": {"label_selector": labels or {}}})
        return [convert.container_stats(one) for one in answer.get("stats", ())]

    async def list_images(self) -> Sequence[Image]:
        answer = await self._call("ListImages", {}, images=True)
        return [convert.image(one) for one in answer.get("images", ())]

    async def image_status(self, reference: str) -> Image | None:
        answer = await self._call("ImageStatus", {"image": {"image": reference}}, images=True)
        found = answer.get("image")
        return convert.image(found) if found else None

    async def pull_image(self, reference: str, auth: RegistryAuth | None = None) -> str:
        body: dict[str, Any] = {"image": {"image": reference}}
        if auth is not None:
            body["auth"] = {
                "username": auth.username,
                "password": auth.password,
                "server_address": auth.server,
                "identity_token": auth.identity_token,
            }
        answer = await self._call("PullImage", body, images=True, timeout_s=PULL_TIMEOUT_S)
        return str(answer.get("image_ref", ""))

    async def pull_progress(self) -> PullProgress | None:
        if (await self.version()).name != "containerd":
            return None
        call = ("/containerd.services.content.v1.Content/ListStatuses", CONTAINERD)
        client = self._client(images=True)
        names = ("ListStatusesRequest", "ListStatusesResponse")
        answer = await client.call(*call, *names, {}, self._timeout_s, namespace="k8s.io")
        found = answer.get("statuses", ())
        return PullProgress(sum(one.get("offset", 0) for one in found), sum(one.get("total", 0) for one in found))

    async def remove_image(self, reference: str) -> None:
        await self._forgiving("RemoveImage", {"image": {"image": reference}}, images=True)

    async def image_mounts(self, image_id: str, key: str) -> Sequence[HostMount]:
        if (await self.version()).name != "containerd":
            return ()  # others mount images themselves
        image = await self._call("ImageStatus", {"image": {"image": image_id}, "verbose": True}, images=True)
        status = await self._call("Status", {"verbose": True})
        return await mounts_of_image(self._call_containerd, image, status, key)

    async def forget_image_mounts(self, key: str) -> None:
        await remove_view(self._call_containerd, await self._call("Status", {"verbose": True}), key)

    async def _call_containerd(self, path: str, request: str, answer: str, body: dict[str, Any]) -> dict[str, Any]:
        client = self._client(images=True)
        return await client.call(path, SNAPSHOTS, request, answer, body, self._timeout_s, namespace="k8s.io")

    async def image_filesystems(self) -> Sequence[FilesystemUsage]:
        answer = await self._call("ImageFsInfo", {}, images=True)
        return [convert.filesystem(one) for one in answer.get("image_filesystems", ())]

    async def events(self) -> AsyncIterator[ContainerEvent]:
        about = await self.version()
        if about.name == "containerd" and about.version.removeprefix("v").startswith("1."):
            async for event in self._containerd_exits():
                yield event
        stream = self._client().stream(
            RUNTIME_SERVICE + "GetContainerEvents", CRI, "GetEventsRequest", "ContainerEventResponse", {}
        )
        async for one in stream:
            number = one.get("container_event_type", 0)
            uid = one.get("pod_sandbox_status", {}).get("metadata", {}).get("uid", "")
            if number < len(_EVENT_TYPES):
                yield ContainerEvent(one.get("container_id", ""), _EVENT_TYPES[number], uid)
        raise RuntimeUnavailable("the runtime ended its event stream")

    async def _containerd_exits(self) -> AsyncIterator[ContainerEvent]:
        stream = self._client().stream(
            "/containerd.services.events.v1.Events/Subscribe",
            CONTAINERD,
            "SubscribeRequest",
            "Envelope",
            {"filters": ['namespace==k8s.io,topic=="/tasks/exit"']},
        )
        async for envelope in stream:
            try:
                task = decode(CONTAINERD["TaskExit"], envelope.get("event", {}).get("value", b""))
            except WireFormatError:
                continue  # an event of a kind that we did not ask for
            container_id = task.get("container_id", "")
            if container_id and task.get("id", "") in ("", container_id):  # others are commands run inside it
                yield ContainerEvent(container_id, ContainerEventType.STOPPED, "")
        raise RuntimeUnavailable("containerd ended its event stream")

    async def _kill_lost_task(self, container_id: str) -> None:
        """End a process that containerd has and its CRI plugin does not know of, which is left by an interrupted start.

        Removing the container works once the end has been noticed, a moment later.
        """
        client, tasks = self._client(), "/containerd.services.tasks.v1.Tasks/"
        for name, request, body in (
            ("Kill", "KillRequest", {"container_id": container_id, "signal": 9, "all": True}),
            ("Delete", "DeleteTaskRequest", {"container_id": container_id}),
        ):
            # It may have ended meanwhile, or not yet be gone; other runtimes have no such service.
            with contextlib.suppress(RuntimeFault):
                await client.call(tasks + name, CONTAINERD, request, "Empty", body, self._timeout_s, namespace="k8s.io")

    def _client(self, images: bool = False) -> CriClient:
        if not self._clients:
            raise RuntimeUnavailable("the connection to the container runtime is closed")
        return self._clients[1 if images else 0]

    async def _call(
        self, name: str, body: Mapping[str, Any], *, images: bool = False, timeout_s: float | None = None
    ) -> dict[str, Any]:
        path = (IMAGE_SERVICE if images else RUNTIME_SERVICE) + name
        deadline_s = self._timeout_s if timeout_s is None else timeout_s
        return await self._client(images).call(
            path,
            CRI,
            f"{name}Request",
            f"{name}Response",
            body,
            deadline_s,
            finish_s=self._finish_s if name in _MAKING else 0.0,
        )

    async def _forgiving(
        self, name: str, body: Mapping[str, Any], *, images: bool = False, timeout_s: float | None = None
    ) -> None:
        """Call; what is already gone is as wanted."""
        try:
            await self._call(name, body, images=images, timeout_s=timeout_s)
        except NotInRuntime:
            return


def _stream_fields(options: StreamOptions) -> dict[str, Any]:
    """A terminal has one output: CRI wants stderr off with it."""
    return {
        "stdin": options.stdin,
        "stdout": options.stdout,
        "stderr": options.stderr and not options.tty,
        "tty": options.tty,
    }
