"""The Kubernetes client: typed by resource row, objects as plain dicts, one error type.

Units   Times are seconds.
Errors  ApiError for everything: what the server answered, and 503 ServiceUnavailable when it gave no answer at all.
State   None but the transport; a client is cheap to derive (`Client.named`).
Source  Kubernetes API conventions: verbs, query parameters, patch types, watch events (names only).
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote, urlencode

import anyio

from edgesite.kube import json
from edgesite.kube.errors import ApiError, unavailable

if TYPE_CHECKING:
    from edgesite.client.transport import Transport, TransportStream
    from edgesite.kube.resources import Resource

__all__ = ["Client", "Watch", "WatchEvent"]

Object = dict[str, Any]
PatchType = Literal["merge", "strategic", "json", "apply"]
Propagation = Literal["Background", "Foreground", "Orphan"]

MAX_LINE_BYTES: Final = 32 << 20  #: of one watch event; an object is at most 3 MiB, its Table form a few times that
_JSON: Final = "application/json"
_PATCH_TYPES: Final[dict[str, str]] = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "json": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",
}
_METADATA: Final = "application/json;as={};g=meta.k8s.io;v=v1,application/json"


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """``type`` is ADDED, MODIFIED, DELETED or BOOKMARK; an ERROR event is raised as ApiError instead."""

    type: str
    object: Object


class Client:
    """Calls an API server through a `Transport`.

    ``component`` becomes the User-Agent, thus the field manager of what is written. Objects that are returned belong to
    the caller; objects that are passed in are not changed. Every method raises ApiError.
    """

    def __init__(
        self, transport: Transport, *, component: str = "edgesite", headers: Mapping[str, str] | None = None
    ) -> None:
        self.transport = transport
        self.component = component
        self._headers = {"accept": _JSON, "user-agent": component, **(headers or {})}

    def named(self, component: str) -> Client:
        """Return a client over the same transport that writes as ``component``."""
        return Client(self.transport, component=component, headers={**self._headers, "user-agent": component})

    async def get(
        self, resource: Resource, name: str, namespace: str = "", *, subresource: str = "", resource_version: str = ""
    ) -> Object:
        target = _target(resource, namespace, name, subresource, resourceVersion=resource_version)
        return await self._call("GET", target)

    async def list(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
        continue_token: str = "",
        resource_version: str = "",
        resource_version_match: str = "",
        metadata_only: bool = False,
    ) -> Object:
        """Return the list object, one page if ``limit`` is given; all namespaces if none is given."""
        target = _target(
            resource,
            namespace,
            labelSelector=label_selector,
            fieldSelector=field_selector,
            limit=str(limit) if limit else "",
            resourceVersion=resource_version,
            resourceVersionMatch=resource_version_match,
            **{"continue": continue_token},
        )
        headers = {"accept": _METADATA.format("PartialObjectMetadataList")} if metadata_only else {}
        return await self._call("GET", target, headers=headers)

    async def create(
        self, resource: Resource, obj: Object, namespace: str = "", *, name: str = "", subresource: str = ""
    ) -> Object:
        """Create ``obj``; with ``name`` and ``subresource`` post to a subresource, as bindings and evictions are.

        ``namespace`` defaults to the object's own.
        """
        namespace = namespace or str((obj.get("metadata") or {}).get("namespace") or "")
        return await self._call("POST", _target(resource, namespace, name, subresource), obj)

    async def update(self, resource: Resource, obj: Object, *, subresource: str = "") -> Object:
        """Replace an object by its new form; its resourceVersion, if it has one, must be the current one."""
        meta = obj["metadata"]
        target = _target(resource, meta.get("namespace", ""), meta["name"], subresource)
        return await self._call("PUT", target, obj)

    async def update_status(self, resource: Resource, obj: Object) -> Object:
        return await self.update(resource, obj, subresource="status")

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Any,
        namespace: str = "",
        *,
        kind: PatchType = "merge",
        subresource: str = "",
        field_manager: str = "",
        force: bool = False,
    ) -> Object:
        target = _target(
            resource, namespace, name, subresource, fieldManager=field_manager, force="true" if force else ""
        )
        return await self._call("PATCH", target, patch, {"content-type": _PATCH_TYPES[kind]})

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        grace_period_s: int | None = None,
        propagation: Propagation | None = None,
        uid: str = "",
        resource_version: str = "",
    ) -> Object:
        """Delete; ``uid`` and ``resource_version`` are preconditions. Returns the object as it is now, or a Status."""
        target = _target(resource, namespace, name)
        return await self._call(
            "DELETE", target, _delete_options(grace_period_s, propagation, uid, resource_version) or None
        )

    async def delete_collection(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        propagation: Propagation | None = None,
    ) -> Object:
        target = _target(resource, namespace, labelSelector=label_selector, fieldSelector=field_selector)
        return await self._call("DELETE", target, _delete_options(None, propagation, "", "") or None)

    def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        resource_version: str = "",
        label_selector: str = "",
        field_selector: str = "",
        bookmarks: bool = True,
        timeout_s: int = 0,
        metadata_only: bool = False,
    ) -> Watch:
        """Watch a collection: ``async with client.watch(...) as events: async for event in events: ...``."""
        target = _target(
            resource,
            namespace,
            watch="true",
            resourceVersion=resource_version,
            labelSelector=label_selector,
            fieldSelector=field_selector,
            allowWatchBookmarks="true" if bookmarks else "",
            timeoutSeconds=str(timeout_s) if timeout_s else "",
        )
        headers = dict(self._headers)
        if metadata_only:
            headers["accept"] = _METADATA.format("PartialObjectMetadata")
        return Watch(self.transport, target, headers)

    async def request(
        self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Send a request of any form and return what came, whatever its status. Raises ApiError if nothing came."""
        try:
            return await self.transport.request(method, target, {**self._headers, **(headers or {})}, body)
        except (OSError, EOFError) as exc:
            raise unavailable(f"no answer from the API server: {exc}") from exc

    async def _call(
        self, method: str, target: str, obj: Any = None, headers: Mapping[str, str] | None = None
    ) -> Object:
        body = b"" if obj is None else json.dumps(obj)
        if body:
            headers = {"content-type": _JSON, **(headers or {})}
        status, _, answer = await self.request(method, target, body, headers)
        return _decoded(status, answer)


class Watch:
    """One watch; enter it, then iterate. Ends when the server ends it; raises ApiError (410 Expired: list again)."""

    def __init__(self, transport: Transport, target: str, headers: Mapping[str, str]) -> None:
        self._transport = transport
        self._target = target
        self._headers = headers
        self._opened: AbstractAsyncContextManager[TransportStream] | None = None
        self._chunks: AsyncIterator[bytes] | None = None
        self._lines: deque[bytes] = deque()
        self._rest = b""
        self._ended = False

    async def __aenter__(self) -> Watch:
        opened = self._transport.stream("GET", self._target, self._headers)
        try:
            stream = await opened.__aenter__()
        except (OSError, EOFError) as exc:
            raise unavailable(f"no answer from the API server: {exc}") from exc
        self._opened = opened
        self._chunks = aiter(stream)
        if stream.status >= 400:
            try:
                _decoded(stream.status, b"".join([chunk async for chunk in self._chunks]))
            except (OSError, EOFError) as exc:
                raise unavailable(f"no answer from the API server: {exc}") from exc
            finally:
                await self.__aexit__(None, None, None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        opened, self._opened = self._opened, None
        chunks, self._chunks = self._chunks, None
        self._lines.clear()
        if isinstance(chunks, AsyncGenerator):
            with anyio.CancelScope(shield=True):  # a suspended generator closes without waiting for anything
                await chunks.aclose()
        if opened is not None:
            await opened.__aexit__(kind, exc, trace)

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> WatchEvent:
        while not self._lines:
            if self._ended:
                raise StopAsyncIteration
            if self._chunks is None:
                raise RuntimeError("a watch is iterated inside its `async with` block")
            try:
                self._feed(await anext(self._chunks))
            except StopAsyncIteration:
                self._ended = True
                self._feed(b"\n")  # the last line may lack its end
            except (OSError, EOFError) as exc:
                raise unavailable(f"the watch broke: {exc}") from exc
        return _event(self._lines.popleft())

    def _feed(self, chunk: bytes) -> None:
        """Put pieces together to lines; most pieces are whole lines and are not copied."""
        lines = (self._rest + chunk if self._rest else chunk).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > MAX_LINE_BYTES:
            raise ApiError(500, "InternalError", f"a watch event is longer than {MAX_LINE_BYTES} bytes")
        self._lines.extend(line for line in lines if line and not line.isspace())


def _event(line: bytes) -> WatchEvent:
    try:
        decoded = json.loads(line)
        kind, obj = decoded["type"], decoded["object"]
    except (json.InvalidJson, KeyError, TypeError) as exc:
        raise ApiError(500, "InternalError", f"the watch sent what is no event: {exc}") from exc
    if kind == "ERROR":
        raise ApiError.from_status(obj if isinstance(obj, dict) else {})
    return WatchEvent(kind, obj)


def _decoded(status: int, answer: bytes) -> Object:
    try:
        obj = json.loads(answer) if answer else {}
    except json.InvalidJson as exc:
        obj = None if status < 400 else {"message": answer[:200].decode("utf-8", "replace")}
        if obj is None:
            raise ApiError(500, "InternalError", f"the server's answer is no JSON: {exc}") from exc
    if status >= 400:
        raise ApiError.from_status(obj if isinstance(obj, dict) else {}, status)
    if not isinstance(obj, dict):
        raise ApiError(500, "InternalError", "the server's answer is no object")
    return obj


def _target(resource: Resource, namespace: str, name: str = "", subresource: str = "", **query: str) -> str:
    path = resource.path(quote(namespace, safe=""), quote(name, safe=":") if name else None, subresource or None)
    given = {key: value for key, value in query.items() if value}
    return f"{path}?{urlencode(given, quote_via=quote)}" if given else path


def _delete_options(grace_s: int | None, propagation: str | None, uid: str, resource_version: str) -> Object:
    options: Object = {}
    if grace_s is not None:
        options["gracePeriodSeconds"] = grace_s
    if propagation is not None:
        options["propagationPolicy"] = propagation
    preconditions = {key: value for key, value in (("uid", uid), ("resourceVersion", resource_version)) if value}
    if preconditions:
        options["preconditions"] = preconditions
    if options:
        options = {"kind": "DeleteOptions", "apiVersion": "v1", **options}
    return options
