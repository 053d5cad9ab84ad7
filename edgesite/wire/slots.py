"""What a node's session keeps of each object, and its bounds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import msgspec

from edgesite.wire.delivery import ObjectRef
from edgesite.wire.frames import MESSAGE_BYTES
from edgesite.wire.message import Message, Operation

__all__ = ["SessionCounts", "SessionLimits", "Slot", "State"]


@dataclass(slots=True)
class SessionCounts:
    """What sessions did with messages about objects; one may be shared by all sessions of a hub."""

    sent: int = 0  #: first sendings
    repeated: int = 0  #: sent again, for no acknowledgement came in time
    coalesced: int = 0  #: replaced by a newer state of their object before they left
    stale: int = 0  #: not sent: the edge has this state or a newer one, or will have


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Times in seconds and bounds of a session."""

    keepalive_s: float = 30.0  #: silence after which the peer is lost
    resend_s: float = 5.0
    attempts: int = 5  #: then others go first, and the message waits
    retry_s: float = 1.0  #: first such wait; doubles
    retry_most_s: float = 60.0
    busy_most_s: float = 30.0  #: how long an edge that says it is busy is left alone at most
    hold_s: float = 3.0  #: how long objects wait for the peer to tell who it is and what it holds
    window: int = 256  #: objects in flight to a peer of ours
    window_bytes: int = 128 * 1024  #: of these, so that a delete soon gets through a slow link
    foreign_window: int = 1  #: objects in flight to any other
    frame_messages: int = 64  #: in one frame
    frame_bytes: int = 32 * 1024  #: beyond which nothing more is put into a frame
    message_bytes: int = MESSAGE_BYTES  #: of a message of the transport
    once: int = 4096  #: waiting messages that are sent once; beyond it the oldest is dropped


class State(IntEnum):
    WAITING = 0  #: in a lane
    IN_FLIGHT = 1
    RESTING = 2  #: not acknowledged in all attempts; comes back at ``due``


class Slot(msgspec.Struct):
    message: Message
    ref: ObjectRef
    state: State = State.WAITING
    newer: tuple[Message, ObjectRef] | None = None  #: replaces ``message`` when it is acknowledged or due
    attempts: int = 0  #: sendings in this round
    rounds: int = 0
    due: float = 0.0
    have: int | None = None  #: version at the edge when it left
    whole: bool = False  #: not as a delta: the edge does not hold the base
    size: int = 0  #: bytes in flight

    @property
    def is_delete(self) -> bool:
        return self.message.operation == Operation.DELETE

    @property
    def is_timed(self) -> bool:
        return self.state is not State.WAITING

    @property
    def newest(self) -> tuple[Message, ObjectRef]:
        return self.newer or (self.message, self.ref)
