"""Sends every kind of write to a MetaServer, for a built-in and a custom kind, and prints {what: [status, reason]} as JSON.

Arguments: the address, a word that names what is written.
"""

from __future__ import annotations

import http.client
import json
import sys
from typing import Any

import kubernetes

server, word = sys.argv[1:3]
JSON, MERGE, STRATEGIC, APPLY = (
    f"application/{one}patch+{end}"
    for one, end in (("json-", "json"), ("merge-", "json"), ("strategic-merge-", "json"), ("apply-", "yaml"))
)
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
GATEWAYS = "/apis/example.org/v1/namespaces/default/gateways"
PODS = "/api/v1/namespaces/default/pods"
rows: dict[str, list[Any]] = {}


def ask(what: str, method: str, path: str, body: Any = None, kind: str = "application/json") -> dict[str, Any]:
    connection = http.client.HTTPConnection(server, timeout=40)
    data = None if body is None else json.dumps(body)
    connection.request(method, path, data, {"Content-Type": kind, "User-Agent": "table"} if data else {})
    answer = connection.getresponse()
    found: dict[str, Any] = json.loads(answer.read())
    connection.close()
    if what:
        rows[what] = [answer.status, found.get("reason") if found.get("kind") == "Status" else found["kind"]]
    return found


def deployment(name: str, **spec: Any) -> dict[str, Any]:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "c"}]}}
    template["spec"]["nodeSelector"] = {"none": "here"}  # type: ignore[index]
    spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template, **spec}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": {"w": word}},
        "spec": spec,
    }


def gateway(name: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "labels": {"w": word}}
    return {"apiVersion": "example.org/v1", "kind": "Gateway", "metadata": metadata, "spec": {"replicas": 0, **spec}}


def applied(obj: dict[str, Any], replicas: int) -> dict[str, Any]:
    return {
        **{name: obj[name] for name in ("apiVersion", "kind")},
        "metadata": {"name": obj["metadata"]["name"]},
        "spec": {"replicas": replicas},
    }


def of_kind(kind: str, path: str, make: Any) -> None:
    def say(what: str, *request: Any) -> dict[str, Any]:
        return ask(f"{kind} {what}", *request)

    name = f"t-{word}"
    at = f"{path}/{name}"
    say("create, dry run", "POST", f"{path}?dryRun=All", make(name))
    old = say("create", "POST", path, make(name))
    say("create again", "POST", path, make(name))
    old["spec"] = make(name)["spec"]
    unbound = {**old, "metadata": dict(old["metadata"])}
    if kind == "Deployment":  # its controller writes, too; of custom kinds the revision must be given
        unbound["metadata"].pop("resourceVersion", None)
    say("update, dry run", "PUT", f"{at}?dryRun=All", {**unbound, "spec": {**old["spec"], "replicas": 9}})
    say("update", "PUT", at, {**unbound, "spec": {**old["spec"], "replicas": 1}})
    say("update of an old state", "PUT", at, {**old, "spec": {**old["spec"], "replicas": 2}})
    say("JSON patch", "PATCH", at, [{"op": "replace", "path": "/spec/replicas", "value": 3}], JSON)
    say("JSON patch whose test fails", "PATCH", at, [{"op": "test", "path": "/spec/replicas", "value": 4}], JSON)
    say("merge patch", "PATCH", at, {"spec": {"replicas": 4}}, MERGE)
    say("strategic patch", "PATCH", at, {"spec": {"replicas": 5}}, STRATEGIC)
    say("patch of an unknown type", "PATCH", at, {"spec": {"replicas": 6}}, "application/x-patch")
    say("apply, a conflict", "PATCH", f"{at}?fieldManager=b", applied(make(name), 7), APPLY)
    say("apply, dry run", "PATCH", f"{at}?fieldManager=b&force=true&dryRun=All", applied(make(name), 7), APPLY)
    say("apply, forced", "PATCH", f"{at}?fieldManager=b&force=true", applied(make(name), 7), APPLY)
    say("apply makes", "PATCH", f"{path}/made-{word}?fieldManager=b", make(f"made-{word}"), APPLY)
    live = ask("", "GET", at)
    if kind == "Deployment":
        live["metadata"].pop("resourceVersion", None)
    say("status update", "PUT", f"{at}/status", {**live, "status": {"replicas": 1}})
    say("status patch", "PATCH", f"{at}/status", {"status": {"replicas": 2}}, MERGE)
    say(
        "status apply",
        "PATCH",
        f"{at}/status?fieldManager=s&force=true",
        {**applied(make(name), 0), "spec": {}, "status": {"replicas": 3}},
        APPLY,
    )
    scale = ask("", "GET", f"{at}/scale")
    scale["metadata"].pop("resourceVersion", None)  # controllers write, too
    say("scale update", "PUT", f"{at}/scale", {**scale, "spec": {"replicas": 0}})
    say("scale patch", "PATCH", f"{at}/scale", {"spec": {"replicas": 0}}, MERGE)
    options = {"kind": "DeleteOptions", "apiVersion": "v1"}
    say("delete, other uid", "DELETE", at, {**options, "preconditions": {"uid": "x"}})
    say("delete, dry run", "DELETE", f"{at}?dryRun=All")
    say("delete, orphans", "DELETE", at, {**options, "propagationPolicy": "Background"})
    say("delete, gone", "DELETE", f"{path}/never-{word}")
    say("delete collection", "DELETE", f"{path}?labelSelector=w%3D{word}&propagationPolicy=Background")


def of_pods() -> None:
    for name in ("bound", "evicted"):
        spec = {"schedulerName": "nobody", "containers": [{"name": "c", "image": "c"}]}
        new = {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": f"{name}-{word}"}, "spec": spec}
        ask(f"Pod {name} create", "POST", PODS, new)
    target = {"kind": "Node", "name": "nowhere"}
    binding = {"kind": "Binding", "apiVersion": "v1", "metadata": {"name": f"bound-{word}"}, "target": target}
    ask("Pod binding", "POST", f"{PODS}/bound-{word}/binding", binding)
    metadata = {"name": f"evicted-{word}", "namespace": "default"}
    eviction = {"kind": "Eviction", "apiVersion": "policy/v1", "metadata": metadata}
    ask("Pod eviction, dry run", "POST", f"{PODS}/evicted-{word}/eviction?dryRun=All", eviction)
    ask("Pod eviction", "POST", f"{PODS}/evicted-{word}/eviction", eviction)
    containers = [{"name": "e", "image": "e"}]
    debugged = {"spec": {"ephemeralContainers": containers}}
    ask("Pod ephemeralcontainers", "PATCH", f"{PODS}/bound-{word}/ephemeralcontainers", debugged, STRATEGIC)
    ask("Pod delete at once", "DELETE", f"{PODS}/bound-{word}?gracePeriodSeconds=0")
    token = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {"expirationSeconds": 600}}
    ask("ServiceAccount token", "POST", "/api/v1/namespaces/default/serviceaccounts/default/token", token)


def by_the_client() -> None:
    """The official client, typed and untyped."""
    configuration = kubernetes.client.Configuration(host=f"http://{server}")
    client = kubernetes.client.ApiClient(configuration)
    core, custom = kubernetes.client.CoreV1Api(client), kubernetes.client.CustomObjectsApi(client)
    place = ("example.org", "v1", "default", "gateways")
    name = f"c-{word}"

    def call(what: str, function: Any, *arguments: Any, **more: Any) -> None:
        try:
            function(*arguments, **more)
            rows[f"client {what}"] = [200, ""]
        except kubernetes.client.ApiException as exc:
            rows[f"client {what}"] = [exc.status, json.loads(exc.body).get("reason")]

    call("create", core.create_namespaced_config_map, "default", {"metadata": {"name": name}, "data": {"a": "1"}})
    call("patch", core.patch_namespaced_config_map, name, "default", {"data": {"a": "2"}})
    call("replace", core.replace_namespaced_config_map, name, "default", {"metadata": {"name": name}})
    call("delete", core.delete_namespaced_config_map, name, "default", propagation_policy="Foreground")
    call("delete many", core.delete_collection_namespaced_config_map, "default", label_selector="no=where")
    call("create custom", custom.create_namespaced_custom_object, *place, gateway(name))
    call("patch custom", custom.patch_namespaced_custom_object, *place, name, {"spec": {"replicas": 1}})
    call("scale custom", custom.patch_namespaced_custom_object_scale, *place, name, {"spec": {"replicas": 2}})
    call("delete custom", custom.delete_namespaced_custom_object, *place, name)


of_kind("Deployment", DEPLOYMENTS, deployment)
of_kind("Gateway", GATEWAYS, gateway)
of_pods()
by_the_client()
print(json.dumps(rows))
