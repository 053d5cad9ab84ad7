"""Real kubectl, the oldest and a current one, against the module on a real socket."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import peers
import pytest
from apiserver_role import role_at

pytestmark = pytest.mark.anyio
MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: nginx:1.25
        ports: [{containerPort: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: cfg}
data: {a: "1"}
"""


class Kubectl:
    """Runs kubectl with a kubeconfig and a home of its own."""

    def __init__(self, program: Path, kubeconfig: Path, home: Path) -> None:
        self._program = program
        self._environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "HOME": str(home)}
        self.version = program.name

    def command(self, text: str) -> list[str]:
        return [str(self._program), *text.split()]

    async def __call__(self, text: str, *more: str, code: int = 0, given: str = "", **environment: str) -> str:
        """Run a command and return what it says, errors included."""
        with anyio.fail_after(60):
            done = await anyio.run_process(
                [*self.command(text), *more],
                input=given.encode(),
                check=False,
                stderr=subprocess.STDOUT,
                env={**self._environment, **environment},
            )
        said = done.stdout.decode()
        assert done.returncode == code, said
        return said

    def open(self, text: str) -> anyio.abc.AsyncResource:
        return anyio.open_process(self.command(text), env=self._environment)  # type: ignore[return-value]


@pytest.fixture(params=["1.20", "1.32"])
async def kubectl(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kubectl]:
    async with role_at(tmp_path) as running:
        yield Kubectl(peers.kubectl(request.param), running.kubeconfig, tmp_path)


async def test_discovery(kubectl: Kubectl) -> None:
    assert "v1.36.0+edgesite" in await kubectl("version")
    assert "deployments" in await kubectl("api-resources")
    assert "apps/v1" in await kubectl("api-versions")
    explained = await kubectl("explain pod.spec.containers.image")
    assert "Container image name" in explained
    assert "metrics not available yet" in await kubectl("top node", code=1)  # there is no node


async def test_client_side_apply(kubectl: Kubectl) -> None:
    created = await kubectl("apply -f -", given=MANIFEST)
    assert [line.split()[1] for line in created.splitlines()] == ["created"] * 3
    assert "unchanged" in await kubectl("apply -f -", given=MANIFEST)
    changed = MANIFEST.replace("replicas: 2", "replicas: 3")
    assert "+  replicas: 3" in await kubectl("diff -f -", given=changed, code=1)
    said = await kubectl("apply -f -", given=changed)
    assert "deployment.apps/web configured" in said
    assert "service/web unchanged" in said
    assert await kubectl("get deploy web -o jsonpath={.spec.replicas}") == "3"
    assert "deleted" in await kubectl("delete -f -", given=MANIFEST)
    assert "NotFound" in await kubectl("get deploy web", code=1)


async def test_server_side_apply(kubectl: Kubectl) -> None:
    assert "serverside-applied" in await kubectl("apply --server-side -f -", given=MANIFEST)
    await kubectl("scale deploy web --replicas=4")
    refused = await kubectl("apply --server-side -f -", given=MANIFEST, code=1)
    assert f'conflict with "{kubectl.version}" with subresource "scale" using apps/v1' in refused
    assert ".spec.replicas" in refused
    await kubectl("apply --server-side --force-conflicts -f -", given=MANIFEST)
    assert await kubectl("get deploy web -o jsonpath={.spec.replicas}") == "2"


async def test_changes(kubectl: Kubectl) -> None:
    await kubectl("apply -f -", given=MANIFEST)
    await kubectl("label deploy web x=y")
    await kubectl("annotate deploy web x=y")
    await kubectl("set image deploy/web web=nginx:1.26")
    env = '{"spec":{"template":{"spec":{"containers":[{"name":"web","env":[{"name":"A","value":"b"}]}]}}}}'
    await kubectl("patch deploy web -p", env)
    await kubectl("patch deploy web --type=merge -p", '{"spec":{"replicas":1}}')
    await kubectl("patch deploy web --type=json -p", '[{"op":"replace","path":"/spec/replicas","value":7}]')
    await kubectl("rollout restart deploy web")
    columns = "custom-columns=R:.spec.replicas,I:.spec.template.spec.containers[0].image"
    assert (await kubectl(f"get deploy -l x=y -o {columns}")).split() == ["R", "I", "7", "nginx:1.26"]
    described = await kubectl("describe deploy web")
    assert "7 desired" in described
    assert "A:" in described
    await kubectl("edit cm cfg", EDITOR="sed -i /^..a:/s/1/2/")
    assert await kubectl("get cm cfg -o jsonpath={.data.a}") == "2"
    whole = await kubectl("get cm cfg -o yaml")
    assert "replaced" in await kubectl("replace -f -", given=whole.replace('a: "2"', 'a: "3"'))
    assert "the object has been modified" in await kubectl("replace -f -", given=whole, code=1)


async def test_creation_of_many_kinds(kubectl: Kubectl) -> None:
    for text in (
        "create ns x",
        "create deployment d --image=nginx",
        "create configmap c --from-literal=k=v",
        "create secret generic s --from-literal=p=q",
        "create job j --image=busybox",
        "create role r --verb=get --resource=pods",
        "create rolebinding rb --role=r --user=bob",
        "create sa a",
        "create quota q --hard=pods=3",
        "create priorityclass p --value=5",
        "create service nodeport np --tcp=80:80",
        "run p --image=busybox",
    ):
        assert "created" in await kubectl(text), text
    assert "secret/s" in await kubectl("get secret s -o name")
    assert await kubectl("get job j -o jsonpath={.spec.template.spec.restartPolicy}") == "Never"
    wide = await kubectl("get pods -A -o wide")
    assert "NOMINATED NODE" in wide
    assert "Pending" in wide


async def test_refusals(kubectl: Kubectl) -> None:
    assert 'pods "no" not found' in await kubectl("get pods no", code=1)
    assert "the server doesn't have a resource type" in await kubectl("get nonsense", code=1)
    bad = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"BAD_NAME"}}'
    assert 'The ConfigMap "BAD_NAME" is invalid: metadata.name: Invalid value' in await kubectl(
        "create -f -", given=bad, code=1
    )
    unknown = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"foo":1}'
    assert "unknown field" in await kubectl("create -f -", given=unknown, code=1)
    assert "cannot list resource" in await kubectl("get pods --as bob", code=1)


async def test_nodes_and_pods(kubectl: Kubectl) -> None:
    await kubectl("apply -f -", given='{"apiVersion":"v1","kind":"Node","metadata":{"name":"n1"}}')
    await kubectl("cordon n1")
    await kubectl("taint node n1 a=b:NoSchedule")
    assert "Unschedulable:      true" in await kubectl("describe node n1")
    await kubectl("run p --image=busybox --overrides", '{"apiVersion":"v1","spec":{"nodeName":"n1"}}')
    assert "timed out waiting" in await kubectl("wait --for=condition=Ready pod/p --timeout=1s", code=1)
    await kubectl("delete pod p --wait=false")
    assert "Terminating" in await kubectl("get pods")
    await kubectl("delete pod p --force --grace-period=0")
    assert "No resources found" in await kubectl("get pods")


async def test_watch(kubectl: Kubectl) -> None:
    await kubectl("create configmap first --from-literal=k=v")
    async with await kubectl.open("get cm -w") as watching:
        lines = watching.stdout
        with anyio.fail_after(60):
            seen = await lines.receive()
            while b"first" not in seen:
                seen += await lines.receive()
            await kubectl("create configmap second --from-literal=k=v")
            while b"second" not in seen:
                seen += await lines.receive()
        watching.terminate()
    assert seen.count(b"NAME") == 1
