"""Who watches what: one feed a kind, and the watches of each node, which end with the connection that they came over.

Units   Seconds.
Errors  ApiError to who begins a watch.
State   Feeds, which outlive their last watcher for a while; watches, bounded per node.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio

from edgesite.cloud.dynamiccontroller.feed import Feed, Subscription
from edgesite.kube.errors import ApiError, unavailable
from edgesite.kube.resources import BUILTIN, ResourceTable
from edgesite.kube.resourcetable import Resource
from edgesite.wire.metaserver import Events, WatchRef, WatchRequest

if TYPE_CHECKING:
    import logging
    import random

    from anyio.abc import TaskGroup

    from edgesite.client import Client
    from edgesite.context import Clock

    Log = logging.Logger | logging.LoggerAdapter[logging.Logger]

__all__ = ["Watches", "row_of"]

WATCHES_OF_NODE: Final = 256
IDLE_S: Final = 300.0  #: a feed without watchers is kept so long: nodes come back
_LOOK_S: Final = 30.0
_ROWS: Final = ResourceTable(BUILTIN)


def row_of(group: str, version: str, plural: str) -> Resource:
    """The row of a kind; of one that is not built in, as much as paths need."""
    return _ROWS.find(group, version, plural) or Resource(group, version, "", plural)


class Watches:
    """``tell(node, events)`` sends to a node; it does not wait."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        random: random.Random,
        tasks: TaskGroup,
        tell: Callable[[str, Events], None],
        log: Log,
    ) -> None:
        self._client = client.named("dynamiccontroller")
        self._clock = clock
        self._random = random
        self._tasks = tasks
        self._tell = tell
        self._log = log
        self._feeds: dict[tuple[str, str, str], tuple[Feed, anyio.CancelScope]] = {}
        self._links: dict[str, str] = {}
        self._of_node: dict[str, dict[int, Subscription | None]] = {}  # None: it is being begun

    def __len__(self) -> int:
        return sum(len(one) for one in self._of_node.values())

    @property
    def feeds(self) -> int:
        return len(self._feeds)

    async def run(self) -> None:
        """Let go of feeds that nobody watches, until cancelled."""
        while True:
            await self._clock.sleep(_LOOK_S)
            now = self._clock.monotonic()
            for feed, scope in list(self._feeds.values()):
                if feed.is_idle and now - feed.idle_since >= IDLE_S:
                    scope.cancel()

    def feed(self, group: str, version: str, plural: str, since: int) -> Feed:
        """The feed of a kind, begun where it is asked for first."""
        key = (group, version, plural)
        found = self._feeds.get(key)
        if found is None:
            made = Feed(self._client, row_of(*key), since, self._clock, self._random, self._log)
            found = self._feeds[key] = made, anyio.CancelScope()
            self._tasks.start_soon(self._run_feed, key, *found)
        return found[0]

    async def _run_feed(self, key: tuple[str, str, str], feed: Feed, scope: anyio.CancelScope) -> None:
        try:
            with scope:
                await feed.run()
        finally:
            if self._feeds.get(key, (None, None))[0] is feed:
                del self._feeds[key]

    # -- of our own edges ----------------------------------------------------------------------------------------

    def linked(self, node: str, link: str) -> None:
        """A node speaks over this link by now: what it watched over a former one is over. To be told in the order of its messages."""
        if self._links.get(node) != link:
            self.node_gone(node)
            self._links[node] = link

    async def begin(self, node: str, wanted: WatchRequest) -> None:
        """Begin a watch of a node. Raises ApiError."""
        ref = wanted.ref
        if self._links.get(node) != ref.link:  # it was looked at for so long that the node has come anew
            raise unavailable("the link over which this watch was asked for is no more")
        mine = self._of_node.setdefault(node, {})
        if ref.id in mine or len(mine) >= WATCHES_OF_NODE:
            raise ApiError(429, "TooManyRequests", f"this node has {len(mine)} watches", None, 1)
        mine[ref.id] = None
        subscription = None
        try:
            feed = self.feed(wanted.group, wanted.version, wanted.resource, wanted.since)
            subscription = await feed.subscribe(wanted, partial(self._tell_node, node, ref))
        finally:
            if subscription is None and mine.get(ref.id, ref) is None:
                del mine[ref.id]
        if self._of_node.get(node) is not mine or ref.id not in mine:  # it was stopped meanwhile
            feed.unsubscribe(subscription)
            return
        mine[ref.id] = subscription
        subscription.pump()

    def _tell_node(self, node: str, ref: WatchRef, events: Events) -> None:
        if events.error is not None:
            self._of_node.get(node, {}).pop(ref.id, None)
        self._tell(node, events)

    def credit(self, node: str, ref: WatchRef) -> None:
        subscription = self._find(node, ref)
        if subscription is not None:
            subscription.credit(ref.number)

    def stop(self, node: str, ref: WatchRef) -> None:
        """End a watch; one that is not there is fine."""
        subscription = self._find(node, ref)
        if self._links.get(node) == ref.link:
            self._of_node.get(node, {}).pop(ref.id, None)
        if subscription is not None:
            subscription.feed.unsubscribe(subscription)

    def _find(self, node: str, ref: WatchRef) -> Subscription | None:
        return self._of_node.get(node, {}).get(ref.id) if self._links.get(node) == ref.link else None

    def node_gone(self, node: str) -> None:
        """End all watches of a node: its connection is over."""
        self._links.pop(node, None)
        for subscription in self._of_node.pop(node, {}).values():
            if subscription is not None:
                subscription.feed.unsubscribe(subscription)
