"""Whether a join token for any node gives a new certificate to a node that exists and has had one.

A machine that was reset or re-imaged joins again under its old name, so it does, as long as nobody is there under that name:

    connected here                      refused
    Ready                               refused: it may be connected to another instance, or about to come back. Not if this hub
                                        alone serves its nodes and has heard this one say goodbye
    ``modules.cloudHub.rejoin: strict`` refused: the Node must be deleted first, or the token be one for this node

With the new certificate the former ones count no more (`identities`); the log and an Event of the Node tell of it.

Errors  None; refusals are texts for who asks.
Source  kubeadm join (v1.16 and later) refuses a name whose Node is Ready.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from edgesite.cloud.cloudhub.identities import Identities
    from edgesite.cloud.edgecontroller import EdgeObjects

__all__ = ["REASON", "Presence", "Recorder", "Rejoin"]

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]
REASON: Final = "CertificateReplaced"


class Presence(Protocol):
    """What the hub knows of a node's connection."""

    def is_connected(self, node: str) -> bool: ...

    def has_left(self, node: str) -> bool:
        """Whether its last connection here ended with its goodbye."""
        ...


class Recorder(Protocol):
    def event(self, obj: dict[str, Any], kind: str, reason: str, message: str) -> None: ...


class Rejoin:
    """``is_shared``: other instances of the cloud role may serve nodes too."""

    def __init__(
        self,
        identities: Identities,
        objects: Callable[[], EdgeObjects | None],
        presence: Presence,
        recorder: Recorder,
        log: Log,
        *,
        is_strict: bool,
        is_shared: bool,
    ) -> None:
        self._identities = identities
        self._objects = objects
        self._presence = presence
        self._recorder = recorder
        self._log = log
        self.is_strict = is_strict
        self._is_shared = is_shared

    def refusal(self, node: str) -> str:
        """Return why a token for any node gives no certificate for this one; "" if it does."""
        if not self._identities.is_taken(node):
            return ""
        own = f"a token of its own (edgesite token create --node {node})"
        if self.is_strict:
            return f"node {node} exists and has a certificate: delete the Node, or join with {own}"
        if self._presence.is_connected(node):
            return f"node {node} is connected: stop it there first, or join with {own}"
        objects = self._objects()
        if objects is None:
            return f"whether node {node} is Ready is not known yet: ask again"
        knows_it_gone = not self._is_shared and self._presence.has_left(node)
        if not knows_it_gone and _is_ready(objects.nodes.get(node)):
            return f"node {node} is Ready: stop it there and ask again once it is NotReady, delete the Node, or join with {own}"
        return ""

    def replaced(self, node: str, address: str, serial: int) -> None:
        """A node that had a certificate has got another one by a token."""
        self._log.warning(
            "node %s has joined anew from %s: only its new certificate (serial %x) counts from now on",
            node,
            address,
            serial,
        )
        objects = self._objects()
        live = objects.nodes.get(node) if objects is not None else None
        if live is not None:
            message = f"joined anew from {address}; only its new certificate (serial {serial:x}) counts from now on"
            self._recorder.event(live, "Warning", REASON, message)


def _is_ready(node: dict[str, Any] | None) -> bool:
    conditions = ((node or {}).get("status") or {}).get("conditions") or ()
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)
