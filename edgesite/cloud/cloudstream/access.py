"""Who may use the kubelet API of nodes through the stream server: what kubelet itself asks of its callers.

A caller shows a client certificate (already verified by TLS) or a bearer token, which is reviewed by the API (TokenReview); then the
API says whether it may do this (SubjectAccessReview on ``nodes``, with the subresource that kubelet would name). Members of
``system:masters`` need no such question: no API server would say no.

KubeEdge asks callers for a certificate and verifies none, so that whoever reaches the port may run commands in every pod.

Units   Seconds.
Errors  ApiError 401 and 403 for who may not, 503 where the API does not answer.
State   Answers, kept for a minute, refusals for ten seconds; at most `_KEPT` of each kind.
Source  Kubernetes documentation "Kubelet authentication/authorization" (verbs and subresources).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from edgesite.kube.errors import ApiError, forbidden, unauthorized
from edgesite.kube.kubeletaccess import attributes_of
from edgesite.kube.resources import BUILTIN

if TYPE_CHECKING:
    from edgesite.client import Client
    from edgesite.net.http import Request

__all__ = ["Access", "Caller"]

T = TypeVar("T")
_MASTERS: Final = "system:masters"
_AUTHENTICATED: Final = "system:authenticated"
_TOKEN_REVIEWS: Final = next(one for one in BUILTIN if one.plural == "tokenreviews")
_ACCESS_REVIEWS: Final = next(one for one in BUILTIN if one.plural == "subjectaccessreviews")
_YES_S: Final = 60.0
_NO_S: Final = 10.0
_KEPT: Final = 1024


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""


def _attributes_of(method: str, path: str, node: str) -> dict[str, str]:
    """Return the resource attributes that kubelet would ask about."""
    wanted = attributes_of(method, path, node)
    named = ("verb", "version", "resource", "subresource", "name")
    return {name: getattr(wanted, name) for name in named}


class _Kept(Generic[T]):
    """Answers with an end; the oldest go first."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._entries: dict[Any, tuple[float, T]] = {}

    def get(self, key: Any) -> T | None:
        until, value = self._entries.get(key, (0.0, None))
        return value if self._monotonic() < until else None

    def put(self, key: Any, value: T, for_s: float) -> None:
        self._entries.pop(key, None)
        self._entries[key] = (self._monotonic() + for_s, value)
        if len(self._entries) > _KEPT:
            del self._entries[next(iter(self._entries))]


class Access:
    """``check`` before anything else is done for a request."""

    def __init__(self, client: Client, monotonic: Callable[[], float]) -> None:
        self._client = client
        self._callers: _Kept[Caller | ApiError] = _Kept(monotonic)
        self._answers: _Kept[str] = _Kept(monotonic)

    async def check(self, request: Request, node: str) -> None:
        """Return if the caller may send this request to ``node``. Raises ApiError."""
        caller = await self.caller_of(request)
        if _MASTERS in caller.groups:
            return
        wanted = _attributes_of(request.method, request.path, node)
        key = (caller, tuple(wanted.values()))
        why = self._answers.get(key)
        if why is None:
            why = await self._review(caller, wanted)
            self._answers.put(key, why, _NO_S if why else _YES_S)
        if why:
            raise forbidden("nodes", node, why)

    async def caller_of(self, request: Request) -> Caller:
        """Raises ApiError 401."""
        if request.peer.common_name:
            return Caller(request.peer.common_name, (*request.peer.organizations, _AUTHENTICATED))
        scheme, _, token = (request.headers.get("authorization") or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise unauthorized()
        key = hashlib.sha256(token.encode()).digest()
        known = self._callers.get(key)
        if known is None:
            known = await self._authenticate(token.strip())
            self._callers.put(key, known, _YES_S if isinstance(known, Caller) else _NO_S)
        if isinstance(known, ApiError):
            raise known
        return known

    async def _authenticate(self, token: str) -> Caller | ApiError:
        review = {"kind": "TokenReview", "apiVersion": _TOKEN_REVIEWS.api_version, "spec": {"token": token}}
        status = (await self._client.create(_TOKEN_REVIEWS, review)).get("status") or {}
        user = status.get("user") or {}
        if not status.get("authenticated") or not user.get("username"):
            return unauthorized()
        return Caller(str(user["username"]), tuple(user.get("groups") or ()), str(user.get("uid") or ""))

    async def _review(self, caller: Caller, wanted: dict[str, str]) -> str:
        """Why not; "" for yes. Raises ApiError."""
        spec = {"user": caller.name, "groups": list(caller.groups), "uid": caller.uid, "resourceAttributes": wanted}
        review = {"kind": "SubjectAccessReview", "apiVersion": _ACCESS_REVIEWS.api_version, "spec": spec}
        status = (await self._client.create(_ACCESS_REVIEWS, review)).get("status") or {}
        if status.get("allowed") and not status.get("denied"):
            return ""
        return f"user {caller.name!r} may not {wanted['verb'] or 'do this with'} nodes/{wanted['subresource']}"
