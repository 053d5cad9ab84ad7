"""The certificate controllers as a module: nodes' own requests are approved; what is approved is signed; old requests go.

A request of somebody else waits for an administrator (``kubectl certificate approve``). KubeEdge leaves serving certificates to
administrators altogether, as kube-controller-manager does; here the node's identity has been proven to the hub.

Units   Seconds, days.
Errors  ApiError from the API goes to the work queue, which retries. A request that cannot be signed gets the condition Failed.
State   None: the CA is read from the role's data folder when something is to be signed.
Source  kube-controller-manager: csrsigning, csrapproving, csrcleaner (conditions, reasons, lifetimes).
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from edgesite.client import Controller, ObjectKey, Result, key_of
from edgesite.controlplane.certificates.policy import SIGNERS, BadRequest, check, is_own, names_of
from edgesite.controlplane.cluster import Cluster, ControlPlaneModule
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import BUILTIN, NODES
from edgesite.kube.times import InvalidTime, format_time, parse_time
from edgesite.net.pki import KeyPair, Pki, PkiError, RealPki

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CertificateController", "CertificatesModule"]

Object = dict[str, Any]
_REQUESTS: Final = next(one for one in BUILTIN if one.plural == "certificatesigningrequests")
_DAYS: Final = 365
_DAY_S: Final = 86400
_JUDGED_KEPT_S: Final = 3600.0
_PENDING_KEPT_S: Final = 24 * 3600.0


class CertificatesModule(ControlPlaneModule):
    """Signs certificates of nodes."""

    name = "certificates"
    component = "certificate-controller"

    async def control(self, cluster: Cluster, ready: Callable[[], None]) -> None:
        await CertificateController(cluster).run(ready)


class CertificateController:
    """Reconciles one request at a time."""

    def __init__(self, cluster: Cluster) -> None:
        ctx = cluster.ctx
        self._ctx = ctx
        self._client = cluster.client
        self._requests = cluster.informers.of(_REQUESTS)
        self._nodes = cluster.informers.of(NODES)
        self._pki: Pki = ctx.services.find(Pki) or RealPki(ctx.clock)  # type: ignore[type-abstract]
        self._controller = Controller("certificates", self.reconcile, ctx.clock, ctx.random, workers=1, log=ctx.log)

    async def run(self, ready: Callable[[], None]) -> None:
        """Control until cancelled."""
        with self._requests.on_change(lambda one: self._controller.queue.add(key_of(one))):
            await self._controller.run((self._requests, self._nodes), ready=ready)

    async def reconcile(self, key: ObjectKey) -> Result | None:
        """Judge, sign or remove a request. Raises ApiError."""
        request = self._requests.by_key(key)
        if request is None:
            return None
        status = request.get("status") or {}
        conditions = {one["type"]: one for one in status.get("conditions") or ()}
        if (left_s := self._left_s(request, judged=bool(conditions))) <= 0:
            await self._remove(key.name)
            return None
        if request["spec"].get("signerName") in SIGNERS and not status.get("certificate"):
            if not conditions:
                await self._approve(request)
            elif "Approved" in conditions and "Denied" not in conditions and "Failed" not in conditions:
                await self._sign(request)
        return Result(requeue_after_s=left_s + 1.0)

    async def _approve(self, request: Object) -> None:
        """Approve what a node asks for itself. Raises ApiError."""
        try:
            _, _, node = check(request)
        except BadRequest:
            return  # an administrator may look at it
        if is_own(request, node) and self._nodes.get(node) is not None:
            message = "This node has asked for a certificate of its own."
            await self._add_condition(request, "Approved", "AutoApproved", message, "approval")

    async def _sign(self, request: Object) -> None:
        """Raises ApiError, OSError."""
        name = request["metadata"]["name"]
        try:
            signer, asked, node_name = check(request)
            node = self._nodes.get(node_name) if node_name else None
            if signer.for_nodes and node is None:
                raise BadRequest(f"there is no node {node_name}")
            days = min(_DAYS, max(1, int(request["spec"].get("expirationSeconds") or _DAYS * _DAY_S) // _DAY_S))
            ca = await self._ctx.threads.run(_read_ca, self._ctx.data_dir / "pki")
            names = names_of(node) if signer.takes_names and node is not None else []
            signed = await self._pki.sign_csr(ca, asked, usages=signer.usages, days=days, allowed_names=names)
        except (BadRequest, PkiError) as exc:
            await self._add_condition(request, "Failed", "SignerValidationFailure", str(exc), "status")
            return
        patch = {"status": {"certificate": base64.b64encode(signed).decode()}}
        await self._client.patch(_REQUESTS, name, patch, subresource="status")
        self._ctx.log.info("signed a certificate: request=%s node=%s", name, node_name)

    async def _add_condition(self, request: Object, kind: str, reason: str, message: str, subresource: str) -> None:
        """Raises ApiError."""
        now = format_time(self._ctx.clock.time())
        condition = {"type": kind, "status": "True", "reason": reason, "message": message}
        condition |= {"lastUpdateTime": now, "lastTransitionTime": now}
        status = request.get("status") or {}
        conditions = [*(status.get("conditions") or ()), condition]
        await self._client.update(
            _REQUESTS, {**request, "status": {**status, "conditions": conditions}}, subresource=subresource
        )

    async def _remove(self, name: str) -> None:
        try:
            await self._client.delete(_REQUESTS, name)
        except ApiError as exc:
            if exc.reason != "NotFound":
                raise

    def _left_s(self, request: Object, *, judged: bool) -> float:
        """Seconds until a request may go."""
        try:
            made = parse_time(str(request["metadata"].get("creationTimestamp") or ""))
        except InvalidTime:
            return _JUDGED_KEPT_S
        return made + (_JUDGED_KEPT_S if judged else _PENDING_KEPT_S) - self._ctx.clock.time()


def _read_ca(folder: Path) -> KeyPair:
    """Raises OSError."""
    return KeyPair((folder / "ca.crt").read_bytes(), (folder / "ca.key").read_bytes())
