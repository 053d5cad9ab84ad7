"""The official Python client on a whole site: its own paths for writes, watches, logs, patches, discovery and errors."""

from __future__ import annotations

import datetime
import json
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from e2e_site import Site, eventually
from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException
from kubernetes.dynamic.exceptions import ConflictError

LABELS = {"app": "web"}


@pytest.fixture(scope="module")
def api(shared_site: Site) -> Iterator[Any]:
    made = config.new_client_from_config(str(shared_site.kubeconfig))
    yield made
    made.close()
    made.rest_client.pool_manager.clear()


@pytest.fixture
def core(api: Any) -> Any:
    return client.CoreV1Api(api)


@pytest.fixture
def ns(core: Any) -> Iterator[str]:
    name = f"py-{uuid.uuid4().hex[:8]}"
    core.create_namespace(client.V1Namespace(metadata=meta(name)))
    yield name
    core.delete_namespace(name)


def meta(name: str, **more: Any) -> Any:
    return client.V1ObjectMeta(name=name, **more)


def config_map(name: str, **data: str) -> Any:
    return client.V1ConfigMap(metadata=meta(name), data=data)


def pod(name: str, script: str, **more: Any) -> Any:
    container = client.V1Container(name="main", image="host", command=["sh", "-c", script])
    spec = client.V1PodSpec(containers=[container], termination_grace_period_seconds=1, **more)
    return client.V1Pod(metadata=meta(name, labels=LABELS), spec=spec)


@contextmanager
def refused(status: int, reason: str) -> Iterator[None]:
    with pytest.raises(ApiException) as caught:
        yield
    assert caught.value.status == status
    assert f'"reason":"{reason}"' in caught.value.body.replace(" ", "")


def test_many_kinds_come_back_as_they_were_sent(api: Any, core: Any, ns: str) -> None:
    apps, batch, rbac = client.AppsV1Api(api), client.BatchV1Api(api), client.RbacAuthorizationV1Api(api)
    template = client.V1PodTemplateSpec(metadata=client.V1ObjectMeta(labels=LABELS), spec=pod("x", "true").spec)
    selector = client.V1LabelSelector(match_labels=LABELS)
    once = client.V1PodTemplateSpec(spec=pod("x", "true", restart_policy="Never").spec)
    rule = client.V1PolicyRule(api_groups=[""], resources=["pods"], verbs=["get"])
    claim = client.V1PersistentVolumeClaimSpec(
        access_modes=["ReadWriteOnce"], resources=client.V1VolumeResourceRequirements(requests={"storage": "1Gi"})
    )
    made = {
        (core, "config_map"): config_map("c", a="b"),
        (core, "secret"): client.V1Secret(metadata=meta("s"), string_data={"a": "b"}),
        (core, "service"): client.V1Service(
            metadata=meta("v"), spec=client.V1ServiceSpec(selector=LABELS, ports=[client.V1ServicePort(port=80)])
        ),
        (core, "service_account"): client.V1ServiceAccount(metadata=meta("a")),
        (core, "persistent_volume_claim"): client.V1PersistentVolumeClaim(metadata=meta("p"), spec=claim),
        (apps, "deployment"): client.V1Deployment(
            metadata=meta("d"), spec=client.V1DeploymentSpec(replicas=0, selector=selector, template=template)
        ),
        (apps, "daemon_set"): client.V1DaemonSet(
            metadata=meta("e"),
            spec=client.V1DaemonSetSpec(selector=client.V1LabelSelector(match_labels=LABELS), template=template),
        ),
        (batch, "job"): client.V1Job(metadata=meta("j"), spec=client.V1JobSpec(template=once, suspend=True)),
        (rbac, "role"): client.V1Role(metadata=meta("r"), rules=[rule]),
    }
    for (group, kind), body in made.items():
        name = body.metadata.name
        getattr(group, f"create_namespaced_{kind}")(ns, body)
        read = getattr(group, f"read_namespaced_{kind}")(name, ns)
        assert read.metadata.uid
        assert name in [one.metadata.name for one in getattr(group, f"list_namespaced_{kind}")(ns).items]
        read.metadata.labels = {"changed": "yes"}
        read.metadata.resource_version = None  # controllers write their status meanwhile
        assert getattr(group, f"replace_namespaced_{kind}")(name, ns, read).metadata.labels["changed"] == "yes"
        getattr(group, f"delete_namespaced_{kind}")(name, ns, body=client.V1DeleteOptions(grace_period_seconds=0))


def test_a_pod_runs_and_its_log_is_read_and_followed(core: Any, ns: str) -> None:
    core.create_namespaced_pod(ns, pod("talks", "for i in 1 2 3; do echo line $i; sleep 0.1; done; sleep 100 & wait"))
    eventually(lambda: core.read_namespaced_pod("talks", ns).status.phase == "Running", "a running pod")
    follow = core.read_namespaced_pod_log("talks", ns, follow=True, _preload_content=False)
    lines = [line.decode() for _, line in zip(range(3), follow, strict=False)]
    follow.close()
    assert lines == ["line 1\n", "line 2\n", "line 3\n"]
    assert core.read_namespaced_pod_log("talks", ns, tail_lines=1) == "line 3\n"
    states: list[str] = []
    watching = watch.Watch()
    for line in watching.stream(core.read_namespaced_pod_log, name="talks", namespace=ns):
        states.append(line)
        if len(states) == 3:
            watching.stop()
    assert states == ["line 1", "line 2", "line 3"]


def test_a_watch_resumes_where_it_ended(core: Any, ns: str) -> None:
    listed = core.list_namespaced_config_map(ns).metadata.resource_version
    core.create_namespaced_config_map(ns, config_map("c", n="0"))
    for number in range(1, 6):
        core.patch_namespaced_config_map("c", ns, {"data": {"n": str(number)}})
    core.delete_namespaced_config_map("c", ns)
    seen: list[tuple[str, str]] = []
    since = listed
    for _ in range(7):  # a new watch for every event: none is missed, none comes twice
        watching = watch.Watch()
        stream = watching.stream(
            core.list_namespaced_config_map,
            ns,
            resource_version=since,
            field_selector="metadata.name=c",
            timeout_seconds=5,
        )
        event = next(iter(stream))
        watching.stop()
        seen.append((event["type"], event["object"].data["n"]))
        since = event["object"].metadata.resource_version
    assert seen == [("ADDED", "0"), *(("MODIFIED", str(number)) for number in range(1, 6)), ("DELETED", "5")]
    assert (
        list(watch.Watch().stream(core.list_namespaced_config_map, ns, resource_version=since, timeout_seconds=1)) == []
    )


def test_a_watch_sees_what_happens_meanwhile(core: Any, ns: str) -> None:
    since = core.list_namespaced_pod(ns).metadata.resource_version
    phases: list[str] = []

    def follow() -> None:
        for event in watch.Watch().stream(core.list_namespaced_pod, ns, resource_version=since, timeout_seconds=20):
            phases.append(event["object"].status.phase)
            if phases[-1] == "Succeeded":
                return

    thread = threading.Thread(target=follow)
    thread.start()
    core.create_namespaced_pod(ns, pod("brief", "sleep 0.2", restart_policy="Never"))
    thread.join(25)
    assert [one for place, one in enumerate(phases) if phases[:place][-1:] != [one]] == [
        "Pending",
        "Running",
        "Succeeded",
    ]


def test_patches_of_all_types(api: Any, core: Any, ns: str) -> None:
    core.create_namespaced_config_map(ns, config_map("c", a="1", b="2"))
    resources = dynamic.DynamicClient(api).resources.get(api_version="v1", kind="ConfigMap")

    def patch(body: Any, content_type: str, **more: Any) -> dict[str, str]:
        done = resources.patch(name="c", namespace=ns, body=body, content_type=content_type, **more)
        return dict(done.data.to_dict())

    assert patch({"data": {"a": None}}, "application/merge-patch+json") == {"b": "2"}
    assert patch([{"op": "add", "path": "/data/c", "value": "3"}], "application/json-patch+json") == {
        "b": "2",
        "c": "3",
    }
    assert patch({"data": {"d": "4"}}, "application/strategic-merge-patch+json") == {"b": "2", "c": "3", "d": "4"}
    mine = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"e": "5"}}
    apply = "application/apply-patch+yaml"
    assert patch(mine, apply, field_manager="me")["e"] == "5"
    with pytest.raises(ConflictError, match=r"conflict with .*me"):
        resources.server_side_apply(namespace=ns, body={**mine, "data": {"e": "6"}}, field_manager="you")
    forced = resources.server_side_apply(
        namespace=ns, body={**mine, "data": {"e": "6"}}, field_manager="you", force_conflicts=True
    )
    assert forced.data.e == "6"
    assert "e" not in patch({**mine, "data": {}}, apply, field_manager="you")


def test_dynamic_discovery(api: Any) -> None:
    found = dynamic.DynamicClient(api)
    nodes = found.resources.get(api_version="v1", kind="Node").get()
    assert [one.metadata.name for one in nodes.items] == ["node1"]
    assert found.resources.get(api_version="apps/v1", kind="Deployment").namespaced
    with pytest.raises(dynamic.exceptions.ResourceNotFoundError):
        found.resources.get(api_version="v1", kind="Nonsense")


def test_leases_elect_one_leader(api: Any, ns: str) -> None:
    coordination = client.CoordinationV1Api(api)
    spec = client.V1LeaseSpec(holder_identity="none", lease_duration_seconds=15)
    coordination.create_namespaced_lease(ns, client.V1Lease(metadata=meta("leader"), spec=spec))
    barrier = threading.Barrier(4)
    outcome: dict[str, int] = {}

    def run(name: str) -> None:
        lease = coordination.read_namespaced_lease("leader", ns)
        lease.spec.holder_identity = name
        lease.spec.renew_time = datetime.datetime.now(datetime.UTC)
        barrier.wait(10)
        try:
            coordination.replace_namespaced_lease("leader", ns, lease)
            outcome[name] = 200
        except ApiException as exc:
            outcome[name] = exc.status

    threads = [threading.Thread(target=run, args=(f"c{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(outcome.values()) == [200, 409, 409, 409]
    held = coordination.read_namespaced_lease("leader", ns)
    assert outcome[held.spec.holder_identity] == 200
    for _ in range(20):  # renewals
        held.spec.renew_time = datetime.datetime.now(datetime.UTC)
        held = coordination.replace_namespaced_lease("leader", ns, held)


def test_errors_carry_their_status(core: Any, ns: str) -> None:
    with refused(404, "NotFound"):
        core.read_namespaced_pod("gone", ns)
    made = core.create_namespaced_config_map(ns, config_map("c", a="1"))
    with refused(409, "AlreadyExists"):
        core.create_namespaced_config_map(ns, config_map("c"))
    core.patch_namespaced_config_map("c", ns, {"data": {"a": "2"}})
    with refused(409, "Conflict"):
        core.replace_namespaced_config_map("c", ns, made)
    with refused(409, "Conflict"):
        wrong = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid=str(uuid.uuid4())))
        core.delete_namespaced_config_map("c", ns, body=wrong)
    with refused(422, "Invalid"):
        core.create_namespaced_config_map(ns, config_map("NOT A NAME"))
    with refused(400, "BadRequest"):
        core.list_namespaced_pod(ns, label_selector="a in (")
    with refused(400, "BadRequest"):
        core.patch_namespaced_config_map("c", ns, {"data": {"a": 5}})
    with refused(404, "NotFound"):
        core.create_namespaced_config_map("no-such-namespace", config_map("c"))


def test_what_is_no_longer_held_is_gone(new_site: Callable[..., Site]) -> None:
    site = new_site("--set", "api.historyRetention=1s")
    site.start()
    with config.new_client_from_config(str(site.kubeconfig)) as own:
        core = client.CoreV1Api(own)
        for number in range(3):
            core.create_namespaced_config_map("default", config_map(f"c{number}"))
        page = core.list_namespaced_config_map("default", limit=1).metadata
        core.create_namespaced_config_map("default", config_map("later"))
        eventually(
            lambda: _gone(core.list_namespaced_config_map, "default", limit=1, _continue=page._continue),
            "410 to a list",
        )
        with pytest.raises(ApiException) as caught:
            for _ in watch.Watch().stream(core.list_node, resource_version="1", timeout_seconds=5):
                pass
        assert (caught.value.status, "Expired" in caught.value.reason) == (410, True)
        own.rest_client.pool_manager.clear()


def _gone(call: Callable[..., Any], *arguments: Any, **more: Any) -> bool:
    try:
        call(*arguments, **more)
    except ApiException as exc:
        return bool(exc.status == 410 and json.loads(exc.body)["reason"] == "Expired")
    return False
