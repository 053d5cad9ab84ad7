"""Where pods and addresses are: from the caches of the cloud role, and from the API where these are away or behind.

Errors  ApiError NotFound for what there is not; 500 for an address that several connected nodes have.
State   None.
Source  KubeEdge v1.12.7 cloud/pkg/cloudstream (sessions by node name and by internal address).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from edgesite.kube.errors import internal, not_found
from edgesite.kube.resources import NODES, PODS

if TYPE_CHECKING:
    from edgesite.client import Client
    from edgesite.cloud.edgecontroller import EdgeObjects

__all__ = ["Finder"]

Object = dict[str, Any]


class Finder:
    """Implements `NodeFinder`. ``has_tunnel`` tells whether a node is connected here."""

    def __init__(
        self, client: Client, objects: Callable[[], EdgeObjects | None], has_tunnel: Callable[[str], bool]
    ) -> None:
        self._client = client
        self._objects = objects
        self._has_tunnel = has_tunnel

    async def node_of_pod(self, namespace: str, name: str) -> str:
        """Raises ApiError."""
        objects = self._objects()
        pod = objects.pods.get(name, namespace) if objects is not None else None
        if pod is None or not (pod.get("spec") or {}).get("nodeName"):
            pod = await self._client.get(PODS, name, namespace)
        node = (pod.get("spec") or {}).get("nodeName")
        if not node:
            raise internal(f"pod {namespace}/{name} is on no node yet")
        return str(node)

    async def node_at(self, host: str) -> str:
        """Raises ApiError."""
        objects = self._objects()
        nodes = objects.nodes.list() if objects is not None else (await self._client.list(NODES)).get("items") or []
        found = [name for name in _named(nodes, host) if host == name or self._has_tunnel(name)]
        if host in found:
            return host
        if len(found) > 1:
            raise internal(
                f"{host} is the address of several nodes ({', '.join(sorted(found))}): it does not say which"
            )
        if not found:
            raise not_found("nodes", host)
        return found[0]


def _named(nodes: Iterable[Object], host: str) -> Iterable[str]:
    for node in nodes:
        name = node["metadata"]["name"]
        addresses = (node.get("status") or {}).get("addresses") or ()
        if host == name or any(one.get("address") == host for one in addresses):
            yield name
