"""Roads to the kubelet API of nodes: pods/log, nodes/proxy.

Errors  ApiError, worded as kube-apiserver and kubelet word them; after the first byte the connection is cut, so that a client sees it.
State   None; each stream belongs to one request.
Source  API reference: Pod log query parameters, connect proxy; kubelet API ``/containerLogs``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

import anyio

from edgesite.apiserver import websocketlog
from edgesite.apiserver.handover import close_stream, join, upgrade_headers
from edgesite.kube import errors, json, times
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import NODES
from edgesite.net.errors import ClosedByPeer
from edgesite.net.http import Response

if TYPE_CHECKING:
    from edgesite.apiserver.call import Call
    from edgesite.apiserver.registry import Registry
    from edgesite.context import NodeConnector, NodeStream

__all__ = ["NodeRoads"]

Object = dict[str, Any]
_OPEN_S: Final = 30.0
_ERROR_BYTES: Final = 50_000  #: of what a node says about a refusal
_HANDED_ON: Final = ("accept", "content-type", "user-agent")  #: of a request to a node
_PLAIN: Final = {"content-type": "text/plain", "cache-control": "no-cache, private"}
_FLAGS: Final = ("follow", "previous", "timestamps")
_POSITIVE: Final = ("sinceSeconds", "limitBytes")


def _invalid(name: str, field: str, message: str) -> ApiError:
    cause = {"reason": "FieldValueInvalid", "message": f"Invalid value: {message}", "field": field}
    return errors.invalid("PodLogOptions", name, [cause])


def log_query(name: str, query: dict[str, list[str]]) -> dict[str, str]:
    """Check the options of a log request and return those that the node needs. Raises ApiError."""
    given = {key: values[0] for key, values in query.items() if values}
    wanted: dict[str, str] = {
        key: "true" for key in _FLAGS if key in given and given[key].lower() not in ("false", "0")
    }
    for key in (*_POSITIVE, "tailLines"):
        if not given.get(key):
            continue
        try:
            number = int(given[key])
        except ValueError:
            raise errors.bad_request(f'strconv.ParseInt: parsing "{given[key]}": invalid syntax') from None
        if number < (1 if key in _POSITIVE else 0):
            least = "greater than 0" if key in _POSITIVE else "greater than or equal to 0"
            raise _invalid(name, key, f"{number}: must be {least}")
        wanted[key] = str(number)
    if since := given.get("sinceTime"):
        try:
            times.parse_time(since)
        except times.InvalidTime as exc:
            raise errors.bad_request(str(exc)) from None
        if "sinceSeconds" in wanted:
            raise _invalid(
                name,
                "sinceSeconds",
                f"{wanted['sinceSeconds']}: at most one of `sinceTime` or `sinceSeconds` may be specified",
            )
        wanted["sinceTime"] = since
    stream = given.get("stream")
    if stream and stream not in ("All", "Stdout", "Stderr"):
        raise _invalid(name, "stream", f'"{stream}": supported values: "All", "Stderr", "Stdout"')
    if stream and stream != "All":
        wanted["stream"] = stream
    return wanted


def container_of(pod: Object, wanted: str) -> str:
    """Return the container whose log is meant. Raises ApiError (BadRequest)."""
    name, spec = pod["metadata"]["name"], pod.get("spec") or {}
    regular = [one["name"] for one in spec.get("containers") or ()]
    init = [one["name"] for one in spec.get("initContainers") or ()]
    extra = [one["name"] for one in spec.get("ephemeralContainers") or ()]
    if wanted:
        if wanted not in (*regular, *init, *extra):
            raise errors.bad_request(f"container {wanted} is not valid for pod {name}")
        return wanted
    if len(regular) == 1:
        return str(regular[0])
    message = f"a container name must be specified for pod {name}, choose one of: [{' '.join(regular)}]"
    if init:
        message += f" or one of the init containers: [{' '.join(init)}]"
    if extra:
        message += f" or one of the ephemeral containers: [{' '.join(extra)}]"
    raise errors.bad_request(message)


class NodeRoads:
    """Streams what nodes answer. ``connector`` finds the way to nodes, if a module provides one."""

    def __init__(self, registry: Registry, connector: Callable[[], NodeConnector | None]) -> None:
        self._registry = registry
        self._connector = connector

    async def log(self, call: Call) -> Response | None:
        """Stream a container's log. Raises ApiError."""
        route, query = call.route, call.request.query if call.request.raw_query else {}
        row = self._registry.row(call.kind, route.namespace, route.name)
        pod = json.loads(row.value)
        wanted = log_query(route.name, query)
        container = container_of(pod, query.get("container", [""])[0])
        node = (pod.get("spec") or {}).get("nodeName")
        if not node:
            return Response(204, _PLAIN)
        target = f"/containerLogs/{route.namespace}/{route.name}/{quote(container)}"
        if wanted:
            target = f"{target}?{urlencode(wanted)}"
        stream = await self.open(node, "GET", target)
        try:
            if not 200 <= stream.status <= 206:
                raise await _refusal(stream, call, "pods/log")
            if websocketlog.is_asked(call.request):
                await websocketlog.forward(call.request, stream)
            else:
                await self._forward(call, stream, 200, _PLAIN)
            return None
        finally:
            await close_stream(stream)

    async def proxy(self, call: Call) -> Response | None:
        """Forward a request to a node's kubelet API. Raises ApiError."""
        if call.kind.resource.plural != NODES.plural:
            raise errors.method_not_allowed()
        name, _, port = call.route.name.partition(":")
        if port not in ("", "10250"):
            raise errors.bad_request(f"port {port} of node {name} cannot be reached")
        self._registry.row(call.kind, "", name)
        target = (
            "/"
            + quote(call.route.rest, safe="/:@!$&'()*+,;=~")
            + (f"?{call.request.raw_query}" if call.request.raw_query else "")
        )
        request = call.request
        headers: dict[str, Sequence[str]] = dict(upgrade_headers(request))
        for header in _HANDED_ON:
            if header in request.headers:
                headers[header] = request.headers.get_all(header)
        stream = await self.open(name, request.method, target, headers, request.body)
        if stream.status == 101:
            return await join(request, stream)
        try:
            kept = ("content-type", "content-encoding")
            answered = {key.lower(): value for key, value in stream.headers.items() if key.lower() in kept}
            await self._forward(call, stream, stream.status, answered)
            return None
        finally:
            await close_stream(stream)

    async def open(
        self,
        node: str,
        method: str,
        target: str,
        headers: Mapping[str, Sequence[str]] | None = None,
        body: bytes = b"",
    ) -> NodeStream:
        """Send a request to a node's kubelet API. Raises ApiError."""
        connector = self._connector()
        if connector is None:
            raise errors.internal(f"no road leads to node {node}: no module connects nodes")
        try:
            with anyio.fail_after(_OPEN_S):
                return await connector.open(node, method, target, headers, body)
        except TimeoutError:
            raise errors.internal(f'error trying to reach node "{node}": timed out') from None
        except OSError as exc:
            raise errors.internal(f'error trying to reach node "{node}": {exc}') from exc

    async def _forward(self, call: Call, stream: NodeStream, status: int, headers: dict[str, str]) -> None:
        """Hand on the body as it comes; a slow client slows the node down. Raises ApiError before the first byte only."""
        writer = await call.request.stream(status, headers)
        try:
            async for chunk in stream:
                await writer.write(chunk)
        except ClosedByPeer:
            return
        except (OSError, ApiError):  # the road broke: the client must see that this is not the end of the log
            writer.abort()
            return
        writer.close()


async def _refusal(stream: NodeStream, call: Call, what: str) -> ApiError:
    """Turn what a node says of a refusal into the API's error."""
    text = b""
    async for chunk in stream:
        text += chunk
        if len(text) >= _ERROR_BYTES:
            break
    said = text[:_ERROR_BYTES].decode("utf-8", "replace").strip()
    if stream.status == 400:
        return errors.bad_request(said)
    if stream.status == 500:
        return errors.internal(said)
    if stream.status == 404:
        return ApiError(
            404, "NotFound", f"the server could not find the requested resource ( {what} {call.route.name})"
        )
    return ApiError(
        stream.status,
        "Unknown",
        f"an error on the server ({said!r}) has prevented the request from succeeding ( {what} {call.route.name})",
    )
