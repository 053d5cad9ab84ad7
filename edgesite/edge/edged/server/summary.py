"""/stats/summary: what the node and its pods use, as kubelet's Summary.

Units   As the field names say; times are RFC 3339.
Errors  None.
State   `Rates` keeps one earlier sample of each container and of the node, from which the use of CPU at present follows.
Source  kubelet's stats API v1alpha1 (field names); rates over at least `RATE_S`, as cAdvisor's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from edgesite.edge.edged.podusage import FsUsage, Interface, PodDetails, VolumeUsage
from edgesite.edge.edged.runtime import FilesystemUsage
from edgesite.edge.edged.server.nodeusage import DiskUsage, NodeUsage
from edgesite.edge.edged.server.source import ContainerUsage, PodUsage
from edgesite.kube import times

__all__ = ["FIRST_RATE_S", "Rates", "summary"]

RATE_S: Final = 5.0
FIRST_RATE_S: Final = 1.0  #: for the first rate of all
_NODE: Final = ""
_NO_DETAILS: Final = PodDetails()

Object = dict[str, Any]


class Rates:
    """Nanocores from counters, by name; names that are not asked for any more are forgotten with the next `keep`."""

    def __init__(self) -> None:
        self._samples: dict[str, tuple[int, int, int]] = {}  # time, counter, last rate (-1: none yet)

    def rate(self, name: str, at_ns: int, cpu_ns: int) -> int | None:
        """Return the use since an earlier sample, None with the first."""
        before = self._samples.get(name)
        if before is None or cpu_ns < before[1]:
            self._samples[name] = (at_ns, cpu_ns, -1)
            return None
        passed = at_ns - before[0]
        if passed < (RATE_S if before[2] >= 0 else FIRST_RATE_S) * 1e9:
            return before[2] if before[2] >= 0 else None
        found = (cpu_ns - before[1]) * 10**9 // passed
        self._samples[name] = (at_ns, cpu_ns, found)
        return found

    def keep(self, names: Iterable[str]) -> None:
        kept = set(names)
        self._samples = {name: one for name, one in self._samples.items() if name in kept}


def summary(
    node_name: str,
    node: NodeUsage,
    disk: DiskUsage,
    pods: Sequence[PodUsage],
    rates: Rates,
    now_ns: int,
    details: Mapping[str, PodDetails] | None = None,
    image_disk: FilesystemUsage | None = None,
) -> Object:
    """Return the Summary. ``details`` are of pods, by uid."""
    rates.keep([_NODE, *(one.stats.id for pod in pods for one in pod.containers)])
    now = times.format_time(now_ns / 1e9)
    memory = {
        "time": now,
        "availableBytes": node.available_bytes,
        "usageBytes": node.usage_bytes,
        "workingSetBytes": node.working_set_bytes,
        "rssBytes": node.rss_bytes,
    }
    fs = {
        "time": now,
        "availableBytes": disk.available_bytes,
        "capacityBytes": disk.capacity_bytes,
        "usedBytes": disk.used_bytes,
        "inodes": disk.inodes,
        "inodesFree": disk.inodes_free,
        "inodesUsed": disk.inodes - disk.inodes_free,
    }
    return {
        "node": {
            "nodeName": node_name,
            "startTime": times.format_time(node.booted_ns / 1e9),
            "cpu": _cpu(now, node.cpu_ns, rates.rate(_NODE, now_ns, node.cpu_ns)),
            "memory": memory,
            "fs": fs,
            "network": _network(node.interfaces, now, node.default_interface),
            "rlimit": {"time": now, "maxpid": node.tasks_most, "curproc": node.tasks},
            "swap": {"time": now, "swapAvailableBytes": node.swap_available_bytes, "swapUsageBytes": node.swap_bytes},
            "runtime": {"imageFs": fs | _of_images(image_disk)},
        },
        "pods": [_pod(one, rates, now, (details or {}).get(one.uid, _NO_DETAILS)) for one in pods],
    }


def _of_images(disk: FilesystemUsage | None) -> Object:
    return {"usedBytes": disk.used_bytes, "inodesUsed": disk.inodes} if disk is not None else {}


def _network(interfaces: Sequence[Interface], now: str, default: str = "") -> Object:
    """The default interface's figures stand at the top, too, as kubelet has them."""
    shown = [
        {
            "name": one.name,
            "rxBytes": one.rx_bytes,
            "rxErrors": one.rx_errors,
            "txBytes": one.tx_bytes,
            "txErrors": one.tx_errors,
        }
        for one in interfaces
    ]
    first = next((one for one in shown if one["name"] == (default or "eth0")), shown[0] if shown else {})
    return {"time": now, **first, "interfaces": shown}


def _fs(fs: FsUsage, now: str) -> Object:
    found: Object = {
        "time": now,
        "availableBytes": fs.available_bytes,
        "capacityBytes": fs.capacity_bytes,
        "inodes": fs.inodes,
        "inodesFree": fs.inodes_free,
    }
    if fs.used_bytes is not None:
        found |= {"usedBytes": fs.used_bytes, "inodesUsed": fs.inodes_used}
    return found


def _volume(volume: VolumeUsage, namespace: str, now: str) -> Object:
    claim = {"pvcRef": {"name": volume.claim, "namespace": namespace}} if volume.claim else {}
    return {"name": volume.name, **_fs(volume.fs, now), **claim}


def _pod(pod: PodUsage, rates: Rates, now: str, details: PodDetails) -> Object:
    containers = [_container(one, rates) for one in pod.containers]
    for one in containers:
        if (logs := details.logs.get(one["name"])) is not None:
            one["logs"] = _fs(logs, now)
    nanocores = [one["cpu"]["usageNanoCores"] for one in containers if "usageNanoCores" in one["cpu"]]
    cpu_ns = sum(one.stats.cpu_ns for one in pod.containers)
    found: Object = {
        "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "startTime": pod.started or now,
        "containers": containers,
        "cpu": _cpu(now, cpu_ns, sum(nanocores) if len(nanocores) == len(containers) else None),
        "memory": {
            "time": now,
            "usageBytes": sum(one.stats.memory_usage_bytes for one in pod.containers),
            "workingSetBytes": sum(one.stats.memory_working_set_bytes for one in pod.containers),
            "rssBytes": sum(one.stats.memory_rss_bytes for one in pod.containers),
        },
    }
    if details.interfaces:
        found["network"] = _network(details.interfaces, now)
    if details.volumes:
        found["volume"] = [_volume(one, pod.namespace, now) for one in details.volumes]
    local = [one.fs.used_bytes or 0 for one in details.volumes if one.is_local]
    parts = [one.get(part, {}).get("usedBytes", 0) for one in containers for part in ("rootfs", "logs")]
    found["ephemeral-storage"] = {"time": now, "usedBytes": sum(local) + sum(parts)}
    return found


def _container(container: ContainerUsage, rates: Rates) -> Object:
    stats = container.stats
    at = times.format_time(stats.at_ns / 1e9)
    found: Object = {
        "name": stats.name,
        "startTime": times.format_time(container.started_ns / 1e9),
        "cpu": _cpu(at, stats.cpu_ns, rates.rate(stats.id, stats.at_ns, stats.cpu_ns)),
        "memory": {
            "time": at,
            "usageBytes": stats.memory_usage_bytes,
            "workingSetBytes": stats.memory_working_set_bytes,
            "rssBytes": stats.memory_rss_bytes,
        },
    }
    layer = stats.writable_layer
    if layer is not None:
        found["rootfs"] = {
            "time": times.format_time(layer.at_ns / 1e9),
            "usedBytes": layer.used_bytes,
            "inodesUsed": layer.inodes,
        }
    return found


def _cpu(at: str, cpu_ns: int, nanocores: int | None) -> Object:
    found: Object = {"time": at, "usageCoreNanoSeconds": cpu_ns}
    if nanocores is not None:
        found["usageNanoCores"] = nanocores
    return found
