"""Curves for sensors that are not there: ``wave`` of a property's visitor, with ``low``, ``high`` and ``period``.

    constant   low
    sine       from low to high and back
    ramp       from low to high, then low again
    square     low, then high
    random     anything between, another one each time

Units   ``period`` is seconds.
Errors  ValueError for what is none of these.
State   None.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgesite.mapper.virtual.thermostat import real

if TYPE_CHECKING:
    from random import Random

__all__ = ["wave"]


def wave(visitor: Mapping[str, Any], seconds: float, random: Random) -> float:
    """The value at a time. Raises ValueError."""
    low, high = real(visitor, "low", 0.0, -1e12, 1e12), real(visitor, "high", 100.0, -1e12, 1e12)
    phase = seconds / real(visitor, "period", 60.0, 0.001, 1e9) % 1.0
    kind = visitor.get("wave")
    if kind == "sine":
        part = 0.5 - 0.5 * math.cos(2 * math.pi * phase)
    elif kind == "ramp":
        part = phase
    elif kind == "square":
        part = float(phase >= 0.5)
    elif kind == "random":
        part = random.random()
    elif kind == "constant":
        part = 0.0
    else:
        raise ValueError(f"wave {kind!r} is none of constant, sine, ramp, square, random")
    return low + (high - low) * part
