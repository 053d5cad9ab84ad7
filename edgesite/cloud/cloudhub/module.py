"""The module ``cloudhub``: listens for edges and carries messages between them and the cloud's modules.

    mem:cloudhub     edges in this process; trusted
    port 10000       WebSocket on TLS; a client certificate of our CA is required
    port 10001/udp   QUIC, for edges of ours; the same certificate (off by default; see `quic`)
    port 10002       HTTPS: the CA, certificates for edges that join, and what keadm asks and reports

Ready when edges can connect. In one process with an edge that is at once: the network listeners follow in the background,
for their certificates may have to be made first; one that cannot be opened is tried again and stops nobody.

Source  KubeEdge v1.12.7, cloud/pkg/cloudhub (ports, paths, certificates).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

import anyio

from edgesite.client import Client, EventRecorder
from edgesite.cloud.cloudhub.authority import Authority, AuthorityKeeper
from edgesite.cloud.cloudhub.bootstrap import Bootstrap
from edgesite.cloud.cloudhub.hub import Hub
from edgesite.cloud.cloudhub.identities import Identities
from edgesite.cloud.cloudhub.metrics import HubMetrics
from edgesite.cloud.cloudhub.records import ConnectedNodes, DeliveryRecords, NodeGate
from edgesite.cloud.cloudhub.rejoin import Rejoin
from edgesite.cloud.cloudhub.waiting import service
from edgesite.cloud.edgecontroller import EdgeObjects
from edgesite.context import Context, Section
from edgesite.kube.errors import ApiError
from edgesite.net.http import HttpServer, Limits
from edgesite.net.pki import KeyPair, Pki, PkiError, RealPki
from edgesite.net.tls import renew, server_context
from edgesite.wire.message import MessageMaker, Operation
from edgesite.wire.node_session import SessionLimits

if TYPE_CHECKING:
    import ssl

    from aioquic.quic.configuration import QuicConfiguration

    from edgesite.net.quic.server import QuicServer

__all__ = ["MEM_ADDRESS", "CloudHub"]

MEM_ADDRESS: Final = "mem:cloudhub"
_RETRY_S: Final = 1.0
_RETRY_MOST_S: Final = 60.0
_BOOTSTRAP_BYTES: Final = 2 << 20


class CloudHub:
    """See the module docstring."""

    name: ClassVar[str] = "cloudhub"
    roles: ClassVar[frozenset[str]] = frozenset({"cloud"})
    needs: ClassVar[frozenset[str]] = frozenset({"edgecontroller"})
    section: ClassVar[str] = "modules.cloudHub"
    reloads: ClassVar[frozenset[str]] = frozenset(
        {
            "advertiseAddress",
            "dnsNames",
            "edgeCertSigningDuration",
            "keepaliveInterval",
            "nodeLimit",
            "rejoin",
            "tlsCertFile",
            "tlsPrivateKeyFile",
            "tokenRefreshDuration",
            "writeTimeout",
        }
    )

    def __init__(self) -> None:
        self._metrics: HubMetrics | None = None  # kept over restarts
        self._run: _Run | None = None

    def enabled(self, settings: Section) -> bool:
        section = settings.get("modules", {}).get("cloudHub", {})
        return bool(section.get("enable", True))

    async def run(self, ctx: Context) -> None:
        self._metrics = self._metrics or HubMetrics(ctx.metrics)
        self._run = _Run(ctx, self._metrics)
        try:
            await self._run.run()
        finally:
            self._run = None

    def reload(self, config: Section) -> None:
        """See `edgesite.context.Module`; files of certificates are read again. Raises nothing."""
        if self._run is not None:
            self._run.reload(config)


class _Outside:
    """What serves other machines, for who reloads it."""

    def __init__(self, keeper: AuthorityKeeper, authority: Authority, bootstrap: Bootstrap, rejoin: Rejoin) -> None:
        self.keeper, self.authority, self.bootstrap, self.rejoin = keeper, authority, bootstrap, rejoin
        self.server = authority.server
        self.contexts: list[ssl.SSLContext] = []  #: of the listeners
        self.quic: QuicServer | None = None


def _hub_limits(config: Section) -> tuple[SessionLimits, int, float]:
    """Of each session, of all nodes, and of a connection that takes nothing."""
    session = SessionLimits(keepalive_s=float(config.get("keepaliveInterval") or 30))
    return session, int(config.get("nodeLimit") or 1000), float(config.get("writeTimeout") or 30)


def _days(config: Section) -> int:
    return int(config.get("edgeCertSigningDuration") or 365)


def _renew_context(context: ssl.SSLContext, server: KeyPair, ca: KeyPair) -> None:
    """Raises OSError."""
    renew(context, server.certificate, server.key, client_ca=ca.certificate)


def _quic_shown(config: Section, server: KeyPair, ca: KeyPair) -> QuicConfiguration:
    """Raises ValueError."""
    from edgesite.cloud.cloudhub import quic

    return quic.shown(config, server, ca)


class _Run:
    def __init__(self, ctx: Context, metrics: HubMetrics) -> None:
        self._ctx = ctx
        self._config = ctx.config  # with what was taken over since
        self._metrics = metrics
        self._hub: Hub | None = None
        self._outside: _Outside | None = None
        self._reloaded = anyio.Event()
        self._pki: Pki = ctx.services.find(Pki) or RealPki(ctx.clock)  # type: ignore[type-abstract]

    async def run(self) -> None:
        ctx = self._ctx
        inbox = ctx.bus.join("cloudhub", "cloudhub", size=4096)
        session, node_limit, stall_s = _hub_limits(self._config)
        async with anyio.create_task_group() as tasks:
            hub = self._hub = Hub(
                ctx.bus,
                ctx.clock,
                ctx.random,
                lambda: ctx.services.find(DeliveryRecords),  # type: ignore[type-abstract]
                session,
                node_limit,
                tasks,
                self._metrics,
                ctx.log,
                stall_s=stall_s,
            )
            limits = Limits(connections=1_000_000, idle_timeout_s=30.0)
            async with HttpServer(hub.handle, limits, clock=ctx.clock, log=ctx.log) as server:
                await server.listen(ctx.net, MEM_ADDRESS)
                ctx.services.provide(ConnectedNodes, hub)  # type: ignore[type-abstract]
                tasks.start_soon(hub.run)
                outside = anyio.Event()
                ctx.services.provide(NodeGate, hub)  # type: ignore[type-abstract]
                tasks.start_soon(self._serve_outside, hub, server, outside)
                if not ctx.site.get("single_process"):
                    await outside.wait()
                ctx.ready()
                try:
                    async for message in inbox:
                        hub.send(message)
                finally:
                    hub.close()

    def reload(self, config: Section) -> None:
        """Keep all connections, by the new limits; certificates follow in the task of the listeners."""
        self._config = config
        if self._hub is not None:
            self._hub.set_limits(*_hub_limits(config))
        if self._outside is not None:
            self._outside.bootstrap.days = _days(config)
            self._outside.rejoin.is_strict = config.get("rejoin") == "strict"
        self._reloaded.set()

    # -- the network ---------------------------------------------------------------------------------------------

    async def _serve_outside(self, hub: Hub, hub_server: HttpServer, listening: anyio.Event) -> None:
        """Open the network listeners as configured, then keep the join token fresh."""
        ctx, config = self._ctx, self._config
        client = (await service(ctx, Client)).named("cloudhub")
        is_shared = not ctx.site.get("embedded_api")
        keeper = AuthorityKeeper(client, config, self._pki, ctx.threads, ctx.clock, is_shared=is_shared)
        authority = await self._retry("certificates", keeper.load)
        identities = Identities(client, lambda: ctx.services.find(EdgeObjects), ctx.clock, ctx.random, ctx.log)
        recorder = EventRecorder(client, "cloudhub", ctx.clock)
        rejoin = Rejoin(
            identities,
            lambda: ctx.services.find(EdgeObjects),
            hub,
            recorder,
            ctx.log,
            is_strict=config.get("rejoin") == "strict",
            is_shared=is_shared,
        )
        bootstrap = Bootstrap(
            authority,
            self._pki,
            ctx.clock,
            _days(config),
            ctx.log,
            identities=identities,
            rejoin=rejoin,
            node_exists=self._node_exists,
            on_upgrade=self._on_upgrade,
        )
        outside = self._outside = _Outside(keeper, authority, bootstrap, rejoin)
        limits = Limits(body_bytes=_BOOTSTRAP_BYTES)
        async with (
            anyio.create_task_group() as tasks,
            HttpServer(bootstrap, limits, clock=ctx.clock, log=ctx.log) as https,
        ):
            hub.identities = identities
            tasks.start_soon(identities.run)
            tasks.start_soon(recorder.run)
            if config.get("websocket", {}).get("enable", True):
                await self._retry("websocket", lambda: self._listen(hub_server, "websocket", outside, require=True))
            if config.get("quic", {}).get("enable", False):
                tasks.start_soon(self._serve_quic, hub, outside)
            if config.get("https", {}).get("enable", True):
                await self._retry("https", lambda: self._listen(https, "https", outside, require=False))
            wait = await self._retry("join token", lambda: keeper.renew_token(authority))
            listening.set()
            while True:
                with anyio.move_on_after(wait):
                    await self._reloaded.wait()
                if self._reloaded.is_set():
                    self._reloaded = anyio.Event()
                    await self._renew(outside)
                wait = await self._retry("join token", lambda: keeper.renew_token(authority))

    async def _renew(self, outside: _Outside) -> None:
        """Show the certificate of the settings and files as they are now; what cannot be used changes nothing."""
        ctx, ca = self._ctx, outside.authority.ca
        try:
            server = await outside.keeper.load_server(self._config, ca)
            if server == outside.server:
                return
            made = await ctx.threads.run(_quic_shown, self._config, server, ca) if outside.quic is not None else None
            for context in outside.contexts:
                await ctx.threads.run(_renew_context, context, server, ca)
        except (ApiError, OSError, PkiError, ValueError) as exc:
            ctx.log.error("the hub's former certificate stays: %s", exc)
            return
        outside.server = server
        if outside.quic is not None and made is not None:
            outside.quic.configuration = made
        ctx.log.info("the hub shows another certificate from now on")

    async def _serve_quic(self, hub: Hub, outside: _Outside) -> None:
        """Serve edges over QUIC until cancelled; without the library the site goes on without it."""
        try:
            from edgesite.cloud.cloudhub import quic
        except ImportError as exc:
            self._ctx.log.error("modules.cloudHub.quic needs aioquic (pip install 'edgesite[quic]'): %s", exc)
            return

        async def listen() -> QuicServer:
            return await quic.listen(self._ctx, hub, self._config, outside.server, outside.authority.ca)

        outside.quic = server = await self._retry("quic", listen)
        try:
            await anyio.sleep_forever()
        finally:
            outside.quic = None
            server.close()

    def _node_exists(self, node: str) -> bool | None:
        objects = self._ctx.services.find(EdgeObjects)
        return None if objects is None else objects.node_exists(node)

    async def _on_upgrade(self, node: str, report: dict[str, Any]) -> None:
        maker = MessageMaker(self._ctx.clock.time, self._ctx.random.getrandbits)
        path = f"upgrade/{report.get('UpgradeID') or ''}/node/{node}"
        group = "nodeupgradejobcontroller"
        await self._ctx.bus.send_group(group, maker.make("cloudhub", group, Operation.UPDATE, path, report))

    async def _listen(self, server: HttpServer, section: str, outside: _Outside, *, require: bool) -> None:
        place = self._ctx.config[section]
        host = str(place.get("address") or "0.0.0.0")
        host = f"[{host}]" if ":" in host else host
        context = server_context(
            outside.server.certificate,
            outside.server.key,
            client_ca=outside.authority.ca.certificate,
            require_client=require,
        )
        listener = await server.listen(self._ctx.net, f"{host}:{int(place['port'])}", tls=context)
        outside.contexts.append(context)
        self._ctx.log.info("%s listens on %s", section, listener.address)

    async def _retry(self, what: str, work: Any) -> Any:
        wait = _RETRY_S
        while True:
            try:
                return await work()
            except (ApiError, OSError, PkiError, ValueError) as exc:
                self._ctx.log.error("%s: %s; next try in %.0f s", what, exc, wait)
            await self._ctx.clock.sleep(wait * (0.75 + self._ctx.random.random() / 2))
            wait = min(wait * 2, _RETRY_MOST_S)
