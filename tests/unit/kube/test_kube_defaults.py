"""Defaults, kind by kind."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kube_objects import SCHEMAS, WITH_SCHEMA, objects

from edgesite.kube import defaults, json
from edgesite.kube.resources import Resource
from edgesite.kube.schema_decode import decode


def defaulted(group: str, kind: str, obj: dict[str, Any], version: str = "v1") -> dict[str, Any]:
    result = decode(SCHEMAS, group, version, kind, obj).object
    defaults.apply(group, version, kind, result)
    return result


def test_pod() -> None:
    pod = defaulted("", "Pod", {"spec": {"containers": [{"name": "a", "image": "nginx"}]}})
    assert pod["spec"] == {
        "containers": [
            {
                "name": "a",
                "image": "nginx",
                "imagePullPolicy": "Always",
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
                "resources": {},
            }
        ],
        "restartPolicy": "Always",
        "dnsPolicy": "ClusterFirst",
        "terminationGracePeriodSeconds": 30,
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "enableServiceLinks": True,
    }


def test_what_is_set_stays() -> None:
    spec = {
        "containers": [{"name": "a", "image": "a:1", "imagePullPolicy": "Never"}],
        "terminationGracePeriodSeconds": 0,
        "enableServiceLinks": False,
    }
    pod = defaulted("", "Pod", {"spec": spec})
    assert pod["spec"]["terminationGracePeriodSeconds"] == 0
    assert pod["spec"]["enableServiceLinks"] is False
    assert pod["spec"]["containers"][0]["imagePullPolicy"] == "Never"


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1", "IfNotPresent"),
        ("host:5000/nginx", "Always"),
        ("host:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:aa", "IfNotPresent"),
        ("nginx:latest@sha256:aa", "Always"),
    ],
)
def test_pull_policy_follows_the_tag(image: str, policy: str) -> None:
    pod = defaulted("", "Pod", {"spec": {"containers": [{"name": "a", "image": image}]}})
    assert pod["spec"]["containers"][0]["imagePullPolicy"] == policy


def test_requests_follow_limits_in_pods_but_not_in_templates() -> None:
    container = {
        "name": "a",
        "image": "a:1",
        "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}},
    }
    pod = defaulted("", "Pod", {"spec": {"containers": [container]}})
    assert pod["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "500m", "memory": "1Gi"}
    deployment = defaulted("apps", "Deployment", {"spec": {"template": {"spec": {"containers": [container]}}}})
    assert deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "500m"}


def test_probes_ports_and_env() -> None:
    container = {
        "name": "a",
        "ports": [{"containerPort": 80}],
        "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "livenessProbe": {"httpGet": {"port": 80}, "periodSeconds": 5},
    }
    result = defaulted("", "Pod", {"spec": {"containers": [container], "hostNetwork": True}})["spec"]["containers"][0]
    assert result["ports"] == [{"containerPort": 80, "protocol": "TCP", "hostPort": 80}]
    assert result["env"][0]["valueFrom"]["fieldRef"]["apiVersion"] == "v1"
    assert result["livenessProbe"] == {
        "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
        "periodSeconds": 5,
        "timeoutSeconds": 1,
        "successThreshold": 1,
        "failureThreshold": 3,
    }


def test_volumes() -> None:
    volumes = [
        {"name": "a"},
        {"name": "b", "secret": {"secretName": "s"}},
        {"name": "c", "hostPath": {"path": "/"}},
        {"name": "d", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
    ]
    result = defaulted("", "Pod", {"spec": {"containers": [], "volumes": volumes}})["spec"]["volumes"]
    assert result[0] == {"name": "a", "emptyDir": {}}
    assert result[1]["secret"]["defaultMode"] == 420
    assert result[2]["hostPath"] == {"path": "/", "type": ""}
    assert result[3]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"] == 3600


def test_tolerations_of_a_lost_node_are_added_once() -> None:
    pod: dict[str, Any] = {"spec": {"tolerations": [{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}]}}
    defaults.add_default_tolerations(pod)
    defaults.add_default_tolerations(pod)
    assert [one["key"] for one in pod["spec"]["tolerations"]] == [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ]


def test_deployment() -> None:
    spec = defaulted("apps", "Deployment", {"spec": {"replicas": 0}})["spec"]
    assert spec["replicas"] == 0
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}
    assert (spec["revisionHistoryLimit"], spec["progressDeadlineSeconds"]) == (10, 600)
    recreate = defaulted("apps", "Deployment", {"spec": {"strategy": {"type": "Recreate"}}})["spec"]
    assert recreate["strategy"] == {"type": "Recreate"}


def test_stateful_set_and_daemon_set() -> None:
    claims = [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]
    spec = defaulted("apps", "StatefulSet", {"spec": {"volumeClaimTemplates": claims}})["spec"]
    assert spec["updateStrategy"] == {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}
    assert spec["volumeClaimTemplates"][0]["spec"]["volumeMode"] == "Filesystem"
    daemon = defaulted("apps", "DaemonSet", {})["spec"]
    assert daemon["updateStrategy"]["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}


def test_new_status_has_the_counts_that_clients_expect() -> None:
    assert defaults.new_status("apps", "v1", "ReplicaSet") == {"replicas": 0}
    assert defaults.new_status("apps", "v1", "Deployment") == {}
    for row in WITH_SCHEMA:
        status = defaults.new_status(row.group, row.version, row.kind)
        decoded = decode(SCHEMAS, row.group, row.version, row.kind, {"status": status}) if status else None
        assert decoded is None or decoded.object["status"] == status


def test_job_and_cron_job() -> None:
    spec = defaulted("batch", "Job", {"spec": {}})["spec"]
    assert (spec["completions"], spec["parallelism"], spec["backoffLimit"]) == (1, 1, 6)
    assert "completions" not in defaulted("batch", "Job", {"spec": {"parallelism": 2}})["spec"]
    cron = defaulted("batch", "CronJob", {"spec": {"schedule": "* * * * *"}})["spec"]
    assert (cron["concurrencyPolicy"], cron["successfulJobsHistoryLimit"]) == ("Allow", 3)
    assert cron["jobTemplate"]["spec"]["template"]["spec"]["restartPolicy"] == "Always"


def test_service() -> None:
    spec = defaulted("", "Service", {"spec": {"ports": [{"port": 80}]}})["spec"]
    assert spec == {
        "ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"}],
        "sessionAffinity": "None",
        "type": "ClusterIP",
        "internalTrafficPolicy": "Cluster",
    }
    node_port = defaulted("", "Service", {"spec": {"type": "NodePort", "sessionAffinity": "ClientIP"}})["spec"]
    assert node_port["externalTrafficPolicy"] == "Cluster"
    assert node_port["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": 10800}}


def test_secret_namespace_and_claims() -> None:
    assert defaulted("", "Secret", {})["type"] == "Opaque"
    namespace = defaulted("", "Namespace", {"metadata": {"name": "a"}})
    assert namespace["metadata"]["labels"] == {"kubernetes.io/metadata.name": "a"}
    assert namespace["status"] == {"phase": "Active"}
    assert defaulted("", "PersistentVolumeClaim", {})["spec"]["volumeMode"] == "Filesystem"
    assert defaulted("", "PersistentVolume", {})["spec"]["persistentVolumeReclaimPolicy"] == "Retain"


def test_network_policy_and_role_binding() -> None:
    assert defaulted("networking.k8s.io", "NetworkPolicy", {"spec": {"egress": [{}]}})["spec"]["policyTypes"] == [
        "Ingress",
        "Egress",
    ]
    subjects = [{"kind": "User", "name": "a"}, {"kind": "ServiceAccount", "name": "b"}]
    binding = defaulted("rbac.authorization.k8s.io", "RoleBinding", {"subjects": subjects})
    assert binding["subjects"][0]["apiGroup"] == "rbac.authorization.k8s.io"
    assert "apiGroup" not in binding["subjects"][1]


def test_autoscaler_versions_differ() -> None:
    assert defaulted("autoscaling", "HorizontalPodAutoscaler", {}, "v2")["spec"]["metrics"]
    assert "metrics" not in defaulted("autoscaling", "HorizontalPodAutoscaler", {}, "v1")["spec"]


@given(st.data(), st.sampled_from(WITH_SCHEMA))
def test_defaulting_any_object_is_idempotent_and_fits_the_schema(data: st.DataObject, row: Resource) -> None:
    obj = decode(SCHEMAS, row.group, row.version, row.kind, data.draw(objects(row))).object
    defaults.apply(row.group, row.version, row.kind, obj)
    once = json.dumps(obj)
    defaults.apply(row.group, row.version, row.kind, obj)
    assert json.dumps(obj) == once
    assert decode(SCHEMAS, row.group, row.version, row.kind, obj).unknown == []
