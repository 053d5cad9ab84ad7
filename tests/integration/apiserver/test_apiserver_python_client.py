"""The official Python client against the module on a real socket."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import anyio
import pytest
from apiserver_role import role_at
from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException

pytestmark = pytest.mark.anyio


async def test_the_official_client(tmp_path: Path) -> None:
    async with role_at(tmp_path) as running:
        api = config.new_client_from_config(str(running.kubeconfig))
        try:
            for use in (_deployments, _watches, _pages, _pods, _dynamic, _reviews):
                await anyio.to_thread.run_sync(use, api)
        finally:
            api.close()
            api.rest_client.pool_manager.clear()


def _meta(name: str) -> Any:
    return client.V1ObjectMeta(name=name)


def _deployments(api: Any) -> None:
    apps = client.AppsV1Api(api)
    pod = client.V1PodSpec(containers=[client.V1Container(name="c", image="x")])
    template = client.V1PodTemplateSpec(metadata=client.V1ObjectMeta(labels={"a": "b"}), spec=pod)
    selector = client.V1LabelSelector(match_labels={"a": "b"})
    spec = client.V1DeploymentSpec(replicas=1, selector=selector, template=template)
    made = apps.create_namespaced_deployment("default", client.V1Deployment(metadata=_meta("d"), spec=spec))
    made.spec.replicas = 3
    assert apps.replace_namespaced_deployment("d", "default", made).metadata.generation == 2
    apps.patch_namespaced_deployment("d", "default", {"spec": {"replicas": 2}})
    assert apps.read_namespaced_deployment_scale("d", "default").spec.replicas == 2
    apps.patch_namespaced_deployment_scale("d", "default", {"spec": {"replicas": 5}})
    assert apps.read_namespaced_deployment("d", "default").spec.replicas == 5
    apps.delete_namespaced_deployment("d", "default")
    with pytest.raises(ApiException) as gone:
        apps.read_namespaced_deployment("d", "default")
    assert gone.value.status == 404


def _watches(api: Any) -> None:
    core = client.CoreV1Api(api)
    since = core.list_namespaced_config_map("default").metadata.resource_version
    events: list[tuple[str, str]] = []
    watching = watch.Watch()

    def follow() -> None:
        stream = watching.stream(core.list_namespaced_config_map, "default", resource_version=since, timeout_seconds=10)
        for event in stream:
            events.append((event["type"], event["object"].metadata.name))
            if event["type"] == "DELETED":
                watching.stop()

    thread = threading.Thread(target=follow)
    thread.start()
    core.create_namespaced_config_map("default", client.V1ConfigMap(metadata=_meta("c"), data={"x": "y"}))
    core.patch_namespaced_config_map("c", "default", {"data": {"x": "z"}})
    core.delete_namespaced_config_map("c", "default")
    thread.join(10)
    assert events == [("ADDED", "c"), ("MODIFIED", "c"), ("DELETED", "c")]


def _pages(api: Any) -> None:
    core = client.CoreV1Api(api)
    for number in range(5):
        core.create_namespaced_config_map("default", client.V1ConfigMap(metadata=_meta(f"c{number}")))
    page = core.list_namespaced_config_map("default", limit=2)
    names = [one.metadata.name for one in page.items]
    while page.metadata._continue:
        page = core.list_namespaced_config_map("default", limit=2, _continue=page.metadata._continue)
        names += [one.metadata.name for one in page.items]
    assert names == ["c0", "c1", "c2", "c3", "c4"]
    core.delete_collection_namespaced_config_map("default")
    assert core.list_namespaced_config_map("default").items == []


def _pods(api: Any) -> None:
    core = client.CoreV1Api(api)
    spec = client.V1PodSpec(containers=[client.V1Container(name="c", image="x")])
    core.create_namespaced_pod("default", client.V1Pod(metadata=_meta("p"), spec=spec))
    binding = client.V1Binding(metadata=_meta("p"), target=client.V1ObjectReference(kind="Node", name="n"))
    core.create_namespaced_binding("default", binding, _preload_content=False)
    assert core.read_namespaced_pod("p", "default").spec.node_name == "n"
    core.create_namespaced_pod_eviction("p", "default", client.V1Eviction(metadata=_meta("p")))
    assert core.read_namespaced_pod("p", "default").metadata.deletion_timestamp
    core.delete_namespaced_pod("p", "default", grace_period_seconds=0)


def _dynamic(api: Any) -> None:
    found = dynamic.DynamicClient(api).resources.get(api_version="v1", kind="ConfigMap")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default"}}
    body["data"] = {"q": "r"}
    made = found.server_side_apply(body=body, field_manager="me")
    assert made.metadata.managedFields[0].manager == "me"
    found.delete(name="a", namespace="default")


def _reviews(api: Any) -> None:
    attributes = client.V1ResourceAttributes(verb="get", resource="pods")
    spec = client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
    review = client.V1SelfSubjectAccessReview(spec=spec)
    assert client.AuthorizationV1Api(api).create_self_subject_access_review(review).status.allowed
