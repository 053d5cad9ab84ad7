"""The module ``apiserver``: opens the store, makes credentials, bootstraps, serves, and provides the cloud role's client.

Units   Durations in the configuration are Go's ("1h").
Errors  Whatever keeps it from serving is raised; its supervisor starts it again.
State   ``state.db`` and ``pki/`` in the role's data folder; the administrator's kubeconfig where the configuration says.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

import anyio
from prometheus_client import CollectorRegistry

from edgesite.apiserver import accountkeys
from edgesite.apiserver import credentials as creds
from edgesite.apiserver.accounttokens import AccountTokens, TokenSettings
from edgesite.apiserver.assembly import Assembly, Ranges, assemble, serve_kinds
from edgesite.apiserver.authn import User, read_token_file
from edgesite.apiserver.bootstrap import bootstrap
from edgesite.apiserver.events import EventSweeper
from edgesite.apiserver.health import add_health, add_metrics
from edgesite.apiserver.selection import indexer
from edgesite.apiserver.transport import InProcessTransport
from edgesite.client import CallerTransport, Client, SharedInformers
from edgesite.context import NodeConnector, Revisions, Settings
from edgesite.kube import schema, times
from edgesite.net import address as addresses
from edgesite.net.http import HttpServer, Limits
from edgesite.net.pki import PLAUSIBLE, Pki, PkiError, RealPki
from edgesite.net.tls import renew, server_context
from edgesite.store import Limits as StoreLimits
from edgesite.store import Store

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    from edgesite.context import Context, Section

__all__ = ["ApiServerModule"]

RENEWAL_LOOK_S: Final = 6 * 3600.0  #: certificates are renewed a month before their end
CLOCK_LOOK_S: Final = 10.0  #: while the clock is not set, for what it has made soon ends once it is
#: Who the modules of this process are to the API. Their user agents tell them apart.
MODULE_USER: Final = User("system:edgesite", ("system:masters", "system:authenticated"))


class ApiServerModule:
    """Serves the API of the site."""

    name: ClassVar[str] = "apiserver"
    roles: ClassVar[frozenset[str]] = frozenset({"cloud"})
    needs: ClassVar[frozenset[str]] = frozenset()
    section: ClassVar[str] = "api"
    reloads: ClassVar[frozenset[str]] = frozenset({"certSANs", "eventTTL", "maxRequestsInFlight"})

    def __init__(self) -> None:
        self._served: _Served | None = None

    def enabled(self, settings: Section) -> bool:
        """Wanted unless the configuration names another API server."""
        api = settings.get("api")
        return api is not None and bool(api.get("enable", True))

    def reload(self, config: Section) -> None:
        """See `edgesite.context.Module`; the file of tokens is read again. Raises ValueError."""
        if self._served is not None:
            self._served.reload(config)

    async def run(self, ctx: Context) -> None:
        """Serve until cancelled. Raises OSError, ValueError, PkiError, apsw.Error and others when it cannot."""
        config = ctx.config
        schemas = schema.load()
        kinds = serve_kinds(schemas, ctx.hooks.resources(), _ranges(config))
        with _metrics(ctx.metrics) as metrics:
            store = await Store.open(
                ctx.data_dir / "state.db",
                clock=ctx.clock,
                threads=ctx.threads,
                disk=ctx.disk,
                metrics=metrics,
                index=indexer(kinds),
                limits=_store_limits(config),
            )
            async with store:
                keys = await accountkeys.load_or_make(
                    ctx.data_dir / "pki", [Path(one) for one in config.serviceAccountKeyFiles], _pki(ctx)
                )
                made = assemble(
                    store,
                    kinds,
                    schemas,
                    clock=ctx.clock,
                    random=ctx.random,
                    threads=ctx.threads,
                    version=str(ctx.site.get("version", "0")),
                    address=_advertised(config),
                    tokens=read_token_file(Path(config.tokenAuthFile)) if config.tokenAuthFile else {},
                    keys=keys,
                    token_settings=_token_settings(config),
                    plugins=ctx.hooks.admission(Settings(api=config, cloud=ctx.settings)),
                    connector=lambda: ctx.services.find(NodeConnector),  # type: ignore[type-abstract]
                    max_in_flight=config.maxRequestsInFlight,
                    max_body=config.maxRequestBytes,
                )
                metrics.register(made.metrics)
                try:
                    await self._serve(ctx, store, made)
                finally:
                    self._served = None

    async def _serve(self, ctx: Context, store: Store, made: Assembly) -> None:
        """Open the listener, then tell the world; the store is open for as long as this runs."""
        config = ctx.config
        add_health(made.documents, ctx.health)
        add_metrics(made.documents, ctx.metrics)
        ctx.health.add_check("etcd", lambda: store.failure)  # the name under which clients look for the storage
        credentials = await _credentials(ctx)
        limits = Limits(body_bytes=config.maxRequestBytes, connections=config.maxConnections)
        async with (
            HttpServer(
                made.server.handle,
                limits,
                clock=ctx.clock,
                threads=ctx.threads,
                log=ctx.log,
                on_reject=made.server.rejected,
                on_failure=made.server.failed,
            ) as http,
            anyio.create_task_group() as tasks,
        ):
            context = _tls(credentials)
            listener = await http.listen(ctx.net, config.address, tls=context)
            at = addresses.parse(listener.address)
            reachable = config.advertiseAddress or _reachable(at.host)
            public = addresses.join(reachable, at.port)
            _write_kubeconfig(ctx, credentials, public)
            sweeper = EventSweeper(store, ctx.clock, times.parse_duration(config.eventTTL))
            served = self._served = _Served(ctx, made, sweeper)
            tasks.start_soon(served.keep_credentials, context, credentials, public)
            await bootstrap(made.registry, service_ip=_service_ip(config), address=reachable, port=at.port)
            client = Client(InProcessTransport(made.server, MODULE_USER))
            informers = SharedInformers(client, ctx.clock, ctx.random, ctx.log)
            ctx.services.provide(Client, client)
            ctx.services.provide(SharedInformers, informers)
            ctx.services.provide(CallerTransport, CallerTransport(InProcessTransport(made.server, None)))
            ctx.services.provide(AccountTokens, made.accounts)
            ctx.services.provide(Revisions, store)  # type: ignore[type-abstract]
            tasks.start_soon(informers.run)
            tasks.start_soon(store.run)
            tasks.start_soon(made.run)
            tasks.start_soon(sweeper.run)
            ctx.log.info("serving the API address=%s", listener.address)
            ctx.ready()
            await anyio.sleep_forever()


@contextmanager
def _metrics(parent: CollectorRegistry) -> Iterator[CollectorRegistry]:
    """The metrics of one run: a restart of the module begins with new ones."""
    own = CollectorRegistry()
    parent.register(own)
    try:
        yield own
    finally:
        parent.unregister(own)


def _ranges(config: Section) -> Ranges:
    """Raises ValueError."""
    first, _, last = config.serviceNodePortRange.partition("-")
    return Ranges(config.serviceClusterIPRange, int(first), int(last or first))


def _service_ip(config: Section) -> str:
    """The first address of the range belongs to the API itself."""
    return str(ip_network(config.serviceClusterIPRange)[1])


def _store_limits(config: Section) -> StoreLimits:
    """Upkeep is one round for both: the sooner of the two asked for."""
    asked = (times.parse_duration(config.leaseSnapshotInterval), times.parse_duration(config.historyRetention))
    return StoreLimits(upkeep_s=max(1.0, min(asked)))


def _reachable(host: str) -> str:
    """An address for clients, of a host that is listened on."""
    try:
        return str(ip_address(host)) if not ip_address(host).is_unspecified else "127.0.0.1"
    except ValueError:
        return "127.0.0.1"


def _advertised(config: Section) -> str:
    at = addresses.parse(config.address)
    return addresses.join(config.advertiseAddress or _reachable(at.host), at.port)


def _token_settings(config: Section) -> TokenSettings:
    """Raises ValueError."""
    return TokenSettings(
        issuers=tuple(config.serviceAccountIssuers),
        audiences=tuple(config.apiAudiences),
        most_s=times.parse_duration(config.serviceAccountMaxTokenExpiration),
        extend=config.serviceAccountExtendTokenExpiration,
    )


def _pki(ctx: Context) -> Pki:
    return ctx.services.find(Pki) or RealPki(ctx.clock)  # type: ignore[type-abstract]


async def _credentials(ctx: Context) -> creds.Credentials:
    config = ctx.config
    host = addresses.parse(config.address).host
    names = creds.server_names(host, config.advertiseAddress, config.certSANs, _service_ip(config))
    return await creds.load_or_make(ctx.data_dir / "pki", names, _pki(ctx), ctx.clock.time())


class _Served:
    """What changes while the API is served: certificates before they end, and what settings and files say anew."""

    def __init__(self, ctx: Context, made: Assembly, sweeper: EventSweeper) -> None:
        self._ctx, self._made, self._sweeper = ctx, made, sweeper
        self._reloaded = anyio.Event()

    def reload(self, config: Section) -> None:
        """Raises ValueError."""
        self._sweeper.ttl_s = times.parse_duration(config.eventTTL)
        self._made.server.max_in_flight = config.maxRequestsInFlight
        self._ctx = replace(self._ctx, config=config)
        self._reloaded.set()

    async def keep_credentials(self, context: ssl.SSLContext, credentials: creds.Credentials, address: str) -> None:
        """Renew certificates without a restart: who connects from then on sees the new ones."""
        while True:
            await self._rest(RENEWAL_LOOK_S if self._ctx.clock.time() >= PLAUSIBLE else CLOCK_LOOK_S)
            if self._reloaded.is_set():
                self._reloaded = anyio.Event()
                await self._read_tokens()
            ctx = self._ctx
            try:
                fresh = await _credentials(ctx)
                if fresh == credentials:
                    continue
                renew(context, fresh.server.certificate, fresh.server.key, client_ca=fresh.ca.certificate)
                _write_kubeconfig(ctx, fresh, address)
            except (OSError, PkiError) as exc:
                ctx.log.warning("certificates cannot be renewed now: %s", exc)
                continue
            credentials = fresh
            ctx.log.info("certificates of the API were renewed")

    async def _rest(self, seconds: float) -> None:
        """Wait so long, or until the settings are others."""

        async def until_due() -> None:
            await self._ctx.clock.sleep(seconds)
            tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(until_due)
            await self._reloaded.wait()
            tasks.cancel_scope.cancel()

    async def _read_tokens(self) -> None:
        if not self._ctx.config.tokenAuthFile:
            return
        try:
            self._made.tokens.replace(
                await self._ctx.threads.run(read_token_file, Path(self._ctx.config.tokenAuthFile))
            )
        except (OSError, ValueError) as exc:
            self._ctx.log.error("the former tokens stay: %s", exc)


def _tls(credentials: creds.Credentials) -> ssl.SSLContext:
    server = credentials.server
    return server_context(server.certificate, server.key, client_ca=credentials.ca.certificate)


def _write_kubeconfig(ctx: Context, credentials: creds.Credentials, address: str) -> None:
    """Write the administrator's kubeconfig unless it is there already. Raises OSError."""
    path = Path(ctx.config.adminKubeconfig or ctx.data_dir / "admin.kubeconfig")
    wanted = creds.kubeconfig(credentials, address, ctx.config.clusterName)
    try:
        if path.read_bytes() == wanted:
            return
    except FileNotFoundError:
        ctx.log.debug("writing %s", path)
    creds.write_private(path, wanted)
