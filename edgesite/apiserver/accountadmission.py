"""The ServiceAccount admission plugin: every pod runs as an account of its namespace, and finds that account's token in a volume.

Errors  ApiError Forbidden.
State   None; looks into the store.
Source  Kubernetes: "Managing Service Accounts" (ServiceAccount admission controller), "Configure Service Accounts for Pods"; name,
        path, mode and content of the volume as kube-apiserver makes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from edgesite.apiserver.tokenrequests import POD_S
from edgesite.kube import errors, json, names
from edgesite.kube.resources import SERVICE_ACCOUNTS, Resource

if TYPE_CHECKING:
    import random

    from edgesite.apiserver.kinds import Kinds
    from edgesite.hookspecs import AdmissionRequest
    from edgesite.store.store import Store

__all__ = ["MOUNT_PATH", "ServiceAccounts"]

Object = dict[str, Any]
DEFAULT_ACCOUNT: Final = "default"
MOUNT_PATH: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
VOLUME: Final = "kube-api-access-"
ROOT_CA: Final = "kube-root-ca.crt"
_MIRROR: Final = "kubernetes.io/config.mirror"
_ENFORCE: Final = "kubernetes.io/enforce-mountable-secrets"


class ServiceAccounts:
    """Changes pods that are created. The account "default" is made by a controller and may still be on its way."""

    name = "ServiceAccount"
    mutating = True

    def __init__(self, store: Store, kinds: Kinds, random: random.Random) -> None:
        self._store, self._random = store, random
        self._accounts = kinds.of(SERVICE_ACCOUNTS)

    def wants(self, resource: Resource, operation: str, subresource: str) -> bool:
        return operation == "CREATE" and resource.plural == "pods" and not resource.group and not subresource

    def admit(self, request: AdmissionRequest) -> None:
        """Raises ApiError (Forbidden)."""
        pod: Object = request.object or {}
        spec = pod.setdefault("spec", {})
        if _MIRROR in (pod["metadata"].get("annotations") or {}):
            self._check_mirror(request, spec)
            return
        name = spec.get("serviceAccountName") or spec.get("serviceAccount") or DEFAULT_ACCOUNT
        spec["serviceAccountName"] = spec["serviceAccount"] = name
        row = self._store.latest(self._accounts.key(request.namespace, name))
        account: Object = {} if row is None else json.loads(row.value)
        if row is None and name != DEFAULT_ACCOUNT:
            why = f'error looking up service account {request.namespace}/{name}: serviceaccount "{name}" not found'
            raise errors.forbidden("pods", request.name, why)
        if (account.get("metadata", {}).get("annotations") or {}).get(_ENFORCE) == "true":
            self._check_secrets(request, spec, {one.get("name") for one in account.get("secrets") or ()})
        if _wants_token(spec, account):
            self._add_volume(spec)
        if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
            spec["imagePullSecrets"] = account["imagePullSecrets"]

    def _check_mirror(self, request: AdmissionRequest, spec: Object) -> None:
        if spec.get("serviceAccountName"):
            raise errors.forbidden("pods", request.name, "a mirror pod may not reference service accounts")
        for volume in spec.get("volumes") or ():
            sources = (volume.get("projected") or {}).get("sources") or ()
            if any("serviceAccountToken" in one for one in sources):
                why = "a mirror pod may not use ServiceAccountToken volume projections"
                raise errors.forbidden("pods", request.name, why)

    def _check_secrets(self, request: AdmissionRequest, spec: Object, allowed: set[Any]) -> None:
        """An account may be bound to the Secrets that it lists."""
        for volume in spec.get("volumes") or ():
            secret = (volume.get("secret") or {}).get("secretName")
            if secret and secret not in allowed:
                account = spec["serviceAccountName"]
                why = (
                    f'volume with secret.secretName="{secret}" is not allowed because service account {account} does not '
                    "reference that secret"
                )
                raise errors.forbidden("pods", request.name, why)

    def _add_volume(self, spec: Object) -> None:
        volumes = spec.get("volumes") or []
        known = next((one["name"] for one in volumes if str(one.get("name")).startswith(VOLUME)), None)
        name = known or VOLUME + names.random_suffix(self._random)
        needed = False
        for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
            mounts = container.get("volumeMounts") or []
            if all(one.get("mountPath") != MOUNT_PATH for one in mounts):
                container["volumeMounts"] = [*mounts, {"name": name, "readOnly": True, "mountPath": MOUNT_PATH}]
                needed = True
        if needed and known is None:
            spec["volumes"] = [*volumes, {"name": name, "projected": _projected()}]


def _wants_token(spec: Object, account: Object) -> bool:
    """What the pod says counts before what the account says; neither: yes."""
    for holder in (spec, account):
        if (said := holder.get("automountServiceAccountToken")) is not None:
            return bool(said)
    return True


def _projected() -> Object:
    namespace = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
    return {
        "defaultMode": 0o644,
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": POD_S, "path": "token"}},
            {"configMap": {"name": ROOT_CA, "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": namespace}]}},
        ],
    }
