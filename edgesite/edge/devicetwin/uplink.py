"""What the cloud is told: values that devices report, and their states. Newest wins while it waits; what is unchanged is not told.

A cloud of ours is told many devices at once, in one message that it answers when all is stored:

    twin → resource | update | devices/reported | {"base": ms, "names": [property, ...], "devices": [[id, [name, value, age], ...], ...],
                                                   "observed": [[id, [name, value], ...], ...], "states": [[id, state, last online], ...]}

``id`` is namespace/name, ``name`` an index into names, ``age`` the milliseconds from base back to the report; a value of null ends
the property. The cloud asks with ``devices/report | {"devices": [id, ...]}`` for devices of which others have changed what was reported.
KubeEdge's clouds are told each device by itself, in their form, and confirm each; what they do not confirm is told
again after a minute.

Bounds  Bytes a second (``bytes_per_s``, 0: none; estimated as deflated), one message under way to ours, `_UNCONFIRMED` to KubeEdge's.
State   In memory: which properties the cloud has to hear of. After a start that is all of them.
Source  KubeEdge v1.12, edge/pkg/devicetwin/dtmanager/communicate.go (its form).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.edge.devicetwin import texts
from edgesite.edge.devicetwin.state import DELETED, Device, Registry, Twin
from edgesite.edge.devicetwin.turn import ACTUAL
from edgesite.kube import json
from edgesite.wire.message import Message, MessageMaker, Operation, error_status

if TYPE_CHECKING:
    import random

    from edgesite.context import Bus, Clock

__all__ = ["REPORTED", "Uplink"]

REPORTED: Final = "devices/reported"  #: resource of a report of many devices
HUB: Final = "websocket"
_DEVICES: Final = 100  #: in one message
_BYTES: Final = 1 << 20  #: of values in one message, and those of the last device
_BURST_S: Final = 8.0  #: so many seconds' worth of bytes may go at once after a rest
_GATHER_S: Final = 0.05
_ANSWER_S: Final = 30.0
_UNCONFIRMED: Final = 64
_CONFIRM_S: Final = 60.0  #: as KubeEdge's
_FIRST_WAIT_S: Final = 0.5
_MOST_WAIT_S: Final = 30.0


@dataclass(slots=True)
class _Sent:
    device: Device
    values: dict[str, str | None]
    at_s: float


class Uplink:
    """`run` tells until cancelled. ``own_cloud()`` is whether the cloud is one of ours."""

    def __init__(
        self,
        registry: Registry,
        bus: Bus,
        maker: MessageMaker,
        clock: Clock,
        draw: random.Random,
        own_cloud: Callable[[], bool],
        bytes_per_s: float,
    ) -> None:
        self._registry = registry
        self._bus = bus
        self._maker = maker
        self._clock = clock
        self._random = draw
        self._own_cloud = own_cloud
        self._rate = bytes_per_s
        self._waiting: dict[Device, dict[str, int]] = {}  # sides of twins, the device first that has waited longest
        self._states: dict[Device, None] = {}
        self._rejected: list[tuple[Device, str, str]] = []
        self._unconfirmed: dict[str, _Sent] = {}  # by message, to KubeEdge's cloud
        self._filled = anyio.Event()
        self._confirmed = anyio.Event()
        self._connected = anyio.Event()
        self._credit = self._rate * _BURST_S
        self._credit_at = clock.monotonic()

    # -- what happens --------------------------------------------------------------------------------------------

    def note(self, told: Iterable[tuple[Device, str, int]], states: Iterable[Device]) -> None:
        """These twins and states have changed."""
        for device, name, sides in told:
            if self._registry.get(device.id) is not device:
                continue  # it has ended while it was told of; another one may have its name by now
            twin = device.twins.get(name)
            if name in device.silent or (twin is not None and sides == ACTUAL and _is_known(twin)):
                continue
            names = self._waiting.setdefault(device, {})
            names[name] = names.get(name, 0) | sides
        for device in states:
            if self._registry.get(device.id) is device:
                self._states[device] = None
        if self._waiting or self._states:
            self._filled.set()

    def reject(self, rejected: Iterable[tuple[Device, str, str]]) -> None:
        """KubeEdge's cloud wanted what is older than what is here: tell it once."""
        if not self._own_cloud():
            self._rejected = [*self._rejected, *rejected][-1024:]
            if self._rejected:
                self._filled.set()

    def note_all(self) -> None:
        """The program has started: the cloud may lack anything."""
        self.note(
            ((device, name, ACTUAL) for device in self._registry for name, one in device.twins.items() if one.actual),
            (device for device in self._registry if device.state),
        )

    def report_anew(self, device: Device) -> None:
        """The cloud no longer has what this device has reported."""
        for twin in device.twins.values():
            twin.sent = twin.observed_sent = None
        told = ((device, name, ACTUAL) for name, one in device.twins.items() if one.actual is not None)
        self.note(told, (device,) if device.state else ())

    def forget(self, device: Device) -> None:
        self._waiting.pop(device, None)
        self._states.pop(device, None)
        for msg_id in [key for key, one in self._unconfirmed.items() if one.device is device]:
            del self._unconfirmed[msg_id]

    def set_connected(self, connected: bool) -> None:
        if connected:
            self._connected.set()
        elif self._connected.is_set():
            self._connected = anyio.Event()
            self._again(list(self._unconfirmed))

    def confirmed(self, msg_id: str) -> None:
        """KubeEdge's cloud has taken a message."""
        sent = self._unconfirmed.pop(msg_id, None)
        if sent is not None:
            _mark_sent(sent.device, sent.values)
            self._confirmed.set()

    def _again(self, msg_ids: Iterable[str]) -> None:
        for msg_id in msg_ids:
            sent = self._unconfirmed.pop(msg_id)
            self.note(((sent.device, name, ACTUAL) for name in sent.values), ())

    # -- telling -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._repeat)
            wait_s = _FIRST_WAIT_S
            while True:
                if not (self._waiting or self._states or self._rejected):
                    self._filled = anyio.Event()
                    await self._filled.wait()
                await self._connected.wait()
                await self._clock.sleep(_GATHER_S)
                await self._wait_for_credit()
                done = await (self._tell_own() if self._own_cloud() else self._tell_kubeedge())
                if done:
                    wait_s = _FIRST_WAIT_S
                else:
                    await self._clock.sleep(wait_s * (0.5 + self._random.random() / 2))
                    wait_s = min(wait_s * 2, _MOST_WAIT_S)

    async def _repeat(self) -> None:
        while True:
            await self._clock.sleep(_CONFIRM_S / 4)
            since = self._clock.monotonic() - _CONFIRM_S
            self._again([key for key, one in self._unconfirmed.items() if one.at_s <= since])

    async def _wait_for_credit(self) -> None:
        while self._rate:
            now = self._clock.monotonic()
            self._credit = min(self._credit + (now - self._credit_at) * self._rate, self._rate * _BURST_S)
            self._credit_at = now
            if self._credit > 0:
                return
            await self._clock.sleep(-self._credit / self._rate + 0.01)

    def _take(self) -> tuple[dict[Device, dict[str, int]], dict[Device, None]]:
        """The devices that have waited longest."""
        taken, size = dict[Device, dict[str, int]](), 0
        while self._waiting and len(taken) < _DEVICES and size < _BYTES:
            device = next(iter(self._waiting))
            taken[device] = names = self._waiting.pop(device)
            size += sum(len(_actual(device, name) or "") for name in names)
        states = {device: self._states.pop(device) for device in list(self._states)[:_DEVICES]}
        return taken, states

    async def _tell_own(self) -> bool:
        taken, states = self._take()
        self._rejected.clear()
        base, values = self._maker.now_ms(), {}
        names: dict[str, int] = {}
        devices, observed, noticed = [], [], list[tuple[Twin, str]]()
        for device, wanted in taken.items():
            values[device] = report = {name: _actual(device, name) for name in wanted}
            row: list[Any] = [device.place]
            for name, value in report.items():
                twin = device.twins.get(name)
                if value is not None and twin is not None and twin.sent != value:
                    row += [names.setdefault(name, len(names)), value, max(0, base - twin.actual_ms)]
                elif value is None and twin is not None and twin.sent is not None:
                    row += [names.setdefault(name, len(names)), None, 0]
            if len(row) > 1:
                devices.append(row)
            seen: list[Any] = []
            for name in wanted:
                twin = device.twins.get(name)
                if twin is not None and twin.observed is not None and twin.observed != twin.observed_sent:
                    seen += [names.setdefault(name, len(names)), twin.observed]
                    noticed.append((twin, twin.observed))
            if seen:
                observed.append([device.place, *seen])
        content: dict[str, Any] = {"base": base, "names": list(names), "devices": devices}
        if observed:
            content["observed"] = observed
        if states:
            content["states"] = [[one.place, one.state, one.last_online] for one in states]
        if not (devices or observed or states):
            return True
        message = self._maker.make("twin", "resource", Operation.UPDATE, REPORTED, content)
        if self._rate:
            self._credit -= len(zlib.compress(json.dumps(content), 6)) + 80
        if not await self._ask(message):
            self.note(((device, name, sides) for device, kept in taken.items() for name, sides in kept.items()), states)
            return False
        for device, report in values.items():
            _mark_sent(device, report)
        for twin, seen_value in noticed:
            twin.observed_sent = seen_value
        return True

    async def _ask(self, message: Message) -> bool:
        try:
            answer = await self._bus.call(HUB, message, timeout_s=_ANSWER_S)
        except (TimeoutError, LookupError):
            return False
        return answer.operation != Operation.ERROR and error_status(answer.content) is None

    # -- KubeEdge's cloud ----------------------------------------------------------------------------------------

    async def _tell_kubeedge(self) -> bool:
        rejected, self._rejected = self._rejected, []
        for device, name, text in rejected:
            if not await self._tell_device(device, {name: text}):
                return False
        while self._states:
            device = next(iter(self._states))
            del self._states[device]
            full = "/" in device.id
            text = texts.state(self._maker.new_id(), self._maker.now_ms(), device, full=full).decode()
            if not await self._send(f"device/{device.id}/state/update", text):
                self._states[device] = None
                return False
        while self._waiting:
            if len(self._unconfirmed) >= _UNCONFIRMED:
                self._confirmed = anyio.Event()
                with anyio.move_on_after(_ANSWER_S) as scope:
                    await self._confirmed.wait()
                if scope.cancelled_caught:
                    return False
            device = next(iter(self._waiting))
            wanted = self._waiting.pop(device)
            report = {
                name: texts.twin_json(device.twins[name], versions=True, sides=sides)
                for name, sides in wanted.items()
                if name in device.twins
            }
            values = {name: _actual(device, name) for name, sides in wanted.items() if sides & ACTUAL}
            if report and not await self._tell_device(device, report, values):
                self.note(((device, name, sides) for name, sides in wanted.items()), ())
                return False
        return True

    async def _tell_device(
        self, device: Device, twins: dict[str, str], values: dict[str, str | None] | None = None
    ) -> bool:
        text = texts.edge_updated(self._maker.new_id(), self._maker.now_ms(), twins)
        message = self._message(f"device/{device.id}/twin/edge_updated", json.loads(text))
        if self._rate:
            self._credit -= len(text) + 250
        if values:
            self._unconfirmed[message.msg_id] = _Sent(device, values, self._clock.monotonic())
        if await self._hand_over(message):
            return True
        self._unconfirmed.pop(message.msg_id, None)
        return False

    async def _send(self, resource: str, text: str) -> bool:
        return await self._hand_over(self._message(resource, text))

    def _message(self, resource: str, content: Any) -> Message:
        return self._maker.make("twin", "resource", Operation.UPDATE, resource, content)

    async def _hand_over(self, message: Message) -> bool:
        try:
            await self._bus.send(HUB, message)
        except LookupError:
            return False
        return True

    async def ask_for_members(self, node: str) -> None:
        """As KubeEdge's edge does when it connects. Its clouds of v1.12 do not answer; ours do."""
        question = {
            "event_type": "group_membership_event",
            "event_id": self._maker.new_id(),
            "group_id": node,
            "operation": "detail",
            "timestamp": self._maker.now_ms(),
        }
        text = json.dumps(question).decode()
        await self._hand_over(self._maker.make("twin", "resource", "get", "membership/detail", text))


def _is_known(twin: Twin) -> bool:
    """Whether the cloud has all that was reported."""
    return twin.actual == twin.sent and twin.observed == twin.observed_sent


def _actual(device: Device, name: str) -> str | None:
    twin = device.twins.get(name)
    return None if twin is None or twin.type == DELETED else twin.actual


def _mark_sent(device: Device, values: dict[str, str | None]) -> None:
    for name, value in values.items():
        twin = device.twins.get(name)
        if twin is not None:
            twin.sent = value
