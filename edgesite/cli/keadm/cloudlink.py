"""keadm's talk with the cloud before a node joins: the CA by the token's hash, whether the name is free, the first certificate.

Errors  KeadmError in words that say what to do.
Source  KubeEdge v1.12.7, edge/pkg/edgehub/certificate (messages); v1.20, keadm join (/node/NAME).
"""

from __future__ import annotations

import base64
import json
import random
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio

from edgesite.cli.keadm.failure import KeadmError

if TYPE_CHECKING:
    from edgesite.net.client import Answer

__all__ = ["Cloud", "Token", "get_certificate", "look_at_cloud", "parse_token"]

T = TypeVar("T")
_DEADLINE_S: Final = 20.0
_SKEW_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Token:
    ca_hash: str
    jwt: str
    expires_at: float  #: Unix time
    node: str  #: the only node that it is for, or ""


@dataclass(frozen=True, slots=True)
class Cloud:
    """What the cloud said."""

    ca: bytes  #: PEM
    node_exists: bool
    skew_s: float  #: how far our clock is ahead of the cloud's


def parse_token(text: str) -> Token:
    """Read a token without checking its signature, which only the cloud can. Raises KeadmError."""
    parts = text.strip().split(".")
    try:
        ca_hash, _, payload, _ = parts
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        expires = float(claims["exp"])
        if len(bytes.fromhex(ca_hash)) != 32:
            raise ValueError("no SHA-256")
    except (ValueError, TypeError, KeyError):
        raise KeadmError(
            "token credentials are in the wrong format: give what `keadm gettoken` prints on the cloud side"
        ) from None
    node = claims.get("node", "")
    return Token(ca_hash, ".".join(parts[1:]), expires, node if isinstance(node, str) else "")


def look_at_cloud(server: str, token: Token, node: str) -> Cloud:
    """Ask ``server`` (https://host:port) without sending the token. Raises KeadmError."""
    return _run(_look, server, token, node)


def get_certificate(node: str, hub: Mapping[str, Any]) -> None:
    """Get the node's certificate into the files of ``modules.edgeHub``. Raises KeadmError."""
    _run(_get_certificate, node, hub)


def _run(function: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
    return anyio.run(function, *arguments)


async def _look(server: str, token: Token, node: str) -> Cloud:
    from edgesite.net import pem
    from edgesite.net.tls import client_context

    answer = await _get(server, "/ca.crt", client_context(verify=False))
    if answer.status != 200:
        raise KeadmError(f"failed to get CA certificate, err: {server}/ca.crt answered {answer.status}")
    found = pem.fingerprint(answer.body)
    if found != token.ca_hash:
        raise KeadmError(
            f"failed to validate CA certificate. tokenCAhash: {token.ca_hash}, CAhash: {found}: the token is of another cloud, or of an"
            " older CA of this one"
        )
    ca = pem.from_der(answer.body)
    known = await _get(server, f"/node/{node}", client_context(ca=ca))
    return Cloud(ca, known.status == 200, _skew_s(answer))


async def _get(server: str, path: str, tls: Any) -> Answer:
    from urllib.parse import urlsplit

    from edgesite.net.client import HttpClient
    from edgesite.net.errors import NetError
    from edgesite.net.real import RealNet

    address = urlsplit(server).netloc
    try:
        with anyio.fail_after(_DEADLINE_S):
            async with HttpClient(RealNet(), address, tls=tls) as client:
                return await client.request("GET", path, {}, b"")
    except (OSError, NetError) as exc:
        raise KeadmError(
            f'failed to get CA certificate, err: Get "{server}{path}": {exc or "no answer in time"}'
        ) from None


def _skew_s(answer: Answer) -> float:
    try:
        there = parsedate_to_datetime(answer.headers.get("date") or "").timestamp()
    except (ValueError, TypeError):
        return 0.0
    skew = time.time() - there
    return skew if abs(skew) > _SKEW_S else 0.0


async def _get_certificate(node: str, hub: Mapping[str, Any]) -> None:
    from edgesite.context import Section
    from edgesite.edge.edgehub.certificates import Certificates, JoinError
    from edgesite.net.pki import RealPki
    from edgesite.net.real import RealClock, RealNet
    from edgesite.net.threads import RealThreads

    clock, threads = RealClock(), RealThreads()
    try:
        certificates = Certificates(node, Section(hub), RealNet(), threads, clock, RealPki(clock), random.Random())
        await certificates.ensure()
    except JoinError as exc:
        raise KeadmError(f"failed to get edge certificate from the cloudcore, error: {exc}") from None
    finally:
        await threads.close()
