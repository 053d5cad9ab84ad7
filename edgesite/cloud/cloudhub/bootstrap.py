"""The HTTPS server where edges get the CA and their certificates (port 10002).

    GET /ca.crt      the CA's certificate, DER
    GET /edge.crt    body: a certificate request, DER; answer: the certificate, DER
    GET /node/NAME   200 if there is such a Node, 404 if not; keadm asks before it joins a machine      (KubeEdge v1.20)
    POST /nodeupgrade    what became of an upgrade; always 200. It is passed on if the node has shown its certificate

Who asks shows a join token, or the certificate that it has (renewal). A renewal keeps its identity; organizations other than
those of edges are never signed; who may no longer connect gets no renewal either. A token is for any node (but see `rejoin` for
those that have had a certificate), or for the one node that it names. Status codes are KubeEdge v1.12's: a request that cannot be
signed is answered 200 without a body.

Source  KubeEdge v1.12.7, cloud/pkg/cloudhub/servers/httpserver; v1.20 (/node).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from edgesite.cloud.cloudhub import jointoken
from edgesite.cloud.cloudhub.authority import Authority
from edgesite.cloud.cloudhub.identities import LEGACY_NAME, NODE_PREFIX, Identities
from edgesite.cloud.cloudhub.rejoin import Rejoin
from edgesite.kube import json
from edgesite.kube.errors import ApiError
from edgesite.kube.names import dns1123_subdomain_problems
from edgesite.net import pem
from edgesite.net.http import Request, Response
from edgesite.net.pki import CLIENT, PLAUSIBLE, Pki, PkiError

if TYPE_CHECKING:
    from edgesite.context import Clock

__all__ = ["Bootstrap"]

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]
_DER: Final = {"Content-Type": "application/octet-stream"}
_TEXT: Final = {"Content-Type": "text/plain; charset=utf-8"}
_USAGES: Final = {1: "serverAuth", 2: "clientAuth"}  #: Go's numbers
_ORGANIZATIONS: Final = frozenset({"kubeEdge", "KubeEdge", "system:nodes"})
_CSR_BYTES: Final = 1 << 20
_NODE_PATH: Final = "/node/"
_BAD_TOKEN: Final = "Invalid authorization token"


class Bootstrap:
    """An HTTP handler."""

    def __init__(
        self,
        authority: Authority,
        pki: Pki,
        clock: Clock,
        days: int,
        log: Log,
        *,
        identities: Identities,
        rejoin: Rejoin,
        node_exists: Callable[[str], bool | None],
        on_upgrade: Callable[[str, Any], Awaitable[None]],
    ) -> None:
        """``node_exists`` returns None while that is not known; ``on_upgrade`` takes a node and what it reports."""
        self._authority = authority
        self._pki = pki
        self._clock = clock
        self.days = days  #: that certificates are made for
        self._log = log
        self._identities = identities
        self._rejoin = rejoin
        self._node_exists = node_exists
        self._on_upgrade = on_upgrade

    async def __call__(self, request: Request) -> Response:
        is_node = request.path.startswith(_NODE_PATH)
        if not is_node and request.path not in ("/ca.crt", "/edge.crt", "/nodeupgrade"):
            return Response(404, _TEXT, b"404: Page Not Found")
        if request.method != ("POST" if request.path == "/nodeupgrade" else "GET"):
            return Response(405, _TEXT, b"405: Method Not Allowed")
        if is_node:
            return self._tell_node(request.path.removeprefix(_NODE_PATH))
        if request.path == "/nodeupgrade":
            return await self._take_upgrade(request)
        if request.path == "/ca.crt":
            return Response(200, _DER, self._authority.ca_der)
        try:
            return await self._sign(request, self._bound_to(request))
        except _Refused as exc:
            asker = request.peer.common_name or request.headers.get("nodename") or "an unnamed node"
            self._log.warning("no certificate for %s: %s", asker, exc)
            return Response(exc.status, _TEXT, exc.text.encode())

    def _bound_to(self, request: Request) -> str | None:
        """Return the node that a join token is for ("": any), None for who has shown a certificate. Raises _Refused."""
        if request.peer.certificate_der is not None:  # verified by TLS against our CA
            if why := self._identities.refusal(_node_of(request), request.peer):
                raise _Refused(401, why)
            return None
        header = request.headers.get("authorization")
        if not header:
            raise _Refused(401, _BAD_TOKEN, "no token")
        scheme, _, token = header.partition(" ")
        try:
            if scheme != "Bearer":
                raise jointoken.InvalidToken("not a bearer token")
            return jointoken.check(token, self._authority.ca_key_der, self._clock.time())
        except jointoken.InvalidToken as exc:
            raise _Refused(400, _BAD_TOKEN, str(exc)) from exc

    async def _sign(self, request: Request, bound_to: str | None) -> Response:
        """Raises _Refused."""
        node = request.headers.get("nodename") or ""
        if self._clock.time() < PLAUSIBLE:  # it would be over once the clock is set
            raise _Refused(503, "the cloud's clock is not set")
        try:
            if len(request.body) > _CSR_BYTES:
                raise PkiError("the request is too long")
            usages = _usages(request.headers.get("extkeyusages"))
            signed = await self._pki.sign_csr(self._authority.ca, request.body, usages=usages, days=self.days)
            self._check_identity(request, signed)
            named, is_legacy = _named(request, signed)
            if bound_to is not None:
                self._check_node(named, bound_to)
            replaces = bound_to is not None and self._identities.is_taken(named)
            await self._identities.issued(named, signed, is_legacy=is_legacy, replaces=replaces)
        except (PkiError, ApiError, ValueError, OSError) as exc:
            self._log.warning("no certificate for node %r: %s", node, exc)
            return Response(200, _DER, b"")
        self._log.info("issued a certificate for node %r", node)
        if replaces:
            self._rejoin.replaced(named, request.peer.address, pem.facts(signed).serial)
        return Response(200, _DER, pem.to_der(signed))

    def _check_node(self, node: str, bound_to: str) -> None:
        """Whether a token gives a certificate for this node. Raises _Refused, PkiError."""
        if not node:
            raise PkiError("the request does not say for which node")
        if bound_to and bound_to != node:
            raise _Refused(401, f"the token is for node {bound_to} alone")
        if not bound_to and (why := self._rejoin.refusal(node)):
            raise _Refused(401, why)

    def _tell_node(self, node: str) -> Response:
        exists = self._node_exists(node)
        if exists is None:
            return Response(500, _TEXT, b"the nodes are not known yet")
        return Response(200, _TEXT, b"ok") if exists else Response(404, _TEXT, b"no such node")

    async def _take_upgrade(self, request: Request) -> Response:
        try:
            report = json.loads(request.body)
        except json.InvalidJson:
            report = None
        node = report.get("NodeName") if isinstance(report, dict) else None
        if not isinstance(node, str) or request.peer.certificate_der is None:
            self._log.warning("a report of an upgrade that nobody vouches for is left alone: node=%r", node)
        elif why := self._identities.refusal(node, request.peer):
            self._log.warning("a report of an upgrade of node %r is left alone: %s", node, why)
        else:
            await self._on_upgrade(node, report)
        return Response(200, _TEXT, b"ok")

    def _check_identity(self, request: Request, signed: bytes) -> None:
        facts = pem.facts(signed)
        strange = set(facts.organizations) - _ORGANIZATIONS
        if strange:
            raise PkiError(f"organizations {sorted(strange)} are not given to edges")
        name = facts.common_name
        is_node = name.startswith(NODE_PREFIX) and not dns1123_subdomain_problems(name.removeprefix(NODE_PREFIX))
        if not is_node and name != LEGACY_NAME:  # else an edge could pass for a server, the cloud's own say
            raise PkiError(f"{name!r} is no name of an edge")
        if request.peer.certificate_der is not None:
            present = request.peer.common_name
            if present.startswith(NODE_PREFIX) and facts.common_name != present:
                raise PkiError(f"{present} asks for the identity {facts.common_name!r}")


class _Refused(Exception):
    """``text`` is for who asks, ``why`` for the log if it says more."""

    def __init__(self, status: int, text: str, why: str = "") -> None:
        super().__init__(why or text)
        self.status = status
        self.text = text


def _named(request: Request, signed: bytes) -> tuple[str, bool]:
    """The node of a signed certificate, and whether only the request says which."""
    name = pem.facts(signed).common_name
    if name == LEGACY_NAME:
        return _node_of(request), True
    return name.removeprefix(NODE_PREFIX), False


def _node_of(request: Request) -> str:
    """The node that asks: by its certificate, else as it says."""
    name = request.peer.common_name
    return name.removeprefix(NODE_PREFIX) if name.startswith(NODE_PREFIX) else request.headers.get("nodename") or ""


def _usages(header: str | None) -> tuple[str, ...]:
    """Raises ValueError."""
    if not header:
        return CLIENT
    numbers = json.loads(header)
    if not isinstance(numbers, list):
        raise ValueError("ExtKeyUsages is no array")
    return tuple(_USAGES[number] for number in numbers if isinstance(number, int) and number in _USAGES) or CLIENT
