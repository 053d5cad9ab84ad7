"""Requests of edges to the API, carried out as whoever may: the bearer of the token that they carry, the node, or the controller itself.

    token in the request         the API authenticates and authorises it; nothing of ours is added
    requireAuthorization         without a token the request is anonymous
    impersonateNodes             the node, with what the API lets nodes do
    else                         the controller, as KubeEdge has it
    keys of the issuer           the controller: they are public, and by them edges tell forged tokens

Of a write it is remembered what became of it, so that the edge may ask again after a lost link; one that comes too late for its asker is
not begun.

Units   Milliseconds of the monotonic clock in ``clock``; else seconds.
Errors  None leave: every failure is an answer with a Status.
State   Outcomes of the last writes, bounded in number and in bytes: of more bytes, the oldest keep their status alone, so that none is
        carried out twice.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import anyio

from edgesite.kube import json
from edgesite.kube.errors import ApiError, bad_request, internal, method_not_allowed, too_large, unavailable
from edgesite.kube.requestinfo import parse_path
from edgesite.kube.selectable import parse_fields
from edgesite.wire.metaserver import ApiAnswer, ApiRequest

if TYPE_CHECKING:
    import logging

    from edgesite.client import CallerTransport, Client
    from edgesite.context import Clock

    Log = logging.Logger | logging.LoggerAdapter[logging.Logger]

__all__ = ["Requests", "refusal"]

WRITES_KEPT: Final = 4096
WRITES_KEPT_S: Final = 120.0
ANSWER_BYTES_KEPT: Final = 64 * 1024
ANSWERS_BYTES_KEPT: Final = 8 * 1024 * 1024  #: of all nodes together
READ_S: Final = 30.0
BODY_BYTES: Final = 3 * 1024 * 1024  #: as API servers take
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_METHODS: Final = _READS | {"POST", "PUT", "PATCH", "DELETE"}
_CONNECTING: Final = frozenset({"exec", "attach", "portforward", "proxy"})
_ISSUER_KEYS: Final = "/openid/v1/jwks"
#: What a request may tell the API: how it wants the answer, what it sends, who wrote it and with whose rights.
_HEADERS_UP: Final = frozenset(
    {"accept", "accept-encoding", "authorization", "content-type", "if-none-match", "user-agent"}
)
_HEADERS_DOWN: Final = frozenset(
    {"audit-id", "cache-control", "content-encoding", "content-type", "etag", "last-modified", "location", "retry-after", "vary", "warning"}
)  # fmt: skip


def refusal(request: ApiRequest) -> ApiError | None:
    """Why a request cannot be carried out here whoever asks; None if it can."""
    if request.method not in _METHODS:
        return method_not_allowed()
    if len(request.body) > BODY_BYTES:
        return too_large(BODY_BYTES)
    path, _, query = request.target.partition("?")
    route, query = parse_path(path), unquote(query)
    if route.watch or "watch=" in query or "follow=" in query:
        return bad_request("what streams is not asked for as a request")
    if route.subresource in _CONNECTING:
        return method_not_allowed("connections into pods and nodes do not go through MetaServer")
    return None


class _Write:
    __slots__ = ("answer", "done", "until_s")

    def __init__(self, until_s: float) -> None:
        self.until_s = until_s
        self.done = anyio.Event()
        self.answer: ApiAnswer | None = None


class Requests:
    """Carries out requests. ``epoch`` names this run: times of another one mean nothing here."""

    def __init__(
        self,
        client: Client,
        callers: CallerTransport,
        clock: Clock,
        epoch: str,
        *,
        require_token: bool,
        impersonate_nodes: bool,
        log: Log,
    ) -> None:
        self._client = client.named("dynamiccontroller")
        self._callers = callers
        self._clock = clock
        self._epoch = epoch
        self._require_token = require_token
        self._impersonate_nodes = impersonate_nodes
        self._log = log
        self._writes: OrderedDict[tuple[str, str], _Write] = OrderedDict()
        self._whole: OrderedDict[tuple[str, str], int] = OrderedDict()  #: bytes of answers that are kept as they were
        self._whole_bytes = 0

    def clock(self) -> tuple[str, int]:
        return self._epoch, int(self._clock.monotonic() * 1000)

    async def answer(self, node: str, request: ApiRequest) -> ApiAnswer:
        """Carry a request out, or tell what became of it when it came before."""
        refused = refusal(request)
        if refused is not None:
            return self._refused(refused)
        if request.method in _READS:
            return await self._within(node, request, READ_S)
        return await self._write(node, request)

    async def _write(self, node: str, request: ApiRequest) -> ApiAnswer:
        key = (node, request.id)
        known = self._writes.get(key)
        if known is not None:
            await known.done.wait()
            return known.answer or self._refused(unavailable("the request was given up"))
        left_s = self._left_s(request)
        if left_s <= 0:
            return self._refused(ApiError(504, "Timeout", "the request came too late and was not carried out"))
        write = self._writes[key] = _Write(self._clock.monotonic() + WRITES_KEPT_S)
        self._forget()
        try:
            answer = write.answer = await self._within(node, request, left_s)
            self._bound(key, write, answer)
            return answer
        finally:
            write.done.set()

    def _left_s(self, request: ApiRequest) -> float:
        """How long its asker still waits; one of another run of ours does not any more."""
        if request.until is None:
            return READ_S
        epoch, until_ms = request.until
        if epoch != self._epoch:
            return 0.0
        return min(READ_S, until_ms / 1000 - self._clock.monotonic())

    def _forget(self) -> None:
        now = self._clock.monotonic()
        while self._writes:
            key, oldest = next(iter(self._writes.items()))
            if len(self._writes) <= WRITES_KEPT and oldest.until_s > now:
                return
            del self._writes[key]
            self._whole_bytes -= self._whole.pop(key, 0)

    def _bound(self, key: tuple[str, str], write: _Write, answer: ApiAnswer) -> None:
        """Keep a new answer within what all of them may take."""
        size = len(answer.body) + sum(len(name) + len(value) for name, value in answer.headers.items())
        if size > ANSWER_BYTES_KEPT:
            write.answer = _shortened(answer)
            return
        if self._writes.get(key) is not write:
            return  # forgotten while it was carried out
        self._whole[key] = size
        self._whole_bytes += size
        while self._whole_bytes > ANSWERS_BYTES_KEPT:
            oldest, freed = self._whole.popitem(last=False)
            self._whole_bytes -= freed
            kept = self._writes[oldest]
            if kept.answer is not None:
                kept.answer = _shortened(kept.answer)

    async def _within(self, node: str, request: ApiRequest, seconds: float) -> ApiAnswer:
        try:
            with anyio.fail_after(seconds):
                return await self._ask(node, request)
        except TimeoutError:
            return self._refused(ApiError(504, "Timeout", f"the API did not answer within {seconds:.0f} s"))
        except (OSError, EOFError) as exc:
            return self._refused(unavailable(f"no answer from the API server: {exc}"))
        except ApiError as exc:
            return self._refused(exc)
        except ValueError as exc:  # a path or a header that cannot be sent
            return self._refused(bad_request(str(exc)))
        except Exception as exc:  # a request of an edge must not end the module
            self._log.error("%s %s failed", request.method, request.target, exc_info=exc)
            return self._refused(internal("the request could not be carried out"))

    async def _ask(self, node: str, request: ApiRequest) -> ApiAnswer:
        headers = {name: value for name, value in request.headers.items() if name in _HEADERS_UP}
        if request.body:
            headers.setdefault("content-type", "application/json")
        as_caller = self._as_caller(request.target, headers)
        transport = self._callers if as_caller else self._client.transport
        if self._impersonate_nodes and not as_caller and request.target != _ISSUER_KEYS:
            headers |= _as_node(node)
        status, answered, body = await transport.request(request.method, request.target, headers, request.body)
        kept = {name: value for name, value in answered.items() if name in _HEADERS_DOWN}
        return ApiAnswer(status, kept, body, self.clock())

    def _as_caller(self, target: str, headers: Mapping[str, str]) -> bool:
        return "authorization" in headers or (self._require_token and target != _ISSUER_KEYS)

    def _refused(self, error: ApiError) -> ApiAnswer:
        headers = {"content-type": "application/json"}
        if error.retry_after_s is not None:
            headers["retry-after"] = str(error.retry_after_s)
        return ApiAnswer(error.code, headers, json.dumps(error.status()), self.clock())

    async def may_watch(self, node: str, token: str, review: Mapping[str, str], fields: str = "") -> None:
        """Whether who would be asking may watch: the bearer of a token, or the node. Raises ApiError 401, 403, 503."""
        as_node = self._impersonate_nodes and not token and not self._require_token
        if not token and not self._require_token and not as_node:
            return  # as the controller
        attributes: dict[str, Any] = {"verb": "watch", **{name: value for name, value in review.items() if value}}
        if fields:
            attributes["fieldSelector"] = {"rawSelector": fields}
            named = _only_name(fields)
            if named and "name" not in attributes:
                attributes["name"] = named  # who may read one object may watch it alone
        body = json.dumps(
            {
                "kind": "SelfSubjectAccessReview",
                "apiVersion": "authorization.k8s.io/v1",
                "spec": {"resourceAttributes": attributes},
            }
        )
        headers = {"accept": "application/json", "content-type": "application/json"}
        if token:
            headers["authorization"] = token
        if as_node:
            headers |= _as_node(node)
        transport = self._client.transport if as_node else self._callers
        try:
            with anyio.fail_after(READ_S):
                status, _, answer = await transport.request(
                    "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", headers, body
                )
        except (OSError, EOFError) as exc:
            raise unavailable(f"no answer from the API server: {exc}") from exc
        obj = json.loads(answer)
        if status >= 400:
            raise ApiError.from_status(obj, status)
        verdict = obj.get("status") or {}
        if not verdict.get("allowed"):
            resource = review.get("resource", "")
            raise ApiError(403, "Forbidden", f"{resource} is forbidden: {verdict.get('reason') or 'not allowed'}")


def _as_node(node: str) -> dict[str, str]:
    return {"impersonate-user": f"system:node:{node}", "impersonate-group": "system:nodes"}


def _only_name(fields: str) -> str:
    """The name of the one object that a selector lets through; "" if it may be several. Raises ApiError 400."""
    return parse_fields(fields).exact("metadata.name") or ""


def _shortened(answer: ApiAnswer) -> ApiAnswer:
    """What is kept of a large answer: whether it went well."""
    outcome = "Success" if answer.status < 400 else "Failure"
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": outcome, "code": answer.status}
    return ApiAnswer(answer.status, {"content-type": "application/json"}, json.dumps(status), answer.clock)
