"""`TokenReviewer` and `Access`: how modules of the edge learn who a bearer token speaks for and what that user may do.

Provided by module ``access``. The cloud decides; nothing is remembered here, so whoever asks often keeps answers for a while.
`Access.decide_here` needs no cloud: it goes by the ServiceAccountAccess objects (policy.kubeedge.io) that the cloud has sent to this
node, and knows of the service accounts of its pods alone.

A review goes up as ``<namespace>/tokenreview`` or ``<namespace>/subjectaccessreview``, operation query; clouds that do not know
these resources do not answer, which is ServiceUnavailable here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from edgesite.kube.rbac import Attributes, Verdict

__all__ = ["Access", "Identity", "TokenReviewer"]


@dataclass(frozen=True, slots=True)
class Identity:
    """A user, as authentication.k8s.io UserInfo has it."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, Sequence[str]] = field(default_factory=dict)
    audiences: tuple[str, ...] = ()  #: of those asked for, the ones that the token is meant for

    @classmethod
    def of(cls, info: Mapping[str, Any], audiences: Sequence[str] = ()) -> Identity:
        """Read a UserInfo."""
        extra = {str(key): tuple(values or ()) for key, values in (info.get("extra") or {}).items()}
        groups = tuple(info.get("groups") or ())
        return cls(str(info.get("username") or ""), groups, str(info.get("uid") or ""), extra, tuple(audiences))


class TokenReviewer(Protocol):
    async def review(self, token: str, audiences: Sequence[str] = ()) -> Identity:
        """Return whom a bearer token speaks for; no ``audiences``: those of the cluster's API.

        Raises ApiError: Unauthorized (401) for a token that is forged, expired, revoked or meant for others; ServiceUnavailable
        (503) when the cloud cannot be asked now.
        """
        ...


class Access(Protocol):
    async def decide(self, user: Identity, wanted: Attributes) -> Verdict:
        """Whether the cluster allows it (SubjectAccessReview). Raises ApiError (503) when the cloud cannot be asked now."""
        ...

    async def decide_here(self, user: Identity, wanted: Attributes) -> Verdict | None:
        """The same by what is stored here; None: nothing is stored of this user, or of another account of the same name."""
        ...
