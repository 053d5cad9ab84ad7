"""Carries the reports of the outbox to the cloud while there is a link, several objects at a time.

An answer ends a report, a refusal too if trying again cannot help: the object is gone, or the report is wrong. What may pass
by itself (no answer in time, a conflict, an overloaded server) is tried again with backoff and jitter.
"""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING, Final

import anyio

from edgesite.edge.edgehub.link import Link
from edgesite.edge.metamanager.outbox import Entry, Outbox
from edgesite.edge.metamanager.service import HUB, MetaService, object_in_answer
from edgesite.edge.metamanager.store import EdgeStore, StoreError
from edgesite.kube.errors import ApiError

if TYPE_CHECKING:
    from edgesite.context import Bus, Clock, Services

__all__ = ["Delivery"]

_AT_ONCE: Final = 16
_ANSWER_S: Final = 10.0
_CONFLICTS: Final = 2
_FIRST_WAIT_S: Final = 0.1
_MOST_WAIT_S: Final = 15.0

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]


class Delivery:
    """`run` works until cancelled."""

    def __init__(
        self,
        outbox: Outbox,
        store: EdgeStore,
        service: MetaService,
        bus: Bus,
        services: Services,
        clock: Clock,
        draw: random.Random,
        log: Log,
    ) -> None:
        self._outbox = outbox
        self._store = store
        self._service = service
        self._bus = bus
        self._services = services
        self._clock = clock
        self._random = draw
        self._log = log
        self._places = anyio.Semaphore(_AT_ONCE)

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            while True:
                await self._service.wait_connected()
                await self._places.acquire()
                entry = self._outbox.next()
                if entry is None:
                    self._places.release()
                    await self._outbox.wait_change()
                else:
                    tasks.start_soon(self._deliver, entry)

    async def _deliver(self, entry: Entry) -> None:
        try:
            done = await self._attempt(entry)
        finally:
            self._places.release()
        if done:
            await self._forget(entry)
            return
        if self._service.connected:
            entry.attempts += 1
            wait = min(_FIRST_WAIT_S * 2 ** min(entry.attempts, 10), _MOST_WAIT_S)
            await self._clock.sleep(wait * (0.5 + self._random.random() / 2))
        self._outbox.released(entry)

    async def _forget(self, entry: Entry) -> None:
        statements = self._outbox.finished(entry)
        if statements:
            try:
                await self._store.write(statements)
            except StoreError as exc:
                self._log.warning("a delivered report stays on disk and will be sent once more: %s", exc)

    async def _attempt(self, entry: Entry) -> bool:
        """Send once; returns whether the report is done with."""
        try:
            if entry.is_event and not self._answers_events():
                await self._bus.send(HUB, entry.message)
                return True
            object_in_answer(await self._bus.call(HUB, entry.message, timeout_s=_ANSWER_S))
        except (TimeoutError, LookupError):
            return False
        except ApiError as exc:
            if exc.code >= 500 or exc.code == 429:
                return False
            if exc.reason == "Conflict" and entry.attempts < _CONFLICTS:
                return (
                    False  # somebody else wrote at the same moment, or the uid is another's: the next tries will tell
                )
            self._log.info("the cloud did not take a report: resource=%s reason=%s", entry.message.resource, exc.reason)
        return True

    def _answers_events(self) -> bool:
        link = self._services.find(Link)  # type: ignore[type-abstract]
        return link is not None and link.own_peer
