"""Devices of a mapper by HTTP, as KubeEdge's mapper-framework serves them, and how the mapper is.

    GET /api/v1/ping
    GET /api/v1/device/NAMESPACE/NAME/PROPERTY                      read now (KubeEdge 1.15 without the namespace: that is "default")
    GET /api/v1/devicemethod/NAMESPACE/NAME                         methods
    GET /api/v1/devicemethod/NAMESPACE/NAME/METHOD/PROPERTY/DATA    write now; also by PUT and POST
    GET /api/v1/meta/model/NAMESPACE/NAME                           the device's model
    GET /api/v1/database/NAMESPACE/NAME                             503: there is no database to ask
    GET /healthz, /metrics

A write by a method is for its properties alone, and only for those that the model lets be written. Errors are plain texts with status 500, those
of KubeEdge in its words; an unknown path is 404. There is no authentication: the address is a loopback one unless somebody says otherwise. What a
browser sends for the page of another site is refused with 403, and at a loopback address what calls this machine by a name of the DNS.

Bounds  Connections, sizes and times of `LIMITS`; a device answers within `edgesite.mapper.worker.REQUEST_S`, and so many wait at most for one as it takes.
Errors  OSError on entering, where the address cannot be had.
Source  KubeEdge v1.23, mapper-framework, pkg/httpserver (paths, members, texts).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from edgesite.kube import json
from edgesite.mapper.conversion import ConversionError
from edgesite.mapper.driver import DriverError
from edgesite.mapper.worker import DeviceWorker
from edgesite.net.http import HttpServer, Limits, Request, Response

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from edgesite.mapper.driver import Host
    from edgesite.mapper.fleet import Fleet

__all__ = ["LIMITS", "Rest"]

LIMITS: Final = Limits(
    header_bytes=16 * 1024,
    body_bytes=64 * 1024,
    connections=128,
    pipelined=16,
    idle_timeout_s=30.0,
    stall_timeout_s=20.0,
)
_BASE: Final = "/api/v1/"
_TEXT: Final = {"content-type": "text/plain; charset=utf-8", "x-content-type-options": "nosniff"}
_READS: Final = frozenset({"GET", "HEAD"})
_WRITES: Final = frozenset({"GET", "PUT", "POST"})


class _Failed(Exception):
    """The text of the answer."""

    def __init__(self, text: str, status: int = 500) -> None:
        super().__init__(text)
        self.status = status


class Rest:
    """``async with``: serves within the block."""

    def __init__(self, fleet: Fleet, host: Host, address: str, registry: CollectorRegistry) -> None:
        self.address = address  #: with the port that the system chose, once it is open
        self._fleet, self._host, self._registry = fleet, host, registry
        self._is_loopback = _is_loopback(address)
        self._server = HttpServer(self._handle, LIMITS, clock=host.clock, threads=host.threads, log=host.log)

    async def __aenter__(self) -> Rest:
        await self._server.__aenter__()
        try:
            self.address = (await self._server.listen(self._host.net, self.address)).address
        except OSError as exc:
            await self._server.__aexit__(None, None, None)
            raise OSError(f"devices cannot be served at {self.address}: {exc}") from exc
        return self

    async def __aexit__(self, *error: object) -> bool | None:
        return await self._server.__aexit__(*error)  # type: ignore[arg-type]

    async def _handle(self, request: Request) -> Response:
        try:
            return await self._answer(request)
        except _Failed as exc:
            return Response(exc.status, _TEXT, f"{exc}\n".encode())

    async def _answer(self, request: Request) -> Response:
        if self._is_from_a_page(request):
            raise _Failed("other sites' pages may not reach devices", 403)  # a GET writes
        path = request.target.partition("?")[0]
        if path == "/healthz":
            return Response(200, _TEXT, b"ok")
        if path == "/metrics":
            return self._metrics()
        parts = [unquote(one) for one in path.removeprefix(_BASE).split("/")] if path.startswith(_BASE) else []
        match parts:
            case ["ping"]:
                route: Callable[[], Awaitable[dict[str, Any]]] = self._ping
            case ["device", name, prop]:
                route = lambda: self._read("default", name, prop)
            case ["device", namespace, name, prop]:
                route = lambda: self._read(namespace, name, prop)
            case ["devicemethod", namespace, name]:
                route = lambda: self._methods(namespace, name)
            case ["devicemethod", namespace, name, method, prop, data]:
                _allow(request, _WRITES)
                return self._json(request, await self._write(namespace, name, method, prop, data))
            case ["meta", "model", namespace, name]:
                route = lambda: self._model(namespace, name)
            case ["database", _] | ["database", _, _]:
                raise _Failed("The database is not enabled. Please configure mapper and try again", 503)
            case _:
                raise _Failed("404 page not found", 404)
        _allow(request, _READS)
        return self._json(request, await route())

    def _is_from_a_page(self, request: Request) -> bool:
        """Whether a browser sends this for somebody else's page, or for one whose name was made to lead here (DNS rebinding)."""
        headers, host = request.headers, (request.headers.get("host") or "").lower()
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return True
        for name in ("origin", "referer"):  # browsers leave sec-fetch-site out where neither side is trustworthy
            if (page := headers.get(name)) is not None and page.lower().partition("://")[2].partition("/")[0] != host:
                return True
        return self._is_loopback and not _cannot_be_led_here(host)

    def _json(self, request: Request, more: dict[str, Any]) -> Response:
        stamp = datetime.fromtimestamp(int(self._host.clock.time()), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        headers = {"content-type": "application/json"}
        if (correlation := request.headers.get("x-correlation-id")) is not None:
            headers["x-correlation-id"] = correlation
        body = {"apiVersion": "v1", "statusCode": 200, "timeStamp": stamp, **more}
        return Response(200, headers, json.dumps(body))

    def _metrics(self) -> Response:
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return Response(200, {"content-type": CONTENT_TYPE_LATEST}, generate_latest(self._registry))

    # What is asked for

    async def _ping(self) -> dict[str, Any]:
        return {"Message": "This is v1 API, the server is running normally."}

    async def _read(self, namespace: str, name: str, prop: str) -> dict[str, Any]:
        what = "Get device data error"
        worker = self._worker(namespace, name, f"{what}: not found device {namespace}/{name}")
        try:
            known, text = await worker.read(prop)
        except LookupError as exc:
            raise _Failed(f"{what}: {exc}") from exc
        except (DriverError, ConversionError) as exc:
            raise _Failed(f"{what}: get device data failed: {exc}") from exc
        data = {
            "DeviceName": name,
            "PropertyName": prop,
            "Namespace": namespace,
            "Value": text,
            "Type": known.type,
            "TimeStamp": worker.points[prop].at_ms,
        }
        return {"Data": data}

    async def _methods(self, namespace: str, name: str) -> dict[str, Any]:
        what = "Get device method error"
        worker = self._worker(namespace, name, f"{what}: not found device {namespace}/{name}")
        methods = []
        for method, names in worker.assignment.methods.items():
            for one in names:
                if one not in worker.points:
                    raise _Failed(f"{what}: unable to find device property {one} defined in device method")
            methods.append(
                {
                    "Name": method,
                    "Path": f"{_BASE}devicemethod/{namespace}/{name}/{method}/{{propertyName}}/{{data}}",
                    "Parameters": [{"PropertyName": one, "ValueType": worker.points[one].prop.type} for one in names],
                }
            )
        return {"Data": {"Methods": methods}}

    async def _write(self, namespace: str, name: str, method: str, prop: str, data: str) -> dict[str, Any]:
        what = "Write device data error"
        worker = self._worker(namespace, name, f"{what}: not found device {namespace}/{name}")
        if prop not in worker.assignment.methods.get(method, ()):
            raise _Failed(f"{what}: device {namespace}/{name} has no method {method} for property {prop}")
        point = worker.points.get(prop)
        if point is not None and not point.prop.writable:
            raise _Failed(f"{what}: property {prop} is read-only")
        try:
            await worker.write(prop, data)
        except (LookupError, DriverError, ConversionError) as exc:
            raise _Failed(f"{what}: {exc}") from exc
        return {"Message": f"Write data {data} to device {namespace}/{name} successfully."}

    async def _model(self, namespace: str, name: str) -> dict[str, Any]:
        worker = self._worker(namespace, name, f"Get device error: not found device {namespace}/{name}")
        model = worker.assignment.model
        if model is None:
            raise _Failed(f"Get device model error: not found model {worker.assignment.device.model}")
        return _model_members(namespace, worker.assignment.device.model, model)

    def _worker(self, namespace: str, name: str, otherwise: str) -> DeviceWorker:
        worker = self._fleet.get((namespace, name))
        if worker is None:
            raise _Failed(otherwise)
        return worker


def _is_loopback(address: str) -> bool:
    name = _name_of(address)
    return name == "localhost" or ((ip := _ip_of(name)) is not None and ip.is_loopback)


def _cannot_be_led_here(host: str) -> bool:
    """Whether a Host names this machine by what no name server decides."""
    name = _name_of(host)
    return not name or name == "localhost" or name.endswith(".localhost") or _ip_of(name) is not None


def _name_of(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return "?"


def _ip_of(name: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(name)
    except ValueError:
        return None


def _allow(request: Request, methods: frozenset[str]) -> None:
    if request.method not in methods:
        raise _Failed("", 405)


_MODEL_MEMBERS: Final = {"type": "dataType"}


def _model_members(namespace: str, name: str, model: Any) -> dict[str, Any]:
    spec = model.get("spec", {})
    members: dict[str, Any] = {"id": f"{namespace}/{name}", "name": name, "namespace": namespace}
    properties = []
    for one in spec.get("properties") or ():
        wanted = ("name", "type", "description", "accessMode", "minimum", "maximum", "unit")
        properties.append({_MODEL_MEMBERS.get(key, key): one[key] for key in wanted if one.get(key)})
    members["properties"] = properties
    return members
