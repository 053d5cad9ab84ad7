"""What a controller has done and not yet seen in its cache: until then counting the cache would count wrongly.

Units   Times are monotonic seconds.
State   In memory, by the key of the owner; entries end when they are seen, or after a while, should an event be missed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from edgesite.client import ObjectKey
    from edgesite.context import Clock

__all__ = ["Expectations"]

PATIENCE_S: Final = 300.0  #: as kube-controller-manager: a missed event must not stop a controller for ever


@dataclass(slots=True)
class _Expected:
    until: float
    created: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)


class Expectations:
    """Creations and deletions by owner, each by the object's uid."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._expected: dict[ObjectKey, _Expected] = {}

    def created(self, owner: ObjectKey, uid: str) -> None:
        """An object was made that the cache does not show yet."""
        self._of(owner).created.add(uid)

    def deleted(self, owner: ObjectKey, uid: str) -> None:
        """An object is being deleted, and the cache does not show that yet."""
        self._of(owner).deleted.add(uid)

    def saw(self, owner: ObjectKey, uid: str, *, leaving: bool) -> None:
        """The cache shows the object; ``leaving``: as one that is being deleted, or is gone."""
        expected = self._expected.get(owner)
        if expected is None:
            return
        expected.created.discard(uid)
        if leaving:
            expected.deleted.discard(uid)
        if not expected.created and not expected.deleted:
            del self._expected[owner]

    def pending_s(self, owner: ObjectKey) -> float:
        """Seconds to wait at most for what is expected; 0.0: nothing is."""
        expected = self._expected.get(owner)
        if expected is None:
            return 0.0
        left_s = expected.until - self._clock.monotonic()
        if left_s <= 0:
            del self._expected[owner]
            return 0.0
        return left_s

    def forget(self, owner: ObjectKey) -> None:
        self._expected.pop(owner, None)

    def _of(self, owner: ObjectKey) -> _Expected:
        until = self._clock.monotonic() + PATIENCE_S
        expected = self._expected.setdefault(owner, _Expected(until))
        expected.until = until
        return expected
