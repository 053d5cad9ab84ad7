"""From pods to what runtimes are asked for: environment, resources, security, names, hosts and DNS."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.edge.edged import dns
from edgesite.edge.edged.adoption import container_hash
from edgesite.edge.edged.cri import convert
from edgesite.edge.edged.environment import ConfigError, Facts, environment, expand, references
from edgesite.edge.edged.imagenames import InvalidImageName, credentials, default_pull_policy, normalized
from edgesite.edge.edged.pod import Pod, effective_requests
from edgesite.edge.edged.resources import cgroup_parent, linux_resources, oom_score_adj, qos_class
from edgesite.edge.edged.runtime import ContainerConfig, DnsConfig, Image, NamespaceMode
from edgesite.edge.edged.services import NodeFacts
from edgesite.edge.edged.specs import SpecError, host_ports, sandbox_config, security_of
from edgesite.edge.edged.stages.admission import refusal
from edgesite.kube import json

GIB = 1 << 30
FACTS = Facts("n1", ("192.0.2.1",), ("10.0.0.2",), {"cpu": 4 * 10**9, "memory": 8 * GIB * 10**9})
IMAGE = Image("sha256:1", (), (), 1)


def a_pod(*containers: dict[str, Any], **spec: Any) -> Pod:
    metadata = {
        "name": "web",
        "namespace": "shop",
        "uid": "u-1",
        "labels": {"app": "web", "a": 'x"y'},
        "annotations": {"note": "n"},
    }
    return Pod({"metadata": metadata, "spec": {"containers": list(containers) or [{"name": "main"}], **spec}})


def limits(kind: str = "limits", **amounts: str) -> dict[str, Any]:
    return {"name": "main", "resources": {kind: amounts}}


# Environment


def env_of(*variables: dict[str, Any], objects: Any = None, **more: Any) -> dict[str, str]:
    container = {"name": "main", "env": list(variables), **more}
    return environment(a_pod(container), container, objects or {}, FACTS)


def test_variables_build_on_earlier_ones() -> None:
    found = env_of(
        {"name": "A", "value": "1"}, {"name": "B", "value": "$(A)2$(C)$$(A)"}, {"name": "C", "value": "$(B)"}
    )
    assert found == {"A": "1", "B": "12$(C)$(A)", "C": "12$(C)$(A)"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "web"),
        ("metadata.uid", "u-1"),
        ("metadata.labels['app']", "web"),
        ("metadata.annotations['none']", ""),
        ("spec.nodeName", "n1"),
        ("status.podIP", "10.0.0.2"),
        ("status.hostIP", "192.0.2.1"),
    ],
)
def test_field_references(path: str, value: str) -> None:
    assert env_of({"name": "X", "valueFrom": {"fieldRef": {"fieldPath": path}}}) == {"X": value}


def test_an_unknown_field_is_an_error() -> None:
    with pytest.raises(ConfigError, match="unsupported fieldPath"):
        env_of({"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "spec.secret"}}})


@pytest.mark.parametrize(
    ("resource", "divisor", "value"),
    [
        ("limits.cpu", None, "1"),
        ("limits.cpu", "1m", "250"),
        ("limits.memory", "1Mi", "8192"),
        ("requests.cpu", "1m", "0"),
    ],
)
def test_resource_references_round_up_and_fall_back_to_the_node(resource: str, divisor: str | None, value: str) -> None:
    selector = {"resource": resource} | ({"divisor": divisor} if divisor else {})
    found = env_of({"name": "X", "valueFrom": {"resourceFieldRef": selector}}, resources={"limits": {"cpu": "250m"}})
    assert found == {"X": value}


def test_sources_come_first_and_missing_optional_ones_are_passed_over() -> None:
    container = {
        "name": "main",
        "envFrom": [
            {"prefix": "P_", "configMapRef": {"name": "c"}},
            {"secretRef": {"name": "gone", "optional": True}},
        ],
        "env": [
            {"name": "P_A", "value": "own"},
            {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "O", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "none", "optional": True}}},
        ],
    }
    objects = {
        ("configmap", "c"): {"data": {"A": "1", "B=": "never"}},
        ("secret", "s"): {"data": {"k": base64.b64encode(b"hidden").decode()}},
        ("secret", "gone"): None,
    }
    assert {(one.kind, one.name) for one in references(container)} == set(objects)
    assert environment(a_pod(container), container, objects, FACTS) == {"P_A": "own", "S": "hidden"}


def test_a_missing_key_names_itself() -> None:
    ref = {"name": "X", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}
    with pytest.raises(ConfigError, match="couldn't find key k in ConfigMap shop/c"):
        env_of(ref, objects={("configmap", "c"): {"data": {}}})


@given(st.text(), st.dictionaries(st.text("ABC", min_size=1), st.text()))
def test_expansion_never_fails_and_leaves_plain_text_alone(text: str, variables: dict[str, str]) -> None:
    expanded = expand(text, variables)
    if "$" not in text:
        assert expanded == text


# Resources


@pytest.mark.parametrize(
    ("resources", "qos"),
    [
        ({}, "BestEffort"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1Gi"}}, "Guaranteed"),
        ({"limits": {"cpu": "1"}}, "Burstable"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}, "Burstable"),
    ],
)
def test_qos_classes(resources: dict[str, Any], qos: str) -> None:
    assert qos_class(a_pod({"name": "main", "resources": resources})) == qos


@pytest.mark.parametrize(
    ("resources", "shares", "quota", "memory"),
    [
        ({}, 2, 0, 0),
        ({"requests": {"cpu": "250m"}}, 256, 0, 0),
        ({"limits": {"cpu": "1500m", "memory": "64Mi"}}, 1536, 150_000, 64 << 20),
        ({"limits": {"cpu": "1m"}}, 2, 1000, 0),
        ({"requests": {"cpu": "1000"}}, 262_144, 0, 0),
    ],
)
def test_cgroup_values(resources: dict[str, Any], shares: int, quota: int, memory: int) -> None:
    container = {"name": "main", "resources": resources}
    found = linux_resources(a_pod(container), container, 8 * GIB)
    assert (found.cpu_shares, found.cpu_quota_us, found.memory_bytes) == (shares, quota, memory)


@pytest.mark.parametrize(
    ("resources", "score"),
    [
        ({}, 1000),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, -997),
        ({"requests": {"memory": "4Gi"}}, 500),
        ({"requests": {"memory": "8Gi"}}, 3),
        ({"requests": {"cpu": "1"}}, 999),
    ],
)
def test_oom_scores(resources: dict[str, Any], score: int) -> None:
    container = {"name": "main", "resources": resources}
    assert oom_score_adj(a_pod(container), container, 8 * GIB) == score


def test_parent_cgroups_of_both_drivers() -> None:
    pod = a_pod(limits("requests", cpu="1"))
    assert cgroup_parent(pod, "cgroupfs") == "/kubepods/burstable/podu-1"
    assert cgroup_parent(pod, "systemd") == "kubepods-burstable-podu_1.slice"


def test_init_containers_count_by_the_largest() -> None:
    pod = a_pod(
        limits("requests", cpu="1"),
        limits("requests", cpu="1"),
        initContainers=[limits("requests", cpu="5"), limits("requests", cpu="3")],
    )
    assert effective_requests(pod, "cpu") == 5 * 10**9


def test_admission_counts_what_others_take() -> None:
    node = NodeFacts("n1", allocatable_nano={"cpu": 2 * 10**9}, max_pods=2)
    one = a_pod(limits("requests", cpu="1500m"))
    refused = refusal(one, node, [one])
    assert refused is not None
    assert refused.reason == "OutOfcpu"
    assert refusal(one, node, []) is None
    assert refusal(a_pod(), node, [a_pod(), a_pod()]).reason == "OutOfpods"  # type: ignore[union-attr]


def test_host_ports_collide_by_number_protocol_and_address() -> None:
    node = NodeFacts("n1")

    def on(ip: str, protocol: str = "TCP") -> Pod:
        port = {"containerPort": 80, "hostPort": 8080, "hostIP": ip, "protocol": protocol}
        return a_pod({"name": "main", "ports": [port]})

    assert refusal(on(""), node, [on("10.0.0.1")]).reason == "NodePorts"  # type: ignore[union-attr]
    assert refusal(on("10.0.0.1"), node, [on("10.0.0.2")]) is None
    assert refusal(on(""), node, [on("", "UDP")]) is None
    assert host_ports(a_pod({"name": "main", "ports": [{"containerPort": 80}]})) == ()


# Security


def test_the_containers_context_comes_before_the_pods() -> None:
    container = {"name": "main", "securityContext": {"runAsUser": 5, "capabilities": {"drop": ["ALL"]}}}
    pod = a_pod(container, securityContext={"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4]})
    found = security_of(pod, container, IMAGE)
    assert (found.user, found.group, found.groups) == (5, 2, (4, 3))
    assert found.capabilities.drop == ("ALL",)
    assert found.masked_paths


@pytest.mark.parametrize(
    ("image", "words"),
    [(IMAGE, "image will run as root"), (Image("i", (), (), 1, username="app"), "non-numeric user (app)")],
)
def test_run_as_non_root_refuses(image: Image, words: str) -> None:
    container = {"name": "main", "securityContext": {"runAsNonRoot": True}}
    with pytest.raises(SpecError) as caught:
        security_of(a_pod(container), container, image)
    assert words in str(caught.value)


def test_run_as_non_root_accepts_the_images_number() -> None:
    container = {"name": "main", "securityContext": {"runAsNonRoot": True}}
    assert security_of(a_pod(container), container, Image("i", (), (), 1, user=7)).user == 7


def test_sandboxes_carry_kubelets_labels_and_namespaces() -> None:
    pod = a_pod(hostNetwork=True, hostPID=True, securityContext={"sysctls": [{"name": "a.b", "value": "1"}]})
    config = sandbox_config(
        pod, 3, node_name="n1", hostname="", log_directory="/l", dns=DnsConfig(), cgroup_parent="/p"
    )
    assert config.labels["io.kubernetes.pod.uid"] == "u-1"
    assert config.labels["app"] == "web"
    assert config.security.namespaces.network is NamespaceMode.NODE
    assert config.security.namespaces.pid is NamespaceMode.NODE
    assert (config.attempt, config.sysctls) == (3, {"a.b": "1"})


def test_only_name_and_image_make_another_container() -> None:
    assert container_hash({"name": "a", "image": "i:1"}) == container_hash({"name": "a", "image": "i:1", "env": []})
    assert container_hash({"name": "a", "image": "i:1"}) != container_hash({"name": "a", "image": "i:2"})


# Image names


@pytest.mark.parametrize(
    ("name", "full", "policy"),
    [
        ("busybox", "docker.io/library/busybox:latest", "Always"),
        ("busybox:1", "docker.io/library/busybox:1", "IfNotPresent"),
        ("team/app", "docker.io/team/app:latest", "Always"),
        ("localhost/app:1", "localhost/app:1", "IfNotPresent"),
        ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b:latest", "Always"),
        ("ghcr.io/a/b@sha256:" + "0" * 64, "ghcr.io/a/b@sha256:" + "0" * 64, "IfNotPresent"),
    ],
)
def test_image_names(name: str, full: str, policy: str) -> None:
    assert normalized(name) == full
    assert default_pull_policy(name) == policy


@pytest.mark.parametrize("name", ["", "UPPER", "a b", "a:", "a:b:c", "http://x/y", "0" * 64])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(InvalidImageName, match="invalid reference format"):
        normalized(name)


@given(st.text(max_size=40))
def test_any_text_is_a_name_or_refused(text: str) -> None:
    try:
        full = normalized(text)
    except InvalidImageName:
        return
    assert normalized(full) == full


def test_the_most_specific_credential_comes_first() -> None:
    def secret(auths: dict[str, Any]) -> dict[str, Any]:
        return {"data": {".dockerconfigjson": base64.b64encode(json.dumps({"auths": auths})).decode()}}

    auth = base64.b64encode(b"packed:pass:word").decode()
    secrets = [
        secret({"https://ghcr.io": {"username": "host", "password": "p"}, "ghcr.io/team": {"auth": auth}}),
        secret({"*.io": {"username": "star", "password": "p"}, "quay.io": {"username": "other", "password": "p"}}),
        {"data": {".dockerconfigjson": "not base64!"}},
    ]
    found = list(credentials("ghcr.io/team/app:1", iter(secrets)))
    assert [(one.username, one.password) for one in found] == [("packed", "pass:word"), ("host", "p"), ("star", "p")]
    assert "pass:word" not in repr(found)


# DNS and hosts

HOST = DnsConfig(("192.0.2.53",), ("example.test",), ("timeout:1",))


@pytest.mark.parametrize(
    ("spec", "servers", "searches"),
    [
        ({}, ("10.1.0.10",), ("shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.test")),
        ({"dnsPolicy": "Default"}, ("192.0.2.53",), ("example.test",)),
        ({"hostNetwork": True}, ("192.0.2.53",), ("example.test",)),
        ({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.2.3.4"], "searches": ["x"]}}, ("1.2.3.4",), ("x",)),
    ],
)
def test_dns_policies(spec: dict[str, Any], servers: tuple[str, ...], searches: tuple[str, ...]) -> None:
    found = dns.pod_dns(a_pod(**spec), HOST, ("10.1.0.10",), "cluster.local")
    assert (found.servers, found.searches) == (servers, searches)


def test_dns_options_replace_those_of_the_same_name() -> None:
    spec = {"dnsConfig": {"options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}
    found = dns.pod_dns(a_pod(**spec), HOST, ("10.1.0.10",), "cluster.local")
    assert found.options == ("ndots:2", "edns0")


def test_resolv_conf_is_read_past_comments() -> None:
    text = "# c\nnameserver 1.1.1.1 ; x\nsearch a. b\noptions ndots:2 rotate\nsortlist 1\nnameserver\n"
    assert dns.parse_resolv_conf(text) == DnsConfig(("1.1.1.1",), ("a", "b"), ("ndots:2", "rotate"))


@given(st.text())
def test_any_resolv_conf_is_readable(text: str) -> None:
    dns.parse_resolv_conf(text)


def test_hosts_of_a_pod_with_subdomain_and_aliases() -> None:
    pod = a_pod(subdomain="sub", hostAliases=[{"ip": "1.2.3.4", "hostnames": ["a", "b"]}])
    text = dns.hosts_file(pod, ("10.0.0.2",), "web", "cluster.local", "")
    assert text.startswith("# Kubernetes-managed hosts file.\n")
    assert "10.0.0.2\tweb.sub.shop.svc.cluster.local\tweb\n" in text
    assert text.endswith("1.2.3.4\ta\tb\n")


def test_a_pod_may_want_its_full_name_or_any_other() -> None:
    named = a_pod(hostname="h", subdomain="sub")
    assert dns.kernel_name(named, "n1", "cluster.local") == "h"
    full = a_pod(hostname="h", subdomain="sub", setHostnameAsFQDN=True)
    assert dns.kernel_name(full, "n1", "cluster.local") == "h.sub.shop.svc.cluster.local"
    assert dns.kernel_name(full, "n1", "") == "h"
    assert dns.kernel_name(a_pod(hostname="h", setHostnameAsFQDN=True), "n1", "cluster.local") == "h"
    other = a_pod(hostnameOverride="old.example", subdomain="sub")
    assert dns.kernel_name(other, "n1", "cluster.local") == "old.example"
    assert "10.0.0.2\told.example\n" in dns.hosts_file(other, ["10.0.0.2"], "old.example", "cluster.local", "")


def test_profiles_and_labels_of_security_modules_reach_the_runtime() -> None:
    own = {"appArmorProfile": {"type": "Localhost", "localhostProfile": "strict"}, "seLinuxOptions": {"level": "s0:c1"}}
    above = {"seLinuxOptions": {"type": "svirt_t"}, "supplementalGroupsPolicy": "Strict"}
    container = {"name": "main", "securityContext": own}
    found = security_of(a_pod(container, securityContext=above), container, IMAGE)
    assert found.selinux == {"level": "s0:c1"}, "a container's own options take the place of the pod's"
    assert found.strict_groups
    message = convert.container_config(ContainerConfig("main", "i", security=found))["linux"]["security_context"]
    assert (message["apparmor_profile"], message["apparmor"]) == (
        "localhost/strict",
        {"profile_type": 2, "localhost_ref": "strict"},
    )
    assert (message["selinux_options"], message["supplemental_groups_policy"]) == ({"level": "s0:c1"}, 1)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("runtime/default", "runtime/default"), ("unconfined", "unconfined"), ("localhost/mine", "localhost/mine")],
)
def test_apparmor_as_older_pods_ask_for_it(text: str, shown: str) -> None:
    container = {"name": "main"}
    pod = a_pod(container)
    pod.annotations["container.apparmor.security.beta.kubernetes.io/main"] = text
    found = security_of(pod, container, IMAGE)
    message = convert.container_config(ContainerConfig("main", "i", security=found))["linux"]["security_context"]
    assert message["apparmor_profile"] == shown
    pod.annotations["container.apparmor.security.beta.kubernetes.io/main"] = "else"
    with pytest.raises(SpecError):
        security_of(pod, container, IMAGE)
