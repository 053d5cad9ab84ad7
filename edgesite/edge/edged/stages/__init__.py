"""The steps towards a running pod, one file each.

A stage's ``setup`` is called at every look at the pod and does only what is missing, so that a crash between any two steps is
mended by the next look. ``teardown`` goes through the stages in reverse; nothing there is success.
"""

from __future__ import annotations

from typing import Protocol

from edgesite.edge.edged.state import PodState

__all__ = ["Stage"]


class Stage(Protocol):
    async def setup(self, state: PodState) -> None:
        """Make what is missing. Raises StageWait when it cannot go on now, RuntimeFault when the runtime fails."""
        ...

    async def teardown(self, state: PodState) -> None:
        """Take it away again. Raises RuntimeFault."""
        ...
