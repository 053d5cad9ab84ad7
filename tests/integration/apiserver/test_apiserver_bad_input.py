"""Whatever a client sends, the server answers with a Status that says whose fault it is, and goes on."""

from __future__ import annotations

import copy
import logging
import random
from typing import Any

import pytest
from apiserver_site import Site

pytestmark = pytest.mark.anyio
SEEDS = range(3)
CASES = 150
ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 1.5, 1e308, "", "x", "-1", "a/b", "A B", "\x00", "é" * 300, "1Gi",
    "2026-01-01T00:00:00Z", [], [[]], [None], [1, "x"], {}, {"": ""}, {"a": None}, {"a": {"b": []}}, [{}], [{"name": 5}],
]  # fmt: skip
POD: dict[str, Any] = {
    "containers": [
        {
            "name": "c",
            "image": "nginx:1.25",
            "ports": [{"containerPort": 80, "name": "http"}],
            "env": [{"name": "A", "value": "b"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m"}},
            "livenessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 5},
            "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            "securityContext": {"runAsUser": 1, "capabilities": {"add": ["NET_ADMIN"]}},
        }
    ],
    "volumes": [{"name": "v", "configMap": {"name": "c", "items": [{"key": "a", "path": "b"}]}}],
    "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}]
            }
        }
    },
    "nodeSelector": {"a": "b"},
    "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a"]}],
}  # fmt: skip
CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
LABELS = {"app": "x"}
TEMPLATE = {"metadata": {"labels": LABELS}, "spec": POD}
WORKLOAD = {"replicas": 1, "selector": {"matchLabels": LABELS}, "template": TEMPLATE}
NS = "/namespaces/default"
OBJECTS: dict[str, dict[str, Any]] = {
    f"/api/v1{NS}/pods": {"spec": POD, "status": {"phase": "Running"}},
    f"/api/v1{NS}/configmaps": {"data": {"a": "b"}, "binaryData": {"c": "ZA=="}},
    f"/api/v1{NS}/secrets": {"stringData": {"a": "b"}, "data": {"c": "ZA=="}, "type": "Opaque"},
    f"/api/v1{NS}/services": {"spec": {"ports": [{"port": 80, "targetPort": "http"}], "selector": LABELS, "type": "NodePort"}},
    f"/api/v1{NS}/events": {"involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}, "message": "m", "reason": "r"},
    f"/apis/events.k8s.io/v1{NS}/events": {"regarding": {"kind": "Pod", "name": "p"}, "note": "m", "reason": "r", "deprecatedSource": {"component": "c"}},
    f"/api/v1{NS}/endpoints": {"subsets": [{"addresses": [{"ip": "1.2.3.4"}], "ports": [{"port": 80}]}]},
    f"/api/v1{NS}/persistentvolumeclaims": {"spec": CLAIM},
    f"/api/v1{NS}/limitranges": {"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}},
    "/api/v1/namespaces": {"spec": {"finalizers": ["kubernetes"]}},
    "/api/v1/nodes": {"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}, "status": {"capacity": {"cpu": "1"}}},
    "/api/v1/persistentvolumes": {"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}},
    f"/apis/apps/v1{NS}/deployments": {"spec": {**WORKLOAD, "strategy": {"rollingUpdate": {"maxSurge": "25%"}}}},
    f"/apis/apps/v1{NS}/statefulsets": {"spec": {**WORKLOAD, "serviceName": "s", "volumeClaimTemplates": [{"metadata": {"name": "v"}, "spec": CLAIM}]}},
    f"/apis/apps/v1{NS}/daemonsets": {"spec": {"selector": {"matchLabels": LABELS}, "template": TEMPLATE}},
    f"/apis/batch/v1{NS}/jobs": {"spec": {"template": {"spec": {**POD, "restartPolicy": "Never"}}, "backoffLimit": 1}},
    f"/apis/batch/v1{NS}/cronjobs": {"spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": {"spec": {**POD, "restartPolicy": "Never"}}}}}},
    f"/apis/networking.k8s.io/v1{NS}/ingresses": {"spec": {"rules": [{"host": "a.b", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"number": 80}}}}]}}]}},
    f"/apis/networking.k8s.io/v1{NS}/networkpolicies": {"spec": {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 80}]}]}},
    f"/apis/autoscaling/v2{NS}/horizontalpodautoscalers": {"spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}, "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}]}},
    f"/apis/autoscaling/v1{NS}/horizontalpodautoscalers": {"spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d"}, "targetCPUUtilizationPercentage": 50}},
    f"/apis/policy/v1{NS}/poddisruptionbudgets": {"spec": {"minAvailable": 1, "selector": {"matchLabels": LABELS}}},
    f"/apis/coordination.k8s.io/v1{NS}/leases": {"spec": {"holderIdentity": "h", "renewTime": "2026-01-01T00:00:00.000000Z"}},
    f"/apis/discovery.k8s.io/v1{NS}/endpointslices": {"addressType": "IPv4", "endpoints": [{"addresses": ["1.2.3.4"]}], "ports": [{"port": 80}]},
    f"/apis/rbac.authorization.k8s.io/v1{NS}/rolebindings": {"roleRef": {"kind": "Role", "name": "r", "apiGroup": "rbac.authorization.k8s.io"}, "subjects": [{"kind": "User", "name": "u"}]},
    "/apis/rbac.authorization.k8s.io/v1/clusterroles": {"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]},
    "/apis/scheduling.k8s.io/v1/priorityclasses": {"value": 5, "globalDefault": False},
    "/apis/storage.k8s.io/v1/storageclasses": {"provisioner": "p"},
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions": {
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "xs", "kind": "X"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object"}}}}}],
        }
    },
    "/apis/authorization.k8s.io/v1/subjectaccessreviews": {"spec": {"user": "u", "resourceAttributes": {"verb": "get", "resource": "pods"}}},
    "/apis/authentication.k8s.io/v1/tokenreviews": {"spec": {"token": "t"}},
}  # fmt: skip


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (holder, key) in a value."""
    found: list[tuple[Any, Any]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in items:
        found.append((value, key))
        found += places(one)
    return found


def spoiled(obj: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """The object with one to three odd values in it."""
    made = copy.deepcopy(obj)
    for _ in range(rng.randint(1, 3)):
        holder, key = rng.choice(places(made))
        holder[key] = copy.deepcopy(rng.choice(ODD))
        if isinstance(holder, dict) and rng.random() < 0.1:
            holder["extra"] = rng.choice(ODD)
    return made


def named(obj: dict[str, Any], name: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": dict(LABELS), "annotations": {"a": "b"}}, **obj}


def name_for(target: str) -> str:
    return "xs.example.com" if target.endswith("customresourcedefinitions") else "x"


@pytest.mark.parametrize("seed", SEEDS)
async def test_odd_objects(site: Site, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    rng = random.Random(seed)
    with caplog.at_level(logging.ERROR):
        for _ in range(CASES):
            target = rng.choice(list(OBJECTS))
            body = spoiled(named(OBJECTS[target], name_for(target)), rng)
            answer = await site.post(f"{target}?dryRun=All", body)
            assert answer.status < 500, (target, body, caplog.text)
            if answer.status >= 400:
                assert answer.obj["kind"] == "Status"
                assert answer.obj["reason"]
                assert answer.obj["code"] == answer.status


async def test_sound_objects_are_taken(site: Site) -> None:
    for target, obj in OBJECTS.items():
        answer = await site.post(f"{target}?dryRun=All", named(obj, name_for(target)))
        assert answer.status == 201, (target, answer.body)


@pytest.mark.parametrize("seed", SEEDS)
async def test_odd_updates_and_patches(site: Site, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    rng = random.Random(seed)
    targets = [target for target in OBJECTS if "review" not in target]
    with caplog.at_level(logging.ERROR):
        for target in targets:
            made = await site.post(target, named(OBJECTS[target], name_for(target)))
            assert made.status == 201, made.body
            one = f"{target}/{made.obj['metadata']['name']}"
            for _ in range(CASES // 25):
                whole = (await site.get(one)).obj
                answers = [await site.put(f"{one}?dryRun=All", spoiled(whole, rng))]
                for kind in ("merge", "strategic-merge"):
                    answers.append(await site.patch(f"{one}?dryRun=All", spoiled(OBJECTS[target], rng), kind))
                applied = spoiled(
                    {
                        **named(OBJECTS[target], name_for(target)),
                        "kind": whole["kind"],
                        "apiVersion": whole["apiVersion"],
                    },
                    rng,
                )
                answers.append(await site.patch(f"{one}?dryRun=All&fieldManager=me&force=true", applied, "apply"))
                answers.append(await site.patch(f"{one}?dryRun=All", operations(whole, rng), "json"))
                answers.append(
                    await site.patch(
                        f"{one}?dryRun=All", rng.choice(ODD), rng.choice(["json", "merge", "strategic-merge"])
                    )
                )
                for answer in answers:
                    assert answer.status < 500, (target, answer.body, caplog.text)
            await site.delete(one, {"gracePeriodSeconds": 0})


def operations(obj: dict[str, Any], rng: random.Random) -> Any:
    """A JSON patch that may or may not make sense."""

    def path() -> str:
        parts, value = [], obj
        while isinstance(value, dict | list) and value and rng.random() < 0.8:
            key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
            parts.append(str(key))
            value = value[key]
        return "".join(f"/{part}" for part in parts) + rng.choice(["", "", "/x", "/-", "/0", "x"])

    def one() -> Any:
        made = {"op": rng.choice(["add", "remove", "replace", "move", "copy", "test", "no"]), "path": path()}
        if rng.random() < 0.8:
            made["value"] = rng.choice(ODD)
        if rng.random() < 0.8:
            made["from"] = path()
        return made if rng.random() < 0.95 else rng.choice(ODD)

    return [one() for _ in range(rng.randint(0, 4))]


@pytest.mark.parametrize("seed", SEEDS)
async def test_odd_paths_and_queries(site: Site, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    rng = random.Random(seed)
    words = ["api", "apis", "v1", "apps", "namespaces", "default", "pods", "nodes", "x", "log", "status", "scale", "proxy", "watch",
             "", "..", "%00", "%2F", "%ff", "deployments", "exec", "binding", "eviction", "bindings", "componentstatuses", "openapi", "v2", "v3"]  # fmt: skip
    keys = ["limit", "continue", "resourceVersion", "resourceVersionMatch", "labelSelector", "fieldSelector", "timeoutSeconds",
            "fieldManager", "dryRun", "force", "pretty", "gracePeriodSeconds", "propagationPolicy", "sendInitialEvents", "tailLines"]  # fmt: skip
    values = [
        "",
        "0",
        "1",
        "-1",
        "x",
        "true",
        "All",
        "a%3Db",
        "a+in+(b)",
        "%00",
        "99999999999999999999",
        "%ff%fe",
        "metadata.name%3Dx",
    ]
    methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"]
    with caplog.at_level(logging.ERROR):
        for _ in range(CASES * 2):
            path = "/" + "/".join(rng.choice(words) for _ in range(rng.randint(0, 7)))
            query = "&".join(f"{rng.choice(keys)}={rng.choice(values)}" for _ in range(rng.randint(0, 3)))
            body = rng.choice([None, b"", b"{", b"{}", b"[]", b"\x00", b"k8s\x00", b'{"metadata":{"name":"x"}}'])
            media = rng.choice(
                [
                    "application/json",
                    "application/yaml",
                    "application/vnd.kubernetes.protobuf",
                    "x",
                    "application/apply-patch+yaml",
                ]
            )
            answer = await site.call(rng.choice(methods), f"{path}?{query}", body, content_type=media)
            assert answer.status < 500 or answer.status == 504, (path, query, body, answer.body, caplog.text)
