"""/openapi/v2 and /openapi/v3, with content negotiation, compression and entity tags.

Errors  ApiError NotFound, NotAcceptable.
State   The documents, compressed, from when they are first asked for until the kinds change.
Source  Kubernetes API concepts (OpenAPI); RFC 9110 (ETag, If-None-Match).
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edgesite.apiserver.kinds import NOT_SERVED
from edgesite.kube import errors
from edgesite.kube.errors import ApiError
from edgesite.net.http import Response

if TYPE_CHECKING:
    from edgesite.apiserver.documents import Documents
    from edgesite.apiserver.kinds import Kinds
    from edgesite.kube.schema import Schemas
    from edgesite.net.http import Request

__all__ = ["add_openapi"]

PROTOBUF: Final = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
_PROTOBUF_AS_SENT: Final = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_GZIP_LEVEL: Final = 1
_V3_PROTOBUF: Final = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf"


@dataclass(frozen=True, slots=True)
class _Stored:
    packed: bytes  #: gzip
    tag: str


class _Cache:
    """Documents by name."""

    def __init__(self, kinds: Kinds) -> None:
        self._kinds = kinds
        self._version = -1
        self._documents: dict[str, _Stored] = {}

    def get(self, name: str, make: Callable[[], bytes]) -> _Stored:
        if self._version != self._kinds.version:
            self._documents.clear()
            self._version = self._kinds.version
        known = self._documents.get(name)
        if known is None:
            plain = make()
            packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 31)
            packed = packer.compress(plain) + packer.flush()
            known = self._documents[name] = _Stored(packed, hashlib.sha256(plain).hexdigest().upper())
        return known


def _respond(request: Request, stored: _Stored, content_type: str, *, immutable: bool = False) -> Response:
    tag = f'"{stored.tag}"'
    cache = "public, immutable" if immutable else "no-cache, private"
    headers = {"etag": tag, "vary": "Accept-Encoding, Accept", "cache-control": cache}
    if tag in (request.headers.get("if-none-match") or ""):
        return Response(304, headers)
    headers["content-type"] = content_type
    if request.headers.has_token("accept-encoding", "gzip"):
        headers["content-encoding"] = "gzip"
        return Response(200, headers, stored.packed)
    return Response(200, headers, zlib.decompress(stored.packed, 31))


def _media(request: Request) -> list[str]:
    accept = request.headers.get("accept") or "*/*"
    return [clause.partition(";")[0].strip().lower() for clause in accept.split(",")]


def add_openapi(documents: Documents, kinds: Kinds, schemas: Schemas, version: str) -> None:
    """Serve the documents of all kinds."""
    cache = _Cache(kinds)

    def rows() -> Any:
        return kinds.rows()

    def v2(request: Request, rest: str) -> Response:
        from edgesite.kube import openapi  # large, and needed seldom

        for media in _media(request):
            if media in (PROTOBUF, _PROTOBUF_AS_SENT):
                return _respond(request, cache.get("v2.pb", lambda: openapi.v2_protobuf(rows(), version)), PROTOBUF)
            if media in ("application/json", "*/*", "application/*"):
                return _respond(request, cache.get("v2", lambda: openapi.v2_json(rows(), version)), "application/json")
        raise errors.not_acceptable(f"application/json, {PROTOBUF}")

    def v2_old(request: Request, rest: str) -> Response:
        from edgesite.kube import openapi

        return _respond(request, cache.get("v2.pb", lambda: openapi.v2_protobuf(rows(), version)), PROTOBUF)

    def v3(request: Request, rest: str) -> Response:
        from edgesite.kube import openapi

        if not {"application/json", "*/*", "application/*"} & set(_media(request)):
            raise errors.not_acceptable("application/json")
        if not rest:
            return _respond(request, cache.get("v3", lambda: openapi.v3_index(rows(), version)), "application/json")
        try:
            stored = cache.get(f"v3/{rest}", lambda: openapi.v3_group(rows(), rest, version))
        except LookupError:
            raise ApiError(404, "NotFound", NOT_SERVED, {}) from None
        return _respond(request, stored, "application/json", immutable="hash" in request.query)

    documents.add("/openapi/v2", v2)
    documents.add("/swagger-2.0.0.pb-v1", v2_old)
    documents.add("/openapi/v3", v3, below=True)
