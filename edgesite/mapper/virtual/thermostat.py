"""A room with a heater and a thermostat.

The room is one heat capacity that loses heat to the outside through its walls and gets it from the heater, which is on or off with a hysteresis
about the target. Between switches the temperature follows the exact solution, an exponential, so a step may be of any length.

Units   Degrees Celsius, watts, joules; seconds of the simulated clock, which runs ``speed`` times as fast as the real one.
Errors  ValueError for settings that no room has.
State   The room; nothing happens but by `advance`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

__all__ = ["Room", "real"]

_HYSTERESIS: Final = 0.2
_SWITCHES: Final = 1000  #: in one step; then the day is over
_DAY_S: Final = 86_400.0


def real(settings: Mapping[str, Any], name: str, default: float, least: float, most: float) -> float:
    """Return a number of the settings, which may be text. Raises ValueError."""
    given = settings.get(name, default)
    try:
        value = math.nan if isinstance(given, bool) else float(given)
    except (TypeError, ValueError):
        value = math.nan
    if not least <= value <= most:
        raise ValueError(f"{name} {given!r} is no number from {least:g} to {most:g}")
    return value


@dataclass(slots=True)
class Room:
    """See the module docstring."""

    quantities: ClassVar[Mapping[str, str]] = {
        "target": "target",
        "temperature": "temperature",
        "actual": "temperature",
        "outside": "outside",
        "heating": "heating",
        "power": "power",
    }
    writable: ClassVar[frozenset[str]] = frozenset({"target", "outside"})

    temperature: float = 16.0
    target: float = 20.0
    outside: float = 8.0
    heating: bool = False
    heater_w: float = 3000.0
    loss_w_per_k: float = 100.0
    capacity_j_per_k: float = 1.2e6

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Room:
        """Raises ValueError."""
        return cls(
            temperature=real(settings, "temperature", 16.0, -60, 100),
            target=real(settings, "target", 20.0, -60, 100),
            outside=real(settings, "outside", 8.0, -60, 60),
            heater_w=real(settings, "heaterWatts", 3000.0, 0, 1e6),
            loss_w_per_k=real(settings, "lossWattsPerKelvin", 100.0, 1, 1e5),
            capacity_j_per_k=real(settings, "capacityJoulesPerKelvin", 1.2e6, 1e3, 1e9),
        )

    @property
    def power(self) -> float:
        return self.heater_w if self.heating else 0.0

    def advance(self, seconds: float) -> None:
        """Let time pass; of a step that is longer than a day the last day counts."""
        left = min(max(seconds, 0.0), _DAY_S)
        for _ in range(_SWITCHES):
            self._switch()
            step = min(left, self._until_switch())
            self._drift(step)
            left -= step
            if left <= 0:
                break
        self._switch()

    def _switch(self) -> None:
        if self.temperature <= self.target - _HYSTERESIS + 1e-9:
            self.heating = True
        elif self.temperature >= self.target + _HYSTERESIS - 1e-9:
            self.heating = False

    def _goal(self) -> float:
        """Where the temperature would end if nothing switched."""
        return self.outside + self.power / self.loss_w_per_k

    def _until_switch(self) -> float:
        goal = self._goal()
        limit = self.target + (_HYSTERESIS if self.heating else -_HYSTERESIS)
        before, after = self.temperature - goal, limit - goal
        if before * after <= 0 or abs(after) >= abs(before):  # never gets there
            return math.inf
        return self.capacity_j_per_k / self.loss_w_per_k * math.log(before / after)

    def _drift(self, seconds: float) -> None:
        if math.isinf(seconds):
            self.temperature = self._goal()
            return
        goal = self._goal()
        tau = self.capacity_j_per_k / self.loss_w_per_k
        self.temperature = goal + (self.temperature - goal) * math.exp(-seconds / tau)
