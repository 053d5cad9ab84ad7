"""Signatures of service account tokens, checked on this node by the public keys of the cluster's issuer.

Anybody can make up tokens, and each review costs a question to the cloud. What names one of the issuer's keys and was not signed by it is forged, and
refused here; what was signed by it is worth a question. Of all else this node cannot tell: tokens of other issuers and of other forms are
as good as what the cloud says of them.

    FORGED      refused without a question
    SIGNED      asked about, beside whatever strangers ask
    UNKNOWN     a stranger's: no token of this issuer, or a key that is not known here (yet)

A good signature lets nobody in: whether a token is meant for here, and still good, is the cloud's to say.

Units   Seconds.
Errors  None leave but cancellation: without keys every token is UNKNOWN.
State   The keys, asked of the cloud at each link, each hour, and when a token names another one.
Source  RFC 7517 (JWK sets), RFC 7515; Kubernetes "Configure Service Accounts for Pods" (service account issuer discovery).
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.edge.metaserver.cloudlink import CloudLink, Phase
from edgesite.kube import json, jwt
from edgesite.kube.errors import ApiError

if TYPE_CHECKING:
    from edgesite.context import Context
    from edgesite.edge.metaserver.upstream import Upstream
    from edgesite.net.rsa import PublicKey

__all__ = ["JWKS", "IssuerKeys", "Standing"]

JWKS: Final = "/openid/v1/jwks"
AGAIN_S: Final = 3600.0
RETRY_S: Final = 60.0
NOT_BEFORE_S: Final = 10.0  #: after keys were asked for they are not asked for again, whatever tokens name
KEYS: Final = 64
_ALGORITHM: Final = "RS256"


class Standing(Enum):
    FORGED = "forged"
    SIGNED = "signed"
    UNKNOWN = "unknown"


class IssuerKeys:
    """`run` keeps the keys fresh; `standing` uses them."""

    def __init__(self, ctx: Context, link: CloudLink, upstream: Upstream) -> None:
        self._ctx = ctx
        self._link = link
        self._upstream = upstream
        self._keys: dict[str, PublicKey] = {}
        self._missed = anyio.Event()  # a token names a key that is not here

    def standing(self, token: str) -> Standing:
        """What can be said of a bearer token here; takes some 0.1 ms where a signature is looked at."""
        if not self._keys:
            return Standing.UNKNOWN
        try:
            parsed = jwt.parse(token)
        except jwt.InvalidToken:
            return Standing.UNKNOWN
        kid = parsed.header.get("kid")
        if parsed.header.get("alg") != _ALGORITHM or not isinstance(kid, str):
            return Standing.UNKNOWN
        key = self._keys.get(kid)
        if key is None:
            self._missed.set()
            return Standing.UNKNOWN
        return Standing.SIGNED if key.verifies(parsed.signed, parsed.signature) else Standing.FORGED

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            phase = await self._link.wait_connected()
            again_s = AGAIN_S if phase is not Phase.OWN or await self._fetch() else RETRY_S
            with anyio.move_on_after(again_s * (0.8 + 0.4 * self._ctx.random.random())):
                await self._until_due(phase)

    async def _until_due(self, phase: Phase) -> None:
        """Until there is another link, or a key is missing."""
        self._missed = anyio.Event()
        async with anyio.create_task_group() as tasks:

            async def watch_link() -> None:
                while self._link.phase is phase and self._link.connected:
                    await self._link.wait_change()
                tasks.cancel_scope.cancel()

            tasks.start_soon(watch_link)
            await self._ctx.clock.sleep(NOT_BEFORE_S * (1 + self._ctx.random.random()))
            await self._missed.wait()
            tasks.cancel_scope.cancel()

    async def _fetch(self) -> bool:
        """Returns whether there was an answer."""
        try:
            status, _, body = await self._upstream.request(None, "GET", JWKS, "application/json", "")
        except ApiError as exc:
            self._ctx.log.debug("the keys of the issuer are not on hand: %s", exc)
            return False
        if status != 200:
            self._ctx.log.info(
                "the API does not give the keys of its issuer (%d): the cloud is asked of each token", status
            )
            return status < 500
        try:
            self._keys = _keys_in(json.loads(body))
        except json.InvalidJson as exc:
            self._ctx.log.warning("the keys of the issuer cannot be read: %s", exc)
        return True


def _keys_in(found: Any) -> dict[str, PublicKey]:
    """RSA keys by their ids; of others the cloud has to be asked."""
    from edgesite.net.rsa import InvalidKey, PublicKey  # where tokens are needed alone

    keys: dict[str, PublicKey] = {}
    listed = found.get("keys") if isinstance(found, dict) else None
    for one in listed[:KEYS] if isinstance(listed, list) else ():
        if isinstance(one, dict) and isinstance(one.get("kid"), str) and one.get("alg", _ALGORITHM) == _ALGORITHM:
            try:
                keys[one["kid"]] = PublicKey.of_jwk(one)
            except InvalidKey:
                continue
    return keys
