import pytest

from edgesite.controlplane.persistentvolumes.matching import choose
from edgesite.controlplane.persistentvolumes.module import PersistentVolumeModule
from edgesite.kube.resources import NODES, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, STORAGE_CLASSES
from edgesite.testing.virtualtime import settle

pytestmark = pytest.mark.anyio


def volume(name, size="1Gi", *, modes=("ReadWriteOnce",), phase="Available", labels=None, **spec):
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {
            "capacity": {"storage": size},
            "accessModes": list(modes),
            "hostPath": {"path": f"/data/{name}"},
            **spec,
        },
        "status": {"phase": phase},
    }


def claim(name="data", size="1Gi", *, modes=("ReadWriteOnce",), **spec):
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "d", "uid": f"uid-{name}"},
        "spec": {"accessModes": list(modes), "resources": {"requests": {"storage": size}}, **spec},
    }


def on_node(name):
    expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": [name]}
    return {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (claim(), "b-small"),
        (claim(size="2Gi"), "shared"),
        (claim(size="50Gi"), None),
        (claim(modes=("ReadWriteMany",)), "shared"),
        (claim(storageClassName="fast"), "fast"),
        (claim(selector={"matchLabels": {"disk": "ssd"}}), "labelled"),
        (claim(selector={"matchLabels": {"disk": "tape"}}), None),
        (claim("kept"), "for-kept"),
        (claim(volumeMode="Block"), None),
    ],
)
def test_the_smallest_that_suffices(wanted, found):
    volumes = [
        volume("a-large", "10Gi"),
        volume("b-small"),
        volume("c-small", "1Gi"),
        volume("shared", "5Gi", modes=("ReadWriteOnce", "ReadWriteMany")),
        volume("fast", storageClassName="fast"),
        volume("labelled", "20Gi", labels={"disk": "ssd"}),
        volume("for-kept", "1Mi", claimRef={"namespace": "d", "name": "kept"}),
        volume("released", "1Ki", phase="Released", claimRef={"namespace": "d", "name": "data", "uid": "another"}),
        volume("failed", "1Gi", phase="Failed"),
    ]
    chosen = choose(wanted, volumes)
    assert (chosen and chosen["metadata"]["name"]) == found


async def create(world, resource, obj):
    obj = {**obj, "metadata": {key: value for key, value in obj["metadata"].items() if key != "uid"}}
    return await world.client.create(resource, obj)


async def test_a_claim_and_a_volume_are_bound_and_the_volume_is_released_after_it(world):
    async with world.running(PersistentVolumeModule):
        await create(world, PERSISTENT_VOLUME_CLAIMS, claim())
        await settle()
        assert world.all("persistentvolumeclaims")["data"]["status"] == {"phase": "Pending"}
        await create(world, PERSISTENT_VOLUMES, volume("one", "3Gi", phase=""))
        await settle()
        bound, pv = world.all("persistentvolumeclaims")["data"], world.all("persistentvolumes")["one"]
        assert bound["spec"]["volumeName"] == "one"
        assert bound["status"] == {"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "3Gi"}}
        assert bound["metadata"]["annotations"] == {
            "pv.kubernetes.io/bind-completed": "yes",
            "pv.kubernetes.io/bound-by-controller": "yes",
        }
        assert pv["status"]["phase"] == "Bound"
        assert pv["spec"]["claimRef"]["uid"] == bound["metadata"]["uid"]
        await world.client.delete(PERSISTENT_VOLUME_CLAIMS, "data", "d")
        await settle()
        assert world.all("persistentvolumes")["one"]["status"]["phase"] == "Released"
        await create(world, PERSISTENT_VOLUME_CLAIMS, claim("data"))  # another one of the same name
        await settle()
        assert world.all("persistentvolumeclaims")["data"]["status"]["phase"] == "Pending"


async def test_two_claims_never_get_one_volume(world):
    async with world.running(PersistentVolumeModule):
        await create(world, PERSISTENT_VOLUMES, volume("one"))
        await create(world, PERSISTENT_VOLUME_CLAIMS, claim("first"))
        await create(world, PERSISTENT_VOLUME_CLAIMS, claim("second"))
        await settle()
        phases = sorted(one["status"]["phase"] for one in world.all("persistentvolumeclaims").values())
        assert phases == ["Bound", "Pending"]


async def test_a_bind_that_was_cut_off_goes_on(world):
    made = await create(world, PERSISTENT_VOLUME_CLAIMS, claim())
    reference = {"namespace": "d", "name": "data", "uid": made["metadata"]["uid"]}
    await create(world, PERSISTENT_VOLUMES, volume("a-other"))
    await create(world, PERSISTENT_VOLUMES, volume("one", "9Gi", claimRef=reference))
    async with world.running(PersistentVolumeModule):
        await settle()
        assert world.all("persistentvolumeclaims")["data"]["spec"]["volumeName"] == "one"


async def test_a_class_that_waits_for_its_first_use_takes_a_volume_of_the_pods_node(world):
    storage_class = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "local"},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    await create(world, STORAGE_CLASSES, storage_class)
    for name in ("n1", "n2"):
        labels = {"kubernetes.io/hostname": name}
        await create(world, NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}})
        pv = volume(f"on-{name}", storageClassName="local", nodeAffinity=on_node(name))
        await create(world, PERSISTENT_VOLUMES, pv)
    async with world.running(PersistentVolumeModule):
        await create(world, PERSISTENT_VOLUME_CLAIMS, claim(storageClassName="local"))
        await settle()
        assert world.all("persistentvolumeclaims")["data"]["status"]["phase"] == "Pending"
        spec = {"nodeName": "n2", "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "d"}, "spec": spec}
        await create(world, PODS, pod)
        await settle()
        assert world.all("persistentvolumeclaims")["data"]["spec"]["volumeName"] == "on-n2"


async def test_a_claim_that_wants_more_says_who_has_to_make_its_volume_larger(world):
    disk = volume(
        "pv-disk", csi={"driver": "disks.test", "volumeHandle": "h"}, claimRef={"namespace": "d", "name": "disk"}
    )
    del disk["spec"]["hostPath"]
    await create(world, PERSISTENT_VOLUMES, disk)
    await create(world, PERSISTENT_VOLUMES, volume("pv-folder", claimRef={"namespace": "d", "name": "folder"}))
    async with world.running(PersistentVolumeModule):
        for name in ("disk", "folder"):
            await create(world, PERSISTENT_VOLUME_CLAIMS, claim(name))
        await settle()
        for name in ("disk", "folder"):
            patch = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
            await world.client.patch(PERSISTENT_VOLUME_CLAIMS, name, patch, "d", kind="merge")
        await settle()
        told = {
            one["involvedObject"]["name"]: one
            for one in world.all("events").values()
            if one["reason"] == "ExternalExpanding"
        }
    assert (told["disk"]["type"], told["disk"]["message"]) == (
        "Normal",
        "waiting for an external controller to expand this PVC",
    )
    assert told["folder"]["type"] == "Warning"
