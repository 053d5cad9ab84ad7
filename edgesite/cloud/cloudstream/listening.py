"""Opens a port as soon as there are certificates and it is free; what hinders it is logged once, and tried again with backoff.

The certificates may be others later: files that were replaced, or the hub's, which it makes anew when its names change. They are looked at
again after a reload, and now and then.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import anyio

from edgesite.kube.errors import ApiError

if TYPE_CHECKING:
    from edgesite.cloud.cloudstream.certificates import Identity
    from edgesite.context import Clock, Context
    from edgesite.net.http import HttpServer

__all__ = ["Listening", "listen"]

_PATIENCE_S: Final = 10.0  #: the hub's certificates may have to be made first
_RETRY_S: Final = 0.5
_RETRY_MOST_S: Final = 60.0
_LOOK_S: Final = 6 * 3600.0
_HUB_S: Final = 5.0  #: the hub, which is reloaded at the same time, may be making its certificate


class Listening:
    """Reloads what listens."""

    def __init__(self) -> None:
        self._reloaded = anyio.Event()

    def reload(self) -> None:
        """Look at the certificates soon."""
        self._reloaded.set()
        self._reloaded = anyio.Event()

    async def due(self, clock: Clock) -> None:
        """Wait until the certificates are to be looked at again."""
        reloaded = self._reloaded
        with anyio.move_on_after(_LOOK_S):
            await reloaded.wait()
            await clock.sleep(_HUB_S)

    async def serve(
        self, ctx: Context, server: HttpServer, port: int, make_tls: Callable[[], Awaitable[Identity]], what: str
    ) -> None:
        """Listen, and show what `make_tls` gives, until cancelled."""
        shown, context = await listen(ctx, server, port, make_tls, what)
        while True:
            await self.due(ctx.clock)
            try:
                found = await make_tls()
                if found == shown:
                    continue
                await ctx.threads.run(found.renew, context)
            except (OSError, ApiError, ValueError) as exc:
                ctx.log.error("port %d shows its former certificate: %s", port, exc)
                continue
            shown = found
            ctx.log.info("port %d shows another certificate from now on", port)


async def listen(
    ctx: Context, server: HttpServer, port: int, make_tls: Callable[[], Awaitable[Identity]], what: str
) -> tuple[Identity, ssl.SSLContext]:
    """Return what is shown, once ``server`` listens; ``what`` is what nobody gets until then."""
    wait_s, said, since = _RETRY_S, "", ctx.clock.monotonic()
    while True:
        try:
            shown = await make_tls()
            context = await ctx.threads.run(shown.context)
            await server.listen(ctx.net, f"0.0.0.0:{port}", tls=context)
        except (OSError, ApiError, ValueError, ssl.SSLError) as exc:
            if str(exc) != said and ctx.clock.monotonic() - since > _PATIENCE_S:
                said = str(exc)
                ctx.log.warning("%s not taken yet: %s", what, said)
        else:
            return shown, context
        await ctx.clock.sleep(wait_s * (1 + 0.2 * ctx.random.random()))
        wait_s = min(wait_s * 2, _RETRY_MOST_S)
