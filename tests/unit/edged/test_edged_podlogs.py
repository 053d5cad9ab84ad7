"""Which log of a container is meant, and what is said when there is none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edgesite.edge.edged.paths import Paths
from edgesite.edge.edged.pod import Pod
from edgesite.edge.edged.runtime import ContainerState, ContainerStatus, ExecResult, NotInRuntime
from edgesite.edge.edged.server.podlogs import PodLogs
from edgesite.edge.edged.state import PodState, Seen, Waiting
from edgesite.kube.errors import ApiError

pytestmark = pytest.mark.anyio
RUNNING, EXITED, CREATED = ContainerState.RUNNING, ContainerState.EXITED, ContainerState.CREATED


class OnePod:
    def __init__(self, state: PodState) -> None:
        self.state: PodState | None = state

    def states(self) -> list[PodState]:
        return [self.state] if self.state else []

    def find(self, namespace: str, name: str) -> PodState | None:
        return self.state if (namespace, name) == ("default", "web") else None


class Commands:
    """The one call of a runtime that is used here."""

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_s: float) -> ExecResult:
        if command[0] == "gone":
            raise NotInRuntime("no such container")
        return ExecResult(container_id.encode(), b"!", 3)


def pod(*attempts: ContainerState, waiting: str = "") -> PodState:
    raw = {
        "metadata": {"name": "web", "namespace": "default", "uid": "u1"},
        "spec": {"containers": [{"name": "app"}, {"name": "side"}], "initContainers": [{"name": "first"}]},
    }
    state = PodState(Pod(raw), reported={"phase": "Running"})
    for number, attempt in enumerate(attempts):
        status = ContainerStatus(
            f"id{number}",
            "app",
            number,
            attempt,
            number,
            number,
            0,
            0,
            "image",
            "",
            "",
            "",
            {},
            {},
            log_path=f"/l/{number}.log",
        )
        state.containers[status.id] = Seen(status, "sandbox")
    if waiting:
        state.waiting["app"] = Waiting(waiting)
    return state


def logs(state: PodState) -> PodLogs:
    runtime: Any = Commands()
    return PodLogs(OnePod(state), Paths(Path("/root"), Path("/logs")), runtime)


@pytest.mark.parametrize(
    ("state", "previous", "attempt"),
    [
        (pod(RUNNING), False, 0),
        (pod(EXITED), False, 0),
        (pod(EXITED, RUNNING), False, 1),
        (pod(EXITED, RUNNING), True, 0),
        (pod(EXITED, EXITED), True, 0),
        (pod(EXITED, EXITED, waiting="CrashLoopBackOff"), True, 1),
        (pod(EXITED, waiting="CrashLoopBackOff"), True, 0),
        (pod(EXITED, CREATED), False, 0),
    ],
    ids=["running", "ended", "restarted", "before", "before the end", "back-off", "first back-off", "next is created"],
)
async def test_the_attempt_that_is_meant(state: PodState, previous: bool, attempt: int) -> None:
    found = await logs(state).container_log("default", "web", "app", previous=previous)
    assert found.path == Path(f"/l/{attempt}.log")


@pytest.mark.parametrize(
    ("state", "query", "code", "message"),
    [
        (pod(RUNNING), ("default", "other", "app", False), 404, 'pod "other" does not exist'),
        (pod(RUNNING), ("default", "web", "nope", False), 404, 'container "nope" not found in pod "web"'),
        (pod(), ("default", "web", "app", False), 400, "is waiting to start: ContainerCreating"),
        (pod(waiting="PodInitializing"), ("default", "web", "app", False), 400, "is waiting to start: PodInitializing"),
        (
            pod(waiting="ErrImagePull"),
            ("default", "web", "app", False),
            400,
            "is waiting to start: image can't be pulled",
        ),
        (
            pod(RUNNING),
            ("default", "web", "app", True),
            400,
            'previous terminated container "app" in pod "web" not found',
        ),
        (pod(EXITED), ("default", "web", "app", True), 400, "previous terminated container"),
    ],
)
async def test_refusals_are_kubelets(
    state: PodState, query: tuple[str, str, str, bool], code: int, message: str
) -> None:
    with pytest.raises(ApiError) as caught:
        await logs(state).container_log(*query[:3], previous=query[3])
    assert caught.value.code == code
    assert message in caught.value.message


async def test_a_log_is_running_until_its_container_or_its_pod_ends() -> None:
    state = pod(RUNNING)
    pods = OnePod(state)
    runtime: Any = Commands()
    found = await PodLogs(pods, Paths(Path("/root"), Path("/logs")), runtime).container_log("default", "web", "app")
    assert found.running()
    pods.state = None
    assert not found.running()
    pods.state = state
    state.containers.clear()
    assert not found.running()


async def test_a_runtime_that_tells_no_path_has_the_log_in_kubelets_place() -> None:
    state = pod()
    status = ContainerStatus("id", "app", 2, RUNNING, 1, 1, 0, 0, "image", "", "", "", {}, {})
    state.containers["id"] = Seen(status, "sandbox")
    found = await logs(state).container_log("default", "web", "app")
    assert found.path == Path("/logs/default_web_u1/app/2.log")


async def test_commands_run_in_the_running_attempt() -> None:
    result = await logs(pod(EXITED, RUNNING)).run("default", "web", "app", ["ls"])
    assert (result.exit_code, result.output) == (3, b"id1!")
    for state, command in ((pod(EXITED), "ls"), (pod(RUNNING), "gone")):
        with pytest.raises(ApiError) as caught:
            await logs(state).run("default", "web", "app", [command])
        assert caught.value.code == 500


async def test_pods_are_listed_with_the_status_as_reported() -> None:
    assert logs(pod(RUNNING)).pods()[0]["status"] == {"phase": "Running"}
    (running,) = logs(pod(RUNNING)).running_pods()
    assert running["spec"]["containers"][0]["name"] == "app"
    assert logs(pod(EXITED)).running_pods() == []
