"""What the environment of a container tells of services: where the API is, and the services of the pod's own namespace. Pure.

Source  Kubernetes: "Accessing the Service", environment variables; kubelet's pkg/kubelet/envvars (names, and those that Docker's links
        had). KubeEdge v1.12 has none of these; they come from a cloud of ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from edgesite.net import address as addresses

__all__ = ["MASTER", "api_service", "service_environment"]

MASTER: Final = "kubernetes"  #: the service of the API, told of whatever the pod wants
_LETTERS: Final = str.maketrans("abcdefghijklmnopqrstuvwxyz-", "ABCDEFGHIJKLMNOPQRSTUVWXYZ_")


def api_service(settings: Mapping[str, Any], master_namespace: str = "default") -> Mapping[str, Any] | None:
    """Return what stands for the service of the API where the settings of an edge lead pods to MetaServer; None where they do not."""
    manager = (settings.get("modules") or {}).get("metaManager") or {}
    server = manager.get("metaServer") or {}
    address = str(server.get("podServer") or "") if server.get("enable") else ""
    if not address:
        return None
    at = addresses.parse(address.partition("://")[2] or address)
    port = {"name": "https", "port": at.port, "protocol": "TCP"}
    return {"name": MASTER, "namespace": master_namespace, "clusterIP": at.host, "ports": [port]}


def service_environment(
    services: Iterable[Mapping[str, Any]], namespace: str, *, links: bool, master_namespace: str = "default"
) -> dict[str, str]:
    """Return the variables for a pod of ``namespace``. ``links``: the pod's enableServiceLinks.

    Each service is {"name", "namespace", "clusterIP", "ports": [{"name", "port", "protocol"}]}, as a cloud of ours lists them.
    """
    chosen: dict[str, Mapping[str, Any]] = {}
    for one in services:
        name = one.get("name") or ""
        if one.get("clusterIP") in (None, "", "None"):
            continue
        if name == MASTER and one.get("namespace") == master_namespace:
            chosen.setdefault(name, one)
        elif links and one.get("namespace") == namespace:
            chosen[name] = one
    found: dict[str, str] = {}
    for name in sorted(chosen):
        found |= _of_service(name.translate(_LETTERS), chosen[name])
    return found


def _of_service(prefix: str, service: Mapping[str, Any]) -> dict[str, str]:
    ip, ports = str(service["clusterIP"]), service.get("ports") or ()
    found = {f"{prefix}_SERVICE_HOST": ip}
    if ports:
        found[f"{prefix}_SERVICE_PORT"] = str(ports[0].get("port", 0))
    for one in ports:
        if one.get("name"):
            found[f"{prefix}_SERVICE_PORT_{str(one['name']).translate(_LETTERS)}"] = str(one.get("port", 0))
    host = f"[{ip}]" if ":" in ip else ip
    for number, one in enumerate(ports):
        protocol, port = str(one.get("protocol") or "TCP"), str(one.get("port", 0))
        url = f"{protocol.lower()}://{host}:{port}"
        if number == 0:
            found[f"{prefix}_PORT"] = url
        start = f"{prefix}_PORT_{port}_{protocol.upper()}"
        found |= {start: url, f"{start}_PROTO": protocol.lower(), f"{start}_PORT": port, f"{start}_ADDR": ip}
    return found
