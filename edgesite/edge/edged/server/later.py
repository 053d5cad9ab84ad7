"""The kubelet API before anybody has asked for it: what serves it is loaded with the first request.

Logs, commands and figures are asked for now and then, and on many nodes never; what they take is a tenth of edged's code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesite.edge.edged.server.source import LogSource

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from edgesite.context import Context
    from edgesite.edge.edged.server.api import KubeletApi
    from edgesite.net.http import Request, Response

__all__ = ["LaterApi"]


class LaterApi:
    """`KubeletApi`, made when it is needed."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._made: KubeletApi | None = None

    def handle(self, request: Request) -> Response | Awaitable[Response | None]:
        """See `KubeletApi.handle`."""
        return self._api.handle(request)

    def serve(self, request: Request) -> Response | Awaitable[Response | None]:
        """See `KubeletApi.serve`."""
        return self._api.serve(request)

    @property
    def _api(self) -> KubeletApi:
        if self._made is None:
            from edgesite.edge.edged.server.api import KubeletApi

            ctx = self._ctx
            self._made = KubeletApi(
                lambda: ctx.services.find(LogSource),  # type: ignore[type-abstract]
                ctx.clock,
                ctx.threads,
                ctx.metrics,
                ctx.net,
                ctx.node_name,
                ctx.data_dir,
                ctx.log,
                ctx.config.plain(),
            )
        return self._made
