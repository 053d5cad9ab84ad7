"""From requests and limits to cgroups: QoS classes, CPU shares and quotas, memory limits, OOM scores, parent cgroups.

Units   CPU periods and quotas are microseconds.
Source  Kubernetes: "Pod Quality of Service Classes"; kubelet's conversion of CPU (1 CPU = 1024 shares, at least 2) and its OOM scores.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from edgesite.edge.edged.pod import Pod, amount_nano, effective_amount, effective_requests
from edgesite.edge.edged.podcgroups import CgroupLimits
from edgesite.edge.edged.runtime import LinuxResources

__all__ = [
    "SwapRule",
    "cgroup_parent",
    "cgroup_parents",
    "cpu_shares",
    "is_critical",
    "linux_resources",
    "oom_score_adj",
    "pod_limits",
    "qos_class",
]

GUARANTEED: Final = "Guaranteed"
BURSTABLE: Final = "Burstable"
BEST_EFFORT: Final = "BestEffort"
NODE_CRITICAL: Final = 2_000_000_000  #: Priority from which on a pod is killed last.
SYSTEM_CRITICAL: Final = 2_000_000_000
_MIN_SHARES: Final = 2
_MAX_SHARES: Final = 262_144
_MIN_QUOTA_US: Final = 1000
_NANO: Final = 10**9


def is_critical(pod: Pod) -> bool:
    """Whether the node keeps the pod whatever happens: its own static pods, and those of the highest priorities."""
    return (pod.spec.get("priority") or 0) >= SYSTEM_CRITICAL or pod.is_static


def qos_class(pod: Pod) -> str:
    """Return Guaranteed, Burstable or BestEffort."""
    containers = pod.init_containers + pod.containers
    named = [(one, resource) for one in containers for resource in ("cpu", "memory")]
    if not any(amount_nano(one, kind, resource) for one, resource in named for kind in ("requests", "limits")):
        return BEST_EFFORT
    for one, resource in named:
        limit = amount_nano(one, "limits", resource)
        request = amount_nano(one, "requests", resource)
        if not limit or request not in (0, limit):
            return BURSTABLE
    return GUARANTEED


def oom_score_adj(pod: Pod, container: dict[str, Any], memory_capacity_bytes: int) -> int:
    """Return how early the kernel shall kill this container when memory runs out."""
    if (pod.spec.get("priority") or 0) >= NODE_CRITICAL:
        return -997
    qos = qos_class(pod)
    if qos == GUARANTEED:
        return -997
    if qos == BEST_EFFORT:
        return 1000
    request = amount_nano(container, "requests", "memory") // _NANO
    score = 1000 - 1000 * request // max(memory_capacity_bytes, 1)
    # Kept apart from the classes on both sides.
    return min(max(score, 3), 999)


@dataclass(frozen=True, slots=True)
class SwapRule:
    """How containers may use the host's swap."""

    behavior: str = ""  #: NoSwap, LimitedSwap; "" has no say
    total_bytes: int = 0
    unified: bool = False


def swap_bytes(pod: Pod, container: dict[str, Any], rule: SwapRule, memory_capacity_bytes: int) -> int | None:
    """Return how much swap a container may use; None has no say.

    LimitedSwap gives containers of Burstable pods their memory request's part of it, except critical ones and those whose request
    is their limit.
    """
    if not rule.total_bytes or rule.behavior not in ("NoSwap", "LimitedSwap"):
        return None
    request, limit = (amount_nano(container, kind, "memory") // _NANO for kind in ("requests", "limits"))
    mild = rule.behavior == "NoSwap" or not rule.unified or qos_class(pod) != BURSTABLE or is_critical(pod)
    if mild or not request or request == limit:
        return 0
    return rule.total_bytes * request // max(memory_capacity_bytes, 1)


def linux_resources(
    pod: Pod,
    container: dict[str, Any],
    memory_capacity_bytes: int,
    *,
    cfs_quota: bool = True,
    period_us: int = 100_000,
    swap: SwapRule = SwapRule(),
    huge_pages: Iterable[str] = (),
) -> LinuxResources:
    """Return the limits of one container; ``huge_pages`` are the sizes that the node has ("2Mi")."""
    memory = amount_nano(container, "limits", "memory") // _NANO
    swapped = swap_bytes(pod, container, swap, memory_capacity_bytes)
    request = amount_nano(container, "requests", "cpu")
    limit = amount_nano(container, "limits", "cpu")
    shares = cpu_shares(request or limit)
    quota = _quota_us(limit, period_us) if cfs_quota else 0
    return LinuxResources(
        huge_pages={one: amount_nano(container, "limits", f"hugepages-{one}") // _NANO for one in huge_pages},
        cpu_period_us=period_us if quota else 0,
        cpu_quota_us=quota,
        cpu_shares=shares,
        memory_bytes=memory,
        oom_score_adj=oom_score_adj(pod, container, memory_capacity_bytes),
        memory_swap_bytes=memory if swapped is not None and not swap.unified else 0,
        unified={"memory.swap.max": str(swapped)} if swapped is not None and swap.unified else {},
    )


def cpu_shares(nano: int) -> int:
    """Return the shares that stand for billionths of a CPU."""
    return min(max(-(-nano // 10**6) * 1024 // 1000, _MIN_SHARES), _MAX_SHARES)


def _quota_us(nano: int, period_us: int) -> int:
    return max(-(-nano // 10**6) * period_us // 1000, _MIN_QUOTA_US) if nano else 0


def pod_limits(
    pod: Pod, *, cfs_quota: bool = True, period_us: int = 100_000, pids: int = 0, huge_pages: Iterable[str] = ()
) -> CgroupLimits:
    """Return what a pod's containers may use together: no more than a limit where each of them has one. ``huge_pages`` are the sizes
    that the node has ("2Mi")."""
    containers = (*pod.init_containers, *pod.containers)

    def most(resource: str) -> int:
        if not containers or not all(amount_nano(one, "limits", resource) for one in containers):
            return 0
        return effective_amount(pod, lambda one: amount_nano(one, "limits", resource), resource)

    quota = _quota_us(most("cpu"), period_us) if cfs_quota else 0
    return CgroupLimits(
        cpu_shares=cpu_shares(effective_requests(pod, "cpu")),
        cpu_quota_us=quota,
        cpu_period_us=period_us,
        memory_bytes=most("memory") // _NANO,
        pids=pids,
        huge_pages=tuple(
            (f"{size.removesuffix('i')}B", effective_requests(pod, f"hugepages-{size}") // _NANO) for size in huge_pages
        ),
    )


def cgroup_parent(pod: Pod, driver: str, root: str = "") -> str:
    """Return the cgroup that holds the pod's containers, in the form that the driver (cgroupfs, systemd) wants."""
    qos = qos_class(pod)
    if driver == "systemd":
        base = "kubepods" if qos == GUARANTEED else f"kubepods-{qos.lower()}"
        return f"{base}-pod{pod.uid.replace('-', '_')}.slice"
    guaranteed, burstable, best_effort = cgroup_parents(pod.uid, root)
    return {GUARANTEED: guaranteed, BURSTABLE: burstable, BEST_EFFORT: best_effort}[qos]


def cgroup_parents(uid: str, root: str = "") -> tuple[str, str, str]:
    """Return where the cgroupfs driver has a pod, by its class: guaranteed, burstable, best effort."""
    base = f"{root.rstrip('/')}/kubepods"
    return f"{base}/pod{uid}", f"{base}/burstable/pod{uid}", f"{base}/besteffort/pod{uid}"
