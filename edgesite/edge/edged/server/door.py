"""Who is let through to the kubelet API on its TLS port.

A caller shows a certificate of the CA, or a bearer token that the cloud reviews. Those whose certificate a cluster gives its API server
alone may do everything; of the others the cloud is asked, as kubelet asks (mode Webhook). With mode AlwaysAllow whoever is known may.

Units   Seconds of the monotonic clock.
Errors  None leave: 401, 403, and 503 where the cloud cannot be asked.
State   Answers of the cloud, kept for a minute, refusals for ten seconds; bounded.
Source  Kubernetes documentation "Kubelet authentication/authorization" (texts of refusals); kubeadm (names of certificates).
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Awaitable, Callable, Hashable
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from edgesite.edge.access.access import Access, Identity, TokenReviewer
from edgesite.kube.errors import ApiError, unauthorized, unavailable
from edgesite.kube.kubeletaccess import attributes_of
from edgesite.net.http import Response

if TYPE_CHECKING:
    from edgesite.context import Context
    from edgesite.edge.edged.server.later import LaterApi
    from edgesite.net.http import Request

__all__ = ["Door"]

T = TypeVar("T")
_TEXT: Final = b"content-type: text/plain; charset=utf-8\r\n"
_GROUPS: Final = frozenset({"system:masters", "kubeadm:cluster-admins"})
_NAMES: Final = frozenset({"kube-apiserver", "kube-apiserver-kubelet-client"})
_AUTHENTICATED: Final = "system:authenticated"
_YES_S: Final = 60.0
_NO_S: Final = 10.0
_KEPT: Final = 256


class Door:
    """``always``: whoever is known may do everything. ``tokens``: whether bearer tokens are reviewed."""

    def __init__(self, ctx: Context, api: LaterApi, *, always: bool, tokens: bool) -> None:
        self._ctx, self._api = ctx, api
        self._always, self._tokens = always, tokens
        self._users: _Kept[Identity | ApiError] = _Kept(ctx.clock.monotonic)
        self._verdicts: _Kept[bool] = _Kept(ctx.clock.monotonic)

    def handle(self, request: Request) -> Response | Awaitable[Response | None]:
        """For `edgesite.net.http.HttpServer`."""
        peer = request.peer
        if peer.common_name:
            if self._always or peer.common_name in _NAMES or _GROUPS.intersection(peer.organizations):
                return self._api.serve(request)
            return self._ask(request, Identity(peer.common_name, (*peer.organizations, _AUTHENTICATED)))
        scheme, _, token = (request.headers.get("authorization") or "").partition(" ")
        if not self._tokens or scheme.lower() != "bearer" or not token.strip():
            return Response(401, _TEXT, b"Unauthorized")
        return self._ask(request, token.strip())

    async def _ask(self, request: Request, who: Identity | str) -> Response | None:
        try:
            user = await self._user(who) if isinstance(who, str) else who
            refused = None if self._always else await self._why_not(request, user)
        except ApiError as exc:
            text = b"Unauthorized" if exc.code == 401 else exc.message.encode()
            return Response(exc.code, _TEXT, text)
        if refused is not None:
            return Response(403, _TEXT, refused.encode())
        answer = self._api.serve(request)
        return await answer if inspect.isawaitable(answer) else answer

    async def _user(self, token: str) -> Identity:
        """Raises ApiError."""
        key = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        known = self._users.get(key)
        if known is None:
            reviewer = self._ctx.services.find(TokenReviewer)  # type: ignore[type-abstract]
            if reviewer is None:
                raise unavailable("tokens cannot be reviewed now")
            try:
                known = await reviewer.review(token)
            except ApiError as exc:
                if exc.code != 401:
                    raise
                known = unauthorized()
            self._users.put(key, known, _YES_S if isinstance(known, Identity) else _NO_S)
        if isinstance(known, ApiError):
            raise known
        return known

    async def _why_not(self, request: Request, user: Identity) -> str | None:
        """None if the user may. Raises ApiError."""
        wanted = attributes_of(request.method, request.path, self._ctx.node_name)
        key = (user.name, user.groups, user.uid, wanted)
        allowed = self._verdicts.get(key)
        if allowed is None:
            access = self._ctx.services.find(Access)  # type: ignore[type-abstract]
            if access is None:
                raise unavailable("the cloud cannot be asked now")
            allowed = (await access.decide(user, wanted)).allowed
            self._verdicts.put(key, allowed, _YES_S if allowed else _NO_S)
        if allowed:
            return None
        said = f"verb={wanted.verb}, resource=nodes, subresource={wanted.subresource}"
        return f"Forbidden (user={user.name}, {said})"


class _Kept(Generic[T]):
    """Answers with an end; the oldest go first."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._entries: dict[Hashable, tuple[float, T]] = {}

    def get(self, key: Hashable) -> T | None:
        found: Any = self._entries.get(key)
        return found[1] if found is not None and self._monotonic() < found[0] else None

    def put(self, key: Hashable, value: T, for_s: float) -> None:
        self._entries.pop(key, None)
        self._entries[key] = (self._monotonic() + for_s, value)
        if len(self._entries) > _KEPT:
            del self._entries[next(iter(self._entries))]
