"""The service account controller as a module: each namespace has its ``default`` account and the site's root certificate.

Errors  ApiError from the API goes to the work queue, which retries.
State   The root certificate, read at start from the role's data folder.
Source  kube-controller-manager: serviceaccount and root-ca-certificate-publisher controllers (names, keys, annotation).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

from edgesite.client import Controller, ObjectKey, Result, key_of
from edgesite.controlplane.cluster import Cluster, ControlPlaneModule
from edgesite.controlplane.podcontrol import namespace_is_ending
from edgesite.controlplane.pods import is_terminating
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import CONFIG_MAPS, NAMESPACES, SERVICE_ACCOUNTS, Resource

__all__ = ["ServiceAccountController", "ServiceAccountModule"]

ACCOUNT: Final = "default"
ROOT_CA: Final = "kube-root-ca.crt"
DESCRIPTION: Final = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service "
    "IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."
)
Object = dict[str, Any]


class ServiceAccountModule(ControlPlaneModule):
    """Prepares namespaces for pods."""

    name = "serviceaccount"
    component = "service-account-controller"

    async def control(self, cluster: Cluster, ready: Callable[[], None]) -> None:
        await ServiceAccountController(cluster).run(ready)


class ServiceAccountController:
    """Reconciles one namespace at a time."""

    def __init__(self, cluster: Cluster) -> None:
        ctx = cluster.ctx
        self._client = cluster.client
        self._namespaces = cluster.informers.of(NAMESPACES)
        self._accounts = cluster.informers.of(SERVICE_ACCOUNTS)
        self._roots = cluster.informers.of(CONFIG_MAPS, field_selector=f"metadata.name={ROOT_CA}")
        self._controller = Controller("serviceaccount", self.reconcile, ctx.clock, ctx.random, workers=2, log=ctx.log)
        ca = ctx.data_dir / "pki" / "ca.crt"
        self._root = ca.read_text("ascii") if ca.exists() else ""

    async def run(self, ready: Callable[[], None]) -> None:
        """Control until cancelled."""
        with ExitStack() as handlers:
            handlers.enter_context(self._namespaces.on_change(lambda one: self._controller.queue.add(key_of(one))))
            handlers.enter_context(self._accounts.add_handler(deleted=self._content_changed))
            handlers.enter_context(
                self._roots.add_handler(
                    updated=lambda old, new: self._content_changed(new), deleted=self._content_changed
                )
            )
            await self._controller.run((self._namespaces, self._accounts, self._roots), ready=ready)

    def _content_changed(self, obj: Object) -> None:
        if obj["metadata"]["name"] in (ACCOUNT, ROOT_CA):
            self._controller.queue.add(ObjectKey("", obj["metadata"]["namespace"]))

    async def reconcile(self, key: ObjectKey) -> Result | None:
        """Make the account and the certificate. Raises ApiError."""
        namespace = self._namespaces.by_key(key)
        if namespace is None or is_terminating(namespace):
            return None
        meta = {"namespace": key.name}
        if self._accounts.get(ACCOUNT, key.name) is None:
            account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, **meta}}
            await self._create(SERVICE_ACCOUNTS, account)
        if not self._root:
            return None
        data = {"ca.crt": self._root}
        have = self._roots.get(ROOT_CA, key.name)
        if have is None:
            annotations = {"kubernetes.io/description": DESCRIPTION}
            root = {"metadata": {"name": ROOT_CA, **meta, "annotations": annotations}, "data": data}
            await self._create(CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", **root})
        elif have.get("data") != data:
            await self._client.update(CONFIG_MAPS, {**have, "data": data})
        return None

    async def _create(self, resource: Resource, obj: Object) -> None:
        try:
            await self._client.create(resource, obj)
        except ApiError as exc:
            if exc.reason != "AlreadyExists" and not namespace_is_ending(exc) and exc.code != 404:
                raise
