"""What the kubelet API tells of use: rates from samples, the Summary, and Prometheus' text."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from edgesite.edge.edged.podusage import FsUsage, Interface, PodDetails, VolumeUsage, interfaces
from edgesite.edge.edged.runtime import ContainerStats, FilesystemUsage
from edgesite.edge.edged.server.exposition import cadvisor, probes, resource
from edgesite.edge.edged.server.nodeusage import DiskUsage, NodeUsage, node_usage
from edgesite.edge.edged.server.source import ContainerUsage, PodUsage, ProbeCount
from edgesite.edge.edged.server.summary import Rates, summary

SECOND = 10**9
NODE = NodeUsage(SECOND, 4, 50 * SECOND, 1000, 400, 600, 700, 300)
DISK = DiskUsage(100, 40, 55, 10, 4)


def pod(at_s: float, cpu_s: float) -> PodUsage:
    layer = FilesystemUsage("/", 77, 3, int(at_s * SECOND))
    stats = ContainerStats("id1", "main", {}, int(at_s * SECOND), int(cpu_s * SECOND), 2048, 4096, 1024, layer)
    return PodUsage("default", "web", "uid1", "2026-11-20T05:28:16Z", [ContainerUsage('im"age', 2 * SECOND, stats)])


def test_rates_need_two_samples_and_hold_for_a_while() -> None:
    rates = Rates()
    assert rates.rate("a", 10 * SECOND, 1 * SECOND) is None
    assert rates.rate("a", int(10.5 * SECOND), 2 * SECOND) is None  # too soon
    assert rates.rate("a", 12 * SECOND, 2 * SECOND) == SECOND // 2
    assert rates.rate("a", 14 * SECOND, 9 * SECOND) == SECOND // 2  # not anew within five seconds
    assert rates.rate("a", 22 * SECOND, 4 * SECOND) == SECOND // 5
    assert rates.rate("a", 30 * SECOND, 1 * SECOND) is None  # the counter began anew
    rates.keep(["b"])
    assert rates.rate("a", 60 * SECOND, 2 * SECOND) is None


def test_summary() -> None:
    rates = Rates()
    summary("n1", NODE, DISK, [pod(100, 1)], rates, 100 * SECOND)
    told = summary("n1", NODE, DISK, [pod(110, 2)], rates, 110 * SECOND)
    assert told["node"]["fs"]["inodesUsed"] == 6
    assert told["node"]["cpu"]["usageNanoCores"] == 0
    (one,) = told["pods"]
    assert one["podRef"] == {"name": "web", "namespace": "default", "uid": "uid1"}
    assert one["cpu"]["usageNanoCores"] == one["containers"][0]["cpu"]["usageNanoCores"] == SECOND // 10
    assert one["containers"][0]["rootfs"]["usedBytes"] == 77
    assert one["memory"]["workingSetBytes"] == 2048


def test_summary_tells_of_networks_volumes_and_logs() -> None:
    disk = FsUsage(1000, 500, 100, 60, 70, 4)
    too_much = FsUsage(1000, 500, 100, 60, None, None)
    volumes = (
        VolumeUsage("work", disk, is_local=True),
        VolumeUsage("data", disk, claim="claim"),
        VolumeUsage("huge", too_much, is_local=True),
    )
    details = PodDetails((Interface("eth0", 10, 0, 20, 1),), volumes, {"main": FsUsage(1000, 500, 100, 60, 30, 1)})
    images = FilesystemUsage("/images", 55, 5, 0)
    told = summary("n1", NODE, DISK, [pod(100, 1)], Rates(), 100 * SECOND, {"uid1": details}, images)
    (one,) = told["pods"]
    assert (one["network"]["name"], one["network"]["rxBytes"]) == ("eth0", 10)
    assert one["network"]["interfaces"][0]["txErrors"] == 1
    assert [(each["name"], each.get("usedBytes")) for each in one["volume"]] == [
        ("work", 70),
        ("data", 70),
        ("huge", None),
    ]
    assert one["volume"][1]["pvcRef"] == {"name": "claim", "namespace": "default"}
    assert one["ephemeral-storage"]["usedBytes"] == 70 + 77 + 30
    assert one["containers"][0]["logs"]["usedBytes"] == 30
    assert told["node"]["runtime"]["imageFs"]["usedBytes"] == 55
    assert {"network", "rlimit", "swap"} <= told["node"].keys()


def test_interfaces_are_read_as_the_kernel_writes_them(tmp_path: Path) -> None:
    file = tmp_path / "dev"
    file.write_text(
        "Inter-|   Receive                                                |  Transmit\n"
        " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n"
        "    lo:       7       1    0    0    0     0          0         0        7       1    0    0    0     0       0          0\n"
        "  eth0:    1216      16    2    0    0     0          0         0      446       5    3    0    0     0       0          0\n"
    )
    assert interfaces(file) == (Interface("eth0", 1216, 2, 446, 3),)
    assert interfaces(tmp_path / "none") == ()


def test_probes_are_counted_by_result() -> None:
    counts = [ProbeCount("default", "web", "uid1", "main", "Liveness", "failed", 3)]
    (family,) = text_string_to_metric_families(probes(counts).decode())
    (sample,) = family.samples
    assert (family.name, sample.value) == ("prober_probe", 3)
    assert (sample.labels["pod_uid"], sample.labels["probe_type"], sample.labels["result"]) == (
        "uid1",
        "Liveness",
        "failed",
    )


def test_metrics_can_be_read_by_prometheus() -> None:
    for text in (resource(NODE, [pod(100, 1.5)], 100 * SECOND), cadvisor(NODE, [pod(100, 1.5)])):
        found = {one.name: one.samples for family in [text.decode()] for one in text_string_to_metric_families(family)}
        (cpu,) = found["container_cpu_usage_seconds"]
        assert (cpu.value, cpu.labels["container"], cpu.labels["pod"]) == (1.5, "main", "web")
        assert found["container_memory_working_set_bytes"][0].value == 2048
    assert found["container_last_seen"][0].labels["image"] == 'im"age'


def test_this_machine_uses_something() -> None:
    here = node_usage()
    assert here.cpus >= 1
    assert 0 < here.working_set_bytes < here.memory_bytes
    assert here.cpu_ns > 0
