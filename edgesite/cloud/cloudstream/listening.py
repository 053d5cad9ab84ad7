"""Opens a port as soon as there are certificates and it is free; what hinders it is logged once, and tried again with backoff."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from edgesite.kube.errors import ApiError

if TYPE_CHECKING:
    from edgesite.context import Context
    from edgesite.net.http import HttpServer

__all__ = ["listen"]

_PATIENCE_S: Final = 10.0  #: the hub's certificates may have to be made first
_RETRY_S: Final = 0.5
_RETRY_MOST_S: Final = 60.0


async def listen(
    ctx: Context, server: HttpServer, port: int, make_tls: Callable[[], Awaitable[ssl.SSLContext]], what: str
) -> None:
    """Return once ``server`` listens; ``what`` is what nobody gets until then."""
    wait_s, said, since = _RETRY_S, "", ctx.clock.monotonic()
    while True:
        try:
            await server.listen(ctx.net, f"0.0.0.0:{port}", tls=await make_tls())
        except (OSError, ApiError, ValueError, ssl.SSLError) as exc:
            if str(exc) != said and ctx.clock.monotonic() - since > _PATIENCE_S:
                said = str(exc)
                ctx.log.warning("%s not taken yet: %s", what, said)
        else:
            return
        await ctx.clock.sleep(wait_s * (1 + 0.2 * ctx.random.random()))
        wait_s = min(wait_s * 2, _RETRY_MOST_S)
