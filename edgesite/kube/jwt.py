"""JSON Web Tokens in their compact form: taken apart and put together. Signatures are the caller's business.

Errors  InvalidToken for what is no token.
State   None.
Source  RFC 7515 (JWS compact serialization), RFC 7519 (claims).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from edgesite.kube import json

__all__ = ["MOST_BYTES", "InvalidToken", "Parsed", "audiences_of", "make", "parse"]

MOST_BYTES: Final = 16 * 1024  #: no token of an API is longer


class InvalidToken(ValueError):
    """Not a token."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A token taken apart; nothing of it is verified."""

    header: dict[str, Any]
    claims: dict[str, Any]
    signed: bytes  #: what the signature is of
    signature: bytes


def parse(token: str) -> Parsed:
    """Raises InvalidToken."""
    if len(token) > MOST_BYTES:
        raise InvalidToken("the token is too long")
    parts = token.split(".")
    if len(parts) != 3:
        raise InvalidToken("a token has three parts")
    header, claims = (_object(part) for part in parts[:2])
    return Parsed(header, claims, f"{parts[0]}.{parts[1]}".encode(), _decoded(parts[2]))


def _decoded(part: str) -> bytes:
    try:
        raw = part.encode("ascii")
        if b"=" in raw or b"+" in raw or b"/" in raw:
            raise InvalidToken("the token is not in base64url")
        data = base64.b64decode(raw + b"=" * (-len(raw) % 4), b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error) as exc:
        raise InvalidToken("the token is not in base64url") from exc
    if base64.urlsafe_b64encode(data).rstrip(b"=") != raw:
        raise InvalidToken("the token is not in canonical base64url")  # one token, one text
    return data


def _object(part: str) -> dict[str, Any]:
    try:
        value = json.loads(_decoded(part))
    except (json.InvalidJson, RecursionError) as exc:
        raise InvalidToken("a part of the token is not JSON") from exc
    if not isinstance(value, dict):
        raise InvalidToken("a part of the token is no object")
    return value


def make(header: dict[str, Any], claims: dict[str, Any], sign: Callable[[bytes], bytes]) -> str:
    """Put a token together; ``sign`` may raise."""
    signed = b".".join(base64.urlsafe_b64encode(json.dumps(one)).rstrip(b"=") for one in (header, claims))
    return (signed + b"." + base64.urlsafe_b64encode(sign(signed)).rstrip(b"=")).decode("ascii")


def audiences_of(claims: dict[str, Any]) -> list[str]:
    """Whom the token is meant for."""
    value = claims.get("aud")
    if isinstance(value, str):
        return [value]
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
