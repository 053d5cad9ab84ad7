"""Which devices a container gets: counts, reuse between the containers of a pod, choice. Pure.

Errors  AllocationError with the words for the pod's status.
Source  Kubernetes device manager: init containers leave their devices to those after them, sidecars keep theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgesite.edge.edged.pod import Pod
from edgesite.kube.quantity import InvalidQuantity, parse

__all__ = ["Allocation", "AllocationError", "Device", "free_devices", "in_order", "is_extended", "wanted"]


class AllocationError(Exception):
    """A container cannot have the devices that it asks for."""


@dataclass(frozen=True, slots=True)
class Device:
    id: str
    healthy: bool
    nodes: tuple[int, ...] = ()  #: NUMA nodes


@dataclass(frozen=True, slots=True)
class Allocation:
    """Devices of one resource that one container has, and what its plugin gave with them."""

    uid: str
    container: str
    resource: str
    ids: tuple[str, ...]
    given: Mapping[str, Any] = field(default_factory=dict)  #: a ContainerAllocateResponse


def is_extended(name: str) -> bool:
    """Whether a resource can be a plugin's: named under a domain that is not Kubernetes' own."""
    domain, slash, rest = name.partition("/")
    return bool(slash and domain and rest) and not (domain == "kubernetes.io" or domain.endswith(".kubernetes.io"))


def wanted(container: Mapping[str, Any]) -> dict[str, int]:
    """Return how many of each extended resource a container asks for. Raises AllocationError."""
    found = {}
    for name, text in ((container.get("resources") or {}).get("limits") or {}).items():
        if is_extended(name):
            try:
                count = parse(str(text)).value()
            except InvalidQuantity as exc:
                raise AllocationError(f"requested number of devices {text!r} of {name} cannot be read") from exc
            if count > 0:
                found[name] = count
    return found


def in_order(pod: Pod) -> Iterator[tuple[dict[str, Any], bool]]:
    """Give the containers as they get their devices, and whether those are free again for the ones after them."""
    for one in pod.init_containers:
        yield one, not pod.is_sidecar(one)
    for one in pod.containers:
        yield one, False


def free_devices(devices: Iterable[Device], allocations: Iterable[Allocation], resource: str) -> list[str]:
    """Return the healthy devices that nobody has, in order."""
    taken = {one for held in allocations if held.resource == resource for one in held.ids}
    return sorted(one.id for one in devices if one.healthy and one.id not in taken)
