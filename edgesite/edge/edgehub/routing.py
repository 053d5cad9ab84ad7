"""Where a message of the cloud goes at the edge.

Source  KubeEdge v1.12.7, edge/pkg/edgehub/process.go.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgesite.wire.message import Message

__all__ = ["Target", "target_of"]


@dataclass(frozen=True, slots=True)
class Target:
    """A module or a group of the edge's bus."""

    module: str = ""
    group: str = ""


_USER_MODULES = {"router_eventbus": "eventbus", "router_servicebus": "servicebus"}


def target_of(message: Message) -> Target:
    """Return where to send a message that answers nobody's call. A group that is not KubeEdge's is a plugin's."""
    if message.group in ("resource", "func"):
        return Target(group="meta")
    if message.group == "user":
        module = _USER_MODULES.get(message.source)
        return Target(module=module) if module else Target(group="bus")
    return Target(group=message.group)
