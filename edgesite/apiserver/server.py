"""The embedded API server's front: from a request to who asks, what is asked, whether they may, and who answers.

Reads are answered at once, writes by a task of the HTTP server. `ApiServer.handle` is the handler for ``edgesite.net.http.HttpServer`` and
for the in-process transport alike.

Errors  None leave: every failure is answered with a Status.
State   Counts of requests under way; caches of parsed paths.
Source  Kubernetes API concepts; flow control by a plain bound on requests under way.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.apiserver import authn, authz
from edgesite.apiserver.authz import Attributes
from edgesite.apiserver.call import JSON_HEADERS, PRETTY_AGENTS, Call, error_response
from edgesite.apiserver.kinds import NOT_SERVED
from edgesite.apiserver.nodeauth import exact_field
from edgesite.apiserver.reads import PLAIN_ACCEPT
from edgesite.apiserver.subresources import BINDINGS
from edgesite.apiserver.transport import LocalRequest
from edgesite.apiserver.usage import GROUP as USAGE_GROUP
from edgesite.kube import errors
from edgesite.kube.errors import ApiError
from edgesite.kube.requestinfo import RequestInfo, Route, parse_path, request_info
from edgesite.net.errors import ClosedByPeer
from edgesite.net.http import Request, Response
from edgesite.store.errors import StoreError, WriteFailed

if TYPE_CHECKING:
    from edgesite.apiserver.authn import Authenticator, User
    from edgesite.apiserver.authz import Authorizer
    from edgesite.apiserver.documents import Documents
    from edgesite.apiserver.kinds import Kind, Kinds
    from edgesite.apiserver.metrics import ApiMetrics
    from edgesite.apiserver.reads import Reads
    from edgesite.apiserver.reviews import Reviews
    from edgesite.apiserver.subresources import Subresources
    from edgesite.apiserver.usage import Usage
    from edgesite.apiserver.writes import Writes
    from edgesite.context import Clock

__all__ = ["ApiServer", "Parts"]

logger = logging.getLogger(__name__)
Answer = Response | None | Awaitable[Response | None]
WRITE_DEADLINE_S: Final = 60.0
QUICK_PATHS: Final = (
    1024  #: each some 400 bytes; nodes of a large fleet read their own once in a while, and gain nothing
)
ROUTES: Final = 512  #: each some 700 bytes, for five microseconds
PATH_KEPT: Final = 512  #: characters of a path that is remembered: anybody may send longer ones
_LOOPBACK: Final = ("127.", "::1", "::ffff:127.")
_LONG_RUNNING: Final = frozenset({"log", "proxy", "exec", "attach", "portforward"})
_OF_COLLECTIONS: Final = frozenset({"list", "watch", "deletecollection"})
_TRUE: Final = ("true", "1")


@dataclass(frozen=True, slots=True)
class Parts:
    """What the front hands requests to."""

    kinds: Kinds
    reads: Reads
    writes: Writes
    subresources: Subresources
    reviews: Reviews
    usage: Usage
    documents: Documents
    metrics: ApiMetrics


class ApiServer:
    """Answers requests."""

    def __init__(
        self,
        parts: Parts,
        *,
        authenticators: Sequence[Authenticator],
        authorizers: Sequence[Authorizer],
        clock: Clock,
        max_in_flight: int = 400,
        max_body: int = 3 * 1024 * 1024,
    ) -> None:
        self._parts = parts
        self._authenticators = authenticators
        self._authorizers = authorizers
        self._clock = clock
        self.max_in_flight = max_in_flight
        self._max_body = max_body
        self._in_flight = 0
        self._routes = lru_cache(maxsize=ROUTES)(parse_path)
        self._quick: dict[str, tuple[Kind, str]] = {}  # paths of single objects that were read before
        self._quick_version = -1

    def handle(self, request: Request) -> Answer:
        """Answer a request; a read without a task. None: the answer is streamed."""
        try:
            if request.method == "GET" and not request.raw_query:
                found = self._read_again(request)
                if found is not None:
                    return found
            return self._handle(request)
        except ApiError as exc:
            return self._error(request, exc)
        except ClosedByPeer:
            return None
        except Exception as exc:
            return self.failed(request, exc)

    def _read_again(self, request: Request) -> Response | None:
        """Answer the plainest of requests, a GET of an object by one who may do everything; None: the long way decides.

        Raises ApiError.
        """
        known = self._quick.get(request.target)
        if known is None or self._quick_version != self._parts.kinds.version:
            return None
        kind, key = known
        headers = request.headers
        accept, agent = headers.get("accept"), headers.get("user-agent")
        if (accept is not None and accept not in PLAIN_ACCEPT) or (
            agent is not None and agent.startswith(PRETTY_AGENTS)
        ):
            return None
        if not self._user(request).is_master:
            return None
        row = self._parts.reads.store.get(key)
        if row is None:
            return None
        self._parts.metrics.read_again(kind)
        return Response(200, JSON_HEADERS, row.value)

    def _remember(self, call: Call) -> None:
        """Make the next plain GET of this object quick."""
        if self._quick_version != self._parts.kinds.version or len(self._quick) >= QUICK_PATHS:
            self._quick.clear()
            self._quick_version = self._parts.kinds.version
        if call.kind.is_stored_form and len(call.request.target) <= PATH_KEPT:
            self._quick[call.request.target] = (call.kind, call.kind.key(call.route.namespace, call.route.name))

    def failed(self, request: Request, exc: Exception) -> Response:
        """Answer what should not have happened; the client learns that it did, the log why."""
        if isinstance(exc, ApiError):
            return self._error(request, exc)
        if isinstance(exc, RecursionError):  # JSON may nest deeper than what walks over it
            return self._error(request, errors.bad_request("the object is nested too deeply"))
        if isinstance(exc, WriteFailed):
            logger.error("the store cannot write: %s", exc)
            return self._error(request, errors.internal("the storage does not accept writes"))
        if isinstance(exc, StoreError):
            return self._error(request, errors.unavailable("the storage is not available"))
        logger.error("%s %s failed", request.method, request.path, exc_info=exc)
        return self._error(request, errors.internal("the request could not be carried out; the server's log says why"))

    def rejected(self, status: int, message: str) -> Response:
        """Word the refusal of a request that breaks HTTP's rules or our limits."""
        if status == 413:
            return error_response(None, errors.too_large(self._max_body))
        reasons = {
            400: "BadRequest",
            408: "Timeout",
            429: "TooManyRequests",
            431: "RequestHeaderFieldsTooLarge",
            503: "ServiceUnavailable",
        }
        return error_response(None, ApiError(status, reasons.get(status, "Unknown"), message))

    def _error(self, request: Request, error: ApiError, warnings: list[str] | None = None) -> Response:
        self._parts.metrics.failed(request.method, error.code)
        return error_response(request, error, warnings)

    def _handle(self, request: Request) -> Answer:
        path = request.target.partition("?")[0]
        route = self._routes(path) if len(path) <= PATH_KEPT else parse_path(path)
        info = request_info(request.method, route, watch=_asks_for_watch(request, route))
        user = self._user(request)
        if not info.is_resource:
            authz.authorize(self._authorizers, user, self._plain(request, info))
            return self._parts.documents.answer(request, user)
        if not user.is_master:
            authz.authorize(self._authorizers, user, self._attributes(request, info))
        kind = self._parts.kinds.get(route.group, route.version, route.resource)
        self._parts.metrics.seen(info.verb, route)
        return self._dispatch(Call(request, route, info.verb, user, kind))

    # who

    def _user(self, request: Request) -> User:
        """Raises ApiError."""
        user = request.user if isinstance(request, LocalRequest) else None
        if user is None:
            user = authn.authenticate(self._authenticators, request)
        wanted = authn.impersonation(request.headers)
        if wanted is None:
            return user
        for attributes in wanted.needs:
            authz.authorize(self._authorizers, user, attributes)
        return wanted.user

    def _plain(self, request: Request, info: RequestInfo) -> Attributes:
        if isinstance(request, LocalRequest):  # of one of our modules, or on behalf of somebody far away
            loopback = request.user is not None
        else:
            loopback = request.peer.in_process or request.peer.address.startswith(_LOOPBACK)
        return Attributes(info.verb, request.path, loopback=loopback)

    def _attributes(self, request: Request, info: RequestInfo) -> Attributes:
        route = info.route
        selector = request.query.get("fieldSelector", [""])[0] if request.raw_query else ""
        name = route.name
        if selector and not name and info.verb in _OF_COLLECTIONS:
            name = exact_field(selector, "metadata.name") or ""  # who may read one object may list it alone
        return Attributes(
            verb=info.verb,
            path=route.path,
            group=route.group,
            version=route.version,
            resource=route.resource,
            subresource=route.subresource,
            namespace=route.namespace,
            name=name,
            field_selector=selector,
        )

    def allowed(self, user: User, wanted: Attributes) -> tuple[bool, str]:
        """Whether a user may do something, for reviews."""
        return authz.check(self._authorizers, user, wanted)

    # what

    def _dispatch(self, call: Call) -> Answer:
        """Hand the call to who answers it. Raises ApiError, ClosedByPeer."""
        kind, route, verb = call.kind, call.route, call.verb
        if (
            route.namespace
            and not kind.resource.namespaced
            and not (kind.resource.plural == "namespaces" and route.name == route.namespace)
        ):
            raise ApiError(404, "NotFound", NOT_SERVED, {})
        if kind.resource.namespaced and route.namespace == "" and verb not in ("list", "watch", "deletecollection"):
            raise self._unnamed_namespace(call)
        if route.subresource:
            return self._subresource(call)
        if verb not in kind.resource.verbs:
            raise errors.method_not_allowed()
        if kind.resource.group == USAGE_GROUP:
            return self._task(call, self._parts.usage.answer)
        if verb == "get":
            if not call.request.raw_query and call.request.method == "GET":
                self._remember(call)
            return self._parts.reads.get(call)
        if verb == "list":
            return self._parts.reads.list(call)
        if verb == "watch":
            self._parts.reads.watch(call)
            return None
        if verb == "create" and route.name:
            raise errors.method_not_allowed()
        if verb in ("update", "patch") and not route.name:
            raise errors.method_not_allowed()
        return self._task(call, self._writer(call))

    def _unnamed_namespace(self, call: Call) -> ApiError:
        if call.verb == "create" and not call.route.name:
            row = call.kind.resource
            return errors.bad_request(f"an empty namespace may not be set during creation of {row.plural}")
        return ApiError(404, "NotFound", NOT_SERVED, {})

    def _writer(self, call: Call) -> Callable[[Call], Coroutine[Any, Any, Response]]:
        writes = self._parts.writes
        if call.kind.resource.plural == BINDINGS and not call.kind.resource.group:
            return self._parts.subresources.bind
        reviewer = self._parts.reviews.of(call.kind) if call.verb == "create" else None
        if reviewer is not None:
            return reviewer
        return {
            "create": writes.create,
            "update": writes.update,
            "patch": writes.patch,
            "delete": writes.delete,
            "deletecollection": writes.delete_collection,
        }[call.verb]

    def _subresource(self, call: Call) -> Answer:
        """Raises ApiError."""
        kind, name = call.kind, call.route.subresource
        if name not in kind.resource.subresources:
            raise ApiError(404, "NotFound", NOT_SERVED, {})
        handler = self._parts.subresources.find(name, call.verb)
        if handler is None:
            raise errors.method_not_allowed()
        if name == "status" and call.verb == "get":
            return self._parts.reads.get(call)
        return self._task(call, handler, bounded=name not in _LONG_RUNNING)

    async def _task(
        self, call: Call, work: Callable[[Call], Coroutine[Any, Any, Response | None]], *, bounded: bool = True
    ) -> Response | None:
        """Carry out a write, counted and with a deadline; long-running ones are neither. Our own modules are not held back."""
        if not bounded:
            return await self._guarded(call, work)
        if self._in_flight >= self.max_in_flight and not call.request.peer.in_process:
            busy = ApiError(429, "TooManyRequests", "Too many requests, please try again later.", {}, retry_after_s=1)
            return self._error(call.request, busy)
        self._in_flight += 1
        try:
            with anyio.CancelScope(deadline=anyio.current_time() + WRITE_DEADLINE_S):
                return await self._guarded(call, work)
        finally:
            self._in_flight -= 1
        message = "Timeout: request did not complete within the allotted timeout"
        return self._error(call.request, ApiError(504, "Timeout", message))

    async def _guarded(
        self, call: Call, work: Callable[[Call], Coroutine[Any, Any, Response | None]]
    ) -> Response | None:
        try:
            return await work(call)
        except ApiError as exc:
            return self._error(call.request, exc, call.warnings)
        except ClosedByPeer:
            return None
        except Exception as exc:
            return self.failed(call.request, exc)


def _asks_for_watch(request: Request, route: Route) -> bool:
    if route.watch:
        return True
    if not request.raw_query or "watch=" not in request.raw_query:
        return False
    return request.query.get("watch", ["false"])[0].lower() in _TRUE
