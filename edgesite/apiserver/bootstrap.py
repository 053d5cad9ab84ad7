"""What every cluster has from the start: namespaces, priority classes, roles, the Service of the API itself.

Errors  ApiError where the store refuses; what is there already is left alone.
State   In the store.
Source  Kubernetes: initial namespaces, Pod priority (system classes), the ``kubernetes`` Service.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final

from edgesite.apiserver.authn import User
from edgesite.apiserver.rbacreconcile import reconcile_roles
from edgesite.apiserver.strategies.base import Write
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import ENDPOINT_SLICES, ENDPOINTS, NAMESPACES, PRIORITY_CLASSES, SERVICES, Resource

if TYPE_CHECKING:
    from edgesite.apiserver.registry import Registry

__all__ = ["NAMESPACES_FROM_START", "SYSTEM_USER", "bootstrap"]

Object = dict[str, Any]
SYSTEM_USER: Final = User("system:apiserver", ("system:masters",))
NAMESPACES_FROM_START: Final = ("default", "kube-system", "kube-public", "kube-node-lease", "kubeedge")
_CLASSES: Final = (
    (
        "system-cluster-critical",
        2000000000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
    (
        "system-node-critical",
        2000001000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
)
_API: Final = "kubernetes"
_MANAGER: Final = "kube-apiserver"


async def bootstrap(registry: Registry, *, service_ip: str, address: str, port: int) -> None:
    """Create what is missing. ``address`` and ``port`` are where clients reach the API server. Raises ApiError."""
    for name in NAMESPACES_FROM_START:
        await _ensure(registry, NAMESPACES, "", {"metadata": {"name": name}})
    for name, value, description in _CLASSES:
        await _ensure(
            registry, PRIORITY_CLASSES, "", {"metadata": {"name": name}, "value": value, "description": description}
        )
    await _ensure(registry, SERVICES, "default", _service(service_ip, port))
    await reconcile_roles(registry)
    family = "IPv6" if ":" in address else "IPv4"
    ports = [{"name": "https", "port": port, "protocol": "TCP"}]
    endpoints = {
        "metadata": {"name": _API, "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": address}], "ports": ports}],
    }
    await _ensure(registry, ENDPOINTS, "default", endpoints, keep=("subsets",))
    labels = {"kubernetes.io/service-name": _API}
    parts: Object = {
        "addressType": family,
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        "ports": ports,
    }
    await _ensure(
        registry,
        ENDPOINT_SLICES,
        "default",
        {"metadata": {"name": _API, "labels": labels}, **parts},
        keep=("endpoints", "ports"),
    )


def _service(service_ip: str, port: int) -> Object:
    labels = {"component": "apiserver", "provider": "kubernetes"}
    ports = [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}]
    spec = {
        "clusterIP": service_ip,
        "clusterIPs": [service_ip],
        "type": "ClusterIP",
        "sessionAffinity": "None",
        "ports": ports,
    }
    return {"metadata": {"name": _API, "labels": labels}, "spec": spec}


async def _ensure(
    registry: Registry, resource: Resource, namespace: str, wanted: Object, *, keep: tuple[str, ...] = ()
) -> None:
    """Create an object unless it is there; of one that is, the members ``keep`` are brought to what is wanted."""
    kind = registry.kinds.of(resource)
    obj: Object = {"kind": resource.kind, "apiVersion": resource.api_version, **wanted}
    name = obj["metadata"]["name"]
    write = Write("CREATE", kind, namespace, name, "", SYSTEM_USER, registry.clock.time(), registry, manager=_MANAGER)
    if registry.store.latest(kind.key(namespace, name)) is None:
        await registry.create(write, obj)
        return
    if not keep:
        return
    write.operation = "UPDATE"

    def change(old: Object) -> Object:
        return {**copy.deepcopy(old), **{member: copy.deepcopy(obj[member]) for member in keep}}

    try:
        await registry.change(write, change)
    except ApiError as exc:
        if exc.code != 422:  # an address family cannot change in place; the site's address did
            raise
