"""The HTTPS server where edges get the CA and their certificates (port 10002).

    GET /ca.crt      the CA's certificate, DER
    GET /edge.crt    body: a certificate request, DER; answer: the certificate, DER

Who asks shows a join token, or the certificate that it has (renewal). A renewal keeps its identity; organizations other than
those of edges are never signed. Status codes are KubeEdge v1.12's: a request that cannot be signed is answered 200 without a body.

Source  KubeEdge v1.12.7, reference/hub-and-metadata.md section 3.3.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from edgesite.cloud.cloudhub import jointoken
from edgesite.cloud.cloudhub.authority import Authority
from edgesite.kube import json
from edgesite.net import pem
from edgesite.net.http import Request, Response
from edgesite.net.pki import CLIENT, Pki, PkiError

if TYPE_CHECKING:
    from edgesite.context import Clock

__all__ = ["Bootstrap"]

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]
_DER: Final = {"Content-Type": "application/octet-stream"}
_TEXT: Final = {"Content-Type": "text/plain; charset=utf-8"}
_USAGES: Final = {1: "serverAuth", 2: "clientAuth"}  #: Go's numbers
_ORGANIZATIONS: Final = frozenset({"kubeEdge", "KubeEdge", "system:nodes"})
_CSR_BYTES: Final = 1 << 20
_NODE: Final = "system:node:"


class Bootstrap:
    """An HTTP handler."""

    def __init__(self, authority: Authority, pki: Pki, clock: Clock, days: int, log: Log) -> None:
        self._authority = authority
        self._pki = pki
        self._clock = clock
        self._days = days
        self._log = log

    async def __call__(self, request: Request) -> Response:
        if request.path not in ("/ca.crt", "/edge.crt"):
            return Response(404, _TEXT, b"404: Page Not Found")
        if request.method != "GET":
            return Response(405, _TEXT, b"405: Method Not Allowed")
        if request.path == "/ca.crt":
            return Response(200, _DER, self._authority.ca_der)
        refusal = self._refusal(request)
        return refusal if refusal is not None else await self._sign(request)

    def _refusal(self, request: Request) -> Response | None:
        """Return what to answer somebody who may not ask, None for who may."""
        if request.peer.certificate_der is not None:
            return None  # verified by TLS against our CA
        header = request.headers.get("authorization")
        refused = b"Invalid authorization token"
        if not header:
            return Response(401, _TEXT, refused)
        scheme, _, token = header.partition(" ")
        try:
            if scheme != "Bearer":
                raise jointoken.InvalidToken("not a bearer token")
            jointoken.check(token, self._authority.ca_key_der, self._clock.time())
        except jointoken.InvalidToken as exc:
            self._log.warning("no certificate for %s: %s", request.headers.get("nodename") or "an unnamed node", exc)
            return Response(400, _TEXT, refused)
        return None

    async def _sign(self, request: Request) -> Response:
        node = request.headers.get("nodename") or ""
        try:
            if len(request.body) > _CSR_BYTES:
                raise PkiError("the request is too long")
            usages = _usages(request.headers.get("extkeyusages"))
            signed = await self._pki.sign_csr(self._authority.ca, request.body, usages=usages, days=self._days)
            self._check_identity(request, signed)
        except (PkiError, ValueError, OSError) as exc:
            self._log.warning("no certificate for node %r: %s", node, exc)
            return Response(200, _DER, b"")
        self._log.info("issued a certificate for node %r", node)
        return Response(200, _DER, pem.to_der(signed))

    def _check_identity(self, request: Request, signed: bytes) -> None:
        facts = pem.facts(signed)
        strange = set(facts.organizations) - _ORGANIZATIONS
        if strange:
            raise PkiError(f"organizations {sorted(strange)} are not given to edges")
        if request.peer.certificate_der is not None:
            present = request.peer.common_name
            if present.startswith(_NODE) and facts.common_name != present:
                raise PkiError(f"{present} asks for the identity {facts.common_name!r}")


def _usages(header: str | None) -> tuple[str, ...]:
    """Raises ValueError."""
    if not header:
        return CLIENT
    numbers = json.loads(header)
    if not isinstance(numbers, list):
        raise ValueError("ExtKeyUsages is no array")
    return tuple(_USAGES[number] for number in numbers if isinstance(number, int) and number in _USAGES) or CLIENT
