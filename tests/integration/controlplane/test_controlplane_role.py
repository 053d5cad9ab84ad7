"""The cloud role as the host runs it: over TLS from outside, through a crash of the API server, and stopped without a trace."""

import asyncio
import logging
import random

import anyio
import pytest

from edgesite.apiserver.module import ApiServerModule
from edgesite.client import Client, SharedInformers
from edgesite.client.kubeapi import KubeApiModule
from edgesite.context import Section, Settings
from edgesite.controlplane import plugin
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import CONFIG_MAPS, REPLICA_SETS, SERVICE_ACCOUNTS
from edgesite.net.real import RealClock, RealDisk, RealNet
from edgesite.net.threads import RealThreads
from edgesite.runtime.config.api import Api
from edgesite.runtime.plugins import PluginHost
from edgesite.runtime.role import RoleHost, World

pytestmark = pytest.mark.anyio


class Role:
    """A cloud role with nothing but API server and controllers."""

    def __init__(self, path, threads, **api):
        self.kubeconfig = path / "admin.kubeconfig"
        api = Section(Api(address="127.0.0.1:0", adminKubeconfig=str(self.kubeconfig), **api).model_dump())
        cloud = Section({"api": api})
        world = World(
            RealClock(), random.Random(1), RealNet(), threads, RealDisk(), PluginHost([]), {"version": "0.1.0"}
        )
        modules = [Breakable, *plugin.edgesite_modules(Settings(api=api, cloud=cloud))]
        self.world = world
        self.host = RoleHost("cloud", modules, cloud, world, data_dir=path / "cloud")

    def module(self, name):
        return next(one for one in self.host.running if one.module.name == name)


class Breakable(ApiServerModule):
    """The API server, which a test may let crash."""

    def __init__(self):
        super().__init__()
        self.broken = anyio.Event()

    async def run(self, ctx):
        self.broken = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._break)
            await super().run(ctx)

    async def _break(self):
        await self.broken.wait()
        raise OSError("the test says so")


def config_map(name):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}}


async def watched(client, resource, holds):
    """Wait until an object of a kind is as wanted."""
    with anyio.fail_after(60):
        found = await client.list(resource)
        for obj in found["items"]:
            if holds(obj):
                return obj
        async with client.watch(resource, resource_version=found["metadata"]["resourceVersion"]) as events:
            async for event in events:
                if holds(event.object):
                    return event.object
    raise AssertionError("the watch ended")


async def test_the_role_serves_controls_survives_a_crash_and_leaves_nothing(tmp_path, caplog):
    caplog.set_level(logging.CRITICAL, "edgesite")
    before = {task for task in asyncio.all_tasks() if not task.done()}
    threads = RealThreads()
    role = Role(tmp_path, threads)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(role.host.run)
        with anyio.fail_after(60):
            await role.host.ready.wait()
        client = role.host.services.get(Client)
        await watched(client, SERVICE_ACCOUNTS, lambda one: one["metadata"]["namespace"] == "default")
        old = role.host.services.get(SharedInformers)
        role.module("apiserver").module.broken.set()
        with anyio.fail_after(60):
            await old.ended.wait()
            client = await _provided(role, client)
        await client.create(CONFIG_MAPS, config_map("after"))
        await client.create(REPLICA_SETS, _replica_set())
        await watched(client, REPLICA_SETS, lambda one: one["status"].get("replicas") == 2)
        tasks.cancel_scope.cancel()
    await threads.close()
    assert {task for task in asyncio.all_tasks() if not task.done()} == before


async def _provided(role, old):
    """The client of the API server that was started anew, once it answers."""
    clock = RealClock()
    while True:
        client = role.host.services.find(Client)
        if client is not None and client is not old:
            return client
        await clock.sleep(0.05)


def _replica_set():
    labels = {"app": "x"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": "rs", "namespace": "default"},
        "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": template},
    }


async def test_a_second_role_works_on_the_first_ones_api_over_tls(tmp_path):
    threads = RealThreads()
    role = Role(tmp_path, threads)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(role.host.run)
        with anyio.fail_after(60):
            await role.host.ready.wait()
        section = {"kubeConfig": str(role.kubeconfig), "master": "", "qps": 100, "burst": 200}
        cloud = Section({"api": {"enable": False}, "kubeAPIConfig": section})
        assert plugin.edgesite_modules(Settings(api=cloud["api"], cloud=cloud)) == [KubeApiModule]
        remote = RoleHost("cloud", [KubeApiModule], cloud, role.world, data_dir=tmp_path / "remote")
        tasks.start_soon(remote.run)
        with anyio.fail_after(60):
            await remote.ready.wait()
        client, informers = remote.services.get(Client), remote.services.get(SharedInformers)
        maps = informers.of(CONFIG_MAPS, namespace="default")
        seen = anyio.Event()
        with anyio.fail_after(60), maps.add_handler(lambda obj: obj["metadata"]["name"] == "x" and seen.set()):
            await maps.wait_synced()
            await client.create(CONFIG_MAPS, config_map("x"))
            await seen.wait()
        assert maps.get("x", "default")["metadata"]["uid"]
        with pytest.raises(ApiError, match="already exists"):
            await client.create(CONFIG_MAPS, config_map("x"))
        await client.patch(CONFIG_MAPS, "x", {"data": {"a": "b"}}, "default", kind="strategic")
        assert (await client.get(CONFIG_MAPS, "x", "default"))["data"] == {"a": "b"}
        await client.delete(CONFIG_MAPS, "x", "default")
        tasks.cancel_scope.cancel()
    await threads.close()
