"""Service account tokens: made, and checked against the objects that they are bound to.

A token is good while its signature, time and audience are, and while the account, and the pod, Secret or Node that it is bound to,
are the very ones (uid) for which it was made. Deleting any of them revokes it.

Units   Times are Unix seconds.
Errors  Refused, with a reason for logs and reviews. OSError where nothing can sign.
State   Tokens whose signatures were found good, by digest, bounded; what they are bound to is looked at each time.
Source  Kubernetes: "Managing Service Accounts" (bound tokens, claims), TokenRequest (authentication.k8s.io/v1); claims and extra
        keys as kube-apiserver has them; 60 s of grace after a deletion's time.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from edgesite.apiserver.accountkeys import AccountKeys
from edgesite.apiserver.authn import AUTHENTICATED, Reviewed, User
from edgesite.apiserver.metadata import uuid4
from edgesite.kube import json, jwt, rbac, times
from edgesite.kube.resources import NODES, PODS, SECRETS, SERVICE_ACCOUNTS, Resource

if TYPE_CHECKING:
    import random

    from edgesite.apiserver.kinds import Kinds
    from edgesite.context import Clock, Threads
    from edgesite.store.store import Store

__all__ = ["BINDABLE", "AccountTokens", "Bound", "Refused", "TokenSettings"]

Object = dict[str, Any]
DEFAULT_ISSUER: Final = "https://kubernetes.default.svc.cluster.local"
LEGACY_ISSUER: Final = "kubernetes/serviceaccount"
LEGACY: Final = "kubernetes.io/serviceaccount/"
GRACE_S: Final = 60.0  #: tokens outlive the time of a deletion by this
LEEWAY_S: Final = 60.0  #: by which a token may be from the future
KNOWN: Final = 4096
_EXTRA: Final = "authentication.kubernetes.io/"
#: What tokens may be bound to, by kind; in claims under the name in lower case.
BINDABLE: Final = {"Pod": PODS, "Secret": SECRETS, "Node": NODES}


class Refused(ValueError):
    """The token is no good."""


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """``issuers``: the first issues, the others are accepted. ``audiences``: of the API itself; none means the issuers."""

    issuers: tuple[str, ...] = (DEFAULT_ISSUER,)
    audiences: tuple[str, ...] = ()
    most_s: float = 0.0  #: the longest life of a token; 0: no bound but kube's
    extend: bool = True  #: whether the tokens of pods outlive their rotation, for clients that read them once

    @property
    def api_audiences(self) -> tuple[str, ...]:
        return self.audiences or self.issuers


@dataclass(frozen=True, slots=True)
class Bound:
    """An object as a token names it."""

    kind: str  #: Pod, Secret, Node
    name: str
    uid: str


@dataclass(slots=True)
class _Holding:
    """An object that must still be there: at which revision it was last found to be."""

    key: str
    uid: str
    what: str
    revision: int = 0
    ends: float | None = None  #: when its deletion ends the token


@dataclass(slots=True)
class _Known:
    """A token with a good signature."""

    user: User
    audiences: tuple[str, ...]  #: none for tokens of old
    begins: float
    ends: float | None
    holdings: list[_Holding] = field(default_factory=list)
    secret: str = ""  #: key of the Secret that holds the token itself


class AccountTokens:
    """Makes tokens and says whose they are."""

    def __init__(
        self,
        store: Store,
        kinds: Kinds,
        keys: AccountKeys,
        settings: TokenSettings,
        *,
        clock: Clock,
        random: random.Random,
        threads: Threads,
    ) -> None:
        self.settings = settings
        self._store, self._kinds, self._keys = store, kinds, keys
        self._clock, self._random, self._threads = clock, random, threads
        self._known: dict[bytes, _Known] = {}

    # making

    async def issue(
        self, account: Object, audiences: Sequence[str], life_s: float, bound: Iterable[Bound] = (), warn_s: float = 0.0
    ) -> str:
        """Make a token for an account. ``warn_s``: when its use is worth a warning. Raises OSError."""
        now, metadata = int(self._clock.time()), account["metadata"]
        private: Object = {"namespace": metadata["namespace"], "serviceaccount": _reference(metadata)}
        for one in bound:
            private[one.kind.lower()] = {"name": one.name, "uid": one.uid}
        if warn_s:
            private["warnafter"] = now + int(warn_s)
        claims = {
            "aud": list(audiences),
            "exp": now + int(life_s),
            "iat": now,
            "iss": self.settings.issuers[0],
            "jti": uuid4(self._random),
            "kubernetes.io": private,
            "nbf": now,
            "sub": rbac.account_name(metadata["namespace"], metadata["name"]),
        }
        return await self._sign(claims)

    async def issue_for_secret(self, account: Object, secret: str) -> str:
        """Make the token that a Secret of type kubernetes.io/service-account-token holds; it has no end. Raises OSError."""
        metadata = account["metadata"]
        claims = {
            "iss": LEGACY_ISSUER,
            f"{LEGACY}namespace": metadata["namespace"],
            f"{LEGACY}secret.name": secret,
            f"{LEGACY}service-account.name": metadata["name"],
            f"{LEGACY}service-account.uid": metadata["uid"],
            "sub": rbac.account_name(metadata["namespace"], metadata["name"]),
        }
        return await self._sign(claims)

    async def _sign(self, claims: Object) -> str:
        key = self._keys.signing
        if key is None:
            raise OSError("there is no key to sign tokens with")
        header = {"alg": "RS256", "kid": key.public.kid}
        return await self._threads.run(jwt.make, header, claims, key.sign)

    # checking

    def user_of(self, token: str, audiences: Sequence[str] = ()) -> Reviewed | None:
        """Whose token it is, for one of the audiences (none: the API's); None if it is no token of ours. Raises Refused."""
        digest = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        known = self._known.get(digest)
        if known is None:
            known = self._read(token)
            if known is None:
                return None
            while len(self._known) >= KNOWN:
                del self._known[next(iter(self._known))]
            self._known[digest] = known
        meant = self._meant(known, audiences or self.settings.api_audiences)
        self._check(known, token)
        return Reviewed(known.user, meant)

    def _meant(self, known: _Known, wanted: Sequence[str]) -> tuple[str, ...]:
        held = known.audiences or self.settings.api_audiences
        meant = tuple(one for one in wanted if one in held)
        if not meant:
            raise Refused(f"token audiences {list(held)} is invalid for the target audiences {list(wanted)}")
        return meant

    def _read(self, token: str) -> _Known | None:
        """Verify the signature and read the claims. Raises Refused."""
        try:
            parsed = jwt.parse(token)
        except jwt.InvalidToken:
            return None
        claims = parsed.claims
        legacy = claims.get("iss") == LEGACY_ISSUER
        if not legacy and claims.get("iss") not in self.settings.issuers:
            return None
        if parsed.header.get("alg") != "RS256" or not self._is_signed(parsed):
            raise Refused("the signature of the token is not valid")
        try:
            return self._legacy(claims) if legacy else self._bound(claims)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise Refused("the claims of the token are not those of a service account") from None

    def _is_signed(self, parsed: jwt.Parsed) -> bool:
        kid = parsed.header.get("kid")
        named = self._keys.verifying.get(kid) if isinstance(kid, str) else None
        keys = (named,) if named is not None else () if kid else tuple(self._keys.verifying.values())
        return any(key.verifies(parsed.signed, parsed.signature) for key in keys)

    def _bound(self, claims: Object) -> _Known:
        """Raises KeyError, TypeError, ValueError for claims of another form."""
        private = claims["kubernetes.io"]
        namespace, account = _text(private["namespace"]), private["serviceaccount"]
        name, uid = _text(account["name"]), _text(account["uid"])
        if claims["sub"] != rbac.account_name(namespace, name):
            raise ValueError("sub")
        extra = {f"{_EXTRA}credential-id": [f"JTI={_text(claims['jti'])}"]} if claims.get("jti") else {}
        holdings = [self._holding(SERVICE_ACCOUNTS, namespace, name, uid)]
        for kind, row in BINDABLE.items():
            if (reference := private.get(kind.lower())) is None:
                continue
            one, one_uid = _text(reference["name"]), _text(reference["uid"])
            if kind != "Secret":
                extra |= {f"{_EXTRA}{kind.lower()}-name": [one], f"{_EXTRA}{kind.lower()}-uid": [one_uid]}
            if kind != "Node" or "pod" not in private:  # a pod's token goes with the pod
                holdings.append(self._holding(row, namespace if row.namespaced else "", one, one_uid))
        audiences = tuple(jwt.audiences_of(claims))
        if not audiences:
            raise ValueError("aud")
        user = _user(namespace, name, uid, extra)
        return _Known(user, audiences, float(claims.get("nbf", 0)), float(claims["exp"]), holdings)

    def _legacy(self, claims: Object) -> _Known:
        """Raises KeyError, TypeError, ValueError for claims of another form."""
        namespace, name = _text(claims[f"{LEGACY}namespace"]), _text(claims[f"{LEGACY}service-account.name"])
        uid, secret = _text(claims[f"{LEGACY}service-account.uid"]), _text(claims[f"{LEGACY}secret.name"])
        if claims["sub"] != rbac.account_name(namespace, name):
            raise ValueError("sub")
        holdings = [self._holding(SERVICE_ACCOUNTS, namespace, name, uid)]
        key = self._kinds.of(SECRETS).key(namespace, secret)
        return _Known(_user(namespace, name, uid, {}), (), 0.0, None, holdings, key)

    def _holding(self, row: Resource, namespace: str, name: str, uid: str) -> _Holding:
        return _Holding(self._kinds.of(row).key(namespace, name), uid, row.kind)

    def _check(self, known: _Known, token: str) -> None:
        """Look at the time, and at what the token is bound to. Raises Refused."""
        now = self._clock.time()
        if known.ends is not None and now >= known.ends:
            raise Refused("service account token has expired")
        if now < known.begins - LEEWAY_S:
            raise Refused("service account token is not valid yet")
        for one in known.holdings:
            self._check_holding(one, now)
        if known.secret and not self._is_held(known.secret, token):
            raise Refused("token has been invalidated")

    def _check_holding(self, held: _Holding, now: float) -> None:
        row = self._store.latest(held.key)
        if row is None:
            raise Refused(f"the {held.what} that the token is bound to is gone")
        if row.revision != held.revision:
            metadata = json.loads(row.value)["metadata"]
            if metadata.get("uid") != held.uid:
                raise Refused(f"the {held.what} that the token is bound to is another one by now")
            marked = metadata.get("deletionTimestamp")
            held.ends = times.parse_time(marked) + GRACE_S if marked else None
            held.revision = row.revision
        if held.ends is not None and now >= held.ends:
            raise Refused("service account token has been invalidated")

    def _is_held(self, key: str, token: str) -> bool:
        """Whether the Secret is there and holds this very token."""
        row = self._store.latest(key)
        if row is None:
            return False
        secret = json.loads(row.value)
        data = (secret.get("data") or {}).get("token")
        return not secret["metadata"].get("deletionTimestamp") and data == base64.b64encode(token.encode()).decode()


def _reference(metadata: Object) -> Object:
    return {"name": metadata["name"], "uid": metadata["uid"]}


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("not a text")
    return value


def _user(namespace: str, name: str, uid: str, extra: dict[str, list[str]]) -> User:
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
    return User(rbac.account_name(namespace, name), groups, uid, extra)
