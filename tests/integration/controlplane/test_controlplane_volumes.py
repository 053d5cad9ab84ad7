"""Claims of a StatefulSet on the real API server: bound to volumes made by hand, and kept."""

import pytest

from edgesite.kube.errors import ApiError
from edgesite.kube.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, STATEFUL_SETS, STORAGE_CLASSES

pytestmark = pytest.mark.anyio


def volume(name, size):
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": f"/x/{name}"}},
    }


def stateful_set(replicas):
    template = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    container = {"name": "c", "image": "v1", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "db", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}},
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [container]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": template}],
        },
    }


async def test_the_claims_of_a_stateful_set_find_volumes_and_stay(site):
    await site.node()
    for name, size in (("pv-a", "5Gi"), ("pv-b", "2Gi")):
        await site.client.create(PERSISTENT_VOLUMES, volume(name, size))
    await site.client.create(STATEFUL_SETS, stateful_set(2))

    def bound(claims):
        found = {one["metadata"]["name"]: one for one in claims.list("default")}
        done = [one for one in found.values() if (one.get("status") or {}).get("phase") == "Bound"]
        return found if len(done) == 2 else None

    claims = await site.until(PERSISTENT_VOLUME_CLAIMS, bound)
    assert {name: one["spec"]["volumeName"] for name, one in claims.items()} == {
        "data-db-0": "pv-b",
        "data-db-1": "pv-a",
    }
    assert claims["data-db-0"]["status"]["capacity"] == {"storage": "2Gi"}
    pv = await site.client.get(PERSISTENT_VOLUMES, "pv-b")
    assert (pv["status"]["phase"], pv["spec"]["claimRef"]["name"]) == ("Bound", "data-db-0")
    changed = {**claims["data-db-0"], "spec": {**claims["data-db-0"]["spec"], "volumeName": "pv-a"}}
    with pytest.raises(ApiError):  # what is bound stays bound
        await site.client.update(PERSISTENT_VOLUME_CLAIMS, changed)
    await site.client.delete(STATEFUL_SETS, "db", "default")
    await site.until(PODS, lambda pods: not pods.list("default"))
    assert len((await site.client.list(PERSISTENT_VOLUME_CLAIMS, "default"))["items"]) == 2
    await site.client.delete(PERSISTENT_VOLUME_CLAIMS, "data-db-0", "default")
    await site.until(PERSISTENT_VOLUMES, lambda pvs: pvs.get("pv-b")["status"]["phase"] == "Released")


def claim(name, *, size="1Gi", **spec):
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec}
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": wanted}


def is_bound(claims):
    found = claims.get("data", "default") or {}
    return (found.get("status") or {}).get("phase") == "Bound"


def user(name):
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]
    spec = {"containers": [{"name": "c", "image": "v1"}], "volumes": volumes}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


def storage_class(name, **more):
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"}
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name, "annotations": annotations},
        "provisioner": "disks.test",
        **more,
    }


async def test_claims_without_a_class_get_the_default_one_sooner_or_later(site):
    for name, more in (("early", {}), ("none", {"storageClassName": ""})):
        await site.client.create(PERSISTENT_VOLUME_CLAIMS, claim(name, **more))
    await site.until(PERSISTENT_VOLUME_CLAIMS, lambda claims: len(claims.list("default")) == 2)
    await site.client.create(STORAGE_CLASSES, storage_class("disks"))
    made = await site.client.create(PERSISTENT_VOLUME_CLAIMS, claim("late"))
    assert made["spec"]["storageClassName"] == "disks"

    def classes(claims):
        found = {one["metadata"]["name"]: one["spec"].get("storageClassName") for one in claims.list("default")}
        return found if found.get("early") and "late" in found else None

    found = await site.until(PERSISTENT_VOLUME_CLAIMS, classes)
    assert found == {"early": "disks", "late": "disks", "none": ""}


@pytest.mark.parametrize("may", [False, True])
async def test_who_may_ask_for_more(site, may):
    await site.client.create(STORAGE_CLASSES, storage_class("disks", allowVolumeExpansion=may))
    await site.client.create(PERSISTENT_VOLUME_CLAIMS, claim("data"))
    more = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
    with pytest.raises(ApiError, match="Only bound persistent volume claims can be expanded"):
        await site.client.patch(PERSISTENT_VOLUME_CLAIMS, "data", more, "default", kind="merge")
    made = volume("pv", "1Gi")
    made["spec"] |= {"storageClassName": "disks", "claimRef": {"namespace": "default", "name": "data"}}
    await site.client.create(PERSISTENT_VOLUMES, made)
    await site.until(PERSISTENT_VOLUME_CLAIMS, is_bound)
    if may:
        await site.client.patch(PERSISTENT_VOLUME_CLAIMS, "data", more, "default", kind="merge")
    else:
        with pytest.raises(ApiError, match="only dynamically provisioned pvc can be resized"):
            await site.client.patch(PERSISTENT_VOLUME_CLAIMS, "data", more, "default", kind="merge")


async def test_what_is_in_use_stays_whoever_deletes_it(site):
    await site.node()
    await site.client.create(PERSISTENT_VOLUMES, volume("pv", "1Gi"))
    await site.client.create(PERSISTENT_VOLUME_CLAIMS, claim("data"))
    await site.until(PERSISTENT_VOLUME_CLAIMS, is_bound)
    await site.client.create(PODS, user("user"))
    await site.until(PODS, lambda pods: (pods.get("user", "default") or {"spec": {}})["spec"].get("nodeName"))
    await site.client.delete(PERSISTENT_VOLUME_CLAIMS, "data", "default")
    await site.client.delete(PERSISTENT_VOLUMES, "pv")
    left = await site.client.get(PERSISTENT_VOLUME_CLAIMS, "data", "default")
    assert left["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    assert left["metadata"]["deletionTimestamp"]
    await site.client.create(PODS, user("late"))
    text = 'persistentvolumeclaim "data" is being deleted'
    await site.until(PODS, lambda pods: text in str(pods.get("late", "default")))
    await site.client.delete(PODS, "user", "default", grace_period_s=0)
    await site.until(PERSISTENT_VOLUME_CLAIMS, lambda claims: not claims.list("default"))
    await site.until(PERSISTENT_VOLUMES, lambda volumes: not volumes.list())
