"""Node pressure: thresholds over time, whom it hits, what is said, and edged as a whole when memory or disk run short."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from edged_machine import IMAGE, running_container
from hypothesis import given
from hypothesis import strategies as st

from edgesite.edge.edged.eviction.manager import EvictionParts, Evictions
from edgesite.edge.edged.eviction.ranking import Usage, choose, local_storage_excess, termination
from edgesite.edge.edged.eviction.thresholds import Observation, Threshold, Watch, observe, read_thresholds
from edgesite.edge.edged.imagegc import ImageCollector, bytes_to_free
from edgesite.edge.edged.machine import LinuxMachine, Pressure
from edgesite.edge.edged.node import describe
from edgesite.edge.edged.paths import Paths
from edgesite.edge.edged.pod import SOURCE, Pod
from edgesite.edge.edged.runtime import LABEL_POD_UID, ContainerStats, FilesystemUsage, Image
from edgesite.edge.edged.services import NodeFacts
from edgesite.edge.edged.settings import EdgedSettings
from edgesite.edge.edged.stages.admission import refusal
from edgesite.edge.edged.state import PodState, Seen, Termination
from edgesite.net.real import RealThreads
from edgesite.testing.fakeruntime import FakeEngine, FakeRuntime

pytestmark = pytest.mark.anyio
MI = 1 << 20
PLENTY = Pressure(8 << 30, 80 << 30, 100 << 30, 900, 1000, 100, 1000)
HARD = {"memory.available": "100Mi", "nodefs.available": "10%", "nodefs.inodesFree": "5%", "imagefs.available": "15%"}


def a_pod(name: str, *, priority: int = 0, requests: dict[str, str] | None = None, **more: Any) -> Pod:
    container = {
        "name": "main",
        "image": IMAGE,
        "resources": {"requests": requests or {}, "limits": more.pop("limits", {})},
    }
    metadata = {"name": name, "namespace": "default", "uid": name, "annotations": more.pop("annotations", {})}
    return Pod({"metadata": metadata, "spec": {"containers": [container], "priority": priority, **more}})


# Thresholds


def test_thresholds_as_kubelet_writes_them() -> None:
    memory, inodes, soft = read_thresholds(
        {"nodefs.inodesFree": "5%", "memory.available": "100Mi", "no.such": "1", "pid.available": "ten"},
        {"nodefs.available": "2Gi"},
        {"nodefs.available": "1m30s"},
        {"memory.available": "50Mi"},
    )
    assert (memory.signal, memory.amount, memory.hard, memory.reclaim) == ("memory.available", 100 * MI, True, 50 * MI)
    assert (inodes.signal, inodes.percent) == ("nodefs.inodesFree", 5.0)
    assert (soft.signal, soft.amount, soft.grace_s) == ("nodefs.available", 2 << 30, 90.0)


def test_a_file_system_without_inodes_says_nothing_of_them() -> None:
    seen = observe(replace(PLENTY, inodes=0, inodes_free=0, pids_most=0), None, 16 << 30)
    assert set(seen) == {"memory.available", "nodefs.available", "imagefs.available"}


def short(available: int) -> dict[str, Observation]:
    return {"memory.available": Observation(available, 1000)}


def test_a_condition_stays_for_the_transition_period() -> None:
    watch = Watch((Threshold("memory.available", amount=100),), 300.0)
    watch.take(short(99), 0.0)
    assert watch.stress() == {"MemoryPressure"}
    assert len(watch.due()) == 1
    watch.take(short(500), 10.0)
    assert watch.due() == ()
    watch.take(short(500), 299.0)
    assert watch.stress() == {"MemoryPressure"}
    watch.take(short(500), 301.0)
    assert watch.stress() == frozenset()


def test_a_soft_threshold_waits_and_a_recovery_starts_it_anew() -> None:
    watch = Watch((Threshold("memory.available", amount=100, grace_s=30.0),), 0.0)
    for now, available, due in (
        (0, 50, 0),
        (29, 50, 0),
        (30, 50, 1),
        (31, 500, 0),
        (32, 50, 0),
        (61, 50, 0),
        (62, 50, 1),
    ):
        watch.take(short(available), float(now))
        assert len(watch.due()) == due, now


def test_the_minimum_reclaim_keeps_a_threshold_met() -> None:
    watch = Watch((Threshold("memory.available", amount=100, reclaim=50),), 0.0)
    for now, available, due in ((0, 120, 0), (1, 90, 1), (2, 120, 1), (3, 150, 0), (4, 120, 0)):
        watch.take(short(available), float(now))
        assert len(watch.due()) == due, now


# Whom it hits


def test_kubelets_order() -> None:
    memory = Threshold("memory.available", amount=1)
    within = (a_pod("within", requests={"memory": "100Mi"}), Usage(memory={"main": 50 * MI}))
    above = (a_pod("above", requests={"memory": "10Mi"}), Usage(memory={"main": 50 * MI}))
    far_above = (a_pod("far-above"), Usage(memory={"main": 60 * MI}))
    precious = (a_pod("precious", priority=1000), Usage(memory={"main": 900 * MI}))
    critical = (a_pod("critical", priority=2_000_000_000), Usage(memory={"main": 900 * MI}))
    static = (a_pod("static", annotations={SOURCE: "file"}), Usage(memory={"main": 900 * MI}))
    ranked = [one.name for one in choose(memory, [within, critical, precious, above, static, far_above])]
    assert ranked == ["far-above", "above", "precious", "within"]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 200), st.integers(0, 200)), max_size=8, unique=True),
    st.randoms(),
)
def test_the_order_does_not_depend_on_the_input(rows: list[tuple[int, int, int]], chance: Any) -> None:
    pods = [
        (a_pod(f"p{n}", priority=p, requests={"memory": f"{asked}Mi"}), Usage(memory={"main": used * MI}))
        for n, (p, asked, used) in enumerate(rows)
    ]
    memory = Threshold("memory.available", amount=1)
    first = [one.uid for one in choose(memory, pods)]
    chance.shuffle(pods)
    assert [one.uid for one in choose(memory, pods)] == first
    usages = {pod.uid: usage for pod, usage in pods}
    asked = {pod.uid: int(pod.containers[0]["resources"]["requests"]["memory"][:-2]) * MI for pod, _ in pods}
    excess = [usages[uid].total("memory") > asked[uid] for uid in first]
    assert excess == sorted(excess, reverse=True)


def test_what_an_evicted_pod_is_told() -> None:
    pod = a_pod("web", requests={"memory": "10Mi"})
    threshold = Threshold("memory.available", amount=100 * MI)
    why = termination(threshold, Observation(50 * MI, 1 << 30), pod, Usage(memory={"main": 20 * MI}))
    assert (why.reason, why.disruption) == ("Evicted", True)
    assert why.message == (
        "The node was low on resource: memory. Threshold quantity: 102400Ki, available: 51200Ki. "
        "Container main was using 20480Ki, request is 10240Ki, has larger consumption of memory. "
    )


def test_limits_of_local_storage() -> None:
    volumes = [{"name": "work", "emptyDir": {"sizeLimit": "1Mi"}}]
    pod = a_pod("web", volumes=volumes, limits={"ephemeral-storage": "3Mi"})
    assert local_storage_excess(pod, Usage(storage={"main": 2 * MI}, volumes={"work": MI})) is None
    over_volume = local_storage_excess(pod, Usage(volumes={"work": 2 * MI}))
    over_container = local_storage_excess(pod, Usage(storage={"main": 4 * MI}))
    over_pod = local_storage_excess(pod, Usage(storage={"main": 3 * MI}, volumes={"work": MI}))
    assert over_volume is not None
    assert over_container is not None
    assert over_pod is not None
    assert over_volume.message == 'Usage of EmptyDir volume "work" exceeds the limit "1Mi". '
    assert over_container.message == 'Container main exceeded its local ephemeral storage limit "3Mi". '
    assert over_pod.message.startswith("Pod ephemeral local storage usage exceeds the total limit of containers ")


@pytest.mark.parametrize(
    ("stress", "pod", "taken"),
    [
        ({"MemoryPressure"}, a_pod("best-effort"), False),
        ({"MemoryPressure"}, a_pod("burstable", requests={"memory": "1Mi"}), True),
        (
            {"MemoryPressure"},
            a_pod("tolerant", tolerations=[{"key": "node.kubernetes.io/memory-pressure", "operator": "Exists"}]),
            True,
        ),
        ({"DiskPressure"}, a_pod("burstable", requests={"memory": "1Mi"}), False),
        ({"DiskPressure", "MemoryPressure"}, a_pod("critical", priority=2_000_001_000), True),
    ],
)
def test_a_node_under_pressure_takes_only_some(stress: set[str], pod: Pod, taken: bool) -> None:
    found = refusal(pod, NodeFacts("edge-1", stress=frozenset(stress)), [])
    assert (found is None) is taken
    if found is not None:
        assert (found.reason, found.message) == ("Evicted", f"The node had condition: [{', '.join(sorted(stress))}]. ")


def test_the_nodes_conditions_say_what_is_short() -> None:
    found = {
        one["type"]: (one["status"], one["reason"]) for one in describe.conditions({"DiskPressure"}, None, (), 0.0)
    }
    assert found == {
        "MemoryPressure": ("False", "KubeletHasSufficientMemory"),
        "DiskPressure": ("True", "KubeletHasDiskPressure"),
        "PIDPressure": ("False", "KubeletHasSufficientPID"),
        "Ready": ("True", "KubeletReady"),
    }


# The parts together


class FixedMachine(LinuxMachine):
    def __init__(self) -> None:
        self.now = PLENTY

    def pressure(self, data_dir: Path) -> Pressure:
        return self.now


class ManualClock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1_800_000_000.0 + self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


class Site:
    """An eviction manager with pods of whose use the runtime tells."""

    def __init__(self, tmp_path: Path, **settings: Any) -> None:
        self.machine = FixedMachine()
        self.clock = ManualClock()
        self.engine = FakeEngine(self.clock)
        self.runtime = FakeRuntime(self.engine)
        self.threads = RealThreads()
        self.node = NodeFacts("edge-1", memory_bytes=16 << 30)
        self.states: list[PodState] = []
        self.ended: list[tuple[str, Termination, float | None]] = []
        self.said: list[str] = []
        self.changes = 0
        self.paths = Paths(tmp_path, tmp_path / "logs")
        chosen = EdgedSettings(eviction_hard=HARD, **settings)
        log = logging.getLogger("test")
        self.images = ImageCollector(
            self.runtime,
            self.machine,
            self.clock,
            self.threads,
            chosen,
            log,
            pods=lambda: [one.pod for one in self.states],
            report=self.report,
        )
        self.evictions = Evictions(
            EvictionParts(
                chosen, self.node, self.runtime, self.machine, self.images, self.paths, self.clock, self.threads, log
            ),
            tmp_path,
            pods=lambda: self.states,
            terminate=self.terminate,
            changed=self.change,
            report=self.report,
        )

    def change(self) -> None:
        self.changes += 1

    def report(self, type: str, reason: str, message: str) -> None:
        self.said.append(reason)

    def terminate(self, uid: str, why: Termination, grace_s: float | None = None) -> None:
        self.ended.append((uid, why, grace_s))
        for state in self.states:
            if state.pod.uid == uid:
                state.termination = why

    def run(self, *pods: Pod, monkeypatch: pytest.MonkeyPatch, **memory: int) -> None:
        for pod in pods:
            status = running_container("main")
            self.states.append(PodState(pod, containers={status.id: Seen(status, "s")}, admitted=True))

        async def stats(labels: Any = None) -> list[ContainerStats]:
            layer = FilesystemUsage("/", 7 * MI, 1, 0)
            return [
                ContainerStats("c", "main", {LABEL_POD_UID: uid.replace("_", "-")}, 0, 0, used, writable_layer=layer)
                for uid, used in memory.items()
            ]

        monkeypatch.setattr(self.runtime, "container_stats", stats)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncGenerator[Site]:
    made = Site(tmp_path)
    yield made
    await made.threads.close()


async def test_memory_that_runs_short_ends_one_pod_a_look(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.run(a_pod("small"), a_pod("large"), monkeypatch=monkeypatch, small=10 * MI, large=20 * MI)
    await site.evictions.look()
    assert (site.ended, site.changes) == ([], 0)
    site.machine.now = replace(PLENTY, memory_available_bytes=50 * MI)
    await site.evictions.look()
    assert [(uid, grace) for uid, _, grace in site.ended] == [("large", 1.0)]
    assert site.node.stress == {"MemoryPressure"}
    assert (site.changes, site.said) == (1, ["EvictionThresholdMet"])
    site.clock.now += 10
    await site.evictions.look()
    assert [uid for uid, _, _ in site.ended] == ["large"]  # which still holds its memory
    next(one for one in site.states if one.pod.uid == "large").given_back = True
    await site.evictions.look()
    assert [uid for uid, _, _ in site.ended] == ["large", "small"]
    site.clock.now += 31
    await site.evictions.look()  # nobody is left to be ended, and nobody waited for any longer
    assert site.said[-1] == "EvictionThresholdMet"
    assert len(site.said) == 3
    site.machine.now = PLENTY
    site.clock.now += 301
    await site.evictions.look()
    assert (len(site.ended), site.node.stress) == (2, frozenset())


async def test_a_full_disk_takes_unused_images_first(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.run(a_pod("web"), monkeypatch=monkeypatch, web=MI)
    for name in (IMAGE, "docker.io/library/old:1", "registry.k8s.io/pause:3.9"):
        site.engine.add_image(name)
    site.engine.images["keep"] = Image("sha256:keep", ("keep:1",), (), 5, pinned=True)
    await site.images.free(0)  # seen for the first time now
    site.clock.now += 200
    site.machine.now = replace(PLENTY, disk_available_bytes=1 << 30)
    await site.evictions.look()
    assert sorted(site.engine.images) == [IMAGE, "keep", "registry.k8s.io/pause:3.9"]
    assert [uid for uid, _, _ in site.ended] == ["web"]
    assert "using 7168Ki" in site.ended[0][1].message


async def test_a_pod_that_fills_its_empty_dir_is_ended(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.run(
        a_pod("greedy", volumes=[{"name": "work", "emptyDir": {"sizeLimit": "1Mi"}}]), monkeypatch=monkeypatch, greedy=1
    )
    folder = site.paths.volume("greedy", "empty-dir", "work")
    folder.mkdir(parents=True)
    (folder / "file").write_bytes(b"x" * MI)
    (folder / "sparse").write_bytes(b"")
    await site.evictions.look()
    assert site.ended == []
    (folder / "more").write_bytes(b"x" * 8192)
    await site.evictions.look()
    assert [uid for uid, _, _ in site.ended] == ["greedy"]


async def test_a_runtime_that_is_down_ends_nobody(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.run(a_pod("web"), monkeypatch=monkeypatch, web=1)
    site.engine.reachable = False
    site.machine.now = replace(PLENTY, disk_available_bytes=1 << 30)
    await site.evictions.look()
    assert site.ended == []
    assert site.node.stress == {"DiskPressure"}


# Images


@pytest.mark.parametrize(("available", "wanted"), [(21, 0), (20, 40), (10, 50), (0, 60)])
def test_how_much_is_to_be_freed(available: int, wanted: int) -> None:
    disk = replace(PLENTY, disk_bytes=100, disk_available_bytes=available)
    assert bytes_to_free(disk, 80, 40) == wanted


async def test_images_go_by_their_last_use_and_not_before_their_age(site: Site) -> None:
    for name in ("a:1", "b:1", "c:1"):
        site.engine.add_image(f"docker.io/library/{name}")
    await site.images.free(0)
    site.clock.now += 60
    assert await site.images.free(float("inf")) == 0  # younger than two minutes
    site.states = [PodState(Pod({"metadata": {"uid": "u"}, "spec": {"containers": [{"name": "m", "image": "a:1"}]}}))]
    site.clock.now += 100
    await site.images.free(0)
    site.states = []
    assert await site.images.free(1) == 1_000_000
    assert sorted(site.engine.images) == ["docker.io/library/a:1", "docker.io/library/c:1"]
    assert await site.images.free(1_000_001) == 2_000_000
    assert site.engine.images == {}


async def test_a_disk_that_stays_full_is_told_of(site: Site) -> None:
    site.machine.now = replace(PLENTY, disk_available_bytes=10 << 30)
    await site.images.look()
    assert site.said == ["FreeDiskSpaceFailed"]
