"""The Endpoints object and the EndpointSlices that a service shall have. Pure.

Source  core/v1 Endpoints, discovery.k8s.io/v1 EndpointSlice; labels and limits of kube-controller-manager (1000 addresses in
        Endpoints, 100 endpoints in a slice).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from edgesite.controlplane.endpoints.backends import Backend, Port, is_headless
from edgesite.controlplane.ownership import reference_to
from edgesite.kube.resources import SERVICES

__all__ = ["HEADLESS", "MANAGED_BY", "MANAGER", "SERVICE_NAME", "SLICE_MAX", "Plan", "endpoints", "plan_slices"]

SERVICE_NAME: Final = "kubernetes.io/service-name"
MANAGED_BY: Final = "endpointslice.kubernetes.io/managed-by"
MANAGER: Final = "endpointslice-controller.k8s.io"
HEADLESS: Final = "service.kubernetes.io/headless"
SLICE_MAX: Final = 100
ENDPOINTS_MAX: Final = 1000
TRUNCATED: Final = "endpoints.kubernetes.io/over-capacity"
Object = dict[str, Any]


def endpoints(service: Mapping[str, Any], found: Sequence[Backend]) -> Object:
    """Return the Endpoints of a service, of its first address family."""
    meta = service["metadata"]
    labels = {**(meta.get("labels") or {}), "endpoints.kubernetes.io/managed-by": "endpoint-controller"}
    if is_headless(service):
        labels[HEADLESS] = ""
    one: Object = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": meta["name"], "namespace": meta["namespace"], "labels": labels},
    }
    alive = [one for one in found if one.ready or not one.terminating]
    if len(alive) > ENDPOINTS_MAX:
        one["metadata"]["annotations"] = {TRUNCATED: "truncated"}
        alive = sorted(alive, key=lambda backend: not backend.ready)[:ENDPOINTS_MAX]
    subsets: dict[tuple[Port, ...], Object] = {}
    for backend in alive:
        if not backend.ports and not (is_headless(service) and not service["spec"].get("ports")):
            continue
        subset = subsets.setdefault(backend.ports, {})
        subset.setdefault("addresses" if backend.ready else "notReadyAddresses", []).append(_legacy_address(backend))
    for ports, subset in subsets.items():
        if ports:
            subset["ports"] = [_legacy_port(port) for port in ports]
    if subsets:
        one["subsets"] = [subsets[ports] for ports in sorted(subsets, key=str)]
    return one


def _legacy_address(backend: Backend) -> Object:
    return {
        "ip": backend.address,
        **({"hostname": backend.hostname} if backend.hostname else {}),
        **({"nodeName": backend.node} if backend.node else {}),
        "targetRef": _target(backend),
    }


def _legacy_port(port: Port) -> Object:
    return {
        **({"name": port.name} if port.name else {}),
        "port": port.port,
        "protocol": port.protocol,
        **({"appProtocol": port.app_protocol} if port.app_protocol else {}),
    }


def _target(backend: Backend) -> Object:
    namespace, name, uid = backend.pod
    return {"kind": "Pod", "namespace": namespace, "name": name, "uid": uid}


class Plan:
    """What to do about the slices of a service. Objects to create have no name yet."""

    __slots__ = ("create", "delete", "update")

    def __init__(self) -> None:
        self.create: list[Object] = []
        self.update: list[Object] = []
        self.delete: list[Object] = []


def plan_slices(
    service: Mapping[str, Any], by_family: Mapping[str, Sequence[Backend]], existing: Sequence[Object]
) -> Plan:
    """Return the fewest changes that make the slices right: what is in a slice already stays in it."""
    plan = Plan()
    left = list(existing)
    for family, found in by_family.items():
        groups: dict[tuple[Port, ...], list[Backend]] = {}
        for backend in found:
            if backend.ports or (is_headless(service) and not service["spec"].get("ports")):
                groups.setdefault(backend.ports, []).append(backend)
        if not groups:
            groups[()] = []
        for ports, members in groups.items():
            wanted_ports = [_port(port) for port in ports]
            same = [
                one for one in left if one.get("addressType") == family and (one.get("ports") or []) == wanted_ports
            ]
            left = [one for one in left if one not in same]
            _fill(plan, service, family, wanted_ports, [_endpoint(one) for one in members], same)
    plan.delete.extend(left)
    return plan


def _fill(
    plan: Plan,
    service: Mapping[str, Any],
    family: str,
    ports: list[Object],
    wanted: list[Object],
    same: list[Object],
) -> None:
    """Put ``wanted`` into the slices ``same``, each where it is already, and the rest where there is room."""
    by_id = {_identity(one): one for one in wanted}
    kept: list[tuple[Object, list[Object]]] = []
    for one in same:
        stay = [by_id.pop(key) for old in one.get("endpoints") or () if (key := _identity(old)) in by_id]
        kept.append((one, stay))
    rest = list(by_id.values())
    for _, stay in sorted(kept, key=lambda pair: -len(pair[1])):
        room = max(SLICE_MAX - len(stay), 0)
        stay.extend(rest[:room])
        rest = rest[room:]
    for one, stay in kept:
        if not stay and (wanted or one is not same[0]):
            plan.delete.append(one)
        elif (fresh := _slice(service, family, ports, stay, one)) != one:
            plan.update.append(fresh)
    while rest or (not same and not wanted):
        plan.create.append(_slice(service, family, ports, rest[:SLICE_MAX], None))
        rest = rest[SLICE_MAX:]
        if not rest:
            break


def _slice(
    service: Mapping[str, Any], family: str, ports: list[Object], members: list[Object], old: Object | None
) -> Object:
    meta = service["metadata"]
    labels = {**(meta.get("labels") or {}), SERVICE_NAME: meta["name"], MANAGED_BY: MANAGER}
    if is_headless(service):
        labels[HEADLESS] = ""
    if old is not None:
        one = {**old, "metadata": {**old["metadata"], "labels": labels}, "endpoints": members}
        if not members and "endpoints" in old and not old["endpoints"]:
            one["endpoints"] = old["endpoints"]
        return one
    fresh: Object = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "generateName": f"{meta['name']}-",
            "namespace": meta["namespace"],
            "labels": labels,
            "ownerReferences": [reference_to(dict(service), SERVICES)],
        },
        "addressType": family,
        "endpoints": members,
    }
    if ports:
        fresh["ports"] = ports
    return fresh


def _port(port: Port) -> Object:
    return {
        "name": port.name,
        "protocol": port.protocol,
        "port": port.port,
        **({"appProtocol": port.app_protocol} if port.app_protocol else {}),
    }


def _endpoint(backend: Backend) -> Object:
    return {
        "addresses": [backend.address],
        "conditions": {"ready": backend.ready, "serving": backend.serving, "terminating": backend.terminating},
        **({"hostname": backend.hostname} if backend.hostname else {}),
        "targetRef": _target(backend),
        **({"nodeName": backend.node} if backend.node else {}),
        **({"zone": backend.zone} if backend.zone else {}),
    }


def _identity(endpoint: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(endpoint.get("addresses") or ()), (endpoint.get("targetRef") or {}).get("uid")
