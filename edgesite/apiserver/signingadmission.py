"""Certificate requests: who may approve and sign for which signer, and that nobody asks to be an administrator.

Errors  ApiError Forbidden.
State   None.
Source  Kubernetes: admission plugins CertificateApproval, CertificateSigning and CertificateSubjectRestriction (verbs ``approve`` and ``sign``
        on ``signers``, wildcard by domain; texts).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from edgesite.apiserver.authn import User
from edgesite.kube import errors
from edgesite.kube.rbac import Attributes
from edgesite.net import pem

if TYPE_CHECKING:
    from edgesite.hookspecs import AdmissionRequest
    from edgesite.kube.resources import Resource

__all__ = ["SigningGuard"]

Object = dict[str, Any]
GROUP: Final = "certificates.k8s.io"
CLIENT_SIGNER: Final = "kubernetes.io/kube-apiserver-client"
MASTERS: Final = "system:masters"
_VERBS: Final = {"approval": "approve", "status": "sign"}


class SigningGuard:
    """Looks at writes of CertificateSigningRequests. ``allowed`` is the server's authorisation."""

    name = "CertificateGuard"
    mutating = False

    def __init__(self, allowed: Callable[[User, Attributes], tuple[bool, str]]) -> None:
        self._allowed = allowed

    def wants(self, resource: Resource, operation: str, subresource: str) -> bool:
        if resource.group != GROUP or resource.plural != "certificatesigningrequests":
            return False
        return subresource in _VERBS if operation == "UPDATE" else operation == "CREATE" and not subresource

    def admit(self, request: AdmissionRequest) -> None:
        """Raises ApiError (Forbidden)."""
        obj = request.object or {}
        signer = str((obj.get("spec") or {}).get("signerName") or "")
        if request.operation == "CREATE":
            if signer == CLIENT_SIGNER and MASTERS in _organizations(obj):
                why = f"use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed"
                raise errors.forbidden(request.resource.plural, request.name, why, GROUP)
            return
        verb = _VERBS[request.subresource]
        if _says_the_same(obj, request.old_object or {}) or MASTERS in request.groups:
            return
        user = User(request.user, request.groups)
        for name in (signer, f"{signer.partition('/')[0]}/*"):
            wanted = Attributes(verb, group=GROUP, version="*", resource="signers", name=name)
            if self._allowed(user, wanted)[0]:
                return
        why = f'user not permitted to {verb} requests with signerName "{signer}"'
        raise errors.forbidden(request.resource.plural, request.name, why, GROUP)


def _says_the_same(new: Object, old: Object) -> bool:
    """Whether neither the certificate nor what was decided changes."""
    after, before = new.get("status") or {}, old.get("status") or {}
    return all(after.get(field) == before.get(field) for field in ("certificate", "conditions"))


def _organizations(request: Object) -> list[str]:
    """What the request asks to belong to; a request that cannot be read asks for nothing."""
    try:
        asked = base64.b64decode((request.get("spec") or {}).get("request") or "", validate=True)
        return [value for key, value in pem.csr_subject(asked) if key == "O"]
    except (ValueError, binascii.Error):
        return []
