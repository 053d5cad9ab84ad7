"""Where the MetaServer listens: its address, and that of a dummy interface where the configuration asks for one.

An address that cannot be had is reported and tried again; the others serve meanwhile.

Errors  None leave but cancellation.
State   None.
Source  KubeEdge v1.17 (169.254.30.10 on interface edge-dummy0).
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

import anyio

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from edgesite.context import Context
    from edgesite.edge.metaserver.serving import ServingCertificate
    from edgesite.net.http import HttpServer

__all__ = ["plain", "serve"]

_RETRY_S: Final = 1.0
_RETRY_MOST_S: Final = 60.0


async def serve(ctx: Context, server: HttpServer, serving: ServingCertificate | None) -> None:
    """Open all addresses; over TLS with a certificate."""
    context = None
    async with anyio.create_task_group() as tasks:
        if serving is not None:
            context = await serving.context()  # of a new node it comes from the cloud
            tasks.start_soon(serving.keep, context)
        await _listen(ctx, server, plain(str(ctx.config["server"])), context, tasks)
        ctx.ready()
        dummy = plain(str(ctx.config.get("dummyServer") or ""))
        if dummy and serving is not None:  # as KubeEdge: pods are never led to an open door
            from edgesite.edge.metaserver.dummy import held_address

            async with held_address(ctx, dummy):
                await _listen(ctx, server, dummy, context, tasks)
                await anyio.sleep_forever()


def plain(address: str) -> str:
    """Guides write the address with a scheme; the configuration has none."""
    return address.partition("://")[2] or address


async def _listen(
    ctx: Context, server: HttpServer, address: str, context: ssl.SSLContext | None, tasks: TaskGroup
) -> None:
    """Listen, or go on trying."""
    try:
        listener = await server.listen(ctx.net, address, tls=context)
    except OSError as exc:
        ctx.log.warning("cannot listen on %s, trying again: %s", address, exc)
        tasks.start_soon(_try_again, ctx, server, address, context)
    else:
        ctx.log.info("serving the API address=%s", listener.address)


async def _try_again(ctx: Context, server: HttpServer, address: str, context: ssl.SSLContext | None) -> None:
    wait_s = _RETRY_S
    while True:
        await ctx.clock.sleep(wait_s * (1 + 0.2 * ctx.random.random()))
        wait_s = min(wait_s * 2, _RETRY_MOST_S)
        try:
            listener = await server.listen(ctx.net, address, tls=context)
        except OSError as exc:
            ctx.log.debug("cannot listen on %s: %s", address, exc)
        else:
            ctx.log.info("serving the API address=%s", listener.address)
            return
