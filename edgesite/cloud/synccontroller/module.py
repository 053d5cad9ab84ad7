"""The module ``synccontroller``: brings a node that connects up to date, and proves from time to time that it still is.

A node is compared as soon as its session opens, deletes included, and again every ``PROOF_S``: by the caches and the records
alone, without a request to the API. What differs is sent through CloudHub, whose session leaves out what is under way already.

Records of nodes that are gone are removed.

Source  KubeEdge v1.12.7, cloud/pkg/synccontroller (there every 5 s, with a live GET for each object).
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

import anyio

from edgesite.client import Client
from edgesite.cloud.cloudhub.records import ConnectedNodes, DeliveryRecords
from edgesite.cloud.cloudhub.waiting import service, while_provided
from edgesite.cloud.edgecontroller.downstream import object_message, removal_message
from edgesite.cloud.edgecontroller.objects import EdgeObjects
from edgesite.cloud.synccontroller.lostpast import LostPast
from edgesite.cloud.synccontroller.records import Records
from edgesite.cloud.synccontroller.writer import RecordWriter
from edgesite.context import Context, Section
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import CLUSTER_OBJECT_SYNCS, OBJECT_SYNCS
from edgesite.wire import resource
from edgesite.wire.message import Message, MessageMaker, Operation

__all__ = ["SyncController"]

PROOF_S: Final = 300.0


class SyncController:
    """See the module docstring."""

    name: ClassVar[str] = "synccontroller"
    roles: ClassVar[frozenset[str]] = frozenset({"cloud"})
    needs: ClassVar[frozenset[str]] = frozenset({"edgecontroller"})
    section: ClassVar[str] = "modules.syncController"

    def enabled(self, settings: Section) -> bool:
        modules = settings.get("modules", {})
        wanted = modules.get("syncController", {}).get("enable", True)
        return bool(wanted and modules.get("cloudHub", {}).get("enable", True))

    async def run(self, ctx: Context) -> None:
        provided = await service(ctx, Client)
        client = provided.named("synccontroller")
        inbox = ctx.bus.join("synccontroller", "synccontroller")
        records = Records()
        records.load(await _recorded(ctx, client))
        proof = _Proof(ctx, records, client)
        writer = RecordWriter(client, records, ctx.random, ctx.log)
        async with anyio.create_task_group() as tasks:
            ctx.services.provide(DeliveryRecords, records)  # type: ignore[type-abstract]
            tasks.start_soon(while_provided, ctx, Client, provided)
            tasks.start_soon(proof.run)
            tasks.start_soon(writer.run)
            ctx.ready()
            try:
                async for message in inbox:
                    if message.operation == Operation.CONNECTED:
                        proof.add(resource.node_of(message.resource))
                    elif message.operation == Operation.DISCONNECTED:
                        records.left(resource.node_of(message.resource))
                        records.hurry()
            finally:
                with anyio.move_on_after(5.0, shield=True):
                    await writer.flush()


async def _recorded(ctx: Context, client: Client) -> list[dict[str, Any]]:
    """All records in the API. Raises ApiError."""
    found: list[dict[str, Any]] = []
    for kind in (OBJECT_SYNCS, CLUSTER_OBJECT_SYNCS):
        try:
            found += (await client.list(kind)).get("items") or ()
        except ApiError as exc:
            if exc.code != 404:  # a cluster without these kinds is worked with all the same
                raise
            ctx.log.warning("the API has no %s: deliveries are not recorded there", kind.plural)
    return found


class _Proof:
    """Compares nodes, one after the other."""

    def __init__(self, ctx: Context, records: Records, client: Client) -> None:
        self._ctx = ctx
        self._client = client
        self._records = records
        self._strangers: set[str] = set()  # nodes that may come from another instance, and do not tell what they hold
        self._maker = MessageMaker(ctx.clock.time, ctx.random.getrandbits)
        self._past = LostPast(ctx, client, records)
        records.suspect, records.suspect_all = self._queue, self._queue_all
        self._nodes: dict[str, None] = {}
        self._filled = anyio.Event()

    def add(self, node: str) -> None:
        """Compare a node that has connected."""
        hub = self._ctx.services.find(ConnectedNodes)  # type: ignore[type-abstract]
        if not self._ctx.site.get("embedded_api") and hub is not None and not hub.is_own(node):
            self._strangers.add(node)
        self._queue(node)

    def _queue(self, node: str) -> None:
        self._nodes[node] = None
        self._filled.set()

    def _queue_all(self) -> None:
        hub = self._ctx.services.find(ConnectedNodes)  # type: ignore[type-abstract]
        for node in hub.nodes() if hub is not None else ():
            self._queue(node)

    async def _catch_up(self) -> None:
        """Learn what other instances have recorded of nodes that may come from them."""
        nodes, self._strangers = self._strangers, set()
        try:
            self._records.catch_up(await _recorded(self._ctx, self._client), nodes)
        except ApiError as exc:
            self._ctx.log.warning("what other instances have recorded is not known: %s", exc)
            self._strangers |= nodes  # the next proof asks again

    async def run(self) -> None:
        hub = self._ctx.services.find(ConnectedNodes)  # type: ignore[type-abstract]
        for node in hub.nodes() if hub is not None else ():
            self.add(node)  # they connected while this module was away
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._prove)
            while True:
                if not self._nodes:
                    self._filled = anyio.Event()
                    await self._filled.wait()
                node = next(iter(self._nodes))
                del self._nodes[node]
                if self._strangers:
                    await self._catch_up()
                await self.compare(node)

    async def _prove(self) -> None:
        while True:
            await self._ctx.clock.sleep(PROOF_S * (0.9 + self._ctx.random.random() / 5))
            objects = await service(self._ctx, EdgeObjects)
            for node in self._records.nodes():
                if not objects.node_exists(node):
                    self._records.forget_node(node)
            self._queue_all()

    async def compare(self, node: str) -> None:
        """Send what the node lacks, and the end of what it should no longer have."""
        objects = await service(self._ctx, EdgeObjects)
        denied = self._records.take_denied(node)
        seen = {ref.uid for ref in denied}
        try:
            ended = await self._past.look(node, objects, denied)
            if ended is None:
                return  # it tells what it holds, and is compared again
            seen = ended
        except ApiError as exc:
            self._ctx.log.warning("node %s may know more than the API, which does not answer: %s", node, exc)
        sent = 0
        for ref in self._records.of(node):
            if not objects.manages(ref.type) or ref.type == "node":
                continue
            word = objects.word(node, ref.type, ref.namespace)
            if objects.is_gone(ref.type, ref.namespace, ref.name, ref.uid, node):
                sent += 1
                place = (ref.type, ref.namespace, ref.name, ref.uid, word)
                await self._send(removal_message(self._maker, node, *place))
            elif objects.is_followed(ref.type):
                one = objects.get(ref.type, ref.namespace, ref.name)
                if one is not None and ref.version < one.version:
                    sent += 1
                    self._records.on_its_way(node, one.uid)
                    await self._send(object_message(self._maker, node, Operation.UPDATE, one, word))
        for one in objects.desired(node):
            if one.uid in seen:
                continue
            seen.add(one.uid)
            have = self._records.version_at_edge(node, one.uid)
            if have is None or have < one.version:
                sent += 1
                self._records.on_its_way(node, one.uid)
                await self._send(object_message(self._maker, node, Operation.UPDATE, one))
        if sent:
            self._ctx.log.info("node %s: %d objects differ and were sent", node, sent)

    async def _send(self, message: Message) -> None:
        try:
            await self._ctx.bus.send("cloudhub", message)
        except LookupError:
            return  # the hub restarts, and its nodes are compared again when they connect
