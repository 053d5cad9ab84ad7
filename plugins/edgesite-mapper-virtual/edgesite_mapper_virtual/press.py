"""A press that makes parts, wears its tool, and stops when the tool is worn out, until somebody writes ``service``.

Units   Strokes a minute; wear in percent; seconds.
Errors  ValueError for settings that no press has.
State   The press; nothing happens but by `advance` and writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from edgesite.mapper.virtual.thermostat import real

__all__ = ["Press"]


@dataclass(slots=True)
class Press:
    """See the module docstring."""

    quantities: ClassVar[Mapping[str, str]] = {
        "rate": "rate",
        "running": "running",
        "parts": "whole_parts",
        "wear": "wear",
        "jammed": "jammed",
        "service": "service",
    }
    writable: ClassVar[frozenset[str]] = frozenset({"rate", "service"})

    rate: float = 30.0
    life: float = 10_000.0  #: strokes of a tool
    parts: float = 0.0
    wear: float = 0.0

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Press:
        """Raises ValueError."""
        return cls(rate=real(settings, "rate", 30.0, 0, 1000), life=real(settings, "toolLife", 10_000.0, 1, 1e9))

    @property
    def jammed(self) -> bool:
        return self.wear >= 100.0

    @property
    def running(self) -> bool:
        return self.rate > 0 and not self.jammed

    @property
    def whole_parts(self) -> int:
        return int(self.parts)

    @property
    def service(self) -> float:
        """Zero; what is written is the wear of the tool that is put in, 0 for a new one."""
        return 0.0

    @service.setter
    def service(self, wear: float) -> None:
        self.wear = min(max(wear, 0.0), 100.0)

    def advance(self, seconds: float) -> None:
        strokes = max(seconds, 0.0) * max(self.rate, 0.0) / 60
        strokes = min(strokes, (100.0 - self.wear) / 100 * self.life)
        self.parts += strokes
        self.wear = min(self.wear + strokes / self.life * 100, 100.0)
        if 100.0 - self.wear < 1e-9:
            self.wear = 100.0
