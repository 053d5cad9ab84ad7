"""Manifests in the form in which KubeEdge's users have them (``build/cloud``, ``build/crds``, ``build/iptablesmanager``): applied as they are.

Source  KubeEdge v1.12: shapes and names; the texts are our own.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e_site import PROGRAM, Kubectl, Program, eventually, free_port

CLOUD = """
apiVersion: v1
kind: Namespace
metadata: {name: kubeedge, labels: {k8s-app: kubeedge}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: cloudcore, namespace: kubeedge, labels: {k8s-app: kubeedge, kubeedge: cloudcore}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: cloudcore, labels: {k8s-app: kubeedge, kubeedge: cloudcore}}
rules:
- apiGroups: [""]
  resources: [nodes, nodes/status, serviceaccounts/token, configmaps, pods, pods/status, secrets, endpoints, services]
  verbs: [get, list, watch, create, update]
- {apiGroups: [""], resources: [pods], verbs: [delete]}
- apiGroups: [devices.kubeedge.io]
  resources: [devices, devicemodels, devices/status, devicemodels/status]
  verbs: [get, list, watch, create, update, patch, delete]
- {apiGroups: [networking.istio.io], resources: ["*"], verbs: ["*"]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: cloudcore, labels: {k8s-app: kubeedge, kubeedge: cloudcore}}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cloudcore}
subjects:
- {kind: ServiceAccount, name: cloudcore, namespace: kubeedge}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: cloudcore, namespace: kubeedge, labels: {k8s-app: kubeedge, kubeedge: cloudcore}}
data:
  cloudcore.yaml: |
    apiVersion: cloudcore.config.kubeedge.io/v1alpha2
    kind: CloudCore
    kubeAPIConfig:
      kubeConfig: ""
      master: ""
      contentType: application/vnd.kubernetes.protobuf
    commonConfig:
      tunnelPort: 10350
    modules:
      cloudHub:
        advertiseAddress:
        - 192.0.2.10
        dnsNames:
        -
        nodeLimit: 1000
        tlsCAFile: /etc/kubeedge/ca/rootCA.crt
        tlsCAKeyFile: /etc/kubeedge/ca/rootCA.key
        tlsCertFile: /etc/kubeedge/certs/edge.crt
        tlsPrivateKeyFile: /etc/kubeedge/certs/edge.key
        unixsocket: {address: unix:///var/lib/kubeedge/kubeedge.sock, enable: true}
        websocket: {address: 0.0.0.0, enable: true, port: 10000}
        quic: {address: 0.0.0.0, enable: false, maxIncomingStreams: 10000, port: 10001}
        https: {address: 0.0.0.0, enable: true, port: 10002}
      cloudStream:
        enable: true
        streamPort: 10003
        tunnelPort: 10004
      dynamicController: {enable: false}
      router: {enable: false}
      iptablesManager: {enable: true, mode: internal}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: cloudcore, namespace: kubeedge, labels: {k8s-app: kubeedge, kubeedge: cloudcore}}
spec:
  selector: {matchLabels: {k8s-app: kubeedge, kubeedge: cloudcore}}
  template:
    metadata: {labels: {k8s-app: kubeedge, kubeedge: cloudcore}}
    spec:
      hostNetwork: true
      containers:
      - name: cloudcore
        image: kubeedge/cloudcore:v1.12.7
        imagePullPolicy: IfNotPresent
        ports:
        - {containerPort: 10000, name: cloudhub, protocol: TCP}
        - {containerPort: 10001, name: cloudhub-quic, protocol: TCP}
        - {containerPort: 10002, name: cloudhub-https, protocol: TCP}
        - {containerPort: 10003, name: cloudstream, protocol: TCP}
        - {containerPort: 10004, name: tunnelport, protocol: TCP}
        resources: {limits: {cpu: 200m, memory: 1Gi}, requests: {cpu: 100m, memory: 512Mi}}
        volumeMounts:
        - {name: conf, mountPath: /etc/kubeedge/config}
        - {name: certs, mountPath: /etc/kubeedge}
        - {name: sock, mountPath: /var/lib/kubeedge}
        securityContext: {privileged: true}
      restartPolicy: Always
      serviceAccount: cloudcore
      serviceAccountName: cloudcore
      volumes:
      - {name: conf, configMap: {name: cloudcore}}
      - {name: certs, hostPath: {path: /etc/kubeedge, type: DirectoryOrCreate}}
      - {name: sock, hostPath: {path: /var/lib/kubeedge, type: DirectoryOrCreate}}
---
apiVersion: v1
kind: Service
metadata: {name: cloudcore, namespace: kubeedge, labels: {k8s-app: kubeedge, kubeedge: cloudcore}}
spec:
  type: NodePort
  ports:
  - {port: 10000, name: cloudhub, nodePort: 30000}
  - {port: 10001, name: cloudhub-quic, protocol: UDP}
  - {port: 10002, name: cloudhub-https}
  - {port: 10003, name: cloudstream}
  - {port: 10004, name: tunnelport}
  selector: {k8s-app: kubeedge, kubeedge: cloudcore}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: iptables-manager, namespace: kubeedge, labels: {k8s-app: iptables-manager}}
spec:
  selector: {matchLabels: {k8s-app: iptables-manager}}
  template:
    metadata: {labels: {k8s-app: iptables-manager}}
    spec:
      hostNetwork: true
      serviceAccount: cloudcore
      affinity:
        nodeAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            nodeSelectorTerms:
            - matchExpressions: [{key: node-role.kubernetes.io/master, operator: Exists}]
      tolerations: [{key: node-role.kubernetes.io/master, operator: Exists, effect: NoSchedule}]
      containers:
      - name: iptables-manager
        command: [iptables-manager]
        image: kubeedge/iptables-manager:v1.12.7
        securityContext: {capabilities: {add: [NET_ADMIN, NET_RAW]}}
"""


def definition(
    group: str, version: str, kind: str, spec: dict[str, Any], *, scope: str = "Namespaced"
) -> dict[str, Any]:
    """A definition as controller-gen writes them."""
    plural = f"{kind.lower()}s"
    texts = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
    status = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"type": "object", "properties": {**texts, "spec": spec, "status": status}}
    served = {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}", "annotations": {"controller-gen.kubebuilder.io/version": "v0.6.2"}},
        "spec": {
            "group": group,
            "names": names,
            "scope": scope,
            "versions": [{**served, "subresources": {"status": {}}}],
        },
    }


INT = {
    "type": "object",
    "required": ["accessMode"],
    "properties": {
        "accessMode": {"type": "string", "enum": ["ReadOnly", "ReadWrite"]},
        "defaultValue": {"type": "integer", "format": "int64"},
        "maximum": {"type": "integer", "format": "int64"},
    },
}
PROPERTY = {
    "type": "object",
    "required": ["name", "type"],
    "properties": {
        "name": {"type": "string"},
        "type": {"type": "object", "properties": {"int": INT, "double": {**INT, "properties": {}, "required": []}}},
    },
}
MODEL = {"type": "object", "properties": {"properties": {"type": "array", "items": PROPERTY}}}
SYNC = {
    "type": "object",
    "properties": {one: {"type": "string"} for one in ("objectAPIVersion", "objectKind", "objectName")},
}
RULE = {
    "type": "object",
    "required": ["source", "sourceResource", "target", "targetResource"],
    "properties": {
        **{one: {"type": "string"} for one in ("source", "target")},
        **{
            one: {"type": "object", "additionalProperties": {"type": "string"}}
            for one in ("sourceResource", "targetResource")
        },
    },
}
OPEN = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
DEFINITIONS = [
    definition("devices.kubeedge.io", "v1alpha2", "DeviceModel", MODEL),
    definition("devices.kubeedge.io", "v1alpha2", "Device", OPEN),
    definition("rules.kubeedge.io", "v1", "Rule", RULE),
    definition("reliablesyncs.kubeedge.io", "v1alpha1", "ObjectSync", SYNC),
    definition("reliablesyncs.kubeedge.io", "v1alpha1", "ClusterObjectSync", SYNC, scope="Cluster"),
    definition("operations.kubeedge.io", "v1alpha1", "NodeUpgradeJob", OPEN, scope="Cluster"),
    definition("apps.kubeedge.io", "v1alpha1", "NodeGroup", OPEN, scope="Cluster"),
]
CUSTOM = """
apiVersion: devices.kubeedge.io/v1alpha2
kind: DeviceModel
metadata: {name: thermometer, namespace: default}
spec:
  properties:
  - {name: temperature, type: {int: {accessMode: ReadOnly, maximum: 100}}}
---
apiVersion: devices.kubeedge.io/v1alpha2
kind: Device
metadata: {name: thermometer-1, namespace: default, labels: {model: thermometer}}
spec:
  deviceModelRef: {name: thermometer}
  protocol: {modbus: {slaveID: 1}, common: {com: {serialPort: /dev/ttyS0, baudRate: 115200}}}
---
apiVersion: rules.kubeedge.io/v1
kind: Rule
metadata: {name: to-the-cloud, namespace: default}
spec: {source: bus, sourceResource: {topic: a/b, node_name: e1}, target: rest, targetResource: {resource: "http://a/b"}}
---
apiVersion: apps.kubeedge.io/v1alpha1
kind: NodeGroup
metadata: {name: hangzhou}
spec: {nodes: [e1, e2], matchLabels: {location: hangzhou}}
"""


@pytest.fixture(scope="module", params=["1.20", "1.32"])
def kubectl(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """kubectl of either version, each with an API without nodes: nothing of this is to be run."""
    folder = tmp_path_factory.mktemp("api")
    off = [f"--set=modules.{one}.enable=false" for one in ("cloudHub.websocket", "cloudHub.https", "cloudStream")]
    arguments = ("--data-dir", str(folder / "data"), "--api-address", f"127.0.0.1:{free_port()}", *off)
    with closing(Program(folder / "log", "cloud", *arguments)) as program:
        program.wait_line("ready after")
        yield Kubectl(request.param, folder / "data" / "admin.kubeconfig", folder)


def lines(text: str) -> dict[str, str]:
    """What kubectl says of each object."""
    return dict(line.split(" ", 1) for line in text.splitlines())


def test_the_cloud_sides_manifests(kubectl: Kubectl) -> None:
    said = lines(kubectl("apply", "-f", "-", stdin=CLOUD))
    assert len(said) == 8
    again = lines(kubectl("apply", "-f", "-", stdin=CLOUD))
    assert again.keys() == said.keys()
    assert set(again.values()) == {"unchanged"}
    within = kubectl.within("kubeedge")
    assert within.json("get", "service", "cloudcore")["spec"]["ports"][0]["nodePort"] == 30000
    (pod,) = eventually(
        lambda: within.json("get", "pods", "-l", "kubeedge=cloudcore")["items"], "the pod of the Deployment"
    )
    ports = pod["spec"]["containers"][0]["ports"]
    assert [one["hostPort"] for one in ports] == [10000, 10001, 10002, 10003, 10004]
    assert pod["spec"]["containers"][0]["securityContext"] == {"privileged": True}
    kubectl("delete", "-f", "-", "--wait=false", "--ignore-not-found", stdin=CLOUD)


def test_their_configuration_is_read(tmp_path: Path) -> None:
    (config,) = (one for one in yaml.safe_load_all(CLOUD) if one["kind"] == "ConfigMap")
    (file := tmp_path / "cloudcore.yaml").write_text(config["data"]["cloudcore.yaml"])
    done = subprocess.run(
        [str(PROGRAM), "config", "check", str(file)], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr


def test_definitions_and_what_they_define(kubectl: Kubectl) -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": DEFINITIONS})
    kubectl("apply", "-f", "-", stdin=text)
    names = [f"crd/{one['metadata']['name']}" for one in DEFINITIONS]
    kubectl("wait", "--for=condition=Established", "--timeout=100s", *names)
    assert set(lines(kubectl("apply", "-f", "-", stdin=text)).values()) == {"unchanged"}
    eventually(lambda: kubectl.run("apply", "-f", "-", stdin=CUSTOM).returncode == 0, "custom objects")
    assert set(lines(kubectl("apply", "-f", "-", stdin=CUSTOM)).values()) == {"unchanged"}
    assert kubectl.json("get", "devices.v1alpha2.devices.kubeedge.io", "thermometer-1")["spec"]["protocol"][
        "modbus"
    ] == {"slaveID": 1}
    assert kubectl.json("get", "nodegroups", "hangzhou")["spec"]["nodes"] == ["e1", "e2"]
    assert "accessMode" in kubectl.fails("apply", "-f", "-", stdin=CUSTOM.replace("ReadOnly", "WriteOnly"))
    assert kubectl.json("get", "objectsyncs", "-A")["items"] == []
