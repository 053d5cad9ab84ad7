"""What every controller of the control plane works with, and the module that runs one.

State   None of its own: informers come from the role's `SharedInformers`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import anyio

from edgesite.client import Client, EventRecorder, SharedInformers

if TYPE_CHECKING:
    from edgesite.context import Context, Section

__all__ = ["Cluster", "ControlPlaneModule", "InformersModule", "ProviderGone", "has_embedded_api", "open_cluster"]

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cluster:
    """The API as one controller sees it: its client, the caches, its events, and the world outside (`ctx`)."""

    ctx: Context
    client: Client
    informers: SharedInformers
    recorder: EventRecorder


class ControlPlaneModule:
    """A controller as a module: runs with the embedded API server only, a real cluster has its own."""

    name: ClassVar[str]
    roles: ClassVar[frozenset[str]] = frozenset({"cloud"})
    needs: ClassVar[frozenset[str]] = frozenset({"apiserver", "informers"})
    section: ClassVar[str] = ""
    component: ClassVar[str]  #: who writes and who is the source of events: "deployment-controller"

    def enabled(self, settings: Section) -> bool:
        return has_embedded_api(settings) and is_switched_on(settings, self.name)

    async def run(self, ctx: Context) -> None:
        """Control until cancelled."""
        async with open_cluster(ctx, self.component) as cluster:
            await self.control(cluster, ctx.ready)

    async def control(self, cluster: Cluster, ready: Callable[[], None]) -> None:
        """Call ``ready`` when the caches are full, then control until cancelled."""
        raise NotImplementedError


class ProviderGone(RuntimeError):
    """What a module works with has ended; started again it finds the new one."""


class InformersModule:
    """Runs the role's shared informers, where whoever provides the client does not."""

    name: ClassVar[str] = "informers"
    roles: ClassVar[frozenset[str]] = frozenset({"cloud"})
    needs: ClassVar[frozenset[str]] = frozenset({"apiserver"})
    section: ClassVar[str] = ""

    def enabled(self, settings: Section) -> bool:
        return has_embedded_api(settings)

    async def run(self, ctx: Context) -> None:
        """Keep the caches until cancelled. Raises ProviderGone when the API server has been started anew."""
        if (provided := ctx.services.find(SharedInformers)) is not None:
            ctx.ready()
            await provided.ended.wait()
            raise ProviderGone("the shared informers have ended")
        client = ctx.services.get(Client)
        gone = anyio.Event()

        def look() -> None:
            """A failed watch may mean that the server behind it is another one by now."""
            if ctx.services.find(Client) is not client:
                gone.set()

        async with anyio.create_task_group() as tasks:
            informers = SharedInformers(client.named("edgesite"), ctx.clock, ctx.random, ctx.log, look)
            tasks.start_soon(informers.run)
            ctx.services.provide(SharedInformers, informers)
            ctx.ready()
            await gone.wait()
            raise ProviderGone("the API server has been started anew")


def has_embedded_api(settings: Section) -> bool:
    """Whether the cloud role's configuration asks for the embedded API server."""
    api = settings.get("api")
    return bool(api is not None and api.get("enable", True))


def is_switched_on(settings: Section, module: str) -> bool:
    """Whether the configuration does not switch that module off; its section has the module's name, in KubeEdge's capitals."""
    sections = (one for name, one in settings.get("modules", {}).items() if name.lower() == module)
    return all(one.get("enable", True) for one in sections)


@asynccontextmanager
async def open_cluster(ctx: Context, component: str) -> AsyncIterator[Cluster]:
    """Connect to the role's API server, with informers shared where the role offers them, and a running event recorder."""
    client = ctx.services.get(Client).named(component)
    recorder = EventRecorder(client, component, ctx.clock)
    async with anyio.create_task_group() as tasks:
        informers = ctx.services.find(SharedInformers)
        if informers is None:
            informers = SharedInformers(client, ctx.clock, ctx.random)
            tasks.start_soon(informers.run, name=f"{component}: informers")
        tasks.start_soon(recorder.run, name=f"{component}: events")
        tasks.start_soon(_end_with, informers)
        yield Cluster(ctx, client, informers, recorder)
        tasks.cancel_scope.cancel()


async def _end_with(informers: SharedInformers) -> None:
    await informers.ended.wait()
    raise ProviderGone("the shared informers have ended")
