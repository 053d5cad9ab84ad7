"""A container registry in memory: the part of the distribution API that pulls use, as a handler for `edgesite.net.http`.

Source  OCI distribution-spec v1.1: /v2/, manifests by tag and digest, blobs; WWW-Authenticate: Basic.
"""

from __future__ import annotations

import base64
from typing import Final

import anyio

from edgesite.kube import json
from edgesite.net.http import Request, Response
from edgesite.testing.images import MANIFEST, ImageParts

__all__ = ["Registry"]

_CHALLENGE: Final = {"www-authenticate": 'Basic realm="test"'}


class Registry:
    """``images`` by name and tag ("team/app:1"); ``credentials`` close it to others; ``hold`` delays blobs until it is set."""

    def __init__(self, images: dict[str, ImageParts]) -> None:
        self.images = images
        self.address = ""
        self.credentials: tuple[str, str] | None = None
        self.hold: anyio.Event | None = None
        self.manifests = 0  #: how often one was asked for

    async def handle(self, request: Request) -> Response:
        if not self._is_open_to(request):
            return _error(401, "UNAUTHORIZED", _CHALLENGE)
        if request.path in ("/v2/", "/v2"):
            return Response(200, {"docker-distribution-api-version": "registry/2.0"}, b"{}")
        name, kind, reference = _parse(request.path)
        if kind == "manifests":
            self.manifests += 1
            return self._manifest(name, reference)
        if kind == "blobs":
            if self.hold is not None:
                await self.hold.wait()
            return self._blob(name, reference)
        return _error(404, "NAME_UNKNOWN")

    def _is_open_to(self, request: Request) -> bool:
        if self.credentials is None:
            return True
        wanted = base64.b64encode(":".join(self.credentials).encode()).decode()
        return request.headers.get("authorization") == f"Basic {wanted}"

    def _manifest(self, name: str, reference: str) -> Response:
        for known, parts in self.images.items():
            repository, _, tag = known.rpartition(":")
            if repository == name and reference in (tag, parts.manifest_digest):
                headers = {"content-type": MANIFEST, "docker-content-digest": parts.manifest_digest}
                return Response(200, headers, parts.manifest)
        return _error(404, "MANIFEST_UNKNOWN")

    def _blob(self, name: str, digest: str) -> Response:
        for known, parts in self.images.items():
            if known.rpartition(":")[0] == name and (blob := parts.blobs.get(digest)) is not None:
                headers = {"content-type": "application/octet-stream", "docker-content-digest": digest}
                return Response(200, headers, blob)
        return _error(404, "BLOB_UNKNOWN")


def _parse(path: str) -> tuple[str, str, str]:
    rest, _, reference = path.removeprefix("/v2/").rpartition("/")
    name, _, kind = rest.rpartition("/")
    return name, kind, reference


def _error(status: int, code: str, headers: dict[str, str] | None = None) -> Response:
    body = json.dumps({"errors": [{"code": code, "message": code.lower()}]})
    return Response(status, {"content-type": "application/json", **(headers or {})}, body)
