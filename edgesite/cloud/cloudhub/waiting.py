"""Services of other cloud modules that may start later, or be away for a moment while they restart."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import anyio

if TYPE_CHECKING:
    from edgesite.context import Context

__all__ = ["ProviderGone", "service", "while_provided"]

T = TypeVar("T")
_FIRST_S = 0.01
_MOST_S = 1.0
_NEXT_S = 10.0


class ProviderGone(RuntimeError):
    """What this module works with was withdrawn: it must begin anew with what comes in its place."""


async def service(ctx: Context, interface: type[T]) -> T:
    """Return the service as soon as some module provides it. The caller sets the deadline, if there is one."""
    wait = _FIRST_S
    while (found := ctx.services.find(interface)) is None:
        await ctx.clock.sleep(wait)
        wait = min(wait * 1.5, _MOST_S)
    return found


async def while_provided(ctx: Context, interface: type[T], implementation: T | None) -> None:
    """Wait as long as the role offers this very implementation. Raises ProviderGone."""
    await ctx.services.replaced(interface, implementation)
    with anyio.move_on_after(_NEXT_S):  # whoever begins anew needs the next one
        await ctx.services.replaced(interface, None)
    raise ProviderGone(f"{interface.__name__} is another one now")
