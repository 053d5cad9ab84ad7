"""/openapi/v2 and /openapi/v3, with content negotiation, compression and entity tags.

Errors  ApiError NotFound, NotAcceptable.
State   The documents of the present kinds, compressed, each from when it is first asked for. Making one takes up to a tenth of a
        second and so happens in a thread.
Source  Kubernetes API concepts (OpenAPI); RFC 9110 (ETag, If-None-Match).
"""

from __future__ import annotations

import gzip
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from edgesite.apiserver.call import error_response
from edgesite.apiserver.kinds import NOT_SERVED
from edgesite.kube import errors
from edgesite.kube.errors import ApiError
from edgesite.net.http import Response

if TYPE_CHECKING:
    from edgesite.apiserver.documents import Documents
    from edgesite.apiserver.kinds import Kinds
    from edgesite.context import Threads
    from edgesite.kube.openapi import Document
    from edgesite.kube.schema import Schemas
    from edgesite.net.http import Request

__all__ = ["OpenApi"]

_JSON: Final = "application/json"
_ANY_JSON: Final = frozenset({_JSON, "application/*", "*/*"})


class OpenApi:
    """Serves the documents of all kinds."""

    def __init__(self, kinds: Kinds, schemas: Schemas, version: str, threads: Threads) -> None:
        self._kinds = kinds
        self._schemas = schemas
        self._version = version
        self._threads = threads
        self._documents: Any = None
        self._made_for = -1

    def add_to(self, documents: Documents) -> None:
        documents.add("/openapi/v2", self._v2)
        documents.add("/swagger-2.0.0.pb-v1", self._v2_protobuf)
        documents.add("/openapi/v3", self._v3, below=True)

    def _current(self) -> Any:
        """The documents of the kinds that are served now."""
        if self._made_for != self._kinds.version:
            from edgesite.kube.openapi import Documents as Made  # large, and needed seldom

            self._documents = Made(self._kinds.rows(), self._schemas, self._version)
            self._made_for = self._kinds.version
        return self._documents

    def _v2(self, request: Request, rest: str) -> Awaitable[Response]:
        from edgesite.kube.openapi import V2_PROTOBUF, V2_PROTOBUF_CONTENT_TYPE

        for media in _media(request):
            if media in (V2_PROTOBUF, V2_PROTOBUF_CONTENT_TYPE):
                return self._v2_protobuf(request, rest)
            if media in _ANY_JSON:
                return self._respond(request, self._current().v2_json, _JSON)
        raise errors.not_acceptable(f"{_JSON}, {V2_PROTOBUF}")

    def _v2_protobuf(self, request: Request, rest: str) -> Awaitable[Response]:
        from edgesite.kube.openapi import V2_PROTOBUF_CONTENT_TYPE

        return self._respond(request, self._current().v2_protobuf, V2_PROTOBUF_CONTENT_TYPE)

    def _v3(self, request: Request, rest: str) -> Awaitable[Response]:
        if not _ANY_JSON & set(_media(request)):
            raise errors.not_acceptable(_JSON)
        if not rest:
            return self._respond(request, self._current().v3_index, _JSON)
        root, _, path = rest.partition("/")
        group, _, version = path.rpartition("/")
        if (root, bool(group)) not in (("api", False), ("apis", True)):
            raise ApiError(404, "NotFound", NOT_SERVED, {})
        make = lambda: self._current().v3_group(group, version)
        return self._respond(request, make, _JSON, immutable="hash" in request.query)

    async def _respond(
        self, request: Request, make: Callable[[], Document], content_type: str, *, immutable: bool = False
    ) -> Response:
        try:
            document = await self._threads.run(make)
        except LookupError:
            return error_response(request, ApiError(404, "NotFound", NOT_SERVED, {}))
        cache = "public, immutable" if immutable else "no-cache, private"
        headers = {"etag": document.etag, "vary": "Accept-Encoding, Accept", "cache-control": cache}
        if document.etag in (request.headers.get("if-none-match") or ""):
            return Response(304, headers)
        headers["content-type"] = content_type
        if request.headers.has_token("accept-encoding", "gzip"):
            headers["content-encoding"] = "gzip"
            return Response(200, headers, document.gzipped)
        return Response(200, headers, gzip.decompress(document.gzipped))


def _media(request: Request) -> list[str]:
    accept = request.headers.get("accept") or "*/*"
    return [clause.partition(";")[0].strip().lower() for clause in accept.split(",")]
