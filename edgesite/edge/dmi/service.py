"""What mappers call: ``DeviceManagerService`` of both versions.

    MapperRegister        who it is, and where it serves; the answer is its devices and models
    ReportDeviceStatus    values of properties: a twin update, as if published on MQTT
    ReportDeviceStates    v1beta1: the state of a device

As in KubeEdge a report that is well formed succeeds whatever becomes of it: its result is published on MQTT. But if the disk refuses it, the call fails.

Errors  GrpcError, in KubeEdge's words and with its code UNKNOWN where it has any; INVALID_ARGUMENT for what is no message.
Bounds  `REGISTRATIONS` (KubeEdge's rate) and ``reports`` calls; `UNDER_WAY` reports at once.
Source  KubeEdge v1.12.7 and v1.23, edge/pkg/devicetwin/dmiserver.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from edgesite.edge.devicetwin.devices import Devices, Reported
from edgesite.edge.dmi.mappers import MapperInfo, socket_path
from edgesite.edge.dmi.rates import Rate
from edgesite.kube.dmi.messages import MANAGER_SERVICE, VERSIONS, tables
from edgesite.kube.errors import ApiError
from edgesite.kube.protowire import Messages, WireFormatError, decode, encode
from edgesite.net.grpc_messages import Code, GrpcError

if TYPE_CHECKING:
    from edgesite.context import Clock

__all__ = ["REGISTRATIONS", "UNDER_WAY", "DmiService"]

REGISTRATIONS: Final = (1.0, 100)  #: a second, and at once
UNDER_WAY: Final = 1000
_EARLIEST_MS: Final = 1_000_000_000_000  #: what is before 2001 is not the time of a value

Register = Callable[[MapperInfo, bool], Awaitable[dict[str, Any]]]
Handler = Callable[[bytes], Awaitable[bytes]]


class DmiService:
    """See the module docstring. ``register`` takes a mapper and gives its answer."""

    def __init__(
        self,
        devices: Callable[[], Devices | None],
        register: Register,
        clock: Clock,
        reports_per_s: float,
        count: Callable[[str, bool], None] = lambda method, succeeded: None,
    ) -> None:
        self._devices, self._register, self._count = devices, register, count
        self._tables = {version: tables(version) for version in VERSIONS}
        self._registrations = Rate(clock, *REGISTRATIONS)
        self._reports = Rate(clock, reports_per_s, int(2 * reports_per_s))
        self._under_way = 0

    def tables(self, version: str) -> Messages:
        return self._tables[version]

    def handlers(self) -> dict[str, Handler]:
        """By path."""
        found: dict[str, Handler] = {}
        for version in VERSIONS:
            methods = {"MapperRegister": self._mapper_register, "ReportDeviceStatus": self._report_status}
            if version == "v1beta1":
                methods["ReportDeviceStates"] = self._report_states
            for method, function in methods.items():
                found[f"/{version}.{MANAGER_SERVICE}/{method}"] = self._handler(version, method, function)
        return found

    def _handler(
        self, version: str, method: str, function: Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]
    ) -> Handler:
        known = self._tables[version]
        request, response = known[f"{method}Request"], known[f"{method}Response"]

        async def handle(data: bytes) -> bytes:
            succeeded = False
            try:
                answer = encode(response, await function(version, decode(request, data)))
                succeeded = True
            except WireFormatError as exc:
                raise GrpcError(Code.INVALID_ARGUMENT, f"that is no {method}Request: {exc}") from None
            finally:
                self._count(method, succeeded)
            return answer

        return handle

    # Mappers

    async def _mapper_register(self, version: str, request: dict[str, Any]) -> dict[str, Any]:
        if not self._registrations.take():
            raise GrpcError(Code.UNKNOWN, "fail to register mapper because of too many request: too many registrations")
        mapper = request.get("mapper", {})
        name, protocol = mapper.get("name", ""), mapper.get("protocol", "")
        if not protocol:
            raise GrpcError(Code.UNKNOWN, f"fail to register mapper {name} because the protocol is nil")
        if not name or len(name) > 253:
            raise GrpcError(Code.INVALID_ARGUMENT, "fail to register mapper because it has no name, or too long a one")
        try:
            path = socket_path(mapper.get("address", b""))
        except ValueError as exc:
            raise GrpcError(Code.INVALID_ARGUMENT, f"fail to register mapper {name}: {exc}") from None
        words = {key: mapper.get(key, "") for key in ("version", "api_version", "state")}
        info = MapperInfo(name, protocol, path, version, **words)
        return await self._register(info, bool(request.get("withData")))

    # Reports

    async def _report_status(self, version: str, request: dict[str, Any]) -> dict[str, Any]:
        return await self._report(version, request, self._twins)

    async def _report_states(self, version: str, request: dict[str, Any]) -> dict[str, Any]:
        return await self._report(version, request, self._state)

    async def _report(
        self,
        version: str,
        request: dict[str, Any],
        take: Callable[[Devices, str, dict[str, Any]], Awaitable[None]],
    ) -> dict[str, Any]:
        if self._under_way >= UNDER_WAY or not self._reports.take():
            raise GrpcError(Code.UNKNOWN, "fail to report device status because of too many request: slow down")
        devices = self._devices()
        if devices is None:
            raise GrpcError(Code.UNAVAILABLE, "the device twins are not there at the moment")
        self._under_way += 1
        try:
            await take(devices, version, request)
        except ApiError as exc:
            if exc.code >= 500:
                raise GrpcError(Code.UNKNOWN, f"fail to report device status: {exc}") from exc
        finally:
            self._under_way -= 1
        return {}

    async def _twins(self, devices: Devices, version: str, request: dict[str, Any]) -> None:
        name = request.get("deviceName", "")
        reported = request.get("reportedDevice")
        if not name or reported is None:
            raise GrpcError(Code.INVALID_ARGUMENT, "fail to report device status: no device, or nothing reported")
        twins = reported.get("twins", [])
        if version == "v1beta1" and not twins:
            raise GrpcError(Code.UNKNOWN, "ReportDeviceStatusRequest does not have twin data")
        read = _alpha_value if version == "v1alpha1" else _beta_value
        values: list[Reported] = []
        failure: GrpcError | None = None
        for twin in twins:
            try:
                values.append(read(name, twin))
            except GrpcError as exc:  # those before it are taken
                failure = exc
                break
        if values:
            await _give(devices, self._namespace(devices, request), name, values)
        if failure is not None:
            raise failure
        if version == "v1alpha1" and (state := reported.get("state")):  # KubeEdge reads no state there
            await devices.report_state(self._namespace(devices, request), name, state)

    async def _state(self, devices: Devices, version: str, request: dict[str, Any]) -> None:
        name, state = request.get("deviceName", ""), request.get("state", "")
        if not name or not state:
            raise GrpcError(Code.UNKNOWN, "ReportDeviceStatesRequest is invalid data")
        await devices.report_state(self._namespace(devices, request), name, state)

    def _namespace(self, devices: Devices, request: dict[str, Any]) -> str:
        return request.get("deviceNamespace") or devices.namespace_of(request["deviceName"]) or "default"


async def _give(devices: Devices, namespace: str, name: str, values: list[Reported]) -> None:
    """Give all at once; if one of several is refused, each by itself, as KubeEdge does. Raises ApiError."""
    try:
        await devices.report_twins(namespace, name, values)
    except ApiError as exc:
        if exc.code >= 500 or exc.code == 404 or len(values) == 1:
            raise
        for one in values:
            try:
                await devices.report_twins(namespace, name, [one])
            except ApiError as alone:
                if alone.code >= 500:
                    raise


def _alpha_value(device: str, twin: dict[str, Any]) -> Reported:
    name, reported = twin.get("propertyName", ""), twin.get("reported")
    metadata = {} if reported is None else reported.get("metadata", {})
    if "propertyType" not in metadata:
        raise GrpcError(Code.UNKNOWN, f"fail to get propertyType for property {name} of device {device}")
    assert reported is not None
    return Reported(name, reported.get("value", ""), _time_of(metadata), metadata["propertyType"])


def _beta_value(device: str, twin: dict[str, Any]) -> Reported:
    name, reported, observed = twin.get("propertyName", ""), twin.get("reported"), twin.get("observedDesired")
    if reported is None:
        raise GrpcError(Code.INVALID_ARGUMENT, f"no value is reported for property {name} of device {device}")
    seen = None if observed is None else observed.get("value", "")
    return Reported(name, reported.get("value", ""), _time_of(reported.get("metadata", {})), "", seen)


def _time_of(metadata: dict[str, str]) -> int | None:
    """When the value was read, if the mapper says so; a clock that was never set does not."""
    text = metadata.get("timestamp", "")
    if not (text.isascii() and text.isdigit()) or len(text) > 15:
        return None
    return int(text) if int(text) >= _EARLIEST_MS else None
