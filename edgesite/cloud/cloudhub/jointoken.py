"""Join tokens: what an edge shows to get its first certificate.

    <sha256 hex of the CA's DER> . <JWT header> . <JWT payload> . <JWT signature>

The JWT is signed with HMAC; its key is the CA's private key (SEC 1 DER), its payload the end of its life, and of ours perhaps the one
node that it is for (``node``, which KubeEdge's ends do not look at).

Units   ``now`` is seconds since the Unix epoch.
Source  KubeEdge v1.12.7, cloud/pkg/cloudhub/servers/httpserver (token.go); RFC 7515, RFC 7519.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Final

from edgesite.kube import json

__all__ = ["InvalidToken", "check", "make"]

_DIGESTS: Final = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}
_HEADER: Final = b'{"alg":"HS256","typ":"JWT"}'


class InvalidToken(ValueError):
    """The token is malformed, signed by somebody else, or over."""


def make(ca_der: bytes, ca_key_der: bytes, expires_at: int, node: str = "") -> str:
    """Return a token that is valid until ``expires_at``; with ``node`` for that name alone."""
    claims = {"exp": expires_at, **({"node": node} if node else {})}
    signed = f"{_encode(_HEADER)}.{_encode(json.dumps(claims))}"
    signature = hmac.digest(ca_key_der, signed.encode(), "sha256")
    return f"{hashlib.sha256(ca_der).hexdigest()}.{signed}.{_encode(signature)}"


def check(jwt: str, ca_key_der: bytes, now: float) -> str:
    """Check what a client sent: a token without the CA's hash. Returns the node that it is for, "" for any. Raises InvalidToken."""
    parts = jwt.split(".")
    if len(parts) != 3:
        raise InvalidToken("a token has three parts here")
    try:
        header, payload = (json.loads(_decode(part)) for part in parts[:2])
        signature = _decode(parts[2])
    except (ValueError, binascii.Error) as exc:
        raise InvalidToken(f"malformed: {exc}") from exc
    digest = _DIGESTS.get(str(header.get("alg"))) if isinstance(header, dict) else None
    if digest is None:
        raise InvalidToken("signed by an algorithm that is not accepted")
    expected = hmac.digest(ca_key_der, f"{parts[0]}.{parts[1]}".encode(), digest)
    if not hmac.compare_digest(signature, expected):
        raise InvalidToken("the signature is not ours")
    expires = payload.get("exp") if isinstance(payload, dict) else None
    if not isinstance(expires, int | float) or isinstance(expires, bool) or now >= expires:
        raise InvalidToken("expired")
    node = payload.get("node", "")
    if not isinstance(node, str):
        raise InvalidToken("it is for no node that there could be")
    return node


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), b"-_", validate=True)
