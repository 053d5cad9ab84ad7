from contextlib import asynccontextmanager

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_workloads import Kubelet

from edgesite.controlplane.job.accounting import FINALIZER, format_indexes, parse_indexes
from edgesite.controlplane.job.module import JobModule
from edgesite.kube.errors import internal
from edgesite.kube.resources import JOBS, PODS

RUN_S = 5.0


def job(image="ok", **spec):
    labels = {"job": "j"}
    template = {
        "metadata": {"labels": labels},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": image}]},
    }
    spec = {"selector": {"matchLabels": labels}, "template": template, "parallelism": 1, "backoffLimit": 6, **spec}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "namespace": "d"}, "spec": spec}


class Runner(Kubelet):
    """Runs pods to their end: image "ok" succeeds, "bad" fails, "long" goes on."""

    async def start(self, pod):
        name, image = pod["metadata"]["name"], pod["spec"]["containers"][0]["image"]
        self.peak = max(self.peak, sum(not one["status"].get("phase") for one in self.world.all("pods").values()))
        await self.world.client.patch(PODS, name, {"spec": {"nodeName": "n"}}, "d")
        if image == "long":
            return
        await anyio.sleep(RUN_S)
        phase = {"ok": "Succeeded", "bad": "Failed"}[image]
        if name in self.world.all("pods"):
            await self.world.client.patch(PODS, name, {"status": {"phase": phase}}, "d", subresource="status")


@asynccontextmanager
async def jobs(world):
    runner = Runner(world)
    async with world.running(JobModule), anyio.create_task_group() as tasks:
        tasks.start_soon(runner.run)
        yield runner
        tasks.cancel_scope.cancel()


def status(world):
    return world.all("jobs")["j"]["status"]


def said(world):
    return {one["type"]: (one["status"], one["reason"]) for one in status(world).get("conditions", ())}


@given(st.sets(st.integers(0, 60)))
def test_indexes_read_as_they_are_written(indexes):
    assert parse_indexes(format_indexes(indexes)) == indexes


def test_runs_of_indexes_are_joined():
    assert format_indexes({0, 1, 2, 5, 7, 8}) == "0-2,5,7,8"
    assert parse_indexes("0-2,x,5,-,7-") == {0, 1, 2, 5}


@pytest.mark.anyio
async def test_a_job_runs_to_its_completions_within_its_parallelism(world):
    async with jobs(world) as runner:
        await world.client.create(JOBS, job(completions=5, parallelism=2))
        await anyio.sleep(60)
        assert status(world)["succeeded"] == 5
        assert said(world)["Complete"] == ("True", "CompletionsReached")
        assert status(world)["completionTime"]
        assert status(world)["uncountedTerminatedPods"] == {}
        assert "active" not in status(world)
        assert runner.peak <= 2
        assert len(world.all("pods")) == 5
        assert not any(FINALIZER in pod["metadata"].get("finalizers", ()) for pod in world.all("pods").values())
        writes = len(world.api.writes)
        await anyio.sleep(3600)
        assert len(world.api.writes) == writes


@pytest.mark.anyio
async def test_failures_pause_longer_and_longer_up_to_the_limit(world):
    async with jobs(world):
        await world.client.create(JOBS, job("bad", backoffLimit=3))
        await anyio.sleep(12)
        assert status(world)["failed"] == 1
        await anyio.sleep(20)
        assert len(world.all("pods")) == 2
        await anyio.sleep(300)
        assert len(world.all("pods")) == 4
        assert said(world)["Failed"] == ("True", "BackoffLimitExceeded")
        assert status(world)["failed"] == 4


@pytest.mark.anyio
async def test_a_deadline_ends_what_runs(world):
    async with jobs(world):
        await world.client.create(JOBS, job("long", activeDeadlineSeconds=30))
        await anyio.sleep(29)
        assert status(world)["active"] == 1
        await anyio.sleep(5)
        [pod] = world.all("pods").values()
        assert pod["metadata"]["deletionTimestamp"]
        assert said(world)["FailureTarget"] == ("True", "DeadlineExceeded")
        assert "Failed" not in said(world)
        await world.client.patch(
            PODS, pod["metadata"]["name"], {"status": {"phase": "Failed"}}, "d", subresource="status"
        )
        await anyio.sleep(5)
        assert said(world)["Failed"] == ("True", "DeadlineExceeded")
        assert world.all("pods") == {}


@pytest.mark.anyio
async def test_an_indexed_job_does_each_index_once(world):
    async with jobs(world):
        await world.client.create(JOBS, job(completions=4, parallelism=3, completionMode="Indexed"))
        await anyio.sleep(60)
        assert status(world)["completedIndexes"] == "0-3"
        assert status(world)["succeeded"] == 4
        found = sorted(
            pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] for pod in world.all("pods").values()
        )
        assert found == ["0", "1", "2", "3"]


@pytest.mark.anyio
async def test_a_suspended_job_rests_and_goes_on(world):
    async with jobs(world):
        await world.client.create(JOBS, job("ok", suspend=True))
        await anyio.sleep(10)
        assert world.all("pods") == {}
        assert said(world)["Suspended"] == ("True", "JobSuspended")
        await world.client.patch(JOBS, "j", {"spec": {"suspend": False}}, "d")
        await anyio.sleep(20)
        assert said(world)["Complete"][0] == "True"


@pytest.mark.anyio
async def test_finished_jobs_go_after_their_time_and_pods_of_deleted_jobs_are_let_go(world):
    async with jobs(world):
        await world.client.create(JOBS, job(ttlSecondsAfterFinished=30))
        await anyio.sleep(20)
        assert "deletionTimestamp" not in world.all("jobs")["j"]["metadata"]
        await anyio.sleep(30)
        assert world.all("jobs")["j"]["metadata"]["deletionTimestamp"]
        await world.client.patch(JOBS, "j", {"metadata": {"finalizers": None}}, "d")
        assert world.all("jobs") == {}
        await world.client.create(JOBS, job("long"))
        await anyio.sleep(5)
        await world.client.delete(JOBS, "j", "d")
        for name in world.all("pods"):
            await world.client.delete(PODS, name, "d")
        await anyio.sleep(5)
        assert world.all("pods") == {}


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(4))
async def test_each_pod_is_counted_once_whatever_fails_on_the_way(world, seed):
    async with jobs(world):
        await world.client.create(JOBS, job(completions=6, parallelism=3))
        for number in range(12):
            await anyio.sleep(1.3)
            only = ["PUT /apis/batch", "POST /api/v1/namespaces/d/pods", "DELETE"][(number + seed) % 3]
            world.api.fail(internal("no"), ConnectionResetError("cut"), only=only)
        await anyio.sleep(200)
        assert said(world)["Complete"][0] == "True"
        assert status(world)["succeeded"] == 6
        assert status(world).get("failed", 0) == 0
