import anyio
import pytest

from edgesite.controlplane.garbagecollector.module import GarbageCollectorModule
from edgesite.controlplane.namespaces import NamespaceModule
from edgesite.controlplane.serviceaccounts import ServiceAccountModule
from edgesite.kube.resources import (
    BUILTIN,
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    NAMESPACES,
    NODES,
    PODS,
    REPLICA_SETS,
    SECRETS,
    SERVICE_ACCOUNTS,
    Resource,
)
from edgesite.testing.virtualtime import settle

pytestmark = pytest.mark.anyio
WIDGETS = Resource("example.com", "v1", "Widget", "widgets")


@pytest.fixture
def world(world):
    wanted = {
        CONFIG_MAPS,
        SECRETS,
        PODS,
        REPLICA_SETS,
        NAMESPACES,
        NODES,
        SERVICE_ACCOUNTS,
        CUSTOM_RESOURCE_DEFINITIONS,
    }
    world.api.served = tuple(one for one in BUILTIN if one in wanted)
    return world


def owned(owner, block=True, **more):
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "blockOwnerDeletion": block,
        **more,
    }


async def put(world, name, *owners, resource=CONFIG_MAPS, namespace="d", **meta):
    obj = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name, **meta}}
    if resource.namespaced:
        obj["metadata"]["namespace"] = namespace
    if owners:
        obj["metadata"]["ownerReferences"] = [one if "uid" in one else owned(one) for one in owners]
    return await world.client.create(resource, obj)


async def test_what_is_owned_goes_with_its_owner_through_all_kinds(world):
    async with world.running(GarbageCollectorModule):
        top = await put(world, "top")
        middle = await put(world, "middle", top, resource=SECRETS)
        await put(world, "leaf", middle)
        await put(world, "other")
        await settle()
        await world.client.delete(CONFIG_MAPS, "top", "d")
        await settle()
        assert sorted(world.all("configmaps")) == ["other"]
        assert world.all("secrets") == {}


async def test_one_owner_that_stays_is_enough_and_the_others_are_unlinked(world):
    async with world.running(GarbageCollectorModule):
        first, second = await put(world, "first"), await put(world, "second")
        await put(world, "leaf", first, second)
        await settle()
        await world.client.delete(CONFIG_MAPS, "first", "d")
        await settle()
        references = world.all("configmaps")["leaf"]["metadata"]["ownerReferences"]
        assert [one["name"] for one in references] == ["second"]


async def test_dangling_references_at_start_are_collected_and_live_owners_are_not(world):
    keeper = await put(world, "keeper")
    ghost = {**owned(keeper), "name": "ghost", "uid": "gone"}
    renewed = {**owned(keeper), "uid": "an-earlier-keeper"}
    await put(world, "dangling", ghost)
    await put(world, "of-an-earlier-one", renewed)
    await put(world, "kept", keeper)
    async with world.running(GarbageCollectorModule):
        await settle()
        assert sorted(world.all("configmaps")) == ["keeper", "kept"]


async def test_foreground_deletion_waits_for_what_blocks_it(world):
    async with world.running(GarbageCollectorModule):
        top = await put(world, "top")
        await put(world, "slow", top, finalizers=["test/slow"])
        await put(world, "free", owned(top, block=False))
        await settle()
        await world.client.delete(CONFIG_MAPS, "top", "d", propagation="Foreground")
        await settle()
        assert sorted(world.all("configmaps")) == ["slow", "top"]
        await world.client.patch(CONFIG_MAPS, "slow", {"metadata": {"finalizers": None}}, "d")
        await settle()
        assert world.all("configmaps") == {}


async def test_foreground_deletion_goes_down_before_it_goes_up(world):
    async with world.running(GarbageCollectorModule):
        top = await put(world, "top")
        middle = await put(world, "middle", top)
        await put(world, "leaf", middle, finalizers=["test/slow"])
        await settle()
        await world.client.delete(CONFIG_MAPS, "top", "d", propagation="Foreground")
        await settle()
        assert sorted(world.all("configmaps")) == ["leaf", "middle", "top"]
        await world.client.patch(CONFIG_MAPS, "leaf", {"metadata": {"finalizers": None}}, "d")
        await settle()
        assert world.all("configmaps") == {}


async def test_orphans_are_unlinked_and_stay(world):
    async with world.running(GarbageCollectorModule):
        top = await put(world, "top")
        await put(world, "leaf", top)
        await settle()
        await world.client.delete(CONFIG_MAPS, "top", "d", propagation="Orphan")
        await settle()
        assert sorted(world.all("configmaps")) == ["leaf"]
        assert not world.all("configmaps")["leaf"]["metadata"].get("ownerReferences")


async def test_an_owner_of_a_kind_that_is_not_served_proves_nothing(world):
    unknown = {"apiVersion": "example.com/v1", "kind": "Widget", "name": "w", "uid": "w"}
    namespaced = {"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "c"}
    await put(world, "leaf", unknown)
    await put(world, "node", namespaced, resource=NODES)
    async with world.running(GarbageCollectorModule):
        await anyio.sleep(300)
        assert sorted(world.all("configmaps")) == ["leaf"]
        assert sorted(world.all("nodes")) == ["node"]


async def test_kinds_that_are_defined_later_are_followed(world):
    async with world.running(GarbageCollectorModule):
        world.api.served = (*world.api.served, WIDGETS)
        await put(world, "widgets.example.com", resource=CUSTOM_RESOURCE_DEFINITIONS)
        await anyio.sleep(5)
        widget = await put(world, "w", resource=WIDGETS)
        await put(world, "leaf", widget)
        await settle()
        await world.client.delete(WIDGETS, "w", "d")
        await settle()
        assert world.all("configmaps") == {}


async def test_a_fresh_owner_that_the_cache_lacks_is_asked_for(world):
    async with world.running(GarbageCollectorModule):
        world.api.drop_watches(ConnectionResetError("cut"))
        top = await put(world, "top", resource=SECRETS)
        await put(world, "leaf", top)
        await anyio.sleep(30)
        assert sorted(world.all("configmaps")) == ["leaf"]


async def test_collection_survives_an_api_that_fails_now_and_then(world):
    async with world.running(GarbageCollectorModule):
        top = await put(world, "top")
        for number in range(10):
            await put(world, f"leaf-{number}", top)
        await settle()
        await world.client.delete(CONFIG_MAPS, "top", "d")
        world.api.fail(*[ConnectionResetError("cut")] * 15, only="DELETE")
        await anyio.sleep(120)
        assert world.all("configmaps") == {}


# --- namespaces and their accounts ---


async def test_a_namespace_is_emptied_then_finalized(world):
    async with world.running(NamespaceModule):
        await put(world, "shop", resource=NAMESPACES)
        await world.client.patch(NAMESPACES, "shop", {"spec": {"finalizers": ["kubernetes"]}})
        await put(world, "slow", namespace="shop", finalizers=["test/slow"])
        await put(world, "pod", namespace="shop", resource=PODS)
        await put(world, "elsewhere")
        await world.client.delete(NAMESPACES, "shop")
        await anyio.sleep(20)
        assert sorted(world.all("configmaps")) == ["elsewhere", "slow"]
        said = {one["type"]: one["message"] for one in world.all("namespaces")["shop"]["status"]["conditions"]}
        assert said["NamespaceContentRemaining"] == "Some resources are remaining: configmaps. has 1 resource instances"
        assert said["NamespaceFinalizersRemaining"] == (
            "Some content in the namespace has finalizers remaining: test/slow in 1 resource instances"
        )
        writes = len(world.api.writes)
        await world.client.patch(CONFIG_MAPS, "slow", {"metadata": {"finalizers": None}}, "shop")
        await anyio.sleep(10)
        assert world.all("namespaces") == {}
        assert len(world.api.writes) < writes + 6


async def test_each_namespace_has_its_default_account(world):
    await put(world, "shop", resource=NAMESPACES)
    async with world.running(ServiceAccountModule):
        await settle()
        assert [one["metadata"]["namespace"] for one in world.all("serviceaccounts").values()] == ["shop"]
        await world.client.delete(SERVICE_ACCOUNTS, "default", "shop")
        await settle()
        assert len(world.all("serviceaccounts")) == 1
