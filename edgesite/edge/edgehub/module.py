"""The module ``edgehub``: keeps a connection to CloudHub and carries messages both ways.

    group hub ──> EdgeSession ──> WebSocket or QUIC ──> cloud
    cloud ──> WebSocket or QUIC ──> EdgeSession ──> waiting call, or the group that `routing` tells

In one process with the cloud it connects to ``mem:cloudhub``, else over WebSocket or QUIC as configured (`dialling`), with the
certificate of `certificates`, through a proxy if one is set. Several addresses, separated by commas, are tried in turn; the one that
answers is kept as long as it does. Without a link requests are refused at once, so that nobody waits for the cloud; acknowledgements
are dropped, for the cloud repeats what was not acknowledged. How soon a lost link is dialled again stands in `backoff`.

Ready at once: an edge works without a cloud.

Source  KubeEdge v1.12.7, edge/pkg/edgehub (groups, headers, limits).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Final

import anyio
from prometheus_client import CollectorRegistry, Counter, Gauge

from edgesite.context import Context, Section
from edgesite.edge.edgehub.backoff import FIRST_S, MOST_S, Backoff
from edgesite.edge.edgehub.certificates import Certificates, JoinError
from edgesite.edge.edgehub.cloudtime import CloudTime
from edgesite.edge.edgehub.connection import Connection
from edgesite.edge.edgehub.dialling import MEM_ADDRESS, CloudRefused, Dialler
from edgesite.edge.edgehub.link import CONNECTED, DISCONNECTED, GREETED, Link
from edgesite.edge.edgehub.renewal import Renewal
from edgesite.edge.edgehub.routing import target_of
from edgesite.edge.metamanager.meta import Holdings
from edgesite.kube.errors import ApiError, unavailable
from edgesite.net.pki import Pki, RealPki
from edgesite.net.proxy import parse_proxy, through_proxy
from edgesite.net.tls_faults import clock_fault
from edgesite.wire.edge_session import EdgeLimits, EdgeSession
from edgesite.wire.events import Answer, Event, Forget, Greeted, Received
from edgesite.wire.greeting import FEATURES, HOLDINGS, NEAR_FEATURES
from edgesite.wire.message import Message, MessageMaker, Operation, error_content

if TYPE_CHECKING:
    from edgesite.net.messagesocket import MessageSocket

__all__ = ["MEM_ADDRESS", "EdgeHub"]

_GROUPS: Final = ("meta", "twin", "bus", "edgestream", "metaserver")
_IN_PROCESS_WAIT_S: Final = (0.02, 0.5)  #: first and longest wait within one process, where a try costs nothing
_DEFAULT_QPS: Final = 30.0  #: KubeEdge's limit, for KubeEdge's cloud; one that was chosen holds for ours too
_EXPECTS_ANSWER: Final = frozenset({"query", "insert", "update", "patch", "delete", "null"})


class _Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.connected = Gauge("edgesite_edgehub_connected", "Whether there is a link to the cloud", registry=registry)
        self.connects = Counter("edgesite_edgehub_connects", "Connections made to the cloud", registry=registry)


class EdgeHub:
    """See the module docstring."""

    name: ClassVar[str] = "edgehub"
    roles: ClassVar[frozenset[str]] = frozenset({"edge"})
    needs: ClassVar[frozenset[str]] = frozenset({"metamanager"})
    section: ClassVar[str] = "modules.edgeHub"
    reloads: ClassVar[frozenset[str]] = frozenset({"heartbeat", "messageQPS", "messageBurst"})

    def __init__(self) -> None:
        self._metrics: _Metrics | None = None  # kept over restarts: a registry takes each name once
        self._run: _Run | None = None

    def enabled(self, settings: Section) -> bool:
        section = settings.get("modules", {}).get("edgeHub", {})
        return bool(section.get("enable", True))

    async def run(self, ctx: Context) -> None:
        self._metrics = self._metrics or _Metrics(ctx.metrics)
        self._run = _Run(ctx, self._metrics)
        try:
            await self._run.run()
        finally:
            self._run = None

    def reload(self, config: Section) -> None:
        """See `edgesite.context.Module`. Raises nothing."""
        if self._run is not None:
            self._run.reload(config)


class _Run:
    """One run of the module. Implements `Link`."""

    def __init__(self, ctx: Context, metrics: _Metrics) -> None:
        self._ctx = ctx
        self._config = ctx.config  # with what was taken over since
        self._metrics = metrics
        self._maker = MessageMaker(ctx.clock.time, ctx.random.getrandbits)
        self._connection: Connection | None = None
        self._in_process = bool(ctx.site.get("single_process"))
        self._certificates: Certificates | None = None
        self._cloud_time = CloudTime(ctx.clock, ctx.log)
        self._net = through_proxy(ctx.net, str(ctx.config.get("proxy") or ""))
        self._better: MessageSocket | None = None  # takes the place of the present connection
        self._spread_s = 0.0  # over which time the cloud wants its nodes to come back

    @property
    def connected(self) -> bool:
        return self._connection is not None

    @property
    def own_peer(self) -> bool:
        return self._connection is not None and self._connection.session.own_peer

    async def run(self) -> None:
        ctx = self._ctx
        if ctx.config.get("proxy"):
            ctx.log.info("the cloud is reached through %s", parse_proxy(str(ctx.config["proxy"])))
        if not self._in_process:
            pki = ctx.services.find(Pki) or RealPki(ctx.clock)  # type: ignore[type-abstract]
            self._certificates = Certificates(
                ctx.node_name, ctx.config, self._net, ctx.threads, ctx.clock, pki, ctx.random
            )
        inbox = ctx.bus.join("websocket", "hub")
        ctx.services.provide(Link, self)  # type: ignore[type-abstract]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._keep_connected)
            if self._certificates is not None and ctx.config.get("rotateCertificates", True):
                renewal = Renewal(
                    self._certificates, self._cloud_time, ctx.clock, ctx.random, ctx.log, self._certificate_renewed
                )
                tasks.start_soon(renewal.run)
            ctx.ready()
            async for message in inbox:
                connection = self._connection
                if connection is None or not await connection.send(message):
                    self._refuse(message)

    def reload(self, config: Section) -> None:
        """Keep the present connection, by the new limits."""
        self._config = config
        if (connection := self._connection) is not None:
            connection.session.set_limits(self._limits(), self._ctx.clock.monotonic())
            connection.wake()

    def _refuse(self, message: Message) -> None:
        if message.operation in _EXPECTS_ANSWER and not message.parent_msg_id:
            self._answer_unavailable(message, "there is no link to the cloud")

    def _answer_unavailable(self, request: Message, why: str) -> None:
        self._ctx.bus.respond(self._maker.error(request, error_content(unavailable(why).status())))

    # -- connecting ----------------------------------------------------------------------------------------------

    async def _keep_connected(self) -> None:
        ctx, clock = self._ctx, self._ctx.clock
        dialler = Dialler(ctx, self._net, self._certificates, self._cloud_time.note)
        first_s, most_s = _IN_PROCESS_WAIT_S if self._in_process else (FIRST_S, MOST_S)
        backoff = Backoff(ctx.random, clock.monotonic(), first_s=first_s, most_s=most_s)
        said = ""
        while True:
            refusal: CloudRefused | None = None
            try:
                socket, self._better = self._better or await dialler.dial(), None
            except (OSError, JoinError) as exc:
                refusal = exc if isinstance(exc, CloudRefused) else None
                reason = await self._rejoined(exc) or clock_fault(exc, clock.time()) or str(exc) or type(exc).__name__
                if reason != said:  # not each attempt
                    level = logging.DEBUG if self._in_process else logging.WARNING  # the roles start side by side
                    ctx.log.log(level, "no connection to the cloud: %s", reason)
                    said = reason
                if not dialler.round_is_over:
                    continue  # to the next address at once; the wait is between rounds
            else:
                said, since = "", clock.monotonic()
                reason = await self._serve(socket, dialler)
                ctx.log.warning("the connection to the cloud ended: %s", reason)
                if self._better is not None:
                    continue
                # A cloud that has lost us has lost all its nodes, perhaps: it has told over which time we shall come back.
                backoff.held(clock.monotonic(), clock.monotonic() - since, self._spread_s)
                self._spread_s = 0.0
            wait = backoff.wait_s(
                clock.monotonic(),
                refused=refusal is not None,
                retry_after_s=refusal.retry_after_s if refusal is not None else 0.0,
            )
            await clock.sleep(wait)

    async def _rejoined(self, failure: OSError | JoinError) -> str:
        """Join anew if the cloud no longer takes our certificate and we have a token that we have not joined with yet.
        Returns what came of it; "" if there was nothing to do."""
        certificates, reason = self._certificates, ""
        if certificates is None:
            return ""
        try:
            if isinstance(failure, CloudRefused) and failure.status == 403:
                reason = failure.reason
            elif await certificates.expired_for(failure, self._cloud_time.now()):
                reason = "this node's certificate has expired"
            else:
                return ""
            if await certificates.join_anew():
                return f"{reason}; joined anew"
        except JoinError as exc:
            return f"{reason}; {exc}"
        return f"the cloud refuses this node: {reason}"

    def _certificate_renewed(self) -> None:
        """The next connection uses the new certificate, and the present one is made anew with it."""
        if self._connection is not None:
            self._connection.drop("the certificate was renewed")

    async def _serve(self, socket: MessageSocket, dialler: Dialler) -> str:
        ctx = self._ctx
        connection = Connection(socket, self._new_session(), ctx.clock, self._on_event, ctx.log)
        self._connection = connection
        self._metrics.connected.set(1)
        self._metrics.connects.inc()
        ctx.log.info("connected to the cloud%s", " over QUIC" if socket.lanes > 1 else "")
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._announce, CONNECTED)
                tasks.start_soon(self._improve, socket, connection, dialler)
                if (keep_path := getattr(socket, "keep_path", None)) is not None:
                    tasks.start_soon(keep_path)
                reason = await connection.run()
                tasks.cancel_scope.cancel()
        finally:
            self._connection = None
            self._spread_s = connection.session.spread_s
            self._metrics.connected.set(0)
            for request in connection.session.close():
                self._answer_unavailable(request, "the link to the cloud was lost")
        await self._announce(DISCONNECTED)
        return reason

    async def _improve(self, present: MessageSocket, connection: Connection, dialler: Dialler) -> None:
        self._better = await dialler.better(present)
        connection.drop("QUIC reaches the cloud again")

    def _new_session(self) -> EdgeSession:
        features = NEAR_FEATURES if self._in_process else FEATURES
        return EdgeSession(self._maker, now=self._ctx.clock.monotonic(), limits=self._limits(), features=features)

    def _limits(self) -> EdgeLimits:
        config = self._config
        rate = 0.0 if self._in_process else float(config.get("messageQPS") or 0)
        return EdgeLimits(
            heartbeat_s=float(config.get("heartbeat") or 15),
            rate=rate,
            own_rate=0.0 if rate == _DEFAULT_QPS else rate,
            burst=int(config.get("messageBurst") or 60),
        )

    async def _announce(self, content: str) -> None:
        await self._tell(_GROUPS, content)

    async def _tell(self, groups: Iterable[str], content: str) -> None:
        message = self._maker.make("edgehub", "resource", Operation.CONNECT, "node/connection", content)
        for group in groups:
            await self._ctx.bus.send_group(group, message)

    # -- what the session tells ----------------------------------------------------------------------------------

    async def _on_event(self, event: Event) -> None:
        match event:
            case Received(message):
                await self._route(message)
            case Answer(message):
                if not self._ctx.bus.respond(message):
                    self._ctx.log.debug("an answer came too late: resource=%s", message.resource)
            case Greeted(features=features) if HOLDINGS in features:
                await self._tell(("metaserver",), GREETED)
                holdings = self._ctx.services.find(Holdings)  # type: ignore[type-abstract]
                connection = self._connection
                if holdings is not None and connection is not None:
                    connection.session.tell_holdings(await holdings.holdings())
                    connection.wake()
            case Forget(uids):
                await self._forget(uids)

    async def _forget(self, uids: tuple[str, ...]) -> None:
        """The cloud says that its history is another one."""
        holdings = self._ctx.services.find(Holdings)  # type: ignore[type-abstract]
        connection = self._connection
        if holdings is None or connection is None:
            return
        self._ctx.log.warning("the cloud has lost what it knew of %d objects: they are taken anew", len(uids))
        try:
            await holdings.forget(uids)
        except ApiError as exc:
            self._ctx.log.error("what the cloud has lost cannot be forgotten here: %s", exc)
            return  # the cloud asks again when it compares
        connection.session.tell_holdings(await holdings.holdings(), whole=True)
        connection.wake()

    async def _route(self, message: Message) -> None:
        target = target_of(message)
        if target.group:
            await self._ctx.bus.send_group(target.group, message)
            return
        try:
            await self._ctx.bus.send(target.module, message)
        except LookupError:
            self._ctx.log.warning("nobody here takes messages for %s", target.module)
