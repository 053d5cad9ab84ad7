"""Keeps this node's certificate from ending: asks for a new one in time, by the cloud's clock (`cloudtime`).

Before anything is signed the cloud is asked for the time, so that a clock that has jumped ahead renews nothing, and one that is behind
misses nothing. What cannot be renewed now is tried again; the present certificate serves on.

Units   Seconds.
Errors  None leave: failures are logged, each once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from edgesite.edge.edgehub.backoff import MOST_S
from edgesite.edge.edgehub.certificates import JoinError

if TYPE_CHECKING:
    import random

    from edgesite.context import Clock
    from edgesite.edge.edgehub.certificates import Certificates
    from edgesite.edge.edgehub.cloudtime import CloudTime

__all__ = ["Renewal"]

LOOK_S: Final = 3600.0  #: how often it is looked whether it is time


class Renewal:
    """``renewed`` is called whenever there is a new certificate."""

    def __init__(
        self,
        certificates: Certificates,
        time: CloudTime,
        clock: Clock,
        draw: random.Random,
        log: logging.Logger | logging.LoggerAdapter[logging.Logger],
        renewed: Callable[[], None],
    ) -> None:
        self._certificates = certificates
        self._time = time
        self._clock = clock
        self._random = draw
        self._log = log
        self._renewed = renewed
        self._said = ""

    async def run(self) -> None:
        """Renew whenever it is time, until cancelled."""
        while True:
            await self._clock.sleep(await self._once())

    async def _once(self) -> float:
        """Look, renew if it is time, and return for how long to rest."""
        rest_s = MOST_S * (0.5 + self._random.random() / 2)
        try:
            due = await self._certificates.renewal_at()
        except JoinError as exc:
            self._log.debug("no certificate yet: %s", exc)
            return rest_s
        if (left := due - self._time.now()) > 0:
            return min(left, LOOK_S)
        try:
            self._time.note(await self._certificates.ask_date())
            if (left := due - self._time.now()) > 0:
                return min(max(left, rest_s), LOOK_S)
            await self._certificates.renew()
        except JoinError as exc:
            level = logging.DEBUG if self._said == str(exc) else logging.WARNING  # not each attempt
            self._log.log(level, "the certificate is due for renewal, but there is no new one: %s", exc)
            self._said = str(exc)
            return rest_s
        self._said = ""
        self._log.info("the certificate was renewed")
        self._renewed()
        return LOOK_S  # whatever its dates are, not at once again
