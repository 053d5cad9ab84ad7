"""List, then watch, for ever: keeps a sink equal to a collection of the API, over lost connections and compactions.

Units   Times are seconds.
Errors  None leaves: the server's errors are logged and retried with back-off and jitter.
State   The last resourceVersion seen, from which a watch resumes.
Source  client-go, tools/cache/reflector.go (behaviour: paging, bookmarks, 410, back-off from 0.8 s). Ours ends at 10 s: a role has
        some tens of reflectors, not thousands.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

import anyio

from edgesite.kube.errors import ApiError

if TYPE_CHECKING:
    import random

    from edgesite.client.client import Client, WatchEvent
    from edgesite.context import Clock
    from edgesite.kube.resources import Resource

__all__ = ["Reflector", "Selection", "Sink"]

PAGE: Final = 500  #: objects in one page of a list
WATCH_S: Final = 300  #: shortest time for which a watch is asked for; each asks for up to twice that, by chance
SILENCE_S: Final = 60.0  #: how long after its own end a watch may stay silent before the link counts as dead
LIST_S: Final = 60.0  #: deadline of one page
FIRST_S: Final = 0.8
MOST_S: Final = 10.0
RELIST_S: Final = 30.0  #: two lists within this time get a pause between them
STEADY_S: Final = 120.0  #: a time without failure after which the back-off starts anew


class Selection:
    """What of a resource is watched."""

    __slots__ = ("field_selector", "label_selector", "metadata_only", "namespace")

    def __init__(
        self, namespace: str = "", label_selector: str = "", field_selector: str = "", metadata_only: bool = False
    ) -> None:
        self.namespace = namespace
        self.label_selector = label_selector
        self.field_selector = field_selector
        self.metadata_only = metadata_only


class Sink(Protocol):
    """What is kept equal to the collection."""

    def replace(self, objects: list[dict[str, Any]]) -> None:
        """Take a whole list."""
        ...

    def apply(self, kind: str, obj: dict[str, Any]) -> None:
        """Take one change: ADDED, MODIFIED or DELETED."""
        ...


class Reflector:
    """Fills one sink from one collection."""

    def __init__(
        self,
        client: Client,
        resource: Resource,
        sink: Sink,
        clock: Clock,
        random: random.Random,
        selection: Selection,
        log: logging.Logger | logging.LoggerAdapter[logging.Logger],
    ) -> None:
        self._client, self._resource, self._sink = client, resource, sink
        self._clock, self._random, self._log = clock, random, log
        self._selection = selection
        self._delay_s = FIRST_S
        self._failed_at = -STEADY_S
        self.on_failure: Callable[[], None] | None = None  #: called whenever the server could not be listed or watched
        self.fresh_since: float | None = None  #: monotonic time since which changes come in; None while they do not
        self._relisted_at = -STEADY_S
        self._in_doubt = False
        self.resource_version = ""  #: of the newest state seen; "" asks for a list

    async def run(self) -> None:
        """Keep the sink equal until cancelled."""
        while True:
            try:
                if not self.resource_version:
                    await self._list()
                elif self._in_doubt and await self._went_back():
                    self._may_list_at_once()
                    continue
                await self._watch()
            except ApiError as exc:
                if exc.code != 410 or not self._may_list_at_once():
                    await self._back_off(exc)
            except TimeoutError:
                await self._back_off(TimeoutError("no answer in time"))

    async def _went_back(self) -> bool:
        """Whether the server's state is older than the one that we have seen: it was restored from a backup. A watch would then
        tell nothing until the server has got as far again. Raises ApiError, TimeoutError."""
        with anyio.fail_after(LIST_S):
            page = await self._page(1, "")
        newest = str((page.get("metadata") or {}).get("resourceVersion") or "")
        self._in_doubt = False
        if not (newest.isdecimal() and self.resource_version.isdecimal()) or int(newest) >= int(self.resource_version):
            return False
        self._log.warning(
            "%s: the API is at version %s and has told of %s: it was restored from a backup, perhaps. Listing anew",
            self._resource.plural, newest, self.resource_version,
        )  # fmt: skip
        return True

    def _may_list_at_once(self) -> bool:
        """The state to go on from is gone, so list again; without a pause unless that has just been done."""
        self._log.debug("%s: state %s is gone, listing again", self._resource.plural, self.resource_version)
        self.resource_version, self.fresh_since = "", None
        now = self._clock.monotonic()
        lately = now - self._relisted_at < RELIST_S
        self._relisted_at = now
        return not lately

    async def _list(self) -> None:
        objects: list[dict[str, Any]] = []
        token, limit = "", PAGE
        while True:
            try:
                with anyio.fail_after(LIST_S):
                    page = await self._page(limit, token)
            except ApiError as exc:
                if exc.code != 410 or not token:
                    raise
                token, limit = "", 0  # the snapshot is gone half-way: take all in one answer
                objects.clear()
                continue
            objects.extend(page.get("items") or ())
            meta = page.get("metadata") or {}
            token = str(meta.get("continue") or "")
            if not token:
                break
        kind = str(page.get("kind") or "").removesuffix("List") or self._resource.kind
        for obj in objects:  # items of a list may come without their type
            obj.setdefault("kind", kind)
            obj.setdefault("apiVersion", page.get("apiVersion") or self._resource.api_version)
        self._sink.replace(objects)
        self.resource_version = str(meta.get("resourceVersion") or "")

    async def _page(self, limit: int, token: str) -> dict[str, Any]:
        selection = self._selection
        return await self._client.list(
            self._resource,
            selection.namespace,
            label_selector=selection.label_selector,
            field_selector=selection.field_selector,
            limit=limit,
            continue_token=token,
            metadata_only=selection.metadata_only,
        )

    async def _watch(self) -> None:
        selection = self._selection
        timeout_s = int(WATCH_S * (1.0 + self._random.random()))
        began, seen = self._clock.monotonic(), False
        self._in_doubt = True  # of a watch that does not end in time: the server may be another one, or its storage
        watch = self._client.watch(
            self._resource,
            selection.namespace,
            resource_version=self.resource_version,
            label_selector=selection.label_selector,
            field_selector=selection.field_selector,
            timeout_s=timeout_s,
            metadata_only=selection.metadata_only,
        )
        with anyio.move_on_after(timeout_s + SILENCE_S) as limit:
            async with watch as events:
                if self.fresh_since is None:
                    self.fresh_since = self._clock.monotonic()
                async for event in events:
                    seen = True
                    self._take(event)
        lasted_s = self._clock.monotonic() - began
        self._in_doubt = limit.cancelled_caught or lasted_s < timeout_s - 1
        if not seen and lasted_s < 1.0:
            raise ApiError(500, "InternalError", "the watch ended at once")

    def _take(self, event: WatchEvent) -> None:
        if event.type != "BOOKMARK":
            self._sink.apply(event.type, event.object)
        version = (event.object.get("metadata") or {}).get("resourceVersion")
        if version:
            self.resource_version = str(version)

    async def _back_off(self, exc: Exception) -> None:
        self.fresh_since = None
        if self.on_failure is not None:
            self.on_failure()
        now = self._clock.monotonic()
        if now - self._failed_at > STEADY_S:
            self._delay_s = FIRST_S
        self._failed_at = now
        delay_s = self._delay_s * (1.0 + self._random.random())
        if isinstance(exc, ApiError) and exc.retry_after_s:
            delay_s = max(delay_s, min(float(exc.retry_after_s), MOST_S))
        self._delay_s = min(self._delay_s * 2, MOST_S)
        self._log.info("%s: watching failed, again in %.1f s: %s", self._resource.plural, delay_s, exc)
        await self._clock.sleep(delay_s)
