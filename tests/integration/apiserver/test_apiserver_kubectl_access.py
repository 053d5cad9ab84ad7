"""Real kubectl and access: tokens, auth can-i, whoami, impersonation, reconcile; each user by the token that kubectl made."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import peers
import pytest
from apiserver_role import role_at
from test_apiserver_kubectl import Kubectl

from edgesite.kube import json, jwt

pytestmark = pytest.mark.anyio
RECONCILED = """
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: tester}
rules:
- {apiGroups: [""], resources: [pods], verbs: [get, list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: tester, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: tester}
subjects:
- {kind: ServiceAccount, name: robot, namespace: default}
"""


@pytest.fixture
async def kubectl(tmp_path: Path) -> AsyncIterator[Kubectl]:
    async with role_at(tmp_path) as running:
        yield Kubectl(peers.kubectl("1.32"), running.kubeconfig, tmp_path)


async def test_tokens_and_what_they_may(kubectl: Kubectl) -> None:
    await kubectl("create serviceaccount robot")
    token = (
        await kubectl("create token robot --duration=20m --audience=https://kubernetes.default.svc.cluster.local")
    ).strip()
    claims = jwt.parse(token).claims
    assert claims["exp"] - claims["iat"] == 1200
    with_token = ("--token", token, "--kubeconfig", anonymous(kubectl))
    who = json.loads((await kubectl("auth whoami -o json", *with_token)).encode())
    assert who["status"]["userInfo"]["username"] == "system:serviceaccount:default:robot"
    refused = await kubectl("get pods", *with_token, code=1)
    assert 'User "system:serviceaccount:default:robot" cannot list resource "pods"' in refused
    assert await kubectl("auth can-i list pods", *with_token, code=1) == "no\n"
    said = await kubectl("auth reconcile -f -", given=RECONCILED)
    assert "clusterrole.rbac.authorization.k8s.io/tester reconciled" in said
    assert "rolebinding.rbac.authorization.k8s.io/tester reconciled" in said
    assert await kubectl("auth can-i list pods", *with_token) == "yes\n"
    assert "No resources found" in await kubectl("get pods", *with_token)
    assert await kubectl("auth can-i list pods --as=system:serviceaccount:default:robot") == "yes\n"
    assert await kubectl("auth can-i delete nodes --as=system:serviceaccount:default:robot", code=1) != ""
    rules = await kubectl("auth can-i --list", *with_token)
    lines = [line.split() for line in rules.splitlines()]
    assert ["pods", "[]", "[]", "[get", "list]"] in lines
    assert ["[/api/*]", "[]", "[get]"] in lines
    grown = RECONCILED.replace("verbs: [get, list]", "verbs: [watch]")
    await kubectl("auth reconcile -f -", given=grown)
    assert "get list watch" in (await kubectl("describe clusterrole tester"))
    assert await kubectl("auth can-i get pods --as=nobody", code=1) == "no\n"


async def test_tokens_bound_to_objects(kubectl: Kubectl) -> None:
    await kubectl("create serviceaccount robot")
    await kubectl("create secret generic s")
    token = (await kubectl("create token robot --bound-object-kind Secret --bound-object-name s")).strip()
    assert jwt.parse(token).claims["kubernetes.io"]["secret"]["name"] == "s"
    with_token = ("--token", token, "--kubeconfig", anonymous(kubectl))
    assert "robot" in await kubectl("auth whoami", *with_token)
    await kubectl("delete secret s")
    assert "Unauthorized" in await kubectl("auth whoami", *with_token, code=1)
    assert "not found" in await kubectl("create token robot --bound-object-kind Pod --bound-object-name none", code=1)
    assert "not found" in await kubectl("create token nobody", code=1)


async def test_the_roles_of_a_cluster_are_described(kubectl: Kubectl) -> None:
    assert "cluster-admin" in await kubectl("get clusterroles")
    shown = await kubectl("get clusterrolebinding cluster-admin -o wide")
    assert "ClusterRole/cluster-admin" in shown
    assert "system:masters" in shown
    denied = await kubectl("get clusterroles --as=bob --as-group=dev", code=1)
    assert 'clusterroles.rbac.authorization.k8s.io is forbidden: User "bob"' in denied


def anonymous(kubectl: Kubectl) -> str:
    """A kubeconfig with the cluster alone: kubectl prefers a certificate to a token."""
    path = Path(kubectl._environment["HOME"]) / "anonymous"
    config = json.loads(Path(kubectl._environment["KUBECONFIG"]).read_bytes())
    config["users"][0]["user"] = {}
    path.write_bytes(json.dumps(config))
    return str(path)
