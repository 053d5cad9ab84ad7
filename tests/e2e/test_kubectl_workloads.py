"""kubectl, old and current, on what runs: rollouts, scaling, waiting, exposing, logs of many pods, nodes under maintenance."""

from __future__ import annotations

import json
import re
from typing import Any

from e2e_site import Kubectl, Site, eventually

DEPLOYMENT: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web", "labels": {"app": "web"}},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [
                    {"name": "main", "image": "first", "command": ["sh", "-c", "echo here; sleep 1000 & wait"]},
                    {"name": "side", "image": "first", "command": ["sh", "-c", "echo beside; sleep 1000 & wait"]},
                ],
            },
        },
    },
}


def rolled_out(own: Kubectl) -> None:
    text = own("rollout", "status", "deployment/web", "--timeout=100s")
    assert 'deployment "web" successfully rolled out' in text


def deployed(own: Kubectl) -> None:
    own("apply", "-f", "-", stdin=json.dumps(DEPLOYMENT))
    rolled_out(own)


def field(own: Kubectl, target: str, path: str) -> str:
    return own("get", target, "-o", f"jsonpath={{{path}}}")


def image(own: Kubectl) -> str:
    return field(own, "deployment/web", ".spec.template.spec.containers[0].image")


def pods(own: Kubectl) -> set[str]:
    """Names of the pods that are not on their way out."""
    items = own.json("get", "pods", "-l", "app=web")["items"]
    return {one["metadata"]["name"] for one in items if "deletionTimestamp" not in one["metadata"]}


def test_rollouts(own: Kubectl) -> None:
    deployed(own)
    first = pods(own)
    own("set", "image", "deployment/web", "main=second")
    own("annotate", "deployment/web", "kubernetes.io/change-cause=second image")
    rolled_out(own)
    eventually(lambda: len(pods(own)) == 2 and not pods(own) & first, "new pods only")
    history = own("rollout", "history", "deployment/web")
    assert re.search(r"^1 +<none>$", history, re.M)
    assert re.search(r"^2 +second image$", history, re.M)
    assert "second" in own("rollout", "history", "deployment/web", "--revision=2")
    own("rollout", "undo", "deployment/web", "--to-revision=1")
    rolled_out(own)
    assert image(own) == "first"
    assert field(own, "deployment/web", r".metadata.annotations.deployment\.kubernetes\.io/revision") == "3"
    assert "unable to find" in own.fails("rollout", "undo", "deployment/web", "--to-revision=77")


def test_restart_pause_and_resume(own: Kubectl) -> None:
    deployed(own)
    first = pods(own)
    own("rollout", "restart", "deployment/web")
    rolled_out(own)
    eventually(lambda: len(pods(own)) == 2 and not pods(own) & first, "new pods only")
    own("rollout", "pause", "deployment/web")
    second = pods(own)
    own("set", "image", "deployment/web", "main=paused")
    seen = field(own, "deployment/web", ".metadata.generation")
    eventually(lambda: field(own, "deployment/web", ".status.observedGeneration") == seen, "the change was seen")
    assert pods(own) == second
    assert "can't restart paused deployment" in own.fails("rollout", "restart", "deployment/web")
    own("rollout", "resume", "deployment/web")
    rolled_out(own)
    eventually(lambda: len(pods(own)) == 2 and not pods(own) & second, "new pods only")


def test_a_rollout_that_cannot_succeed_keeps_what_works(own: Kubectl) -> None:
    deployed(own)
    broken = {"spec": {"progressDeadlineSeconds": 1, "template": {"spec": {"nodeSelector": {"no": "such"}}}}}
    own("patch", "deployment", "web", "-p", json.dumps(broken))
    assert "exceeded its progress deadline" in own.fails("rollout", "status", "deployment/web", "--timeout=100s")
    assert int(field(own, "deployment/web", ".status.availableReplicas")) == 2
    own("patch", "deployment", "web", "-p", json.dumps({"spec": {"progressDeadlineSeconds": 600}}))
    own("rollout", "undo", "deployment/web")
    rolled_out(own)


def test_scale(own: Kubectl) -> None:
    deployed(own)
    assert "scaled" in own("scale", "deployment/web", "--replicas=3")
    eventually(lambda: field(own, "deployment/web", ".status.readyReplicas") == "3", "three ready")
    assert "Expected replicas to be 7, was 3" in own.fails(
        "scale", "deployment/web", "--replicas=1", "--current-replicas=7"
    )
    own("scale", "deployment/web", "--replicas=0")
    eventually(lambda: not own("get", "pods", "-o", "name"), "no pods")
    own("autoscale", "deployment", "web", "--min=1", "--max=3", "--cpu-percent=80")
    assert re.search(r"web +Deployment/web +.*80% +1 +3 ", own("get", "hpa"))


def test_wait(own: Kubectl) -> None:
    own("apply", "-f", "-", stdin=json.dumps(DEPLOYMENT))
    assert "condition met" in own("wait", "--for=condition=Available", "deployment/web", "--timeout=100s")
    assert own("wait", "--for=condition=Ready", "pods", "-l", "app=web", "--timeout=100s").count("condition met") == 2
    assert "timed out" in own.fails("wait", "--for=condition=Nonsense", "deployment/web", "--timeout=1s")
    name = min(pods(own))
    waiting = own.background("wait", "--for=delete", f"pod/{name}", "--timeout=100s")
    own("delete", "pod", name, "--wait=false")
    _, said = waiting.communicate(timeout=40)
    assert waiting.returncode == 0, said


def test_wait_for_a_value(shared_site: Site, own: Kubectl) -> None:
    current = shared_site.kubectl("1.32").within(own.namespace)
    own("apply", "-f", "-", stdin=json.dumps(DEPLOYMENT))
    current("wait", "--for=jsonpath={.status.readyReplicas}=2", "deployment/web", "--timeout=100s")
    current("wait", "--for=jsonpath={.status.phase}=Running", "pods", "-l", "app=web", "--timeout=100s")


def test_run_and_expose(own: Kubectl) -> None:
    own(
        "run",
        "once",
        "--image=host",
        "--restart=Never",
        "--labels=app=once",
        "--command",
        "--",
        "sh",
        "-c",
        "echo done",
    )
    eventually(lambda: field(own, "pod/once", ".status.phase") == "Succeeded", "the end of the pod")
    assert own("logs", "once") == "done\n"
    assert re.search(r"once +0/1 +Completed +0 ", own("get", "pods"))
    deployed(own)
    own("expose", "deployment", "web", "--port=80", "--target-port=8080", "--name=front")
    address = re.search(r"front +ClusterIP +(10\.96\.\d+\.\d+) +<none> +80/TCP", own("get", "services"))
    assert address
    ip = field(own, "pods", ".items[0].status.podIP")
    eventually(lambda: f"{ip}:8080" in own("get", "endpoints", "front"), "endpoints")
    slices = eventually(
        lambda: own.json("get", "endpointslices", "-l", "kubernetes.io/service-name=front")["items"],
        "a slice of endpoints",
    )
    assert slices[0]["ports"][0]["port"] == 8080
    assert "already exists" in own.fails("expose", "deployment", "web", "--port=80", "--name=front")


def test_logs_of_many(own: Kubectl) -> None:
    deployed(own)
    of_all = ("logs", "-l", "app=web", "--all-containers", "--prefix")
    wanted = {
        f"[pod/{name}/{container}] {text}"
        for name in pods(own)
        for container, text in (("main", "here"), ("side", "beside"))
    }
    eventually(lambda: set(own(*of_all).splitlines()) == wanted, "a line of each container")
    assert own("logs", "deployment/web", "-c", "side") == "beside\n"


def test_a_diff_names_what_would_change(own: Kubectl) -> None:
    deployed(own)
    three = json.dumps(DEPLOYMENT).replace('"replicas": 2', '"replicas": 3')
    done = own.run("diff", "-f", "-", stdin=three)
    assert done.returncode == 1
    assert "-  replicas: 2" in done.stdout
    assert "+  replicas: 3" in done.stdout
    assert "--- " in own.run("diff", "--server-side", "--force-conflicts", "-f", "-", stdin=three).stdout


def test_a_tainted_node_takes_no_pods(own: Kubectl) -> None:
    own("taint", "node", "node1", f"{own.namespace}=x:NoSchedule")
    try:
        own("apply", "-f", "-", stdin=json.dumps(DEPLOYMENT))
        eventually(lambda: "untolerated taint" in own("describe", "pods"), "an event that names the taint")
        assert own("get", "pods", "--field-selector", "spec.nodeName=", "-o", "name").count("pod/") == 2
        tolerant = {"operator": "Exists", "key": own.namespace}
        own(
            "run",
            "tolerant",
            "--image=host",
            "--overrides",
            _overrides(tolerations=[tolerant]),
            "--command",
            "--",
            "sleep",
            "1000",
        )
        eventually(lambda: field(own, "pod/tolerant", ".status.phase") == "Running", "the pod that tolerates it")
    finally:
        own("taint", "node", "node1", f"{own.namespace}-")
    rolled_out(own)


def _overrides(**spec: Any) -> str:
    return json.dumps({"apiVersion": "v1", "spec": {"terminationGracePeriodSeconds": 1, **spec}})


def test_drain_honours_budgets(own: Kubectl) -> None:
    deployed(own)
    budget = {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}}
    kind = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"}, "spec": budget}
    before = pods(own)
    drain = ("drain", "node1", "--ignore-daemonsets", "--force", "--pod-selector=app=web", "--delete-emptydir-data")
    if own.version == "1.20":
        drain = drain[:-1]
    try:
        own("cordon", "node1")
        assert "SchedulingDisabled" in own("get", "nodes")
        if own.version != "1.20":
            own("create", "-f", "-", stdin=json.dumps(kind))
            refused = own.fails(*drain, "--timeout=3s")
            assert "disruption budget" in refused
            assert pods(own) == before
            own("delete", "pdb", "b")
        assert "evict" in own(*drain, "--timeout=30s")
        eventually(lambda: not pods(own) & before, "all evicted")
        assert {one["status"]["phase"] for one in own.json("get", "pods")["items"]} == {"Pending"}
    finally:
        own("uncordon", "node1")
    rolled_out(own)
