"""Deployments and replica sets together against an API in memory, under virtual time; a small kubelet makes pods ready."""

import copy
from contextlib import asynccontextmanager

import anyio
import pytest

from edgesite.client import SharedInformers
from edgesite.controlplane.deployment.module import DeploymentModule
from edgesite.controlplane.replicaset.module import ReplicaSetModule, ReplicationControllerModule
from edgesite.kube.errors import forbidden, internal
from edgesite.kube.resources import DEPLOYMENTS, PODS, REPLICA_SETS, REPLICATION_CONTROLLERS
from edgesite.kube.times import format_time
from edgesite.testing.virtualtime import settle

pytestmark = pytest.mark.anyio


class Kubelet:
    """Makes pods ready after a while, unless their image is broken; checks how many there are at each moment."""

    def __init__(self, world, delay_s=2.0):
        self.world, self.delay_s = world, delay_s
        self.peak = 0

    async def run(self):
        informers = self.world.services.get(SharedInformers)
        async with anyio.create_task_group() as tasks:
            with informers.of(PODS).add_handler(lambda pod: tasks.start_soon(self.start, pod)):
                await anyio.sleep_forever()

    async def start(self, pod):
        self.peak = max(self.peak, len(self.world.all("pods")))
        if pod["spec"]["containers"][0]["image"] == "broken":
            return
        await anyio.sleep(self.delay_s)
        if pod["metadata"]["name"] in self.world.all("pods"):
            await ready(self.world, pod["metadata"]["name"])


async def ready(world, name, value="True"):
    stamp = format_time(world.clock.time())
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": value, "lastTransitionTime": stamp}]}
    await world.client.patch(PODS, name, {"status": status}, "d", subresource="status")


@asynccontextmanager
async def workloads(world):
    kubelet = Kubelet(world)
    async with (
        world.running(ReplicaSetModule, ReplicationControllerModule, DeploymentModule),
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(kubelet.run)
        yield kubelet
        tasks.cancel_scope.cancel()


def template(image="v1", app="web"):
    return {"metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "c", "image": image}]}}


def replica_set(replicas, **more):
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template(), **more}
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": "rs", "namespace": "d"},
        "spec": spec,
    }


def deployment(replicas, image="v1", strategy=None, **more):
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "d", "annotations": {"note": "x"}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": template(image),
            "strategy": strategy or {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "progressDeadlineSeconds": 600,
            "revisionHistoryLimit": 10,
            **more,
        },
    }


def status(world, plural, name):
    return world.all(plural)[name]["status"]


def images(world):
    return sorted(pod["spec"]["containers"][0]["image"] for pod in world.all("pods").values())


def events(world, reason):
    return [one["message"] for one in world.all("events").values() if one["reason"] == reason]


# --- replica sets ---


async def test_makes_the_pods_that_are_missing_and_reports_them(world):
    async with workloads(world):
        await world.client.create(REPLICA_SETS, replica_set(3))
        await anyio.sleep(10)
        pods = world.all("pods")
        assert len(pods) == 3
        one = next(iter(pods.values()))
        assert one["metadata"]["labels"] == {"app": "web"}
        [owner] = one["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["controller"], owner["blockOwnerDeletion"]) == (
            "ReplicaSet",
            "rs",
            True,
            True,
        )
        assert status(world, "replicasets", "rs") == {
            "replicas": 3,
            "fullyLabeledReplicas": 3,
            "readyReplicas": 3,
            "availableReplicas": 3,
            "observedGeneration": 1,
        }
        assert len(events(world, "SuccessfulCreate")) == 3


async def test_replication_controllers_keep_pods_as_replica_sets_do(world):
    async with workloads(world):
        old = {"kind": "ReplicationController", "apiVersion": "v1", "metadata": {"name": "rc", "namespace": "d"}}
        spec = {"replicas": 2, "selector": {"app": "web"}, "template": template()}
        await world.client.create(REPLICATION_CONTROLLERS, {**old, "spec": spec})
        await world.client.create(PODS, {"metadata": {"name": "other", "namespace": "d"}, "spec": template()["spec"]})
        await anyio.sleep(10)
        owned = {name: one for name, one in world.all("pods").items() if name != "other"}
        owners = {one["metadata"]["ownerReferences"][0]["kind"] for one in owned.values()}
        assert (len(owned), owners) == (2, {"ReplicationController"})
        assert "ownerReferences" not in world.all("pods")["other"]["metadata"]
        assert status(world, "replicationcontrollers", "rc")["readyReplicas"] == 2
        released = next(iter(owned))
        await world.client.patch(PODS, released, {"metadata": {"labels": {"app": "gone"}}}, "d")
        await anyio.sleep(10)
        assert not world.all("pods")[released]["metadata"].get("ownerReferences")
        assert len(world.all("pods")) == 4


async def test_a_slow_cache_makes_no_pod_twice(world):
    async with workloads(world):
        informers = world.services.get(SharedInformers)
        pods = informers.of(PODS)
        late = []
        real = pods.apply
        pods.apply = lambda kind, obj: late.append((kind, obj))
        await world.client.create(REPLICA_SETS, replica_set(3))
        await anyio.sleep(1)
        for number in range(3):
            await world.client.patch(REPLICA_SETS, "rs", {"metadata": {"annotations": {"n": str(number)}}}, "d")
            await anyio.sleep(1)
        assert len(world.all("pods")) == 3
        pods.apply = real
        for kind, obj in late:
            real(kind, obj)
        await world.client.patch(REPLICA_SETS, "rs", {"spec": {"replicas": 5}}, "d")
        await anyio.sleep(5)
        assert len(world.all("pods")) == 5


async def test_deletes_pods_that_are_not_ready_before_those_that_are(world):
    async with workloads(world):
        await world.client.create(REPLICA_SETS, replica_set(4))
        await anyio.sleep(5)
        names = sorted(world.all("pods"))
        await ready(world, names[1], "False")
        await ready(world, names[2], "False")
        await settle()
        await world.client.patch(REPLICA_SETS, "rs", {"spec": {"replicas": 2}}, "d")
        await anyio.sleep(5)
        assert sorted(world.all("pods")) == [names[0], names[3]]


async def test_deletion_cost_decides_among_equals(world):
    async with workloads(world):
        await world.client.create(REPLICA_SETS, replica_set(3))
        await anyio.sleep(5)
        cheap = sorted(world.all("pods"))[1]
        cost = {"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-5"}}}
        await world.client.patch(PODS, cheap, cost, "d")
        await settle()
        await world.client.patch(REPLICA_SETS, "rs", {"spec": {"replicas": 2}}, "d")
        await anyio.sleep(5)
        assert cheap not in world.all("pods")


async def test_replaces_pods_that_end_or_vanish(world):
    async with workloads(world):
        await world.client.create(REPLICA_SETS, replica_set(2))
        await anyio.sleep(5)
        first, second = sorted(world.all("pods"))
        await world.client.delete(PODS, first, "d")
        await world.client.patch(PODS, second, {"status": {"phase": "Failed"}}, "d", subresource="status")
        await anyio.sleep(5)
        assert len(world.all("pods")) == 3
        assert status(world, "replicasets", "rs")["replicas"] == 2


async def test_adopts_what_matches_and_releases_what_no_longer_does(world):
    async with workloads(world):
        orphan = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "orphan", "namespace": "d", "labels": {"app": "web"}},
            "spec": template()["spec"],
        }
        await world.client.create(PODS, orphan)
        await world.client.create(REPLICA_SETS, replica_set(2))
        await anyio.sleep(5)
        assert len(world.all("pods")) == 2
        assert world.all("pods")["orphan"]["metadata"]["ownerReferences"][0]["name"] == "rs"
        await world.client.patch(PODS, "orphan", {"metadata": {"labels": {"app": "debug"}}}, "d")
        await anyio.sleep(5)
        assert len(world.all("pods")) == 3
        assert not world.all("pods")["orphan"]["metadata"]["ownerReferences"]


async def test_min_ready_seconds_delay_availability(world):
    async with workloads(world):
        await world.client.create(REPLICA_SETS, replica_set(1, minReadySeconds=30))
        await anyio.sleep(10)
        found = status(world, "replicasets", "rs")
        assert (found["readyReplicas"], found.get("availableReplicas")) == (1, None)
        await anyio.sleep(30)
        assert status(world, "replicasets", "rs")["availableReplicas"] == 1


async def test_pods_that_cannot_be_made_show_as_a_condition_until_they_can(world):
    async with workloads(world):
        world.api.fail(*[forbidden("pods", "", "exceeded quota")] * 10, only="POST /api/v1/namespaces/d/pods")
        await world.client.create(REPLICA_SETS, replica_set(1))
        await settle()
        found = status(world, "replicasets", "rs")
        assert [(one["type"], one["reason"]) for one in found["conditions"]] == [("ReplicaFailure", "FailedCreate")]
        await anyio.sleep(60)
        assert status(world, "replicasets", "rs")["availableReplicas"] == 1
        assert "conditions" not in status(world, "replicasets", "rs")


async def test_nothing_is_written_when_nothing_changes(world):
    async with workloads(world):
        await world.client.create(DEPLOYMENTS, deployment(2))
        await anyio.sleep(20)
        before = len(world.api.writes)
        await anyio.sleep(3600)
        assert len(world.api.writes) == before


# --- deployments ---


async def test_a_deployment_becomes_available(world):
    async with workloads(world):
        await world.client.create(DEPLOYMENTS, deployment(3))
        await anyio.sleep(20)
        found = status(world, "deployments", "web")
        kinds = {one["type"]: (one["status"], one["reason"]) for one in found.pop("conditions")}
        assert found == {
            "replicas": 3,
            "updatedReplicas": 3,
            "readyReplicas": 3,
            "availableReplicas": 3,
            "observedGeneration": 1,
        }
        assert kinds == {
            "Available": ("True", "MinimumReplicasAvailable"),
            "Progressing": ("True", "NewReplicaSetAvailable"),
        }
        [(name, one)] = world.all("replicasets").items()
        assert world.all("deployments")["web"]["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "1"
        assert one["metadata"]["annotations"] == {
            "note": "x",
            "deployment.kubernetes.io/revision": "1",
            "deployment.kubernetes.io/desired-replicas": "3",
            "deployment.kubernetes.io/max-replicas": "4",
        }
        assert events(world, "ScalingReplicaSet") == [f"Scaled up replica set {name} from 0 to 3"]


async def test_a_rolling_update_never_has_too_few_or_too_many(world):
    async with workloads(world) as kubelet:
        await world.client.create(DEPLOYMENTS, deployment(3))
        await anyio.sleep(20)
        await world.client.patch(DEPLOYMENTS, "web", {"spec": {"template": template("v2")}}, "d")
        kubelet.peak = 0
        for _ in range(600):
            await anyio.sleep(0.05)
            up = [one for one in world.all("pods").values() if one["status"].get("phase") == "Running"]
            assert len(up) >= 3
            if images(world) == ["v2"] * 3:
                break
        assert kubelet.peak <= 4
        await anyio.sleep(5)
        assert images(world) == ["v2"] * 3
        assert sorted(
            (one["metadata"]["annotations"]["deployment.kubernetes.io/revision"], one["spec"]["replicas"])
            for one in world.all("replicasets").values()
        ) == [("1", 0), ("2", 3)]


async def test_undo_takes_the_old_replica_set_again(world):
    async with workloads(world):
        await world.client.create(DEPLOYMENTS, deployment(2))
        await anyio.sleep(20)
        [first] = world.all("replicasets")
        await world.client.patch(DEPLOYMENTS, "web", {"spec": {"template": template("v2")}}, "d")
        await anyio.sleep(30)
        await world.client.patch(DEPLOYMENTS, "web", {"spec": {"template": template("v1")}}, "d")
        await anyio.sleep(30)
        assert images(world) == ["v1"] * 2
        assert len(world.all("replicasets")) == 2
        annotations = world.all("replicasets")[first]["metadata"]["annotations"]
        assert annotations["deployment.kubernetes.io/revision"] == "3"
        assert annotations["deployment.kubernetes.io/revision-history"] == "1"


async def test_a_broken_image_stops_the_rollout_and_is_reported_late(world):
    async with workloads(world):
        await world.client.create(DEPLOYMENTS, deployment(3, progressDeadlineSeconds=60))
        await anyio.sleep(20)
        await world.client.patch(DEPLOYMENTS, "web", {"spec": {"template": template("broken")}}, "d")
        await anyio.sleep(120)
        assert images(world) == ["broken", "v1", "v1", "v1"]
        kinds = {
            one["type"]: (one["status"], one["reason"]) for one in status(world, "deployments", "web")["conditions"]
        }
        assert kinds["Progressing"] == ("False", "ProgressDeadlineExceeded")
        assert kinds["Available"] == ("True", "MinimumReplicasAvailable")
        await world.client.patch(DEPLOYMENTS, "web", {"spec": {"template": template("v3")}}, "d")
        await anyio.sleep(60)
        assert images(world) == ["v3"] * 3


async def test_recreate_waits_until_all_old_pods_are_gone(world):
    async with workloads(world):
        await world.client.create(DEPLOYMENTS, deployment(2, strategy={"type": "Recreate"}))
        await anyio.sleep(10)
        held = sorted(world.all("pods"))[0]
        await world.client.patch(PODS, held, {"metadata": {"finalizers": ["test/slow"]}}, "d")
        await world.client.patch(DEPLOYMENTS, "web", {"spec": {"template": template("v2")}}, "d")
        await anyio.sleep(30)
        assert images(world) == ["v1"]
        await world.client.patch(PODS, held, {"metadata": {"finalizers": None}}, "d")
        await anyio.sleep(10)
        assert images(world) == ["v2"] * 2


async def test_scaling_while_a_rollout_is_stuck_keeps_proportions(world):
    async with workloads(world):
        rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}
        await world.client.create(DEPLOYMENTS, deployment(10, strategy=rolling))
        await anyio.sleep(20)
        await world.client.patch(DEPLOYMENTS, "web", {"spec": {"template": template("broken")}}, "d")
        await anyio.sleep(30)
        assert images(world) == ["broken"] * 5 + ["v1"] * 8
        await world.client.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 15}}, "d")
        await anyio.sleep(30)
        assert images(world) == ["broken"] * 7 + ["v1"] * 11


async def test_a_paused_deployment_scales_but_does_not_roll(world):
    async with workloads(world):
        await world.client.create(DEPLOYMENTS, deployment(2))
        await anyio.sleep(20)
        paused = {"spec": {"paused": True, "replicas": 3, "template": template("v2")}}
        await world.client.patch(DEPLOYMENTS, "web", paused, "d")
        await anyio.sleep(20)
        assert images(world) == ["v1"] * 3
        kinds = {one["type"]: one["reason"] for one in status(world, "deployments", "web")["conditions"]}
        assert kinds["Progressing"] == "DeploymentPaused"
        await world.client.patch(DEPLOYMENTS, "web", {"spec": {"paused": None}}, "d")
        await anyio.sleep(60)
        assert images(world) == ["v2"] * 3
        kinds = {one["type"]: one["reason"] for one in status(world, "deployments", "web")["conditions"]}
        assert kinds["Progressing"] == "NewReplicaSetAvailable"


async def test_history_beyond_the_limit_is_deleted(world):
    async with workloads(world):
        await world.client.create(DEPLOYMENTS, deployment(1, revisionHistoryLimit=1))
        for image in ("v2", "v3", "v4"):
            await anyio.sleep(30)
            await world.client.patch(DEPLOYMENTS, "web", {"spec": {"template": template(image)}}, "d")
        await anyio.sleep(30)
        found = [
            one["metadata"]["annotations"]["deployment.kubernetes.io/revision"]
            for one in world.all("replicasets").values()
        ]
        assert sorted(found) == ["3", "4"]


async def test_a_name_that_another_template_has_is_not_taken(world):
    async with workloads(world):
        await world.client.create(DEPLOYMENTS, deployment(1))
        await anyio.sleep(10)
        [(name, one)] = world.all("replicasets").items()
        foreign = copy.deepcopy(one)
        del foreign["metadata"]["ownerReferences"], foreign["metadata"]["resourceVersion"], foreign["metadata"]["uid"]
        foreign["metadata"]["labels"] = {"app": "other"}
        foreign["spec"]["selector"] = {"matchLabels": {"app": "other"}}
        foreign["spec"]["template"] = template("other", app="other")
        await world.client.delete(DEPLOYMENTS, "web", "d")
        await world.client.delete(REPLICA_SETS, name, "d")
        await world.client.create(REPLICA_SETS, foreign)
        await anyio.sleep(5)
        await world.client.create(DEPLOYMENTS, deployment(1))
        await anyio.sleep(30)
        assert status(world, "deployments", "web")["collisionCount"] == 1
        assert status(world, "deployments", "web")["availableReplicas"] == 1
        assert len(world.all("replicasets")) == 2


async def test_a_rollout_survives_an_api_that_fails_now_and_then(world):
    async with workloads(world):
        await world.client.create(DEPLOYMENTS, deployment(3))
        await anyio.sleep(20)
        await world.client.patch(DEPLOYMENTS, "web", {"spec": {"template": template("v2")}}, "d")
        for _ in range(4):
            world.api.fail(internal("no"), ConnectionResetError("cut"), only="PUT")
            world.api.fail(internal("no"), ConnectionResetError("cut"), only="POST")
            world.api.fail(ConnectionResetError("cut"), only="GET")
            world.api.drop_watches(ConnectionResetError("cut"))
            await anyio.sleep(1)
        await anyio.sleep(120)
        assert images(world) == ["v2"] * 3
        assert status(world, "deployments", "web")["availableReplicas"] == 3
