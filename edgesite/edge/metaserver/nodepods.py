"""Logs of this node's pods, connections into them, and what they use: from edged, with and without a link to the cloud.

    pods/log                               streamed; of pods elsewhere the cloud is asked, but not with ``follow``
    pods/exec, attach, portforward         joined with the kubelet API byte by byte; pods elsewhere are out of reach here
    metrics.k8s.io                         the cloud's while there is a link, else of this node and its pods

Who asks was let through by `Guard`. Where that demands no token, connections into pods are let through as everything else is there: if the cloud lets
programs of this node do so. Its answer is kept on disk for when there is no link.

Units   Seconds.
Errors  ApiError; after the first byte of a log the connection is cut, so that the client sees it.
State   How many streams are open.
Source  API reference: Pod log, connect operations; Metrics API v1beta1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.edge.edged.server.source import LogSource, api_address
from edgesite.edge.metamanager.replica import Document
from edgesite.edge.metamanager.store import StoreError
from edgesite.edge.metaserver.answers import cached_headers, passed_on, respond
from edgesite.edge.metaserver.cloudlink import CloudLink, Phase, offline
from edgesite.edge.metaserver.views import accept_of, view_of
from edgesite.kube import json
from edgesite.kube.errors import ApiError, bad_request, internal, method_not_allowed, not_found, unavailable
from edgesite.kube.podconnect import log_target, refusal_of, stream_target
from edgesite.kube.selectable import parse_labels
from edgesite.net.client import HttpClient, UpgradeRefused
from edgesite.net.errors import ClosedByPeer
from edgesite.net.headers import encode_headers
from edgesite.net.http import Response
from edgesite.net.pipe import Pipe

if TYPE_CHECKING:
    from edgesite.context import Context
    from edgesite.edge.metamanager.replica import Replica
    from edgesite.edge.metaserver.upstream import Upstream
    from edgesite.kube.requestinfo import RequestInfo, Route
    from edgesite.net.http import BodyWriter, Request

__all__ = ["CONNECTING", "METRICS", "NodePods"]

Object = Mapping[str, Any]
CONNECTING: Final = ("exec", "attach", "portforward")
METRICS: Final = "metrics.k8s.io"
STREAMS: Final = 64  #: logs and connections at once
OPEN_S: Final = 30.0
SUMMARY_BYTES: Final = 4 * 1024 * 1024
_REFUSAL_BYTES: Final = 50_000
_PLAIN: Final = {"content-type": "text/plain", "cache-control": "no-cache, private"}
_REVIEWS: Final = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_JSON: Final = "application/json"


class NodePods:
    """``is_open``: nobody has to show a token."""

    def __init__(self, ctx: Context, link: CloudLink, upstream: Upstream, replica: Replica, *, is_open: bool) -> None:
        self._ctx = ctx
        self._link = link
        self._upstream = upstream
        self._replica = replica
        self._is_open = is_open
        self._streams = 0
        self._following: dict[anyio.CancelScope, None] = {}

    def end_streams(self) -> None:
        """End the logs that are being read."""
        for scope in tuple(self._following):
            scope.cancel()

    def find(self, route: Route) -> Object | None:
        """A pod of this node, as edged has it."""
        source = self._ctx.services.find(LogSource)  # type: ignore[type-abstract]
        for pod in source.pods() if source is not None else ():
            metadata = pod["metadata"]
            if metadata["name"] == route.name and metadata.get("namespace") == route.namespace:
                return pod
        return None

    def _client(self) -> HttpClient:
        return HttpClient(self._ctx.net, api_address(self._ctx.node_name))

    def _take_place(self) -> None:
        """Raises ApiError."""
        if self._streams >= STREAMS:
            raise ApiError(429, "TooManyRequests", f"{STREAMS} logs and connections are open on this node", None, 1)
        self._streams += 1

    def _leave_place(self) -> None:
        self._streams -= 1

    # -- logs ----------------------------------------------------------------------------------------------------

    def is_elsewhere(self, request: Request, route: Route) -> bool:
        """Whether a log is the cloud's to give. Raises ApiError where it cannot."""
        if self.find(route) is not None:
            return False
        if not self._link.connected:
            raise self._not_here(route)
        if request.query.get("follow", ["false"])[0].lower() not in ("false", "0"):
            raise bad_request(f"pod {route.name} is not on node {self._ctx.node_name}: its log cannot be followed here")
        return True

    def _not_here(self, route: Route) -> ApiError:
        node = self._ctx.node_name
        if self._link.connected:
            return bad_request(f"pod {route.name} is not on node {node}: connections lead into its own pods alone")
        return unavailable(f"pod {route.name} is not on node {node}, which is offline", None)

    async def log(self, request: Request, route: Route) -> None:
        """Stream a log of a pod of this node. Raises ApiError, ClosedByPeer."""
        pod = self.find(route)
        if pod is None:
            raise not_found(route.resource, route.name)
        target = log_target(pod, request.query if request.raw_query else {})
        self._take_place()
        scope = anyio.CancelScope()
        self._following[scope] = None
        try:
            with scope:
                await self._stream_log(request, target, route.name)
        finally:
            del self._following[scope]
            self._leave_place()

    async def _stream_log(self, request: Request, target: str, name: str) -> None:
        """Raises ApiError, ClosedByPeer."""
        writer: BodyWriter | None = None
        try:
            async with self._client() as client, client.stream("GET", target) as answer:
                if answer.status != 200:
                    said = (await answer.read_all(_REFUSAL_BYTES)).decode("utf-8", "replace").strip()
                    raise refusal_of(answer.status, said, "pods/log", name)
                writer = request.open_stream(200, _PLAIN)
                async for piece in answer:
                    await writer.write(piece)
        except OSError as exc:
            if writer is None:
                raise internal(f"the log cannot be read: {exc}") from exc
            writer.abort()  # the client must see that this is not all
            raise ClosedByPeer("the log broke off") from None
        writer.close()

    # -- connections ---------------------------------------------------------------------------------------------

    async def connect(self, request: Request, info: RequestInfo) -> Response | None:
        """Lead a client into a pod of this node. Raises ApiError, ClosedByPeer."""
        from edgesite.net.handover import upgrade_headers, upgraded_headers

        route = info.route
        pod = self.find(route)
        if pod is None:
            raise self._not_here(route)
        target, _ = stream_target(pod, route.subresource, request.query if request.raw_query else {})
        headers = upgrade_headers(request)
        if "upgrade" not in headers:
            raise bad_request("Upgrade request required")
        if self._is_open:
            await self._check(request, info)
        self._take_place()
        near = _Near(self)
        try:
            with anyio.fail_after(OPEN_S):
                async with self._client() as client:
                    _, far, told = await client.connect_upgrade(target, _lines(headers), Pipe, method=request.method)
        except UpgradeRefused as exc:
            near.leave()
            kind = exc.answer.headers.get("content-type") or "text/plain; charset=utf-8"
            return Response(exc.answer.status, {"content-type": kind}, exc.answer.body)
        except OSError as exc:  # TimeoutError is one
            near.leave()
            raise internal(f"pod {route.name} cannot be reached: {exc or 'timed out'}") from exc
        except BaseException:
            near.leave()
            raise
        try:
            request.upgrade(near, upgraded_headers(dict(told)))
        except OSError:
            far.abort()
            near.leave()
            raise
        near.join(far)
        return None

    async def _check(self, request: Request, info: RequestInfo) -> None:
        """Whether programs of this node may. Raises ApiError."""
        origin = request.headers.get("origin")
        if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
            raise ApiError(403, "Forbidden", "pages of other sites may not use the API of this node")
        route = info.route
        what = f"pods/{route.subresource}"
        if self._link.connected and await self._link.settled() not in (Phase.OFFLINE, Phase.UNKNOWN):
            allowed = await self._ask(info.verb, route.subresource, route.namespace, route.name)
        else:
            allowed = await self._kept(route.subresource)
        if not allowed:
            raise ApiError(
                403, "Forbidden", f"{what} is forbidden: the cloud does not let programs of this node do this"
            )

    async def _ask(self, verb: str, subresource: str, namespace: str = "", name: str = "") -> bool:
        """Raises ApiError."""
        wanted = {"verb": verb, "resource": "pods", "subresource": subresource, "namespace": namespace, "name": name}
        spec = {"resourceAttributes": {key: value for key, value in wanted.items() if value}}
        review = {"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "spec": spec}
        status, _, body = await self._upstream.request(None, "POST", _REVIEWS, _JSON, "", json.dumps(review))
        answer = json.loads(body)
        if status >= 400:
            raise ApiError.from_status(answer, status)
        return bool((answer.get("status") or {}).get("allowed"))

    async def keep_leave(self) -> None:
        """Have at hand what programs of this node may do when there is no link. Raises ApiError."""
        if not self._is_open:
            return
        for one in CONNECTING:
            allowed = await self._ask("create", one)
            try:
                await self._replica.put_document(_key(one), Document("{}", json.dumps(allowed)))
            except StoreError as exc:
                self._ctx.log.error("what programs may do cannot be kept: %s", exc)

    async def _kept(self, subresource: str) -> bool:
        """Raises ApiError."""
        try:
            kept = await self._replica.document(_key(subresource))
        except StoreError as exc:
            raise internal(f"what is stored here cannot be read: {exc}") from exc
        if kept is None:
            raise offline(self._ctx.node_name)
        return bool(json.loads(kept.body))

    # -- metrics -------------------------------------------------------------------------------------------------

    async def metrics(self, request: Request, info: RequestInfo, token: str) -> Response:
        """What nodes and pods use. Raises ApiError."""
        if info.verb not in ("get", "list"):
            raise method_not_allowed()
        if self._link.connected and await self._link.settled() is not Phase.OFFLINE:
            accept = accept_of(view_of(request))
            try:
                status, headers, body = await self._upstream.request(request, "GET", request.target, accept, token)
            except ApiError as exc:
                if exc.code not in (503, 504):
                    raise
            else:
                return Response(status, passed_on(headers), body)
        return await self._metrics_here(request, info.route)

    async def _metrics_here(self, request: Request, route: Route) -> Response:
        """Raises ApiError."""
        from edgesite.kube.usage import ROWS, node_metrics, pod_metrics

        row = next((one for one in ROWS if (one.version, one.plural) == (route.version, route.resource)), None)
        if row is None or route.subresource:
            raise not_found("", request.path)
        labels = parse_labels(request.query.get("labelSelector", [""])[0] if request.raw_query else "")
        told = await self._summary()
        if row.plural == "nodes":
            found = [node_metrics({"name": self._ctx.node_name}, told)]
        else:
            source = self._ctx.services.find(LogSource)  # type: ignore[type-abstract]
            pods = {one["metadata"]["uid"]: one["metadata"] for one in (source.pods() if source is not None else ())}
            known = [(pods.get(one["podRef"]["uid"]), one) for one in told.get("pods") or ()]
            found = [pod_metrics(metadata, one) for metadata, one in known if metadata is not None]
        items = [
            one
            for one in found
            if one is not None
            and route.namespace in ("", one["metadata"].get("namespace"))
            and labels.matches(one["metadata"].get("labels") or {})
        ]
        text = f"node {self._ctx.node_name} is offline: these are figures of this node alone"
        if not route.name:
            body = {"kind": row.list_name, "apiVersion": row.api_version, "metadata": {}, "items": items}
            return respond(request, json.dumps(body), headers=cached_headers(text))
        one = next((item for item in items if item["metadata"]["name"] == route.name), None)
        if one is None:
            raise not_found(route.resource, route.name, METRICS)
        body = {"kind": row.kind, "apiVersion": row.api_version, **one}
        return respond(request, json.dumps(body), headers=cached_headers(text))

    async def _summary(self) -> dict[str, Any]:
        """Raises ApiError."""
        try:
            with anyio.fail_after(OPEN_S):
                async with self._client() as client, client.stream("GET", "/stats/summary") as answer:
                    body = await answer.read_all(SUMMARY_BYTES)
        except OSError as exc:
            raise unavailable(f"this node has no figures now: {exc or 'timed out'}") from exc
        if answer.status != 200:
            raise unavailable(f"this node has no figures now: {body[:200].decode('utf-8', 'replace').strip()}")
        found: dict[str, Any] = json.loads(body)
        return found


class _Near(Pipe):
    """The client's end of a connection into a pod; gives its place back when it ends."""

    def __init__(self, pods: NodePods) -> None:
        super().__init__()
        self._pods: NodePods | None = pods

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.leave()

    def leave(self) -> None:
        """Idempotent."""
        if self._pods is not None:
            self._pods._leave_place()
            self._pods = None


def _lines(headers: Mapping[str, Sequence[str]]) -> bytes:
    return b"".join(encode_headers({name: value}) for name, values in headers.items() for value in values)


def _key(subresource: str) -> str:
    return f"leave\npods/{subresource}\n"
