"""The module ``edgehub``: keeps a connection to CloudHub and carries messages both ways.

    group hub ──> EdgeSession ──> WebSocket ──> cloud
    cloud ──> WebSocket ──> EdgeSession ──> waiting call, or the group that `routing` tells

In one process with the cloud it connects to ``mem:cloudhub``, else to ``wss://`` as configured, with the certificate of
`certificates`, through a proxy if one is set. Several addresses, separated by commas, are tried in turn; the one that answers is
kept as long as it does. Without a link requests are refused at once, so that nobody waits for the cloud; acknowledgements are dropped,
for the cloud repeats what was not acknowledged.

Ready at once: an edge works without a cloud.

Source  KubeEdge v1.12.7, reference/hub-and-metadata.md sections 2.1 and 8.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, ClassVar, Final

import anyio
from prometheus_client import CollectorRegistry, Counter, Gauge

from edgesite.context import Context, Section
from edgesite.edge.edgehub.certificates import Certificates, JoinError
from edgesite.edge.edgehub.connection import Connection
from edgesite.edge.edgehub.link import CONNECTED, DISCONNECTED, Link
from edgesite.edge.edgehub.routing import target_of
from edgesite.edge.metamanager.meta import Holdings
from edgesite.kube.errors import unavailable
from edgesite.net import websocket
from edgesite.net.errors import NetError
from edgesite.net.pki import Pki, RealPki
from edgesite.net.proxy import parse_proxy, through_proxy
from edgesite.wire.edge_session import EdgeLimits, EdgeSession
from edgesite.wire.events import Answer, Event, Greeted, Received
from edgesite.wire.greeting import FEATURES, HOLDINGS, NEAR_FEATURES
from edgesite.wire.message import Message, MessageMaker, Operation, error_content

if TYPE_CHECKING:
    import ssl


__all__ = ["MEM_ADDRESS", "EdgeHub"]

MEM_ADDRESS: Final = "mem:cloudhub"
_GROUPS: Final = ("meta", "twin", "bus", "edgestream")
_FIRST_WAIT_S: Final = 0.2
_MOST_WAIT_S: Final = 30.0
_IN_PROCESS_WAIT_S: Final = (0.02, 0.5)  #: the same within one process, where a try costs nothing
_STABLE_S: Final = 60.0  #: a connection that held this long makes the next wait short again
_MESSAGE_BYTES: Final = 64 * 1024 * 1024
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

    def __init__(self) -> None:
        self._metrics: _Metrics | None = None  # kept over restarts: a registry takes each name once

    def enabled(self, settings: Section) -> bool:
        section = settings.get("modules", {}).get("edgeHub", {})
        return bool(section.get("enable", True))

    async def run(self, ctx: Context) -> None:
        self._metrics = self._metrics or _Metrics(ctx.metrics)
        await _Run(ctx, self._metrics).run()


class _Run:
    """One run of the module. Implements `Link`."""

    def __init__(self, ctx: Context, metrics: _Metrics) -> None:
        self._ctx = ctx
        self._metrics = metrics
        self._maker = MessageMaker(ctx.clock.time, ctx.random.getrandbits)
        self._connection: Connection | None = None
        self._in_process = bool(ctx.site.get("single_process"))
        self._certificates: Certificates | None = None
        self._net = through_proxy(ctx.net, str(ctx.config.get("proxy") or ""))
        self._servers = addresses_of(str(ctx.config.get("websocket", {}).get("server") or ""))
        self._turn = 0  # which of them is tried
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
                tasks.start_soon(self._keep_certificate, self._certificates)
            ctx.ready()
            async for message in inbox:
                connection = self._connection
                if connection is None or not await connection.send(message):
                    self._refuse(message)

    def _refuse(self, message: Message) -> None:
        if message.operation in _EXPECTS_ANSWER and not message.parent_msg_id:
            self._answer_unavailable(message, "there is no link to the cloud")

    def _answer_unavailable(self, request: Message, why: str) -> None:
        self._ctx.bus.respond(self._maker.error(request, error_content(unavailable(why).status())))

    # -- connecting ----------------------------------------------------------------------------------------------

    async def _keep_connected(self) -> None:
        first, most = _IN_PROCESS_WAIT_S if self._in_process else (_FIRST_WAIT_S, _MOST_WAIT_S)
        wait, said = first, ""
        while True:
            started = self._ctx.clock.monotonic()
            try:
                socket = await self._dial()
            except (OSError, NetError, JoinError) as exc:
                self._turn += 1
                reason = await self._rejoined(exc) or str(exc) or type(exc).__name__
                if reason != said:  # not each attempt
                    level = logging.DEBUG if self._in_process else logging.WARNING  # the roles start side by side
                    self._ctx.log.log(level, "no connection to the cloud: %s", reason)
                    said = reason
                if self._turn % len(self._servers):
                    continue  # to the next address at once; the wait is between rounds
            else:
                said = ""
                reason = await self._serve(socket)
                self._ctx.log.warning("the connection to the cloud ended: %s", reason)
            if self._ctx.clock.monotonic() - started > _STABLE_S:
                wait = first
            # A cloud that has lost us has lost all its nodes, perhaps: it has told over which time we shall come back.
            spread, self._spread_s = self._spread_s * self._ctx.random.random(), 0.0
            await self._ctx.clock.sleep(wait * (0.5 + self._ctx.random.random() / 2) + spread)
            wait = min(wait * 2, most)

    async def _rejoined(self, refusal: Exception) -> str:
        """Join anew if the cloud no longer takes our certificate and we have a token that we have not joined with yet.
        Returns what came of it; "" if there was nothing to do."""
        certificates = self._certificates
        if certificates is None or not isinstance(refusal, websocket.UpgradeRefused) or refusal.answer.status != 403:
            return ""
        why = refusal.answer.body[:200].decode("utf-8", "replace")
        try:
            if await certificates.join_anew():
                return f"{why}; joined anew"
        except JoinError as exc:
            return f"{why}; {exc}"
        return f"the cloud refuses this node: {why}"

    async def _dial(self) -> websocket.WebSocket:
        """Connect. Raises OSError, NetError, JoinError."""
        config, node = self._ctx.config, self._ctx.node_name
        address, tls = MEM_ADDRESS, None
        if self._certificates is not None:
            await self._certificates.ensure()
            address, tls = self._servers[self._turn % len(self._servers)], self._certificates.context()
        project = str(config.get("projectID") or "e632aba927ea4ac2b575ec1603d56f10")
        headers = {"Node_id": node, "Project_id": project, "Connectionuse": "msg"}
        with anyio.fail_after(float(config.get("websocket", {}).get("handshakeTimeout") or 30)):
            return await self._open(address, f"/{project}/{node}/events", headers, tls)

    async def _open(
        self, address: str, path: str, headers: dict[str, str], tls: ssl.SSLContext | None
    ) -> websocket.WebSocket:
        return await websocket.connect(self._net, address, path, headers, tls=tls, max_message_bytes=_MESSAGE_BYTES)

    async def _serve(self, socket: websocket.WebSocket) -> str:
        ctx = self._ctx
        connection = Connection(socket, self._new_session(), ctx.clock, self._on_event, ctx.log)
        self._connection = connection
        self._metrics.connected.set(1)
        self._metrics.connects.inc()
        ctx.log.info("connected to the cloud")
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._announce, CONNECTED)
                reason = await connection.run()
                tasks.cancel_scope.cancel()
        finally:
            self._connection = None
            self._metrics.connected.set(0)
            for request in connection.session.close():
                self._answer_unavailable(request, "the link to the cloud was lost")
        await self._announce(DISCONNECTED)
        return reason

    def _new_session(self) -> EdgeSession:
        config = self._ctx.config
        rate = 0.0 if self._in_process else float(config.get("messageQPS") or 0)
        limits = EdgeLimits(
            heartbeat_s=float(config.get("heartbeat") or 15),
            rate=rate,
            own_rate=0.0 if rate == _DEFAULT_QPS else rate,
            burst=int(config.get("messageBurst") or 60),
        )
        features = NEAR_FEATURES if self._in_process else FEATURES
        return EdgeSession(self._maker, now=self._ctx.clock.monotonic(), limits=limits, features=features)

    async def _announce(self, content: str) -> None:
        message = self._maker.make("edgehub", "resource", Operation.CONNECT, "node/connection", content)
        for group in _GROUPS:
            await self._ctx.bus.send_group(group, message)

    # -- what the session tells ----------------------------------------------------------------------------------

    async def _on_event(self, event: Event) -> None:
        match event:
            case Received(message):
                await self._route(message)
            case Answer(message):
                if not self._ctx.bus.respond(message):
                    self._ctx.log.debug("an answer came too late: resource=%s", message.resource)
            case Greeted(features=features, spread_s=spread_s) if HOLDINGS in features:
                self._spread_s = spread_s
                holdings = self._ctx.services.find(Holdings)  # type: ignore[type-abstract]
                connection = self._connection
                if holdings is not None and connection is not None:
                    connection.session.tell_holdings(await holdings.holdings())
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

    # -- renewal -------------------------------------------------------------------------------------------------

    async def _keep_certificate(self, certificates: Certificates) -> None:
        """Renew in time; the next connection uses the new certificate, and the present one is made anew with it."""
        clock, said = self._ctx.clock, ""
        while True:
            try:
                due = await certificates.renewal_at() - clock.time()
            except JoinError as exc:
                self._ctx.log.debug("no certificate yet: %s", exc)
                await self._rest()
                continue
            if due > 0:
                await clock.sleep(min(due, 3600.0))
                continue
            try:
                await certificates.renew()
            except JoinError as exc:
                level = logging.DEBUG if said == str(exc) else logging.WARNING  # not each attempt
                self._ctx.log.log(level, "the certificate is due for renewal, but there is no new one: %s", exc)
                said = str(exc)
                await self._rest()
                continue
            said = ""
            self._ctx.log.info("the certificate was renewed")
            if self._connection is not None:
                self._connection.drop("the certificate was renewed")

    async def _rest(self) -> None:
        await self._ctx.clock.sleep(_MOST_WAIT_S * (0.5 + self._ctx.random.random() / 2))


def addresses_of(text: str) -> list[str]:
    """The addresses of a comma-separated list; one empty address if there is none."""
    return [one.strip() for one in text.split(",") if one.strip()] or [""]
