"""Who asks: the chain of authenticators, and impersonation headers.

Errors  ApiError Unauthorized (401) for credentials that are there and wrong. None at all is the anonymous user.
State   Static tokens are held as digests, so that a lookup tells nothing about their bytes by its timing.
Source  Kubernetes authentication (client certificates: CN is the user, O are groups; static token files; impersonation).
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import unquote

from edgesite.kube import errors, rbac
from edgesite.kube.rbac import Attributes

if TYPE_CHECKING:
    from pathlib import Path

    from edgesite.net.http import Headers, Request

__all__ = [
    "ANONYMOUS",
    "AUTHENTICATED",
    "Authenticator",
    "BearerTokens",
    "ClientCertificates",
    "Impersonation",
    "Reviewed",
    "StaticTokens",
    "TokenChecker",
    "User",
    "authenticate",
    "impersonation",
    "read_token_file",
]


@dataclass(frozen=True, slots=True)
class User:
    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def is_master(self) -> bool:
        return "system:masters" in self.groups

    def info(self) -> dict[str, Any]:
        """As authentication.k8s.io UserInfo."""
        out: dict[str, Any] = {"username": self.name}
        if self.uid:
            out["uid"] = self.uid
        if self.groups:
            out["groups"] = list(self.groups)
        if self.extra:
            out["extra"] = {key: list(values) for key, values in self.extra.items()}
        return out


AUTHENTICATED: Final = "system:authenticated"
ANONYMOUS: Final = User("system:anonymous", ("system:unauthenticated",))


class Authenticator(Protocol):
    def authenticate(self, request: Request) -> User | None:
        """Return the user, or None if this kind of credentials is not there. Raises ApiError if it is there and wrong."""
        ...


@dataclass(frozen=True, slots=True)
class Reviewed:
    """Whose token it is, and which of the audiences asked for it is meant for."""

    user: User
    audiences: tuple[str, ...] = ()


class TokenChecker(Protocol):
    """Knows tokens of one kind."""

    def user_of(self, token: str, audiences: Sequence[str] = ()) -> Reviewed | None:
        """Whose token it is, for one of the audiences (none: the API's); None if it is not of this kind. Raises ValueError
        saying what is wrong with it."""
        ...


class BearerTokens:
    """Tokens in the Authorization header, asked of each checker in turn."""

    def __init__(self, checkers: Sequence[TokenChecker]) -> None:
        self._checkers = checkers

    def authenticate(self, request: Request) -> User | None:
        """Raises ApiError (Unauthorized)."""
        header = request.headers.get("authorization")
        if header is None:
            return None
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer":
            return None
        found, _ = self.review(token.strip())
        return found.user if found is not None else None

    def review(self, token: str, audiences: Sequence[str] = ()) -> tuple[Reviewed | None, str]:
        """Whose token it is, or None and why."""
        reasons = ["invalid bearer token"]
        for one in self._checkers:
            try:
                found = one.user_of(token, audiences)
            except ValueError as exc:
                reasons.append(str(exc))
                continue
            if found is not None:
                return found, ""
        return None, f"[{', '.join(reasons)}]" if len(reasons) > 1 else reasons[0]


class ClientCertificates:
    """TLS client certificates; the chain was verified in the handshake."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, tuple[str, ...]], User] = {}

    def authenticate(self, request: Request) -> User | None:
        key = (request.peer.common_name, request.peer.organizations)
        if not key[0]:
            return None
        user = self._known.get(key)
        if user is None:
            if len(self._known) >= 4096:
                self._known.clear()
            user = self._known[key] = User(key[0], (*key[1], AUTHENTICATED))
        return user


class StaticTokens:
    """Bearer tokens of a token file. They are meant for the API, by whichever of its ``audiences``, and for nobody else."""

    def __init__(self, tokens: Mapping[str, User], audiences: Sequence[str]) -> None:
        self._audiences = frozenset(audiences)
        self._users: dict[bytes, User] = {}
        self.replace(tokens)

    def replace(self, tokens: Mapping[str, User]) -> None:
        """Know these from now on, and no others."""
        self._users = {hashlib.sha256(token.encode()).digest(): user for token, user in tokens.items()}

    def user_of(self, token: str, audiences: Sequence[str] = ()) -> Reviewed | None:
        """Whose token it is, or None. Raises ValueError where it is shown to others."""
        user = self._users.get(hashlib.sha256(token.encode("utf-8", "replace")).digest())
        if user is None:
            return None
        meant = tuple(one for one in audiences if one in self._audiences)
        if audiences and not meant:
            raise ValueError(f"the token is not meant for {list(audiences)}")
        return Reviewed(user, meant)


def read_token_file(path: Path) -> dict[str, User]:
    """Read ``token,user,uid[,"group1,group2"]`` lines. Raises OSError, ValueError with the line's number."""
    found: dict[str, User] = {}
    with path.open(newline="", encoding="utf-8") as lines:
        for number, row in enumerate(csv.reader(lines), 1):
            if not row or not "".join(row).strip():
                continue
            if len(row) < 3 or not row[0]:
                raise ValueError(f"{path}:{number}: a line is token,user,uid and perhaps groups")
            groups = tuple(group.strip() for group in row[3].split(",") if group.strip()) if len(row) > 3 else ()
            found[row[0]] = User(row[1], (*groups, AUTHENTICATED), row[2])
    return found


def authenticate(chain: Iterable[Authenticator], request: Request) -> User:
    """Return the first user that the chain knows, or the anonymous one. Raises ApiError (Unauthorized)."""
    for one in chain:
        user = one.authenticate(request)
        if user is not None:
            return user
    scheme, _, _ = (request.headers.get("authorization") or "").partition(" ")
    if scheme.lower() == "bearer":  # other schemes are nobody's here: who uses one is anonymous, as in Kubernetes
        raise errors.unauthorized()
    return ANONYMOUS


@dataclass(frozen=True, slots=True)
class Impersonation:
    """Another user whom the caller wants to be, and what must be allowed for it."""

    user: User
    needs: tuple[Attributes, ...]


_IMPERSONATE: Final = b"impersonate-"
_EXTRA: Final = "impersonate-extra-"
_AUTHENTICATION: Final = "authentication.k8s.io"


def impersonation(headers: Headers) -> Impersonation | None:
    """Read the Impersonate-* headers. Raises ApiError (BadRequest)."""
    if not any(name[:12].lower() == _IMPERSONATE for name, _ in headers.raw):
        return None
    name = headers.get("impersonate-user")
    groups = headers.get_all("impersonate-group")
    uid = headers.get("impersonate-uid") or ""
    extra = _extra(headers)
    if not name:
        raise errors.bad_request("requested groups, uid or extra without impersonating a user")
    needs = []
    if (account := rbac.split_account(name)) is not None:
        needs.append(_need("", "serviceaccounts", account[1], namespace=account[0]))
    else:
        needs.append(_need("", "users", name))
    needs.extend(_need("", "groups", group) for group in groups)
    needs.extend(
        _need(_AUTHENTICATION, "userextras", value, subresource=key)
        for key, values in extra.items()
        for value in values
    )
    if uid:
        needs.append(_need(_AUTHENTICATION, "uids", uid))
    if account is not None:
        groups = groups or ["system:serviceaccounts", f"system:serviceaccounts:{account[0]}"]
    if name == ANONYMOUS.name:
        groups = groups or list(ANONYMOUS.groups)
    elif AUTHENTICATED not in groups and ANONYMOUS.groups[0] not in groups:
        groups = [*groups, AUTHENTICATED]
    return Impersonation(User(name, tuple(groups), uid, extra), tuple(needs))


def _need(group: str, resource: str, name: str, *, namespace: str = "", subresource: str = "") -> Attributes:
    return Attributes("impersonate", "", group, "v1", resource, subresource, namespace, name)


def _extra(headers: Headers) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in headers:
        if name.startswith(_EXTRA):
            found.setdefault(unquote(name[len(_EXTRA) :]).lower(), []).append(value)
    return found
