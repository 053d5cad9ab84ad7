"""Whether the node has room for a task: CPU, memory and disk, each not used above four fifths; pure but for what it is given.

Source  KubeEdge v1.21 (checkItems and their limit).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

__all__ = ["ITEMS", "MOST_USED", "failing"]

ITEMS: Final = ("cpu", "mem", "disk")
MOST_USED: Final = 0.8


def failing(wanted: Sequence[object], used: Mapping[str, float]) -> str:
    """Return what stands against a task; "" if nothing does. ``used`` has shares from 0 to 1."""
    unknown = [str(one) for one in wanted if one not in ITEMS]
    if unknown:
        return f"unknown check items: {', '.join(unknown)[:200]}"
    full = [f"{one} is used to {used[str(one)]:.0%}" for one in wanted if used.get(str(one), 0.0) > MOST_USED]
    return "; ".join(full)
