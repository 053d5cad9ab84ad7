"""A control plane under virtual time on a small API in memory."""

import logging
import random
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from prometheus_client import CollectorRegistry

from edgesite.client import Client, SharedInformers
from edgesite.context import Context, Section
from edgesite.runtime.services import LocalServices
from edgesite.testing.fakeapi import FakeApi
from edgesite.testing.virtualtime import VirtualClock, VirtualLoop, settle


@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": VirtualLoop}


class World:
    """Runs controllers against the API in memory."""

    def __init__(self):
        self.clock = VirtualClock()
        self.random = random.Random(11)
        self.api = FakeApi(now=lambda: _stamp(self.clock.time()))
        self.client = Client(self.api, component="test")
        self.services = LocalServices()
        self.services.provide(Client, self.client)
        self.config = Section({})  #: of the modules that are started
        self.modules = []  #: that run

    def context(self, name, ready):
        return Context(
            role="cloud",
            module=name,
            node_name="",
            config=self.config,
            settings=Section({"api": {"enable": True}}),
            data_dir=Path("/nonexistent"),
            clock=self.clock,
            random=self.random,
            net=None,
            threads=None,
            disk=None,
            bus=None,
            services=self.services,
            health=None,
            metrics=CollectorRegistry(),
            log=logging.getLogger(f"edgesite.{name}"),
            hooks=None,
            ready=ready,
        )

    @asynccontextmanager
    async def running(self, *modules):
        """Run modules until the block ends; all are ready when it begins."""
        informers = SharedInformers(self.client, self.clock, self.random)
        self.services.provide(SharedInformers, informers)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(informers.run)
            for kind in modules:
                ready = anyio.Event()
                self.modules.append(kind())
                tasks.start_soon(self.modules[-1].run, self.context(kind.name, ready.set))
                await ready.wait()
            await settle()
            yield
            tasks.cancel_scope.cancel()
        self.services.withdraw(SharedInformers)

    def all(self, plural):
        """Objects of a kind, by name."""
        found = {}
        for path, obj in self.api.objects.items():
            if path.split("/")[-2] == plural:
                found[obj["metadata"]["name"]] = obj
        return found

    def writes(self, plural):
        return [write for write in self.api.writes if f"/{plural}/" in write[1] + "/"]


def _stamp(seconds):
    from edgesite.kube.times import format_time

    return format_time(seconds)


@pytest.fixture
def world():
    return World()
