"""All controllers together on the real API server: the main road, and how things end."""

import pytest

from edgesite.kube.resources import (
    CONFIG_MAPS,
    CONTROLLER_REVISIONS,
    DAEMON_SETS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    ENDPOINTS,
    NAMESPACES,
    PODS,
    REPLICA_SETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    STATEFUL_SETS,
)

pytestmark = pytest.mark.anyio


def deployment(replicas=3, image="v1", namespace="default", name="web"):
    labels = {"app": name}
    container = {"name": "c", "image": image, "ports": [{"name": "http", "containerPort": 8080}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


def service(namespace="default"):
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    }


def complete(namespace="default", name="web"):
    def holds(informer):
        found = informer.get(name, namespace)
        if found is None or found.get("status", {}).get("observedGeneration") != found["metadata"]["generation"]:
            return None
        status, wanted = found["status"], found["spec"]["replicas"]
        counts = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")]
        return found if counts == [wanted] * 3 else None

    return holds


async def test_a_deployment_becomes_running_pods_behind_a_service(site):
    await site.node()
    await site.client.create(SERVICES, service())
    await site.client.create(DEPLOYMENTS, deployment())
    done = await site.until(DEPLOYMENTS, complete())
    kinds = {one["type"]: (one["status"], one["reason"]) for one in done["status"]["conditions"]}
    assert kinds["Available"] == ("True", "MinimumReplicasAvailable")
    assert done["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "1"
    found = await site.until(
        ENDPOINTS,
        lambda informer: (
            (one := informer.get("web", "default"))
            and len((one.get("subsets") or [{}])[0].get("addresses", ())) == 3
            and one
        ),
    )
    assert found["subsets"][0]["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    [slice_] = await site.until(
        ENDPOINT_SLICES,
        lambda informer: [
            one
            for one in informer.list("default")
            if one["metadata"]["labels"].get("kubernetes.io/service-name") == "web"
            and len(one["endpoints"]) == 3
            and all(each["conditions"]["ready"] for each in one["endpoints"])
        ],
    )
    assert slice_["addressType"] == "IPv4"


async def test_a_rolling_update_and_its_undo(site):
    await site.node()
    await site.client.create(DEPLOYMENTS, deployment())
    first = await site.until(DEPLOYMENTS, complete())
    change = {"spec": {"template": deployment(image="v2")["spec"]["template"]}}
    await site.client.patch(DEPLOYMENTS, "web", change, "default", kind="strategic")
    await site.until(DEPLOYMENTS, lambda informer: _revision(informer) == "2" and complete()(informer))
    await site.client.patch(
        DEPLOYMENTS,
        "web",
        [{"op": "replace", "path": "/spec/template", "value": first["spec"]["template"]}],
        "default",
        kind="json",
    )
    await site.until(DEPLOYMENTS, lambda informer: _revision(informer) == "3" and complete()(informer))
    sets = site.informers.of(REPLICA_SETS).list("default")
    assert sorted(
        (one["metadata"]["annotations"]["deployment.kubernetes.io/revision"], one["spec"]["replicas"]) for one in sets
    ) == [
        ("2", 0),
        ("3", 3),
    ]


def _revision(informer):
    return informer.get("web", "default")["metadata"].get("annotations", {}).get("deployment.kubernetes.io/revision")


@pytest.mark.parametrize("propagation", ["Background", "Foreground"])
async def test_deleting_a_deployment_takes_everything_with_it(site, propagation):
    await site.node()
    await site.client.create(DEPLOYMENTS, deployment())
    await site.until(DEPLOYMENTS, complete())
    await site.client.delete(DEPLOYMENTS, "web", "default", propagation=propagation)
    await site.until(PODS, lambda informer: not informer.list("default"))
    await site.until(REPLICA_SETS, lambda informer: not informer.list("default"))
    await site.until(DEPLOYMENTS, lambda informer: not informer.list("default"))


async def test_orphans_stay_and_are_adopted_again(site):
    await site.node()
    await site.client.create(DEPLOYMENTS, deployment(2))
    await site.until(DEPLOYMENTS, complete())
    names = sorted(one["metadata"]["name"] for one in site.informers.of(PODS).list("default"))
    await site.client.delete(DEPLOYMENTS, "web", "default", propagation="Orphan")
    [kept] = await site.until(
        REPLICA_SETS,
        lambda informer: [one for one in informer.list("default") if not one["metadata"].get("ownerReferences")],
    )
    await site.until(DEPLOYMENTS, lambda informer: not informer.list("default"))
    await site.client.create(DEPLOYMENTS, deployment(2))
    await site.until(DEPLOYMENTS, complete())
    assert sorted(one["metadata"]["name"] for one in site.informers.of(PODS).list("default")) == names
    [adopted] = site.informers.of(REPLICA_SETS).list("default")
    assert adopted["metadata"]["uid"] == kept["metadata"]["uid"]


async def test_a_namespace_gets_its_account_and_goes_with_all_it_holds(site):
    await site.node()
    await site.client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    await site.until(SERVICE_ACCOUNTS, lambda informer: informer.get("default", "shop"))
    await site.until(CONFIG_MAPS, lambda informer: informer.get("kube-root-ca.crt", "shop"))
    await site.client.create(SERVICES, service("shop"))
    await site.client.create(DEPLOYMENTS, deployment(namespace="shop"))
    await site.until(DEPLOYMENTS, complete("shop"))
    await site.client.delete(NAMESPACES, "shop")
    await site.until(NAMESPACES, lambda informer: informer.get("shop") is None)
    for resource in (
        PODS,
        DEPLOYMENTS,
        REPLICA_SETS,
        SERVICES,
        ENDPOINTS,
        ENDPOINT_SLICES,
        CONFIG_MAPS,
        SERVICE_ACCOUNTS,
    ):
        assert (await site.client.list(resource, "shop"))["items"] == []


async def test_pods_that_fit_nowhere_wait_for_room(site):
    await site.node("small", cpu="1")
    big = deployment(1)
    big["spec"]["template"]["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "2"}}
    await site.client.create(DEPLOYMENTS, big)
    waiting = await site.until(
        PODS, lambda informer: [one for one in informer.list("default") if one["status"].get("conditions")]
    )
    [said] = waiting[0]["status"]["conditions"]
    assert (said["type"], said["reason"]) == ("PodScheduled", "Unschedulable")
    assert said["message"].startswith("0/1 nodes are available: 1 Insufficient cpu.")
    await site.node("large", cpu="8")
    await site.until(DEPLOYMENTS, complete())


async def test_a_daemon_set_covers_its_nodes_and_rolls_back(site):
    for name in ("a", "b"):
        await site.node(name)
    web = deployment()
    spec = {"selector": web["spec"]["selector"], "template": web["spec"]["template"]}
    meta = {"name": "ds", "namespace": "default"}
    await site.client.create(
        DAEMON_SETS, {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": meta, "spec": spec}
    )
    first = await site.until(DAEMON_SETS, lambda informer: _covered(informer, 1))
    assert sorted(one["spec"]["nodeName"] for one in site.informers.of(PODS).list("default")) == ["a", "b"]
    change = {"spec": {"template": deployment(image="v2")["spec"]["template"]}}
    await site.client.patch(DAEMON_SETS, "ds", change, "default", kind="strategic")
    await site.until(DAEMON_SETS, lambda informer: _covered(informer, 2))
    back = {"spec": {"template": first["spec"]["template"]}}
    await site.client.patch(DAEMON_SETS, "ds", back, "default", kind="strategic")
    await site.until(DAEMON_SETS, lambda informer: _covered(informer, 3))
    found = site.informers.of(CONTROLLER_REVISIONS).list("default")
    await site.until(
        CONTROLLER_REVISIONS, lambda informer: sorted(one["revision"] for one in informer.list()) == [2, 3]
    )
    assert len(found) == 2


def _covered(informer, generation):
    found = informer.get("ds", "default")
    status = (found or {}).get("status") or {}
    if status.get("observedGeneration") != generation:
        return None
    counts = [status.get(name) for name in ("desiredNumberScheduled", "updatedNumberScheduled", "numberAvailable")]
    return found if counts == [2, 2, 2] else None


async def test_a_stateful_set_rolls_in_order(site):
    await site.node()
    web = deployment()
    spec = {
        "replicas": 2,
        "serviceName": "web",
        "selector": web["spec"]["selector"],
        "template": web["spec"]["template"],
    }
    meta = {"name": "db", "namespace": "default"}
    await site.client.create(
        STATEFUL_SETS, {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": meta, "spec": spec}
    )
    await site.until(STATEFUL_SETS, lambda informer: _settled(informer, 1))
    assert sorted(one["metadata"]["name"] for one in site.informers.of(PODS).list("default")) == ["db-0", "db-1"]
    change = {"spec": {"template": deployment(image="v2")["spec"]["template"]}}
    await site.client.patch(STATEFUL_SETS, "db", change, "default", kind="strategic")
    await site.until(STATEFUL_SETS, lambda informer: _settled(informer, 2))
    assert {one["spec"]["containers"][0]["image"] for one in site.informers.of(PODS).list("default")} == {"v2"}


def _settled(informer, generation):
    status = (informer.get("db", "default") or {}).get("status") or {}
    return (
        status.get("observedGeneration") == generation
        and status.get("updatedReplicas") == status.get("availableReplicas") == 2
        and status["currentRevision"] == status["updateRevision"]
    )
