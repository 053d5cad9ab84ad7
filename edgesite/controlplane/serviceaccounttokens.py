"""Secrets of type kubernetes.io/service-account-token: filled with a token without end, and removed with their account.

Errors  ApiError from the API, and OSError where nothing can sign, go to the work queue, which retries.
State   The root certificate, read at start from the role's data folder.
Source  Kubernetes: "Managing Service Accounts" (token controller; annotations, keys of the Secret).
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

from edgesite.apiserver.accounttokens import AccountTokens
from edgesite.client import Controller, ObjectKey, Result, key_of
from edgesite.controlplane.cluster import Cluster, ControlPlaneModule
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import SECRETS, SERVICE_ACCOUNTS

__all__ = ["TokenSecretModule"]

Object = dict[str, Any]
TYPE: Final = "kubernetes.io/service-account-token"
NAME: Final = "kubernetes.io/service-account.name"
UID: Final = "kubernetes.io/service-account.uid"


class TokenSecretModule(ControlPlaneModule):
    """Serves those who still want a token in a Secret."""

    name = "serviceaccount-token"
    component = "tokens-controller"

    async def control(self, cluster: Cluster, ready: Callable[[], None]) -> None:
        await _Controller(cluster, cluster.ctx.services.get(AccountTokens)).run(ready)


class _Controller:
    """Reconciles one Secret at a time."""

    def __init__(self, cluster: Cluster, tokens: AccountTokens) -> None:
        ctx = cluster.ctx
        self._client, self._tokens = cluster.client, tokens
        self._secrets = cluster.informers.of(SECRETS, field_selector=f"type={TYPE}")
        self._accounts = cluster.informers.of(SERVICE_ACCOUNTS)
        self._controller = Controller(
            "serviceaccount-token", self.reconcile, ctx.clock, ctx.random, workers=1, log=ctx.log
        )
        ca = ctx.data_dir / "pki" / "ca.crt"
        self._root = ca.read_bytes() if ca.exists() else b""

    async def run(self, ready: Callable[[], None]) -> None:
        with ExitStack() as handlers:
            handlers.enter_context(self._secrets.on_change(lambda one: self._controller.queue.add(key_of(one))))
            handlers.enter_context(self._accounts.add_handler(added=self._look, deleted=self._look))
            await self._controller.run((self._secrets, self._accounts), ready=ready)

    def _look(self, account: Object) -> None:
        metadata = account["metadata"]
        for secret in self._secrets.list(metadata["namespace"]):
            if _account_of(secret) == metadata["name"]:
                self._controller.queue.add(key_of(secret))

    async def reconcile(self, key: ObjectKey) -> Result | None:
        """Fill the Secret, or remove it. Raises ApiError, OSError."""
        secret = self._secrets.by_key(key)
        if secret is None or secret["metadata"].get("deletionTimestamp"):
            return None
        account = await self._account(key.namespace, _account_of(secret))
        uid = (secret["metadata"].get("annotations") or {}).get(UID)
        if account is None or (uid and uid != account["metadata"]["uid"]):
            await self._remove(secret)
            return None
        wanted = await self._filled(secret, account)
        if wanted != secret:
            await self._client.update(SECRETS, wanted)
        return None

    async def _account(self, namespace: str, name: str) -> Object | None:
        """The cache may be behind: a missing account is looked for where it would be. Raises ApiError."""
        if not name:
            return None
        found = self._accounts.get(name, namespace)
        if found is not None:
            return found
        try:
            return await self._client.get(SERVICE_ACCOUNTS, name, namespace)
        except ApiError as exc:
            if exc.code != 404:
                raise
            return None

    async def _remove(self, secret: Object) -> None:
        metadata = secret["metadata"]
        try:
            await self._client.delete(SECRETS, metadata["name"], metadata["namespace"], uid=metadata["uid"])
        except ApiError as exc:
            if exc.code not in (404, 409):
                raise

    async def _filled(self, secret: Object, account: Object) -> Object:
        """Raises OSError."""
        wanted = copy.deepcopy(secret)
        metadata = wanted["metadata"]
        metadata.setdefault("annotations", {})[UID] = account["metadata"]["uid"]
        data = wanted["data"] = dict(wanted.get("data") or {})
        if self._root:
            data["ca.crt"] = _text(self._root)
        data["namespace"] = _text(metadata["namespace"].encode())
        if not data.get("token"):
            token = await self._tokens.issue_for_secret(account, metadata["name"])
            data["token"] = _text(token.encode())
        return wanted


def _account_of(secret: Object) -> str:
    return str((secret["metadata"].get("annotations") or {}).get(NAME) or "")


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
