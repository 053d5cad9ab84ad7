"""Whether this node takes a pod: room and host ports. A pod that was taken once is never refused later.

Labels are the scheduler's to compare: what this node last heard of its own may be older than what it was chosen by.

Source  kubelet's admission: reasons OutOfcpu, OutOfmemory, OutOfpods, NodePorts, Evicted (node pressure), SysctlForbidden, NodeShutdown.
"""

from __future__ import annotations

from typing import Final

from edgesite.edge.edged.devices.allocation import AllocationError
from edgesite.edge.edged.events import WARNING
from edgesite.edge.edged.pod import Pod, effective_requests
from edgesite.edge.edged.resources import BEST_EFFORT, is_critical, qos_class
from edgesite.edge.edged.runtime import PortMapping
from edgesite.edge.edged.services import NodeFacts, PodServices
from edgesite.edge.edged.specs import host_ports
from edgesite.edge.edged.state import PodState, Rejection
from edgesite.edge.edged.sysctls import forbidden_sysctl

__all__ = ["AdmissionStage", "ports_collide", "refusal"]

MEMORY_TAINT: Final = "node.kubernetes.io/memory-pressure"
_ANY_ADDRESS: Final = frozenset({"", "0.0.0.0", "::"})


class AdmissionStage:
    def __init__(self, services: PodServices) -> None:
        self._services = services

    async def setup(self, state: PodState) -> None:
        if state.admitted or state.rejection is not None:
            return
        known = state.sandboxes or state.containers or state.pod.status.get("startTime")
        if not known:
            others = [
                one.pod
                for one in self._services.pods()
                if one is not state and one.admitted and not (one.finished or one.released)
            ]
            state.rejection = await self._without_devices(state)
            state.rejection = state.rejection or refusal(state.pod, self._services.node, others)
        if state.rejection is None:
            state.admitted = True
        else:
            reason, message = state.rejection.reason, state.rejection.message
            self._services.events.report(state.pod.reference(), WARNING, reason, message)

    async def _without_devices(self, state: PodState) -> Rejection | None:
        try:
            await self._services.devices.allocate(state.pod)
        except AllocationError as exc:
            return Rejection("UnexpectedAdmissionError", f"Allocate failed due to {exc}, which is unexpected")
        return None

    async def teardown(self, state: PodState) -> None:
        """Nothing was made: devices are given on as soon as their pod has ended."""


def refusal(pod: Pod, node: NodeFacts, others: list[Pod]) -> Rejection | None:
    """Return why ``node``, which runs ``others``, cannot take the pod, or None if it can."""
    if node.shutting_down:
        return Rejection("NodeShutdown", "Pod was rejected as the node is shutting down.")
    if under := _pressure(pod, node.stress):
        return Rejection("Evicted", f"The node had condition: [{', '.join(under)}]. ")
    if (name := forbidden_sysctl(pod, node.allowed_sysctls)) is not None:
        return Rejection("SysctlForbidden", f'forbidden sysctl: "{name}" not allowlisted')
    if len(others) >= node.max_pods:
        return _out_of("pods", 1, len(others), node.max_pods)
    huge_pages = [name for name in node.allocatable_nano if name.startswith("hugepages-")]
    for resource in ("cpu", "memory", "ephemeral-storage", *huge_pages):
        wanted = effective_requests(pod, resource)
        capacity = node.allocatable_nano.get(resource, 0)
        used = sum(effective_requests(one, resource) for one in others)
        if wanted and (capacity or resource in huge_pages) and used + wanted > capacity:
            unit = 10**6 if resource == "cpu" else 10**9
            return _out_of(resource, wanted // unit, used // unit, capacity // unit)
    taken = [port for one in others for port in host_ports(one)]
    if any(ports_collide(port, other) for port in host_ports(pod) for other in taken):
        return Rejection(
            "NodePorts",
            "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
        )
    return None


def _pressure(pod: Pod, stress: frozenset[str]) -> list[str]:
    """What the node is short of, so that it does not take the pod. With memory alone short, pods that asked for some are taken."""
    if not stress or is_critical(pod):
        return []
    if stress == {"MemoryPressure"} and (qos_class(pod) != BEST_EFFORT or _tolerates_memory_pressure(pod)):
        return []
    return sorted(stress)


def _tolerates_memory_pressure(pod: Pod) -> bool:
    for one in pod.spec.get("tolerations") or ():
        key, operator = one.get("key") or "", one.get("operator") or "Equal"
        matches = key == MEMORY_TAINT or (not key and operator == "Exists")
        if matches and one.get("effect") in (None, "", "NoSchedule"):
            return operator == "Exists" or not one.get("value")
    return False


def _out_of(resource: str, wanted: int, used: int, capacity: int) -> Rejection:
    text = f"Pod was rejected: Node didn't have enough resource: {resource}, requested: {wanted}, used: {used}, capacity: {capacity}"
    return Rejection(f"OutOf{resource}", text)


def ports_collide(one: PortMapping, other: PortMapping) -> bool:
    """Whether two ports of the host cannot be had at the same time."""
    if (one.host_port, one.protocol) != (other.host_port, other.protocol) or not one.host_port:
        return False
    return one.host_ip == other.host_ip or bool({one.host_ip, other.host_ip} & _ANY_ADDRESS)
