"""The parts of edged, put together: who looks after what, and who tells whom.

Errors  SwapIsOn; LookupError without metamanager; BadProviders and OSError of plugins for credentials.
State   The parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesite.edge.edged.backoff import Backoff
from edgesite.edge.edged.clusterfacts import ClusterFacts
from edgesite.edge.edged.events import Events
from edgesite.edge.edged.images import Images
from edgesite.edge.edged.machine import LinuxMachine, Machine
from edgesite.edge.edged.node import NodeAgent
from edgesite.edge.edged.objects import Objects
from edgesite.edge.edged.pleg import Pleg
from edgesite.edge.edged.plugins.assembly import NodePlugins
from edgesite.edge.edged.podgroups import PodGroups
from edgesite.edge.edged.pods import Pods
from edgesite.edge.edged.runtime import Isolation, Runtime
from edgesite.edge.edged.serviceenv import api_service
from edgesite.edge.edged.services import NodeFacts, PodServices
from edgesite.edge.edged.staticpods import StaticPods
from edgesite.edge.edged.upkeep import Upkeep
from edgesite.edge.edged.userranges import UserRanges
from edgesite.edge.edged.volumes.images import ImageVolumes
from edgesite.edge.edged.volumes.subpaths import can_hold_read_only
from edgesite.edge.edgehub.link import Link
from edgesite.edge.metamanager.meta import Meta

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio.abc import TaskGroup

    from edgesite.context import Context
    from edgesite.edge.edged.credentialplugins import CredentialPlugins
    from edgesite.edge.edged.metrics import EdgedMetrics
    from edgesite.edge.edged.paths import Paths
    from edgesite.edge.edged.settings import EdgedSettings

__all__ = ["Parts", "SwapIsOn"]


class SwapIsOn(RuntimeError):
    """The configuration wants no swap on this host."""


class Parts:
    """``tasks`` is what all of them work in. `prepare` makes them, `start` lets those work that need no pods to be known."""

    services: PodServices
    pods: Pods
    static: StaticPods
    upkeep: Upkeep

    def __init__(
        self,
        ctx: Context,
        settings: EdgedSettings,
        paths: Paths,
        runtime: Runtime,
        metrics: EdgedMetrics,
        tasks: TaskGroup,
    ) -> None:
        """Raises LookupError without metamanager."""
        self._ctx, self._settings, self._paths, self._runtime = ctx, settings, paths, runtime
        self._metrics, self._tasks = metrics, tasks
        self.meta = ctx.services.get(Meta)  # type: ignore[type-abstract]
        self._machine: Machine = ctx.services.find(Machine) or LinuxMachine()  # type: ignore[type-abstract]
        self.node = NodeFacts(ctx.node_name, max_pods=settings.max_pods, allowed_sysctls=settings.allowed_sysctls)
        self.events = Events(
            self.meta, ctx.clock, ctx.node_name, ctx.log, rate=settings.event_rate, burst=settings.event_burst
        )
        self.agent = NodeAgent(
            ctx,
            settings,
            self.node,
            self._machine,
            runtime,
            self.meta,
            self.events,
            returned=lambda: self.pods.report_again(),
        )
        self.objects = Objects(self.meta, lambda: (link := ctx.services.find(Link)) is None or link.own_peer)  # type: ignore[type-abstract]
        self.plugins = self._node_plugins()

    async def prepare(self) -> None:
        """Make what needs to know the node. Raises SwapIsOn, BadProviders, OSError."""
        ctx, settings, node = self._ctx, self._settings, self.node
        await self.agent.learn()
        if settings.fail_swap_on and node.swap_bytes:
            raise SwapIsOn("this host uses swap, and the configuration forbids that (failSwapOn)")
        node.devices = self.plugins.devices.amounts
        node.recursive_read_only = self._runtime.isolation is Isolation.CONTAINER and can_hold_read_only()
        node.volumes_in_use = self.plugins.csi.in_use
        self.services = self._pod_services(await self._credential_plugins())
        self.pods = Pods(self.services)
        self._metrics.pods.set_function(lambda: len(list(self.pods.states())))
        self._metrics.runtime_up.set_function(lambda: float(self.agent.problem is None))
        self.upkeep = Upkeep(
            self.services,
            self.pods,
            self._machine,
            ctx.data_dir,
            changed=self.agent.report_soon,
            report=self.agent.report,
        )
        await self.upkeep.prepare()
        self.static = StaticPods(self.services, self.pods, settings.static_pods)
        await self.plugins.load()
        self._tasks.start_soon(self.events.run)

    async def start(self) -> None:
        """Look after the pods, which are known by now."""
        ctx = self._ctx
        pleg = Pleg(
            self._runtime,
            ctx.clock,
            ctx.random,
            ctx.log,
            changed=self.pods.listed,
            ended=self.pods.exited,
            healthy=self.agent.runtime_answers,
        )
        for work in (self.static.run, self.agent.run, pleg.run):
            self._tasks.start_soon(work)
        self.upkeep.start()
        if ctx.folders is not None:
            in_containers = self._runtime.isolation is Isolation.CONTAINER
            await self.plugins.start(ctx.folders, self.pods.volumes_may_be_had, with_devices=in_containers)

    def _beside(self, function: Callable[..., Awaitable[object]], *args: object) -> None:
        self.services.beside(function, *args)

    def _node_plugins(self) -> NodePlugins:
        return NodePlugins(
            self._ctx,
            self._settings,
            self._paths,
            self.meta,
            self.objects,
            running=lambda: [one.pod for one in self.pods.states() if not one.finished],
            beside=self._beside,
            events=self.events,
            tell_in_use=self.agent.tell_volumes_in_use,
            node_changed=self.agent.report_soon,
        )

    def _pod_services(self, credentials: CredentialPlugins | None) -> PodServices:
        """What each pod's worker uses."""
        ctx, settings, runtime, threads = self._ctx, self._settings, self._runtime, self._ctx.threads
        api = api_service(ctx.settings, settings.master_namespace)
        return PodServices(
            settings=settings,
            node=self.node,
            runtime=runtime,
            meta=self.meta,
            objects=self.objects,
            cluster=ClusterFacts(self.objects, self._beside, ctx.clock, api),
            events=self.events,
            images=Images(
                runtime,
                self.events,
                self.objects,
                ctx.clock,
                self._beside,
                one_by_one=settings.serialize_image_pulls,
                plugins=credentials,
            ),
            csi=self.plugins.csi,
            devices=self.plugins.devices,
            image_volumes=ImageVolumes(runtime, self._paths, threads),
            cgroups=PodGroups(
                settings,
                self.node,
                runtime.isolation,
                threads,
                lambda: (one.pod for one in self.pods.states() if one.admitted and not one.finished),
                ctx.log,
            ),
            users=UserRanges(self._paths, threads),
            paths=self._paths,
            clock=ctx.clock,
            random=ctx.random,
            threads=threads,
            net=ctx.net,
            tasks=self._tasks,
            log=ctx.log,
            metrics=self._metrics,
            restarts=Backoff(),
            pods=lambda: self.pods.states(),
        )

    async def _credential_plugins(self) -> CredentialPlugins | None:
        """Raises BadProviders, OSError."""
        settings, ctx = self._settings, self._ctx
        if settings.credential_config is None or settings.credential_programs is None:
            return None
        from edgesite.edge.edged.credentialplugins import CredentialPlugins

        return await CredentialPlugins.of(
            settings.credential_config, settings.credential_programs, ctx.clock, ctx.threads, ctx.log
        )
