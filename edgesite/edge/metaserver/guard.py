"""Who may do what at the MetaServer, where feature gate ``requireAuthorization`` is on: bearer tokens, reviewed by the cloud.

Each token is reviewed (TokenReview) and each kind of request decided (SubjectAccessReview) through the cloud; answers are kept for a while (`reviews`), so that is how
long a token works on after its pod was deleted. Nobody is anonymous, and client certificates prove nothing here.

A token with a forged signature of the cluster's issuer is refused without a review (`issuer`), and one with a good signature has its place beside whatever
others ask for: no flood keeps it out.

KubeEdge's cloud reviews no tokens for us: it is asked with the token whether its bearer may (SelfSubjectAccessReview).

Without a link requests are refused, unless ``offlineTokenMinutes`` is set: then a token that was reviewed at most that long before the link was lost, and has not
expired, is taken on, and decided by the ServiceAccountAccess objects stored here, or as the cloud decided in that time.

Units   Seconds of the monotonic clock, but where "epoch" is said.
Errors  ApiError: 401, 403, 503 when the cloud cannot be asked, 429 when too many tokens wait for their review.
State   Reviews and decisions, bounded; tokens are held as digests.
"""

from __future__ import annotations

import abc
import base64
import binascii
import hashlib
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, ClassVar, Final

from edgesite.edge.access.access import Access, Identity, TokenReviewer
from edgesite.edge.metaserver.cloudlink import Phase
from edgesite.edge.metaserver.hosts import Hosts
from edgesite.edge.metaserver.issuer import Standing
from edgesite.edge.metaserver.reviews import Answers, Kept, places
from edgesite.edge.metaserver.scopekey import ScopeKey
from edgesite.kube import json
from edgesite.kube.errors import ApiError, unauthorized, unavailable
from edgesite.kube.rbac import Attributes, Verdict
from edgesite.kube.requestinfo import RequestInfo
from edgesite.kube.selectors import InvalidSelector, parse_fields
from edgesite.net.http import Request

if TYPE_CHECKING:
    from edgesite.context import Context, Section
    from edgesite.edge.metaserver.cloudlink import CloudLink
    from edgesite.edge.metaserver.issuer import IssuerKeys
    from edgesite.edge.metaserver.kubeedge import KubeEdgeCloud
    from edgesite.edge.metaserver.places import Places

__all__ = ["Guard", "Open", "TokenGuard"]

TOKENS: Final = 1024
DECISIONS: Final = 8192
TOKEN_BYTES: Final = 16 * 1024
_LATEST: Final = 1 << 53  #: what a token may say of its end to be believed
_OF_COLLECTIONS: Final = frozenset({"list", "watch", "deletecollection"})


class Guard(abc.ABC):
    """What the front asks. ``is_open``: everybody is let through, so it need not be asked."""

    is_open: ClassVar[bool] = False

    def is_called(self, host: str | None) -> bool:
        """Whether a request with this Host is meant for this node."""
        return True

    def reload(self, config: Section) -> None:  # noqa: B027 - most have nothing to take over
        """Take over settings of the metaServer section."""

    @abc.abstractmethod
    async def admit(self, request: Request, info: RequestInfo) -> tuple[str, Identity | None]:
        """Return with which Authorization header the request goes on, and as whom. Raises ApiError."""

    @abc.abstractmethod
    async def still_refused(self, token: str, key: ScopeKey) -> ApiError | None:
        """Why a watch may not go on; None if it may."""


class Open(Guard):
    """Lets every program through: whoever reaches the address acts with the rights that the cloud gives this node.

    But not pages of other sites in a browser on the node: these can send requests, too, and their names can be made to lead here.
    """

    is_open: ClassVar[bool] = True

    def __init__(self, hosts: Hosts | None = None) -> None:
        self._hosts = hosts or Hosts()
        self._last: str | None = None  # of programs it is nearly always the same

    def is_called(self, host: str | None) -> bool:
        if host == self._last:
            return True
        if not self._hosts.knows(host):
            return False
        self._last = host
        return True

    async def admit(self, request: Request, info: RequestInfo) -> tuple[str, Identity | None]:
        if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise ApiError(403, "Forbidden", "pages of other sites may not use the API of this node")
        return "", None

    async def still_refused(self, token: str, key: ScopeKey) -> ApiError | None:
        return None


class TokenGuard(Guard):
    """Demands a bearer token that the cloud knows, and its leave."""

    def __init__(
        self,
        ctx: Context,
        link: CloudLink,
        kubeedge: KubeEdgeCloud,
        issuer: IssuerKeys,
        config: Section,
    ) -> None:
        self._ctx = ctx
        self._link = link
        self._kubeedge = kubeedge
        self._issuer = issuer
        now = ctx.clock.monotonic
        self._verdicts: Answers[Verdict] = Answers(DECISIONS, now, lambda one: one.allowed)
        self._audiences: tuple[str, ...] | None = None
        self.reload(config)
        self._strangers, self._signed, self._deciding = places(), places(), places()

    def reload(self, config: Section) -> None:
        audiences = tuple(str(one) for one in config.get("apiAudiences") or ())
        self._offline_s = 60.0 * float(config.get("offlineTokenMinutes") or 0)
        if audiences != self._audiences:  # what was said of tokens was said for the former ones
            self._audiences = audiences
            self._identities: Answers[Identity] = Answers(TOKENS, self._ctx.clock.monotonic, lambda one: True)

    async def admit(self, request: Request, info: RequestInfo) -> tuple[str, Identity | None]:
        header = request.headers.get("authorization") or ""
        scheme, _, token = header.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or len(token) > TOKEN_BYTES:
            raise unauthorized()
        peer = request.peer.address if request.peer is not None else ""
        user = await self._user(token, peer)
        route = info.route
        name, selector = route.name, ""
        if request.raw_query and info.verb in _OF_COLLECTIONS:
            selector = request.query.get("fieldSelector", [""])[0]
            name = name or _only_name(selector)
        wanted = Attributes(
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
        await self._decide(token, peer, user, wanted)
        return f"Bearer {token}", user

    async def still_refused(self, token: str, key: ScopeKey) -> ApiError | None:
        if not self._link.connected:
            return None  # nothing comes of it until the link is back
        token = token.partition(" ")[2]
        kind = key.kind
        wanted = Attributes(
            "watch",
            group=kind.group,
            version=kind.version,
            resource=kind.resource,
            namespace=key.namespace,
            name=_only_name(key.fields),
            field_selector=key.fields,
        )
        try:
            await self._decide(token, "", await self._user(token, ""), wanted)
        except ApiError as exc:
            return exc if exc.code in (401, 403) else None
        return None

    # -- whose token ---------------------------------------------------------------------------------------------

    async def _user(self, token: str, peer: str) -> Identity:
        """Raises ApiError."""
        digest = _digest(token)
        if not self._link.connected:
            return self._user_offline(token, digest)
        if await self._link.settled() is Phase.KUBEEDGE:
            return Identity(_subject(token))  # by its own word: each decision there is the API's to the bearer

        async def ask() -> Identity:
            reviewer = self._ctx.services.find(TokenReviewer)  # type: ignore[type-abstract]
            if reviewer is None:
                raise unavailable("nobody reviews tokens on this node")
            return await reviewer.review(token, self._audiences or ())

        if _expiry(token) <= self._ctx.clock.time():
            raise unauthorized("the token has expired")
        return await self._identities.get(digest, lambda: self._place(token, peer), ask)

    def _place(self, token: str, peer: str) -> tuple[Places, str]:
        """Where a token that is not known waits for its review. Raises ApiError (401)."""
        standing = self._issuer.standing(token)
        if standing is Standing.FORGED:
            raise unauthorized()
        return (self._signed, _subject(token)) if standing is Standing.SIGNED else (self._strangers, peer)

    def _user_offline(self, token: str, digest: bytes) -> Identity:
        kept = self._identities.last(digest)
        if kept is not None and kept.error is not None:
            raise kept.error
        if _expiry(token) <= self._ctx.clock.time():
            raise unauthorized("the token has expired")
        if kept is None and self._issuer.standing(token) is Standing.FORGED:
            raise unauthorized()
        if not self._was_in_time(kept) or kept is None or kept.value is None:
            raise unavailable(f"node {self._ctx.node_name} is offline: tokens cannot be reviewed", None)
        return kept.value

    def _was_in_time(self, kept: Kept[Any] | None) -> bool:
        """Whether an answer was given so shortly before the link was lost that it holds on."""
        if kept is None or not self._offline_s:
            return False
        return self._link.lost_at - kept.at <= self._offline_s

    # -- what they may do ----------------------------------------------------------------------------------------

    async def _decide(self, token: str, peer: str, user: Identity, wanted: Attributes) -> None:
        """Raises ApiError."""
        key = _key(token, wanted)
        if self._link.connected:

            async def ask() -> Verdict:
                if self._link.phase is Phase.KUBEEDGE:
                    return await self._kubeedge.may(token, wanted)
                access = self._ctx.services.find(Access)  # type: ignore[type-abstract]
                if access is None:
                    raise unavailable("nobody decides on requests on this node")
                return await access.decide(user, wanted)

            # KubeEdge's cloud has reviewed nobody: by their own word anybody may be who they like.
            is_known = self._link.phase is not Phase.KUBEEDGE
            place = (self._deciding, user.name) if is_known else (self._strangers, peer)
            verdict = await self._verdicts.get(key, lambda: place, ask)
        else:
            verdict = await self._decide_offline(key, user, wanted)
        if not verdict.allowed:
            raise _forbidden(user, wanted, verdict.reason)

    async def _decide_offline(self, key: Hashable, user: Identity, wanted: Attributes) -> Verdict:
        """Raises ApiError."""
        access = self._ctx.services.find(Access)  # type: ignore[type-abstract]
        here = await access.decide_here(user, wanted) if access is not None else None
        if here is not None:
            return here
        kept = self._verdicts.last(key)
        if kept is None or kept.value is None or not self._was_in_time(kept):
            text = f"node {self._ctx.node_name} is offline: it cannot be decided whether this is allowed"
            raise unavailable(text, None)
        return kept.value


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _key(token: str, wanted: Attributes) -> bytes:
    """Under which a decision is kept: of one size, whatever names a client thinks of."""
    return hashlib.sha256(_digest(token) + repr(wanted).encode("utf-8", "backslashreplace")).digest()


def _only_name(fields: str) -> str:
    """The name of the one object that a field selector lets through, which may be allowed alone; "" else."""
    try:
        return (parse_fields(fields).exact("metadata.name") or "") if fields else ""
    except InvalidSelector:
        return ""


def _claims(token: str) -> dict[str, Any]:
    """What a JSON Web Token says, not verified; nothing for one of another form."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _subject(token: str) -> str:
    subject = _claims(token).get("sub")
    return subject if isinstance(subject, str) else ""


def _expiry(token: str) -> float:
    """When a token ends by its own words, in seconds since the epoch; infinity for one that does not say."""
    expiry = _claims(token).get("exp")
    if isinstance(expiry, bool) or not isinstance(expiry, int | float) or expiry > _LATEST:
        return float("inf")
    return float(expiry)


def _forbidden(user: Identity, wanted: Attributes, reason: str) -> ApiError:
    """Worded as an API server does."""
    if not wanted.is_resource:
        text = f'forbidden: User "{user.name}" cannot {wanted.verb} path "{wanted.path}"'
        return ApiError(403, "Forbidden", text + (f": {reason}" if reason else ""))
    resource = f"{wanted.resource}/{wanted.subresource}" if wanted.subresource else wanted.resource
    where = f' in the namespace "{wanted.namespace}"' if wanted.namespace else " at the cluster scope"
    text = f'User "{user.name}" cannot {wanted.verb} resource "{resource}" in API group "{wanted.group}"{where}'
    what = f"{wanted.resource}.{wanted.group}" if wanted.group else wanted.resource
    head = f'{what} "{wanted.name}"' if wanted.name else what
    details = {"name": wanted.name, "group": wanted.group, "kind": wanted.resource}
    text = f"{head} is forbidden: {text}" + (f": {reason}" if reason else "")
    return ApiError(403, "Forbidden", text, {name: value for name, value in details.items() if value})
