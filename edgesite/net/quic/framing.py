"""Messages in a QUIC stream, and the greeting that opens a connection.

    message     4 bytes, big endian: bit 31 tells text from binary, the rest is the length; then the message
    greeting    the first message of lane 0, JSON. The edge tells {"version", "node", "project"}, the cloud answers
                {"status": 200} or {"status", "reason", "retryAfter"}, the latter in seconds, and closes

Units   Bytes.
Errors  ProtocolError: a message is larger than allowed, or a greeting is none.
State   `Reader` holds the beginning of a message of which the rest has not come.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from edgesite.kube import json
from edgesite.net.errors import ProtocolError
from edgesite.net.websocket import Message

__all__ = ["VERSION", "Answer", "Hello", "Reader", "encode"]

VERSION: Final = 1
_HEAD: Final = 4
_TEXT: Final = 1 << 31


def encode(data: bytes, *, text: bool) -> bytes:
    """Return a message as it stands in the stream."""
    return (len(data) | (_TEXT if text else 0)).to_bytes(_HEAD, "big") + data


class Reader:
    """Takes the bytes of one stream, gives messages."""

    __slots__ = ("_buffer", "_limit")

    def __init__(self, limit_bytes: int) -> None:
        self._buffer = bytearray()
        self._limit = limit_bytes

    @property
    def limit(self) -> int:
        return self._limit

    @limit.setter
    def limit(self, limit_bytes: int) -> None:
        self._limit = limit_bytes

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages that are complete now. Raises ProtocolError."""
        buffer = self._buffer
        buffer += data
        found: list[Message] = []
        at = 0
        while len(buffer) - at >= _HEAD:
            head = int.from_bytes(buffer[at : at + _HEAD], "big")
            size = head & ~_TEXT
            if size > self._limit:
                raise ProtocolError(f"a message of {size} bytes; {self._limit} are allowed")
            end = at + _HEAD + size
            if len(buffer) < end:
                break
            found.append(Message(bytes(buffer[at + _HEAD : end]), bool(head & _TEXT)))
            at = end
        if at:
            del buffer[:at]
        return found


@dataclass(frozen=True, slots=True)
class Hello:
    """What an edge says first."""

    node: str
    project: str = ""
    version: int = VERSION

    def to_bytes(self) -> bytes:
        return json.dumps({"version": self.version, "node": self.node, "project": self.project})

    @classmethod
    def from_bytes(cls, data: bytes) -> Hello:
        """Raises ProtocolError."""
        members = _members(data)
        match members:
            case {"version": int(version), "node": str(node)}:
                return cls(node, str(members.get("project") or ""), version)
        raise ProtocolError("the greeting names no version and node")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the cloud answers. ``status`` is HTTP's; ``retry_after_s`` 0 tells nothing."""

    status: int
    reason: str = ""
    retry_after_s: float = 0.0

    def to_bytes(self) -> bytes:
        return json.dumps({"status": self.status, "reason": self.reason, "retryAfter": self.retry_after_s})

    @classmethod
    def from_bytes(cls, data: bytes) -> Answer:
        """Raises ProtocolError."""
        match _members(data):
            case {"status": int(status), "reason": str(reason), "retryAfter": int() | float() as retry_after}:
                return cls(status, reason, float(retry_after))
        raise ProtocolError("the answer to the greeting is malformed")


def _members(data: bytes) -> dict[str, Any]:
    try:
        members = json.loads(data)
    except json.InvalidJson as exc:
        raise ProtocolError(f"a greeting that is no JSON: {exc}") from exc
    if not isinstance(members, dict):
        raise ProtocolError("a greeting that is no object")
    return members
