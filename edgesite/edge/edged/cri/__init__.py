"""CRI v1 over gRPC: containerd, CRI-O and any other runtime behind a socket.

Its parts are loaded when the runtime is made, never before: an edge role on the process runtime does without them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgesite.context import Context
    from edgesite.edge.edged.runtime import Runtime

__all__ = ["factory"]


def factory(ctx: Context) -> Runtime:
    """Make the runtime that edged's configuration names (`edgesite.hookspecs.RuntimeFactory`)."""
    from edgesite.edge.edged.cri.runtime import CriRuntime
    from edgesite.edge.edged.settings import EdgedSettings

    settings = EdgedSettings.of(ctx.config)
    return CriRuntime(
        settings.runtime_endpoint,
        settings.image_endpoint or settings.runtime_endpoint,
        request_timeout_s=settings.runtime_request_timeout_s,
        net=ctx.net,
    )
