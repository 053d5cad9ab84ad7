"""Reports of devices into their status: newest wins, what is unchanged is not written, and several reports share a write.

    merged(status, report, types)     the status with a report in it; the same object if nothing changes
    Statuses                          what waits to be written, and the writing

A write is made on the state that it was computed from (a precondition), so that two of them at once lose nothing.

Units   Times are milliseconds since the Unix epoch, but ``lastOnlineTime``, which is RFC 3339.
Errors  ApiError to whoever waits.
State   Reports that wait, one for each device; statuses as written, until the cache has them.
Source  KubeEdge v1.12, cloud/pkg/devicecontroller/controller/upstream.go (form of what is reported).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.client import ObjectKey
from edgesite.client.informer import key_of
from edgesite.cloud.devicecontroller.objects import DEVICE, DeviceObjects, pack, unpacked
from edgesite.kube.devices import to_v1alpha2
from edgesite.kube.errors import ApiError, internal
from edgesite.wire.delivery import version_number

if TYPE_CHECKING:
    import random

    from edgesite.client import Client
    from edgesite.context import Clock

__all__ = ["Report", "Statuses", "Value", "merged"]

Object = dict[str, Any]
_WRITERS: Final = 32  #: they share commits of the store
_REST_S: Final = 1.0  #: between two writes of one device
_TRIES: Final = 5
_FIRST_WAIT_S: Final = 0.1
_OWN_KEPT: Final = 3  #: versions of one device; the cache is not that far behind


@dataclass(frozen=True, slots=True)
class Value:
    """A reported value; None: the property is no more."""

    value: str | None
    timestamp_ms: int | None = None
    type: str = ""


@dataclass(slots=True)
class Report:
    """What is known newly of one device."""

    values: dict[str, Value] = field(default_factory=dict)
    observed: dict[str, str] = field(default_factory=dict)
    state: str = ""
    last_online: str = ""

    def add(self, newer: Report) -> None:
        """Take a newer report into this one."""
        self.values.update(newer.values)
        self.observed.update(newer.observed)
        self.state = newer.state or self.state
        self.last_online = newer.last_online or self.last_online


def merged(device: Object, report: Report, types: Mapping[str, str], *, keeps_newer: bool = False) -> Object:
    """Return the status of a v1beta1 device with a report in it. ``types`` are its properties' types: others are left out.
    ``keeps_newer``: values that say that they are newer stay, for another instance may have written them meanwhile."""
    status = device.get("status") or {}
    twins = {str(one.get("propertyName") or ""): one for one in status.get("twins") or () if isinstance(one, dict)}
    changed = False
    for name, value in report.values.items():
        if name not in types and name not in twins:
            continue
        old = twins.get(name) or {"propertyName": name}
        if keeps_newer and _timestamp_ms(old) > (value.timestamp_ms or 0) > 0:
            continue
        if value.value is None:
            if "reported" in old:
                twins[name] = {key: part for key, part in old.items() if key != "reported"}
                changed = True
        elif (old.get("reported") or {}).get("value") != value.value:
            twins[name] = {**old, "reported": _reported(value, types.get(name, ""))}
            changed = True
    for name, observed in report.observed.items():
        old = twins.get(name) or {"propertyName": name}
        if name in types and (old.get("observedDesired") or {}).get("value") != observed:
            twins[name] = {**old, "observedDesired": {"value": observed}}
            changed = True
    new = dict(status)
    if changed:
        order = {name: at for at, name in enumerate(types)}
        kept = [(name, one) for name, one in twins.items() if len(one) > 1]
        new["twins"] = [one for _, one in sorted(kept, key=lambda item: order.get(item[0], len(order)))]
    for name, text in (("state", report.state), ("lastOnlineTime", report.last_online)):
        if text and status.get(name) != text:
            new[name], changed = text, True
    return new if changed else status


def _reported(value: Value, type_: str) -> Object:
    metadata = {}
    if value.timestamp_ms is not None:
        metadata["timestamp"] = str(value.timestamp_ms)
    if value.type or type_:
        metadata["type"] = value.type or type_
    reported: Object = {"value": value.value}
    if metadata:
        reported["metadata"] = metadata
    return reported


def _timestamp_ms(twin: Object) -> int:
    """When a value was reported; 0 if it does not say."""
    text = str(((twin.get("reported") or {}).get("metadata") or {}).get("timestamp") or "")
    return int(text) if text.isdecimal() and len(text) < 20 else 0


class _Waiting:
    __slots__ = ("done", "error", "report")

    def __init__(self) -> None:
        self.report = Report()
        self.done = anyio.Event()
        self.error: ApiError | None = None


class Statuses:
    """``types_of(device)`` gives a cached device's properties and their types. `run` writes until cancelled."""

    def __init__(
        self,
        client: Client,
        objects: DeviceObjects,
        types_of: Callable[[Object], Mapping[str, str]],
        clock: Clock,
        draw: random.Random,
    ) -> None:
        self._client = client
        self._objects = objects
        self._types_of = types_of
        self._clock = clock
        self._random = draw
        self._waiting: dict[ObjectKey, _Waiting] = {}
        self._busy: set[ObjectKey] = set()
        self._rest_until: dict[ObjectKey, float] = {}
        self._written: dict[ObjectKey, Object] = {}  # as the API answered, packed; while the cache is behind
        self._own: dict[ObjectKey, tuple[int, ...]] = {}  # the last versions that were written here
        self._filled = anyio.Event()

    def add(self, key: ObjectKey, report: Report) -> _Waiting:
        """Queue a report; wait for ``done`` and look at ``error``."""
        waiting = self._waiting.setdefault(key, _Waiting())
        waiting.report.add(report)
        self._filled.set()
        return waiting

    async def run(self) -> None:
        with self._objects.devices.add_handler(None, self._caught_up, self._forget):
            async with anyio.create_task_group() as tasks:
                for _ in range(_WRITERS):
                    tasks.start_soon(self._write_all)

    def _caught_up(self, _: Object, new: Object) -> None:
        written = self._written.get(key_of(new))
        if written is not None and _version(new) >= _version(written):
            del self._written[key_of(new)]

    def _forget(self, one: Object) -> None:
        self._written.pop(key_of(one), None)
        self._own.pop(key_of(one), None)

    async def _write_all(self) -> None:
        while True:
            key, wait_s = self._next()
            if key is None:
                self._filled = anyio.Event() if self._filled.is_set() else self._filled
                with anyio.move_on_after(wait_s):
                    await self._filled.wait()
                continue
            waiting = self._waiting.pop(key)
            self._busy.add(key)
            waiting.error = internal("the report was not written")  # unless this comes to its end
            try:
                await self._write(key, waiting.report)
                waiting.error = None
            except ApiError as exc:
                waiting.error = exc
            finally:
                self._busy.discard(key)
                self._rest_until[key] = self._clock.monotonic() + _REST_S
                waiting.done.set()
                self._filled.set()

    def _next(self) -> tuple[ObjectKey | None, float | None]:
        """The device that may be written now, or how long until there is one."""
        now, soonest = self._clock.monotonic(), None
        for key, until in list(self._rest_until.items()):
            if until > now:
                break
            del self._rest_until[key]
        for key in self._waiting:
            if key in self._busy:
                continue
            until = self._rest_until.get(key, now)
            if until <= now:
                return key, 0.0
            soonest = until if soonest is None else min(soonest, until)
        return None, None if soonest is None else soonest - now

    # -- one write -----------------------------------------------------------------------------------------------

    async def _write(self, key: ObjectKey, report: Report) -> None:
        """Raises ApiError; a device that is gone is nothing to report about."""
        for attempt in range(_TRIES):
            one = self._newest(key) if attempt == 0 else await self._read(key)
            if one is None:
                return
            device = unpacked(one)
            status = merged(device, report, self._types_of(one), keeps_newer=attempt > 0)
            if status == (device.get("status") or {}):
                return
            try:
                answer = await self._patch(key, device, status)
            except ApiError as exc:
                if exc.code == 404:
                    return
                if exc.code != 409 or attempt == _TRIES - 1:
                    raise
                await self._clock.sleep(_FIRST_WAIT_S * 2**attempt * (0.5 + self._random.random() / 2))
                continue
            self._keep(key, pack(answer))
            return

    def _keep(self, key: ObjectKey, written: Object) -> None:
        self._own[key] = (*self._own.get(key, ())[1 - _OWN_KEPT :], _version(written))
        cached = self._objects.devices.by_key(key)
        if cached is not None and _version(cached) < _version(written):
            self._written[key] = written

    def is_foreign(self, key: ObjectKey, one: Object) -> bool:
        """Whether somebody else has written this state of a device, which the cache has just got."""
        if key in self._busy:
            return False  # our answer may be on its way; what is read next is merged into
        return _version(one) not in self._own.get(key, ())  # a lower one may be a restored API's

    def _newest(self, key: ObjectKey) -> Object | None:
        """The device as last written or as cached, whichever is newer."""
        cached, written = self._objects.devices.by_key(key), self._written.get(key)
        if written is not None and (
            cached is None or _version(cached) >= _version(written) or _uid(cached) != _uid(written)
        ):
            del self._written[key]
            written = None
        return written or cached

    async def _read(self, key: ObjectKey) -> Object | None:
        self._written.pop(key, None)
        try:
            found = await self._client.get(self._objects.kinds[DEVICE], key.name, key.namespace)
        except ApiError as exc:
            if exc.code == 404:
                return None
            raise
        return pack(found)

    async def _patch(self, key: ObjectKey, device: Object, status: Object) -> Object:
        kind, metadata = self._objects.kinds[DEVICE], device["metadata"]
        if kind.version == "v1alpha2":
            status = to_v1alpha2({**device, "status": status}).get("status") or {}
        patch = {
            "metadata": {"resourceVersion": metadata.get("resourceVersion"), "uid": metadata.get("uid")},
            "status": status,
        }
        return await self._client.patch(kind, key.name, patch, key.namespace)


def _version(one: Object) -> int:
    return version_number(one["metadata"].get("resourceVersion"))


def _uid(one: Object) -> str:
    return str(one["metadata"].get("uid") or "")
