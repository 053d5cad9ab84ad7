"""The queue before one sink: values are sent in batches, in order; while the sink is away the newest wait and the oldest go.

Units   Seconds; sizes are characters.
Errors  None leaves `run`. What goes wrong is counted, and logged when it begins and when it ends.
Bounds  `MOST` values and `MOST_CHARS` characters wait; an attempt ends after `SEND_S`.
State   In memory: what waits is lost with the process.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import anyio

from edgesite.mapper.push.sink import Away, Outside, Refused, Route, Sample, Sink

if TYPE_CHECKING:
    from edgesite.mapper.push.meters import PushMeters

__all__ = ["Channel"]

MOST: Final = 10_000
MOST_CHARS: Final = 8 * 1024 * 1024
BATCH_CHARS: Final = 512 * 1024
SEND_S: Final = 10.0
CLOSE_S: Final = 2.0
IDLE_S: Final = 600.0  #: after which the connection is given up
FIRST_S: Final = 1.0
MOST_S: Final = 60.0


class Channel:
    """See the module docstring. `put` never waits."""

    def __init__(self, route: Route, outside: Outside, meters: PushMeters) -> None:
        self._route, self._outside, self._meters = route, outside, meters
        self._waiting: deque[Sample] = deque()
        self._chars = 0
        self._came = anyio.Event()
        self._sink: Sink | None = None
        self._under_way = 0
        self._trouble = ""
        self._refused = ""

    def __len__(self) -> int:
        return len(self._waiting) + self._under_way

    def put(self, sample: Sample) -> None:
        if len(sample.value) > BATCH_CHARS:
            self._refuse([sample], f"a value of {len(sample.value)} characters is too long")
            return
        self._waiting.append(sample)
        self._chars += len(sample.value)
        while len(self._waiting) > MOST or self._chars > MOST_CHARS:
            self._chars -= len(self._waiting.popleft().value)
            self._meters.dropped(self._route.kind, "full")
        self._came.set()

    async def run(self) -> None:
        """Send what comes, until nothing has come for `IDLE_S`; then, or when cancelled, it has to be closed."""
        while await self._has_some():
            await self._deliver(self._take())

    async def close(self) -> None:
        """Give up the connection, and what waits. Nothing may be put any more."""
        if left := len(self._waiting) + self._under_way:
            self._meters.dropped(self._route.kind, "ended", left)
        if self._sink is not None:
            with anyio.move_on_after(CLOSE_S, shield=True):
                try:
                    await self._sink.close()
                except Exception as exc:
                    self._outside.host.log.debug("closing %s: %s", self._route.kind, exc)

    async def _has_some(self) -> bool:
        if not self._waiting:
            self._came = anyio.Event()
            with anyio.move_on_after(IDLE_S):
                await self._came.wait()
        return bool(self._waiting)

    def _take(self) -> list[Sample]:
        if self._sink is None:
            self._sink = self._route.open(self._outside)
        batch: list[Sample] = []
        chars = 0
        while self._waiting and len(batch) < self._sink.most and chars <= BATCH_CHARS:
            batch.append(self._waiting.popleft())
            chars += len(batch[-1].value)
        self._chars -= chars
        return batch

    async def _deliver(self, batch: list[Sample]) -> None:
        """Send until they are taken or refused, or newer ones need their place."""
        wait_s, host = FIRST_S, self._outside.host
        while batch:
            self._under_way = len(batch)
            try:
                await self._send(batch)
                self._under_way = 0
                return
            except OSError as exc:
                self._away(exc)
                if self._shorten(batch, exc):
                    wait_s = FIRST_S
                asked_s = min(exc.after_s, MOST_S) if isinstance(exc, Away) else 0.0
                await host.clock.sleep(max(wait_s * (0.5 + host.random.random() / 2), asked_s))
                wait_s = min(2 * wait_s, MOST_S)
            over = min(len(self._waiting) + len(batch) - MOST, len(batch))
            if over > 0:  # the oldest go, and these are the oldest
                self._meters.dropped(self._route.kind, "full", over)
                del batch[:over]
        self._under_way = 0

    def _shorten(self, batch: list[Sample], exc: OSError) -> bool:
        """Take out what will not be sent again; whether there is any."""
        before = len(batch)
        if taken := getattr(self._sink, "taken", 0):
            self._meters.sent(self._route.kind, len(batch[:taken]))
            del batch[:taken]
        if batch and isinstance(exc, Away) and exc.refused:
            self._refuse(batch[:1], exc.refused)
            del batch[0]
        return len(batch) < before

    async def _send(self, batch: list[Sample]) -> None:
        """Raises OSError, with what was not sent in ``batch``."""
        assert self._sink is not None
        try:
            with anyio.fail_after(SEND_S):
                await self._sink.send(batch)
        except Refused as exc:
            await self._part(batch, exc)
        except TimeoutError as exc:
            raise Away(str(exc) or f"no answer within {SEND_S:g} s") from exc
        except OSError:
            raise
        except Exception:
            self._outside.host.log.exception("pushing to %s fails", self._route.kind)
            self._meters.dropped(self._route.kind, "failed", len(batch))
        else:
            self._sent(len(batch))

    async def _part(self, batch: list[Sample], exc: Refused) -> None:
        """Drop what is refused, and that alone. Raises OSError."""
        if exc.places:
            self._refuse([batch[place] for place in exc.places], str(exc))
            self._sent(len(batch) - len(exc.places))
        elif len(batch) == 1:
            self._refuse(batch, str(exc))
        else:
            rest = batch[len(batch) // 2 :]
            del batch[len(batch) // 2 :]
            try:
                await self._send(batch)
                batch.clear()
                await self._send(rest)
            except OSError:
                batch += rest
                raise

    def _refuse(self, samples: list[Sample], why: str) -> None:
        self._meters.dropped(self._route.kind, "refused", len(samples))
        if why != self._refused:
            self._refused = why
            first = samples[0]
            self._outside.host.log.warning(
                "%s refuses property %s of device %s/%s: %s",
                self._route.kind,
                first.property,
                first.namespace,
                first.device,
                why,
            )

    def _sent(self, count: int) -> None:
        self._meters.sent(self._route.kind, count)
        if count and self._trouble:
            self._trouble = ""
            self._outside.host.log.info("%s takes values again", self._route.kind)

    def _away(self, exc: OSError) -> None:
        self._meters.failed(self._route.kind)
        if not self._trouble:  # when it begins, not each attempt
            self._outside.host.log.warning("%s takes no values: %s; trying again", self._route.kind, exc)
        self._trouble = str(exc) or type(exc).__name__
