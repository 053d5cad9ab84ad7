"""/healthz, /livez, /readyz and /metrics over plain HTTP: modules ``healthz`` of the edge role and ``monitorserver`` of the cloud role.

The edge's port is kubelet's ``healthzPort`` (10248) on loopback; 0 switches it off. The cloud role answers on its API server too, where it
has one; on a cluster's, ``commonConfig.monitorServer.bindAddress`` is where.

Source  kubelet (``healthzPort``); KubeEdge v1.13 pkg/apis/componentconfig (``monitorServer``).
"""

from __future__ import annotations

from typing import ClassVar

import anyio
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from edgesite.context import Context, Section
from edgesite.net.http import HttpServer, Request, Response
from edgesite.runtime.health import render

__all__ = ["HealthServer", "MonitorServer"]

_KINDS = {"/healthz": "ready", "/readyz": "ready", "/livez": "live"}


class HealthServer:
    name: ClassVar[str] = "healthz"
    roles: ClassVar[frozenset[str]] = frozenset({"edge"})
    needs: ClassVar[frozenset[str]] = frozenset()
    section: ClassVar[str] = "modules.edged.tailoredKubeletConfig"

    def enabled(self, settings: Section) -> bool:
        return bool(settings.modules.edged.tailoredKubeletConfig.healthzPort)

    async def run(self, ctx: Context) -> None:
        await _serve(ctx, f"{ctx.config.healthzBindAddress}:{ctx.config.healthzPort}")


class MonitorServer:
    name: ClassVar[str] = "monitorserver"
    roles: ClassVar[frozenset[str]] = frozenset({"cloud"})
    needs: ClassVar[frozenset[str]] = frozenset()
    section: ClassVar[str] = "commonConfig.monitorServer"

    def enabled(self, settings: Section) -> bool:
        return bool(settings.get("commonConfig", {}).get("monitorServer", {}).get("bindAddress"))

    async def run(self, ctx: Context) -> None:
        await _serve(ctx, str(ctx.config["bindAddress"]))


async def _serve(ctx: Context, address: str) -> None:
    """Serve until cancelled. Raises OSError."""

    def answer(request: Request) -> Response:
        return _answer(ctx, request)

    async with HttpServer(answer) as server:
        await server.listen(ctx.net, address)
        ctx.ready()
        await anyio.sleep_forever()


def _answer(ctx: Context, request: Request) -> Response:
    text = {"content-type": "text/plain; charset=utf-8"}
    if request.method not in ("GET", "HEAD"):
        return Response(405, text, b"only GET is served here\n")
    if request.path == "/metrics":
        return Response(200, {"content-type": CONTENT_TYPE_LATEST}, generate_latest(ctx.metrics))
    kind = _KINDS.get(request.path)
    if kind is None:
        return Response(404, text, b"there are /healthz, /livez, /readyz and /metrics\n")
    query = request.query
    status, body = render(
        ctx.health.report("live" if kind == "live" else "ready"),
        path=request.path[1:],
        verbose="verbose" in query,
        excluded=query.get("exclude", ()),
    )
    return Response(status, text, body.encode())
