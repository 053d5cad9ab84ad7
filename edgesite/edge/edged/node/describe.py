"""What the Node object says: pure functions from facts to labels, capacity, conditions, status.

Source  KubeEdge v1.12 node object (labels and annotations of edge nodes); kubelet's condition reasons and texts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from edgesite.edge.edged.machine import MachineFacts
from edgesite.edge.edged.runtime import Image, Isolation
from edgesite.edge.edged.settings import EdgedSettings
from edgesite.kube.quantity import Format, InvalidQuantity, of, parse
from edgesite.kube.times import format_time

__all__ = ["allocatable_nano", "conditions", "new_node", "node_annotations", "node_labels", "node_status"]

KUBERNETES: Final = "v1.36.0"  #: the release whose node behaviour this is
ISOLATION: Final = "edgesite.kubeedge.io/isolation"
RESERVE_MEMORY: Final = "100Mi"
_NANO: Final = 10**9
_TEXTS: Final = {
    "MemoryPressure": (
        ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
    ),
    "DiskPressure": (
        ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("KubeletHasDiskPressure", "kubelet has disk pressure"),
    ),
    "PIDPressure": (
        ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
    ),
}


def node_labels(name: str, facts: MachineFacts, settings: EdgedSettings) -> dict[str, str]:
    return {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": facts.architecture,
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": facts.architecture,
        "node-role.kubernetes.io/edge": "",
        "node-role.kubernetes.io/agent": "",
        **settings.node_labels,
    }


def node_annotations(isolation: Isolation) -> dict[str, str]:
    return {"volumes.kubernetes.io/controller-managed-attach-detach": "true", ISOLATION: isolation.value}


def new_node(
    name: str, facts: MachineFacts, settings: EdgedSettings, isolation: Isolation, status: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the Node to register."""
    taints = [dict(one) for one in settings.taints]
    spec: dict[str, Any] = {}
    if not settings.register_schedulable:
        spec["unschedulable"] = True
        taints.append({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"})
    if taints:
        spec["taints"] = taints
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": node_labels(name, facts, settings),
            "annotations": node_annotations(isolation),
        },
        "spec": spec,
        "status": {**status, "daemonEndpoints": {"kubeletEndpoint": {"Port": settings.port}}},
    }


def _capacity_nano(facts: MachineFacts, settings: EdgedSettings) -> dict[str, int]:
    return {
        "cpu": facts.cpus * _NANO,
        "memory": facts.memory_bytes * _NANO,
        "ephemeral-storage": facts.disk_bytes * _NANO,
        "pods": settings.max_pods * _NANO,
        **{f"hugepages-{size}": amount * _NANO for size, amount in facts.huge_pages.items()},
    }


def allocatable_nano(facts: MachineFacts, settings: EdgedSettings) -> dict[str, int]:
    """Return what pods may use: the capacity without reserves and without what evictions keep free."""
    left = _capacity_nano(facts, settings)
    left["memory"] = max(left["memory"] - sum(facts.huge_pages.values()) * _NANO, 0)
    for reserve in settings.reserved:
        for resource, text in reserve.items():
            if resource in left:
                left[resource] = max(left[resource] - _amount(text), 0)
    for resource, signal in (("memory", "memory.available"), ("ephemeral-storage", "nodefs.available")):
        left[resource] = max(left[resource] - _threshold_nano(settings, signal, left[resource]), 0)
    return left


def _amount(text: str) -> int:
    try:
        return parse(text).nano
    except InvalidQuantity:
        return 0


def _threshold_nano(settings: EdgedSettings, signal: str, capacity: int) -> int:
    text = settings.eviction_hard.get(signal, "")
    if text.endswith("%"):
        return int(capacity * float(text[:-1]) / 100)
    return _amount(text) if text else 0


def _quantities(amounts: Mapping[str, int]) -> dict[str, str]:
    shown = {}
    for resource, nano in amounts.items():
        whole = nano // _NANO
        if resource == "cpu":
            milli = nano // 10**6
            shown[resource] = f"{milli}m" if milli % 1000 else str(milli // 1000)
        elif resource == "memory":
            shown[resource] = f"{whole // 1024}Ki"
        elif resource.startswith("hugepages-"):
            shown[resource] = str(of(whole, Format.BINARY_SI))
        else:
            shown[resource] = str(whole)
    return shown


def conditions(
    stress: Collection[str], problem: str | None, before: Iterable[Mapping[str, Any]], now: float
) -> list[dict[str, Any]]:
    """Return the node's conditions; ``stress`` names what is short, ``problem`` says why it cannot run pods, or None."""
    old = {one.get("type"): one for one in before}
    found = []
    for kind, texts in _TEXTS.items():
        holds = kind in stress
        reason, message = texts[holds]
        found.append(_condition(kind, holds, reason, message, old.get(kind), now))
    if problem is None:
        found.append(
            _condition("Ready", True, "KubeletReady", "kubelet is posting ready status", old.get("Ready"), now)
        )
    else:
        found.append(_condition("Ready", False, "KubeletNotReady", problem, old.get("Ready"), now))
    return found


def _condition(
    kind: str, holds: bool, reason: str, message: str, old: Mapping[str, Any] | None, now: float
) -> dict[str, Any]:
    word = "True" if holds else "False"
    stamp = format_time(now)
    since = old.get("lastTransitionTime") if old and old.get("status") == word else None
    return {
        "type": kind,
        "status": word,
        "lastHeartbeatTime": stamp,
        "lastTransitionTime": since or stamp,
        "reason": reason,
        "message": message,
    }


def node_status(
    name: str,
    facts: MachineFacts,
    settings: EdgedSettings,
    *,
    version: str,
    runtime_version: str,
    ips: Sequence[str],
    images: Iterable[Image],
    node_conditions: Sequence[Mapping[str, Any]],
    devices: Mapping[str, tuple[int, int]],
    volumes_in_use: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the Node's status, daemon endpoints aside: they are set once and then belong to the cloud."""
    kubelet = f"{KUBERNETES}-kubeedge-v{version}"
    return {
        "capacity": {
            **_quantities(_capacity_nano(facts, settings)),
            **{name: str(there) for name, (there, _) in devices.items()},
        },
        "allocatable": {
            **_quantities(allocatable_nano(facts, settings)),
            **{name: str(well) for name, (_, well) in devices.items()},
        },
        "conditions": list(node_conditions),
        "addresses": [*({"type": "InternalIP", "address": ip} for ip in ips), {"type": "Hostname", "address": name}],
        "nodeInfo": {
            "machineID": facts.machine_id,
            "systemUUID": facts.system_uuid,
            "bootID": facts.boot_id,
            "kernelVersion": facts.kernel,
            "osImage": facts.os_image,
            "containerRuntimeVersion": runtime_version,
            "kubeletVersion": kubelet,
            "kubeProxyVersion": kubelet,
            "operatingSystem": "linux",
            "architecture": facts.architecture,
        },
        "images": _images(images, settings.max_images_reported),
        "volumesInUse": list(volumes_in_use),
    }


def _images(images: Iterable[Image], most: int) -> list[dict[str, Any]]:
    largest = sorted(images, key=lambda one: (-one.size_bytes, one.id))
    chosen = largest if most < 0 else largest[:most]
    return [{"names": [*one.digests, *one.tags][:5], "sizeBytes": one.size_bytes} for one in chosen]
