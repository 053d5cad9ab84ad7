"""The Helm chart: rendered by Helm itself, taken by the API server's dry run, its configuration read by the program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e_site import PROGRAM, Kubectl, Site
from peers import helm

import edgesite

PACKAGING = Path(__file__).parents[2] / "packaging"
CHART = PACKAGING / "helm" / "cloudcore"
Objects = dict[tuple[str, str], dict[str, Any]]

HUB = "cloudCore.modules.cloudHub"
REACHED = f"{HUB}.advertiseAddress[0]=192.0.2.10"
LEAST = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
RULES = {**LEAST, "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]}}

#: Values as users give them.
MATRIX: dict[str, tuple[str, ...]] = {
    "defaults": (),
    "as keadm sets them": (
        *("cloudCore.image.tag=v1.12.7", "iptablesManager.image.tag=v1.12.7", "controllerManager.image.tag=v1.12.7"),
        *(REACHED, f"{HUB}.dnsNames[0]=cloud.example.org", "iptablesManager.mode=external"),
    ),
    "node ports": ("cloudCore.hostNetWork=false", REACHED),
    "load balancer": (
        "cloudCore.hostNetWork=false",
        f"{HUB}.dnsNames[0]=c.example.org",
        "cloudCore.service.type=LoadBalancer",
    ),
    "several instances": (
        *(
            "cloudCore.replicaCount=3",
            REACHED,
            "cloudCore.image.pullSecrets[0].name=registry",
            "iptablesManager.framework=legacy",
        ),
        *("cloudCore.tolerations[0].operator=Exists", "cloudCore.nodeSelector.role=cloud", "cloudCore.annotations.a=b"),
    ),
    "everything on": (
        *(
            f"cloudCore.modules.{one}.enable=true"
            for one in ("router", "dynamicController", "taskManager", "nodeUpgradeJobController")
        ),
        *(f"{HUB}.quic.enable=true", "cloudCore.featureGates.requireAuthorization=true"),
        *("cloudCore.env[0].name=TZ", "cloudCore.env[0].value=UTC", "cloudCore.extraArgs[0]=-v=4"),
        "cloudCore.config.modules.cloudHub.keepaliveInterval=60",
    ),
    "everything off": (
        *(
            "cloudCore.service.enable=false",
            "iptablesManager.enable=false",
            "cloudCore.modules.cloudStream.enable=false",
        ),
        *(f"{HUB}.websocket.enable=false", f"{HUB}.quic.enable=true", "cloudCore.modules.syncController.enable=false"),
    ),
    "external and legacy": ("iptablesManager.mode=external", "iptablesManager.framework=legacy"),
    "a security context of one's own": ("cloudCore.securityContext.privileged=true",),
}


def template(*sets: str, namespace: str = "kubeedge", strings: bool = False) -> subprocess.CompletedProcess[str]:
    """Render; ``strings`` gives switches as KubeEdge's users write them: as strings."""
    flag = "--set-string" if strings else "--set"
    values = [word for one in sets for word in (flag if one.endswith(("=true", "=false")) else "--set", one)]
    command = [str(helm()), "template", "cloudcore", str(CHART), "--include-crds", "-n", namespace, *values]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def objects(text: str) -> Objects:
    """By kind and name; roles and their bindings of two namespaces have the same names, and these."""
    listed = [one for one in yaml.safe_load_all(text) if one]
    return {(one["kind"], _name(one["metadata"])): one for one in listed}


def _name(metadata: dict[str, Any]) -> str:
    elsewhere = metadata.get("namespace") == "kube-node-lease"
    return f"{metadata['name']}/{metadata['namespace']}" if elsewhere else str(metadata["name"])


@pytest.fixture(scope="module")
def api(shared_site: Site) -> Kubectl:
    return shared_site.kubectl("1.32")


@pytest.mark.parametrize("case", MATRIX)
def test_what_is_rendered_is_taken(case: str, api: Kubectl, tmp_path: Path) -> None:
    done = template(*MATRIX[case], strings="one's own" not in case)  # there, true is a boolean of Kubernetes
    assert done.returncode == 0, done.stderr
    api("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=done.stdout)
    made = objects(done.stdout)
    (file := tmp_path / "cloudcore.yaml").write_text(made["ConfigMap", "cloudcore"]["data"]["cloudcore.yaml"])
    checked = subprocess.run(
        [str(PROGRAM), "config", "check", str(file)], capture_output=True, text=True, check=False, timeout=30
    )
    assert checked.returncode == 0, checked.stderr
    assert "a valid CloudCore" in checked.stdout


def test_the_defaults_are_those_of_kubeedges_chart() -> None:
    made = objects(template().stdout)
    deployment = made["Deployment", "cloudcore"]
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["selector"]["matchLabels"] == {"k8s-app": "kubeedge", "kubeedge": "cloudcore"}
    assert (pod["hostNetwork"], pod["dnsPolicy"]) == (True, "ClusterFirstWithHostNet")
    assert container["image"] == f"kubeedge/cloudcore:v1.12.7-edgesite.{edgesite.__version__}"
    assert [one["containerPort"] for one in container["ports"]] == [10000, 10001, 10002, 10003, 10004]
    assert container["resources"]["limits"] == {"cpu": "200m", "memory": "1Gi"}
    service = made["Service", "cloudcore"]["spec"]
    assert service["type"] == "ClusterIP"
    assert [one["name"] for one in service["ports"]] == [one["name"] for one in container["ports"]]
    (term,) = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchExpressions"] == [{"key": "node-role.kubernetes.io/edge", "operator": "DoesNotExist"}]
    assert ("DaemonSet", "cloud-iptables-manager") not in made
    assert ("PodDisruptionBudget", "cloudcore") not in made
    assert ("Namespace", "kubeedge") not in made


def test_values_do_what_they_say() -> None:
    made = objects(template(*MATRIX["node ports"], strings=True).stdout)
    service = made["Service", "cloudcore"]["spec"]
    assert service["type"] == "NodePort"
    assert [one["nodePort"] for one in service["ports"]] == [30000, 30001, 30002, 30003, 30004]
    config = yaml.safe_load(made["ConfigMap", "cloudcore"]["data"]["cloudcore.yaml"])
    assert config["modules"]["cloudHub"]["advertiseAddress"] == ["192.0.2.10"]
    assert config["modules"]["iptablesManager"] == {
        "enable": False,
        "mode": "internal",
    }  # in its own network it leads nobody
    made = objects(template(*MATRIX["everything off"], strings=True).stdout)
    assert ("Service", "cloudcore") not in made
    config = yaml.safe_load(made["ConfigMap", "cloudcore"]["data"]["cloudcore.yaml"])
    assert config["modules"]["cloudHub"]["quic"]["enable"] is True
    assert config["modules"]["cloudHub"]["websocket"]["enable"] is False
    made = objects(template(*MATRIX["everything on"], strings=True).stdout)
    config = yaml.safe_load(made["ConfigMap", "cloudcore"]["data"]["cloudcore.yaml"])
    assert config["modules"]["cloudHub"]["keepaliveInterval"] == 60
    assert config["modules"]["taskManager"] == {"enable": True}
    assert config["featureGates"] == {"requireAuthorization": True}
    assert made["Deployment", "cloudcore"]["spec"]["template"]["spec"]["containers"][0]["args"] == [
        "--in-cluster",
        "-v=4",
    ]
    made = objects(template(*MATRIX["several instances"]).stdout)
    assert ("PodDisruptionBudget", "cloudcore") in made
    assert made["Deployment", "cloudcore"]["spec"]["template"]["spec"]["imagePullSecrets"] == [{"name": "registry"}]


def test_pods_get_no_more_rights_over_the_host_than_they_need() -> None:
    def context(made: Objects, kind: str, name: str) -> tuple[Any, Any]:
        pod = made[kind, name]["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        return pod["securityContext"]["runAsUser"], container["securityContext"]

    assert context(objects(template().stdout), "Deployment", "cloudcore") == (0, RULES)
    made = objects(template("iptablesManager.mode=external").stdout)
    assert context(made, "Deployment", "cloudcore") == (65532, LEAST)
    assert context(made, "DaemonSet", "cloud-iptables-manager") == (0, RULES)
    assert context(objects(template("iptablesManager.enable=false").stdout), "Deployment", "cloudcore") == (
        65532,
        LEAST,
    )
    for case, sets in MATRIX.items():
        text = template(*sets).stdout
        assert ("privileged" in text) == ("one's own" in case)
        assert ("hostPath" in text) == ("legacy" in "".join(sets))


def test_the_accounts_rights_are_those_that_are_documented_and_tested() -> None:
    made = objects(template().stdout)
    documented = {(one["kind"], _name(one["metadata"])): one for one in _documented()}
    for kind, name in (("ClusterRole", ""), ("Role", ""), ("Role", "/kube-node-lease")):
        assert made[kind, f"cloudcore{name}"]["rules"] == documented[kind, f"edgesite-cloud{name}"]["rules"]
    bindings = [one for (kind, _), one in made.items() if kind.endswith("Binding")]
    assert len(bindings) == 3
    account = [{"kind": "ServiceAccount", "name": "cloudcore", "namespace": "kubeedge"}]
    assert all(one["subjects"] == account for one in bindings)
    rules = objects(template("iptablesManager.mode=external").stdout)["Role", "iptables-manager"]["rules"]
    assert rules == [
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["tunnelport"], "verbs": ["get"]}
    ]


def _documented() -> list[dict[str, Any]]:
    text = (PACKAGING / "kubernetes" / "cloud-rbac.yaml").read_text()
    return [one for one in yaml.safe_load_all(text) if one["kind"] in ("ClusterRole", "Role")]


def test_in_another_namespace_there_is_still_kubeedges_own() -> None:
    made = objects(template(namespace="other").stdout)
    assert made["Namespace", "kubeedge"]["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert made["Deployment", "cloudcore"]["metadata"]["namespace"] == "other"
    assert made["ClusterRoleBinding", "cloudcore"]["subjects"][0]["namespace"] == "other"
    assert made["Role", "cloudcore"]["metadata"]["namespace"] == "kubeedge"


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (("cloudCore.hostNetWork=false",), "say how edges reach this"),
        (("iptablesManager.mode=both",), "mode"),
        (("iptablesManager.framework=ipvs",), "framework"),
        (("controllerManager.enable=true",), "not part of this version"),
        (("cloudCore.hostNetWork=maybe",), "hostNetWork"),
        (("cloudCore.replicaCount=many",), "replicaCount"),
        ((f"{HUB}.nodeLimit=few",), "nodeLimit"),
        ((f"{HUB}.advertiseAddress=192.0.2.10",), "advertiseAddress"),
    ],
)
def test_values_that_could_not_work_are_refused(sets: tuple[str, ...], said: str) -> None:
    done = template(*sets)
    assert done.returncode != 0
    assert said in done.stderr


def test_the_charts_definitions_are_those_of_the_program() -> None:
    sys.path.insert(0, str(PACKAGING / "helm"))
    try:
        from crds import files
    finally:
        sys.path.pop(0)
    assert {one.name: one.read_text() for one in (CHART / "crds").glob("*.yaml")} == files()


def test_helm_finds_nothing_wrong() -> None:
    done = subprocess.run([str(helm()), "lint", "--strict", str(CHART)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
