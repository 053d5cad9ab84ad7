"""`Link`: whether there is a connection to the cloud. Provided by module ``edgehub``."""

from __future__ import annotations

from typing import Protocol

__all__ = ["CONNECTED", "DISCONNECTED", "GREETED", "Link"]

CONNECTED = "cloud_connected"  #: content of the ``connect`` message to groups meta, twin and bus
DISCONNECTED = "cloud_disconnected"
GREETED = "cloud_greeted"  #: to group metaserver, after CONNECTED: the cloud is one of ours


class Link(Protocol):
    @property
    def connected(self) -> bool: ...

    @property
    def own_peer(self) -> bool:
        """Whether the cloud is one of ours, which answers every request."""
        ...
