"""What the cloud said of tokens and requests, kept for a while; and how many may wait for its answer at once.

Anybody can make up tokens. So refusals are kept apart from answers that let somebody through, reviews of what is not known here take places, of which each
peer has a share (`places`), and who was let through before needs none.

Units   Seconds of the monotonic clock.
Errors  ApiError: those of who is asked; 429 when too many wait.
State   Answers, bounded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import anyio

from edgesite.edge.metaserver.places import Places
from edgesite.kube.errors import ApiError

__all__ = ["Answers", "Kept", "places"]

T = TypeVar("T")
KEPT_S: Final = 10.0
REFUSED_KEPT_S: Final = 5.0
REFUSED: Final = 256
REVIEWS_AT_ONCE: Final = 64
REVIEWS_OF_PEER: Final = 16
WAITING: Final = 64  #: reviews that wait for a place
WAIT_S: Final = 5.0
#: Gives the places that a question needs, and of whose share they are; may refuse by raising ApiError.
Chosen = Callable[[], tuple[Places, str]]


@dataclass(slots=True)
class Kept(Generic[T]):
    """An answer, or why there was none, since ``at``."""

    value: T | None
    error: ApiError | None
    at: float


def places() -> Places:
    """For one kind of who asks."""
    return Places(REVIEWS_AT_ONCE, REVIEWS_OF_PEER, WAITING, WAIT_S)


class Answers(Generic[T]):
    """Answers of the cloud for a while; who asks the same at the same time waits for one answer.

    ``most`` answers for which ``lets_through`` is true are kept, and `REFUSED` others.
    """

    def __init__(self, most: int, now: Callable[[], float], lets_through: Callable[[T], bool]) -> None:
        self._most = most
        self._now = now
        self._lets_through = lets_through
        self._good: OrderedDict[Hashable, Kept[T]] = OrderedDict()
        self._refused: OrderedDict[Hashable, Kept[T]] = OrderedDict()
        self._asking: dict[Hashable, anyio.Event] = {}

    def __len__(self) -> int:
        return len(self._good) + len(self._refused)

    def last(self, key: Hashable) -> Kept[T] | None:
        """Return the newest answer, however old; None if there is none any more."""
        return self._good.get(key) or self._refused.get(key)

    async def get(self, key: Hashable, choose: Chosen, ask: Callable[[], Awaitable[T]]) -> T:
        """``choose`` is called for what was not let through before: the places, and of whose share. Raises ApiError."""
        while True:
            kept = self.last(key)
            if kept is not None and self._now() - kept.at < (KEPT_S if kept.error is None else REFUSED_KEPT_S):
                if kept.error is not None:
                    raise kept.error
                assert kept.value is not None
                return kept.value
            waiting = self._asking.get(key)
            if waiting is None:
                break
            await waiting.wait()
        chosen = None if key in self._good else choose()
        return await self._ask(key, chosen, ask)

    async def _ask(self, key: Hashable, chosen: tuple[Places, str] | None, ask: Callable[[], Awaitable[T]]) -> T:
        """Raises ApiError."""
        done = self._asking[key] = anyio.Event()
        try:
            async with chosen[0].one(chosen[1]) if chosen is not None else nullcontext():
                value = await ask()
        except ApiError as exc:
            if exc.code in (401, 403):
                self._keep(key, Kept(None, exc, self._now()), lets_through=False)
            raise
        else:
            self._keep(key, Kept(value, None, self._now()), lets_through=self._lets_through(value))
            return value
        finally:
            del self._asking[key]
            done.set()

    def _keep(self, key: Hashable, kept: Kept[T], *, lets_through: bool) -> None:
        """Keep the newest answer alone: who is refused now has lost what was said before."""
        self._good.pop(key, None)
        self._refused.pop(key, None)
        answers, most = (self._good, self._most) if lets_through else (self._refused, REFUSED)
        answers[key] = kept
        while len(answers) > most:
            answers.popitem(last=False)
