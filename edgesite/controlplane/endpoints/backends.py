"""The pods behind a service, with addresses, ports and readiness. Pure.

A pod on a node that has stopped reporting counts as not ready here: whether it still runs nobody in the cloud can know, and so its own
status stays as the node last reported it.

Source  core/v1 Endpoints, discovery.k8s.io/v1 EndpointSlice (conditions ready, serving, terminating; named target ports;
        publishNotReadyAddresses; hostname under a headless service's subdomain).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from edgesite.controlplane.pods import is_ready, is_terminal, is_terminating

__all__ = ["Backend", "Port", "backends", "families", "is_headless", "shown"]

Object = Mapping[str, Any]


class Port(NamedTuple):
    """A port as it is served by a pod; ``port`` is None for a headless service without ports."""

    name: str
    protocol: str
    port: int | None
    app_protocol: str = ""


@dataclass(frozen=True, slots=True)
class Backend:
    """One pod in one address family. ``serving``: ready, even if it is being deleted."""

    address: str
    ports: tuple[Port, ...]
    ready: bool
    serving: bool
    terminating: bool
    node: str
    zone: str
    hostname: str
    pod: tuple[str, str, str]  #: namespace, name, uid


def is_headless(service: Object) -> bool:
    return bool(service["spec"].get("clusterIP") == "None")


def families(service: Object) -> list[str]:
    """Return the address types that a service wants: "IPv4", "IPv6"."""
    spec = service["spec"]
    if spec.get("ipFamilies"):
        return list(spec["ipFamilies"])
    address = spec.get("clusterIP") or ""
    return ["IPv6"] if ":" in address else ["IPv4"]


def shown(pod: Object) -> tuple[Any, ...]:
    """What of a pod shows in endpoints: a change of anything else is of no interest."""
    spec, status = pod["spec"], pod.get("status") or {}
    return (
        pod["metadata"].get("labels"),
        spec.get("nodeName"),
        spec.get("hostname"),
        spec.get("subdomain"),
        status.get("podIP"),
        status.get("podIPs"),
        is_terminal(pod),
        is_terminating(pod),
        is_ready(pod),
    )


def backends(
    service: Object, pods: Iterable[Object], family: str, node_of: Callable[[str], Object | None]
) -> list[Backend]:
    """Return the backends of one address family, in the order of their addresses."""
    publish = bool(service["spec"].get("publishNotReadyAddresses"))
    found = []
    for pod in pods:
        address = _address(pod, family)
        if address is None or is_terminal(pod):
            continue
        name = pod["spec"].get("nodeName") or ""
        node = node_of(name) or {}
        serving = is_ready(pod) and not _is_silent(node)
        terminating = is_terminating(pod)
        meta = pod["metadata"]
        found.append(
            Backend(
                address,
                _ports(service, pod),
                publish or (serving and not terminating),
                serving,
                terminating,
                name,
                ((node.get("metadata") or {}).get("labels") or {}).get("topology.kubernetes.io/zone", ""),
                _hostname(service, pod),
                (meta.get("namespace") or "", meta["name"], meta.get("uid") or ""),
            )
        )
    return sorted(found, key=lambda one: (ipaddress.ip_address(one.address), one.pod))


def _address(pod: Object, family: str) -> str | None:
    status = pod.get("status") or {}
    candidates = [one.get("ip") for one in status.get("podIPs") or ()] or [status.get("podIP")]
    for address in candidates:
        if address and (":" in address) == (family == "IPv6"):
            try:
                return str(ipaddress.ip_address(address))
            except ValueError:
                continue
    return None


def _ports(service: Object, pod: Object) -> tuple[Port, ...]:
    """Resolve the target ports; a port whose name the pod does not have is left out."""
    found = []
    for port in service["spec"].get("ports") or ():
        protocol = port.get("protocol") or "TCP"
        number = _target(port.get("targetPort", port.get("port")), protocol, pod)
        if number is not None:
            found.append(Port(port.get("name") or "", protocol, number, port.get("appProtocol") or ""))
    return tuple(found)


def _target(target: Any, protocol: str, pod: Object) -> int | None:
    if isinstance(target, int):
        return target
    sidecars = [one for one in pod["spec"].get("initContainers") or () if one.get("restartPolicy") == "Always"]
    for container in (*(pod["spec"].get("containers") or ()), *sidecars):
        for port in container.get("ports") or ():
            if port.get("name") == target and (port.get("protocol") or "TCP") == protocol:
                return int(port["containerPort"])
    return None


def _hostname(service: Object, pod: Object) -> str:
    spec = pod["spec"]
    if spec.get("hostname") and spec.get("subdomain") == service["metadata"]["name"]:
        return str(spec["hostname"])
    return ""


def _is_silent(node: Object) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or ()
    return any(one.get("type") == "Ready" and one.get("status") == "Unknown" for one in conditions)
