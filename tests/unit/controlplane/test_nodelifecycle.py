import anyio
import pytest

from edgesite.context import Section
from edgesite.controlplane.nodelifecycle.module import NodeLifecycleModule
from edgesite.kube.resources import LEASES, NODES, PODS
from edgesite.testing.virtualtime import settle

pytestmark = pytest.mark.anyio
TOLERATED = [
    {"key": f"node.kubernetes.io/{name}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
    for name in ("not-ready", "unreachable")
]


def ready(value="True"):
    return {"status": {"conditions": [{"type": "Ready", "status": value, "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]}}


async def put_node(world, name, edge=False, **annotations):
    labels = {"node-role.kubernetes.io/edge": ""} if edge else {}
    meta = {"name": name, "labels": labels, "annotations": annotations}
    await world.client.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": {}, **ready()})
    spec = {"holderIdentity": name, "renewTime": "never looked at"}
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": spec}
    lease["metadata"]["namespace"] = "kube-node-lease"
    await world.client.create(LEASES, lease)


async def put_pod(world, name, node, **spec):
    spec = {"containers": [{"name": "c"}], "nodeName": node, "tolerations": TOLERATED, **spec}
    meta = {"name": name, "namespace": "d"}
    await world.client.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})


async def renew(world, *names, every_s=10.0):
    beat = 0
    while True:
        for name in names:
            beat += 1
            await world.client.patch(LEASES, name, {"spec": {"leaseTransitions": beat}}, "kube-node-lease")
        await anyio.sleep(every_s)


def conditions(world, name):
    return {one["type"]: (one["status"], one["reason"]) for one in world.all("nodes")[name]["status"]["conditions"]}


def taints(world, name):
    return sorted((one["key"], one["effect"]) for one in world.all("nodes")[name]["spec"].get("taints") or ())


UNREACHABLE = [("node.kubernetes.io/unreachable", effect) for effect in ("NoExecute", "NoSchedule")]


async def test_a_node_that_renews_its_lease_stays_ready_and_costs_no_write(world):
    await put_node(world, "n1")
    async with world.running(NodeLifecycleModule), anyio.create_task_group() as tasks:
        tasks.start_soon(renew, world, "n1")
        await anyio.sleep(600)
        assert [one for one in world.api.writes if "/nodes" in one[1] and one[0] != "POST"] == []
        assert taints(world, "n1") == []
        tasks.cancel_scope.cancel()


async def test_silence_makes_a_node_unknown_after_forty_seconds(world):
    await put_node(world, "n1")
    async with world.running(NodeLifecycleModule):
        await anyio.sleep(39)
        assert taints(world, "n1") == []
        await anyio.sleep(2)
        assert conditions(world, "n1") == {
            "Ready": ("Unknown", "NodeStatusUnknown"),
            "MemoryPressure": ("Unknown", "NodeStatusNeverUpdated"),
            "DiskPressure": ("Unknown", "NodeStatusNeverUpdated"),
            "PIDPressure": ("Unknown", "NodeStatusNeverUpdated"),
        }
        assert taints(world, "n1") == UNREACHABLE
        writes = len(world.api.writes)
        await anyio.sleep(3600)
        assert len(world.api.writes) == writes
        await world.client.patch(NODES, "n1", ready(), subresource="status")
        await settle()
        assert taints(world, "n1") == []


async def test_another_grace_period_holds_from_the_start_or_while_it_runs(world):
    await put_node(world, "n1")
    world.config = Section({"monitorGracePeriod": 100})
    async with world.running(NodeLifecycleModule):
        await anyio.sleep(90)
        assert taints(world, "n1") == []
        world.modules[0].reload(Section({"monitorGracePeriod": 300}))
        await anyio.sleep(200)
        assert taints(world, "n1") == []
        world.modules[0].reload(Section({"monitorGracePeriod": 60}))
        await settle()
        assert taints(world, "n1") == UNREACHABLE


async def test_pods_of_edge_nodes_are_evicted_too_where_that_is_wanted(world):
    await put_node(world, "well")
    await put_node(world, "n1", edge=True)
    await put_pod(world, "p1", "n1")
    async with world.running(NodeLifecycleModule), anyio.create_task_group() as tasks:
        tasks.start_soon(renew, world, "well")
        await anyio.sleep(1000)
        assert "p1" in world.all("pods")
        world.modules[0].reload(Section({"evictEdgePods": True}))
        await settle()
        assert "p1" not in world.all("pods")
        tasks.cancel_scope.cancel()


def test_each_part_of_the_control_plane_has_a_switch():
    for on in (True, False):
        settings = Section({"api": {"enable": True}, "modules": {"nodeLifecycle": {"enable": on}}})
        assert NodeLifecycleModule().enabled(settings) is on


async def test_a_node_that_says_it_is_not_ready_is_tainted_so(world):
    await put_node(world, "n1")
    async with world.running(NodeLifecycleModule):
        await world.client.patch(NODES, "n1", ready("False"), subresource="status")
        await settle()
        assert taints(world, "n1") == [
            ("node.kubernetes.io/not-ready", effect) for effect in ("NoExecute", "NoSchedule")
        ]


async def test_cordon_and_pressure_become_taints_and_foreign_taints_stay(world):
    await put_node(world, "n1")
    async with world.running(NodeLifecycleModule):
        pressed = ready()
        pressed["status"]["conditions"].append({"type": "DiskPressure", "status": "True"})
        await world.client.patch(NODES, "n1", pressed, subresource="status")
        mine = [{"key": "mine", "effect": "NoSchedule"}]
        await world.client.patch(NODES, "n1", {"spec": {"unschedulable": True, "taints": mine}})
        await settle()
        assert taints(world, "n1") == [
            ("mine", "NoSchedule"),
            ("node.kubernetes.io/disk-pressure", "NoSchedule"),
            ("node.kubernetes.io/unschedulable", "NoSchedule"),
        ]
        await world.client.patch(NODES, "n1", ready(), subresource="status")
        await world.client.patch(NODES, "n1", {"spec": {"unschedulable": None}})
        await settle()
        assert taints(world, "n1") == [("mine", "NoSchedule")]


@pytest.fixture
async def two_nodes(world):
    """n1 goes silent, well goes on."""
    await put_node(world, "well")
    return world


async def silence_of(world, seconds):
    with anyio.move_on_after(seconds):
        await renew(world, "well")


async def test_pods_of_a_silent_node_are_evicted_when_their_tolerance_ends(two_nodes):
    world = two_nodes
    await put_node(world, "n1")
    await put_pod(world, "default", "n1")
    await put_pod(world, "patient", "n1", tolerations=[{"operator": "Exists"}])
    await put_pod(world, "nervous", "n1", tolerations=[])
    async with world.running(NodeLifecycleModule):
        await silence_of(world, 60)
        assert sorted(world.all("pods")) == ["default", "patient"]
        await silence_of(world, 270)
        assert sorted(world.all("pods")) == ["default", "patient"]
        await silence_of(world, 30)
        assert sorted(world.all("pods")) == ["patient"]


async def test_a_node_that_comes_back_in_time_keeps_its_pods(two_nodes):
    world = two_nodes
    await put_node(world, "n1")
    await put_pod(world, "default", "n1")
    async with world.running(NodeLifecycleModule):
        await silence_of(world, 200)
        assert taints(world, "n1") == UNREACHABLE
        await world.client.patch(NODES, "n1", ready(), subresource="status")
        with anyio.move_on_after(600):
            await renew(world, "n1", "well")
        assert sorted(world.all("pods")) == ["default"]


async def test_pods_of_an_edge_node_out_of_reach_stay_unless_eviction_is_asked_for(two_nodes):
    world = two_nodes
    asked = {"edgesite.kubeedge.io/evict-unreachable": "true"}
    await put_node(world, "edge", edge=True)
    await put_node(world, "mobile", edge=True, **asked)
    await put_pod(world, "stays", "edge")
    await put_pod(world, "goes", "mobile")
    async with world.running(NodeLifecycleModule):
        await silence_of(world, 1000)
        assert taints(world, "edge") == UNREACHABLE
        assert sorted(world.all("pods")) == ["stays"]


async def test_an_edge_node_that_says_it_is_broken_is_drained(two_nodes):
    world = two_nodes
    await put_node(world, "edge", edge=True)
    await put_pod(world, "goes", "edge")
    async with world.running(NodeLifecycleModule), anyio.create_task_group() as tasks:
        tasks.start_soon(renew, world, "edge", "well")
        await world.client.patch(NODES, "edge", ready("False"), subresource="status")
        await anyio.sleep(310)
        assert world.all("pods") == {}
        tasks.cancel_scope.cancel()


async def test_when_no_node_is_well_nobody_is_evicted(world):
    await put_node(world, "n1")
    await put_pod(world, "default", "n1")
    async with world.running(NodeLifecycleModule):
        await anyio.sleep(2000)
        assert sorted(world.all("pods")) == ["default"]


async def test_pods_of_a_deleted_node_are_buried_after_a_while(two_nodes):
    world = two_nodes
    await put_node(world, "n1")
    await put_pod(world, "orphan", "n1")
    async with world.running(NodeLifecycleModule):
        await world.client.delete(NODES, "n1")
        await silence_of(world, 30)
        assert sorted(world.all("pods")) == ["orphan"]
        await silence_of(world, 20)
        assert world.all("pods") == {}


async def test_pods_stay_when_their_node_registers_anew(two_nodes):
    world = two_nodes
    await put_node(world, "n1")
    await put_pod(world, "kept", "n1")
    async with world.running(NodeLifecycleModule):
        await world.client.delete(NODES, "n1")
        await silence_of(world, 20)
        await world.client.delete(LEASES, "n1", "kube-node-lease")
        await put_node(world, "n1")
        with anyio.move_on_after(300):
            await renew(world, "n1", "well")
        assert sorted(world.all("pods")) == ["kept"]


async def test_a_restart_gives_every_node_its_full_time(world):
    await put_node(world, "n1")
    async with world.running(NodeLifecycleModule):
        await anyio.sleep(35)
    async with world.running(NodeLifecycleModule):
        await anyio.sleep(35)
        assert taints(world, "n1") == []
        await anyio.sleep(10)
        assert taints(world, "n1") == UNREACHABLE


async def test_nobody_is_called_silent_while_we_ourselves_cannot_hear(world):
    await put_node(world, "n1")
    async with world.running(NodeLifecycleModule), anyio.create_task_group() as tasks:
        await anyio.sleep(1)
        tasks.start_soon(renew, world, "n1")
        world.api.fail(*[ConnectionResetError("cut")] * 30, only="GET /apis/coordination.k8s.io")
        world.api.drop_watches()
        await anyio.sleep(120)
        assert taints(world, "n1") == []
        tasks.cancel_scope.cancel()
