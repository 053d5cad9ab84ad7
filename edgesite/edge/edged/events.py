"""Events about pods and about the node: made here, kept and delivered by metamanager.

Whoever reports one does not wait: `Events.run` hands them on in order, so many a second as the kubelet's ``eventRecordQPS`` and
``eventBurst`` say. The same thing said again within ten minutes raises the count of the first Event instead of making another; what
has not left yet is replaced by it.

State   The last `HELD` events, in memory, and up to `QUEUED` that are not handed on yet; beyond it new ones are dropped.
Source  core/v1 Event; names as client-go makes them (object name, dot, hexadecimal nanoseconds).
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.kube.times import format_time

if TYPE_CHECKING:
    from edgesite.context import Clock
    from edgesite.edge.metamanager.meta import Meta

__all__ = ["NORMAL", "WARNING", "Events"]

NORMAL: Final = "Normal"
WARNING: Final = "Warning"
HELD: Final = 512
QUEUED: Final = 1024
SAME_S: Final = 600.0
COMPONENT: Final = "kubelet"  #: by which people, tools and tests look for what a node says of its pods


class Events:
    """Reports events. `run` must be running for them to leave."""

    def __init__(
        self,
        meta: Meta,
        clock: Clock,
        node_name: str,
        log: logging.Logger | logging.LoggerAdapter[logging.Logger],
        *,
        rate: float = 0.0,
        burst: int = 1,
    ) -> None:
        """``rate`` events a second may leave, ``burst`` at once; 0 sets no limit."""
        self._rate, self._burst = rate, max(1, burst)
        self._tokens, self._tokens_at = float(self._burst), clock.monotonic()
        self._meta, self._clock, self._node_name, self._log = meta, clock, node_name, log
        self._recent: OrderedDict[tuple[str, ...], tuple[float, dict[str, Any]]] = OrderedDict()
        self._last_ns = 0
        self._queue: OrderedDict[str, dict[str, Any]] = OrderedDict()  # by namespace and name
        self._filled = anyio.Event()

    def set_rate(self, rate: float, burst: int) -> None:
        """As when it was made."""
        self._rate, self._burst = rate, max(1, burst)

    async def run(self) -> None:
        """Hand events on until cancelled."""
        while True:
            await self._filled.wait()
            self._filled = anyio.Event()
            while self._queue:
                await self._may_send()
                _, event = self._queue.popitem(last=False)
                try:
                    await self._meta.report_event(event)
                except Exception as exc:  # a full disk, say: events are the least that may then be lost
                    self._log.warning("event=%s cannot be kept: %s", event["metadata"]["name"], exc)

    async def _may_send(self) -> None:
        """Wait until another may leave."""
        if self._rate <= 0:
            return
        now = self._clock.monotonic()
        self._tokens = min(float(self._burst), self._tokens + (now - self._tokens_at) * self._rate)
        self._tokens_at = now
        self._tokens -= 1
        if self._tokens < 0:
            await self._clock.sleep(-self._tokens / self._rate)

    def report(
        self,
        about: Mapping[str, Any],
        type: str,
        reason: str,
        message: str,
        container: str = "",
        *,
        member: str = "containers",
    ) -> None:
        """``about`` is an object reference; ``container`` makes it speak of one container of that pod, in ``member`` of its spec."""
        now = self._clock.time()
        reference = dict(about)
        if container:
            reference["fieldPath"] = f"spec.{member}{{{container}}}"
        key = (
            reference.get("uid", ""),
            reference.get("name", ""),
            reference.get("fieldPath", ""),
            type,
            reason,
            message,
        )
        first_at, event = self._recent.pop(key, (now, None))
        if event is None or now - first_at > SAME_S:
            first_at, event = now, self._new(reference, type, reason, message, now)
        else:
            event = event | {"count": event["count"] + 1, "lastTimestamp": format_time(now)}
        self._recent[key] = (first_at, event)
        while len(self._recent) > HELD:
            self._recent.popitem(last=False)
        place = f"{event['metadata']['namespace']}/{event['metadata']['name']}"
        if place in self._queue or len(self._queue) < QUEUED:
            self._queue[place] = event
            self._filled.set()

    def _new(self, reference: dict[str, Any], type: str, reason: str, message: str, now: float) -> dict[str, Any]:
        self._last_ns = max(int(now * 1e9), self._last_ns + 1)  # two in one moment get two names
        stamp = format_time(now)
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{reference.get('name', '')}.{self._last_ns:x}",
                "namespace": reference.get("namespace") or "default",
            },
            "involvedObject": reference,
            "reason": reason,
            "message": message[:1024],
            "type": type,
            "source": {"component": COMPONENT, "host": self._node_name},
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
            "reportingComponent": COMPONENT,
            "reportingInstance": self._node_name,
        }
