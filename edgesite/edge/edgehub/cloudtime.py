"""The time as the cloud has it, for what depends on it: whether this node's certificate is due for renewal.

A device without a clock of its own starts in 1970, and one whose battery is empty may start years ahead. The cloud checks
certificates by its clock and signs them by it, so its time counts. Answers over verified connections tell it (HTTP's Date header);
from there on the monotonic clock counts, which a jump of this machine's clock does not touch.

Units   Seconds; times of day since the epoch. A Date header has whole seconds.
State   The last time told, and when.
Source  RFC 9110 section 6.6.1.
"""

from __future__ import annotations

import logging
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

from edgesite.kube.times import format_time, human_duration

if TYPE_CHECKING:
    from edgesite.context import Clock

__all__ = ["CloudTime"]

_NOTABLE_S: Final = 300.0  #: clocks that differ by less are as good as the same


class CloudTime:
    """`now` is this machine's own time until the cloud has told its."""

    def __init__(self, clock: Clock, log: logging.Logger | logging.LoggerAdapter[logging.Logger]) -> None:
        self._clock = clock
        self._log = log
        self._ahead_s: float | None = None  # the cloud's time minus the monotonic clock
        self._said_s = 0.0  # by how much the clocks differ, as last logged

    def now(self) -> float:
        if self._ahead_s is None:
            return self._clock.time()
        return self._clock.monotonic() + self._ahead_s

    def note(self, date: str | None) -> bool:
        """Take a Date header of an answer from the cloud; False if there is none that can be read."""
        if not date:
            return False
        try:
            told = parsedate_to_datetime(date).timestamp()
        except (ValueError, OverflowError, OSError):
            return False
        self._ahead_s = told - self._clock.monotonic()
        self._tell(self._clock.time() - told, told)
        return True

    def _tell(self, difference_s: float, told: float) -> None:
        """Log once that the clocks differ, and once that they do no more."""
        if abs(difference_s - self._said_s) < _NOTABLE_S:
            return
        if abs(difference_s) < _NOTABLE_S:
            self._said_s = 0.0
            self._log.info("this machine's clock agrees with the cloud's again")
            return
        self._said_s = difference_s
        self._log.warning(
            "this machine's clock is %s %s the cloud's, where it is %s: set it, or have it set by NTP",
            human_duration(abs(difference_s)), "ahead of" if difference_s > 0 else "behind", format_time(told),
        )  # fmt: skip
