"""The scenario ``devices`` of `conformance.external`: definitions of KubeEdge v1.12 upgraded, both versions by webhooks, to the edge and back.

Units   Seconds.
Errors  Failed.
"""

from __future__ import annotations

import base64
import json
import subprocess
from typing import Any, Final

from conformance.external_site import ADDRESS, Cloud, Edge, Site
from conformance.programs import EDGESITE, Failed, Kubectl, eventually, free_ports
from edgesite.kube.devices.crds import definitions

__all__ = ["devices"]

Object = dict[str, Any]
_GROUP: Final = "devices.kubeedge.io"
_ALPHA: Final = f"devices.v1alpha2.{_GROUP}"
_BETA: Final = f"devices.v1beta1.{_GROUP}"
_NAMES: Final = (f"devices.{_GROUP}", f"devicemodels.{_GROUP}")
_BAD: Final = (
    ("spec.properties[0].desired.value", {"properties": [{"name": "target", "desired": {"value": "31"}}]}),
    ("spec.properties[0].name", {"properties": [{"name": "other"}]}),
    ("spec.deviceModelRef.name", {"deviceModelRef": {"name": "none"}}),
    ("must be at least 5", {"properties": [{"name": "target", "desired": {"value": "4"}}]}),
)


def devices(site: Site) -> None:
    """Definitions of v1.12 are upgraded; both versions, refusals, wishes and reports, a move, a restart, webhooks away."""
    _as_of_kubeedge(site)
    cloud, edge = site.cloud(), _edge(site, "edge-d1")
    _upgrade(site, cloud)
    for kubectl in _kubectls(site):
        _versions(site, kubectl)
        _refusals(kubectl)
    _wishes_and_reports(site, edge)
    _moves(site, edge)
    _away(site, cloud, edge)
    _service(site, cloud)


# -- what is there before ----------------------------------------------------------------------------------------------


def _as_of_kubeedge(site: Site) -> None:
    """Leave the cluster with v1alpha2 alone and objects of it, as KubeEdge v1.12 does. Raises Failed."""
    site.kubectl("delete", "crd", *_NAMES)
    old = definitions()
    for one in old:
        one["spec"]["versions"] = [
            {**version, "served": True, "storage": True}
            for version in one["spec"]["versions"]
            if version["name"] == "v1alpha2"
        ]
    site.kubectl.apply(*old)
    site.kubectl("wait", "--for=condition=established", *(f"crd/{name}" for name in _NAMES), "--timeout=30s")
    eventually(lambda: site.kubectl.run("get", _ALPHA).returncode == 0, "v1alpha2", 30)
    site.kubectl.apply(_model("room"), _alpha("old", "edge-d1"))


def _model(name: str) -> Object:
    facts = {"accessMode": "ReadWrite", "minimum": 5, "maximum": 30, "defaultValue": 20, "unit": "Celsius"}
    properties = [
        {"name": "target", "type": {"float": facts}},
        {"name": "actual", "type": {"float": {"accessMode": "ReadOnly"}}},
    ]
    return _object("DeviceModel", "v1alpha2", name, {"properties": properties})


def _alpha(name: str, node: str) -> Object:
    # KubeEdge's samples have key "", which kube-apiserver 1.20 takes for null where it was built by a newer Go.
    expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    spec = {
        "deviceModelRef": {"name": "room"},
        "protocol": {"modbus": {"slaveID": 3}, "common": {"tcp": {"ip": "192.0.2.7", "port": 502}}},
        "nodeSelector": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]},
        "propertyVisitors": [
            {"propertyName": "target", "modbus": {"register": "HoldingRegister", "offset": 2, "limit": 1, "scale": 0.5}}
        ],
        "data": {"dataTopic": "room/data"},
    }
    desired = {"value": "20", "metadata": {"type": "float"}}
    return _object("Device", "v1alpha2", name, spec) | {
        "status": {"twins": [{"propertyName": "target", "desired": desired}]}
    }


def _beta(name: str, node: str, **spec: Any) -> Object:
    whole = {
        "deviceModelRef": {"name": "room"},
        "nodeName": node,
        "protocol": {"protocolName": "virtual", "configData": {"offline": True}},
        "properties": [{"name": "target", "desired": {"value": "21"}}, {"name": "actual", "reportToCloud": True}],
        "methods": [{"name": "warm", "propertyNames": ["target"]}],
    }
    return _object("Device", "v1beta1", name, whole | spec)


def _object(kind: str, version: str, name: str, spec: Object) -> Object:
    return {"apiVersion": f"{_GROUP}/{version}", "kind": kind, "metadata": {"name": name}, "spec": spec}


def _edge(site: Site, name: str) -> Edge:
    """An edge with a broker within."""
    if name not in site.edges:
        (port,) = free_ports(1)
        site.settings[name] = {"eventBus": {"mqttMode": 0, "mqttServerInternal": f"tcp://127.0.0.1:{port}"}}
    return site.edge(name, site.cloud())


def _broker(site: Site, edge: Edge) -> str:
    return str(site.settings[edge.name]["eventBus"]["mqttServerInternal"]).rpartition(":")[2]


# -- installing --------------------------------------------------------------------------------------------------------


def _install(site: Site, cloud: Cloud, *more: str) -> str:
    folder, admin = str(site.folder / "install"), str(site.cluster.admin)
    command = [str(EDGESITE), "cloud", "--kubeconfig", admin, "--data-dir", folder]
    place = ["--advertise-address", ADDRESS, "--set", f"modules.admission.port={cloud.webhooks}"]
    done = subprocess.run(
        [*command, "--install-crds", *(more or place)], capture_output=True, text=True, timeout=330, check=False
    )
    if done.returncode:
        raise Failed(f"--install-crds: {done.stdout}{done.stderr}")
    return done.stdout


def _upgrade(site: Site, cloud: Cloud) -> None:
    said = _install(site, cloud)
    if "1 objects rewritten, all are stored as v1beta1" not in said:
        raise Failed(f"what was stored is not rewritten: {said}")
    for name in _NAMES:
        stored = site.kubectl.json("get", "crd", name)["status"]["storedVersions"]
        if stored != ["v1beta1"]:
            raise Failed(f"{name} is stored as {stored}")
    again = _install(site, cloud)
    if "created" in again or "updated" in again or "made" in again or "rewritten" in again:
        raise Failed(f"a second run changes something: {again}")
    old = site.kubectl.json("get", _BETA, "old")
    if old["spec"].get("nodeName") != "edge-d1" or old["spec"]["properties"][0]["desired"]["value"] != "20":
        raise Failed(f"the device of v1.12 is another one: {old['spec']}")


def _kubectls(site: Site) -> list[Kubectl]:
    return [Kubectl(program, site.cluster.admin) for program in site.kubectls]


# -- both versions -----------------------------------------------------------------------------------------------------


def _versions(site: Site, kubectl: Kubectl) -> None:
    """Each version is applied, read as the other, and comes back from there unchanged."""
    alpha, beta = _alpha("first", "edge-d1"), _beta("hall", "edge-d1")
    for _ in range(2):  # the second time nothing changes
        said = kubectl.apply(_model("room"), alpha, beta)
    if said.count("unchanged") < 2:
        raise Failed(f"applied again: {said}")
    for given, own, other in ((alpha, _ALPHA, _BETA), (beta, _BETA, _ALPHA)):
        name = given["metadata"]["name"]
        through = kubectl.json("get", other, name)
        del through["metadata"]["resourceVersion"], through["metadata"]["uid"]
        kubectl("replace", "-f", "-", stdin=json.dumps(through))
        held = kubectl.json("get", own, name)["spec"]
        if held != given["spec"]:
            raise Failed(f"{name} came back as {held}")
    dialled = _object("Device", "v1beta1", "first", {"properties": [{"name": "target", "desired": {"value": "19"}}]})
    words = ("--server-side", "--field-manager", "dial", "--force-conflicts")
    kubectl("apply", *words, "-f", "-", stdin=json.dumps(dialled))
    found = kubectl.json("get", _ALPHA, "first")
    if found["status"]["twins"][0]["desired"]["value"] != "19" or found["spec"] != alpha["spec"]:
        raise Failed(f"one property of a device of v1alpha2, applied as v1beta1: {found}")
    listed = {one["metadata"]["name"] for one in kubectl.json("get", _ALPHA)["items"]}
    if not {"old", "first", "hall"} <= listed:
        raise Failed(f"v1alpha2 lists {listed}")


def _refusals(kubectl: Kubectl) -> None:
    for words, spec in _BAD:
        done = kubectl.run("apply", "-f", "-", stdin=json.dumps(_beta("bad", "edge-d1", **spec)))
        if done.returncode == 0 or words not in done.stderr:
            raise Failed(f"a bad device ({words}): {done.stdout}{done.stderr}")
    bad = _alpha("bad", "edge-d1")
    bad["status"]["twins"][0]["desired"]["value"] = "warm"
    done = kubectl.run("apply", "-f", "-", stdin=json.dumps(bad))
    if done.returncode == 0 or "status.twins[0].desired.value" not in done.stderr:
        raise Failed(f"a bad device of v1alpha2: {done.stdout}{done.stderr}")
    model = _model("bad")
    model["spec"]["properties"][0]["type"]["float"]["minimum"] = 40
    done = kubectl.run("apply", "-f", "-", stdin=json.dumps(model))
    if done.returncode == 0 or "spec.properties[0].type.float.minimum" not in done.stderr:
        raise Failed(f"a bad model: {done.stdout}{done.stderr}")


# -- to the edge and back ----------------------------------------------------------------------------------------------


def _wishes_and_reports(site: Site, edge: Edge) -> None:
    _has(edge, "hall", "first", "old")
    port = _broker(site, edge)
    topic = "$hw/events/device/hall/twin/update"
    listener = subprocess.Popen(
        ["mosquitto_sub", "-p", port, "-t", f"{topic}/delta", "-C", "1", "-W", "60"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        _wish(site, "hall", "24")
        delta, _ = listener.communicate(timeout=70)
    finally:
        listener.kill()
    if '"delta":{"target":"24"}' not in delta:
        raise Failed(f"the wish reached MQTT as {delta!r}")
    report = {"event_id": "1", "timestamp": 0, "twin": {"target": {"actual": {"value": "23.5"}}}}
    subprocess.run(["mosquitto_pub", "-p", port, "-t", topic, "-m", json.dumps(report)], check=True, timeout=30)
    _reports(site, "hall", "23.5")
    twins = site.kubectl.json("get", _ALPHA, "hall")["status"]["twins"]
    if not any(one.get("reported", {}).get("value") == "23.5" for one in twins):
        raise Failed(f"v1alpha2 shows {twins}")
    _install(site, site.cloud(), "--device-statuses")

    def told() -> bool:
        done = site.kubectl.run("get", f"devicestatuses.{_GROUP}", "hall", "-o", "json")
        found = json.loads(done.stdout) if done.returncode == 0 else {}
        twins = (found.get("status") or {}).get("twins") or ()
        return any(one.get("reported", {}).get("value") == "23.5" for one in twins) and (
            found["metadata"]["ownerReferences"][0]["name"] == "hall"
        )

    eventually(told, "the DeviceStatus", 90)


def _has(edge: Edge, *names: str) -> None:
    eventually(lambda: set(names) <= set(edge.all_stored("device")), f"{names} on {edge.name}", 60)


def _wish(site: Site, name: str, value: str) -> None:
    patch = [{"op": "replace", "path": "/spec/properties/0/desired/value", "value": value}]
    site.kubectl("patch", _BETA, name, "--type=json", "-p", json.dumps(patch))


def _reports(site: Site, name: str, value: str) -> None:
    def shown() -> bool:
        twins = (site.kubectl.json("get", _BETA, name).get("status") or {}).get("twins") or ()
        return any(one.get("reported", {}).get("value") == value for one in twins)

    eventually(shown, f"{value} in the status of {name}", 60)


def _moves(site: Site, edge: Edge) -> None:
    other = _edge(site, "edge-d2")
    site.kubectl("patch", _BETA, "first", "--type=merge", "-p", '{"spec":{"nodeName":"edge-d2"}}')
    _has(other, "first")
    _namespace(site, edge)
    eventually(lambda: "first" not in edge.all_stored("device"), "the device is gone from its former node", 60)


def _namespace(site: Site, edge: Edge) -> None:
    """A namespace of its own with a model and a device, for `_away` to delete. Raises Failed."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "leaves"}}
    model, device = _model("room"), _beta("leaving", edge.name)
    for one in (model, device):
        one["metadata"]["namespace"] = "leaves"
    site.kubectl.apply(namespace, model, device)
    eventually(lambda: edge.all_stored("device", "leaves"), "the device of the namespace", 60)


# -- the cloud is away -------------------------------------------------------------------------------------------------


def _away(site: Site, cloud: Cloud, edge: Edge) -> None:
    """Without webhooks v1beta1 is read and written (unchecked: failurePolicy is Ignore), and v1alpha2 answers with an error, not with less."""
    assert cloud.program is not None
    cloud.program.kill()
    _wish(site, "hall", "25")
    site.kubectl.apply(_beta("unchecked", "edge-d1", properties=[{"name": "target", "desired": {"value": "99"}}]))
    if len(site.kubectl.json("get", _BETA)["items"]) < 4:
        raise Failed("v1beta1 is not all there")
    done = site.kubectl.run("get", _ALPHA, "hall", "-o", "json")
    if done.returncode == 0 or "conversion webhook" not in done.stderr:
        raise Failed(f"v1alpha2 without a webhook: {done.stdout}{done.stderr}")
    site.kubectl("delete", "namespace", "leaves", "--timeout=60s", timeout_s=90)
    cloud.start()
    site.ready(edge.name)

    def arrived() -> bool:
        held = edge.stored("device", "hall")["spec"]["properties"][0]["desired"]["value"]
        gone = not edge.all_stored("device", "leaves") and not edge.all_stored("devicemodel", "leaves")
        return bool(held == "25" and "unchecked" in edge.all_stored("device") and gone)

    eventually(arrived, "what was changed meanwhile", 90)
    eventually(lambda: site.kubectl.run("get", _ALPHA, "hall").returncode == 0, "v1alpha2 again", 60)
    _refusals(site.kubectl)


def _service(site: Site, cloud: Cloud) -> None:
    """The webhooks are found by a Service, whose certificate replaces the former one."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kubeedge-admission-service", "namespace": "kubeedge"},
        "spec": {"type": "ExternalName", "externalName": ADDRESS, "ports": [{"port": cloud.webhooks}]},
    }
    site.kubectl.apply(service)
    words = ("name=kubeedge-admission-service", f"port={cloud.webhooks}")
    said = _install(site, cloud, *(word for one in words for word in ("--set", f"modules.admission.service.{one}")))
    if "made a certificate for kubeedge-admission-service.kubeedge.svc" not in said:
        raise Failed(said)
    secret = site.kubectl.json("-n", "kubeedge", "get", "secret", "kubeedge-admission-secret")
    if base64.b64decode(secret["data"]["ca.crt"]).count(b"BEGIN CERTIFICATE") != 2:
        raise Failed("the former CA is not trusted any more: instances would be cut off until they look")

    def refuses() -> bool:
        bad = _beta("nowhere", "edge-d1", properties=[{"name": "other"}])
        return "spec.properties[0].name" in site.kubectl.run("apply", "-f", "-", stdin=json.dumps(bad)).stderr

    eventually(refuses, "a refusal by way of the Service", 60)
    eventually(
        lambda: site.kubectl.run("get", _ALPHA, "hall").returncode == 0, "a conversion by way of the Service", 60
    )
    _fails_closed(site, cloud)
    site.kubectl("delete", _BETA, "--all")


def _fails_closed(site: Site, cloud: Cloud) -> None:
    """With failurePolicy Fail devices are refused while no webhook answers, and may still be read and deleted."""
    _install(site, cloud, "--set", "modules.admission.failurePolicy=Fail")
    assert cloud.program is not None
    cloud.program.kill()

    def refuses() -> bool:
        done = site.kubectl.run("apply", "-f", "-", stdin=json.dumps(_beta("late", "edge-d1")))
        return done.returncode != 0 and "failed calling webhook" in done.stderr

    eventually(refuses, "a refusal without webhooks", 30)
    site.kubectl("delete", _BETA, "unchecked")
    cloud.start()
    eventually(lambda: site.kubectl.apply(_beta("late", "edge-d1")), "devices are taken again", 60)
