"""Interfaces between CloudHub and its neighbours: what an edge is known to hold, which nodes are connected, who may come."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Protocol

from edgesite.wire.delivery import ObjectRef

if TYPE_CHECKING:
    from edgesite.net.http import PeerInfo

__all__ = ["LEASES", "ConnectedNodes", "DeliveryRecords", "NodeGate"]

LEASES: Final = "leases"  #: the module on the bus that takes renewals of leases


class DeliveryRecords(Protocol):
    """What every edge was last known to hold. Provided by synccontroller; calls are brief and never wait."""

    def version_at_edge(self, node: str, uid: str) -> int | None: ...

    def digest(self, node: str) -> str:
        """The digest of all that a node is known to hold (`edgesite.wire.greeting.digest_of`)."""
        ...

    def holders(self, uid: str) -> Iterable[str]:
        """The nodes that hold an object, or that it is on its way to."""
        ...

    def on_its_way(self, node: str, uid: str) -> None:
        """The object is about to be given to the hub for a node that asked for it or needs it: the node must hear of its end,
        even if that comes before its acknowledgement. Forgotten when the session ends: the next one begins with a comparison."""
        ...

    def sent(self, node: str, ref: ObjectRef) -> None:
        """A first message about the object has left: the edge may have it, in an unknown version."""
        ...

    def delivered(self, node: str, ref: ObjectRef) -> None:
        """The edge has acknowledged this version."""
        ...

    def removed(self, node: str, uid: str) -> None:
        """The edge has acknowledged the end of the object."""
        ...

    def denied(self, node: str, ref: ObjectRef) -> None:
        """The edge does not take the object, for it knows that this one has ended."""
        ...

    def lost(self, node: str) -> None:
        """The node was told what the API no longer knows: it may hold anything, and is to be sent all anew."""
        ...

    def went_back(self) -> None:
        """The API has told of an older state than before: what nodes hold is to be compared now."""
        ...

    def replace(self, node: str, refs: Iterable[ObjectRef]) -> None:
        """The edge has told all that it holds."""
        ...


class ConnectedNodes(Protocol):
    """Provided by cloudhub."""

    def nodes(self) -> list[str]:
        """Nodes whose session is open for objects."""
        ...

    def identity(self, node: str) -> str:
        """The common name that a connected node has shown; "" when it is not connected."""
        ...

    def is_own(self, node: str) -> bool:
        """Whether the node is connected and is one of ours, which understands answers that KubeEdge's does not."""
        ...

    def forget(self, node: str, uids: Iterable[str]) -> bool:
        """Have the edge forget what it knows of these objects and tell what it holds; False if it is not one that can."""
        ...


class NodeGate(Protocol):
    """Provided by cloudhub: every listener for edges asks it."""

    def refusal(self, node: str, peer: PeerInfo) -> str:
        """Return why this peer may not come as ``node``; "" if it may."""
        ...
