"""kubectl, old and current, on the whole site: reading, watching, creating, changing and deleting objects."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

from e2e_site import Kubectl, Site, eventually

CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {mode: slow}\n"
IDLE: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "idle", "labels": {"tier": "back"}},
    "spec": {
        "replicas": 0,
        "selector": {"matchLabels": {"app": "idle"}},
        "template": {
            "metadata": {"labels": {"app": "idle"}},
            "spec": {"containers": [{"name": "main", "image": "host", "command": ["sleep", "1000"]}]},
        },
    },
}


def pod(name: str, **spec: Any) -> str:
    """A pod that runs until it is deleted, and then ends at once."""
    main = {"name": "main", "image": "host", "command": ["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"]}
    made = {"terminationGracePeriodSeconds": 5, "containers": [main], **spec}
    return json.dumps(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"run": name}}, "spec": made}
    )


def running(own: Kubectl, name: str) -> None:
    eventually(lambda: own("get", "pod", name, "-o", "jsonpath={.status.phase}") == "Running", f"pod {name} running")


@contextmanager
def watching(own: Kubectl, *arguments: str) -> Iterator[Queue[str]]:
    """The lines of a watch, as they come."""
    process = own.background(*arguments)
    assert process.stdout is not None
    lines: Queue[str] = Queue()
    stdout = process.stdout
    reader = Thread(target=lambda: [lines.put(line) for line in stdout], daemon=True)
    reader.start()
    try:
        yield lines
    finally:
        process.terminate()
        process.wait(60)
        reader.join(10)
        process.stdout.close()
        assert process.stderr is not None
        process.stderr.close()


def await_line(lines: Queue[str], pattern: str) -> str:
    while not re.search(pattern, line := lines.get(timeout=15)):
        pass
    return line


def test_version_and_discovery(kubectl: Kubectl) -> None:
    assert "v1.36" in kubectl("version")
    resources = kubectl("api-resources")
    for row in (
        r"pods +po +v1 +true +Pod",
        r"deployments +deploy +apps/v1 +true",
        r"nodes +no +v1 +false",
        r"leases .*coordination",
    ):
        assert re.search(row, resources), row
    assert "configmaps" in kubectl("api-resources", "--namespaced=true", "--verbs=list", "-o", "name")
    assert {"v1", "apps/v1", "batch/v1"} <= set(kubectl("api-versions").split())
    assert "control plane" in kubectl("cluster-info")
    assert "DATA+OMITTED" in kubectl("config", "view")
    assert json.loads(kubectl("get", "--raw", "/version"))["major"] == "1"


def test_explain(kubectl: Kubectl) -> None:
    assert "containers" in kubectl("explain", "pod.spec")
    deep = kubectl("explain", "deployment.spec.template.spec.containers.livenessProbe.httpGet.port")
    assert "port <" in deep
    assert "1 to" in deep
    assert "rollingUpdate" in kubectl("explain", "deploy.spec.strategy", "--recursive")
    assert "does not exist" in kubectl.fails("explain", "pod.spec.nonsense")


def test_output_forms(own: Kubectl) -> None:
    own("create", "-f", "-", stdin=pod("one"))
    running(own, "one")
    assert own("get", "pod", "one", "-o", "name") == "pod/one\n"
    assert own.json("get", "pod", "one")["status"]["phase"] == "Running"
    assert "\n  name: one\n" in own("get", "pod", "one", "-o", "yaml")
    assert own("get", "pods", "-o", "jsonpath={.items[*].spec.containers[0].name}") == "main"
    assert own("get", "pods", "-o", "go-template={{range .items}}{{.kind}}{{end}}") == "Pod"
    columns = "custom-columns=NAME:.metadata.name,NODE:.spec.nodeName"
    assert own("get", "pods", "-o", columns).split() == ["NAME", "NODE", "one", "node1"]
    head, row = own("get", "pods", "-o", "wide").splitlines()
    assert head.split()[:7] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE"]
    assert row.split()[:4] == ["one", "1/1", "Running", "0"]
    assert own("get", "pods", "--no-headers", "--show-labels").split()[-1] == "run=one"
    assert own("get", "pods", "-L", "run").splitlines()[1].split()[-1] == "one"
    assert re.search(rf"{own.namespace} +one ", own("get", "pods", "-A"))
    assert "kubernetes" in own("get", "services", "-n", "default", "--sort-by=.metadata.name")


def test_selection(own: Kubectl) -> None:
    own("create", "-f", "-", stdin=pod("a"))
    own("create", "-f", "-", stdin=pod("b", nodeSelector={"no": "such"}))
    running(own, "a")
    chosen = lambda *flags: own("get", "pods", *flags, "-o", "name").split()
    assert chosen("-l", "run=a") == ["pod/a"]
    assert chosen("-l", "run in (a,b)") == ["pod/a", "pod/b"]
    assert chosen("-l", "run,run!=a") == ["pod/b"]
    assert chosen("--field-selector", "status.phase=Running") == ["pod/a"]
    assert chosen("--field-selector", "spec.nodeName=node1") == ["pod/a"]
    assert chosen("--field-selector", "metadata.name!=a") == ["pod/b"]
    assert chosen("--field-selector", "status.phase=Pending,spec.nodeName=") == ["pod/b"]
    assert "field label not supported" in own.fails("get", "pods", "--field-selector", "spec.nonsense=1")
    assert "unable to parse" in own.fails("get", "pods", "-l", "a in (")


def test_watch_shows_events_as_they_happen(own: Kubectl) -> None:
    with watching(own, "get", "pods", "-w", "--no-headers", "--output-watch-events") as lines:
        own("create", "-f", "-", stdin=pod("seen"))
        await_line(lines, r"^ADDED +seen +0/1 +Pending")
        await_line(lines, r"^MODIFIED +seen +1/1 +Running")
        own("delete", "pod", "seen")
        await_line(lines, r"^MODIFIED +seen +1/1 +Terminating")
        await_line(lines, r"^DELETED +seen ")


def test_watch_of_a_selection_in_json(own: Kubectl) -> None:
    own("create", "-f", "-", stdin=CONFIG)
    with watching(own, "get", "cm", "-l", "pick=yes", "-w", "-o", "jsonpath={.metadata.name} {.data}{'\\n'}") as lines:
        own("label", "cm", "settings", "pick=yes")
        await_line(lines, "^settings .*slow")
        own("patch", "cm", "settings", "-p", '{"data":{"mode":"fast"}}')
        await_line(lines, "^settings .*fast")


def test_describe(own: Kubectl) -> None:
    own("create", "-f", "-", stdin=pod("one"))
    own("create", "-f", "-", stdin=json.dumps(IDLE))
    own("create", "-f", "-", stdin=CONFIG)
    own("create", "secret", "generic", "hidden", "--from-literal=word=tiger")
    own("expose", "deployment", "idle", "--port=80", "--target-port=8080")
    running(own, "one")
    for target, patterns in {
        "pod/one": [
            r"Node: +node1/",
            r"Status: +Running",
            r"Restart Count: +0",
            r"QoS Class: +BestEffort",
            "Started container main",
        ],
        "node/node1": [r"Ready +True", r"edgesite-process://", rf"{own.namespace} +one", r"isolation"],
        "deployment/idle": [r"Replicas: +0 desired", r"RollingUpdate", r"Image: +host"],
        "service/idle": [r"TargetPort: +8080/TCP", r"Endpoints:"],
        "configmap/settings": ["mode:", "slow"],
        "secret/hidden": [r"word: +5 bytes"],
        f"namespace/{own.namespace}": [r"Status: +Active"],
    }.items():
        eventually(lambda t=target, p=patterns: _described(own, t, p), f"description of {target}")  # type: ignore[misc]
    assert "tiger" not in own("describe", "secret", "hidden")
    assert re.search(r"Normal +Scheduled +pod/one", own("get", "events"))
    assert "Scheduled" in own("get", "events", "--field-selector", "involvedObject.name=one,reason=Scheduled")
    assert "Scheduled" in own("get", "events.events.k8s.io")


def _described(own: Kubectl, target: str, patterns: list[str]) -> bool:
    text = own("describe", target)
    for pattern in patterns:
        assert re.search(pattern, text), f"{pattern} is not in {text}"
    return True


def test_create_of_many_kinds(own: Kubectl, tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("from a file")
    for text in (
        "deployment d --image=host --replicas=0",
        f"configmap c --from-literal=k=v --from-file={tmp_path}/file.txt",
        "secret generic s --from-literal=k=v",
        "secret docker-registry r --docker-username=u --docker-password=p --docker-server=h",
        "service clusterip a --tcp=80:8080",
        "service nodeport b --tcp=80",
        "job j --image=host -- true",
        "role ro --verb=get --resource=pods",
        "rolebinding rb --role=ro --user=bob",
        "serviceaccount sa",
        "quota q --hard=pods=30",
    ):
        assert "created" in own("create", *text.split()), text
    assert own("get", "cm", "c", "-o", r"jsonpath={.data.file\.txt}") == "from a file"
    assert own("get", "secret", "s", "-o", "jsonpath={.data.k}") == "dg=="
    assert int(own("get", "svc", "b", "-o", "jsonpath={.spec.ports[0].nodePort}")) >= 30000
    assert '"c" already exists' in own.fails("create", "configmap", "c")
    drawn = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "drawn-"}})
    names = {own("create", "-f", "-", "-o", "name", stdin=drawn).strip() for _ in range(2)}
    assert len(names) == 2
    assert all(re.fullmatch(r"configmap/drawn-[a-z0-9]{5}", name) for name in names)


def test_apply_by_the_client(own: Kubectl) -> None:
    assert "created" in own("apply", "-f", "-", stdin=CONFIG)
    assert "unchanged" in own("apply", "-f", "-", stdin=CONFIG)
    own("patch", "cm", "settings", "-p", '{"data":{"other":"kept"}}')
    fast = CONFIG.replace("mode: slow", "speed: high")
    assert own.run("diff", "-f", "-", stdin=fast).returncode == 1
    assert "configured" in own("apply", "-f", "-", stdin=fast)
    assert own.json("get", "cm", "settings")["data"] == {"other": "kept", "speed": "high"}
    assert own.run("diff", "-f", "-", stdin=fast).returncode == 0
    assert "speed: high" in own("apply", "view-last-applied", "cm", "settings")


def test_apply_by_the_server(own: Kubectl) -> None:
    text = json.dumps(IDLE)
    assert "serverside-applied" in own("apply", "--server-side", "-f", "-", stdin=text)
    changed = text.replace('"replicas": 0', '"replicas": 1')
    refused = own.fails("apply", "--server-side", "--field-manager=other", "-f", "-", stdin=changed)
    assert 'conflict with "kubectl"' in refused
    assert ".spec.replicas" in refused
    never = changed.replace('"main", "image": "host"', '"main", "image": "host", "imagePullPolicy": "Never"')
    own("apply", "--server-side", "--field-manager=other", "--force-conflicts", "-f", "-", stdin=never)
    owners = [one["manager"] for one in own.json("get", "deploy", "idle", *_shown(own))["metadata"]["managedFields"]]
    assert {"kubectl", "other"} <= set(owners)
    assert own("get", "deploy", "idle", "-o", "jsonpath={.spec.replicas}") == "1"


def _shown(own: Kubectl) -> list[str]:
    return [] if own.version == "1.20" else ["--show-managed-fields"]


def test_edit(own: Kubectl, tmp_path: Path) -> None:
    own("create", "-f", "-", stdin=CONFIG)
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/mode: slow/mode: fast/" "$1"\n')
    editor.chmod(0o755)
    assert "edited" in own("edit", "cm", "settings", env={"KUBE_EDITOR": str(editor)})
    assert own("get", "cm", "settings", "-o", "jsonpath={.data.mode}") == "fast"
    assert "cancelled" in own.run("edit", "cm", "settings", env={"KUBE_EDITOR": "true"}).stderr


def test_patch(own: Kubectl) -> None:
    own("create", "-f", "-", stdin=json.dumps(IDLE))
    strategic = {"spec": {"template": {"spec": {"containers": [{"name": "second", "image": "host"}]}}}}
    own("patch", "deploy", "idle", "-p", json.dumps(strategic))
    names = ("get", "deploy", "idle", "-o", "jsonpath={.spec.template.spec.containers[*].name}")
    assert sorted(own(*names).split()) == ["main", "second"]
    own("patch", "deploy", "idle", "--type=merge", "-p", json.dumps(strategic))
    assert own(*names) == "second"
    own(
        "patch",
        "deploy",
        "idle",
        "--type=json",
        "-p",
        '[{"op":"replace","path":"/spec/template/spec/containers/0/name","value":"third"}]',
    )
    assert own(*names) == "third"
    assert "no change" in own("patch", "deploy", "idle", "--type=merge", "-p", '{"spec":{"replicas":0}}')
    failed = own.fails(
        "patch", "deploy", "idle", "--type=json", "-p", '[{"op":"test","path":"/spec/replicas","value":5}]'
    )
    assert "test" in failed.lower()
    assert "field is immutable" in own.fails(
        "patch", "deploy", "idle", "-p", '{"spec":{"selector":{"matchLabels":{"x":"y"}}}}'
    )


def test_replace(own: Kubectl) -> None:
    own("create", "-f", "-", stdin=CONFIG)
    whole = own("get", "cm", "settings", "-o", "yaml")
    own("replace", "-f", "-", stdin=whole.replace("slow", "fast"))
    assert "the object has been modified" in own.fails("replace", "-f", "-", stdin=whole)
    before = own("get", "cm", "settings", "-o", "jsonpath={.metadata.uid}")
    own("replace", "--force", "-f", "-", stdin=CONFIG)
    assert own("get", "cm", "settings", "-o", "jsonpath={.metadata.uid}") != before
    assert "NotFound" in own.fails("replace", "-f", "-", stdin=CONFIG.replace("settings", "nowhere"))


def test_label_and_annotate(own: Kubectl) -> None:
    own("create", "-f", "-", stdin=CONFIG)
    own("label", "cm", "settings", "a=1", "b=2")
    assert "--overwrite is false" in own.fails("label", "cm", "settings", "a=3")
    own("label", "--overwrite", "cm", "settings", "a=3", "b-")
    own("annotate", "cm", "--all", "note=some words")
    metadata = own.json("get", "cm", "settings")["metadata"]
    assert metadata["labels"] == {"a": "3"}
    assert metadata["annotations"]["note"] == "some words"
    assert "a valid label must be" in own.fails("label", "cm", "settings", "c=!").replace("A valid", "a valid")


def test_delete_of_pods(own: Kubectl) -> None:
    for name in ("a", "b", "c", "d"):
        own("create", "-f", "-", stdin=pod(name))
    for name in ("a", "b", "c", "d"):
        running(own, name)
    own("delete", "pod", "a", "--grace-period=1", "--wait")
    assert "NotFound" in own.fails("get", "pod", "a")
    own("delete", "pod", "b", "--now")
    own("delete", "pod", "c", "--grace-period=0", "--force")
    assert own("get", "pods", "-o", "name") == "pod/d\n"
    own("delete", "pod", "-l", "run=d", "--wait=false")
    eventually(lambda: not own("get", "pods", "-o", "name"), "the end of pod d")
    assert "NotFound" in own.fails("delete", "pod", "a")
    assert own("delete", "pod", "a", "--ignore-not-found") == ""


def test_delete_with_dependents(own: Kubectl) -> None:
    def made(name: str) -> None:
        own("create", "-f", "-", stdin=json.dumps(IDLE).replace('"idle"', f'"{name}"'))
        eventually(lambda: own("get", "rs", "-l", f"app={name}", "-o", "name"), f"replica set of {name}")

    for name in ("left", "background", "foreground"):
        made(name)
    own("delete", "deploy", "left", "--cascade=orphan")
    own("delete", "deploy", "background", "--cascade=background")
    own("delete", "deploy", "foreground", "--cascade=foreground")
    assert own("get", "rs", "-l", "app=foreground", "-o", "name") == ""
    eventually(lambda: not own("get", "rs", "-l", "app=background", "-o", "name"), "the end of the dependents")
    (left,) = own.json("get", "rs", "-l", "app=left")["items"]
    assert "ownerReferences" not in left["metadata"]
    own("delete", "rs,cm", "--all")
    assert own("get", "rs", "-o", "name") == ""


def test_dry_run_and_validation(own: Kubectl) -> None:
    for where in ("client", "server"):
        assert "dry run" in own("create", "-f", "-", f"--dry-run={where}", stdin=CONFIG)
        assert "dry run" in own("apply", "-f", "-", f"--dry-run={where}", stdin=CONFIG)
    assert "NotFound" in own.fails("get", "cm", "settings")
    wrong = json.dumps(IDLE).replace('"replicas"', '"replicsa"')
    assert "unknown field" in own.fails("apply", "-f", "-", stdin=wrong)
    assert "replicsa" in own.fails("apply", "-f", "-", stdin=wrong)
    own("create", "-f", "-", "--validate=false", stdin=wrong)
    typed = json.dumps(IDLE).replace('"replicas": 0', '"replicas": "many"').replace('"idle"', '"typed"')
    assert "replicas" in own.fails("apply", "-f", "-", "--validate=false", stdin=typed)
    assert "no matches for kind" in own.fails(
        "apply", "-f", "-", stdin="apiVersion: v1\nkind: Nothing\nmetadata: {name: x}\n"
    )


def test_access_reviews(own: Kubectl) -> None:
    assert own("auth", "can-i", "create", "pods") == "yes\n"
    assert own.run("auth", "can-i", "list", "secrets", "--as=bob").stdout == "no\n"
    assert re.search(r"\*\.\* +\[\] +\[\] +\[\*\]", own("auth", "can-i", "--list"))
    refused = own.fails("get", "secrets", "--as=bob")
    assert 'User "bob" cannot list resource "secrets" in API group "" in the namespace' in refused


def test_namespaces_end_with_all_that_is_in_them(own: Kubectl, shared_site: Site) -> None:
    own("create", "-f", "-", stdin=CONFIG)
    own("create", "-f", "-", stdin=pod("one"))
    running(own, "one")
    name = f"{own.namespace}-other"
    other = own.within(name)
    own("create", "namespace", name)
    other("create", "-f", "-", stdin=CONFIG)
    other("create", "-f", "-", stdin=pod("two"))
    own("delete", "namespace", name)
    assert "NotFound" in own.fails("get", "namespace", name)
    assert 'namespaces "' in other.fails("create", "-f", "-", stdin=CONFIG)
    assert own("get", "pods", "-A", "-l", "run=two", "-o", "name") == ""
    running(own, "one")
