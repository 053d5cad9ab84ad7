"""The module ``metaserver``: serves the Kubernetes API to programs on this node.

    http://127.0.0.1:10550                 KubeEdge's default: no authentication, so that every local process may do what the cloud lets this node do
    https://, on that and ``dummyServer``  with feature gate requireAuthorization: bearer tokens (`guard`)

Ready without a link: what is kept on disk is served then. Told to stop, it takes nothing new, ends watches in order and lets requests under way
come to their end for `GRACE_S`.

Source  KubeEdge v1.12.7, edge/pkg/metamanager/metaserver (address, gate); v1.17 (dummyServer).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, Final

import anyio
from prometheus_client import CollectorRegistry, Gauge

from edgesite.edge.metamanager.replica import KindKey, Replica
from edgesite.edge.metamanager.schema import meta_v2_key
from edgesite.edge.metaserver.cloudlink import CloudLink, Phase
from edgesite.edge.metaserver.documents import Documents
from edgesite.edge.metaserver.guard import Guard, Open, TokenGuard
from edgesite.edge.metaserver.hosts import Hosts
from edgesite.edge.metaserver.issuer import IssuerKeys
from edgesite.edge.metaserver.kubeedge import KubeEdgeCloud
from edgesite.edge.metaserver.listeners import plain, serve
from edgesite.edge.metaserver.memory import Memory
from edgesite.edge.metaserver.nodepods import NodePods
from edgesite.edge.metaserver.printers import Printers
from edgesite.edge.metaserver.reads import Reads
from edgesite.edge.metaserver.scopes import Scopes
from edgesite.edge.metaserver.server import MetaApi
from edgesite.edge.metaserver.upstream import Upstream
from edgesite.edge.metaserver.views import Views
from edgesite.kube.errors import ApiError
from edgesite.net import address
from edgesite.net.http import HttpServer, Limits
from edgesite.wire.message import InvalidMessage, Message, Operation

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from edgesite.context import Context, Inbox, Section
    from edgesite.edge.metaserver.serving import ServingCertificate

__all__ = ["GATE", "MetaServer", "ProviderGone"]

GATE: Final = "requireAuthorization"
_LIMITS: Final = Limits(
    connections=512,
    makes_room=True,
    pipelined=32,
    header_bytes=32 * 1024,
    head_timeout_s=10.0,
    idle_timeout_s=90.0,
    body_timeout_s=20.0,
)
_FETCH_AGAIN_S: Final = 3600.0
_RETRY_S: Final = 5.0
GRACE_S: Final = 5.0  #: for what is under way when we are to stop


class MetaServer:
    """See the module docstring."""

    name: ClassVar[str] = "metaserver"
    roles: ClassVar[frozenset[str]] = frozenset({"edge"})
    needs: ClassVar[frozenset[str]] = frozenset({"metamanager", "edgehub"})
    section: ClassVar[str] = "modules.metaManager.metaServer"

    reloads: ClassVar[frozenset[str]] = frozenset(
        {"apiAudiences", "offlineTokenMinutes", "tlsCertFile", "tlsPrivateKeyFile"}
    )

    def __init__(self) -> None:
        self._metrics: _Metrics | None = None  # kept over restarts: a registry takes each name once
        self._reload: tuple[Callable[[Section], None], ...] = ()

    def reload(self, config: Section) -> None:
        """See `edgesite.context.Module`; files of the certificate are read again. Raises nothing."""
        for one in self._reload:
            one(config)

    def enabled(self, settings: Section) -> bool:
        manager = settings.get("modules", {}).get("metaManager") or {}
        return bool(manager.get("enable", True) and (manager.get("metaServer") or {}).get("enable"))

    async def run(self, ctx: Context) -> None:
        stopping = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._run, ctx, stopping)
            try:
                await anyio.sleep_forever()
            finally:
                stopping.set()

    async def _run(self, ctx: Context, stopping: anyio.Event) -> None:
        """Serve until ``stopping``; then let what is under way come to its end."""
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as tasks:
                api, guard = self._make(ctx, tasks)
                serving = _serving(ctx) if not guard.is_open else None
                self._reload = (guard.reload, *((serving.reload,) if serving is not None else ()))
                server = HttpServer(
                    api.handle,
                    _LIMITS,
                    clock=ctx.clock,
                    threads=ctx.threads,
                    log=ctx.log,
                    on_reject=api.rejected,
                    on_failure=api.failed,
                )
                async with server:
                    tasks.start_soon(serve, ctx, server, serving)
                    tasks.start_soon(api.run)
                    await stopping.wait()
                    api.end_streams()
                    await server.drain(GRACE_S)
                tasks.cancel_scope.cancel()

    def _make(self, ctx: Context, tasks: TaskGroup) -> tuple[MetaApi, Guard]:
        """Put the parts together, and start those that work by themselves."""
        replica = ctx.services.get(Replica)
        secure = bool((ctx.settings.get("featureGates") or {}).get(GATE))
        if not secure:
            ctx.log.warning("feature gate %s is off: every process that reaches %s may act", GATE, ctx.config["server"])
        link = CloudLink(ctx)
        kubeedge = KubeEdgeCloud(ctx, link)
        memory = Memory(ctx, replica)
        upstream = Upstream(ctx, link, kubeedge, memory)
        printers = Printers(ctx, replica, link, upstream)
        views = Views(ctx.clock, printers)
        reads = Reads(ctx, replica, link, upstream, views, printers, memory)
        reads.scopes = Scopes(ctx, replica, link, reads, kubeedge, tasks)
        extensions = ctx.hooks.metaserver(ctx.settings)
        documents = Documents(ctx, replica, link, upstream, [row for one in extensions for row in one.resources()])
        issuer = IssuerKeys(ctx, link, upstream) if secure else None
        guard = _guard(ctx, link, kubeedge, issuer)
        pods = NodePods(ctx, link, upstream, replica, is_open=guard.is_open)
        api = MetaApi(
            ctx,
            link,
            upstream,
            reads,
            reads.scopes,
            documents,
            views,
            guard,
            replica,
            printers,
            memory,
            pods,
            extensions,
        )
        self._metrics = self._metrics or _Metrics(ctx.metrics)
        self._metrics.watches.set_function(lambda: float(api.watches))
        self._metrics.scopes.set_function(lambda: float(len(reads.scopes)))
        inbox = ctx.bus.join("metaserver", "metaserver", size=4096)
        tasks.start_soon(_take, ctx, inbox, link, reads.scopes)
        tasks.start_soon(printers.run)
        tasks.start_soon(memory.run)
        tasks.start_soon(_keep_documents, ctx, link, documents, pods)
        tasks.start_soon(_while_provided, ctx, replica)
        if issuer is not None:
            tasks.start_soon(issuer.run)
        return api, guard


def _serving(ctx: Context) -> ServingCertificate:
    from edgesite.edge.metaserver.serving import ServingCertificate  # with what makes certificates, where it is needed

    return ServingCertificate(ctx)


class _Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        name = "edgesite_metaserver"
        self.watches = Gauge(f"{name}_watches", "Watches of programs on this node", registry=registry)
        self.scopes = Gauge(f"{name}_scopes", "What is followed at the cloud for them", registry=registry)


def _guard(ctx: Context, link: CloudLink, kubeedge: KubeEdgeCloud, issuer: IssuerKeys | None) -> Guard:
    if issuer is None:
        return Open(Hosts(_names(ctx)))
    return TokenGuard(ctx, link, kubeedge, issuer, ctx.config)


def _names(ctx: Context) -> Iterator[str]:
    """What this node is called by its configuration."""
    yield ctx.node_name
    for key in ("server", "dummyServer", "podServer"):
        with suppress(ValueError):
            yield address.parse(plain(str(ctx.config.get(key) or ""))).host


class ProviderGone(RuntimeError):
    """Metamanager is another one now: what it kept is served by the next one."""


async def _while_provided(ctx: Context, replica: Replica) -> None:
    """Raises ProviderGone."""
    await ctx.services.replaced(Replica, replica)
    with anyio.move_on_after(_RETRY_S):  # who begins anew needs the next one
        await ctx.services.replaced(Replica, None)
    raise ProviderGone("metamanager has ended; MetaServer goes on with the next one")


async def _take(ctx: Context, inbox: Inbox, link: CloudLink, scopes: Scopes) -> None:
    """Take what the hub and metamanager tell."""
    async for message in inbox:
        if not link.take(message):
            try:
                _stored(message, scopes)
            except (InvalidMessage, ValueError) as exc:
                ctx.log.debug("left alone: resource=%s: %s", message.resource, exc)


def _stored(message: Message, scopes: Scopes) -> None:
    """Metamanager has stored an object. Raises InvalidMessage, ValueError."""
    if message.content is None or not len(scopes):
        return
    obj = message.object()
    place = meta_v2_key(obj)
    if place is not None:
        _, group, version, resource, _, _ = place.key.split("/")
        kind = KindKey("" if group == "core" else group, version, resource)
        scopes.arrived(kind, obj, is_delete=message.operation == Operation.DELETE)


async def _keep_documents(ctx: Context, link: CloudLink, documents: Documents, pods: NodePods) -> None:
    """Fetch discovery, and what programs may do, whenever there is a link, and now and then, so that clients find their way when there is none."""
    while True:
        phase = await link.wait_connected()
        fetched = phase is not Phase.OWN
        if phase is Phase.OWN:
            try:
                await documents.fetch_all()
                await pods.keep_leave()
                fetched = True
            except ApiError as exc:
                ctx.log.debug("discovery is not on hand: %s", exc)
        with anyio.move_on_after((_FETCH_AGAIN_S if fetched else _RETRY_S) * (0.8 + 0.4 * ctx.random.random())):
            while link.phase is phase and link.connected:
                await link.wait_change()
