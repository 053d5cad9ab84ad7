import anyio
import pytest
from test_workloads import Kubelet, images, ready, status, template

from edgesite.client import SharedInformers
from edgesite.controlplane.daemonset.module import DaemonSetModule
from edgesite.controlplane.daemonset.placement import node_of, suits, template_for
from edgesite.controlplane.scheduler.module import SchedulerModule
from edgesite.kube.resources import DAEMON_SETS, NODES, PODS
from edgesite.testing.virtualtime import settle


def daemon_set(image="v1", rolling=None, kind="RollingUpdate", **more):
    strategy = {"type": kind}
    if rolling:
        strategy["rollingUpdate"] = rolling
    spec = {
        "selector": {"matchLabels": {"app": "web"}},
        "template": template(image),
        "updateStrategy": strategy,
        **more,
    }
    spec.setdefault("revisionHistoryLimit", 10)
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "ds", "namespace": "d"},
        "spec": spec,
    }


def node(name, taints=(), **labels):
    allocatable = {"cpu": "4", "memory": "8Gi", "pods": "110"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": list(taints)},
        "status": {"allocatable": allocatable},
    }


@pytest.mark.parametrize(
    ("taint", "expected"),
    [
        ({"key": "mine", "effect": "NoSchedule"}, (False, True)),
        ({"key": "mine", "effect": "NoExecute"}, (False, False)),
        ({"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}, (True, True)),
        ({"key": "node.kubernetes.io/disk-pressure", "effect": "NoSchedule"}, (True, True)),
        ({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}, (True, True)),
        ({"key": "node.kubernetes.io/network-unavailable", "effect": "NoSchedule"}, (False, True)),
    ],
)
def test_daemons_stay_on_nodes_in_trouble_but_honour_the_taints_of_others(taint, expected):
    assert suits(daemon_set(), node("n", [taint])) == expected


def test_pods_are_meant_for_one_node_and_keep_their_own_rules():
    one = daemon_set()
    terms = [{"matchExpressions": [{"key": "disk", "operator": "Exists"}]}]
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}
    one["spec"]["template"]["spec"]["affinity"] = affinity
    made = template_for(one, "n7", "hash")
    assert node_of({"spec": made["spec"]}) == "n7"
    [term] = made["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    assert term["matchExpressions"] == terms[0]["matchExpressions"]
    assert "matchFields" not in terms[0]


class Daemons:
    """A cluster under virtual time."""

    def __init__(self, world):
        self.world = world

    async def __aenter__(self):
        self._running = self.world.running(DaemonSetModule, SchedulerModule)
        await self._running.__aenter__()
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(Kubelet(self.world).run)
        return self

    async def __aexit__(self, *exc):
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(*exc)
        await self._running.__aexit__(*exc)


def places(world):
    return sorted(pod["spec"].get("nodeName", "") for pod in world.all("pods").values())


@pytest.mark.anyio
async def test_one_pod_on_each_node_that_suits_as_nodes_come_change_and_go(world):
    async with Daemons(world):
        await world.client.create(NODES, node("a"))
        await world.client.create(DAEMON_SETS, daemon_set())
        await world.client.create(NODES, node("b"))
        await world.client.create(NODES, node("c", [{"key": "mine", "effect": "NoSchedule"}]))
        await anyio.sleep(10)
        assert places(world) == ["a", "b"]
        assert status(world, "daemonsets", "ds") == {
            "desiredNumberScheduled": 2,
            "currentNumberScheduled": 2,
            "numberMisscheduled": 0,
            "numberReady": 2,
            "updatedNumberScheduled": 2,
            "numberAvailable": 2,
            "observedGeneration": 1,
        }
        await world.client.patch(NODES, "c", {"spec": {"taints": None}})
        await anyio.sleep(10)
        assert places(world) == ["a", "b", "c"]
        await world.client.patch(NODES, "a", {"spec": {"taints": [{"key": "x", "effect": "NoExecute"}]}})
        await anyio.sleep(10)
        assert places(world) == ["b", "c"]


@pytest.mark.anyio
async def test_a_rolling_update_takes_one_node_at_a_time_and_is_recorded(world):
    async with Daemons(world):
        for name in "abc":
            await world.client.create(NODES, node(name))
        await world.client.create(DAEMON_SETS, daemon_set())
        await anyio.sleep(10)
        await world.client.patch(DAEMON_SETS, "ds", {"spec": {"template": template("v2")}}, "d")
        for _ in range(400):
            await anyio.sleep(0.05)
            up = [one for one in world.all("pods").values() if one["status"].get("phase") == "Running"]
            assert len(up) >= 2
        assert images(world) == ["v2"] * 3
        revisions = world.all("controllerrevisions").values()
        assert sorted(one["revision"] for one in revisions) == [1, 2]
        await world.client.patch(DAEMON_SETS, "ds", {"spec": {"template": template("v1")}}, "d")
        await anyio.sleep(30)
        assert images(world) == ["v1"] * 3
        assert sorted(one["revision"] for one in world.all("controllerrevisions").values()) == [2, 3]


@pytest.mark.anyio
async def test_a_surge_starts_the_new_pod_before_the_old_one_ends(world):
    async with Daemons(world):
        for name in "ab":
            await world.client.create(NODES, node(name))
        await world.client.create(DAEMON_SETS, daemon_set(rolling={"maxSurge": 1, "maxUnavailable": 0}))
        await anyio.sleep(10)
        await world.client.patch(DAEMON_SETS, "ds", {"spec": {"template": template("v2")}}, "d")
        peak = 0
        for _ in range(400):
            await anyio.sleep(0.05)
            up = [one for one in world.all("pods").values() if one["status"].get("phase") == "Running"]
            assert len(up) >= 2
            peak = max(peak, len(world.all("pods")))
        assert images(world) == ["v2"] * 2
        assert peak == 3


@pytest.mark.anyio
async def test_a_broken_template_stops_at_its_first_node(world):
    async with Daemons(world):
        for name in "abc":
            await world.client.create(NODES, node(name))
        await world.client.create(DAEMON_SETS, daemon_set())
        await anyio.sleep(10)
        await world.client.patch(DAEMON_SETS, "ds", {"spec": {"template": template("broken")}}, "d")
        await anyio.sleep(60)
        assert images(world) == ["broken", "v1", "v1"]


@pytest.mark.anyio
async def test_on_delete_waits_for_the_user(world):
    async with Daemons(world):
        for name in "ab":
            await world.client.create(NODES, node(name))
        await world.client.create(DAEMON_SETS, daemon_set(kind="OnDelete"))
        await anyio.sleep(10)
        await world.client.patch(DAEMON_SETS, "ds", {"spec": {"template": template("v2")}}, "d")
        await anyio.sleep(10)
        assert images(world) == ["v1", "v1"]
        await world.client.delete(PODS, sorted(world.all("pods"))[0], "d")
        await anyio.sleep(10)
        assert images(world) == ["v1", "v2"]


@pytest.mark.anyio
async def test_pods_that_fail_are_replaced_ever_more_slowly(world):
    async with Daemons(world):
        await world.client.create(NODES, node("a"))
        await world.client.create(DAEMON_SETS, daemon_set("broken"))
        await settle()
        seen = set()
        with world.services.get(SharedInformers).of(PODS).add_handler(lambda pod: seen.add(pod["metadata"]["uid"])):
            for _ in range(120):
                await anyio.sleep(1)
                for name in list(world.all("pods")):
                    await world.client.patch(PODS, name, {"status": {"phase": "Failed"}}, "d", subresource="status")
        assert 5 <= len(seen) <= 8


@pytest.mark.anyio
async def test_nothing_is_written_at_rest(world):
    async with Daemons(world):
        await world.client.create(NODES, node("a"))
        await world.client.create(DAEMON_SETS, daemon_set(minReadySeconds=10))
        await anyio.sleep(5)
        assert status(world, "daemonsets", "ds").get("numberAvailable") is None
        await anyio.sleep(15)
        assert status(world, "daemonsets", "ds")["numberAvailable"] == 1
        writes = len(world.api.writes)
        await anyio.sleep(3600)
        assert len(world.api.writes) == writes
        [name] = world.all("pods")
        await ready(world, name, "False")
        await settle()
        assert status(world, "daemonsets", "ds")["numberUnavailable"] == 1


@pytest.mark.anyio
async def test_an_orphan_is_adopted_once_its_labels_match(world):
    async with world.running(DaemonSetModule):
        await world.client.create(
            NODES, node("n1", [{"key": "mine", "effect": "NoSchedule"}])
        )  # what is there may stay
        await world.client.create(DAEMON_SETS, daemon_set())
        metadata = {"name": "stray", "namespace": "d", "labels": {"app": "other"}}
        spec = {"nodeName": "n1", "containers": [{"name": "c", "image": "v1"}]}
        await world.client.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        await anyio.sleep(5)
        assert not world.all("pods")["stray"]["metadata"].get("ownerReferences")
        await world.client.patch(PODS, "stray", {"metadata": {"labels": {"app": "web"}}}, "d")
        await anyio.sleep(5)
        assert world.all("pods")["stray"]["metadata"]["ownerReferences"][0]["name"] == "ds"
