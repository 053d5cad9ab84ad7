"""Every kind of write through MetaServer: what it does with a link, that it is refused without one, and that nothing of it is applied later."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from e2e_split import META, SplitSite, split_site

pytestmark = pytest.mark.timeout(240)

CUSTOM = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gateways.example.org}
spec:
  group: example.org
  scope: Namespaced
  names: {plural: gateways, singular: gateway, kind: Gateway}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
      subresources: {status: {}, scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}}
"""
#: What differs from 200 with the object, for both kinds; then for one.
OF_BOTH = {
    "create": [201, "KIND"],
    "create, dry run": [201, "KIND"],
    "create again": [409, "AlreadyExists"],
    "update of an old state": [409, "Conflict"],
    "JSON patch whose test fails": [422, "Invalid"],
    "patch of an unknown type": [415, "UnsupportedMediaType"],
    "apply, a conflict": [409, "Conflict"],
    "apply makes": [201, "KIND"],
    "scale update": [200, "Scale"],
    "scale patch": [200, "Scale"],
    "delete, other uid": [409, "Conflict"],
    "delete, gone": [404, "NotFound"],
    "delete, orphans": [200, None],
    "delete, dry run": [200, None],
}
OTHERS = {
    "Gateway strategic patch": [415, "UnsupportedMediaType"],
    "Deployment delete collection": [200, "DeploymentList"],
    "Gateway delete collection": [200, "GatewayList"],
    "Pod bound create": [201, "Pod"],
    "Pod evicted create": [201, "Pod"],
    "Pod binding": [201, None],
    "Pod eviction, dry run": [201, None],
    "Pod eviction": [201, None],
    "Pod ephemeralcontainers": [200, "Pod"],
    "Pod delete at once": [200, "Pod"],
    "ServiceAccount token": [201, "TokenRequest"],
}


def expected(what: str) -> list[Any]:
    kind, _, verb = what.partition(" ")
    if what in OTHERS:
        return OTHERS[what]
    if kind == "client":
        return [200, ""]
    code, word = OF_BOTH.get(verb, [200, "KIND"])
    return [code, kind if word == "KIND" else word]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SplitSite]:
    with split_site(tmp_path_factory.mktemp("writes")) as made:
        kubectl = made.kubectl()
        kubectl("apply", "-f", "-", stdin=CUSTOM)
        kubectl("wait", "--for=condition=Established", "crd/gateways.example.org")
        yield made


def table(site: SplitSite, word: str) -> dict[str, list[Any]]:
    done = site.run_on_edge("metaserver_writes.py", META, word)
    assert done.returncode == 0, done.stderr
    rows: dict[str, list[Any]] = json.loads(done.stdout)
    return rows


def state(site: SplitSite) -> dict[str, str]:
    """All that there is of the kinds that are written, with its revision."""
    kinds = "deployments,replicasets,gateways,pods,configmaps,nodes,serviceaccounts"
    items = site.kubectl().json("get", kinds, "-A")["items"]
    own = [one for one in items if one["metadata"].get("namespace") != "kubeedge"]  # there cloudcore keeps its own
    return {f"{one['kind']} {one['metadata']['name']}": _written(one) for one in own}


def _written(obj: dict[str, Any]) -> str:
    """Its revision; of a Node, which reports of itself, what others may write."""
    if obj["kind"] != "Node":
        return str(obj["metadata"]["resourceVersion"])
    return json.dumps([obj["metadata"].get("labels"), obj["spec"]])


def test_each_write_with_a_link_and_without(site: SplitSite) -> None:
    online = table(site, "on")
    odd = {what: got for what, got in online.items() if got != expected(what)}
    assert not odd, json.dumps(odd)
    before = state(site)
    site.cut()
    try:
        offline = table(site, "off")
    finally:
        site.heal()
    assert set(offline) == set(online)
    refused = {what: got for what, got in offline.items() if got != [503, "ServiceUnavailable"]}
    assert refused == {}, "each is refused with a Status"
    sent_after = site.on_edge()("create", "configmap", "after", "-o", "name")
    assert sent_after.strip() == "configmap/after"
    left = state(site)
    assert left.pop("ConfigMap after")
    assert left == before


DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: kd}
spec:
  replicas: 0
  selector: {matchLabels: {app: kd}}
  template:
    metadata: {labels: {app: kd}}
    spec: {nodeSelector: {none: here}, containers: [{name: c, image: c}]}
"""
GATEWAY = """
apiVersion: example.org/v1
kind: Gateway
metadata: {name: kg}
spec: {replicas: 0}
"""


def commands(version: str) -> Iterator[tuple[tuple[str, ...], str | None]]:
    """What kubectl writes with, and its input; ``kd`` and ``kg`` are there before."""
    for name, text in (("deployment/kd", DEPLOYMENT), ("gateway/kg", GATEWAY)):
        more = text.replace("replicas: 0", "replicas: 1")
        yield ("apply", "-f", "-"), more
        yield ("apply", "--server-side", "--field-manager=other", "--force-conflicts", "-f", "-"), text
        yield ("apply", "--dry-run=server", "-f", "-"), more
        yield ("replace", "-f", "-"), text
        yield ("patch", name, "--type=merge", "-p", '{"metadata":{"annotations":{"m":"1"}}}'), None
        yield ("patch", name, "--type=json", "-p", '[{"op":"add","path":"/metadata/annotations/j","value":"1"}]'), None
        yield ("label", name, "l=1", "--overwrite"), None
        yield ("annotate", name, "a=1", "--overwrite"), None
        yield ("scale", name, "--replicas=0"), None
        if version != "1.20":
            yield ("patch", name, "--subresource=status", "--type=merge", "-p", '{"status":{"replicas":0}}'), None
    yield ("patch", "deployment/kd", "-p", '{"spec":{"template":{"metadata":{"annotations":{"s":"1"}}}}}'), None
    yield ("set", "image", "deployment/kd", "c=d"), None
    yield ("rollout", "restart", "deployment/kd"), None
    yield ("expose", "deployment/kd", "--port=80"), None
    yield ("delete", "service/kd"), None
    yield ("cordon", "edge-1"), None
    yield ("uncordon", "edge-1"), None
    yield ("delete", "deployment/kd", "--cascade=" + ("true" if version == "1.20" else "foreground")), None
    yield ("delete", "gateways", "--all"), None


@pytest.mark.parametrize("version", ["1.20", "1.32"])
def test_kubectl_writes_with_a_link_and_is_refused_without(site: SplitSite, version: str) -> None:
    namespace = f"v{version[2:]}"
    site.on_edge(version)("create", "namespace", namespace)
    kubectl = site.on_edge(version, "--server", f"http://{META}", "-n", namespace)
    both = DEPLOYMENT + "---" + GATEWAY
    kubectl("create", "-f", "-", stdin=both)
    for command, text in commands(version):
        done = kubectl.run(*command, stdin=text)
        assert done.returncode == 0, (command, done.stderr)
    kubectl("create", "--save-config", "-f", "-", stdin=both)
    kubectl("create", "service", "clusterip", "kd", "--tcp=80")
    kubectl("get", "nodes,services")
    before = state(site)
    site.cut()
    try:
        for command, text in commands(version):
            done = kubectl.run(*command, stdin=text)
            assert "edge-1 is offline" in done.stderr, (command, done)
            assert done.returncode or command[0] in ("cordon", "uncordon"), (
                command
            )  # of these 1.20 says so and returns 0
    finally:
        site.heal()
    assert state(site) == before
