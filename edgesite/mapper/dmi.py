"""A mapper's side of the Device Management Interface: it registers at the edge, is told of its devices, and reports.

The edge is told where the mapper serves, and answers with all that there is. It is registered anew whenever the edge has begun anew: its socket is
another one, or it has not been reachable; what the answer then says replaces what was known. What the edge pushes while a registration is under way is newer
than its answer.

Version "auto" speaks v1beta1, and v1alpha1 to an edge that knows no other.

Units   Seconds.
Errors  OSError from `run` where the mapper's own socket cannot be had. The edge being away is no error.
State   Devices and models as the edge told them, in memory.
Source  KubeEdge v1.12.7 and v1.23, edge/pkg/devicetwin/dmiserver; mapper-framework, pkg/grpcserver and pkg/grpcclient.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import anyio
import anyio.abc

from edgesite.kube.dmi.messages import MANAGER_SERVICE, VERSIONS, tables
from edgesite.kube.protowire import WireFormatError, decode, encode
from edgesite.mapper.dmiservice import MapperService, Objects
from edgesite.mapper.driver import DeviceState
from edgesite.mapper.fleet import Fleet
from edgesite.mapper.reports import Key, OutletAway, Reading, ReportRefused
from edgesite.net.grpc import Channel
from edgesite.net.grpc_messages import Code, GrpcError
from edgesite.net.grpc_server import GrpcServer

if TYPE_CHECKING:
    from edgesite.mapper.driver import Host
    from edgesite.mapper.metrics import Meters
    from edgesite.mapper.worker import Make

__all__ = ["DmiEnd", "Identity"]

Version = Literal["auto", "v1alpha1", "v1beta1"]
CALL_S: Final = 10.0
FIRST_S: Final = 1.0
MOST_S: Final = 30.0
LOOK_S: Final = 2.0  #: how often the edge's socket is looked at
_AWAY: Final = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED, Code.CANCELLED})
_LATER: Final = ("fail to report device status: ", "fail to report device status because of too many request")


@dataclass(frozen=True, slots=True)
class Identity:
    """What the edge is told of the mapper."""

    name: str
    protocol: str
    socket: str  #: where it serves
    version: str = "v1.0.0"
    api_version: str = "v1.0.0"


class DmiEnd:
    """See the module docstring. Implements `edgesite.mapper.reports.Outlet`."""

    def __init__(self, identity: Identity, edge: str, host: Host, *, version: Version = "auto") -> None:
        """``edge`` is the path of the edge's socket."""
        self.version = version
        self.registered = anyio.Event()  #: since the edge began
        self._identity, self._edge, self._host = identity, edge, host
        self._channel = Channel(host.net, f"unix://{edge}")
        self._tables = {one: tables(one) for one in VERSIONS}
        self._has_states = True
        self._lost = anyio.Event()  # that the edge has to be asked anew

    async def run(
        self,
        make: Make,
        meters: Meters,
        *,
        environ: Mapping[str, str] | None = None,
        task_status: anyio.abc.TaskStatus[Fleet] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled (``environ``: see `Fleet`); started when it can be reached, which may be before the edge can. Raises OSError."""
        async with Fleet(self._host, self, meters, environ=environ) as fleet:
            objects = Objects(fleet, make, self._identity.protocol, self._host.log)
            service = MapperService(objects)
            async with GrpcServer(service.handlers()) as server:
                try:
                    await server.listen(self._host.net, f"unix://{self._identity.socket}")
                except OSError as exc:
                    raise OSError(f"the edge cannot be served at {self._identity.socket}: {exc}") from exc
                task_status.started(fleet)
                try:
                    await self._stay_registered(objects)
                finally:
                    with anyio.CancelScope(shield=True):
                        await self._channel.close()

    # Registration

    async def _stay_registered(self, objects: Objects) -> None:
        wait_s, said = FIRST_S, ""
        while True:
            seen = await self._host.threads.run(_identity_of, self._edge)
            self._lost = anyio.Event()
            try:
                await self._register(objects)
            except (GrpcError, WireFormatError, OSError) as exc:
                why = getattr(exc, "text", "") or str(exc) or type(exc).__name__
                if why != said:  # not each attempt
                    self._host.log.warning("the edge at %s takes no mapper: %s", self._edge, why)
                    said = why
                await self._host.clock.sleep(wait_s * (0.5 + self._host.random.random() / 2))
                wait_s = min(2 * wait_s, MOST_S)
                continue
            self.registered.set()
            self._host.log.info("registered at %s by DMI %s with %d devices", self._edge, self.version, len(objects))
            wait_s, said = FIRST_S, ""
            await self._until_lost(seen)
            self.registered = anyio.Event()

    async def _register(self, objects: Objects) -> None:
        """Raises GrpcError, WireFormatError."""
        mapper = {
            "name": self._identity.name,
            "version": self._identity.version,
            "api_version": self._identity.api_version,
            "protocol": self._identity.protocol,
            "address": self._identity.socket.encode(),
            "state": "ok",
        }
        objects.expect()
        for version in VERSIONS[::-1] if self.version == "auto" else (self.version,):
            known = self._tables[version]
            request = encode(known["MapperRegisterRequest"], {"withData": True, "mapper": mapper})
            try:
                data = await self._call(version, "MapperRegister", request)
            except GrpcError as exc:
                if exc.code is Code.UNIMPLEMENTED and self.version == "auto" and version != VERSIONS[0]:
                    continue
                raise
            answer = decode(known["MapperRegisterResponse"], data)
            self.version, self._has_states = version, True
            objects.replace(version, answer.get("modelList", []), answer.get("deviceList", []))
            return

    async def _until_lost(self, seen: tuple[int, ...]) -> None:
        """Wait until the edge has begun anew."""
        while not self._lost.is_set():
            with anyio.move_on_after(LOOK_S):
                await self._lost.wait()
            if await self._host.threads.run(_identity_of, self._edge) != seen:
                return

    async def _call(self, version: str, method: str, data: bytes) -> bytes:
        """Raises GrpcError."""
        return await self._channel.call(f"/{version}.{MANAGER_SERVICE}/{method}", data, timeout_s=CALL_S)

    # Reports

    async def report(self, key: Key, readings: Sequence[Reading]) -> None:
        """Raises ReportRefused, OutletAway."""
        twins = [_twin(self.version, one) for one in readings]
        await self._report("ReportDeviceStatus", key, {"reportedDevice": {"twins": twins}})

    async def report_state(self, key: Key, state: DeviceState) -> None:
        """Raises ReportRefused, OutletAway."""
        if self.version == "v1alpha1":  # which has a place for it, but no call
            await self._report("ReportDeviceStatus", key, {"reportedDevice": {"state": state.value}})
        elif self._has_states:
            await self._report("ReportDeviceStates", key, {"state": state.value})

    async def _report(self, method: str, key: Key, request: dict[str, Any]) -> None:
        if not self.registered.is_set():
            raise OutletAway("it has not taken this mapper yet")
        request["deviceName"] = key[1]
        if self.version != "v1alpha1":
            request["deviceNamespace"] = key[0]
        table = self._tables[self.version][f"{method}Request"]
        try:
            await self._call(self.version, method, encode(table, request))
        except GrpcError as exc:
            if exc.code is Code.UNIMPLEMENTED and method == "ReportDeviceStates":  # before v1.18
                self._has_states = False
            elif exc.code in _AWAY:
                self._lost.set()
                raise OutletAway(exc.text or exc.code.name) from exc
            elif exc.text.startswith(_LATER):
                raise OutletAway(exc.text) from exc
            else:
                raise ReportRefused(exc.text or exc.code.name) from exc


def _twin(version: str, one: Reading) -> dict[str, Any]:
    metadata = {"timestamp": str(one.at_ms), "type": one.type}
    if version == "v1alpha1":
        metadata["propertyType"] = one.type
    reported = {"value": one.value, "metadata": metadata}
    if version == "v1alpha1":
        return {"propertyName": one.property, "reported": reported, "desired": {"value": one.observed_desired or ""}}
    twin: dict[str, Any] = {"propertyName": one.property, "reported": reported}
    if one.observed_desired is not None:
        twin["observedDesired"] = {"value": one.observed_desired, "metadata": {"type": one.type}}
    return twin


def _identity_of(path: str) -> tuple[int, ...]:
    """What tells one socket file from another; blocking."""
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_ino, found.st_ctime_ns
