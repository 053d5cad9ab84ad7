"""Puts the parts of the API server together; what the module, tests and the simulator all use.

State   None but the parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from edgesite.apiserver import usage
from edgesite.apiserver.accountadmission import ServiceAccounts
from edgesite.apiserver.accountkeys import JWKS_PATH, AccountKeys, add_discovery
from edgesite.apiserver.accounttokens import AccountTokens, TokenSettings
from edgesite.apiserver.admission import Admissions
from edgesite.apiserver.authn import Authenticator, BearerTokens, ClientCertificates, StaticTokens, User
from edgesite.apiserver.authz import Attributes, Authorizer, Masters, PlainPaths
from edgesite.apiserver.connect import Connections
from edgesite.apiserver.conversion import conversions
from edgesite.apiserver.crds import CustomResources
from edgesite.apiserver.devices import DeviceAdmission, DeviceStrategy, device_schemas
from edgesite.apiserver.documents import Documents, version_info
from edgesite.apiserver.kinds import Kind, Kinds, prefix_of
from edgesite.apiserver.logs import NodeRoads
from edgesite.apiserver.metrics import ApiMetrics
from edgesite.apiserver.nodeauth import NodeAuthorizer, NodeRestriction
from edgesite.apiserver.openapi import OpenApi
from edgesite.apiserver.plugins import DefaultTolerations, Priorities, RuntimeClasses
from edgesite.apiserver.rbac import EscalationGuard, Rbac
from edgesite.apiserver.reads import Reads
from edgesite.apiserver.registry import Registry
from edgesite.apiserver.reviews import Reviews
from edgesite.apiserver.rules import RuleAdmission, rule_schemas
from edgesite.apiserver.scheme import Scheme
from edgesite.apiserver.server import ApiServer, Parts
from edgesite.apiserver.signingadmission import SigningGuard
from edgesite.apiserver.storageplugins import storage_admission
from edgesite.apiserver.strategies.services import Addresses, Ports, ServiceStrategy
from edgesite.apiserver.strategies.table import strategy_of
from edgesite.apiserver.subresources import Subresources
from edgesite.apiserver.tokenrequests import TokenRequests
from edgesite.apiserver.views import Views
from edgesite.apiserver.watch import Watches
from edgesite.apiserver.writes import Writes
from edgesite.kube import devices, json, rulecrds
from edgesite.kube.resources import BUILTIN, SERVICES, Resource

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from edgesite.context import Clock, NodeConnector, Threads
    from edgesite.hookspecs import Admission
    from edgesite.kube.schema import Schemas
    from edgesite.store import Store

__all__ = ["Assembly", "Ranges", "assemble", "serve_kinds"]


@dataclass(frozen=True, slots=True)
class Ranges:
    """What Services are given from."""

    addresses: str = "10.96.0.0/16"
    first_port: int = 30000
    last_port: int = 32767


@dataclass(frozen=True, slots=True)
class Assembly:
    """The parts that others need to reach."""

    server: ApiServer
    registry: Registry
    watches: Watches
    documents: Documents
    metrics: ApiMetrics
    custom: CustomResources
    tokens: StaticTokens
    accounts: AccountTokens

    async def run(self) -> None:
        """What goes on beside requests, until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.watches.run)
            tasks.start_soon(self.custom.run)


def serve_kinds(schemas: Schemas, extra: Iterable[Resource] = (), ranges: Ranges = Ranges()) -> Kinds:
    """Make the table of built-in kinds and those of plugins. Raises ValueError for ranges that make no sense."""
    kinds = Kinds()
    rows = (*BUILTIN, *usage.ROWS, *extra)
    by_path = {(row.group, row.version, row.plural): row for row in rows}
    strategies = {(row.group, row.plural): strategy_of(row.group, row.plural) for row in rows if row.stored_as is None}
    strategies["", "services"] = ServiceStrategy(
        addresses=Addresses(ranges.addresses), ports=Ports(ranges.first_port, ranges.last_port)
    )
    strategies[devices.GROUP, "devices"] = strategies[devices.GROUP, "devicemodels"] = DeviceStrategy()
    custom = {**device_schemas(schemas), **rule_schemas(schemas)}
    for row in rows:
        stored = by_path[row.stored_as] if row.stored_as is not None else row
        schema = custom.get((row.plural, row.version)) if row.group in (devices.GROUP, rulecrds.GROUP) else None
        definition = schema.definition if schema else schemas.definition_of(row.group, row.version, row.kind)
        to_stored, from_stored = conversions(row, stored)
        strategy = strategies[stored.group, stored.plural]
        prefix = prefix_of(stored.group, stored.plural)
        kinds.add([Kind(row, strategy, prefix, stored, definition, to_stored, from_stored, schema)])
    return kinds


def assemble(
    store: Store,
    kinds: Kinds,
    schemas: Schemas,
    *,
    clock: Clock,
    random: random.Random,
    threads: Threads,
    version: str,
    address: str = "127.0.0.1:6443",
    tokens: Mapping[str, User] | None = None,
    keys: AccountKeys = AccountKeys(None, {}),
    token_settings: TokenSettings = TokenSettings(),
    plugins: Sequence[Admission] = (),
    authenticators: Sequence[Authenticator] = (),
    authorizers: Sequence[Authorizer] = (),
    connector: Callable[[], NodeConnector | None] = lambda: None,
    max_in_flight: int = 400,
    max_body: int = 3 * 1024 * 1024,
) -> Assembly:
    """Make a server over a store. More ``authenticators`` and ``authorizers`` are asked after the built-in ones."""
    rbac = Rbac(store, kinds)

    def allowed(user: User, wanted: Attributes) -> tuple[bool, str]:
        return server.allowed(user, wanted)

    guards: list[Admission] = [EscalationGuard(rbac, allowed), SigningGuard(allowed)]
    admissions = Admissions([*_builtin_admission(store, kinds, random), *guards], plugins)
    registry = Registry(store, kinds, Scheme(schemas), admissions, clock, random)
    _load_allocators(store, kinds)
    views = Views(clock)
    watches = Watches(store, views, clock, random)
    writes = Writes(registry, views, clock, threads)
    static = StaticTokens(tokens or {}, token_settings.api_audiences)
    accounts = AccountTokens(store, kinds, keys, token_settings, clock=clock, random=random, threads=threads)
    bearers = BearerTokens((static, accounts))
    reviews = Reviews(registry.scheme, bearers, token_settings.api_audiences, clock)
    documents = Documents(kinds, version=version, address=address)
    OpenApi(kinds, schemas, str(version_info(version)["gitVersion"]), threads).add_to(documents)
    add_discovery(documents, keys, token_settings.issuers[0], f"https://{address}{JWKS_PATH}")
    metrics = ApiMetrics(lambda: len(watches))
    roads = NodeRoads(registry, connector)
    parts = Parts(
        kinds=kinds,
        reads=Reads(registry, views, watches),
        writes=writes,
        subresources=Subresources(
            registry, writes, roads, Connections(registry, writes, roads), TokenRequests(registry, writes, accounts)
        ),
        reviews=reviews,
        usage=usage.Usage(registry, roads, clock),
        documents=documents,
        metrics=metrics,
    )
    server = ApiServer(
        parts,
        authenticators=(ClientCertificates(), bearers, *authenticators),
        authorizers=(Masters(), PlainPaths(), NodeAuthorizer(store, kinds), rbac, *authorizers),
        clock=clock,
        max_in_flight=max_in_flight,
        max_body=max_body,
    )
    reviews.allowed, reviews.rules_of = server.allowed, rbac.rules_of
    custom = CustomResources(registry, watches)
    custom.load()
    return Assembly(server, registry, watches, documents, metrics, custom, static, accounts)


def _builtin_admission(store: Store, kinds: Kinds, random: random.Random) -> list[Admission]:
    return [
        ServiceAccounts(store, kinds, random),
        Priorities(store, kinds),
        DefaultTolerations(store, kinds),
        RuntimeClasses(store, kinds),
        *storage_admission(store, kinds),
        NodeRestriction(store, kinds),
        DeviceAdmission(store, kinds),
        RuleAdmission(),
    ]


def _load_allocators(store: Store, kinds: Kinds) -> None:
    kind = kinds.of(SERVICES)
    if isinstance(kind.strategy, ServiceStrategy):
        kind.strategy.load(json.loads(row.value) for row in store.list(kind.prefix).rows)
