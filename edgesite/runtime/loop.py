"""The event loop that a process runs on: uvloop where it has a wheel, else asyncio."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

__all__ = ["loop_options"]


def loop_options() -> dict[str, Any]:
    """Arguments for ``anyio.run``."""
    return {"backend": "asyncio", "backend_options": {"use_uvloop": find_spec("uvloop") is not None}}
