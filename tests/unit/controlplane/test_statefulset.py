from contextlib import asynccontextmanager

import anyio
import pytest
from test_workloads import Kubelet, images, status, template

from edgesite.controlplane.statefulset.module import StatefulSetModule
from edgesite.kube.resources import PODS, STATEFUL_SETS

pytestmark = pytest.mark.anyio


def stateful_set(replicas=3, image="v1", **more):
    spec = {
        "replicas": replicas,
        "serviceName": "db",
        "selector": {"matchLabels": {"app": "web"}},
        "template": template(image),
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
        "revisionHistoryLimit": 10,
        **more,
    }
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db", "namespace": "d"}, "spec": spec}


@asynccontextmanager
async def sets(world):
    async with world.running(StatefulSetModule), anyio.create_task_group() as tasks:
        tasks.start_soon(Kubelet(world).run)
        yield
        tasks.cancel_scope.cancel()


def names(world):
    return sorted(world.all("pods"))


async def change(world, **spec):
    await world.client.patch(STATEFUL_SETS, "db", {"spec": spec}, "d")


async def test_starts_in_order_each_when_the_one_before_is_ready(world):
    claim = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}
    async with sets(world):
        await world.client.create(STATEFUL_SETS, stateful_set(volumeClaimTemplates=[claim]))
        await anyio.sleep(1)
        assert names(world) == ["db-0"]
        await anyio.sleep(2)
        assert names(world) == ["db-0", "db-1"]
        await anyio.sleep(10)
        assert names(world) == ["db-0", "db-1", "db-2"]
        pod = world.all("pods")["db-1"]
        assert (pod["spec"]["hostname"], pod["spec"]["subdomain"]) == ("db-1", "db")
        assert pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"] == "1"
        assert pod["spec"]["volumes"] == [{"name": "data", "persistentVolumeClaim": {"claimName": "data-db-1"}}]
        assert sorted(world.all("persistentvolumeclaims")) == ["data-db-0", "data-db-1", "data-db-2"]
        found = status(world, "statefulsets", "db")
        assert found["currentRevision"] == found["updateRevision"]
        assert (found["replicas"], found["readyReplicas"], found["currentReplicas"]) == (3, 3, 3)


async def test_ends_in_reverse_order_and_keeps_the_claims(world):
    claim = {"metadata": {"name": "data"}, "spec": {}}
    async with sets(world):
        await world.client.create(STATEFUL_SETS, stateful_set(volumeClaimTemplates=[claim]))
        await anyio.sleep(20)
        await world.client.patch(PODS, "db-2", {"metadata": {"finalizers": ["test/slow"]}}, "d")
        await change(world, replicas=1)
        await anyio.sleep(5)
        assert names(world) == ["db-0", "db-1", "db-2"]
        assert "deletionTimestamp" not in world.all("pods")["db-1"]["metadata"]
        await world.client.patch(PODS, "db-2", {"metadata": {"finalizers": None}}, "d")
        await anyio.sleep(5)
        assert names(world) == ["db-0"]
        assert len(world.all("persistentvolumeclaims")) == 3


async def test_a_parallel_set_starts_all_at_once(world):
    async with sets(world):
        await world.client.create(STATEFUL_SETS, stateful_set(podManagementPolicy="Parallel"))
        await anyio.sleep(1)
        assert len(names(world)) == 3


async def test_rolls_from_the_last_to_the_first_one_at_a_time(world):
    async with sets(world):
        await world.client.create(STATEFUL_SETS, stateful_set())
        await anyio.sleep(20)
        await change(world, template=template("v2"))
        order = []
        for _ in range(400):
            await anyio.sleep(0.05)
            up = [one for one in world.all("pods").values() if one["status"].get("phase") == "Running"]
            assert len(up) >= 2
            for name, pod in world.all("pods").items():
                if pod["spec"]["containers"][0]["image"] == "v2" and name not in order:
                    order.append(name)
        assert order == ["db-2", "db-1", "db-0"]
        found = status(world, "statefulsets", "db")
        assert found["currentRevision"] == found["updateRevision"]
        labels = [pod["metadata"]["labels"]["controller-revision-hash"] for pod in world.all("pods").values()]
        assert labels == [found["updateRevision"]] * 3
        assert found["updatedReplicas"] == 3


async def test_a_partition_keeps_the_lower_ones_also_when_they_come_back(world):
    async with sets(world):
        await world.client.create(STATEFUL_SETS, stateful_set())
        await anyio.sleep(20)
        rolling = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
        await change(world, template=template("v2"), updateStrategy=rolling)
        await anyio.sleep(20)
        assert images(world) == ["v1", "v1", "v2"]
        await world.client.delete(PODS, "db-0", "d")
        await anyio.sleep(20)
        assert images(world) == ["v1", "v1", "v2"]


async def test_a_broken_template_stops_at_the_last_pod_and_the_next_one_repairs_it(world):
    async with sets(world):
        await world.client.create(STATEFUL_SETS, stateful_set())
        await anyio.sleep(20)
        await change(world, template=template("broken"))
        await anyio.sleep(60)
        assert images(world) == ["broken", "v1", "v1"]
        await change(world, template=template("v3"))
        await anyio.sleep(60)
        assert images(world) == ["v3", "v3", "v3"]


async def test_pods_that_ended_are_started_again(world):
    async with sets(world):
        await world.client.create(STATEFUL_SETS, stateful_set(1))
        await anyio.sleep(10)
        first = world.all("pods")["db-0"]["metadata"]["uid"]
        await world.client.patch(PODS, "db-0", {"status": {"phase": "Failed"}}, "d", subresource="status")
        await anyio.sleep(10)
        assert world.all("pods")["db-0"]["metadata"]["uid"] != first


async def test_ordinals_may_start_elsewhere_and_nothing_is_written_at_rest(world):
    async with sets(world):
        await world.client.create(STATEFUL_SETS, stateful_set(2, ordinals={"start": 5}))
        await anyio.sleep(20)
        assert names(world) == ["db-5", "db-6"]
        writes = len(world.api.writes)
        await anyio.sleep(3600)
        assert len(world.api.writes) == writes
