"""`TaskNeeds`: what a node may read for a task that it has been given. Provided by taskmanager."""

from __future__ import annotations

from typing import Protocol

__all__ = ["TaskNeeds"]


class TaskNeeds(Protocol):
    def needs_secret(self, node: str, namespace: str, name: str) -> bool:
        """Whether this node pulls images with this secret now."""
        ...
