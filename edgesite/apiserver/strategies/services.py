"""Services: cluster IPs, node ports and IP families; the allocators that hand them out.

Errors  ApiError Invalid for an address or port that is taken or out of range, Internal when none is left.
State   The allocators, in memory; made again from the stored Services at start, so that they cannot go out of step.
Source  Kubernetes: Service (type, clusterIP, nodePort), Virtual IPs (range split for static and dynamic addresses).
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from edgesite.apiserver.strategies.base import Strategy, Write
from edgesite.kube import errors
from edgesite.kube.errors import ApiError

__all__ = ["Addresses", "Ports", "ServiceStrategy"]

Object = dict[str, Any]
_HEADLESS: Final = "None"
_NODE_PORT_TYPES: Final = ("NodePort", "LoadBalancer")


class Addresses:
    """Hands out addresses of one range; the lower part only when the upper one is used up, for addresses chosen by hand."""

    def __init__(self, cidr: str) -> None:
        self.network = ipaddress.ip_network(cidr)
        self._used: set[int] = set()
        size = min(self.network.num_addresses, 1 << 16)
        self._first = int(self.network.network_address)
        self._size = size - 1 if self.network.version == 4 and size == self.network.num_addresses else size
        self._static = min(max(16, size // 16), 256, self._size)

    def take(self, text: str) -> str | None:
        """Take a chosen address. Returns why not, or None."""
        try:
            number = int(ipaddress.ip_address(text))
        except ValueError:
            return "must be a valid IP address"
        if not 0 < number - self._first < self.network.num_addresses:
            return f"provided IP is not in the valid range. The range of valid IPs is {self.network}"
        if number in self._used:
            return "provided IP is already allocated"
        self._used.add(number)
        return None

    def next(self, rng: random.Random) -> str:
        """Take a free address. Raises ApiError when the range is full."""
        for low, high in ((self._static, self._size), (1, self._static)):
            if high <= low:
                continue
            start = rng.randrange(low, high)
            for offset in (*range(start, high), *range(low, start)):
                if self._first + offset not in self._used:
                    self._used.add(self._first + offset)
                    return str(ipaddress.ip_address(self._first + offset))
        raise errors.internal("failed to allocate a serviceIP: range is full")

    def give_back(self, text: str) -> None:
        self._used.discard(int(ipaddress.ip_address(text)))

    def clear(self) -> None:
        self._used.clear()


class Ports:
    """Hands out node ports. Protocols share a port only within one Service, as kube-apiserver does."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last
        self._used: set[int] = set()

    def take(self, port: int) -> str | None:
        if not self.first <= port <= self.last:
            return f"provided port is not in the valid range. The range of valid ports is {self.first}-{self.last}"
        if port in self._used:
            return "provided port is already allocated"
        self._used.add(port)
        return None

    def next(self, rng: random.Random) -> int:
        """Raises ApiError when the range is full."""
        start = rng.randint(self.first, self.last)
        for port in (*range(start, self.last + 1), *range(self.first, start)):
            if port not in self._used:
                self._used.add(port)
                return int(port)
        raise errors.internal("failed to allocate a nodePort: range is full")

    def give_back(self, port: int) -> None:
        self._used.discard(port)

    def clear(self) -> None:
        self._used.clear()


def _taken(name: str, path: str, value: Any, why: str) -> ApiError:
    shown = f'"{value}"' if isinstance(value, str) else value
    message = f"Invalid value: {shown}: {why}"
    return errors.invalid("Service", name, [{"reason": "FieldValueInvalid", "message": message, "field": path}])


@dataclass(slots=True)
class ServiceStrategy(Strategy):
    create_on_update: bool = True
    returns_deleted: bool = True
    addresses: Addresses = field(default_factory=lambda: Addresses("10.96.0.0/16"))
    ports: Ports = field(default_factory=lambda: Ports(30000, 32767))

    def load(self, services: Iterable[Object]) -> None:
        """Take what stored Services hold; the first of two that claim the same keeps it."""
        self.addresses.clear()
        self.ports.clear()
        for service in services:
            for address in _cluster_ips(service.get("spec") or {}):
                self.addresses.take(address)
            for port in _node_ports(service.get("spec") or {}):
                self.ports.take(port)

    def prepare_create(self, write: Write, obj: Object) -> None:
        obj["status"] = {"loadBalancer": {}}
        self._complete(write, None, obj)

    def prepare_update(self, write: Write, old: Object, new: Object) -> None:
        Strategy.prepare_update(self, write, old, new)
        self._keep(old.get("spec") or {}, new.setdefault("spec", {}))
        self._complete(write, old, new)

    def _keep(self, old: Object, new: Object) -> None:
        """What an update leaves out it keeps, where the type still has it; what only the old type had goes, unless changed."""
        _drop_former(old, new)
        if new.get("type") == "ExternalName":
            return
        if old.get("type") != "ExternalName":
            for name in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
                if not new.get(name) and old.get(name):
                    new[name] = old[name]
            if new.get("clusterIP") and new.get("clusterIPs") and new["clusterIPs"][0] != new["clusterIP"]:
                new["clusterIPs"] = [new["clusterIP"]]
        if new.get("type") in _NODE_PORT_TYPES and old.get("type") in _NODE_PORT_TYPES:
            known = {
                (one.get("protocol", "TCP"), one.get("port")): one.get("nodePort") for one in old.get("ports") or ()
            }
            for one in new.get("ports") or ():
                kept = known.get((one.get("protocol", "TCP"), one.get("port")))
                if not one.get("nodePort") and kept:
                    one["nodePort"] = kept

    def _complete(self, write: Write, old: Object | None, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        before = (old or {}).get("spec") or {}
        if spec.get("type") == "ExternalName":
            for name in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
                if spec.get(name) and spec.get(name) == before.get(name):
                    spec.pop(name)
            return
        had = set(_cluster_ips(before))
        if spec.get("clusterIPs") and not spec.get("clusterIP"):
            spec["clusterIP"] = spec["clusterIPs"][0]
        chosen = spec.get("clusterIP")
        if not chosen:
            spec["clusterIP"] = self._address(write)
        elif chosen != _HEADLESS and chosen not in had:
            if why := self.addresses.take(chosen):
                raise _taken(write.name, "spec.clusterIPs", [chosen], f"failed to allocate IP {chosen}: {why}")
            if write.dry_run:
                self.addresses.give_back(chosen)
        spec["clusterIPs"] = spec.get("clusterIPs") or [spec["clusterIP"]]
        spec.setdefault("ipFamilies", ["IPv6" if ":" in spec["clusterIP"] or self._v6(spec) else "IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")
        try:
            self._complete_ports(write, spec, set(_node_ports(before)))
        except ApiError:
            if not write.dry_run:
                self.settle({"spec": {"clusterIPs": [one for one in _cluster_ips(spec) if one not in had]}}, None)
            raise

    def _v6(self, spec: Object) -> bool:
        return spec["clusterIP"] == _HEADLESS and self.addresses.network.version == 6

    def _address(self, write: Write) -> str:
        address = self.addresses.next(write.registry.random)
        if write.dry_run:
            self.addresses.give_back(address)
        return address

    def _complete_ports(self, write: Write, spec: Object, had: set[int]) -> None:
        wants = spec.get("type") in _NODE_PORT_TYPES and not (
            spec["type"] == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is False
        )
        taken: list[int] = []
        for index, one in enumerate(spec.get("ports") or ()):
            port = one.get("nodePort")
            if port and port not in had and port not in taken and spec.get("type") in _NODE_PORT_TYPES:
                if why := self.ports.take(port):
                    self._release_ports(taken)
                    raise _taken(write.name, f"spec.ports[{index}].nodePort", port, why)
                taken.append(port)
            elif not port and wants:
                one["nodePort"] = self.ports.next(write.registry.random)
                taken.append(one["nodePort"])
        if write.dry_run:
            self._release_ports(taken)

    def _release_ports(self, ports: list[int]) -> None:
        for port in ports:
            self.ports.give_back(port)

    def settle(self, before: Object | None, after: Object | None) -> None:
        """Give back what ``before`` held and ``after`` does not."""
        old, new = (before or {}).get("spec") or {}, (after or {}).get("spec") or {}
        for address in set(_cluster_ips(old)) - set(_cluster_ips(new)):
            self.addresses.give_back(address)
        self._release_ports(list(set(_node_ports(old)) - set(_node_ports(new))))


def _drop_former(old: Object, new: Object) -> None:
    """Take away what the client merely sent back of a type that the Service no longer has."""
    before, after = old.get("type"), new.get("type")
    if before in _NODE_PORT_TYPES and after not in _NODE_PORT_TYPES:
        known = {one.get("nodePort") for one in old.get("ports") or ()}
        for one in new.get("ports") or ():
            if one.get("nodePort") in known:
                one.pop("nodePort", None)
        _drop_same(old, new, "externalTrafficPolicy", "healthCheckNodePort")
    if before == "LoadBalancer" and after != "LoadBalancer":
        _drop_same(old, new, "allocateLoadBalancerNodePorts", "loadBalancerClass", "healthCheckNodePort")


def _drop_same(old: Object, new: Object, *names: str) -> None:
    for name in names:
        if name in new and new[name] == old.get(name):
            del new[name]


def _cluster_ips(spec: Object) -> list[str]:
    listed = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
    return [one for one in listed if one and one != _HEADLESS]


def _node_ports(spec: Object) -> list[int]:
    ports = [one.get("nodePort") for one in spec.get("ports") or ()]
    if spec.get("healthCheckNodePort"):
        ports.append(spec["healthCheckNodePort"])
    return [one for one in ports if one]
