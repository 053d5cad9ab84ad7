"""What an edge tells a mapper: ``DeviceMapperService`` of both versions, and what has been told so far.

An edge may tell of a device that is known already, or change one that is not: both just say how it is now. Removing what is not there succeeds.

Errors  GrpcError: INVALID_ARGUMENT for what is no message, NOT_FOUND from GetDevice, RESOURCE_EXHAUSTED for more devices or models than `Objects` holds.
Source  KubeEdge v1.12.7 and v1.23, pkg/apis/dmi (methods); mapper-framework, pkg/grpcserver (what succeeds).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from edgesite.kube.dmi.messages import MAPPER_SERVICE, VERSIONS, tables
from edgesite.kube.protowire import WireFormatError, decode, encode
from edgesite.mapper.devices import assignment_of, device_of, model_of
from edgesite.mapper.fleet import DEVICES, Fleet, FleetFull
from edgesite.mapper.reports import Key
from edgesite.mapper.worker import Make
from edgesite.net.grpc_messages import Code, GrpcError

__all__ = ["MapperService", "Objects"]

Object = dict[str, Any]
Log = logging.Logger | logging.LoggerAdapter[logging.Logger]
MODELS: Final = DEVICES


class Objects:
    """Devices and models as the edge told them; the fleet follows."""

    def __init__(self, fleet: Fleet, make: Make, protocol: str, log: Log) -> None:
        self._fleet, self._make, self._protocol, self._log = fleet, make, protocol, log
        self._devices: dict[Key, tuple[str, Object]] = {}  # version and message
        self._models: dict[Key, Object] = {}  # objects
        self._pushed: set[tuple[str, Key]] = set()  # since `expect`

    def __len__(self) -> int:
        return len(self._devices)

    def expect(self) -> None:
        """All is asked for: what is pushed from now on is newer than the answer."""
        self._pushed.clear()

    def replace(self, version: str, models: list[Object], devices: list[Object]) -> None:
        """Take the answer. A device that cannot be read, or is one too many, is left out."""
        told = {_key(one): one for one in devices}
        for model in models[:MODELS]:
            obj = model_of(version, model)
            if ("model", key := _key(obj["metadata"])) not in self._pushed:
                self._models[key] = obj
        for key in [*self._devices]:
            if key not in told and ("device", key) not in self._pushed:
                self.remove_device(key)
        for key, message in told.items():
            if ("device", key) not in self._pushed:
                try:
                    self._settle(version, message)
                except (FleetFull, WireFormatError) as exc:
                    self._log.error("device %s/%s is not driven: %s", *key, exc)
        self._forget_models({_key(one) for one in models})
        self._fleet.refresh()
        self._pushed.clear()

    def _forget_models(self, told: set[Key]) -> None:
        """Those that the edge no longer speaks of, and no device is of."""
        used = {
            (key[0], message.get("spec", {}).get("deviceModelReference", ""))
            for key, (_, message) in self._devices.items()
        }
        for key in [*self._models]:
            if key not in told and key not in used and ("model", key) not in self._pushed:
                del self._models[key]

    def put_device(self, version: str, message: Object) -> Key:
        """Raises WireFormatError, FleetFull."""
        key = self._settle(version, message)
        self._pushed.add(("device", key))
        return key

    def _settle(self, version: str, message: Object) -> Key:
        obj = device_of(version, message)
        key = _key(obj["metadata"])
        reference = obj["spec"].get("deviceModelRef", {}).get("name", "")
        self._fleet.put(assignment_of(obj, self._models.get((key[0], reference))), self._make)
        self._devices[key] = (version, message)
        return key

    def remove_device(self, key: Key) -> None:
        self._devices.pop(key, None)
        self._pushed.add(("device", key))
        self._fleet.remove(key)

    def put_model(self, version: str, message: Object) -> Key:
        """Raises FleetFull."""
        obj = model_of(version, message)
        key = _key(obj["metadata"])
        if key not in self._models and len(self._models) >= MODELS:
            raise FleetFull(f"there are {MODELS} models already")
        self._models[key] = obj
        self._pushed.add(("model", key))
        for place, (told, device) in [*self._devices.items()]:
            if (place[0], device.get("spec", {}).get("deviceModelReference", "")) == key:
                self._settle(told, device)  # it could be read before
        return key

    def remove_model(self, key: Key) -> None:
        """Devices of it go on as they were told."""
        self._models.pop(key, None)
        self._pushed.add(("model", key))

    def want(self, version: str, key: Key, twins: list[Object]) -> None:
        """Take desired values alone (v1alpha1). Raises GrpcError, WireFormatError."""
        if key not in self._devices:
            raise GrpcError(Code.NOT_FOUND, f"device {key[1]} not found")
        message = self._devices[key][1]
        now = {one.get("propertyName"): one for one in message.get("status", {}).get("twins", [])}
        for one in twins:
            now[one.get("propertyName")] = {**now.get(one.get("propertyName"), {}), **one}
        self.put_device(version, {**message, "status": {"twins": list(now.values())}})

    def device(self, key: Key) -> Object:
        """The message of a device with what it has reported. Raises GrpcError."""
        worker = self._fleet.get(key)
        if worker is None or key not in self._devices:
            raise GrpcError(Code.NOT_FOUND, f"device {key[1]} not found")
        version, message = self._devices[key]
        twins = []
        for name, point in worker.points.items():
            metadata = {"timestamp": str(point.at_ms), "type": point.prop.type}
            twin: Object = {"propertyName": name, "reported": {"value": point.text, "metadata": metadata}}
            wanted = "desired" if version == "v1alpha1" else "observedDesired"
            twin[wanted] = {"value": point.wanted if version == "v1alpha1" else point.written}
            if point.at_ms:
                twins.append(twin)
        status: Object = {"twins": twins}
        if version == "v1alpha1":
            status["state"] = worker.state.value
        return {**message, "status": status}


class MapperService:
    """The service; `handlers` are what a gRPC server wants."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._methods: dict[str, Callable[[str, Object], Object]] = {
            "RegisterDevice": self._put_device,
            "UpdateDevice": self._put_device,
            "RemoveDevice": self._remove_device,
            "CreateDeviceModel": self._put_model,
            "UpdateDeviceModel": self._put_model,
            "RemoveDeviceModel": self._remove_model,
            "GetDevice": self._get_device,
        }

    def handlers(self) -> dict[str, Callable[[bytes], Awaitable[bytes]]]:
        """By path."""
        found: dict[str, Callable[[bytes], Awaitable[bytes]]] = {}
        for version in VERSIONS:
            methods = dict(self._methods)
            if version == "v1alpha1":
                methods["UpdateDeviceStatus"] = self._want
            known = tables(version)
            for name, method in methods.items():
                path = f"/{version}.{MAPPER_SERVICE}/{name}"
                found[path] = partial(
                    _handle, known[f"{name}Request"], known[f"{name}Response"], partial(method, version)
                )
        return found

    def _put_device(self, version: str, request: Object) -> Object:
        if not request.get("device", {}).get("name"):
            raise GrpcError(Code.INVALID_ARGUMENT, "device is nil")
        namespace, name = self._objects.put_device(version, request["device"])
        return {"deviceName": name, "deviceNamespace": namespace}

    def _remove_device(self, version: str, request: Object) -> Object:
        self._objects.remove_device(_named(request, "deviceName", "deviceNamespace"))
        return {}

    def _put_model(self, version: str, request: Object) -> Object:
        if not request.get("model", {}).get("name"):
            raise GrpcError(Code.INVALID_ARGUMENT, "device model is nil")
        namespace, name = self._objects.put_model(version, request["model"])
        return {"deviceModelName": name, "deviceModelNamespace": namespace}

    def _remove_model(self, version: str, request: Object) -> Object:
        self._objects.remove_model(_named(request, "modelName", "modelNamespace"))
        return {}

    def _get_device(self, version: str, request: Object) -> Object:
        return {"device": self._objects.device(_named(request, "deviceName", "deviceNamespace"))}

    def _want(self, version: str, request: Object) -> Object:
        twins = request.get("desiredDevice", {}).get("twins", [])
        self._objects.want(version, _named(request, "deviceName", "deviceNamespace"), twins)
        return {}


async def _handle(request: Any, response: Any, method: Callable[[Object], Object], data: bytes) -> bytes:
    try:
        answer = method(decode(request, data))
    except WireFormatError as exc:
        raise GrpcError(Code.INVALID_ARGUMENT, str(exc)) from None
    except FleetFull as exc:
        raise GrpcError(Code.RESOURCE_EXHAUSTED, str(exc)) from None
    known = {field.name for field in response.fields}
    return encode(response, {name: value for name, value in answer.items() if name in known})


def _key(of: Object) -> Key:
    return of.get("namespace") or "default", of.get("name", "")


def _named(request: Object, name: str, namespace: str) -> Key:
    return request.get(namespace) or "default", request.get(name, "")
