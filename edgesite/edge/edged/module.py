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
from edgesite.edge.edged.backoff import Backoff
from edgesite.edge.edged.choice import choose_runtime
from edgesite.edge.edged.clusterfacts import ClusterFacts
from edgesite.edge.edged.events import Events
from edgesite.edge.edged.hostcheck import check_host, is_wanted
from edgesite.edge.edged.images import Images
from edgesite.edge.edged.imagestore import EdgedImages, ImageStore
from edgesite.edge.edged.logs import EdgedLogs
from edgesite.edge.edged.machine import LinuxMachine, Machine
from edgesite.edge.edged.metrics import EdgedMetrics
from edgesite.edge.edged.node import NodeAgent
from edgesite.edge.edged.objects import Objects
from edgesite.edge.edged.paths import Paths
from edgesite.edge.edged.pleg import Pleg
from edgesite.edge.edged.plugins.assembly import NodePlugins
from edgesite.edge.edged.podgroups import PodGroups
from edgesite.edge.edged.pods import Pods
from edgesite.edge.edged.reload import RELOADS, Reloader
from edgesite.edge.edged.runtime import Isolation, Runtime
from edgesite.edge.edged.server.source import LogSource
from edgesite.edge.edged.serviceenv import api_service
from edgesite.edge.edged.services import NodeFacts, PodServices
from edgesite.edge.edged.settings import EdgedSettings
from edgesite.edge.edged.staticpods import StaticPods, partition
from edgesite.edge.edged.upkeep import Upkeep
from edgesite.edge.edged.userranges import UserRanges
from edgesite.edge.edged.volumes.images import ImageVolumes
from edgesite.edge.edged.volumes.subpaths import can_hold_read_only
from edgesite.edge.edgehub.link import Link
from edgesite.edge.metamanager.meta import Meta
from edgesite.wire.message import InvalidMessage, Message, Operation

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from edgesite.edge.edged.credentialplugins import CredentialPlugins

__all__ = ["Edged", "ProviderGone", "SwapIsOn"]

GROUP: Final = "edged"
PROVIDER_S: Final = 5.0  #: how long the next metamanager is waited for


class ProviderGone(RuntimeError):
    """What edged works with was withdrawn."""


class SwapIsOn(RuntimeError):
    """The configuration wants no swap on this host."""


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
        meta = ctx.services.get(Meta)  # type: ignore[type-abstract]
        machine: Machine = ctx.services.find(Machine) or LinuxMachine()  # type: ignore[type-abstract]
        node = NodeFacts(ctx.node_name, max_pods=settings.max_pods, allowed_sysctls=settings.allowed_sysctls)
        events = Events(meta, ctx.clock, ctx.node_name, ctx.log, rate=settings.event_rate, burst=settings.event_burst)
        agent = NodeAgent(ctx, settings, node, machine, runtime, meta, events, returned=lambda: pods.report_again())
        await agent.learn()
        if settings.fail_swap_on and node.swap_bytes:
            raise SwapIsOn("this host uses swap, and the configuration forbids that (failSwapOn)")
        objects = Objects(meta, lambda: (link := ctx.services.find(Link)) is None or link.own_peer)  # type: ignore[type-abstract]
        plugins = NodePlugins(
            ctx,
            settings,
            paths,
            meta,
            objects,
            running=lambda: [one.pod for one in pods.states() if not one.finished],
            beside=lambda *work: services.beside(*work),
            events=events,
            tell_in_use=agent.tell_volumes_in_use,
            node_changed=agent.report_soon,
        )
        node.devices = plugins.devices.amounts
        node.recursive_read_only = runtime.isolation is Isolation.CONTAINER and can_hold_read_only()
        node.volumes_in_use = plugins.csi.in_use
        metrics = self._metrics = self._metrics or EdgedMetrics(ctx.metrics)
        credentials = await _credential_plugins(ctx, settings)
        services = _pod_services(
            ctx,
            settings,
            paths,
            runtime,
            tasks,
            meta,
            node,
            events,
            objects,
            plugins,
            metrics,
            credentials,
            lambda: pods,
        )
        pods = Pods(services)
        pleg = Pleg(
            runtime,
            ctx.clock,
            ctx.random,
            ctx.log,
            changed=pods.listed,
            ended=pods.exited,
            healthy=agent.runtime_answers,
        )
        metrics.pods.set_function(lambda: len(list(pods.states())))
        metrics.runtime_up.set_function(lambda: float(agent.problem is None))
        ctx.health.add_check("container-runtime", lambda: agent.problem)
        ctx.services.provide(LogSource, EdgedLogs(pods, services))  # type: ignore[type-abstract]
        ctx.services.provide(ImageStore, EdgedImages(runtime, objects))  # type: ignore[type-abstract]
        upkeep = Upkeep(services, pods, machine, ctx.data_dir, changed=agent.report_soon, report=agent.report)
        self._reloader = Reloader(settings, node, agent, events, upkeep)
        await upkeep.prepare()
        static = StaticPods(services, pods, settings.static_pods)
        await plugins.load()

        async def start() -> None:
            for work in (static.run, agent.run, pleg.run):
                tasks.start_soon(work)
            upkeep.start()
            if ctx.folders is not None:
                in_containers = runtime.isolation is Isolation.CONTAINER
                await plugins.start(ctx.folders, pods.volumes_may_be_had, with_devices=in_containers)
            tasks.start_soon(_while_provided, ctx, meta)

        tasks.start_soon(events.run)
        await self._follow(ctx, meta, pods, static, start)

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


def _pod_services(
    ctx: Context,
    settings: EdgedSettings,
    paths: Paths,
    runtime: Runtime,
    tasks: TaskGroup,
    meta: Meta,
    node: NodeFacts,
    events: Events,
    objects: Objects,
    plugins: NodePlugins,
    metrics: EdgedMetrics,
    credentials: CredentialPlugins | None,
    pods: Callable[[], Pods],
) -> PodServices:
    """Put together what each pod's worker uses; ``pods`` is asked later, when there are any."""
    services = PodServices(
        settings=settings,
        node=node,
        runtime=runtime,
        meta=meta,
        objects=objects,
        cluster=ClusterFacts(
            objects,
            lambda *work: services.beside(*work),
            ctx.clock,
            api_service(ctx.settings, settings.master_namespace),
        ),
        events=events,
        images=Images(
            runtime,
            events,
            objects,
            ctx.clock,
            lambda *work: services.beside(*work),
            one_by_one=settings.serialize_image_pulls,
            plugins=credentials,
        ),
        csi=plugins.csi,
        devices=plugins.devices,
        image_volumes=ImageVolumes(runtime, paths, ctx.threads),
        cgroups=PodGroups(
            settings,
            node,
            runtime.isolation,
            ctx.threads,
            lambda: (one.pod for one in pods().states() if one.admitted and not one.finished),
            ctx.log,
        ),
        users=UserRanges(paths, ctx.threads),
        paths=paths,
        clock=ctx.clock,
        random=ctx.random,
        threads=ctx.threads,
        net=ctx.net,
        tasks=tasks,
        log=ctx.log,
        metrics=metrics,
        restarts=Backoff(),
        pods=lambda: pods().states(),
    )
    return services


async def _credential_plugins(ctx: Context, settings: EdgedSettings) -> CredentialPlugins | None:
    """Raises BadProviders, OSError."""
    if settings.credential_config is None or settings.credential_programs is None:
        return None
    from edgesite.edge.edged.credentialplugins import CredentialPlugins

    return await CredentialPlugins.of(
        settings.credential_config, settings.credential_programs, ctx.clock, ctx.threads, ctx.log
    )


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
