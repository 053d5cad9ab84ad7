"""A tank that a pump fills and a valve empties, with an alarm and an overflow.

Water leaves through the valve with Torricelli's law: as the square root of the level.

Units   Metres, square metres, cubic metres a second; pump and valve in percent; seconds.
Errors  ValueError for settings that no tank has.
State   The tank; nothing happens but by `advance`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from edgesite.mapper.virtual.thermostat import real

__all__ = ["Tank"]

_GRAVITY: Final = 9.81
_STEP_S: Final = 1.0
_STEPS: Final = 5_000  #: in one call; longer times are stepped through more coarsely, up to a day
_DAY_S: Final = 86_400.0


@dataclass(slots=True)
class Tank:
    """See the module docstring."""

    quantities: ClassVar[Mapping[str, str]] = {
        "level": "level",
        "inflow": "inflow",
        "outflow": "outflow",
        "spilled": "spilled",
        "alarm": "alarm",
        "pump": "pump",
        "valve": "valve",
    }
    writable: ClassVar[frozenset[str]] = frozenset({"pump", "valve"})

    level: float = 1.0
    pump: float = 50.0
    valve: float = 50.0
    height: float = 4.0
    area: float = 2.0
    pump_flow: float = 0.02
    opening: float = 0.005
    spilled: float = 0.0

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Tank:
        """Raises ValueError."""
        height = real(settings, "height", 4.0, 0.1, 100)
        return cls(
            level=real(settings, "level", min(1.0, height), 0, height),
            pump=real(settings, "pump", 50.0, 0, 100),
            valve=real(settings, "valve", 50.0, 0, 100),
            height=height,
            area=real(settings, "area", 2.0, 0.01, 10_000),
            pump_flow=real(settings, "pumpFlow", 0.02, 0, 100),
            opening=real(settings, "opening", 0.005, 0, 10),
        )

    @property
    def alarm(self) -> bool:
        return self.level >= 0.9 * self.height

    @property
    def inflow(self) -> float:
        return self.pump_flow * min(max(self.pump, 0.0), 100.0) / 100

    @property
    def outflow(self) -> float:
        return self.opening * min(max(self.valve, 0.0), 100.0) / 100 * math.sqrt(2 * _GRAVITY * self.level)

    def advance(self, seconds: float) -> None:
        left = min(max(seconds, 0.0), _DAY_S)
        step = max(_STEP_S, left / _STEPS)
        while left > 0:
            part = min(step, left)
            level = self.level + (self.inflow - self.outflow) * part / self.area
            if level > self.height:
                self.spilled += (level - self.height) * self.area
            self.level = min(max(level, 0.0), self.height)
            left -= part
