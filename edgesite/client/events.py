"""Events about objects, as ``kubectl describe`` shows them: aggregated, rate-limited, written in the background.

Units   Times are seconds; event times are RFC 3339 to the second.
Errors  None: an event that cannot be written is dropped and counted, after some attempts.
State   In memory: a bounded queue (the oldest is dropped when it is full) and a bounded table of what was written lately.
Source  client-go, tools/record (behaviour: ten similar events in ten minutes become one; 25 at once for each object,
        then one in five minutes; repeated ones raise ``count`` and ``lastTimestamp``). core/v1 Event.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.kube.errors import ApiError
from edgesite.kube.resources import Resource

if TYPE_CHECKING:
    from edgesite.client.client import Client
    from edgesite.context import Clock

__all__ = ["EventRecorder"]

logger = logging.getLogger(__name__)
Object = dict[str, Any]

QUEUE: Final = 1000  #: events that wait to be written
REMEMBERED: Final = 4096  #: events, groups and objects that are remembered
SIMILAR: Final = 10  #: events that differ in their message alone, before they are written as one
SIMILAR_S: Final = 600.0
BURST: Final = 25  #: events of one object and source at once
REFILL_S: Final = 300.0  #: seconds until one more is allowed
ATTEMPTS: Final = 5
RETRY_S: Final = 2.0
MESSAGE_CHARS: Final = 1024  #: longer messages are cut: the API refuses them
WRITE_S: Final = 30.0
_EVENTS: Final = Resource("", "v1", "Event", "events")


@dataclass(slots=True)
class _Written:
    name: str
    count: int
    at: float


@dataclass(slots=True)
class _Group:
    messages: set[str]
    at: float


@dataclass(slots=True)
class _Allowance:
    tokens: float
    at: float


class EventRecorder:
    """Records events of one component. `run` writes them; `event` never waits."""

    def __init__(self, client: Client, component: str, clock: Clock, *, host: str = "") -> None:
        self._client = client
        self._clock = clock
        self._source = {"component": component, **({"host": host} if host else {})}
        self._queue: deque[Object] = deque()
        self._wake = anyio.Event()
        self._written: OrderedDict[tuple[Any, ...], _Written] = OrderedDict()
        self._groups: OrderedDict[tuple[Any, ...], _Group] = OrderedDict()
        self._allowances: OrderedDict[tuple[Any, ...], _Allowance] = OrderedDict()
        self._count = 0
        self.dropped = 0  #: events lost to the rate limit, a full queue or an API server that refused them

    def event(self, obj: Mapping[str, Any], kind: str, reason: str, message: str, *, field_path: str = "") -> None:
        """Record that something happened to ``obj``, an object or a reference to one; ``kind`` is Normal or Warning."""
        about = _reference(obj, field_path)
        message = message if len(message) <= MESSAGE_CHARS else message[: MESSAGE_CHARS - 3] + "..."
        if not self._allowed(about):
            self.dropped += 1
            return
        message = self._combined(about, kind, reason, message)
        if len(self._queue) >= QUEUE:
            self._queue.popleft()
            self.dropped += 1
        self._queue.append(
            {"about": about, "type": kind, "reason": reason, "message": message, "time": self._clock.time()}
        )
        self._wake.set()

    async def run(self) -> None:
        """Write what is recorded until cancelled."""
        while True:
            while self._queue:
                await self._write(self._queue.popleft())
            self._wake = anyio.Event()
            await self._wake.wait()

    def _allowed(self, about: Object) -> bool:
        now = self._clock.monotonic()
        key = (about.get("kind"), about.get("namespace"), about.get("name"), about.get("uid"))
        if (held := self._allowances.get(key)) is None:
            held = self._allowances[key] = _Allowance(float(BURST), now)
            _bound(self._allowances)
        held.tokens = min(float(BURST), held.tokens + (now - held.at) / REFILL_S)
        held.at = now
        self._allowances.move_to_end(key)
        if held.tokens < 1.0:
            return False
        held.tokens -= 1.0
        return True

    def _combined(self, about: Object, kind: str, reason: str, message: str) -> str:
        now = self._clock.monotonic()
        key = (tuple(about.items()), kind, reason)
        group = self._groups.get(key)
        if group is None or now - group.at > SIMILAR_S:
            group = self._groups[key] = _Group(set(), now)
            _bound(self._groups)
        self._groups.move_to_end(key)
        group.at = now
        if message in group.messages:
            return message
        if len(group.messages) >= SIMILAR:
            return "(combined from similar events): " + message
        group.messages.add(message)
        return message

    async def _write(self, event: Object) -> None:
        for attempt in range(ATTEMPTS):
            if attempt:
                await self._clock.sleep(RETRY_S * attempt)
            try:
                with anyio.fail_after(WRITE_S):
                    await self._write_once(event)
                return
            except (ApiError, TimeoutError) as exc:
                if isinstance(exc, ApiError) and 400 <= exc.code < 500 and exc.code != 429:
                    logger.debug("event refused: reason=%s: %s", event["reason"], exc)
                    break
        self.dropped += 1

    async def _write_once(self, event: Object) -> None:
        about, message = event["about"], event["message"]
        combined = message.startswith("(combined from similar events): ")
        key = (tuple(about.items()), event["type"], event["reason"], "" if combined else message)
        stamp = datetime.fromtimestamp(int(event["time"]), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        namespace = about.get("namespace") or "default"
        if (known := self._written.get(key)) is not None:
            patch = {"count": known.count + 1, "lastTimestamp": stamp, "message": message}
            try:
                await self._client.patch(_EVENTS, known.name, patch, namespace)
            except ApiError as exc:
                if exc.code != 404:  # it has expired meanwhile: write it anew
                    raise
                del self._written[key]
            else:
                known.count += 1
                self._written.move_to_end(key)
                return
        self._count += 1
        name = f"{about.get('name', '')}.{int(event['time'] * 1e9) + self._count:x}"
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": about,
            "type": event["type"],
            "reason": event["reason"],
            "message": message,
            "source": self._source,
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
            "reportingComponent": self._source["component"],
            "reportingInstance": self._source.get("host", ""),
        }
        await self._client.create(_EVENTS, body)
        self._written[key] = _Written(name, 1, event["time"])
        _bound(self._written)


def _reference(obj: Mapping[str, Any], field_path: str) -> Object:
    meta = obj.get("metadata") or obj
    found = {
        "kind": obj.get("kind", ""),
        "namespace": meta.get("namespace", ""),
        "name": meta.get("name", ""),
        "uid": meta.get("uid", ""),
        "apiVersion": obj.get("apiVersion", ""),
        "fieldPath": field_path or (obj.get("fieldPath", "") if meta is obj else ""),
    }
    return {name: value for name, value in found.items() if value}


def _bound(table: OrderedDict[Any, Any]) -> None:
    while len(table) > REMEMBERED:
        table.popitem(last=False)
