"""The MetaServer's front: from a request to who asks, whether they may, and who answers.

    health                  at once
    filters of plugins      may refuse
    kinds of plugins        their plugin
    plain paths             `Documents`
    into pods, metrics      `NodePods`
    get, list               `Reads`
    watch                   `Scopes`, a `Watcher` each
    everything else         the cloud, or 503 without a link: nothing is queued

Errors  None leave: every failure is answered with a Status.
State   Open watches; counts of requests under way.
Source  Kubernetes API concepts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import anyio

from edgesite.edge.metamanager.store import StoreError
from edgesite.edge.metaserver import answers
from edgesite.edge.metaserver.cloudlink import CloudLink, offline
from edgesite.edge.metaserver.documents import HEALTH, Documents
from edgesite.edge.metaserver.nodepods import CONNECTING, METRICS
from edgesite.edge.metaserver.reads import Reads, kind_of, namespace_of
from edgesite.edge.metaserver.scopekey import ScopeKey
from edgesite.edge.metaserver.scopes import Scopes
from edgesite.edge.metaserver.views import Views, view_of
from edgesite.edge.metaserver.watcher import Watcher, error_line, pieces
from edgesite.kube import errors
from edgesite.kube.errors import ApiError
from edgesite.kube.negotiate import DEFAULT_VIEW, Form, View
from edgesite.kube.options import ListOptions
from edgesite.kube.requestinfo import RequestInfo, Route, parse_path, request_info
from edgesite.net.errors import ClosedByPeer
from edgesite.net.http import Request, Response
from edgesite.wire.resource import NO_NAMESPACE, is_path_part

if TYPE_CHECKING:
    from edgesite.context import Context
    from edgesite.edge.metamanager.replica import Replica
    from edgesite.edge.metaserver.guard import Guard
    from edgesite.edge.metaserver.memory import Memory
    from edgesite.edge.metaserver.nodepods import NodePods
    from edgesite.edge.metaserver.printers import Printers
    from edgesite.edge.metaserver.upstream import Upstream
    from edgesite.hookspecs import MetaServerExtension

__all__ = ["MetaApi"]

REQUESTS: Final = 256  #: under way at once
WATCHES: Final = 1024
PATH_KEPT: Final = 512  #: characters of a path that is remembered: anybody may send longer ones
BOOKMARK_S: Final = 30.0
TIMEOUT_S: Final = 1800.0  #: of a watch that names none: one to two times this, as KubeEdge's and Kubernetes'
LOOK_S: Final = 2.0  #: how often watches are looked at for their time
STATE_S: Final = 60.0  #: until the state of a scope is on hand
_INTO_PODS: Final = frozenset({"log", *CONNECTING})
_VERBS: Final = frozenset({"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"})
_TRUE: Final = ("true", "1")


class MetaApi:
    """`handle` is the handler of the HTTP server; `run` ends watches in time."""

    def __init__(
        self,
        ctx: Context,
        link: CloudLink,
        upstream: Upstream,
        reads: Reads,
        scopes: Scopes,
        documents: Documents,
        views: Views,
        guard: Guard,
        replica: Replica,
        printers: Printers,
        memory: Memory,
        pods: NodePods,
        extensions: Sequence[MetaServerExtension] = (),
    ) -> None:
        self._ctx = ctx
        self._link = link
        self._upstream = upstream
        self._reads = reads
        self._scopes = scopes
        self._documents = documents
        self._views = views
        self._guard = guard
        self._replica = replica
        self._printers = printers
        self._memory = memory
        self._pods = pods
        self._extensions = tuple(extensions)
        self._served = {(row.group, row.plural): one for one in extensions for row in one.resources()}
        self._watchers: dict[Watcher, None] = {}
        self._under_way = 0
        self._routes = lru_cache(maxsize=1024)(parse_path)
        self.body_bytes = 3 * 1024 * 1024

    @property
    def watches(self) -> int:
        return len(self._watchers)

    # -- answering -----------------------------------------------------------------------------------------------

    def handle(self, request: Request) -> Response | Awaitable[Response | None] | None:
        """Answer a request."""
        if request.path in HEALTH or request.path.startswith("/livez/"):
            return Response(200, {"content-type": "text/plain; charset=utf-8"}, b"ok")
        if not self._guard.is_called(request.headers.get("host")):
            return answers.error(request, ApiError(403, "Forbidden", "this node is not called by that name"))
        if self._under_way >= REQUESTS:
            return answers.error(
                request, ApiError(429, "TooManyRequests", "Too many requests, please try again later.", None, 1)
            )
        if not self._link.connected and request.method == "GET" and self._guard.is_open and not self._extensions:
            path = request.target
            response = self._reads.at_once(request, self._routes(path)) if len(path) <= PATH_KEPT else None
            if response is not None:
                return response
        return self._answer(request)

    async def _answer(self, request: Request) -> Response | None:
        self._under_way += 1
        try:
            response = await self._dispatch(request)
            if response is not None:
                self._memory.passed(len(response.body))
            return response
        except ApiError as exc:
            return answers.error(request, exc)
        except ClosedByPeer:
            return None
        except Exception as exc:
            return self.failed(request, exc)
        finally:
            self._under_way -= 1

    def failed(self, request: Request, exc: Exception) -> Response:
        """Answer what should not have happened."""
        if isinstance(exc, ApiError):
            return answers.error(request, exc)
        if isinstance(exc, RecursionError):
            return answers.error(request, errors.bad_request("the object is nested too deeply"))
        self._ctx.log.error("%s %s failed", request.method, request.path, exc_info=exc)
        return answers.error(
            request, errors.internal("the request could not be carried out; the log of the node says why")
        )

    def rejected(self, status: int, message: str) -> Response:
        """Word the refusal of a request that breaks HTTP's rules or our limits."""
        return answers.rejected(status, message, self.body_bytes)

    async def _dispatch(self, request: Request) -> Response | None:
        """Raises ApiError, ClosedByPeer."""
        path = request.target.partition("?")[0]
        if not path.startswith("/"):  # as one asks a proxy
            raise errors.bad_request("the request names no path")
        route = self._routes(path) if len(path) <= PATH_KEPT else parse_path(path)
        info = request_info(request.method, route, watch=_asks_for_watch(request))
        if info.is_resource:
            _check(route, info)
        token, user = await self._guard.admit(request, info)
        for extension in self._extensions:
            extension.admit(info, user)
        if not info.is_resource:
            return await self._documents.answer(request, token)
        served = self._served.get((route.group, route.resource))
        if served is not None:
            return await served.serve(request, info, user)
        if route.group == METRICS:
            return await self._pods.metrics(request, info, token)
        if route.resource == "pods" and not route.group and route.subresource in _INTO_PODS:
            here = await self._pod(request, info)
            if here is not None:
                return here[0]
        if info.verb == "watch":
            await self._watch(request, route, token)
            return None
        if info.verb == "get":
            return await self._reads.get(request, route, token)
        if info.verb == "list":
            return await self._reads.collection(request, route, token)
        return await self._write(request, info, token)

    async def _pod(self, request: Request, info: RequestInfo) -> tuple[Response | None] | None:
        """Lead to a pod of this node; None: its log is the cloud's to give. Raises ApiError, ClosedByPeer."""
        if info.route.subresource == "log":
            if info.verb != "get":
                raise errors.method_not_allowed()
            if self._pods.is_elsewhere(request, info.route):
                return None
        elif request.method not in ("GET", "POST"):
            raise errors.method_not_allowed()
        self._under_way -= 1  # what may go on for ever has a bound of its own
        try:
            if info.route.subresource == "log":
                await self._pods.log(request, info.route)
                return (None,)
            return (await self._pods.connect(request, info),)
        finally:
            self._under_way += 1

    # -- writes --------------------------------------------------------------------------------------------------

    async def _write(self, request: Request, info: RequestInfo, token: str) -> Response:
        """Raises ApiError."""
        if not self._link.connected:
            raise offline(self._ctx.node_name)
        accept = request.headers.get("accept") or "application/json"
        view = view_of(request) if accept != "application/json" else DEFAULT_VIEW
        plain = view.form is Form.OBJECT
        wanted = view.content_type if plain else accept
        status, headers, body = await self._upstream.request(
            request, request.method, request.target, wanted, token, request.body
        )
        if 200 <= status < 300 and "dryRun" not in request.raw_query:
            await self._keep_outcome(info, view, body)
        return Response(status, answers.passed_on(headers), body)

    async def _keep_outcome(self, info: RequestInfo, view: View, body: bytes) -> None:
        route = info.route
        if info.verb == "delete" and b'"kind":"Status"' in body.replace(b" ", b"")[:200]:
            await self._reads.forget(kind_of(route), route)
        elif route.subresource in ("", "status") and info.verb != "deletecollection" and view == DEFAULT_VIEW:
            self._reads.keep_written(kind_of(route), body)

    # -- watches -------------------------------------------------------------------------------------------------

    async def _watch(self, request: Request, route: Route, token: str) -> None:
        """Begin to stream changes. Raises ApiError, ClosedByPeer."""
        if len(self._watchers) >= WATCHES:
            raise ApiError(429, "TooManyRequests", f"{WATCHES} watches are open on this node", None, 1)
        options = ListOptions.of(request.query if request.raw_query else {}, watch=True)
        if route.name:
            options = options.named(route.name)
        view = _watch_view(request)
        if view.form is Form.TABLE:
            await self._printers.ready(kind_of(route), token)
        self._printers.used(kind_of(route), token)
        key = ScopeKey.of(kind_of(route), namespace_of(route), str(options.labels or ""), str(options.fields or ""))
        wants_state = bool(options.initial_events) or (options.initial_events is None and not options.revision)
        scope = self._scopes.open(key, None if wants_state else options.revision or 0)
        seconds = options.timeout_s or TIMEOUT_S * (1 + self._ctx.random.random())
        watcher = Watcher(
            scope,
            self._views,
            view,
            token=token,
            since=options.revision or 0,
            deadline=self._ctx.clock.monotonic() + seconds,
            bookmarks=options.bookmarks,
            on_end=self._ended,
        )
        self._watchers[watcher] = None
        self._scopes.subscribe(scope, watcher)  # holds the scope, though nothing is told yet
        watcher.since = 1 << 63
        try:
            await self._begin(request, watcher, options, wants_state=wants_state)
        except BaseException:
            watcher.leave()
            raise

    async def _begin(self, request: Request, watcher: Watcher, options: ListOptions, *, wants_state: bool) -> None:
        scope, view = watcher.scope, watcher.view
        try:
            with anyio.fail_after(STATE_S):
                await scope.ready.wait()
                while wants_state and not scope.whole.is_set() and scope.failure is None and self._link.connected:
                    with anyio.move_on_after(1.0):  # it may fail, and the link be lost
                        await scope.whole.wait()
        except TimeoutError:
            raise ApiError(504, "Timeout", "the state to begin with is not on hand in time") from None
        if scope.failure is not None:
            raise scope.failure
        headers = answers.JSON_HEADERS
        if not self._link.connected:
            headers += answers.cached_headers(f"node {self._ctx.node_name} is offline: events follow when it is not")
        kind = scope.key.kind
        if wants_state:
            try:
                rows = await self._replica.list(kind, scope.key.namespace)
            except StoreError as exc:
                raise errors.internal(str(exc)) from exc
            matches = scope.key.matcher()
            found = [one for one in rows if matches is None or matches(one)]
            # Of what is not all here, everything else is told once it is known.
            revision = (scope.revision or 0) if scope.whole.is_set() else 0
            end = self._views.bookmark(kind, revision, view, initial_end=True) if options.initial_events else b""
            initial = pieces((self._views.line(kind, "ADDED", one.value, view) for one in found), end)
        else:
            since = options.revision or 0
            if since < scope.floor:
                writer = request.open_stream(200, headers)
                writer.write_nowait(error_line(errors.expired(f"too old resource version: {since} ({scope.floor})")))
                writer.close()
                watcher.leave()
                return
            frames = (self._views.frame(kind, one, view).payload for one in scope.since(since))
            initial, revision = pieces(frames), max(since, scope.revision or 0)
        writer = request.open_stream(200, headers, on_close=watcher.leave, on_drain=watcher.flush)
        writer.outlives = True
        watcher.since = watcher.said = revision
        watcher.begin(writer, initial)

    def _ended(self, watcher: Watcher) -> None:
        self._watchers.pop(watcher, None)
        self._scopes.unsubscribe(watcher.scope, watcher)

    async def run(self) -> None:
        """End watches whose time is up, and those whose token is worth nothing any more; send bookmarks. Until cancelled."""
        next_bookmark = self._ctx.clock.monotonic() + BOOKMARK_S
        while True:
            await self._ctx.clock.sleep(LOOK_S)
            now = self._ctx.clock.monotonic()
            self._scopes.sweep()
            for watcher in tuple(self._watchers):
                if watcher.deadline <= now:
                    watcher.end()
            if now >= next_bookmark:
                next_bookmark = now + BOOKMARK_S
                for watcher in tuple(self._watchers):
                    watcher.bookmark()
                await self._review()

    def end_streams(self) -> None:
        """End what has no end of its own, in order: watches, and logs that are followed."""
        for watcher in tuple(self._watchers):
            watcher.end()
        self._pods.end_streams()

    async def _review(self) -> None:
        for watcher in tuple(self._watchers):
            refused = await self._guard.still_refused(watcher.token, watcher.scope.key)
            if refused is not None:
                watcher.failed(refused)


def _check(route: Route, info: RequestInfo) -> None:
    """Refuse what no API server takes, or what would not fit through the link. Raises ApiError."""
    parts = (route.group, route.version, route.resource, route.namespace, route.name, route.subresource)
    if any(one and not is_path_part(one) for one in parts):
        raise errors.bad_request("the path holds a name that no object can have")
    if route.namespace == NO_NAMESPACE:  # what is stored in no namespace is found under this word
        raise errors.bad_request(f'edges do not serve a namespace called "{NO_NAMESPACE}"')
    if info.verb not in _VERBS:
        raise errors.method_not_allowed()
    if route.subresource == "proxy" or (route.subresource in CONNECTING and route.resource != "pods"):
        raise errors.method_not_allowed("of connections, those into this node's pods alone go through MetaServer")


def _asks_for_watch(request: Request) -> bool:
    if not request.raw_query or "watch=" not in request.raw_query:
        return False
    return request.query.get("watch", ["false"])[0].lower() in _TRUE


def _watch_view(request: Request) -> View:
    """A watch is JSON whatever else is offered; metadata is asked for under either name. Raises ApiError."""
    view = view_of(request)
    form = Form.PARTIAL if view.form is Form.PARTIAL_LIST else view.form
    return DEFAULT_VIEW if form is Form.OBJECT else View(form, view.version, include=view.include)
