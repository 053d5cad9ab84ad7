"""Which of two states of an object is the newer: the rule by which an edge takes or leaves what arrives, in whatever order.

Objects of one key (type, namespace, name) follow one another with new uids; resource versions grow over all of them. A delete
ends a uid for good: no later arrival brings that uid back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

__all__ = ["Held", "Verdict", "judge_delete", "judge_update"]


@dataclass(frozen=True, slots=True)
class Held:
    """What is stored under a key. ``uid`` is "" and ``version`` 0 where unknown."""

    uid: str
    version: int


class Verdict(Enum):
    STORE = "store"
    REPLACE = "replace"  #: store, and the object that was held under the name has ended
    REMOVE = "remove"
    IGNORE = "ignore"


def judge_update(held: Held | None, uid: str, version: int, is_deleted: Callable[[str], bool]) -> Verdict:
    """Decide about an insert or update. ``is_deleted`` tells whether a uid is known to have ended."""
    if uid and is_deleted(uid):
        return Verdict.IGNORE
    if held is None:
        return Verdict.STORE
    if version and held.version and version <= held.version:
        return Verdict.IGNORE
    return Verdict.STORE if not uid or not held.uid or uid == held.uid else Verdict.REPLACE


def judge_delete(held: Held | None, uid: str) -> Verdict:
    """Decide about a delete. One without a uid means whatever is held; one of another uid came too late to matter."""
    if held is None or (uid and held.uid and uid != held.uid):
        return Verdict.IGNORE
    return Verdict.REMOVE
