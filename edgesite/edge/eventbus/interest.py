"""`Interest`: whether anybody listens. Provided by module ``eventbus``."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Interest"]


class Interest(Protocol):
    """What would be published for nobody need not be made."""

    def wanted(self, topic: str) -> bool:
        """Whether somebody may get what is published there now; quick."""
        ...
