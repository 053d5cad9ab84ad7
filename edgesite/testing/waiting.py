"""Waiting in tests for what nobody announces.

Errors  TimeoutError, after a deadline that is a bound for failures: machines may be busy.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

import anyio

__all__ = ["DEADLINE_S", "until"]

DEADLINE_S: Final = 60.0
_LONGEST_S: Final = 0.02


async def until(holds: Callable[[], Any], deadline_s: float = DEADLINE_S) -> Any:
    """Ask at each turn of the loop, and then less often, until the answer is true, and return it; it may be awaitable. Raises TimeoutError."""
    pause_s = 0.0
    with anyio.fail_after(deadline_s):
        while True:
            found = holds()
            if inspect.isawaitable(found):
                found = await found
            if found:
                return found
            await anyio.sleep(pause_s)
            pause_s = min(pause_s + 0.001, _LONGEST_S)
