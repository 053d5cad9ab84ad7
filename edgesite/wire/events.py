"""What a session tells its driver, in the order in which it happened."""

from __future__ import annotations

import msgspec

from edgesite.wire.delivery import ObjectRef
from edgesite.wire.message import Message

__all__ = [
    "Answer",
    "Closed",
    "Delivered",
    "Denied",
    "Event",
    "Forget",
    "Greeted",
    "Holdings",
    "Opened",
    "Received",
    "Refused",
    "Removed",
    "Sent",
]


class Received(msgspec.Struct, frozen=True):
    """A message for the modules on this side. At the edge: send its acknowledgement once it is stored."""

    message: Message


class Answer(msgspec.Struct, frozen=True):
    """A message that answers a request of this side; it is for the waiting call alone."""

    message: Message


class Sent(msgspec.Struct, frozen=True):
    """The first message about an object has left for a peer that will not tell what it holds: from now on it may have it,
    and must hear of its end, whatever becomes of this session."""

    ref: ObjectRef


class Delivered(msgspec.Struct, frozen=True):
    """The edge has stored this version of the object."""

    ref: ObjectRef


class Removed(msgspec.Struct, frozen=True):
    """The edge has removed the object."""

    ref: ObjectRef


class Refused(msgspec.Struct, frozen=True):
    """The edge cannot read this version of the object, or no transport would carry it: it is not sent again, a newer one is. An
    answer that was too large has a reference without a uid."""

    ref: ObjectRef
    reason: str


class Denied(msgspec.Struct, frozen=True):
    """The edge knows that the object has ended, and does not take it."""

    ref: ObjectRef


class Forget(msgspec.Struct, frozen=True):
    """The cloud asks to forget which versions of these objects are held, and that they have ended; then to tell all holdings."""

    uids: tuple[str, ...]


class Greeted(msgspec.Struct, frozen=True):
    """It is known now whether the peer is one of ours (``own``), and what it can do. Comes once per session."""

    own: bool
    features: frozenset[str] = frozenset()


class Holdings(msgspec.Struct, frozen=True):
    """The edge has told which versions it holds: the truth about it, whatever was recorded."""

    objects: tuple[ObjectRef, ...]


class Opened(msgspec.Struct, frozen=True):
    """Objects may leave from now on: compare what the edge has with what it should have. Comes again if the edge tells late."""


class Closed(msgspec.Struct, frozen=True):
    """The session has ended; ``reason`` is for the log."""

    reason: str


Event = (
    Received | Answer | Sent | Delivered | Removed | Refused | Denied | Forget | Greeted | Holdings | Opened | Closed
)
