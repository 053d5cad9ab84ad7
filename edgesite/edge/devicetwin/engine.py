"""The loop of DeviceTwin: takes what waits, changes twins, writes all of it at once, then tells.

    clients, cloud, objects, mappers ──> line ──> turn: change ──> disk ──> publications, answers, what the cloud has to hear of

Nothing is told before it is on disk, but times and versions of values that were reported again unchanged: these are written every
minute. When the disk refuses, a turn is tried five times, a second apart; then it is taken back, and clients are answered so.

Bounds  `_LINE` items wait; whoever adds more waits too.
Errors  StoreError only from ``load``. A defect in the treatment of one item is logged, and the item dropped.
Source  KubeEdge v1.12, edge/pkg/devicetwin/dtclient (five tries).
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.edge.devicetwin.clients import Clients
from edgesite.edge.devicetwin.membership import Membership
from edgesite.edge.devicetwin.publishing import Publishing
from edgesite.edge.devicetwin.state import Device, Registry, Twin
from edgesite.edge.devicetwin.tables import DeviceTables
from edgesite.edge.devicetwin.turn import Publication, Turn
from edgesite.edge.devicetwin.uplink import Uplink
from edgesite.edge.metamanager.batch import Batch, BatchClosed
from edgesite.edge.metamanager.store import StoreError
from edgesite.kube import json
from edgesite.kube.errors import ApiError, internal

if TYPE_CHECKING:
    import random

    from edgesite.context import Clock

__all__ = ["Engine", "Request"]

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]
Action = Callable[[Turn], None]
_LINE: Final = 256
_PUBLICATIONS: Final = 512  #: or a few more in one turn
_PUBLISHED_BYTES: Final = 4 << 20
_TRIES: Final = 5
_PAUSE_S: Final = 1.0
_AGAIN_S: Final = 5.0
_LAZY_S: Final = 60.0
_STOPPING: Final = "DeviceTwin is stopping"


class Request:
    """An item whose sender waits for it to be on disk."""

    __slots__ = ("action", "done", "error")

    def __init__(self, action: Action) -> None:
        self.action = action
        self.done = anyio.Event()
        self.error: ApiError | None = None

    def finish(self, error: ApiError | None = None) -> None:
        self.error = self.error or error
        self.done.set()


class Engine:
    """``publish`` hands publications to EventBus; `run` works until cancelled."""

    def __init__(
        self,
        registry: Registry,
        membership: Membership,
        clients: Clients,
        publishing: Publishing,
        tables: DeviceTables,
        uplink: Uplink,
        publish: Callable[[list[Publication]], Awaitable[None]],
        clock: Clock,
        draw: random.Random,
        log: Log,
    ) -> None:
        self.registry = registry
        self.membership = membership
        self.clients = clients
        self.uplink = uplink
        self._publishing = publishing
        self._tables = tables
        self._publish = publish
        self._clock = clock
        self._random = draw
        self._log = log
        self._line: Batch[Action | Request] = Batch(_LINE)
        self._lazy: dict[Twin, tuple[str, str]] = {}
        self._items: deque[Action | Request] = deque()  # taken from the line, not worked on yet
        self._objects_lost = False
        self._looks_again = False

    async def add(self, item: Action | Request) -> None:
        """Queue something to be done to the twins. Raises BatchClosed at the end."""
        await self._line.add(item)

    # -- from disk -----------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read what is stored here, and take what the cloud's objects say that was not taken before a crash. Raises StoreError."""
        await self._tables.load(self.registry)
        await self._take_objects(loading=True)
        self.uplink.note_all()

    async def _take_objects(self, *, loading: bool) -> None:
        """Raises StoreError."""
        present: set[str] = set()
        for type_ in ("devicemodel", "device"):
            after = ""
            while rows := await self._tables.objects(type_, after):
                after = rows[-1][0]
                turn = self._new_turn()
                for _, text in rows:
                    obj = _object(text)
                    if obj is not None:
                        self.membership.object_changed(turn, type_, obj, loading=loading)
                        present.add(f"{type_}/{obj['metadata'].get('uid')}")
                await self._finish_or_undo(turn)
        turn = self._new_turn()
        for device in list(self.registry):
            if device.uid and f"device/{device.uid}" not in present:
                self.membership.object_gone(turn, "device", device.namespace, device.name)
        await self._finish_or_undo(turn)

    async def _finish_or_undo(self, turn: Turn) -> None:
        """What is not written must not be there either: it would be no news the next time. Raises StoreError."""
        try:
            await self._finish(turn)
        except StoreError:
            turn.undo()
            raise

    # -- the loop ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._write_lazily)
                while True:
                    self._items.extend(await self._line.take())
                    while self._items:
                        await self._turn(self._items)
                    if self._objects_lost and not await self._recover() and not self._looks_again:
                        self._looks_again = True
                        tasks.start_soon(self._look_again)
        finally:
            for item in (*self._items, *self._line.close()):
                if isinstance(item, Request):
                    item.finish(internal(_STOPPING))

    async def _turn(self, items: deque[Action | Request]) -> None:
        """Take items as long as what is to be told of them stays small."""
        turn = self._new_turn()
        requests = []
        told = size = 0
        while items and len(turn.published) < _PUBLICATIONS and size < _PUBLISHED_BYTES:
            item = items.popleft()
            mark, sizes = turn.mark, turn.sizes()
            try:
                (item.action if isinstance(item, Request) else item)(turn)
            except ApiError as exc:
                if isinstance(item, Request):
                    item.finish(exc)
                turn.undo(mark)
                continue
            except Exception:
                self._log.exception("an item could not be worked on")
                turn.undo_all(mark, sizes)
                if isinstance(item, Request):
                    item.finish(internal("the report could not be worked on"))
                continue
            if isinstance(item, Request):
                requests.append(item)
            size += sum(len(payload) for _, payload in turn.published[told:])
            told = len(turn.published)
        error: ApiError | None = internal(_STOPPING)
        try:
            error = await self._commit(turn)
        finally:
            for request in requests:
                request.finish(error)

    async def _commit(self, turn: Turn) -> ApiError | None:
        for left in reversed(range(_TRIES)):
            try:
                await self._finish(turn)
            except StoreError as exc:
                self._log.error("the disk refused changes of twins (%d tries left): %s", left, exc)
                if left:
                    await self._clock.sleep(_PAUSE_S)
                    continue
                await self._take_back(turn, str(exc))
                return internal(str(exc))
            return None
        return None

    async def _take_back(self, turn: Turn, why: str) -> None:
        turn.undo()
        self._objects_lost = True
        failed = self._new_turn()
        for id_text, event in turn.asked:
            self._publishing.error(failed, id_text, "twin/update", event, 500, why)
        await self._publish(failed.published)

    async def _recover(self) -> bool:
        """Take the cloud's objects anew, some of which were lost with a turn that the disk refused; False if it still does."""
        try:
            await self._take_objects(loading=False)
        except StoreError as exc:
            self._log.error("devices cannot be read anew: %s", exc)
            return False
        self._objects_lost = False
        return True

    async def _look_again(self) -> None:
        """Come back to what was lost, also where nothing else happens here."""
        await self._clock.sleep(_AGAIN_S * (0.5 + self._random.random() / 2))
        self._looks_again = False
        with contextlib.suppress(BatchClosed):
            await self._line.add(_nothing)

    def _new_turn(self) -> Turn:
        return Turn(int(self._clock.time() * 1000), self._tables.next_row)

    async def _finish(self, turn: Turn) -> None:
        """Write, then tell. Raises StoreError: then nothing has happened."""
        await self._tables.commit(turn)
        for twin in turn.dirty:
            self._lazy.pop(twin, None)
        self._lazy.update((twin, place) for twin, place in turn.lazy.items() if twin not in turn.dirty)
        for action in turn.after:
            action()
        self.uplink.note(turn.told, turn.states)
        self.uplink.reject(turn.rejected)
        if turn.published:
            await self._publish(turn.published)

    async def _write_lazily(self) -> None:
        while True:
            await self._clock.sleep(_LAZY_S)
            await self.write_lazy()

    async def write_lazy(self) -> None:
        """Write times and versions of values that were reported again."""
        while self._lazy:
            part = dict(list(self._lazy.items())[:1000])
            try:
                await self._tables.write_twins(part)
            except StoreError as exc:
                self._log.warning("times of reports are not written: %s", exc)
                return
            for twin in part:
                self._lazy.pop(twin, None)

    def gone(self, device: Device) -> None:
        """A device has ended here."""
        for twin in device.twins.values():
            self._lazy.pop(twin, None)
        self.clients.forget(device)
        self.uplink.forget(device)


def _nothing(turn: Turn) -> None:
    """An item that wakes the loop."""


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (json.InvalidJson, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("metadata"), dict) else None
