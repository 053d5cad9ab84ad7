"""Paths that name no object: discovery, OpenAPI, the version, health. Kept here, so that clients find their way without a link.

Discovery and OpenAPI are the cloud's, with what plugins serve here added. Without a link the last answer is given, and where there is none,
discovery of the kinds that are built in.

Errors  ApiError.
State   None; documents are kept in `Replica`.
Source  Kubernetes API concepts (discovery, aggregated discovery).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from edgesite.edge.metamanager.replica import Document
from edgesite.edge.metamanager.store import StoreError
from edgesite.edge.metaserver.answers import passed_on, respond, wants_pretty
from edgesite.edge.metaserver.cloudlink import CloudLink, Phase, offline
from edgesite.kube import json
from edgesite.kube.errors import ApiError, method_not_allowed, not_found, unavailable
from edgesite.kube.resourcetable import Resource
from edgesite.net.http import Request, Response

if TYPE_CHECKING:
    from edgesite.context import Context
    from edgesite.edge.metamanager.replica import Replica
    from edgesite.edge.metaserver.upstream import Upstream

__all__ = ["AGGREGATED", "HEALTH", "Documents"]

HEALTH: Final = frozenset({"/healthz", "/livez", "/readyz"})
AGGREGATED: Final = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_FETCHED: Final = (("/version", "application/json"), ("/api", AGGREGATED), ("/apis", AGGREGATED))
_ROOTS: Final = ("/api", "/apis", "/openapi", "/version", "/.well-known", "/openid")
_KEPT: Final = ("content-type", "content-encoding", "etag", "vary")
_PROTOBUF: Final = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
_HARMLESS: Final = frozenset({"", "timeout", "hash"})  #: parameters of clients that leave the document as it is
_FALL_BACK: Final = frozenset({503, 504})


class Documents:
    """Answers what is asked of plain paths. ``rows``: kinds that plugins serve here."""

    def __init__(
        self, ctx: Context, replica: Replica, link: CloudLink, upstream: Upstream, rows: Iterable[Resource] = ()
    ) -> None:
        self._ctx = ctx
        self._replica = replica
        self._link = link
        self._upstream = upstream
        self._rows = tuple(rows)

    async def answer(self, request: Request, token: str) -> Response:
        """Raises ApiError."""
        if request.method not in ("GET", "HEAD"):
            raise method_not_allowed()
        path = request.path
        if not any(path == root or path.startswith(root + "/") for root in _ROOTS):
            raise (
                not_found("", path)
                if path != "/"
                else ApiError(404, "NotFound", "the server could not find the requested resource")
            )
        accept = _offered(path, request.headers.get("accept") or "")
        # Schemas are large: they stay compressed on their way, and here.
        deflated = path.startswith("/openapi/") and request.headers.has_token("accept-encoding", "gzip")
        encoding = "gzip" if deflated else ""
        if self._rows and (own := self._own(request, path, accept)) is not None:
            return own
        found = None
        if self._link.connected and await self._link.settled() is not Phase.OFFLINE:
            try:
                found = await self._fetch(request, path, request.target, accept, token, encoding)
            except ApiError as exc:
                # KubeEdge's cloud of v1.12 knows no plain paths, later ones not each form.
                if exc.code not in _FALL_BACK and self._link.phase is not Phase.KUBEEDGE:
                    raise
        cached = found is None
        if found is None:
            found = await self._kept(path, accept, encoding)
        if self._rows and found.status == 200:
            found = self._with_ours(path, accept, found)
        if cached:
            assert isinstance(found.headers, dict)
            found.headers = {**found.headers, "x-edgesite-served-from": "node-cache"}
        return found

    async def fetch_all(self) -> None:
        """Keep what clients ask first, for when the link is lost. Raises ApiError."""
        for path, accept in _FETCHED:
            await self._fetch(None, path, path, accept, "")

    async def _fetch(
        self, request: Request | None, path: str, target: str, accept: str, token: str, encoding: str = ""
    ) -> Response:
        """Raises ApiError."""
        status, headers, body = await self._upstream.request(request, "GET", target, accept, token, encoding=encoding)
        if status in _FALL_BACK:
            raise unavailable("the cloud does not answer")
        if status == 200:
            key = _key(path, accept, encoding)
            kept = json.dumps({name: headers[name] for name in _KEPT if name in headers}).decode()
            try:
                if _is_plain(request) or await self._replica.document(key) is None:
                    await self._replica.put_document(key, Document(kept, body))
            except StoreError as exc:
                self._ctx.log.error("%s cannot be kept: %s", target, exc)
        return Response(status, passed_on(headers), body)

    async def _kept(self, path: str, accept: str, encoding: str) -> Response:
        """Raises ApiError."""
        try:
            document = await self._replica.document(_key(path, accept, encoding))
        except StoreError as exc:
            raise unavailable(f"what is stored here cannot be read: {exc}") from exc
        if document is not None:
            return Response(200, json.loads(document.headers), document.body)
        built_in = self._built_in(path, accept)
        if built_in is None:
            raise offline(self._ctx.node_name)
        kind = accept if "apidiscovery" in accept else "application/json"
        return Response(200, {"content-type": kind}, json.dumps(built_in))

    def _built_in(self, path: str, accept: str) -> dict[str, Any] | None:
        """Discovery of the kinds that every cloud serves."""
        from edgesite.kube.discovery import aggregated, api_versions, group_list, resource_list  # seldom needed
        from edgesite.kube.resources import BUILTIN

        if path in ("/api", "/apis") and "apidiscovery" in accept:
            return aggregated(BUILTIN, path == "/api")
        if path == "/api":
            return api_versions(str(self._ctx.config.get("server") or ""))
        if path == "/apis":
            return group_list(BUILTIN)
        parts = path.strip("/").split("/")
        try:
            if parts[0] == "api" and len(parts) == 2:
                return resource_list(BUILTIN, "", parts[1])
            if parts[0] == "apis" and len(parts) == 3:
                return resource_list(BUILTIN, parts[1], parts[2])
        except LookupError:
            return None
        return None

    # -- what plugins serve here ---------------------------------------------------------------------------------

    def _own(self, request: Request, path: str, accept: str) -> Response | None:
        """Discovery of a group that a plugin serves."""
        from edgesite.kube.discovery import group, resource_list

        parts = path.strip("/").split("/")
        groups = {row.group for row in self._rows}
        if parts[0] != "apis" or len(parts) not in (2, 3) or parts[1] not in groups:
            return None
        try:
            found = group(self._rows, parts[1]) if len(parts) == 2 else resource_list(self._rows, parts[1], parts[2])
        except LookupError:
            return None
        return respond(request, json.dumps(found))

    def _with_ours(self, path: str, accept: str, found: Response) -> Response:
        from edgesite.kube.discovery import aggregated, group_list

        if path != "/apis":
            return found
        try:
            document = json.loads(found.body)
        except json.InvalidJson:
            return found
        groups = {row.group for row in self._rows}
        if "items" in document:
            others = [one for one in document["items"] if one["metadata"].get("name") not in groups]
            document["items"] = others + aggregated(self._rows, False)["items"]
        elif "groups" in document:
            others = [one for one in document["groups"] if one.get("name") not in groups]
            document["groups"] = others + group_list(self._rows)["groups"]
        headers = {name: value for name, value in _mapping(found.headers).items() if name != "etag"}
        return Response(200, headers, json.dumps(document))


def _mapping(headers: Any) -> dict[str, str]:
    return dict(headers) if isinstance(headers, dict) else {}


def _offered(path: str, accept: str) -> str:
    """One form out of what a client accepts: what is kept must be what the next one asks for."""
    if path in ("/api", "/apis") and "as=APIGroupDiscoveryList" in accept and "v=v2;" in accept.replace(" ", "") + ";":
        return AGGREGATED
    if path == "/openapi/v2" and _PROTOBUF in accept:
        return _PROTOBUF
    return "application/json"


def _is_plain(request: Request | None) -> bool:
    """Whether the answer is the one that programs get; others, such as indented ones, do not replace it on the disk."""
    if request is None:
        return True
    return not wants_pretty(request) and all(one.partition("=")[0] in _HARMLESS for one in request.raw_query.split("&"))


def _key(path: str, accept: str, encoding: str) -> str:
    """Without the query, of which there are as many as callers like."""
    return f"{path.rstrip('/')}\n{accept}\n{encoding}"
