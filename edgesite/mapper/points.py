"""What a worker keeps of one property: its newest value, what is wanted of it, and when it is due for what.

Units   Seconds, monotonic, given as ``now``; ``at_ms`` since the Unix epoch.
Errors  None raised.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Final

from edgesite.mapper.conversion import PLAIN, ConversionError, Layout
from edgesite.mapper.driver import Property

__all__ = ["Point"]

_NEVER: Final = math.inf
_FIRST_S: Final = 1.0
_MOST_S: Final = 60.0
_EARLY: Final = 0.05  #: of a report cycle: what is due so soon goes with what is read now


@dataclass(slots=True)
class Point:
    """See the module docstring. Times are -inf for at once and inf for never."""

    REFRESH_S: ClassVar[float] = 60.0  #: after which an unchanged value is reported again

    prop: Property
    layout: Layout = PLAIN
    text: str = ""  #: the newest value
    at_ms: int = 0  #: when it was read
    is_fresh: bool = False  #: whether it was read since it was looked at for a report
    reported: tuple[str, str] | None = None  #: value and observed desired value
    reported_at: float = -math.inf
    report_at: float = -math.inf
    collect_at: float = -math.inf
    wanted: str = ""
    written: str = ""  #: what the device was last told to be
    is_refused: bool = False  #: whether what is wanted is no value
    write_at: float = _NEVER
    write_wait_s: float = _FIRST_S
    read_wait_s: float = 0.0
    trouble: str = ""
    write_trouble: str = ""

    @classmethod
    def of(cls, prop: Property) -> Point:
        """A visitor whose words cannot be read has none: drivers that give bytes then meet the property's type alone."""
        try:
            return cls(prop, Layout.of(prop.visitor))
        except ConversionError as exc:
            return cls(prop, trouble=str(exc))

    def begin(self, now: float) -> None:
        """There is a new connection."""
        self.collect_at = now if self.prop.collect_every < _NEVER else _NEVER
        self.read_wait_s, self.write_wait_s = 0.0, _FIRST_S
        self.write_at = now if self.wanted and not self.is_refused else _NEVER

    def next_at(self) -> float:
        report_at = self.report_at - self.prop.report_every * _EARLY if self.is_fresh else _NEVER
        return min(self.collect_at, self.write_at, report_at)

    # Reading

    def take(self, text: str, at_ms: int) -> None:
        self.text, self.at_ms, self.is_fresh = text, at_ms, True

    def advance(self, now: float) -> None:
        """It was read: keep the rhythm, but do not catch up."""
        every = self.prop.collect_every
        self.collect_at = max(self.collect_at + every, now) if self.collect_at > now - every else now + every

    def collect_soon(self, now: float) -> None:
        if self.prop.collect_every < _NEVER:
            self.collect_at = now

    def fail(self, why: str) -> bool:
        """Whether this is another trouble than before."""
        is_new, self.trouble = why != self.trouble, why
        return is_new

    def put_off(self, now: float) -> None:
        """It cannot be read: try it less and less often."""
        every = self.prop.collect_every
        self.read_wait_s = min(max(2 * self.read_wait_s, every), max(_MOST_S, every))
        self.collect_at = now + self.read_wait_s

    def recover(self) -> None:
        self.trouble, self.read_wait_s = "", 0.0

    # Writing

    def want(self, text: str) -> None:
        if text == self.wanted:
            return
        self.wanted, self.is_refused, self.write_wait_s = text, False, _FIRST_S
        self.write_at = -math.inf if text else _NEVER

    def refuse(self) -> None:
        self.is_refused, self.write_at = True, _NEVER

    def wrote(self, text: str, now: float) -> None:
        self.written, self.write_trouble, self.write_wait_s = text, "", _FIRST_S
        if self.wanted == text:  # it may have changed while it was written
            self.write_at = _NEVER
        self.collect_soon(now)

    def fail_write(self, text: str, why: str, now: float, chance: float) -> bool:
        """Whether this is another trouble than before. What is wanted since then is tried at once."""
        if self.wanted == text:
            self.write_at = now + self.write_wait_s * (0.5 + chance / 2)
            self.write_wait_s = min(2 * self.write_wait_s, _MOST_S)
        is_new, self.write_trouble = why != self.write_trouble, why
        return is_new

    # Reporting

    def is_due(self, now: float) -> bool:
        return self.is_fresh and self.report_at - self.prop.report_every * _EARLY <= now

    def has_news(self, now: float) -> bool:
        return (self.text, self.written) != self.reported or now - self.reported_at >= self.REFRESH_S

    def told(self, now: float) -> None:
        self.reported, self.reported_at = (self.text, self.written), now
