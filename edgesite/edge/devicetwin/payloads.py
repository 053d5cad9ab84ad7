"""What clients and the cloud send about devices, read and judged by its syntax.

Errors  Refused, with KubeEdge's code and words.
Source  KubeEdge v1.12, edge/pkg/devicetwin/dttype and /dtcommon.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

import msgspec

__all__ = [
    "BAD_KEY",
    "BAD_VALUE",
    "InDevice",
    "InMembership",
    "InTwin",
    "InUpdate",
    "InValue",
    "InVersion",
    "Refused",
    "check_syntax",
    "read_event",
    "read_membership",
    "read_state",
    "read_update",
]

MOST_BYTES: Final = 1 << 20  #: of a message about a device
BAD_KEY: Final = (
    "The key of twin must only include upper or lowercase letters, number, english, and special letter - _ . , : / @ # and the "
    "length of key should be less than 128 bytes"
)
BAD_VALUE: Final = (
    "The value of twin must only include upper or lowercase letters, number, english, and special letter - _ . , : / @ # and the "
    "length of value should be less than 512 bytes"
)
NOT_JSON: Final = "Unmarshal update request body failed, please check the request"
NO_TWIN: Final = "Update twin error, key:twin does not exist"
_KEY: Final = re.compile(r"[a-zA-Z0-9\-_.,:/@#]{1,128}")
_VALUE: Final = re.compile(r"[a-zA-Z0-9\-_.,:/@#]{1,512}")
_BYTES: Final = re.compile(r"[a-zA-Z0-9\-_.,:/@#+=]{1,512}")


class Refused(Exception):
    """A message is answered with an error. ``known``: the device and the event that it is about are known."""

    def __init__(self, code: int, reason: str, *, known: bool = True) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.known = known


#: As Go's int64: what is larger its programs could not read again.
Int64 = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]


class InTime(msgspec.Struct, gc=False):
    timestamp: Int64 = 0


class InValue(msgspec.Struct):
    value: str | None = None
    metadata: InTime | None = None  #: only shown again; times are our own

    @property
    def timestamp(self) -> int:
        return self.metadata.timestamp if self.metadata is not None else 0


class InVersion(msgspec.Struct, gc=False):
    cloud: Int64 = 0
    edge: Int64 = 0


class InMeta(msgspec.Struct, gc=False):
    type: str | None = None


class InTwin(msgspec.Struct):
    expected: InValue | None = None
    actual: InValue | None = None
    optional: bool | None = None
    metadata: InMeta | None = None
    expected_version: InVersion | None = None
    actual_version: InVersion | None = None

    @property
    def type(self) -> str:
        return (self.metadata.type if self.metadata is not None else None) or ""


class InUpdate(msgspec.Struct):
    event_id: str = ""
    timestamp: Int64 = 0
    twin: dict[str, InTwin | None] | None = None


class InAttribute(msgspec.Struct):
    value: str | None = None
    optional: bool | None = None
    metadata: dict[str, Any] | None = None


class InDevice(msgspec.Struct):
    id: str = ""
    name: str = ""
    description: str = ""
    state: str = ""
    attributes: dict[str, InAttribute] | None = None
    twin: dict[str, InTwin | None] | None = None


class InMembership(msgspec.Struct):
    event_id: str = ""
    timestamp: Int64 = 0
    added_devices: list[InDevice] | None = None
    removed_devices: list[InDevice] | None = None
    devices: list[InDevice] | None = None


class InState(msgspec.Struct):
    event_id: str = ""
    timestamp: Int64 = 0
    state: str = ""


class InEvent(msgspec.Struct):
    event_id: str = ""
    timestamp: Int64 = 0


_update: Final = msgspec.json.Decoder(InUpdate)
_membership: Final = msgspec.json.Decoder(InMembership)
_state: Final = msgspec.json.Decoder(InState)
_event: Final = msgspec.json.Decoder(InEvent)


def _read(decoder: Any, data: bytes, reason: str) -> Any:
    if len(data) > MOST_BYTES:
        raise Refused(400, reason, known=False)
    try:
        return decoder.decode(data)
    except (ValueError, RecursionError) as exc:  # DecodeError is a ValueError
        raise Refused(400, reason, known=False) from exc


def read_update(data: bytes) -> InUpdate:
    """Read a twin update. Raises Refused."""
    update: InUpdate = _read(_update, data, NOT_JSON)
    if update.twin is None:
        raise Refused(400, NO_TWIN, known=False)
    return update


def check_syntax(update: InUpdate) -> None:
    """Keys and values of a client's update. Raises Refused."""
    for key, twin in (update.twin or {}).items():
        if not _KEY.fullmatch(key):
            raise Refused(400, BAD_KEY, known=False)
        if twin is None:
            continue
        allowed = _BYTES if twin.type == "bytes" else _VALUE
        for side in (twin.expected, twin.actual):
            if side is not None and side.value and not allowed.fullmatch(side.value):
                raise Refused(400, BAD_VALUE, known=False)


def read_membership(data: bytes) -> InMembership:
    """Read which devices come and go. Raises Refused."""
    membership: InMembership = _read(_membership, data, NOT_JSON)
    return membership


def read_state(data: bytes) -> InState:
    """Read a device's state. Raises Refused."""
    state: InState = _read(_state, data, NOT_JSON)
    return state


def read_event(data: bytes) -> InEvent:
    """Read a question, which has an id alone. Raises Refused."""
    event: InEvent = _read(_event, data, NOT_JSON)
    return event
