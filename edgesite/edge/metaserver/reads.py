"""get and list: from the cloud while there is a link, and kept; from what is kept here without one.

    a link                                     the cloud answers; a GET or whole LIST "of any version" (resourceVersion=0) of what is followed is answered here
    none, or no answer in time                 what was listed, watched or read here, with a header and a warning that say so
    none, and nothing of the kind was read     503: an empty list would be a lie

Lists without a limit are fetched in chunks.

Errors  ApiError.
State   None; what is kept is in `Replica`.
Source  Kubernetes API concepts (resource versions, retrieving large results in chunks).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

import msgspec

from edgesite.edge.metamanager.replica import PIECE_BYTES, Collected, KindKey, Stored
from edgesite.edge.metamanager.store import StoreError
from edgesite.edge.metaserver.answers import cached_headers, passed_on, respond, stream, wants_pretty
from edgesite.edge.metaserver.cloudlink import CloudLink, Phase, offline
from edgesite.edge.metaserver.scopekey import ScopeKey, read_meta
from edgesite.edge.metaserver.views import accept_of, typed, view_of
from edgesite.kube import json
from edgesite.kube.errors import ApiError, expired, internal, not_found, unavailable
from edgesite.kube.negotiate import DEFAULT_VIEW, BodyFormat, Form, View
from edgesite.kube.options import ListOptions
from edgesite.net.http import Request, Response

if TYPE_CHECKING:
    from edgesite.context import Context
    from edgesite.edge.metamanager.replica import Replica
    from edgesite.edge.metaserver.memory import Memory
    from edgesite.edge.metaserver.printers import Printers
    from edgesite.edge.metaserver.scopes import Scopes
    from edgesite.edge.metaserver.upstream import Upstream
    from edgesite.edge.metaserver.views import Views
    from edgesite.kube.requestinfo import Route

__all__ = ["Reads", "kind_of", "namespace_of"]

PAGE: Final = 500
FIRST_PAGE: Final = 100
PAGE_BYTES: Final = 256 * 1024  #: of which there are several copies on the way
STREAMED_BYTES: Final = 32 * 1024 * 1024  #: of large lists that clients are taking
_FALL_BACK: Final = frozenset({503, 504})
#: of these the cloud sends what this node's pods need; others are a whole list, or none
_SENT: Final = frozenset({"pods", "configmaps", "secrets"})


class _Page(msgspec.Struct, gc=False):
    metadata: dict[str, Any]
    items: list[msgspec.Raw] | None = None
    kind: str = ""
    apiVersion: str = ""


_page: Final = msgspec.json.Decoder(_Page)


def kind_of(route: Route) -> KindKey:
    return KindKey(route.group, route.version, route.resource)


class Reads:
    """Answers get and list; implements `edgesite.edge.metaserver.scopes.Lister`."""

    def __init__(
        self,
        ctx: Context,
        replica: Replica,
        link: CloudLink,
        upstream: Upstream,
        views: Views,
        printers: Printers,
        memory: Memory,
    ) -> None:
        self._ctx = ctx
        self._replica = replica
        self._link = link
        self._upstream = upstream
        self._views = views
        self._printers = printers
        self._memory = memory
        self._streamed = 0
        self.scopes: Scopes  # set by the owner: scopes list by us

    # -- one object ----------------------------------------------------------------------------------------------

    async def get(self, request: Request, route: Route, token: str) -> Response:
        """Raises ApiError."""
        view = view_of(request)
        kind = kind_of(route)
        await self._shows(kind, token, view)
        asked = request.query.get("resourceVersion", [""])[0] if request.raw_query else ""
        if asked == "0" and not route.subresource and self._is_followed(kind, namespace_of(route)):
            stored = await self._stored(kind, route)
            if stored is not None:
                return self._object(request, kind, stored, view)
        if self._link.connected and await self._link.settled() is not Phase.OFFLINE:
            try:
                return await self._get_above(request, route, token, view)
            except ApiError as exc:
                if exc.code not in _FALL_BACK:
                    raise
        return await self._get_here(request, route, view)

    async def _shows(self, kind: KindKey, token: str, view: View) -> None:
        """Have at hand what is needed to show a kind, now and without a link."""
        if "." in kind.group:
            if view.form is Form.TABLE:
                await self._printers.ready(kind, token)
            self._printers.used(kind, token)

    async def _get_above(self, request: Request, route: Route, token: str, view: View) -> Response:
        kind = kind_of(route)
        target, accept = request.target, accept_of(view)
        if self._link.phase is Phase.KUBEEDGE and view != DEFAULT_VIEW:
            return await self._get_plain(request, route, token, view)
        if view.form is Form.TABLE:
            target = _with(request, includeObject="Object")
        status, headers, body = await self._upstream.request(request, "GET", target, accept, token)
        if status in _FALL_BACK:
            raise _error_in(status, body)
        if status == 404 and not route.subresource:
            stored = await self._stored(kind, route)
            if stored is not None:
                self._replica.drop(kind, stored.namespace, stored.name, stored.revision)
        elif status == 200 and not route.subresource and view.format is BodyFormat.JSON:
            if view.form is Form.TABLE:
                body = self._keep_table(kind, body, view)
            elif view.form is Form.OBJECT:
                self._keep(kind, body)
        return Response(status, passed_on(headers), body)

    async def _get_plain(self, request: Request, route: Route, token: str, view: View) -> Response:
        """The object as KubeEdge's cloud gives it, in the form that is wanted. Raises ApiError."""
        status, headers, body = await self._upstream.request(request, "GET", request.target, "application/json", token)
        if status != 200 or route.subresource:
            return Response(status, passed_on(headers), body)
        self._keep(kind_of(route), body)
        return self._object(request, kind_of(route), _stored(body), view)

    def at_once(self, request: Request, route: Route) -> Response | None:
        """Without a link: an object that was read here a moment ago, if it is asked for in the plainest form; else None."""
        if not route.name or route.subresource or route.watch or request.raw_query or view_of(request) != DEFAULT_VIEW:
            return None
        kind = kind_of(route)
        stored = self._replica.at_once(kind, namespace_of(route), route.name)
        if stored is None:
            return None
        return self._object(request, kind, stored, DEFAULT_VIEW, cached_headers(self._warning()))

    async def _get_here(self, request: Request, route: Route, view: View) -> Response:
        kind = kind_of(route)
        if route.subresource not in ("", "status"):
            raise offline(self._ctx.node_name)
        stored = await self._stored(kind, route)
        if stored is None:
            if self._is_covered(kind, namespace_of(route)):
                raise not_found(route.resource, route.name, route.group)
            raise self._unknown(route)
        return self._object(request, kind, stored, view, cached_headers(self._warning()))

    async def _stored(self, kind: KindKey, route: Route) -> Stored | None:
        try:
            return await self._replica.get(kind, namespace_of(route), route.name)
        except StoreError as exc:
            raise internal(str(exc)) from exc

    def _object(self, request: Request, kind: KindKey, stored: Stored, view: View, headers: bytes = b"") -> Response:
        body = self._views.in_format(self._views.object(kind, stored.value, view), view)
        return respond(request, body, yaml=view.format is BodyFormat.YAML, headers=headers)

    # -- lists ---------------------------------------------------------------------------------------------------

    async def collection(self, request: Request, route: Route, token: str) -> Response | None:
        """None: it was streamed. Raises ApiError, ClosedByPeer."""
        view = view_of(request)
        options = ListOptions.of(request.query if request.raw_query else {}, watch=False)
        key = ScopeKey.of(kind_of(route), route.namespace, str(options.labels or ""), str(options.fields or ""))
        await self._shows(key.kind, token, view)
        if options.revision == 0 and not options.token and self._is_followed(key.kind, key.namespace):
            return await self._list_here(request, key, view, self._revision(key) or 0, b"")
        if self._link.connected and await self._link.settled() is not Phase.OFFLINE:
            try:
                return await self._list_above(request, key, options, token, view)
            except ApiError as exc:
                if exc.code not in _FALL_BACK:
                    raise
        if options.token:
            raise expired("the list cannot be continued: this node is offline")
        return await self._list_offline(request, route, key, view)

    async def _list_above(
        self, request: Request, key: ScopeKey, options: ListOptions, token: str, view: View
    ) -> Response | None:
        forms_here = self._link.phase is Phase.KUBEEDGE and view != DEFAULT_VIEW
        whole = not (options.limit or options.token or options.match or options.revision)
        if forms_here or (whole and view == DEFAULT_VIEW):
            objects, revision = await self.list_scope(key, token)
            size = sum(len(one.value) for one in objects)
            if size > PIECE_BYTES and not forms_here and not wants_pretty(request):
                head = self._views.list_head(key.kind, revision, objects[0].value)
                await self._stream(request, chain((head,), pieces(objects), (b"]}\n",)), size)
                return None
            body = self._views.in_format(self._views.collection(key.kind, objects, revision, view), view)
            return respond(request, body, yaml=view.format is BodyFormat.YAML)
        target = request.target
        if view.form is Form.TABLE:
            target = _with(request, includeObject="Object")
        status, headers, body = await self._upstream.request(request, "GET", target, accept_of(view), token)
        if status in _FALL_BACK:
            raise _error_in(status, body)
        if status == 200 and view.format is BodyFormat.JSON:
            if view.form is Form.TABLE:
                body = await self._keep_listed_table(key, options, body, view)
            elif view.form is Form.OBJECT:
                await self._keep_listed(key, options, body)
        return Response(status, passed_on(headers), body)

    async def list_scope(self, key: ScopeKey, token: str) -> tuple[list[Stored], int]:
        """List all of a scope in chunks, and keep it. Raises ApiError."""
        objects: list[Stored] = []
        revision, more = 0, ""
        for attempt in range(3):
            objects, more = [], ""
            limit = FIRST_PAGE
            try:
                while True:
                    page = await self._page(key, token, more, limit)
                    revision = int(page.metadata.get("resourceVersion") or 0)
                    objects += _objects(key.kind, page)
                    limit = _next_limit(objects)
                    more = str(page.metadata.get("continue") or "")
                    if not more:
                        break
                break
            except ApiError as exc:
                if exc.code != 410 or attempt == 2:
                    raise
        await self._keep_all(key, objects, revision)
        return objects, revision

    async def _page(self, key: ScopeKey, token: str, more: str, limit: int) -> _Page:
        query = {**key.query(), "limit": str(limit), **({"continue": more} if more else {})}
        target = f"{key.path()}?{urlencode(query, quote_via=quote)}"
        status, _, body = await self._upstream.request(None, "GET", target, "application/json", token)
        if status != 200:
            raise _error_in(status, body)
        return _page_in(body)

    async def _keep_all(self, key: ScopeKey, objects: list[Stored], revision: int) -> None:
        """Keep a whole list: what is not in it any more is gone. A scope that is followed goes by its events. Raises ApiError."""
        followed, known = self.scopes.find(key) is not None, self._replica.scope(str(key))
        back = known is not None and revision < known  # it was restored from a backup
        try:
            for one in objects:
                await self._replica.room()
                self._replica.put(key.kind, one, back=back and not followed)
            if followed:
                return
            if key.is_whole:
                listed = {(one.namespace, one.name) for one in objects}
                for old in await self._replica.list(key.kind, key.namespace):
                    if (old.namespace, old.name) not in listed and (back or old.revision <= revision):
                        self._replica.drop(key.kind, old.namespace, old.name, revision, back=back)
            self._replica.set_scope(str(key), revision)
        except StoreError as exc:
            self._ctx.log.error("a list cannot be kept: %s", exc)

    async def _keep_listed(self, key: ScopeKey, options: ListOptions, body: bytes) -> None:
        page = _page_in(body)
        objects = _objects(key.kind, page)
        if _is_past(options):
            return
        if options.token or page.metadata.get("continue"):
            await self._keep_some(key.kind, objects)
        else:
            await self._keep_all(key, objects, int(page.metadata.get("resourceVersion") or 0))

    async def _keep_listed_table(self, key: ScopeKey, options: ListOptions, body: bytes, view: View) -> bytes:
        table = json.loads(body)
        objects = [_stored(json.dumps(row["object"])) for row in table.get("rows") or () if row.get("object")]
        metadata = table.get("metadata") or {}
        if _is_past(options):
            return _as_asked(table, body, view)
        if options.token or metadata.get("continue"):
            await self._keep_some(key.kind, objects)
        else:
            await self._keep_all(key, objects, int(metadata.get("resourceVersion") or 0))
        return _as_asked(table, body, view)

    async def _keep_some(self, kind: KindKey, objects: list[Stored]) -> None:
        try:
            for one in objects:
                await self._replica.room()
                self._replica.put(kind, one)
        except StoreError as exc:
            self._ctx.log.error("a list cannot be kept: %s", exc)

    def _keep_table(self, kind: KindKey, body: bytes, view: View) -> bytes:
        table = json.loads(body)
        for row in table.get("rows") or ():
            if row.get("object"):
                self._replica.put(kind, _stored(json.dumps(row["object"])))
        return _as_asked(table, body, view)

    def _keep(self, kind: KindKey, body: bytes) -> None:
        self._replica.put(kind, _stored(body))

    def keep_written(self, kind: KindKey, body: bytes) -> None:
        """Keep an object as a write has left it; an answer of another form is left alone."""
        try:
            meta = read_meta(body)
        except json.InvalidJson:
            return
        if meta.revision:
            self._replica.put(kind, Stored(meta.namespace, meta.name, meta.revision, body))

    async def forget(self, kind: KindKey, route: Route) -> None:
        """An object was deleted. Raises ApiError."""
        stored = await self._stored(kind, route)
        if stored is not None:
            self._replica.drop(kind, stored.namespace, stored.name, stored.revision)

    # -- without the cloud ---------------------------------------------------------------------------------------

    async def _list_offline(self, request: Request, route: Route, key: ScopeKey, view: View) -> Response | None:
        text, revision = self._warning(), self._revision(key)
        if not self._is_covered(key.kind, key.namespace) and self._replica.scope(str(key)) is None:
            if route.group or route.resource not in _SENT:
                raise self._unknown(route)
            text += "; this list was not read here before and may lack objects"
            revision = 0  # whoever watches on from here is told all of it, once it is known
        return await self._list_here(request, key, view, revision or 0, cached_headers(text))

    async def _list_here(
        self, request: Request, key: ScopeKey, view: View, revision: int, headers: bytes
    ) -> Response | None:
        if view == DEFAULT_VIEW and not wants_pretty(request):
            return await self._stream_here(request, key, revision, headers)
        rows = await self._rows(key)
        body = self._views.in_format(self._views.collection(key.kind, rows, revision, view), view)
        return respond(request, body, yaml=view.format is BodyFormat.YAML, headers=headers)

    async def _stream_here(self, request: Request, key: ScopeKey, revision: int, headers: bytes) -> Response | None:
        """Answer with whole objects, as large as they are in memory once and no longer than until they are sent."""
        try:
            found = await self._replica.collect(key.kind, key.namespace, key.matcher())
        except StoreError as exc:
            raise internal(str(exc)) from exc
        head = self._views.list_head(key.kind, revision, found.first)
        if not found.pieces:
            return respond(request, b"".join((head, *found.take(), b"]}\n")), headers=headers)
        await self._stream(request, chain((head,), found.take(), (b"]}\n",)), found.size, headers)
        return None

    async def _stream(self, request: Request, pieces: Iterable[bytes], size: int, headers: bytes = b"") -> None:
        """Answer with a list of this size, unless too many are under way. Raises ApiError, ClosedByPeer."""
        if self._streamed and self._streamed + size > STREAMED_BYTES:
            raise ApiError(429, "TooManyRequests", "too many large lists are under way on this node", None, 1)
        self._streamed += size
        try:
            await stream(request, pieces, headers=headers)
        finally:
            self._streamed -= size
            self._memory.passed(2 * size)

    async def _rows(self, key: ScopeKey) -> list[Stored]:
        try:
            rows = await self._replica.list(key.kind, key.namespace)
        except StoreError as exc:
            raise internal(str(exc)) from exc
        matches = key.matcher()
        return list(rows) if matches is None else [one for one in rows if matches(one)]

    def _revision(self, key: ScopeKey) -> int | None:
        """The revision that a list made here has: of the scope, or of one that holds it."""
        for one in (key, ScopeKey(key.kind, key.namespace), ScopeKey(key.kind)):
            found = self._replica.scope(str(one))
            if found is not None:
                return found
        return None

    def _is_covered(self, kind: KindKey, namespace: str) -> bool:
        """Whether all of a namespace was read here."""
        keys = (ScopeKey(kind, namespace), ScopeKey(kind))
        return any(self._replica.scope(str(one)) is not None for one in keys)

    def _is_followed(self, kind: KindKey, namespace: str) -> bool:
        """Whether all of a namespace is followed at the moment."""
        if not self._link.connected:
            return False
        for key in (ScopeKey(kind, namespace), ScopeKey(kind)):
            scope = self.scopes.find(key)
            if scope is not None and scope.whole.is_set() and scope.failure is None:
                return True
        return False

    def _warning(self) -> str:
        why = "the cloud does not answer" if self._link.connected else "offline"
        return f"node {self._ctx.node_name} is {why}: served from what is kept on this node"

    def _unknown(self, route: Route) -> ApiError:
        text = (
            f"node {self._ctx.node_name} is offline, and {route.resource} were not read here before the link was lost"
        )
        return unavailable(text, 1 if self._link.connected else None)


def namespace_of(route: Route) -> str:
    """The namespace of what a path is about: a Namespace itself is in none, though its path names one."""
    return "" if route.resource == "namespaces" and not route.group else route.namespace


def _next_limit(objects: Sequence[Stored]) -> int:
    """How many objects to ask for, by those that have come."""
    size = sum(len(one.value) for one in objects[-FIRST_PAGE:])
    return max(FIRST_PAGE, min(PAGE, PAGE_BYTES * min(len(objects), FIRST_PAGE) // max(size, 1)))


def pieces(objects: Iterable[Stored]) -> Iterator[bytes]:
    """Objects with commas between them, in pieces that are worth a write each."""
    found = Collected()
    for one in objects:
        found.add(one.value)
        if found.pieces:
            yield found.pieces.popleft()
    yield from found.take()


def _is_past(options: ListOptions) -> bool:
    """Whether a list may be of a state that is no more; that is not kept."""
    return bool(options.revision) and (options.match == "Exact" or bool(options.limit))


def _with(request: Request, **more: str) -> str:
    """The target with other parameters."""
    query = {name: values for name, values in request.query.items() if name not in more}
    pairs = [(name, value) for name, values in query.items() for value in values] + list(more.items())
    return f"{request.target.partition('?')[0]}?{urlencode(pairs, quote_via=quote)}"


def _as_asked(table: dict[str, Any], body: bytes, view: View) -> bytes:
    """A Table whose rows hold objects, with what the client wants of them."""
    if view.include == "Object":
        return body
    for row in table.get("rows") or ():
        obj = row.get("object")
        if view.include == "None" or obj is None:
            row["object"] = None
        else:
            row["object"] = {
                "kind": "PartialObjectMetadata",
                "apiVersion": f"meta.k8s.io/{view.version}",
                "metadata": obj.get("metadata", {}),
            }
    return json.dumps(table)


def _stored(value: bytes) -> Stored:
    meta = read_meta(value)
    return Stored(meta.namespace, meta.name, meta.revision, value)


def _objects(kind: KindKey, page: _Page) -> list[Stored]:
    name, version = page.kind.removesuffix("List"), page.apiVersion
    return [_stored(typed(bytes(one), name, version)) for one in page.items or ()]


def _page_in(body: bytes) -> _Page:
    """Raises ApiError."""
    try:
        return _page.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise unavailable(f"the cloud's answer is no list: {exc}") from exc


def _error_in(status: int, body: bytes) -> ApiError:
    try:
        found = json.loads(body)
    except json.InvalidJson:
        found = {"message": body[:200].decode("utf-8", "replace")}
    return ApiError.from_status(found if isinstance(found, dict) else {}, status)
