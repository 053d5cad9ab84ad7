"""Pods as host processes, by root and by a user without any rights: volumes, environment, restarts, kill -9, and the plain word on isolation."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from e2e_site import Kubectl, Site, eventually

from edgesite.testing.containerd import Containerd

NOBODY = 65534
#: Without rights, but able to read the interpreter wherever it is installed.
UNPRIVILEGED = (
    "setpriv",
    f"--reuid={NOBODY}",
    f"--regid={NOBODY}",
    "--clear-groups",
    "--inh-caps=-all,+dac_read_search",
    "--ambient-caps=+dac_read_search",
)
FOREVER = "sleep 1000 & wait"


@pytest.fixture(scope="module", params=["root", "nobody"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix=f"edgesite-e2e-{request.param}-") as place:
        folder = Path(place)
        prefix: tuple[str, ...] = ()
        if request.param == "nobody":
            os.chown(folder, NOBODY, NOBODY)
            prefix = UNPRIVILEGED
        with closing(Site(folder, prefix=prefix)) as made:
            made.start(env={"HOME": place})
            yield made


@pytest.fixture
def kube(site: Site) -> Kubectl:
    return site.kubectl()


def pod(kube: Kubectl, name: str, script: str, *, container: dict[str, Any] | None = None, **spec: Any) -> None:
    main = {"name": "main", "image": "host", "command": ["sh", "-c", script], **(container or {})}
    whole = {"terminationGracePeriodSeconds": 1, "containers": [main], **spec}
    metadata = {"name": name, "labels": {"app": name}, "annotations": {"note": "annotated"}}
    kube(
        "create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": whole})
    )


def phase(kube: Kubectl, name: str, wanted: str) -> None:
    eventually(lambda: kube("get", "pod", name, "-o", "jsonpath={.status.phase}") == wanted, f"{name} {wanted}")


def main_status(kube: Kubectl, name: str) -> dict[str, Any]:
    return dict((kube.json("get", "pod", name)["status"].get("containerStatuses") or [{}])[0])


def test_it_says_that_nothing_is_isolated(site: Site, kube: Kubectl) -> None:
    assert "pods run as plain processes of this host: nothing isolates them" in site.log()
    node = kube.json("get", "node", "node1")
    assert node["metadata"]["annotations"]["edgesite.kubeedge.io/isolation"] == "none"
    assert node["status"]["nodeInfo"]["containerRuntimeVersion"].startswith("edgesite-process://")


def test_it_runs_as_who_started_it(site: Site, kube: Kubectl) -> None:
    pod(kube, "who", "id -u", restartPolicy="Never")
    phase(kube, "who", "Succeeded")
    assert site.program is not None
    assert kube("logs", "who").strip() == str(Path(f"/proc/{site.program.process.pid}").stat().st_uid)


def test_a_deployment(kube: Kubectl, site: Site) -> None:
    kube("create", "deployment", "web", "--image=host", "--replicas=3", "--", "sleep", "1000")
    kube("rollout", "status", "deployment/web", "--timeout=100s")
    before = {one["metadata"]["name"] for one in site.pods() if one["metadata"].get("labels", {}).get("app") == "web"}
    kube("set", "env", "deployment/web", "COLOUR=blue")
    kube("rollout", "status", "deployment/web", "--timeout=100s")
    kube("delete", "pods", "-l", "app=web", "--grace-period=0", "--force")
    kube("rollout", "status", "deployment/web", "--timeout=100s")
    assert before
    kube("delete", "deployment", "web", "--cascade=foreground")


def test_volumes_of_every_kind(kube: Kubectl, site: Site) -> None:
    kube("create", "configmap", "settings", "--from-literal=mode=slow", "--from-literal=deep=x")
    kube("create", "secret", "generic", "hidden", "--from-literal=word=tiger")
    shared = site.folder / "shared"
    shared.mkdir(mode=0o777)
    shared.chmod(0o777)
    (shared / "given").write_text("from the host\n")
    volumes = [
        {"name": "map", "configMap": {"name": "settings", "items": [{"key": "mode", "path": "sub/mode"}]}},
        {"name": "secret", "secret": {"secretName": "hidden", "defaultMode": 0o400}},
        {"name": "empty", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "host", "hostPath": {"path": str(shared), "type": "Directory"}},
        {"name": "down", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {
            "name": "all",
            "projected": {
                "sources": [
                    {"configMap": {"name": "settings", "items": [{"key": "deep", "path": "deep"}]}},
                    {"secret": {"name": "hidden"}},
                    {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
                ]
            },
        },
    ]
    mounts = [{"name": one["name"], "mountPath": f"/v-e2e/{one['name']}"} for one in volumes]
    script = (
        "cd /v-e2e; cat map/sub/mode; echo; cat secret/word; echo; cat down/labels; echo; cat all/deep all/word all/name; echo;"
        "cat host/given; echo back > host/taken; echo one > empty/x; cat empty/x; echo two > memory/x; cat memory/x; "
        + FOREVER
    )
    init = {
        "name": "before",
        "image": "host",
        "command": ["sh", "-c", "echo init > /v-e2e/empty/init"],
        "volumeMounts": mounts,
    }
    reader = {
        "name": "reader",
        "image": "host",
        "command": ["sh", "-c", f"cat /v-e2e/empty/init; {FOREVER}"],
        "volumeMounts": mounts,
    }
    main = {"name": "main", "image": "host", "command": ["sh", "-c", script], "volumeMounts": mounts}
    pod(kube, "volumes", "", volumes=volumes, initContainers=[init], containers=[main, reader])
    wanted = ["slow", "tiger", 'app="volumes"', "xtigervolumes", "from the host", "one", "two"]
    eventually(lambda: kube("logs", "volumes", "-c", "main").splitlines() == wanted, "what the program reads")
    eventually(lambda: kube("logs", "volumes", "-c", "reader") == "init\n", "what another container wrote")
    assert (shared / "taken").read_text() == "back\n"
    assert not Path("/v-e2e").exists()  # mounted for the pod alone
    kube("delete", "pod", "volumes")
    assert not list((site.data / "edge" / "edged" / "pods").rglob("word"))


def test_environment(kube: Kubectl) -> None:
    kube("create", "configmap", "env", "--from-literal=FROM_MAP=map")
    kube("create", "secret", "generic", "env", "--from-literal=FROM_SECRET=secret")
    env = [
        {"name": "PLAIN", "value": "a"},
        {"name": "COMPOSED", "value": "$(PLAIN)-$(FROM_MAP)-$$(PLAIN)"},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "NOTE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['note']"}}},
        {"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "env", "key": "FROM_SECRET"}}},
        {"name": "LIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
        {"name": "MAYBE", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "none", "optional": True}}},
    ]
    sources = [{"configMapRef": {"name": "env"}}, {"secretRef": {"name": "env"}, "prefix": "P_"}]
    more = {"env": env, "envFrom": sources, "resources": {"limits": {"memory": "64Mi"}}}
    pod(kube, "env", "env; hostname", container=more, restartPolicy="Never")
    phase(kube, "env", "Succeeded")
    found = dict(line.split("=", 1) for line in kube("logs", "env").splitlines() if "=" in line)
    assert found.items() >= {"PLAIN": "a", "COMPOSED": "a-map-$(PLAIN)", "NODE": "node1", "NOTE": "annotated"}.items()
    assert found.items() >= {"WORD": "secret", "FROM_MAP": "map", "P_FROM_SECRET": "secret", "LIMIT": "64"}.items()
    assert "MAYBE" not in found
    assert "XDG_RUNTIME_DIR" not in found


def test_restart_policies_and_back_off(kube: Kubectl) -> None:
    pod(kube, "never", "exit 3", restartPolicy="Never")
    pod(kube, "on-failure", "exit 0", restartPolicy="OnFailure")
    pod(kube, "always", "echo again; exit 4")
    phase(kube, "never", "Failed")
    phase(kube, "on-failure", "Succeeded")
    ended = main_status(kube, "never")
    assert (ended["state"]["terminated"]["exitCode"], ended["restartCount"]) == (3, 0)
    waiting = eventually(
        lambda: (
            main_status(kube, "always").get("state", {}).get("waiting", {}).get("reason") == "CrashLoopBackOff"
            and main_status(kube, "always")
        ),
        "CrashLoopBackOff",
        40,
    )
    assert waiting["restartCount"] >= 1
    assert waiting["lastState"]["terminated"]["exitCode"] == 4
    assert "back-off" in waiting["state"]["waiting"]["message"]
    assert kube("logs", "always", "--previous") == "again\n"
    assert re.search(r"always +0/1 +CrashLoopBackOff +\d", kube("get", "pod", "always"))
    eventually(lambda: "BackOff" in kube("get", "events", "--field-selector", "involvedObject.name=always"), "an event")
    kube("delete", "pod", "never", "on-failure", "always")


def test_probes(kube: Kubectl, site: Site) -> None:
    flag = site.folder / "flag"
    check = {
        "exec": {"command": ["test", "-e", str(flag)]},
        "periodSeconds": 1,
        "timeoutSeconds": 30,
        "failureThreshold": 1,
    }
    pod(kube, "probed", FOREVER, container={"readinessProbe": check})
    phase(kube, "probed", "Running")
    assert main_status(kube, "probed")["ready"] is False
    flag.touch()
    eventually(lambda: main_status(kube, "probed")["ready"], "readiness")
    flag.unlink()
    eventually(lambda: not main_status(kube, "probed")["ready"], "no readiness")
    kube("delete", "pod", "probed")


def test_a_program_that_is_not_there(kube: Kubectl) -> None:
    pod(kube, "missing", "", container={"command": ["/no/such/program"]})
    said = eventually(lambda: _trouble(kube, "missing"), "why it does not start")
    assert "/no/such/program" in said
    kube("delete", "pod", "missing")


def _trouble(kube: Kubectl, name: str) -> str:
    state = main_status(kube, name)
    return " ".join(str(one) for one in (state.get("state"), state.get("lastState")) if "no/such" in str(one))


def test_kill_9_leaves_programs_running_and_the_next_one_adopts_them(kube: Kubectl, site: Site) -> None:
    pod(kube, "adopted", f"echo begun; {FOREVER}")
    phase(kube, "adopted", "Running")
    eventually(lambda: kube("logs", "adopted") == "begun\n", "the log")
    before, running = main_status(kube, "adopted"), site.workload()
    site.kill()
    assert site.workload() == running
    site.start(env={"HOME": str(site.folder)})
    eventually(lambda: main_status(kube, "adopted").get("ready"), "ready again")
    after = main_status(kube, "adopted")
    assert (after["containerID"], after["restartCount"]) == (before["containerID"], 0)
    assert kube("logs", "adopted") == "begun\n"
    kube("delete", "pod", "adopted")
    assert not set(running) & set(site.workload())


def test_grace(kube: Kubectl) -> None:
    pod(
        kube,
        "polite",
        "trap 'echo goodbye; exit 0' TERM; echo up; sleep 1000 & wait",
        terminationGracePeriodSeconds=600,
    )
    pod(kube, "stubborn", "trap '' TERM; echo up; while :; do sleep 1; done", terminationGracePeriodSeconds=1)
    for name in ("polite", "stubborn"):
        eventually(lambda n=name: kube("logs", n) == "up\n", f"{name} is up")  # type: ignore[misc]
    follower = kube.background("logs", "-f", "polite")
    kube("delete", "pod", "polite")
    said, _ = follower.communicate(timeout=60)
    assert said.endswith("goodbye\n")
    kube("delete", "pod", "stubborn")


def test_auto_takes_a_container_runtime_where_one_answers(
    new_site: Callable[..., Site], daemon: Containerd, tmp_path: Path
) -> None:
    for node, endpoint, wanted in (
        ("with", daemon.endpoint, "containerd://"),
        ("without", f"unix://{tmp_path}/none.sock", "edgesite-process://"),
    ):
        site = new_site("--cri-endpoint", endpoint, runtime="auto", node=node)
        site.start()
        version = "jsonpath={.status.nodeInfo.containerRuntimeVersion}"
        assert site.kubectl()("get", "node", node, "-o", version).startswith(wanted)
