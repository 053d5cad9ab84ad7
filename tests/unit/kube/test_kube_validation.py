"""Validation: kube-apiserver's fields, reasons and texts for what users get wrong."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kube_objects import SCHEMAS, WITH_SCHEMA, objects

from edgesite.kube import defaults, resources, validation
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import Resource
from edgesite.kube.schema_decode import decode

Object = dict[str, Any]


def prepared(row: Resource, obj: Object) -> Object:
    """``obj`` decoded and defaulted, with metadata of its own."""
    meta = {"name": "a", **({"namespace": "default"} if row.namespaced else {}), **obj.get("metadata", {})}
    result = decode(SCHEMAS, row.group, row.version, row.kind, {**obj, "metadata": meta}).object
    defaults.apply(row.group, row.version, row.kind, result)
    return result


def causes(row: Resource, obj: Object) -> list[str]:
    return [f"{one['field']}: {one['message']}" for one in validation.validate(row, prepared(row, obj))]


def update_causes(row: Resource, new: Object, old: Object) -> list[str]:
    found = validation.validate_update(row, prepared(row, new), prepared(row, old))
    return [f"{one['field']}: {one['message']}" for one in found]


def pod(**spec: Any) -> Object:
    return {"spec": {"containers": [{"name": "a", "image": "a"}], **spec}}


def container(**fields: Any) -> Object:
    return pod(containers=[{"name": "a", "image": "a", **fields}])


def deployment(**spec: Any) -> Object:
    template = {"metadata": {"labels": {"app": "a"}}, **pod()}
    return {"spec": {"selector": {"matchLabels": {"app": "a"}}, "template": template, **spec}}


GOOD: list[tuple[Resource, Object]] = [
    (resources.PODS, pod()),
    (resources.DEPLOYMENTS, deployment()),
    (resources.REPLICA_SETS, deployment()),
    (resources.STATEFUL_SETS, deployment(serviceName="a")),
    (resources.DAEMON_SETS, deployment()),
    (
        resources.CRON_JOBS,
        {
            "spec": {
                "schedule": "*/5 1-3 * jan mon,tue",
                "jobTemplate": {"spec": {"template": pod(restartPolicy="Never")}},
            }
        },
    ),
    (resources.SERVICES, {"spec": {"ports": [{"port": 80}]}}),
    (resources.SERVICES, {"spec": {"clusterIP": "None"}}),
    (resources.CONFIG_MAPS, {"data": {"a.b": "c"}}),
    (resources.SECRETS, {"data": {"a": "YQ=="}}),
    (resources.NAMESPACES, {}),
    (resources.NODES, {"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}),
    (
        resources.PERSISTENT_VOLUME_CLAIMS,
        {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}},
    ),
    (
        resources.PERSISTENT_VOLUMES,
        {"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/a"}}},
    ),
    (resources.LEASES, {"spec": {"holderIdentity": "a", "leaseDurationSeconds": 40}}),
    (
        resources.ROLES,
        {"metadata": {"name": "system:a"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]},
    ),
    (
        resources.ENDPOINT_SLICES,
        {"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 1}]},
    ),
    (resources.EVENTS, {"involvedObject": {"kind": "Node", "name": "a"}}),
    (resources.EVENTS, {"involvedObject": {"kind": "Pod", "name": "a", "namespace": "default"}}),
    (
        resources.INGRESSES,
        {
            "spec": {
                "rules": [
                    {
                        "host": "*.example.com",
                        "http": {
                            "paths": [
                                {
                                    "path": "/",
                                    "pathType": "Prefix",
                                    "backend": {"service": {"name": "a", "port": {"number": 80}}},
                                }
                            ]
                        },
                    }
                ]
            }
        },
    ),
    (resources.PRIORITY_CLASSES, {"metadata": {"name": "system-node-critical"}, "value": 2000001000}),
    (
        resources.OBJECT_SYNCS,
        {"metadata": {"name": "edge1.7c0b6a8e-5b1e-4f0e-8f43-3d3a0c1d2e3f"}, "spec": {"objectName": "a"}},
    ),
]


@pytest.mark.parametrize(("row", "obj"), GOOD, ids=lambda value: value.plural if isinstance(value, Resource) else "")
def test_good_objects_pass(row: Resource, obj: Object) -> None:
    assert causes(row, obj) == []
    assert update_causes(row, obj, obj) == []


BAD: list[tuple[Resource, Object, list[str]]] = [
    (resources.PODS, {"spec": {}}, ["spec.containers: Required value"]),
    (
        resources.PODS,
        pod(containers=[{"name": "a", "image": "a"}, {"name": "a"}]),
        ["spec.containers[1].image: Required value", 'spec.containers[1].name: Duplicate value: "a"'],
    ),
    (
        resources.PODS,
        pod(restartPolicy="Sometimes"),
        ['spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"'],
    ),
    (
        resources.PODS,
        container(volumeMounts=[{"name": "v", "mountPath": "/x"}]),
        ['spec.containers[0].volumeMounts[0].name: Not found: "v"'],
    ),
    (
        resources.PODS,
        container(ports=[{"containerPort": 70000}]),
        ["spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"],
    ),
    (
        resources.PODS,
        container(resources={"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
        ['spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1'],
    ),
    (
        resources.PODS,
        container(imagePullPolicy="Maybe"),
        [
            'spec.containers[0].imagePullPolicy: Unsupported value: "Maybe": '
            'supported values: "Always", "IfNotPresent", "Never"'
        ],
    ),
    (
        resources.PODS,
        container(livenessProbe={}),
        ["spec.containers[0].livenessProbe: Required value: must specify a handler type"],
    ),
    (
        resources.PODS,
        pod(volumes=[{"name": "a", "hostPath": {"path": "/"}, "emptyDir": {}}]),
        ["spec.volumes[0].emptyDir: Forbidden: may not specify more than 1 volume type"],
    ),
    (
        resources.PODS,
        pod(tolerations=[{"value": "x"}]),
        [
            'spec.tolerations[0].operator: Invalid value: "": operator must be Exists when `key` is empty, '
            'which means "match all values and all keys"'
        ],
    ),
    (resources.DEPLOYMENTS, deployment(selector=None), ["spec.selector: Required value"]),
    (
        resources.DEPLOYMENTS,
        deployment(selector={"matchLabels": {"app": "b"}}),
        ['spec.template.metadata.labels: Invalid value: {"app":"a"}: `selector` does not match template `labels`'],
    ),
    (
        resources.DEPLOYMENTS,
        deployment(replicas=-1),
        ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
    ),
    (
        resources.DEPLOYMENTS,
        deployment(strategy={"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 0}}),
        ["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"],
    ),
    (
        resources.SERVICES,
        {"spec": {"ports": [{"port": 0}]}},
        [
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
        ],
    ),
    (resources.SERVICES, {"spec": {}}, ["spec.ports: Required value"]),
    (
        resources.SECRETS,
        {"type": "kubernetes.io/tls", "data": {"tls.crt": "YQ=="}},
        ["data[tls.key]: Required value"],
    ),
    (
        resources.CRON_JOBS,
        {"spec": {"schedule": "often", "jobTemplate": {"spec": {"template": pod(restartPolicy="Never")}}}},
        ['spec.schedule: Invalid value: "often": expected exactly 5 fields, found 1: [often]'],
    ),
    (
        resources.ROLES,
        {"rules": [{"apiGroups": [""], "resources": ["pods"]}]},
        ["rules[0].verbs: Required value: verbs must contain at least one value"],
    ),
    (
        resources.PRIORITY_CLASSES,
        {"value": 2000000000},
        ["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"],
    ),
    (
        resources.CONFIG_MAPS,
        {"metadata": {"name": "A_b"}},
        [
            'metadata.name: Invalid value: "A_b": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric '
            "characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
            r"for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
        ],
    ),
    (
        resources.CONFIG_MAPS,
        {"metadata": {"name": ""}},
        ["metadata.name: Required value: name or generateName is required"],
    ),
    (
        resources.CONFIG_MAPS,
        {"metadata": {"finalizers": ["mine"]}},
        [
            'metadata.finalizers: Invalid value: "mine": name is neither a standard finalizer name nor is it fully qualified'
        ],
    ),
    (
        resources.CONFIG_MAPS,
        {"metadata": {"annotations": {"a": "x" * 262144}}},
        ["metadata.annotations: Too long: may not be more than 262144 bytes"],
    ),
    (resources.CONFIG_MAPS, {"data": {"a": "x" * 1048577}}, [": Too long: may not be more than 1048576 bytes"]),
]


@pytest.mark.parametrize(
    ("row", "obj", "expected"), BAD, ids=[f"{row.plural}-{texts[0][:40]}" for row, _, texts in BAD]
)
def test_bad_objects_are_told_in_kubernetes_words(row: Resource, obj: Object, expected: list[str]) -> None:
    assert causes(row, obj) == expected


def test_users_of_a_pods_own_exclude_namespaces_of_the_host() -> None:
    shared = pod(hostUsers=False, hostNetwork=True, hostPID=True)
    text = "Forbidden: when `hostUsers` is false"
    assert causes(resources.PODS, shared) == [f"spec.hostNetwork: {text}", f"spec.hostPID: {text}"]


def test_job_needs_a_restart_policy_of_its_own() -> None:
    row = resources.JOBS
    job = prepared(row, {"metadata": {"name": "j"}, "spec": {"template": pod()}})
    job["metadata"]["uid"] = "u"
    defaults.add_job_selector(job)
    found = validation.validate(row, job)
    assert [one["field"] for one in found] == ["spec.template.spec.restartPolicy"]
    assert found[0]["message"] == 'Required value: valid values: "OnFailure", "Never"'
    assert job["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}}
    assert job["spec"]["template"]["metadata"]["labels"]["job-name"] == "j"


UPDATES: list[tuple[str, Resource, Object, Object, str]] = [
    (
        "selector",
        resources.DEPLOYMENTS,
        deployment(),
        deployment(selector={"matchExpressions": [{"key": "app", "operator": "Exists"}]}),
        "spec.selector: Invalid value",
    ),
    (
        "pod-env",
        resources.PODS,
        pod(),
        container(env=[{"name": "A", "value": "b"}]),
        "spec: Forbidden: pod updates may not change",
    ),
    (
        "pod-containers",
        resources.PODS,
        pod(),
        pod(containers=[{"name": "a", "image": "a"}, {"name": "b", "image": "b"}]),
        "spec.containers: Forbidden: pod updates may not add or remove containers",
    ),
    ("secret-type", resources.SECRETS, {}, {"type": "a/b"}, 'type: Invalid value: "a/b": field is immutable'),
    (
        "immutable",
        resources.CONFIG_MAPS,
        {"immutable": True, "data": {"a": "b"}},
        {"immutable": True},
        "data: Forbidden: field is immutable when `immutable` is set",
    ),
    (
        "cluster-ip",
        resources.SERVICES,
        {"spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 1}]}},
        {"spec": {"clusterIP": "10.0.0.2", "ports": [{"port": 1}]}},
        'spec.clusterIPs[0]: Invalid value: ["10.0.0.2"]: may not change once set',
    ),
    (
        "uid",
        resources.CONFIG_MAPS,
        {"metadata": {"uid": "a"}},
        {"metadata": {"uid": "b"}},
        'metadata.uid: Invalid value: "b": field is immutable',
    ),
    (
        "role-ref",
        resources.ROLE_BINDINGS,
        {"roleRef": {"kind": "Role", "name": "a"}},
        {"roleRef": {"kind": "Role", "name": "b"}},
        "roleRef: Invalid value: ",
    ),
    (
        "stateful",
        resources.STATEFUL_SETS,
        deployment(serviceName="a"),
        deployment(serviceName="b"),
        "spec: Forbidden: updates to statefulset spec for fields other than",
    ),
]


@pytest.mark.parametrize(("row", "old", "new", "text"), [one[1:] for one in UPDATES], ids=[one[0] for one in UPDATES])
def test_what_may_not_change(row: Resource, old: Object, new: Object, text: str) -> None:
    found = update_causes(row, new, old)
    assert len(found) == 1
    assert found[0].startswith(text)


def test_what_may_change_in_a_pod() -> None:
    new = container(image="b")
    new["spec"]["tolerations"] = [{"key": "a", "operator": "Exists"}]
    new["spec"]["activeDeadlineSeconds"] = 5
    assert update_causes(resources.PODS, new, pod()) == []


def test_a_claim_is_bound_once() -> None:
    row = resources.PERSISTENT_VOLUME_CLAIMS

    def claim(size: str = "1Gi", **spec: Any) -> Object:
        return {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec}}

    bound = claim(volumeName="v", storageClassName="c")
    assert update_causes(row, bound, claim()) == []
    assert update_causes(row, claim("2Gi", volumeName="v", storageClassName="c"), bound) == []
    other = update_causes(row, claim(volumeName="w", storageClassName="c"), bound)
    assert [one.partition(":")[0] for one in other] == ["spec"]


def test_finalizers_cannot_be_added_to_what_is_being_deleted() -> None:
    gone = "2024-01-01T00:00:00Z"
    old = {"metadata": {"deletionTimestamp": gone, "finalizers": ["a/b"]}}
    new = {"metadata": {"deletionTimestamp": gone, "finalizers": ["a/b", "a/c"]}}
    found = update_causes(resources.CONFIG_MAPS, new, old)
    assert found[0].startswith("metadata.finalizers: Forbidden: no new finalizers can be added")
    assert update_causes(resources.CONFIG_MAPS, {"metadata": {"deletionTimestamp": gone}}, old) == []


def test_generation_counts_changes_of_the_spec_alone() -> None:
    row = resources.DEPLOYMENTS
    old = prepared(row, deployment())
    new = copy.deepcopy(old)
    new["metadata"]["labels"] = {"a": "b"}
    new["status"] = {"replicas": 1}
    assert not validation.bumps_generation(row, new, old)
    new["spec"]["replicas"] = 5
    assert validation.bumps_generation(row, new, old)
    assert not validation.has_generation(resources.CONFIG_MAPS)


@given(st.data(), st.sampled_from(WITH_SCHEMA))
def test_any_decodable_object_is_judged_without_a_crash(data: st.DataObject, row: Resource) -> None:
    try:
        new, old = (prepared(row, data.draw(objects(row))) for _ in range(2))
    except ApiError:
        return
    for found in (validation.validate(row, new), validation.validate_update(row, new, old)):
        assert all(set(one) == {"reason", "message", "field"} for one in found)


def test_a_stateful_sets_pods_may_mount_its_claims() -> None:
    container = {"name": "c", "image": "i", "volumeMounts": [{"name": "data", "mountPath": "/d"}]}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    labels = {"app": "db"}
    spec: dict[str, Any] = {
        "serviceName": "db",
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
    }
    obj = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db", "namespace": "d"}, "spec": spec}
    defaults.apply("apps", "v1", "StatefulSet", obj)
    assert [one["field"] for one in validation.validate(resources.STATEFUL_SETS, obj)] == [
        "spec.template.spec.containers[0].volumeMounts[0].name"
    ]
    spec["volumeClaimTemplates"] = [{"metadata": {"name": "data"}, "spec": claim}]
    defaults.apply("apps", "v1", "StatefulSet", obj)
    assert validation.validate(resources.STATEFUL_SETS, obj) == []


def test_names_of_sysctls() -> None:
    names = ("foo-", "kernel.shmmax", "net/ipv4/conf.a", "safe-and-unsafe", "bar..", "a" * 254, "kernel.shmmax")
    found = causes(resources.PODS, pod(securityContext={"sysctls": [{"name": one, "value": "1"} for one in names]}))
    assert [one.partition(".name: ")[0] for one in found] == [
        f"spec.securityContext.sysctls[{index}]" for index in (0, 4, 5, 6)
    ]
    assert 'Invalid value: "foo-": must have at most 253 characters and match regex ^' in found[0]
    assert found[3].endswith('Duplicate value: "kernel.shmmax"')
