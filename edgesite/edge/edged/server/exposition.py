"""/metrics/resource, /metrics/cadvisor and /metrics/probes: what node and pods use, and how probes went, in Prometheus' text format.

Units   Seconds, bytes; samples carry the time at which they were taken, in milliseconds.
Errors  None.
State   None.
Source  kubelet's resource metrics (names and labels, as metrics-server reads them); cAdvisor's names for containers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from edgesite.edge.edged.server.nodeusage import NodeUsage
from edgesite.edge.edged.server.source import ContainerUsage, PodUsage, ProbeCount

__all__ = ["CONTENT_TYPE", "cadvisor", "probes", "resource"]

CONTENT_TYPE: Final = b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n"
Value = Callable[[ContainerUsage], float]


def _cpu(one: ContainerUsage) -> float:
    return one.stats.cpu_ns / 1e9


def _working_set(one: ContainerUsage) -> float:
    return one.stats.memory_working_set_bytes


def _started(one: ContainerUsage) -> float:
    return one.started_ns / 1e9


_CADVISOR: Final[tuple[tuple[str, str, str, Value], ...]] = (
    ("container_cpu_usage_seconds_total", "counter", "CPU time used", _cpu),
    ("container_memory_working_set_bytes", "gauge", "Memory that cannot be reclaimed", _working_set),
    ("container_memory_usage_bytes", "gauge", "Memory used", lambda one: one.stats.memory_usage_bytes),
    ("container_memory_rss", "gauge", "Anonymous memory", lambda one: one.stats.memory_rss_bytes),
    (
        "container_fs_usage_bytes",
        "gauge",
        "Bytes in the writable layer",
        lambda one: one.stats.writable_layer.used_bytes if one.stats.writable_layer is not None else 0,
    ),
    ("container_start_time_seconds", "gauge", "Start, seconds since the epoch", _started),
    ("container_last_seen", "gauge", "Last seen, seconds since the epoch", lambda one: one.stats.at_ns / 1e9),
)


class _Text:
    """Collects lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def family(self, name: str, kind: str, text: str) -> None:
        self.lines += (f"# HELP {name} {text}", f"# TYPE {name} {kind}")

    def sample(self, name: str, value: float, at_ns: int = 0, /, **labels: str) -> None:
        shown = ",".join([f'{key}="{_escaped(text)}"' for key, text in labels.items()])
        stamp = f" {at_ns // 1_000_000}" if at_ns else ""
        self.lines.append(f"{name}{{{shown}}} {value!r}{stamp}" if shown else f"{name} {value!r}{stamp}")

    def encode(self) -> bytes:
        return ("\n".join(self.lines) + "\n").encode()


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def resource(node: NodeUsage, pods: Sequence[PodUsage], now_ns: int) -> bytes:
    """Return the resource metrics."""
    out = _Text()
    for name, kind, value in (
        ("container_cpu_usage_seconds_total", "counter", _cpu),
        ("container_memory_working_set_bytes", "gauge", _working_set),
        ("container_start_time_seconds", "gauge", _started),
    ):
        out.family(name, kind, "Of a container")
        for pod in pods:
            for one in pod.containers:
                labels = {"container": one.stats.name, "namespace": pod.namespace, "pod": pod.name}
                out.sample(name, value(one), one.stats.at_ns, **labels)
    out.family("node_cpu_usage_seconds_total", "counter", "Of the node")
    out.sample("node_cpu_usage_seconds_total", node.cpu_ns / 1e9, now_ns)
    out.family("node_memory_working_set_bytes", "gauge", "Of the node")
    out.sample("node_memory_working_set_bytes", node.working_set_bytes, now_ns)
    for name, kind, value in (
        ("pod_cpu_usage_seconds_total", "counter", _cpu),
        ("pod_memory_working_set_bytes", "gauge", _working_set),
    ):
        out.family(name, kind, "Of a pod's containers")
        for pod in pods:
            total = sum(value(one) for one in pod.containers)
            out.sample(name, total, now_ns, namespace=pod.namespace, pod=pod.name)
    for name in ("scrape_error", "resource_scrape_error"):  # the old name, and the new
        out.family(name, "gauge", "1 if something could not be measured")
        out.sample(name, 0)
    return out.encode()


def cadvisor(node: NodeUsage, pods: Sequence[PodUsage]) -> bytes:
    """Return metrics of containers under cAdvisor's names."""
    out = _Text()
    for name, kind, text, value in _CADVISOR:
        out.family(name, kind, text)
        for pod in pods:
            for one in pod.containers:
                labels = {
                    "container": one.stats.name,
                    "id": f"/kubepods/pod{pod.uid}/{one.stats.id}",
                    "image": one.image,
                    "name": one.stats.id,
                    "namespace": pod.namespace,
                    "pod": pod.name,
                }
                if kind == "counter":
                    labels = {"cpu": "total", **labels}
                out.sample(name, value(one), one.stats.at_ns, **labels)
    out.family("machine_cpu_cores", "gauge", "CPUs of the node")
    out.sample("machine_cpu_cores", node.cpus)
    out.family("machine_memory_bytes", "gauge", "Memory of the node")
    out.sample("machine_memory_bytes", node.memory_bytes)
    return out.encode()


def probes(counts: Sequence[ProbeCount]) -> bytes:
    """Return the results of probes."""
    out = _Text()
    out.family("prober_probe_total", "counter", "Results of probes of containers")
    for one in counts:
        out.sample(
            "prober_probe_total",
            one.count,
            container=one.container,
            namespace=one.namespace,
            pod=one.pod,
            pod_uid=one.uid,
            probe_type=one.probe,
            result=one.result,
        )
    return out.encode()
