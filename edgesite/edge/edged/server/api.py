"""The kubelet HTTP API: what is served, and how failures are answered.

    GET  /healthz, /healthz/ping, …                     ok
    GET  /configz                                       how edged is configured, as kubelet tells it
    GET  /pods, /runningpods/                           PodList
    GET  /containerLogs/{namespace}/{pod}/{container}   the log, as text; see `LogOptions` for the query
    POST /run/{namespace}/{pod}/{container}?cmd=        runs a command to its end; its output
    /exec/…, /attach/…, /portForward/…                  see `streaming`
    GET  /stats/summary                                 what node and pods use, as JSON
    GET  /metrics/resource, /metrics/cadvisor           the same as metrics
    GET  /metrics/probes                                how often probes gave which result
    GET  /metrics                                       this role's metrics

What acts inside containers is for the in-process way and the port with TLS (`secureport`): the other one knows nobody who asks.

Errors  ApiError becomes its code with the message as text, as kubelet answers.
State   None.
Source  kubelet's server (paths, parameters, texts); KubeEdge edged serves the same on 127.0.0.1:10350.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
from typing import TYPE_CHECKING, Any, Final

from edgesite.edge.edged.server import exposition
from edgesite.edge.edged.server.nodeusage import NodeUsage, disk_usage, node_usage
from edgesite.edge.edged.server.options import LogOptions
from edgesite.edge.edged.server.reader import read_log
from edgesite.edge.edged.server.streaming import Streaming
from edgesite.edge.edged.server.summary import FIRST_RATE_S, Rates, summary
from edgesite.kube import json
from edgesite.kube.errors import ApiError, unavailable
from edgesite.net.http import Request, Response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from prometheus_client import CollectorRegistry

    from edgesite.context import Clock, Net, Threads
    from edgesite.edge.edged.server.source import LogSource, PodUsage

__all__ = ["KubeletApi"]

#: What may hold credentials is shown to nobody.
_SECRET: Final = frozenset({"staticPodURLHeader"})
_TEXT: Final = b"content-type: text/plain; charset=utf-8\r\n"
_JSON: Final = b"content-type: application/json\r\n"


class KubeletApi:
    """Answers requests; its ``handle`` is an HTTP handler. ``source`` finds edged, which may be between two runs."""

    def __init__(
        self,
        source: Callable[[], LogSource | None],
        clock: Clock,
        threads: Threads,
        metrics: CollectorRegistry,
        net: Net,
        node_name: str,
        data_dir: Path,
        log: logging.Logger | logging.LoggerAdapter[logging.Logger],
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """``config`` is what /configz shows."""
        self._config = {name: value for name, value in (config or {}).items() if name not in _SECRET}
        self._find_source = source
        self._node_name = node_name
        self._data_dir = data_dir
        self._rates = Rates()
        self._streaming = Streaming(lambda: self._source, net, clock, log)
        self._clock = clock
        self._threads = threads
        self._metrics = metrics
        self._log = log

    def handle(self, request: Request) -> Response | Awaitable[Response | None]:
        """Answer one request, of a caller within the process or of nobody knows whom."""
        if not request.peer.in_process and not _is_local_use(request):
            return Response(403, _TEXT, b"this API is for programs on this machine, not for web pages\n")
        if not request.peer.in_process and request.path.strip("/").partition("/")[0] in _RUNNING:
            return Response(403, _TEXT, b"this port is read-only; kubectl reaches containers through the API server\n")
        return self.serve(request)

    def serve(self, request: Request) -> Response | Awaitable[Response | None]:
        """Answer one request of a caller who may do everything here."""
        route = request.path.strip("/").split("/")
        if len(route) == 4 and route[0] == "containerLogs":
            return self._guard(request, ("GET", "HEAD"), self._container_log, *route[1:])
        if len(route) == 4 and route[0] == "run":
            return self._guard(request, ("POST",), self._run, *route[1:])
        if (measured := _MEASURED.get("/".join(route))) is not None:
            return self._guard(request, ("GET", "HEAD"), lambda _: measured(self))
        if (serve := self._streaming.find(route)) is not None:
            return self._guard(request, ("GET", "POST"), serve)
        if (plain := _PLAIN.get("/".join(route))) is None:
            return Response(404, _TEXT, b"404 page not found\n")
        if request.method not in ("GET", "HEAD"):
            return _wrong_method()
        try:
            return plain(self)
        except ApiError as exc:
            return _failure(exc)

    @property
    def _source(self) -> LogSource:
        """Raises ApiError."""
        source = self._find_source()
        if source is None:
            raise unavailable("edged is not running")
        return source

    def healthz(self) -> Response:
        return Response(200, _TEXT, b"ok")

    def configz(self) -> Response:
        return Response(200, _JSON, json.dumps({"kubeletconfig": self._config}))

    def probe_metrics(self) -> Response:
        """Raises ApiError."""
        return Response(200, exposition.CONTENT_TYPE, exposition.probes(self._source.probe_counts()))

    def pods(self) -> Response:
        return _pod_list(self._source.pods())

    def running_pods(self) -> Response:
        return _pod_list(self._source.running_pods())

    def metrics(self) -> Response:
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return Response(200, {"content-type": CONTENT_TYPE_LATEST}, generate_latest(self._metrics))

    async def summary(self) -> Response:
        """Raises ApiError."""
        told = await self._summarize()
        parts = [told["node"], *(one for pod in told["pods"] for one in pod["containers"])]
        if any("usageNanoCores" not in one["cpu"] for one in parts):  # a rate needs two samples
            await self._clock.sleep(FIRST_RATE_S * 1.05)
            told = await self._summarize()
        return Response(200, _JSON, json.dumps(told))

    async def _summarize(self) -> dict[str, Any]:
        """Raises ApiError."""
        pods, node, now_ns = await self._usage()
        disk = await self._threads.run(disk_usage, self._data_dir)
        details, images = await self._source.details(), await self._source.image_disk()
        return summary(self._node_name, node, disk, pods, self._rates, now_ns, details, images)

    async def resource_metrics(self) -> Response:
        """Raises ApiError."""
        pods, node, now_ns = await self._usage()
        return Response(200, exposition.CONTENT_TYPE, exposition.resource(node, pods, now_ns))

    async def container_metrics(self) -> Response:
        """Raises ApiError."""
        pods, node, _ = await self._usage()
        return Response(200, exposition.CONTENT_TYPE, exposition.cadvisor(node, pods))

    async def _usage(self) -> tuple[list[PodUsage], NodeUsage, int]:
        """Raises ApiError."""
        pods = await self._source.usage()
        return pods, await self._threads.run(node_usage), int(self._clock.time() * 1e9)

    def _guard(
        self,
        request: Request,
        methods: tuple[str, ...],
        serve: Callable[..., Awaitable[Response | None]],
        *parts: str,
    ) -> Response | Awaitable[Response | None]:
        return self._answer(request, serve, parts) if request.method in methods else _wrong_method()

    async def _answer(
        self, request: Request, serve: Callable[..., Awaitable[Response | None]], parts: tuple[str, ...]
    ) -> Response | None:
        try:
            return await serve(request, *parts)
        except ApiError as exc:
            return _failure(exc)

    async def _container_log(self, request: Request, namespace: str, pod: str, container: str) -> Response | None:
        """Raises ApiError."""
        options = LogOptions.from_query(request.query, self._clock.time())
        found = await self._source.container_log(namespace, pod, container, previous=options.previous)
        writer = await request.stream(200, _TEXT)
        pieces = read_log(found, options, self._threads, self._clock)
        async with contextlib.aclosing(pieces):
            try:
                async for piece in pieces:
                    await writer.write(piece)
            except OSError as exc:
                if not writer.closed:
                    self._log.warning("cannot read log=%s: %s", found.path, exc)
                    writer.abort()  # the client must see that this is not all
                return None
        writer.close()
        return None

    async def _run(self, request: Request, namespace: str, pod: str, container: str) -> Response:
        """Raises ApiError."""
        command = request.query.get("cmd", [""])[0].split()
        if not command:
            return Response(400, _TEXT, b"query parameter cmd names the command")
        result = await self._source.run(namespace, pod, container, command)
        if result.exit_code:
            text = f"command '{' '.join(command)}' exited with {result.exit_code}: ".encode() + result.output
            return Response(500, _TEXT, text)
        return Response(200, _TEXT, result.output)


#: What acts inside containers. A port knows nobody who asks, and every user of the machine, or of a wider ``address``, may ask.
_RUNNING: Final = frozenset({"run", "exec", "attach", "portForward"})
_PLAIN: Final[dict[str, Callable[[KubeletApi], Response]]] = {
    "configz": KubeletApi.configz,
    "healthz": KubeletApi.healthz,
    "healthz/log": KubeletApi.healthz,
    "healthz/ping": KubeletApi.healthz,
    "healthz/syncloop": KubeletApi.healthz,
    "metrics/probes": KubeletApi.probe_metrics,
    "pods": KubeletApi.pods,
    "runningpods": KubeletApi.running_pods,
    "metrics": KubeletApi.metrics,
}

_MEASURED: Final[dict[str, Callable[[KubeletApi], Awaitable[Response]]]] = {
    "stats/summary": KubeletApi.summary,
    "metrics/resource": KubeletApi.resource_metrics,
    "metrics/cadvisor": KubeletApi.container_metrics,
}


def _is_local_use(request: Request) -> bool:
    """Whether a request without authentication may be meant: not from a web page, and not under a name that a web page could
    have pointed at this machine."""
    if "origin" in request.headers or request.headers.get("sec-fetch-site") not in (None, "none"):
        return False
    host = request.headers.get("host", "") or ""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
    if name.lower() in ("localhost", ""):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _failure(error: ApiError) -> Response:
    return Response(error.code, _TEXT, error.message.encode())


def _wrong_method() -> Response:
    return Response(405, _TEXT, b"405: Method Not Allowed\n")


def _pod_list(items: list[dict[str, Any]]) -> Response:
    return Response(200, _JSON, json.dumps({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
