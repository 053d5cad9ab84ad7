"""What one mapper is told: the difference between what it has and what it should have, device by device.

A change only says "look at this key": the device is read, made a message, and compared with what the mapper was sent last. So pushes that failed
are made up for, several changes are one push, and a restart of the edge tells a mapper no more than what has changed meanwhile. Models are told before
the devices that need them, and removed after them.

Units   Seconds.
Errors  None leaves `run`: a mapper that is away or hangs is tried again, by itself, after `FIRST_S` up to `MOST_S`; a push that it refuses after
        `REFUSED_S`, doubled each time, without holding up others.
State   ``told``, which `Records` keep.
Source  KubeEdge v1.12.7 and v1.23, edge/pkg/devicetwin/dmiclient (calls; 10 s each).
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.edge.dmi.convert import device_message, model_message, model_of, protocol_of
from edgesite.edge.dmi.mappers import MapperInfo
from edgesite.edge.dmi.records import Change, Key, Told
from edgesite.kube.dmi.messages import MAPPER_SERVICE
from edgesite.kube.protowire import EncodeError, Messages, WireFormatError, decode, encode
from edgesite.net.grpc_messages import Code, GrpcError

if TYPE_CHECKING:
    from edgesite.context import Context
    from edgesite.edge.devicetwin.devices import Devices
    from edgesite.net.grpc import Channel

__all__ = ["Mapper"]

CALL_S: Final = 10.0
FIRST_S: Final = 1.0
MOST_S: Final = 60.0
REFUSED_S: Final = 5.0
REFUSED_MOST_S: Final = 300.0
_AWAY: Final = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED, Code.CANCELLED})
_NEW: Final = {"device": "RegisterDevice", "devicemodel": "CreateDeviceModel"}
_CHANGED: Final = {"device": "UpdateDevice", "devicemodel": "UpdateDeviceModel"}
_GONE: Final = {"device": "RemoveDevice", "devicemodel": "RemoveDeviceModel"}


class _Refused(Exception):
    """The mapper answered with an error."""


class _Away(Exception):
    """The mapper does not answer."""


class Mapper:
    """One registered mapper."""

    def __init__(
        self,
        ctx: Context,
        info: MapperInfo,
        tables: Messages,
        devices: Devices,
        told: dict[Key, Told],
        on_change: Callable[[Change], None],
    ) -> None:
        self.info = info
        self.told = told
        self.problem = ""  #: why the last push failed
        self.scope = anyio.CancelScope()
        self._ctx, self._tables, self._devices, self._on_change = ctx, tables, devices, on_change
        self._channel: Channel | None = None
        self._dirty: dict[Key, None] = {}
        self._refused: dict[Key, tuple[float, float]] = {}  # when it is tried again, how long after that
        self._came = anyio.Event()

    def look(self, key: Key) -> None:
        """Something about this device or model may have changed."""
        self._refused.pop(key, None)
        self._dirty[key] = None
        self._came.set()

    async def run(self) -> None:
        """Tell the mapper what it should know, until cancelled."""
        wait_s = FIRST_S
        with self.scope:
            try:
                while True:
                    key = await self._next()
                    try:
                        await self._settle(key)
                        wait_s = FIRST_S
                    except _Refused as exc:
                        self._put_off(key, str(exc))
                    except _Away as exc:
                        self._dirty.setdefault(key)
                        self._fail(str(exc))
                        await self._ctx.clock.sleep(wait_s * (0.5 + self._ctx.random.random() / 2))
                        wait_s = min(2 * wait_s, MOST_S)
            finally:
                if self._channel is not None:
                    with anyio.CancelScope(shield=True):
                        await self._channel.close()

    async def _next(self) -> Key:
        """The next key to look at: models first, then what was refused and is due."""
        while True:
            now = self._ctx.clock.monotonic()
            for key, (at, _) in self._refused.items():
                if at <= now:
                    self._dirty.setdefault(key)
            if self._dirty:
                key = next((one for one in self._dirty if one.kind == "devicemodel"), None) or next(iter(self._dirty))
                del self._dirty[key]
                return key
            self._came = anyio.Event()
            due = min((at for at, _ in self._refused.values()), default=float("inf"))
            with anyio.move_on_after(due - now):
                await self._came.wait()

    def _put_off(self, key: Key, why: str) -> None:
        _, wait_s = self._refused.get(key, (0.0, REFUSED_S))
        self._refused[key] = (self._ctx.clock.monotonic() + wait_s, min(2 * wait_s, REFUSED_MOST_S))
        self._fail(f"{key.kind} {key.namespace}/{key.name}: {why}")

    def _fail(self, why: str) -> None:
        if why != self.problem:  # not each attempt
            self._ctx.log.warning("mapper %s (%s): %s", self.info.name, self.info.protocol, why)
            self.problem = why

    # What it should know

    async def everything(self) -> tuple[dict[str, Any], dict[Key, Told]]:
        """Return all that concerns this mapper as the answer to its registration, and what it then has been told."""
        models = {(_namespace(one), _name(one)): one for one in await self._devices.models()}
        told: dict[Key, Told] = {}
        answer: dict[str, list[dict[str, Any]]] = {"modelList": [], "deviceList": []}
        for device in await self._devices.devices():
            if not self._is_ours(device):
                continue
            place = (_namespace(device), model_of(device))
            if (model := models.get(place)) is not None:
                key = Key("devicemodel", *place)
                if key not in told:
                    message, told[key] = self._model(model)
                    answer["modelList"].append(message)
            key = Key("device", _namespace(device), _name(device))
            message, told[key] = self._device(device)
            answer["deviceList"].append(message)
        return answer, told

    def _is_ours(self, device: dict[str, Any]) -> bool:
        if protocol_of(device) != self.info.protocol:
            return False
        if self.info.dmi != "v1alpha1":
            return True
        # That version has no namespaces: of several devices of one name it gets the one that the name means.
        return self._devices.namespace_of(_name(device)) in (None, _namespace(device))

    def _device(self, device: dict[str, Any]) -> tuple[dict[str, Any], Told]:
        message = device_message(self._tables, self.info.dmi, device)
        bare = {**message}
        if status := message.get("status"):  # what the mapper itself reported is no news to it
            twins = [{**twin, "reported": {}} for twin in status.get("twins", ())]
            bare["status"] = {**status, "twins": twins}
        return message, Told(_digest(encode(self._tables["Device"], bare)), model_of(device))

    def _model(self, model: dict[str, Any]) -> tuple[dict[str, Any], Told]:
        message = model_message(self._tables, self.info.dmi, model)
        return message, Told(_digest(encode(self._tables["DeviceModel"], message)))

    async def _settle(self, key: Key) -> None:
        """Make the mapper know of a device or a model what it should. Raises _Refused, _Away."""
        try:
            if key.kind == "device":
                await self._settle_device(key)
            else:
                await self._settle_model(key)
        except EncodeError as exc:
            raise _Refused(f"it cannot be told: {exc}") from exc
        self._refused.pop(key, None)

    async def _settle_device(self, key: Key) -> None:
        device = await self._devices.device(key.namespace, key.name)
        told = self.told.get(key)
        if device is None or not self._is_ours(device):
            if told is not None:
                await self._remove(key)
                self.look(Key("devicemodel", key.namespace, told.model))
            return
        message, new = self._device(device)
        if told == new:
            return
        if new.model:
            await self._settle_model(Key("devicemodel", key.namespace, new.model), needed=True)
        await self._put(key, message, new)

    async def _settle_model(self, key: Key, *, needed: bool = False) -> None:
        model = await self._devices.model(key.namespace, key.name)
        told = self.told.get(key)
        if model is None:
            if told is not None:
                await self._remove(key)
            return
        protocol = model.get("spec", {}).get("protocol")
        if not needed and protocol != self.info.protocol and not self._has_devices_of(key):
            if told is not None:
                await self._remove(key)
            return
        message, new = self._model(model)
        if told != new:
            await self._put(key, message, new)

    def _has_devices_of(self, model: Key) -> bool:
        return any(
            key.kind == "device" and key.namespace == model.namespace and told.model == model.name
            for key, told in self.told.items()
        )

    # Telling it

    async def _put(self, key: Key, message: dict[str, Any], new: Told) -> None:
        member = "device" if key.kind == "device" else "model"
        methods = [_NEW[key.kind], _CHANGED[key.kind]]
        if (told := self.told.get(key)) is not None and told.digest:
            methods.reverse()
        try:
            await self._put_by(methods, {member: message})
        except _Away:
            self._doubt(key, new.model)
            raise
        self._note(key, new)

    async def _put_by(self, methods: list[str], message: dict[str, Any]) -> None:
        try:
            await self._call(methods[0], message)
        except _Refused as exc:
            try:  # it may know it already, or no longer
                await self._call(methods[1], message)
            except _Refused:
                raise exc from None

    async def _remove(self, key: Key) -> None:
        member = "deviceName" if key.kind == "device" else "modelName"
        message = {member: key.name}
        if self.info.dmi != "v1alpha1":
            message["deviceNamespace" if key.kind == "device" else "modelNamespace"] = key.namespace
        try:
            await self._call(_GONE[key.kind], message)
        except _Away:
            self._doubt(key, self.told[key].model)
            raise
        except _Refused as exc:  # it does not know it: that is what was wanted
            self._ctx.log.debug("mapper %s: %s", self.info.name, exc)
        self._note(key, None)

    def _doubt(self, key: Key, model: str) -> None:
        """The answer is lost: nobody knows what the mapper has. It has to be told whether this comes, stays or goes."""
        told = self.told[key] = Told("", model)
        self._on_change(Change(self.info.name, key, told))

    def _note(self, key: Key, told: Told | None) -> None:
        if told is None:
            self.told.pop(key, None)
        else:
            self.told[key] = told
        self.problem = ""
        self._on_change(Change(self.info.name, key, told))

    async def get_device(self, namespace: str, name: str) -> dict[str, Any]:
        """Ask it for a device. Raises GrpcError."""
        request: dict[str, Any] = {"deviceName": name}
        if self.info.dmi != "v1alpha1":
            request["deviceNamespace"] = namespace
        try:
            data = await self._raw_call("GetDevice", encode(self._tables["GetDeviceRequest"], request))
            return dict(decode(self._tables["GetDeviceResponse"], data).get("device", {}))
        except (WireFormatError, OSError, TimeoutError) as exc:
            raise GrpcError(Code.UNAVAILABLE, str(exc)) from exc

    async def _call(self, method: str, message: dict[str, Any]) -> None:
        try:
            await self._raw_call(method, encode(self._tables[f"{method}Request"], message))
        except GrpcError as exc:
            if exc.code in _AWAY:
                raise _Away(f"{method}: {exc.text or exc.code.name}") from exc
            raise _Refused(f"{method}: {exc.text or exc.code.name}") from exc
        except OSError as exc:
            raise _Away(f"{method}: {exc}") from exc

    async def _raw_call(self, method: str, data: bytes) -> bytes:
        """Raises GrpcError, OSError."""
        await self._ctx.threads.run(_check_owner, self.info.socket)
        if self._channel is None:
            from edgesite.net.grpc import Channel

            self._channel = Channel(self._ctx.net, f"unix://{self.info.socket}")
        return await self._channel.call(f"/{self.info.dmi}.{MAPPER_SERVICE}/{method}", data, timeout_s=CALL_S)


def _check_owner(path: str) -> None:
    """A socket that somebody else put there is not the mapper's. Raises OSError."""
    found = os.stat(path)
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(f"{path} is no socket")
    if found.st_uid not in (0, os.geteuid()):
        raise PermissionError(f"{path} belongs to user {found.st_uid}, not to root or to us")


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=12).hexdigest()


def _name(obj: dict[str, Any]) -> str:
    return str(obj.get("metadata", {}).get("name", ""))


def _namespace(obj: dict[str, Any]) -> str:
    return str(obj.get("metadata", {}).get("namespace", ""))
