"""Pods and their volumes together: scheduler, binder, claims of pods' own, attachments, on an API in memory."""

import anyio
import pytest
from test_persistentvolumes import claim, create, on_node, volume
from test_scheduler_decisions import node, pod

from edgesite.controlplane.persistentvolumes.ephemeral import EphemeralVolumeModule
from edgesite.controlplane.persistentvolumes.module import PersistentVolumeModule
from edgesite.controlplane.scheduler.module import SchedulerModule
from edgesite.controlplane.volumeattachments.module import AttachModule, attachment_name
from edgesite.kube.resources import (
    CSI_DRIVERS,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    STORAGE_CLASSES,
    VOLUME_ATTACHMENTS,
)
from edgesite.testing.virtualtime import settle

pytestmark = pytest.mark.anyio


def kinded(obj, kind):
    return {"apiVersion": "v1", "kind": kind, **obj}


def storage_class(name, provisioner="kubernetes.io/no-provisioner", mode="WaitForFirstConsumer", **more):
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": provisioner,
        "volumeBindingMode": mode,
        **more,
    }


def user(name, claim_name="data", **more):
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": claim_name}}]
    return kinded(pod(name, volumes=volumes, **more), "Pod")


def place(world, name):
    return world.all("pods")[name]["spec"].get("nodeName")


def message(world, name):
    return world.all("pods")[name]["status"]["conditions"][0]["message"]


async def nodes(world, *names, **more):
    for name in names:
        await create(world, NODES, kinded(node(name, **more), "Node"))


async def test_a_pod_waits_for_its_claim_and_says_so(world):
    await nodes(world, "n1")
    async with world.running(SchedulerModule, PersistentVolumeModule):
        await create(world, PODS, user("p"))
        await settle()
        assert message(world, "p") == '0/1 nodes are available: persistentvolumeclaim "data" not found.'
        await create(world, PERSISTENT_VOLUME_CLAIMS, claim())
        await settle()
        text = "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."
        assert message(world, "p") == text
        await create(world, PERSISTENT_VOLUMES, volume("one"))
        await settle()
        assert place(world, "p") == "n1"


async def test_a_pod_follows_its_volume(world):
    await nodes(world, "n1", "n2")
    await create(world, PERSISTENT_VOLUMES, volume("one", nodeAffinity=on_node("n2")))
    async with world.running(SchedulerModule, PersistentVolumeModule):
        await create(world, PERSISTENT_VOLUME_CLAIMS, claim())
        await settle()
        await create(world, PODS, user("p"))
        await create(world, PODS, user("elsewhere", nodeSelector={"kubernetes.io/hostname": "n1"}))
        await settle()
        assert place(world, "p") == "n2"
        assert "1 node(s) didn't match PersistentVolume's node affinity" in message(world, "elsewhere")


async def test_pods_that_bind_at_first_use_never_count_on_one_volume(world):
    await nodes(world, "n1", "n2", "n3")
    await create(world, STORAGE_CLASSES, storage_class("local"))
    for name in ("n1", "n2"):
        await create(
            world, PERSISTENT_VOLUMES, volume(f"on-{name}", storageClassName="local", nodeAffinity=on_node(name))
        )
    async with world.running(SchedulerModule, PersistentVolumeModule):
        for name in ("a", "b", "c"):
            await create(world, PERSISTENT_VOLUME_CLAIMS, claim(name, storageClassName="local"))
            await create(world, PODS, user(f"p-{name}", name))
        await anyio.sleep(15)  # two may have chosen the same node: one of them looks again after its back-off
        placed = {name: place(world, f"p-{name}") for name in ("a", "b", "c")}
        assert sorted(one for one in placed.values() if one) == ["n1", "n2"]
        claims = world.all("persistentvolumeclaims")
        for name, where in placed.items():
            if where:
                assert claims[name]["spec"]["volumeName"] == f"on-{where}"
        (late,) = [name for name, where in placed.items() if where is None]
        await create(world, PERSISTENT_VOLUMES, volume("on-n3", storageClassName="local", nodeAffinity=on_node("n3")))
        await anyio.sleep(15)
        assert place(world, f"p-{late}") == "n3"


async def test_a_provisioner_is_told_of_the_node_and_its_volume_taken(world):
    topology = [{"matchLabelExpressions": [{"key": "kubernetes.io/hostname", "values": ["n2"]}]}]
    await nodes(world, "n1", "n2")
    await create(world, STORAGE_CLASSES, storage_class("made", "folders.test", allowedTopologies=topology))
    async with world.running(SchedulerModule, PersistentVolumeModule):
        await create(world, PERSISTENT_VOLUME_CLAIMS, claim(storageClassName="made"))
        await settle()
        assert "annotations" not in world.all("persistentvolumeclaims")["data"]["metadata"]
        await create(world, PODS, user("p"))
        await settle()
        marked = world.all("persistentvolumeclaims")["data"]["metadata"]
        assert marked["annotations"] == {
            "volume.kubernetes.io/selected-node": "n2",
            "volume.kubernetes.io/storage-provisioner": "folders.test",
            "volume.beta.kubernetes.io/storage-provisioner": "folders.test",
        }
        assert place(world, "p") is None
        reference = {"namespace": "d", "name": "data", "uid": marked["uid"]}
        await create(world, PERSISTENT_VOLUMES, volume("made-1", storageClassName="made", claimRef=reference))
        await settle()
        assert world.all("persistentvolumeclaims")["data"]["spec"]["volumeName"] == "made-1"
        assert place(world, "p") in ("n1", "n2")


async def test_extended_resources_are_counted(world):
    made = node("n1")
    made["status"]["allocatable"]["example.com/gpu"] = "1"
    await create(world, NODES, kinded(made, "Node"))

    def wanting(name):
        obj = kinded(pod(name), "Pod")
        obj["spec"]["containers"][0]["resources"] = {"requests": {"example.com/gpu": "1"}}
        return obj

    async with world.running(SchedulerModule):
        await create(world, PODS, wanting("first"))
        await settle()
        await create(world, PODS, wanting("second"))
        await settle()
        assert place(world, "first") == "n1"
        assert "1 Insufficient example.com/gpu" in message(world, "second")


async def test_claims_of_a_pods_own_are_made_and_owned(world):
    await nodes(world, "n1")
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"accessModes": ["ReadWriteOnce"]}}
    async with world.running(EphemeralVolumeModule):
        spec = {"volumes": [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}]}
        made = await create(world, PODS, kinded(pod("p", **spec), "Pod"))
        await settle()
        found = world.all("persistentvolumeclaims")["p-scratch"]
        assert found["spec"] == template["spec"]
        assert found["metadata"]["labels"] == {"a": "b"}
        (owner,) = found["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"], owner["controller"]) == ("Pod", made["metadata"]["uid"], True)


async def test_volumes_are_attached_where_pods_need_them_and_detached_after_them(world):
    await nodes(world, "n1", "n2")
    driver = {"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": "plain"}}
    await create(world, CSI_DRIVERS, {**driver, "spec": {"attachRequired": False}})
    for name, by in (("data", "disks.test"), ("plain", "plain")):
        source = {"driver": by, "volumeHandle": f"h-{name}"}
        made = volume(f"pv-{name}", csi=source, claimRef={"namespace": "d", "name": name})
        del made["spec"]["hostPath"]
        await create(world, PERSISTENT_VOLUMES, made)
    async with world.running(PersistentVolumeModule, AttachModule):
        for name in ("data", "plain"):
            await create(world, PERSISTENT_VOLUME_CLAIMS, claim(name))
            await create(world, PODS, user(f"p-{name}", name, on="n2"))
        await settle()
        (found,) = world.all("volumeattachments").values()
        assert found["metadata"]["name"] == attachment_name("h-data", "disks.test", "n2")
        source = {"persistentVolumeName": "pv-data"}
        assert found["spec"] == {"attacher": "disks.test", "nodeName": "n2", "source": source}
        await world.client.delete(PODS, "p-data", "d", grace_period_s=0)
        await settle()
        assert world.all("volumeattachments") == {}


async def test_a_claim_of_one_pod_keeps_others_waiting_whoever_gives_way(world):
    await nodes(world, "n1")
    await create(world, PERSISTENT_VOLUMES, volume("pv", modes=("ReadWriteOncePod",)))
    text = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
    async with world.running(SchedulerModule, PersistentVolumeModule):
        await create(world, PERSISTENT_VOLUME_CLAIMS, claim(modes=("ReadWriteOncePod",)))
        await create(world, PODS, user("first"))
        await settle()
        assert place(world, "first")
        await create(world, PODS, user("second"))
        await settle()
        assert place(world, "second") is None
        assert f"0/1 nodes are available: 1 {text}. preemption: " in message(world, "second")
        await create(world, PODS, user("urgent", priority=100))
        await settle()
        await anyio.sleep(20)
        assert "first" not in world.all("pods")  # it has been preempted
        assert place(world, "urgent")
        assert place(world, "second") is None
        await world.client.patch(
            PODS, "urgent", {"status": {"phase": "Succeeded"}}, "d", subresource="status", kind="merge"
        )
        await anyio.sleep(20)
        assert place(world, "second")


async def test_a_node_is_told_what_is_attached_and_detaching_never_meets_a_node_that_begins(world):
    await nodes(world, "n1")
    source = {"driver": "disks.test", "volumeHandle": "h"}
    made = volume("pv", csi=source, claimRef={"namespace": "d", "name": "data"})
    del made["spec"]["hostPath"]
    await create(world, PERSISTENT_VOLUMES, made)
    await create(world, PERSISTENT_VOLUME_CLAIMS, claim())
    name = "kubernetes.io/csi/disks.test^h"

    def usable():
        return [one["name"] for one in world.all("nodes")["n1"]["status"].get("volumesAttached") or ()]

    async def attach():
        (found,) = world.all("volumeattachments").values()
        patch = {"status": {"attached": True}}
        await world.client.patch(
            VOLUME_ATTACHMENTS, found["metadata"]["name"], patch, subresource="status", kind="merge"
        )
        await settle()

    async with world.running(PersistentVolumeModule, AttachModule):
        await create(world, PODS, user("p", on="n1"))
        await settle()
        assert usable() == []
        await attach()
        assert usable() == [name]
        await world.client.patch(NODES, "n1", {"status": {"volumesAttached": None}}, subresource="status", kind="merge")
        await settle()
        assert usable() == [name]  # whoever took it away

        # The node begins in the moment in which the volume is to be detached: its word comes first, and counts.
        told, request = [], world.api.request

        async def meanwhile(method, target, headers, body=b""):
            if method == "PUT" and target.endswith("/nodes/n1/status") and not told:
                told.append(name)
                patch = {"status": {"volumesInUse": [name]}}
                await world.client.patch(NODES, "n1", patch, subresource="status", kind="merge")
            return await request(method, target, headers, body)

        world.api.request = meanwhile
        await world.client.delete(PODS, "p", "d", grace_period_s=0)
        await anyio.sleep(60)
        assert told
        assert usable() == [name]
        assert len(world.all("volumeattachments")) == 1
        await world.client.patch(NODES, "n1", {"status": {"volumesInUse": None}}, subresource="status", kind="merge")
        await anyio.sleep(60)
        assert (usable(), world.all("volumeattachments")) == ([], {})


async def test_a_volume_that_a_node_still_uses_stays_attached(world):
    await nodes(world, "n1", "n2")
    source = {"driver": "disks.test", "volumeHandle": "h"}
    made = volume("pv", csi=source, claimRef={"namespace": "d", "name": "data"})
    del made["spec"]["hostPath"]
    await create(world, PERSISTENT_VOLUMES, made)
    await create(world, PERSISTENT_VOLUME_CLAIMS, claim())

    async def tell(name, ready, *in_use):
        conditions = [{"type": "Ready", "status": ready}]
        patch = {"status": {"conditions": conditions, "volumesInUse": [f"kubernetes.io/csi/{one}" for one in in_use]}}
        await world.client.patch(NODES, name, patch, subresource="status", kind="merge")

    def attached():
        return sorted(one["spec"]["nodeName"] for one in world.all("volumeattachments").values())

    async with world.running(PersistentVolumeModule, AttachModule):
        for name in ("n1", "n2"):
            await create(world, PODS, user(f"p-{name}", on=name))
            await tell(name, "True", "disks.test^h")
        await settle()
        assert attached() == ["n1", "n2"]
        await world.client.delete(PODS, "p-n1", "d", grace_period_s=0)  # by force: the node has not let go of it
        await world.client.patch(
            PODS, "p-n2", {"status": {"phase": "Succeeded"}}, "d", subresource="status", kind="merge"
        )
        await anyio.sleep(1000)
        assert attached() == ["n1", "n2"]
        await tell("n1", "True")
        await settle()
        assert attached() == ["n2"]
        await tell("n2", "Unknown", "disks.test^h")
        await anyio.sleep(300)
        assert attached() == ["n2"]
        await anyio.sleep(500)
        assert attached() == []
