"""May they: the chain of authorizers. The first that allows or denies decides; nobody's opinion is a refusal.

Errors  ApiError Forbidden (403), worded as kube-apiserver words it.
State   None.
Source  Kubernetes authorisation overview.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol

from edgesite.kube import errors
from edgesite.kube.errors import ApiError
from edgesite.kube.rbac import Attributes

if TYPE_CHECKING:
    from edgesite.apiserver.authn import User

__all__ = ["Attributes", "Authorizer", "Decision", "Masters", "PlainPaths", "authorize", "check"]


class Decision(Enum):
    ALLOW = "allow"
    DENY = "deny"
    NO_OPINION = "no opinion"


class Authorizer(Protocol):
    def authorize(self, user: User, wanted: Attributes) -> tuple[Decision, str]:
        """Return the decision and why (for a refusal)."""
        ...


class Masters:
    """The group system:masters may do everything."""

    def authorize(self, user: User, wanted: Attributes) -> tuple[Decision, str]:
        return (Decision.ALLOW, "") if user.is_master else (Decision.NO_OPINION, "")


_HEALTH: Final = ("/healthz", "/livez", "/readyz")


class PlainPaths:
    """What needs no role: health for everybody, metrics for this very host."""

    def authorize(self, user: User, wanted: Attributes) -> tuple[Decision, str]:
        if wanted.is_resource or wanted.verb not in ("get", "head"):
            return Decision.NO_OPINION, ""
        allowed = any(wanted.path == root or wanted.path.startswith(f"{root}/") for root in _HEALTH) or (
            wanted.path == "/metrics" and wanted.loopback
        )
        return (Decision.ALLOW, "") if allowed else (Decision.NO_OPINION, "")


def check(chain: Sequence[Authorizer], user: User, wanted: Attributes) -> tuple[bool, str]:
    """Return whether it is allowed, and the reasons that were given."""
    reasons: list[str] = []
    for one in chain:
        decision, reason = one.authorize(user, wanted)
        if decision is Decision.ALLOW:
            return True, reason
        if reason:
            reasons.append(reason)
        if decision is Decision.DENY:
            break
    return False, "; ".join(reasons)


def authorize(chain: Sequence[Authorizer], user: User, wanted: Attributes) -> None:
    """Raises ApiError (Forbidden)."""
    allowed, reason = check(chain, user, wanted)
    if not allowed:
        raise refusal(user, wanted, reason)


def refusal(user: User, wanted: Attributes, reason: str) -> ApiError:
    if not wanted.is_resource:
        message = f'forbidden: User "{user.name}" cannot {wanted.verb} path "{wanted.path}"'
        return ApiError(403, "Forbidden", f"{message}: {reason}" if reason else message, {})
    what = f"{wanted.resource}/{wanted.subresource}" if wanted.subresource else wanted.resource
    where = f'in the namespace "{wanted.namespace}"' if wanted.namespace else "at the cluster scope"
    why = f'User "{user.name}" cannot {wanted.verb} resource "{what}" in API group "{wanted.group}" {where}'
    return errors.forbidden(wanted.resource, wanted.name, f"{why}: {reason}" if reason else why, wanted.group)
