"""Tells programs on this node which containers have which devices: monitoring of devices, for one.

    <root>/pod-resources/kubelet.sock      List, Get, GetAllocatableResources

CPUs and memory are given to nobody alone here, so these lists are empty, as a kubelet's with its default policies are.

Errors  OSError if the folder or the socket cannot be made; a question about a pod that is not here is answered NOT_FOUND.
State   The listening socket.
Source  Kubernetes pod resources API v1, service PodResourcesLister: names and numbers; which pods and containers are told of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.kube.protowire import Messages, WireFormatError, decode, encode
from edgesite.net.grpc import Code, GrpcError
from edgesite.net.grpc_server import GrpcServer

if TYPE_CHECKING:
    from edgesite.context import Net, Threads
    from edgesite.edge.edged.devices.allocation import Device
    from edgesite.edge.edged.devices.manager import DeviceManager
    from edgesite.edge.edged.pod import Pod

__all__ = ["POD_RESOURCES", "SERVICE", "PodResourcesServer"]

SOCKET: Final = "kubelet.sock"
SERVICE: Final = "/v1.PodResourcesLister/"
POD_RESOURCES: Final = Messages(
    """
AllocatableResourcesRequest: (empty)
AllocatableResourcesResponse: devices repeated ContainerDevices = 1; cpu_ids repeated int64 = 2; memory repeated ContainerMemory = 3
ContainerDevices: resource_name string = 1; device_ids repeated string = 2; topology TopologyInfo = 3
ContainerMemory: memory_type string = 1; size uint64 = 2; topology TopologyInfo = 3
ContainerResources: name string = 1; devices repeated ContainerDevices = 2; cpu_ids repeated int64 = 3; memory repeated ContainerMemory = 4
GetPodResourcesRequest: pod_name string = 1; pod_namespace string = 2
GetPodResourcesResponse: pod_resources PodResources = 1
ListPodResourcesRequest: (empty)
ListPodResourcesResponse: pod_resources repeated PodResources = 1
NUMANode: ID int64 = 1
PodResources: name string = 1; namespace string = 2; containers repeated ContainerResources = 3
TopologyInfo: nodes repeated NUMANode = 1
"""
)
Object = dict[str, Any]


class PodResourcesServer:
    def __init__(
        self, folder: Path, manager: DeviceManager, pods: Callable[[], Iterable[Pod]], net: Net, threads: Threads
    ) -> None:
        """``pods`` gives those that run here, or are about to."""
        self._folder, self._manager, self._pods, self._net, self._threads = folder, manager, pods, net, threads

    async def run(self) -> None:
        """Serve until cancelled. Raises OSError."""
        socket = self._folder / SOCKET
        await self._threads.run(_make_room, socket)
        handlers = {
            f"{SERVICE}List": self._list,
            f"{SERVICE}Get": self._get,
            f"{SERVICE}GetAllocatableResources": self._allocatable,
        }
        async with GrpcServer(handlers) as server:
            await server.listen(self._net, f"unix://{socket}")
            await anyio.sleep_forever()

    async def _list(self, data: bytes) -> bytes:
        found = [self._of(pod) for pod in self._pods()]
        return encode(POD_RESOURCES["ListPodResourcesResponse"], {"pod_resources": found})

    async def _get(self, data: bytes) -> bytes:
        """Raises GrpcError."""
        try:
            said = decode(POD_RESOURCES["GetPodResourcesRequest"], data)
        except WireFormatError as exc:
            raise GrpcError(Code.INVALID_ARGUMENT, str(exc)) from exc
        namespace, name = said.get("pod_namespace", ""), said.get("pod_name", "")
        pod = next((one for one in self._pods() if (one.namespace, one.name) == (namespace, name)), None)
        if pod is None:
            raise GrpcError(Code.NOT_FOUND, f"pod {name} in namespace {namespace} not found")
        return encode(POD_RESOURCES["GetPodResourcesResponse"], {"pod_resources": self._of(pod)})

    async def _allocatable(self, data: bytes) -> bytes:
        found = [
            _told(resource, one.id, one)
            for resource, devices in sorted(self._manager.devices().items())
            for one in devices
            if one.healthy
        ]
        return encode(POD_RESOURCES["AllocatableResourcesResponse"], {"devices": found})

    def _of(self, pod: Pod) -> Object:
        """What the containers have that live as long as the pod."""
        devices = {(resource, one.id): one for resource, there in self._manager.devices().items() for one in there}
        held: dict[str, list[Object]] = {}
        for given in self._manager.of_containers():
            if given.uid == pod.uid:
                held.setdefault(given.container, []).extend(
                    _told(given.resource, one, devices.get((given.resource, one))) for one in given.ids
                )
        lasting = [*(one for one in pod.init_containers if pod.is_sidecar(one)), *pod.containers]
        containers = [{"name": one["name"], "devices": held.get(one["name"], [])} for one in lasting]
        return {"name": pod.name, "namespace": pod.namespace, "containers": containers}


def _told(resource: str, device: str, known: Device | None) -> Object:
    told: Object = {"resource_name": resource, "device_ids": [device]}
    if known is not None and known.nodes:
        told["topology"] = {"nodes": [{"ID": one} for one in known.nodes]}
    return told


def _make_room(socket: Path) -> None:
    socket.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
    socket.unlink(missing_ok=True)
