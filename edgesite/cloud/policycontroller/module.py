"""The module ``policycontroller``, with feature gate ``requireAuthorization``: keeps ServiceAccountAccess objects, and sends them.

    pods, accounts, roles, bindings ──> Keeper ────> API: serviceaccountaccesses, one for each account of pods on edge nodes
    serviceaccountaccesses ──────────> Messenger ──> bus: cloudhub

Objects are delivered reliably, as ConfigMaps are: synccontroller compares what each node holds.

State   Caches of the role; what has ended is remembered until its nodes were told.
Source  KubeEdge v1.14, cloud/pkg/policycontroller (source and group of messages, resource).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ClassVar, Final

import anyio

from edgesite.client import Client, Controller, ObjectKey, Result, SharedInformers, key_of
from edgesite.cloud.cloudhub.records import ConnectedNodes, DeliveryRecords
from edgesite.cloud.cloudhub.waiting import service, while_provided
from edgesite.cloud.edgecontroller.downstream import object_message, removal_message
from edgesite.cloud.edgecontroller.objects import EdgeObject
from edgesite.cloud.policycontroller.objects import ACCESS, PolicyObjects, account_of
from edgesite.cloud.policycontroller.rights import spec_of
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    ROLE_BINDINGS,
    ROLES,
    SERVICE_ACCOUNT_ACCESSES,
    SERVICE_ACCOUNTS,
)
from edgesite.wire.message import MessageMaker, Operation

if TYPE_CHECKING:
    from edgesite.context import Context, Section
    from edgesite.wire.message import Message

__all__ = ["PolicyController"]

Object = dict[str, Any]
GATE: Final = "requireAuthorization"
_GONE: Final = (404, 409)  #: these bring an event of their own


class PolicyController:
    """See the module docstring."""

    name: ClassVar[str] = "policycontroller"
    roles: ClassVar[frozenset[str]] = frozenset({"cloud"})
    needs: ClassVar[frozenset[str]] = frozenset({"apiserver"})
    section: ClassVar[str] = ""

    def enabled(self, settings: Section) -> bool:
        hub = settings.get("modules", {}).get("cloudHub", {})
        return bool((settings.get("featureGates") or {}).get(GATE) and hub.get("enable", True))

    async def run(self, ctx: Context) -> None:
        """Control until cancelled. Raises ProviderGone."""
        provided = await service(ctx, Client)
        client = provided.named("policycontroller")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(while_provided, ctx, Client, provided)
            informers = ctx.services.find(SharedInformers)
            if informers is not None:
                tasks.start_soon(while_provided, ctx, SharedInformers, informers)
            else:
                informers = SharedInformers(client, ctx.clock, ctx.random, ctx.log)
                tasks.start_soon(informers.run)
            objects = PolicyObjects(informers, lambda node: _is_own(ctx, node))
            full = anyio.Event()
            tasks.start_soon(_Keeper(ctx, client, informers, objects).run, full.set)
            await full.wait()
            ctx.services.provide(PolicyObjects, objects)
            tasks.start_soon(_Messenger(ctx, objects).run, ctx.ready)
            await anyio.sleep_forever()


def _is_own(ctx: Context, node: str) -> bool:
    hub = ctx.services.find(ConnectedNodes)  # type: ignore[type-abstract]
    return hub is not None and hub.is_own(node)


class _Keeper:
    """Brings one account's object to what roles and bindings say."""

    def __init__(self, ctx: Context, client: Client, informers: SharedInformers, objects: PolicyObjects) -> None:
        self._client, self._objects = client, objects
        self._accounts = informers.of(SERVICE_ACCOUNTS)
        self._roles, self._cluster_roles = informers.of(ROLES), informers.of(CLUSTER_ROLES)
        self._bindings, self._cluster_bindings = informers.of(ROLE_BINDINGS), informers.of(CLUSTER_ROLE_BINDINGS)
        self._controller = Controller("policycontroller", self.reconcile, ctx.clock, ctx.random, workers=1, log=ctx.log)

    async def run(self, ready: Callable[[], None]) -> None:
        objects, queue = self._objects, self._controller.queue
        rbac = (self._roles, self._cluster_roles, self._bindings, self._cluster_bindings)
        with ExitStack() as handlers:
            handlers.enter_context(objects.pods.add_handler(self._pod, self._pod_updated, self._pod))
            handlers.enter_context(objects.nodes.add_handler(self._node, self._node_updated, self._node))
            for informer in (self._accounts, objects.accesses):
                handlers.enter_context(informer.on_change(lambda one: queue.add(key_of(one))))
            for informer in rbac:
                handlers.enter_context(informer.on_change(self._rights))
            synced = (objects.pods, objects.nodes, objects.accesses, self._accounts, *rbac)
            await self._controller.run(synced, ready=ready)

    def _pod(self, pod: Object) -> None:
        place = account_of(pod)
        if place is not None:
            self._controller.queue.add(ObjectKey(*place))

    def _pod_updated(self, old: Object, new: Object) -> None:
        if account_of(old) != account_of(new) or old["spec"].get("nodeName") != new["spec"].get("nodeName"):
            self._pod(old)
            self._pod(new)

    def _node(self, node: Object) -> None:
        for pod in self._objects.pods.list():
            if pod["spec"].get("nodeName") == node["metadata"]["name"]:
                self._pod(pod)

    def _node_updated(self, old: Object, new: Object) -> None:
        if old["metadata"].get("labels") != new["metadata"].get("labels"):
            self._node(new)

    def _rights(self, obj: Object) -> None:
        """A role or a binding may be of any account that has an object."""
        for one in self._objects.accesses.list():
            self._controller.queue.add(key_of(one))

    async def reconcile(self, key: ObjectKey) -> Result | None:
        """Raises ApiError."""
        account = self._accounts.by_key(key)
        nodes = list(self._objects.nodes_using(key.namespace, key.name))
        have = self._objects.accesses.by_key(key)
        try:
            if account is None or not nodes:
                if have is not None:
                    uid = have["metadata"]["uid"]
                    await self._client.delete(SERVICE_ACCOUNT_ACCESSES, key.name, key.namespace, uid=uid)
                return None
            spec = spec_of(account, self._bindings.list(), self._cluster_bindings.list(), self._rules_at)
            if have is None:
                have = await self._create(key, account, spec)
            elif have.get("spec") != spec:
                have = await self._client.update(SERVICE_ACCOUNT_ACCESSES, {**_typed(have), "spec": spec})
            if (have.get("status") or {}).get("nodeList") != nodes:
                status = {"status": {"nodeList": nodes}}
                await self._client.patch(
                    SERVICE_ACCOUNT_ACCESSES, key.name, status, key.namespace, subresource="status"
                )
        except ApiError as exc:
            if exc.code not in _GONE:
                raise
        return None

    async def _create(self, key: ObjectKey, account: Object, spec: Object) -> Object:
        """Raises ApiError."""
        owner = {"apiVersion": "v1", "kind": "ServiceAccount", "name": key.name, "uid": account["metadata"]["uid"]}
        metadata = {"name": key.name, "namespace": key.namespace, "ownerReferences": [owner]}
        return await self._client.create(SERVICE_ACCOUNT_ACCESSES, _typed({"metadata": metadata, "spec": spec}))

    def _rules_at(self, namespace: str, name: str) -> list[Object] | None:
        found = self._roles.get(name, namespace) if namespace else self._cluster_roles.get(name)
        return None if found is None else list(found.get("rules") or ())


class _Messenger:
    """Tells nodes of objects as they change, and of their end."""

    def __init__(self, ctx: Context, objects: PolicyObjects) -> None:
        self._ctx, self._objects = ctx, objects
        self._maker = MessageMaker(ctx.clock.time, ctx.random.getrandbits)
        self._ended: dict[ObjectKey, dict[str, None]] = {}  # uids of what has ended under a name
        self._controller = Controller(
            "policycontroller-messages", self.reconcile, ctx.clock, ctx.random, workers=1, log=ctx.log
        )

    async def run(self, ready: Callable[[], None]) -> None:
        queue = self._controller.queue

        def changed(one: Object) -> None:
            queue.add(key_of(one))

        def updated(old: Object, new: Object) -> None:
            if old["metadata"]["uid"] != new["metadata"]["uid"]:
                deleted(old)
            changed(new)

        def deleted(one: Object) -> None:
            self._ended.setdefault(key_of(one), {})[one["metadata"]["uid"]] = None
            changed(one)

        with self._objects.accesses.add_handler(changed, updated, deleted):
            await self._controller.run((self._objects.accesses,), ready=ready)

    async def reconcile(self, key: ObjectKey) -> Result | None:
        """Send what is there to whom it is for, and its end to whoever else holds it."""
        for uid in self._ended.pop(key, {}):
            for node in self._holders(uid):
                await self._remove(node, key, uid)
        obj = self._objects.get(ACCESS, key.namespace, key.name)
        if obj is None:
            return None
        one = EdgeObject(ACCESS, obj)
        using = self._objects.nodes_using(key.namespace, key.name)
        for node in self._holders(one.uid):
            if node not in using:
                await self._remove(node, key, one.uid)
        for node in using:
            if self._objects.takes(node):
                if (records := self._records()) is not None:
                    records.on_its_way(node, one.uid)
                await self._send(object_message(self._maker, node, Operation.UPDATE, one))
        return None

    async def _remove(self, node: str, key: ObjectKey, uid: str) -> None:
        await self._send(removal_message(self._maker, node, ACCESS, key.namespace, key.name, uid))

    def _records(self) -> DeliveryRecords | None:
        return self._ctx.services.find(DeliveryRecords)  # type: ignore[type-abstract]

    def _holders(self, uid: str) -> Iterable[str]:
        records = self._records()
        return () if records is None else list(records.holders(uid))

    async def _send(self, message: Message) -> None:
        try:
            await self._ctx.bus.send("cloudhub", message)
        except LookupError:
            return  # no hub, no session: the next one begins with a comparison


def _typed(obj: Object) -> Object:
    row = SERVICE_ACCOUNT_ACCESSES
    return {"kind": row.kind, "apiVersion": row.api_version, **obj}
