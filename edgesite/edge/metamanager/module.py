"""The module ``metamanager``: stores what comes from the cloud, passes it on, and acknowledges it; in this order.

    hub ──> group meta ──> judge and store ──> group edged (or twin) ──> acknowledgement ──> hub

What is not newer than what is held is acknowledged and goes no further. If the disk refuses, nothing is acknowledged, nor is an
object whose name another one holds in a newer version: the cloud sends it again.

Source  KubeEdge v1.12.7, edge/pkg/metamanager/process.go.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import anyio
from msgspec.structs import replace
from prometheus_client import CollectorRegistry, Counter, Gauge

from edgesite.context import Context, Section
from edgesite.edge.edgehub.link import CONNECTED, Link
from edgesite.edge.metamanager import outbox as outbox_rows
from edgesite.edge.metamanager.batch import Batch
from edgesite.edge.metamanager.database import EdgeDatabase
from edgesite.edge.metamanager.delivery import Delivery
from edgesite.edge.metamanager.meta import Holdings, Meta
from edgesite.edge.metamanager.outbox import Outbox
from edgesite.edge.metamanager.rows import Rows
from edgesite.edge.metamanager.schema import go_json
from edgesite.edge.metamanager.service import HUB, MetaService
from edgesite.edge.metamanager.store import Arrival, EdgeStore, Outcome, StoreError
from edgesite.kube.errors import ApiError, bad_request
from edgesite.wire import resource
from edgesite.wire.delta import DELTA, NoDelta, apply_delta
from edgesite.wire.message import InvalidMessage, Message, MessageMaker, Operation, busy, error_content
from edgesite.wire.newer import Verdict

if TYPE_CHECKING:
    from edgesite.edge.metamanager.replica import Replica

__all__ = ["MetaManager", "database_path"]

_KUBEEDGE_PATH: Final = "/var/lib/kubeedge/edgecore.db"
_TWIN_TYPES: Final = frozenset({"device", "devicemodel"})
_STORED: Final = frozenset({Operation.INSERT.value, Operation.UPDATE.value, Operation.DELETE.value})
_REST_S: Final = 1  #: before the disk is tried again
_OBJECT_TYPES: Final = frozenset({"pod", "configmap", "secret"})


def database_path(settings: Section, data_dir: Path) -> Path:
    """Where the edge's database is: as configured; KubeEdge's default path means the role's own data folder."""
    section = settings.get("database") or settings.get("dataBase") or {}
    configured = section.get("dataSource") or ""
    return Path(configured) if configured and configured != _KUBEEDGE_PATH else data_dir / "edgecore.db"


class MetaManager:
    """See the module docstring."""

    name: ClassVar[str] = "metamanager"
    roles: ClassVar[frozenset[str]] = frozenset({"edge"})
    needs: ClassVar[frozenset[str]] = frozenset()
    section: ClassVar[str] = "modules.metaManager"

    def __init__(self) -> None:
        self._metrics: _Metrics | None = None  # kept over restarts: a registry takes each name once

    def enabled(self, settings: Section) -> bool:
        section = settings.get("modules", {}).get("metaManager", {})
        return bool(section.get("enable", True))

    async def run(self, ctx: Context) -> None:
        database = EdgeDatabase(ctx.disk, database_path(ctx.settings, ctx.data_dir))
        worker = ctx.threads.worker("metamanager")
        try:
            if not await worker.submit(database.open):
                ctx.log.error("the database was damaged: what it held is asked from the cloud again")
            store = EdgeStore(database, worker)
            await store.load()
            replica = None
            if (ctx.config.get("metaServer") or {}).get("enable"):
                from edgesite.edge.metamanager.replica import Replica  # most nodes are without

                replica = Replica(store, ctx.clock, ctx.log)
                await replica.load()
            outbox = Outbox()
            outbox.load(await worker.submit(database.query, outbox_rows.LOAD))
            self._metrics = self._metrics or _Metrics(ctx.metrics)
            await _Run(ctx, store, outbox, self._metrics, replica).run()
        finally:
            with anyio.CancelScope(shield=True):
                await worker.submit(database.close)
                await worker.close()


class _Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        name = "edgesite_metamanager"
        self.applied = Counter(
            f"{name}_objects", "Objects from the cloud, by what became of them", ["verdict"], registry=registry
        )
        self.refused = Counter(f"{name}_refused", "Messages that could not be read", registry=registry)
        self.waiting = Gauge(f"{name}_outbox", "Reports that wait for the cloud", registry=registry)


class _Run:
    """One run of the module: an inbox, a batch of arrivals, the delivery of reports."""

    def __init__(
        self, ctx: Context, store: EdgeStore, outbox: Outbox, metrics: _Metrics, replica: Replica | None
    ) -> None:
        self._replica = replica
        self._ctx = ctx
        self._store = store
        self._outbox = outbox
        self._maker = MessageMaker(ctx.clock.time, ctx.random.getrandbits)
        self._service = MetaService(store, outbox, ctx.bus, self._maker, ctx.clock)
        self._arrived: Batch[Message] = Batch(512)
        self._metrics = metrics
        metrics.waiting.set_function(lambda: float(len(outbox)))

    async def run(self) -> None:
        ctx = self._ctx
        inbox = ctx.bus.join("metamanager", "meta")
        link = ctx.services.find(Link)  # type: ignore[type-abstract]
        self._service.set_connected(link is not None and link.connected)
        delivery = Delivery(
            self._outbox, self._store, self._service, ctx.bus, ctx.services, ctx.clock, ctx.random, ctx.log
        )
        async with anyio.create_task_group() as tasks:
            storing = anyio.CancelScope(shield=True)
            tasks.start_soon(self._keep_storing, storing)
            try:
                tasks.start_soon(self._store_arrivals)
                tasks.start_soon(delivery.run)
                if self._replica is not None:
                    tasks.start_soon(self._replica.run)
                    ctx.services.provide(type(self._replica), self._replica)
                ctx.services.provide(Meta, self._service)  # type: ignore[type-abstract]
                ctx.services.provide(Holdings, self._service)  # type: ignore[type-abstract]
                ctx.services.provide(Rows, self._store)  # type: ignore[type-abstract]
                ctx.ready()
                async for message in inbox:
                    await self._take(message)
            finally:
                try:
                    await self._save_at_end()
                finally:
                    storing.cancel()

    async def _keep_storing(self, scope: anyio.CancelScope) -> None:
        """The store ends last, when what the others leave behind is on disk."""
        with scope:
            await self._store.run()

    async def _save_at_end(self) -> None:
        """What was reported while there was a link may not have been answered."""
        with anyio.move_on_after(5.0, shield=True):
            try:
                await self._service.save_outbox()
            except StoreError as exc:
                self._ctx.log.error("reports are lost at the end of the run: %s", exc)
            try:
                if self._replica is not None:
                    await self._replica.flush()
            except StoreError as exc:
                self._ctx.log.error("what was read from the API last is not on disk: %s", exc)

    async def _take(self, message: Message) -> None:
        if message.operation == Operation.CONNECT:
            connected = message.content == CONNECTED
            self._service.set_connected(connected)
            if not connected:
                try:
                    await self._service.save_outbox()
                except StoreError as exc:
                    self._ctx.log.error("reports cannot be saved: %s", exc)
        elif message.operation in _STORED:
            await self._arrived.add(message)
        else:
            self._ctx.log.debug("left alone: operation=%s resource=%s", message.operation, message.resource)

    async def _store_arrivals(self) -> None:
        while True:
            messages = await self._arrived.take()
            read = []
            for message in messages:
                try:
                    whole = await self._whole(message)
                    read.append((whole, self._read(whole)))
                except NoDelta as exc:
                    status = ApiError(409, "Conflict", str(exc)).status()
                    await self._to_hub(self._maker.error(message, error_content(status)))
                except StoreError as exc:
                    await self._refuse([message], busy(str(exc), _REST_S))
                except InvalidMessage as exc:
                    self._metrics.refused.inc()
                    self._ctx.log.warning(
                        "refused: operation=%s resource=%s: %s", message.operation, message.resource, exc
                    )
                    await self._to_hub(self._maker.error(message, error_content(bad_request(str(exc)).status())))
            if not read:
                continue
            try:
                outcomes = await self._store.apply([arrival for _, arrival in read])
            except StoreError as exc:
                self._ctx.log.error("the disk refused %d objects: %s", len(read), exc)
                await self._refuse([message for message, _ in read], busy(str(exc), _REST_S))
                await self._ctx.clock.sleep(_REST_S)
                continue
            for (message, arrival), outcome in zip(read, outcomes, strict=True):
                self._metrics.applied.labels(outcome.verdict.value).inc()
                if outcome.outranked:
                    # Late, or of a cloud whose versions began anew: it comes again until its end, or that of the other, is told.
                    await self._refuse([message], f"another {message.resource} is held in a newer version")
                    continue
                if outcome.ended:  # late; or the cloud was restored from a backup, and has to know
                    gone = ApiError(410, "Gone", f"{message.resource} has ended here").status()
                    await self._to_hub(self._maker.error(message, error_content(gone)))
                    continue
                await self._pass_on(message, arrival, outcome)
                await self._to_hub(self._maker.ack(message))

    async def _whole(self, message: Message) -> Message:
        """The message with the whole object, if it tells a change of what is stored. Raises NoDelta, StoreError."""
        if message.type != DELTA:
            return message
        held = await self._store.get(message.resource)
        return replace(message, content=apply_delta(held, message.content), type="")

    def _read(self, message: Message) -> Arrival:
        """Raises InvalidMessage."""
        is_delete = message.operation == Operation.DELETE
        try:
            obj = message.object() if message.content is not None or not is_delete else {}
            _check(message, obj, is_delete)
            text = "" if is_delete else go_json(obj)
        except (ValueError, RecursionError) as exc:  # what cannot be written back must not stop the rest
            raise InvalidMessage(str(exc)) from exc
        return Arrival(message.resource, obj, is_delete, text)

    async def _refuse(self, messages: list[Message], why: str | dict[str, Any]) -> None:
        for message in messages:
            await self._to_hub(self._maker.error(message, why))

    async def _pass_on(self, message: Message, arrival: Arrival, outcome: Outcome) -> None:
        if outcome.verdict is Verdict.IGNORE:
            return
        path = resource.parse(arrival.key)
        group = "twin" if path.type in _TWIN_TYPES else "edged"
        if outcome.verdict is Verdict.REPLACE:
            metadata: dict[str, Any] = {"name": path.name, "namespace": path.namespace, "uid": outcome.replaced_uid}
            ended = replace(message, operation=Operation.DELETE.value, content={"metadata": metadata})
            await self._ctx.bus.send_group(group, ended)
        await self._ctx.bus.send_group(group, message)
        if self._replica is not None:
            await self._ctx.bus.send_group("metaserver", message)

    async def _to_hub(self, message: Message) -> None:
        try:
            await self._ctx.bus.send(HUB, message)
        except LookupError:
            return  # the hub is gone; the next session sends again what was not acknowledged


def _check(message: Message, obj: dict[str, Any], is_delete: bool) -> None:
    """Whoever reads an object of these types from the store relies on its metadata. Raises InvalidMessage."""
    path = resource.parse(message.resource)
    metadata = obj.get("metadata", {} if is_delete else None)
    if path.type not in _OBJECT_TYPES:
        return
    if not isinstance(metadata, dict) or (not is_delete and metadata.get("name") != path.name):
        raise InvalidMessage(f"content of {message.resource} is not that object")
