"""What edges tell of their devices.

    device/<id>/twin/edge_updated     KubeEdge: one device's twins      confirmed with "OK" on ``twin`` once they are written
    device/<id>/state/update          KubeEdge: a device's state        the same
    devices/reported                  ours: many devices at once        answered with "OK", or with an error: then it comes again
    membership/detail                 asks for all devices              confirmed, and told

``id`` is a name (before v1.16), or namespace/name. A node is believed about devices that are bound to it alone. KubeEdge's edges repeat
what was not confirmed, so that an older report may come after a newer one: it is known by version and time, and left out.

Errors  None: what cannot be read is counted and logged once; a failure of the API leaves KubeEdge's messages without an answer.
State   Versions of what KubeEdge's edges have reported.
Source  KubeEdge v1.12 and v1.18, cloud/pkg/devicecontroller/controller/upstream.go.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from edgesite.client import ObjectKey
from edgesite.cloud.devicecontroller.objects import DeviceObjects
from edgesite.cloud.devicecontroller.statuses import Report, Statuses, Value
from edgesite.kube import times
from edgesite.kube.errors import ApiError
from edgesite.wire import resource
from edgesite.wire.message import OK, InvalidMessage, Message, MessageMaker, Operation, error_content

if TYPE_CHECKING:
    from edgesite.context import Bus

__all__ = ["Upstream"]

Object = dict[str, Any]
Log = logging.Logger | logging.LoggerAdapter[logging.Logger]
_SOURCE: Final = "devicecontroller"
_LOCAL_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
_DEVICES_KEPT: Final = 20_000
_NEVER: Final = (-1, -1)
_TWINS_KEPT: Final = 4096  #: of one device, as edges keep: names come from the node


class Upstream:
    """``tell_members`` sends a node all its devices; ``count`` counts what is refused."""

    def __init__(
        self,
        objects: DeviceObjects,
        statuses: Statuses,
        bus: Bus,
        maker: MessageMaker,
        tell_members: Callable[[str], Any],
        count: Callable[[str], None],
        log: Log,
    ) -> None:
        self._objects = objects
        self._statuses = statuses
        self._bus = bus
        self._maker = maker
        self._tell_members = tell_members
        self._count = count
        self._log = log
        #: Version and time of what KubeEdge's edges reported, by device and node: another node counts anew, by another clock.
        self._seen: dict[tuple[str, str], dict[str, tuple[int, int]]] = {}

    async def handle(self, message: Message) -> None:
        """Carry out one message."""
        node = resource.node_of(message.resource)
        about = resource.trim_node(message.resource)
        try:
            if about == "devices/reported":
                await self._reported(node, message)
            elif about == "membership/detail":
                await self._confirm(node, message)
                await self._tell_members(node)
            elif about.startswith("device/") and about.endswith("/twin/edge_updated"):
                id_text = about.removeprefix("device/").removesuffix("/twin/edge_updated")
                await self._edge_updated(node, id_text, message)
            elif about.startswith("device/") and about.endswith("/state/update"):
                id_text = about.removeprefix("device/").removesuffix("/state/update")
                await self._state(node, id_text, message)
            else:
                self._count("unknown")
                self._log.debug("left alone: node=%s resource=%s", node, about)
        except InvalidMessage as exc:
            self._count("malformed")
            self._log.debug("cannot be read: node=%s resource=%s: %s", node, about, exc)
        except ApiError as exc:
            self._count("failed")
            self._log.debug("not written: node=%s resource=%s: %s", node, about, exc)
        except Exception:
            self._log.exception("failed: node=%s resource=%s", node, about)

    # -- KubeEdge's edges ----------------------------------------------------------------------------------------

    async def _edge_updated(self, node: str, id_text: str, message: Message) -> None:
        twins = message.object().get("twin")
        one = self._objects.find(node, id_text)
        if one is None or not isinstance(twins, dict):
            self._count("refused")
            await self._confirm(node, message)  # it would be repeated for ever
            return
        key, report = _key(one), Report()
        seen = self._versions(str(one["metadata"].get("uid") or ""), node)
        before = {name: seen[name] for name in twins if name in seen}
        for name, twin in twins.items():
            if isinstance(twin, dict):
                self._take_twin(report, seen, str(name), twin)
        taken = {name: seen[name] for name in report.values if name in seen}
        try:
            await self._write(key, report)
        except ApiError:  # it comes again, and must not be held for late then
            for name, mark in taken.items():
                if seen.get(name) == mark:
                    seen[name] = before.get(name, _NEVER)
            raise
        await self._confirm(node, message)

    def _versions(self, uid: str, node: str) -> dict[str, tuple[int, int]]:
        found = self._seen.setdefault((uid, node), {})
        while len(self._seen) > _DEVICES_KEPT:
            del self._seen[next(iter(self._seen))]
        return found

    def _take_twin(self, report: Report, seen: dict[str, tuple[int, int]], name: str, twin: Object) -> None:
        expected, actual = _dict(twin.get("expected")).get("value"), _dict(twin.get("actual"))
        if isinstance(expected, str) and expected:
            report.observed[name] = expected
        type_, value = _dict(twin.get("metadata")).get("type"), actual.get("value")
        if type_ == "deleted":
            report.values[name] = Value(None)
            seen.pop(name, None)
            return
        if not isinstance(value, str):
            return
        at_ms = _whole(_dict(actual.get("metadata")).get("timestamp"))
        version = _whole(_dict(twin.get("actual_version")).get("edge"))
        known = seen.get(name)
        if known is not None and version <= known[0] and at_ms <= known[1]:
            self._count("late")
            return
        if known is not None or len(seen) < _TWINS_KEPT:
            seen[name] = (version, at_ms)
        report.values[name] = Value(value, at_ms or None, type_ if isinstance(type_, str) else "")

    async def _state(self, node: str, id_text: str, message: Message) -> None:
        told = message.object().get("device")
        one = self._objects.find(node, id_text)
        if one is not None and isinstance(told, dict) and isinstance(told.get("state"), str):
            report = Report(state=told["state"], last_online=_last_online(told, message.timestamp_ms))
            await self._write(_key(one), report)
        else:
            self._count("refused")
        await self._confirm(node, message)

    async def _confirm(self, node: str, message: Message) -> None:
        path = resource.add_node(node, "twin")
        await self._send(self._maker.make(_SOURCE, "twin", Operation.RESPONSE, path, OK, parent=message.msg_id))

    # -- ours ----------------------------------------------------------------------------------------------------

    async def _reported(self, node: str, message: Message) -> None:
        try:
            reports = self._read(node, message.object())
        except InvalidMessage as exc:
            self._count("malformed")
            self._log.warning("node %s reports what cannot be read: %s", node, exc)
            await self._answer(message, OK)  # the same again would be no better
            return
        waiting = [self._statuses.add(key, report) for key, report in reports.items()]
        error: ApiError | None = None
        for one in waiting:
            await one.done.wait()
            if one.error is not None and one.error.code not in (400, 403, 404, 422):
                error = one.error
        await self._answer(message, OK if error is None else error_content(error.status()))

    def _read(self, node: str, content: Object) -> dict[ObjectKey, Report]:
        """Raises InvalidMessage."""
        names, base = content.get("names") or [], content.get("base")
        if not isinstance(names, list) or not isinstance(base, int):
            raise InvalidMessage("names and base are missing")
        reports: dict[ObjectKey, Report] = {}

        def report_of(row: Any) -> Report | None:
            if not isinstance(row, list) or not row or not isinstance(row[0], str):
                raise InvalidMessage("a row without a device")
            one = self._objects.find(node, row[0])
            if one is None:
                self._count("refused")
                return None
            return reports.setdefault(_key(one), Report())

        try:
            for row in content.get("devices") or ():
                if (report := report_of(row)) is not None:
                    for at in range(1, len(row), 3):
                        index, value, age = row[at : at + 3]
                        text = None if value is None else str(value)
                        report.values[str(names[index])] = Value(text, None if text is None else base - int(age))
            for row in content.get("observed") or ():
                if (report := report_of(row)) is not None:
                    for at in range(1, len(row), 2):
                        report.observed[str(names[row[at]])] = str(row[at + 1])
            for row in content.get("states") or ():
                if (report := report_of(row)) is not None:
                    report.state, report.last_online = str(row[1]), str(row[2])
        except (IndexError, TypeError, ValueError) as exc:
            raise InvalidMessage(f"a row of another shape: {exc}") from exc
        return reports

    async def _answer(self, message: Message, content: Any) -> None:
        answer = self._maker.make(
            _SOURCE, "resource", Operation.RESPONSE, message.resource, content, parent=message.msg_id
        )
        await self._send(answer)

    # -- both ----------------------------------------------------------------------------------------------------

    async def _write(self, key: ObjectKey, report: Report) -> None:
        """Raises ApiError for what may pass by itself."""
        waiting = self._statuses.add(key, report)
        await waiting.done.wait()
        if waiting.error is not None and waiting.error.code not in (400, 403, 404, 422):
            raise waiting.error

    async def _send(self, message: Message) -> None:
        try:
            await self._bus.send("cloudhub", message)
        except LookupError:
            return  # the hub restarts; the edge repeats


def _key(one: Mapping[str, Any]) -> ObjectKey:
    return ObjectKey(one["metadata"].get("namespace") or "", one["metadata"]["name"])


def _last_online(told: Object, sent_ms: int) -> str:
    """RFC 3339, of either form that KubeEdge's edges have. The older one is the edge's local time: the time of the message is meant."""
    text = told.get("lastOnlineTime") or told.get("last_online") or ""
    if not isinstance(text, str):
        return ""
    if _LOCAL_TIME.fullmatch(text):
        return times.format_time(sent_ms // 1000) if sent_ms else ""
    return text


def _dict(value: Any) -> Object:
    return value if isinstance(value, dict) else {}


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
