"""Module ``edged``: runs the pods that metamanager holds for this node, and reports the node.

Pods come from the edge's store and from its bus, never from the API server: with no cloud at all everything here goes on.

Errors  ProviderGone: metamanager is another one now, and edged begins anew with that; containers go on meanwhile. SwapIsOn.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final

import anyio

from edgesite.context import Context, Section
from edgesite.edge.edged.choice import choose_runtime
from edgesite.edge.edged.hostcheck import check_host, is_wanted
from edgesite.edge.edged.imagestore import EdgedImages, ImageStore
from edgesite.edge.edged.logs import EdgedLogs
from edgesite.edge.edged.machine import Machine
from edgesite.edge.edged.metrics import EdgedMetrics
from edgesite.edge.edged.parts import Parts, SwapIsOn
from edgesite.edge.edged.paths import Paths
from edgesite.edge.edged.reload import RELOADS, Reloader
from edgesite.edge.edged.runtime import Isolation, Runtime
from edgesite.edge.edged.server.source import LogSource
from edgesite.edge.edged.settings import EdgedSettings
from edgesite.edge.edged.staticpods import partition
from edgesite.edge.metamanager.meta import Meta
from edgesite.wire.message import InvalidMessage, Message, Operation

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from edgesite.edge.edged.pods import Pods
    from edgesite.edge.edged.staticpods import StaticPods

__all__ = ["Edged", "ProviderGone", "SwapIsOn"]

GROUP: Final = "edged"
PROVIDER_S: Final = 5.0  #: how long the next metamanager is waited for


class ProviderGone(RuntimeError):
    """What edged works with was withdrawn."""


class Edged:
    name: ClassVar[str] = "edged"
    roles: ClassVar[frozenset[str]] = frozenset({"edge"})
    needs: ClassVar[frozenset[str]] = frozenset({"metamanager"})
    section: ClassVar[str] = "modules.edged"
    reloads: ClassVar[frozenset[str]] = RELOADS

    def __init__(self) -> None:
        self._metrics: EdgedMetrics | None = None
        self._reloader: Reloader | None = None

    def enabled(self, settings: Section) -> bool:
        return bool(settings.modules.edged.enable)

    def reload(self, config: Section) -> None:
        """See `edgesite.context.Module`. Raises ValueError."""
        if self._reloader is not None:
            self._reloader.take(config)

    async def run(self, ctx: Context) -> None:
        try:
            await self._run(ctx)
        finally:
            self._reloader = None

    async def _run(self, ctx: Context) -> None:
        settings = EdgedSettings.of(ctx.config)
        given = ctx.services.find(Machine)  # type: ignore[type-abstract]
        if given is None and is_wanted(ctx.settings.get("modules") or {}, os.environ):
            await ctx.threads.run(check_host)
        folder = settings.root or ctx.data_dir / "edged"
        paths = Paths(folder, settings.logs_root or folder / "logs")
        await ctx.threads.run(_make_folders, paths)
        runtime = await choose_runtime(ctx, settings, folder)
        if runtime.isolation is Isolation.NONE:
            ctx.log.warning(
                "pods run as plain processes of this host: nothing isolates them from it or from each other. "
                "Install a container runtime with a CRI socket to have them in containers"
            )
        async with anyio.create_task_group() as tasks:
            started = anyio.Event()
            tasks.start_soon(runtime.run, started.set)
            await started.wait()
            await self._serve(ctx, settings, paths, runtime, tasks)

    async def _serve(
        self, ctx: Context, settings: EdgedSettings, paths: Paths, runtime: Runtime, tasks: TaskGroup
    ) -> None:
        metrics = self._metrics = self._metrics or EdgedMetrics(ctx.metrics)
        parts = Parts(ctx, settings, paths, runtime, metrics, tasks)
        await parts.prepare()
        agent, meta, pods = parts.agent, parts.meta, parts.pods
        ctx.health.add_check("container-runtime", lambda: agent.problem)
        ctx.services.provide(LogSource, EdgedLogs(pods, parts.services))  # type: ignore[type-abstract]
        ctx.services.provide(ImageStore, EdgedImages(runtime, parts.objects))  # type: ignore[type-abstract]
        self._reloader = Reloader(settings, parts.node, agent, parts.events, parts.upkeep)

        async def start() -> None:
            await parts.start()
            tasks.start_soon(_while_provided, ctx, meta)

        await self._follow(ctx, meta, pods, parts.static, start)

    async def _follow(
        self, ctx: Context, meta: Meta, pods: Pods, static: StaticPods, start: Callable[[], Awaitable[None]]
    ) -> None:
        """Load the pods that are wanted, ``start`` what looks after them, and take news of them until cancelled."""
        # Joined before the store is read, so that nothing falls between the two.
        inbox = ctx.bus.join(self.name, GROUP)
        try:
            await static.look()  # before what the cloud wants: else they would be taken for strays
            wanted, mirrors = partition(await meta.list("pod"))
            for mirror in mirrors:
                static.applied(mirror)
            pods.load(wanted)
            await start()
            ctx.ready()
            async for message in inbox:
                _take(message, pods, static, ctx)
        finally:
            inbox.close()


async def _while_provided(ctx: Context, meta: Meta) -> None:
    """Wait as long as the role offers this very Meta. Raises ProviderGone."""
    await ctx.services.replaced(Meta, meta)  # type: ignore[type-abstract]
    with anyio.move_on_after(PROVIDER_S):
        await ctx.services.replaced(Meta, None)  # type: ignore[type-abstract]
    raise ProviderGone("metamanager has ended; edged goes on with the next one")


def _take(message: Message, pods: Pods, static: StaticPods, ctx: Context) -> None:
    """Hand one message of the bus to whom it concerns. A broken one is logged and passed over."""
    parts = message.resource.split("/")
    kind = parts[1] if len(parts) >= 2 else ""
    try:
        if kind == "pod":
            obj = message.object()
            if message.operation == Operation.DELETE:
                gone = _named(obj, parts)
                if not static.removed(gone):
                    pods.removed(gone)
            elif message.operation in (Operation.INSERT, Operation.UPDATE, Operation.PATCH):
                (static if static.is_mirror(obj) else pods).applied(obj)
        elif kind == "persistentvolume":
            pods.volume_changed(message.object())
        elif kind == "persistentvolumeclaim" and len(parts) == 3:
            pods.claim_changed(parts[0], parts[2])
        elif kind in ("configmap", "secret") and len(parts) == 3:
            pods.object_changed(kind, parts[0], parts[2])
    except InvalidMessage as exc:
        ctx.log.warning("message=%s resource=%s cannot be used: %s", message.msg_id, message.resource, exc)


def _named(obj: dict[str, Any], parts: list[str]) -> dict[str, Any]:
    """A delete may carry no more than its resource string."""
    metadata = {"namespace": parts[0], "name": parts[2] if len(parts) > 2 else ""} | (obj.get("metadata") or {})
    return obj | {"metadata": metadata}


def _make_folders(paths: Paths) -> None:
    for folder in (paths.root, paths.pods, paths.logs):
        folder.mkdir(parents=True, exist_ok=True)
    paths.root.chmod(0o750)
