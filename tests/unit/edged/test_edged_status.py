"""Statuses in kubelet's words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edgesite.edge.edged.adoption import ANNOTATION_SPEC, container_annotations
from edgesite.edge.edged.pod import Pod
from edgesite.edge.edged.runtime import ContainerState, ContainerStatus, SandboxInfo, SandboxState
from edgesite.edge.edged.state import PodState, Rejection, Seen, Waiting
from edgesite.edge.edged.status import pod_status, status_patch

NOW = 1_800_000_000.0
SANDBOX = SandboxInfo("s1", "web", "default", "u1", 0, SandboxState.READY, 1, {}, {})


def a_pod(*names: str, inits: tuple[str, ...] = (), **more: Any) -> Pod:
    spec = {
        "containers": [{"name": name, "image": "app:1"} for name in names or ("main",)],
        "initContainers": [{"name": name, "image": "app:1"} for name in inits],
        **more,
    }
    return Pod({"metadata": {"name": "web", "namespace": "default", "uid": "u1"}, "spec": spec})


def ran(name: str, state: ContainerState, *, attempt: int = 0, code: int = 0, **more: Any) -> ContainerStatus:
    finished = int((NOW - 5) * 1e9) if state is ContainerState.EXITED else 0
    started = 0 if state is ContainerState.CREATED else int((NOW - 60) * 1e9)
    status = ContainerStatus(
        id=f"{name}-{attempt}",
        name=name,
        attempt=attempt,
        state=state,
        created_ns=int((NOW - 61) * 1e9) + attempt,
        started_ns=started,
        finished_ns=finished,
        exit_code=code,
        image="docker.io/library/app:1",
        image_ref="docker.io/library/app@sha256:1",
        reason="",
        message="",
        labels={},
        annotations={},
    )
    return replace(status, **more)


def state_of(pod: Pod, *containers: ContainerStatus) -> PodState:
    state = PodState(pod, sandboxes=[SANDBOX], ips=("10.0.0.9",))
    for one in containers:
        state.containers[one.id] = Seen(one, "s1")
    return state


def status_of(state: PodState, **more: Any) -> dict[str, Any]:
    return pod_status(state, host_ips=("192.0.2.1",), runtime_name="containerd", now=NOW, **more)


def conditions(status: dict[str, Any]) -> dict[str, tuple[str, str | None]]:
    return {one["type"]: (one["status"], one["reason"]) for one in status["conditions"]}


def test_running_and_ready() -> None:
    status = status_of(state_of(a_pod(), ran("main", ContainerState.RUNNING)))
    assert status["phase"] == "Running"
    assert status["podIP"] == "10.0.0.9"
    assert status["podIPs"] == [{"ip": "10.0.0.9"}]
    assert all(one == ("True", None) for one in conditions(status).values())
    (main,) = status["containerStatuses"]
    assert main["state"] == {"running": {"startedAt": "2027-01-15T07:59:00Z"}}
    assert main["containerID"] == "containerd://main-0"
    assert (main["ready"], main["started"], main["imageID"]) == (True, True, "docker.io/library/app@sha256:1")


@pytest.mark.parametrize(
    ("wanted", "annotations", "told", "shown"),
    [
        ("app:1", True, "docker.io/library/app:1", "docker.io/library/app:1"),
        ("app:1", True, "docker.io/library/app:same-image", "docker.io/library/app:1"),
        ("app@sha256:" + 64 * "a", True, "docker.io/library/app:1", "docker.io/library/app@sha256:" + 64 * "a"),
        ("app:1", True, "sha256:" + 64 * "a", "app:1"),
        ("host", True, "host", "host"),
        ("app:2", False, "docker.io/library/app:1", "docker.io/library/app:1"),
    ],
)
def test_an_image_is_named_as_the_spec_names_it(wanted: str, annotations: bool, told: str, shown: str) -> None:
    """A runtime tells the first of the names that an image has. What an older spec made is named as the runtime does."""
    pod = a_pod()
    (main,) = pod.containers
    main["image"] = wanted
    marks = container_annotations(pod, main) if annotations else {ANNOTATION_SPEC: "0"}
    state = state_of(pod, ran("main", ContainerState.RUNNING, image=told, annotations=marks))
    (status,) = status_of(state)["containerStatuses"]
    assert status["image"] == shown


def test_nothing_made_yet() -> None:
    state = PodState(a_pod())
    status = status_of(state)
    assert status["phase"] == "Pending"
    assert status["containerStatuses"][0]["state"] == {"waiting": {"reason": "ContainerCreating"}}
    assert conditions(status)["PodReadyToStartContainers"] == ("False", None)
    assert conditions(status)["Ready"] == ("False", "ContainersNotReady")
    assert status["conditions"][2]["message"] == "containers with unready status: [main]"


def test_main_containers_wait_for_init_containers() -> None:
    status = status_of(state_of(a_pod(inits=("setup",)), ran("setup", ContainerState.RUNNING)))
    assert status["phase"] == "Pending"
    assert status["containerStatuses"][0]["state"]["waiting"]["reason"] == "PodInitializing"
    assert conditions(status)["Initialized"] == ("False", "ContainersNotInitialized")
    assert status["conditions"][1]["message"] == "containers with incomplete status: [setup]"


@pytest.mark.parametrize(
    ("policy", "code", "phase"),
    [
        ("Always", 1, "Running"),
        ("Always", 0, "Running"),
        ("OnFailure", 1, "Running"),
        ("OnFailure", 0, "Succeeded"),
        ("Never", 1, "Failed"),
        ("Never", 0, "Succeeded"),
    ],
)
def test_phase_after_the_end_of_the_only_container(policy: str, code: int, phase: str) -> None:
    status = status_of(state_of(a_pod(restartPolicy=policy), ran("main", ContainerState.EXITED, code=code)))
    assert status["phase"] == phase
    terminated = status["containerStatuses"][0]["state"]["terminated"]
    assert (terminated["exitCode"], terminated["reason"]) == (code, "Error" if code else "Completed")


def test_one_of_two_still_running() -> None:
    pod = a_pod("one", "two", restartPolicy="Never")
    status = status_of(state_of(pod, ran("one", ContainerState.RUNNING), ran("two", ContainerState.EXITED)))
    assert status["phase"] == "Running"
    assert status["conditions"][2]["message"] == "containers with unready status: [two]"


def test_crash_loop_keeps_the_last_end() -> None:
    state = state_of(a_pod(), ran("main", ContainerState.EXITED, attempt=3, code=137, reason="OOMKilled"))
    state.waiting["main"] = Waiting("CrashLoopBackOff", "back-off 40s")
    status = status_of(state)
    (main,) = status["containerStatuses"]
    assert main["state"] == {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}}
    assert main["lastState"]["terminated"]["reason"] == "OOMKilled"
    assert (main["restartCount"], main["ready"]) == (3, False)
    assert status["phase"] == "Running"


def test_a_restarted_container_shows_its_end_before() -> None:
    history = (ran("main", ContainerState.EXITED, code=2), ran("main", ContainerState.RUNNING, attempt=1))
    (main,) = status_of(state_of(a_pod(), *history))["containerStatuses"]
    assert "running" in main["state"]
    assert main["lastState"]["terminated"]["exitCode"] == 2
    assert main["restartCount"] == 1


def test_failed_init_container_fails_the_pod_that_is_never_restarted() -> None:
    pod = a_pod(inits=("setup",), restartPolicy="Never")
    assert status_of(state_of(pod, ran("setup", ContainerState.EXITED, code=1)))["phase"] == "Failed"


def test_readiness_and_startup_probes_hold_ready_back() -> None:
    raw = a_pod().raw
    raw["spec"]["containers"][0]["readinessProbe"] = {"exec": {}}
    state = state_of(Pod(raw), ran("main", ContainerState.RUNNING))
    assert status_of(state)["containerStatuses"][0]["ready"] is False
    state.ready["main-0"] = True
    assert status_of(state)["containerStatuses"][0]["ready"] is True
    state.started["main-0"] = False
    (main,) = status_of(state)["containerStatuses"]
    assert (main["ready"], main["started"]) == (False, False)


def test_a_closed_readiness_gate_holds_only_the_pod_back() -> None:
    pod = a_pod(readinessGates=[{"conditionType": "example.com/open"}])
    found = conditions(status_of(state_of(pod, ran("main", ContainerState.RUNNING))))
    assert found["Ready"] == ("False", "ReadinessGatesNotReady")
    assert found["ContainersReady"] == ("True", None)


def test_transition_times_change_with_the_condition_only() -> None:
    state = state_of(a_pod(), ran("main", ContainerState.RUNNING))
    first = status_of(state)
    state.reported = first
    again = pod_status(state, host_ips=("192.0.2.1",), runtime_name="containerd", now=NOW + 100)
    assert again == first


def test_a_rejected_pod_has_failed() -> None:
    state = PodState(a_pod(), rejection=Rejection("OutOfcpu", "no room"))
    status = status_of(state)
    assert (status["phase"], status["reason"], status["message"]) == ("Failed", "OutOfcpu", "no room")


def test_what_the_runtime_has_forgotten_is_still_told() -> None:
    ended = {"exitCode": 4, "containerID": "containerd://old"}
    told = {"name": "main", "restartCount": 5, "containerID": "containerd://old", "state": {"terminated": ended}}
    pod = a_pod()
    state = PodState(pod, reported={"phase": "Running", "containerStatuses": [told]})
    (main,) = status_of(state)["containerStatuses"]
    assert main["restartCount"] == 5
    assert main["lastState"] == {"terminated": ended}
    assert state.reported_restarts("main") == 5


def test_the_end_of_a_deleted_pod_is_final() -> None:
    state = state_of(a_pod(), ran("main", ContainerState.EXITED, code=0))
    assert status_of(state, ended=True)["phase"] == "Succeeded"
    state = state_of(a_pod(), ran("main", ContainerState.EXITED, code=137))
    assert status_of(state, ended=True)["phase"] == "Failed"


def test_a_patch_takes_away_what_is_no_longer_so() -> None:
    before = {"phase": "Pending", "reason": "Old", "nominatedNodeName": "n", "podIPs": [{"ip": "10.0.0.1"}]}
    after = {"phase": "Running", "podIPs": [{"ip": "10.0.0.2"}]}
    patch = status_patch("u1", before, after)
    assert patch["metadata"] == {"uid": "u1"}
    assert patch["status"] == {
        "phase": "Running",
        "reason": None,
        "podIPs": [{"ip": "10.0.0.2"}, {"ip": "10.0.0.1", "$patch": "delete"}],
    }
    same = status_patch("u1", after, after | {"hostIPs": [{"ip": "192.0.2.1"}]})
    assert same["status"] == after | {"hostIPs": [{"ip": "192.0.2.1"}]}, "old API servers would store a directive"


def test_host_network_pods_have_the_nodes_addresses() -> None:
    status = status_of(state_of(a_pod(hostNetwork=True), ran("main", ContainerState.RUNNING)))
    assert status["podIP"] == status["hostIP"] == "192.0.2.1"
