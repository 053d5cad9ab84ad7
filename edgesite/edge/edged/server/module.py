"""The module ``kubeletapi``: serves the kubelet HTTP API of a node in-process, and on a loopback port.

    mem:kubelet/<node>     for edgestream
    127.0.0.1:10350        for programs on the machine; ``readOnlyPort: 0`` switches it off. No authentication, as KubeEdge's;
                           so nothing that acts inside containers is served there
    ``port``               0 is off; TLS and authentication, everything is served: see `secureport`

A port that is in use is reported and tried again; the in-process way works meanwhile.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, ClassVar, Final

import anyio

from edgesite.edge.edged.server.later import LaterApi
from edgesite.edge.edged.server.source import api_address
from edgesite.net import address
from edgesite.net.http import HttpServer, Limits

if TYPE_CHECKING:
    from edgesite.context import Context, Section
    from edgesite.edge.edged.server.secureport import Certificates

__all__ = ["KubeletApiServer"]

_LIMITS: Final = Limits(connections=256, body_bytes=64 * 1024)
_RETRY_S: Final = 1.0
_RETRY_MOST_S: Final = 60.0


class KubeletApiServer:
    """See the module docstring."""

    name: ClassVar[str] = "kubeletapi"
    roles: ClassVar[frozenset[str]] = frozenset({"edge"})
    needs: ClassVar[frozenset[str]] = frozenset({"edged"})
    section: ClassVar[str] = "modules.edged.tailoredKubeletConfig"
    reloads: ClassVar[frozenset[str]] = frozenset({"tlsCertFile", "tlsPrivateKeyFile"})

    def __init__(self) -> None:
        self._certificates: Certificates | None = None

    def reload(self, config: Section) -> None:
        """See `edgesite.context.Module`; files of certificates are read again. Raises nothing."""
        if self._certificates is not None:
            self._certificates.reload(config)

    def enabled(self, settings: Section) -> bool:
        return bool(settings.get("modules", {}).get("edged", {}).get("enable", True))

    async def run(self, ctx: Context) -> None:
        api = LaterApi(ctx)
        async with HttpServer(api.handle, _LIMITS, clock=ctx.clock, log=ctx.log) as server:
            await server.listen(ctx.net, api_address(ctx.node_name))
            ctx.ready()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_listen_on_port, ctx, server)
                if ctx.config.get("port"):
                    from edgesite.edge.edged.server.secureport import (
                        Certificates,
                        serve_secure,
                    )  # most nodes are without

                    self._certificates = Certificates(ctx)
                    tasks.start_soon(serve_secure, ctx, api, self._certificates)
                await anyio.sleep_forever()


async def _listen_on_port(ctx: Context, server: HttpServer) -> None:
    port = int(ctx.config.get("readOnlyPort") or 0)
    if not port:
        return
    at = address.join(str(ctx.config.get("address") or "127.0.0.1"), port)
    wait_s = _RETRY_S
    while True:
        try:
            await server.listen(ctx.net, at)
        except OSError as exc:
            level = logging.WARNING if wait_s == _RETRY_S else logging.DEBUG
            ctx.log.log(level, "cannot listen on %s, trying again: %s", at, exc)
        else:
            return
        await ctx.clock.sleep(wait_s * (1 + 0.2 * ctx.random.random()))
        wait_s = min(wait_s * 2, _RETRY_MOST_S)
