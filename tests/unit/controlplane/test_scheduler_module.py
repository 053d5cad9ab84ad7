"""The scheduler against an API in memory, under virtual time."""

import anyio
import pytest
from test_scheduler_decisions import node, pod

from edgesite.controlplane.scheduler.module import SchedulerModule
from edgesite.kube.errors import internal
from edgesite.kube.resources import NODES, PODS
from edgesite.testing.virtualtime import settle

pytestmark = pytest.mark.anyio


def kinded(obj, kind):
    obj["metadata"].pop("uid", None)
    return {"apiVersion": "v1", "kind": kind, **obj}


async def put_node(world, *args, **more):
    return await world.client.create(NODES, kinded(node(*args, **more), "Node"))


async def put_pod(world, *args, **more):
    return await world.client.create(PODS, kinded(pod(*args, **more), "Pod"))


def place(world, name):
    return world.all("pods")[name]["spec"].get("nodeName")


async def test_binds_a_pod_and_says_so(world):
    await put_node(world, "n1")
    async with world.running(SchedulerModule):
        await put_pod(world, "p", "1")
        await settle()
        assert place(world, "p") == "n1"
        [event] = world.all("events").values()
        assert (event["reason"], event["message"]) == ("Scheduled", "Successfully assigned d/p to n1")
        assert event["source"]["component"] == "default-scheduler"


async def test_quick_successive_binds_do_not_overbook(world):
    await put_node(world, "n1", cpu="2")
    await put_node(world, "n2", cpu="2")
    async with world.running(SchedulerModule):
        for number in range(6):
            await put_pod(world, f"p{number}", "1")
        await anyio.sleep(5)
        places = [place(world, f"p{number}") for number in range(6)]
        assert sorted(map(str, places)) == ["None", "None", "n1", "n1", "n2", "n2"]


async def test_says_once_why_a_pod_fits_nowhere_and_binds_it_when_a_node_comes(world):
    await put_node(world, "small", cpu="1")
    async with world.running(SchedulerModule):
        await put_pod(world, "p", "4")
        await anyio.sleep(400)
        waiting = world.all("pods")["p"]
        [condition] = waiting["status"]["conditions"]
        assert (condition["type"], condition["status"], condition["reason"]) == (
            "PodScheduled",
            "False",
            "Unschedulable",
        )
        assert condition["message"] == (
            "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: "
            "1 Preemption is not helpful for scheduling."
        )
        assert len(world.writes("pods")) == 2
        await put_node(world, "large", cpu="8")
        await settle()
        assert place(world, "p") == "large"


async def test_no_nodes_at_all(world):
    async with world.running(SchedulerModule):
        await put_pod(world, "p")
        await settle()
        assert world.all("pods")["p"]["status"]["conditions"][0]["message"] == "no nodes available to schedule pods"


async def test_heartbeats_of_nodes_wake_no_parked_pod(world):
    await put_node(world, "n")
    async with world.running(SchedulerModule):
        await put_pod(world, "p", "4")
        await anyio.sleep(20)
        asked = len(world.api.requests)
        beat = {"status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "now"}]}}
        await world.client.patch(NODES, "n", beat, subresource="status")
        await anyio.sleep(20)
        assert len(world.api.requests) == asked + 1


async def test_gates_and_other_schedulers_are_left_alone(world):
    await put_node(world, "n")
    async with world.running(SchedulerModule):
        await put_pod(world, "gated", schedulingGates=[{"name": "g"}])
        await put_pod(world, "foreign", schedulerName="mine")
        await anyio.sleep(10)
        assert place(world, "gated") is None
        assert place(world, "foreign") is None
        await world.client.patch(PODS, "gated", {"spec": {"schedulingGates": None}}, "d")
        await settle()
        assert place(world, "gated") == "n"


async def test_more_important_pods_go_first(world):
    async with world.running(SchedulerModule):
        for name, priority in (("low", 1), ("high", 9)):
            await put_pod(world, name, "2", priority=priority)
        await anyio.sleep(15)
        await put_node(world, "n", cpu="2")
        await settle()
        assert (place(world, "high"), place(world, "low")) == ("n", None)


async def test_a_failed_binding_is_tried_again_and_counts_nothing_meanwhile(world):
    await put_node(world, "n", cpu="1")
    async with world.running(SchedulerModule):
        await put_pod(world, "p", "1")
        world.api.fail(internal("no"))  # the next request is the binding
        await settle()
        assert place(world, "p") is None
        await anyio.sleep(3)
        assert place(world, "p") == "n"


async def test_preempts_then_takes_the_place(world):
    await put_node(world, "n", cpu="2")
    async with world.running(SchedulerModule):
        victim = pod("victim", "2", priority=1)
        victim["metadata"]["finalizers"] = ["test/graceful"]
        await world.client.create(PODS, kinded(victim, "Pod"))
        await settle()
        await put_pod(world, "vip", "2", priority=100)
        await put_pod(world, "late", "1", priority=50)
        await anyio.sleep(60)
        leaving = world.all("pods")["victim"]
        assert leaving["metadata"]["deletionTimestamp"]
        assert [one["reason"] for one in leaving["status"]["conditions"]] == ["PreemptionByScheduler"]
        assert world.all("pods")["vip"]["status"]["nominatedNodeName"] == "n"
        assert len([write for write in world.writes("pods") if write[0] == "DELETE"]) == 1
        await world.client.patch(PODS, "victim", {"metadata": {"finalizers": None}}, "d")
        await anyio.sleep(15)
        assert place(world, "vip") == "n"
        assert place(world, "late") is None


async def test_a_restart_counts_what_is_bound(world):
    await put_node(world, "n", cpu="2")
    await put_pod(world, "there", "2", on="n")
    await put_pod(world, "p", "1")
    async with world.running(SchedulerModule):
        await anyio.sleep(5)
        assert place(world, "p") is None
        await world.client.delete(PODS, "there", "d")
        await anyio.sleep(15)
        assert place(world, "p") == "n"


async def test_a_pod_that_cannot_be_handled_stops_no_other(world, caplog):
    await put_node(world, "n")
    async with world.running(SchedulerModule):
        await put_pod(world, "odd", affinity={"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{}]}})
        await put_pod(world, "good")
        await anyio.sleep(60)
        assert place(world, "odd") is None
        assert place(world, "good") == "n"
    assert "pod=d/odd cannot be scheduled" in caplog.text
