"""Hub messages: what the modules of cloud and edge tell each other, in one process and over the link.

    Message                  id, parent id, time, version; source, group, operation, resource; content
    MessageMaker             makes messages with fresh ids and the time of its clock
    InvalidMessage           what came over the wire is not a message

As JSON a message has the members ``header``, ``route`` and ``content``. Unknown members are ignored and names are matched without
regard to case. ``content`` is whatever JSON holds; an object, and a string that holds that object's JSON, mean the same to most
receivers, so read it with `Message.object`.

Units   ``timestamp_ms`` counts milliseconds since the Unix epoch.
Source  KubeEdge v1.12.7, staging/src/github.com/kubeedge/beehive/pkg/core/model/message.go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec

__all__ = [
    "OK",
    "InvalidMessage",
    "Message",
    "MessageMaker",
    "Operation",
    "busy",
    "busy_for",
    "error_content",
    "error_status",
    "too_large",
]

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

OK: Final = "OK"  #: content of an acknowledgement


class InvalidMessage(ValueError):
    """The peer sent something that is not a message."""


class Operation(StrEnum):
    """Verbs of the protocol. A message may carry others; receivers leave alone what they do not know."""

    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"
    QUERY = "query"
    PATCH = "patch"
    UPLOAD = "upload"
    RESPONSE = "response"
    ERROR = "error"
    KEEPALIVE = "keepalive"
    CONNECT = "connect"  #: inside the edge: the link came up or went down
    CONNECTED = "connected"  #: inside the cloud: a node's link
    DISCONNECTED = "disconnected"


class Message(msgspec.Struct, frozen=True):
    """One message. Content is shared between receivers: treat it as frozen."""

    msg_id: str
    timestamp_ms: int = 0
    source: str = ""
    group: str = ""
    operation: str = ""
    resource: str = ""
    content: Any = None
    parent_msg_id: str = ""
    resource_version: str = ""
    destination: str = ""
    type: str = ""
    sync: bool = False

    def to_json(self) -> bytes:
        """Return the text frame of this message, members in KubeEdge's order, without its local ``sync`` mark."""
        header: dict[str, Any] = {"msg_id": self.msg_id}
        if self.parent_msg_id:
            header["parent_msg_id"] = self.parent_msg_id
        header["timestamp"] = self.timestamp_ms
        if self.resource_version:
            header["resourceversion"] = self.resource_version
        if self.type:
            header["type"] = self.type
        route = {name: value for name in _ROUTE if (value := getattr(self, name))}
        return _encode({"header": header, "route": route, "content": self.content})

    @classmethod
    def from_json(cls, data: bytes | str) -> Message:
        """Read a text frame. Raises InvalidMessage."""
        top = _members(_parsed(data, "message"), "message")
        header = _members(top.get("header"), "header")
        route = _members(top.get("route"), "route")
        return cls(
            msg_id=_text(header, "msg_id"),
            timestamp_ms=_whole(header, "timestamp"),
            source=_text(route, "source"),
            group=_text(route, "group"),
            operation=_text(route, "operation"),
            resource=_text(route, "resource"),
            content=top.get("content"),
            parent_msg_id=_text(header, "parent_msg_id"),
            resource_version=_text(header, "resourceversion"),
            destination=_text(route, "destination"),
            type=_text(header, "type"),
        )

    @property
    def is_empty(self) -> bool:
        """Whether this is the empty message that a Go edge sends as it stops; it means nothing."""
        return not self.msg_id and not self.operation and not self.resource

    def data(self) -> bytes:
        """The content as bytes: bytes as they are, a string's UTF-8, anything else as JSON."""
        if isinstance(self.content, bytes):
            return self.content
        if isinstance(self.content, str):
            return self.content.encode()
        return _encode(self.content)

    def object(self) -> dict[str, Any]:
        """The content as an object, whether sent as one or as its JSON text. Raises InvalidMessage if it is neither."""
        value = self.content
        if isinstance(value, str | bytes):
            value = _parsed(value, f"content of {self.resource}")
        if not isinstance(value, dict):
            raise InvalidMessage(f"content of {self.resource} is not an object")
        return value

    def with_resource(self, resource: str) -> Message:
        return msgspec.structs.replace(self, resource=resource)


_ROUTE: Final = ("source", "destination", "group", "operation", "resource")


def _parsed(data: bytes | str, what: str) -> Any:
    try:
        return _decode(data)
    except (ValueError, RecursionError) as exc:  # DecodeError is a ValueError; nesting without end is no JSON of ours
        raise InvalidMessage(f"{what} is not JSON: {exc}") from exc


def _members(value: Any, what: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidMessage(f"{what} is not an object")
    return {name if name.islower() else name.lower(): member for name, member in value.items()}


def _text(members: Mapping[str, Any], name: str) -> str:
    value = members.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidMessage(f"{name} is not a string")
    return value


def _whole(members: Mapping[str, Any], name: str) -> int:
    value = members.get(name) or 0
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidMessage(f"{name} is not an integer")
    return value


class MessageMaker:
    """Makes messages. ``time`` gives seconds since the epoch, ``random_bits(n)`` n random bits (``Random.getrandbits``)."""

    __slots__ = ("_random_bits", "_time")

    def __init__(self, time: Callable[[], float], random_bits: Callable[[int], int]) -> None:
        self._time = time
        self._random_bits = random_bits

    def new_id(self) -> str:
        """Return a random UUID (version 4) as text."""
        bits = self._random_bits(128) & ~(0xF << 76 | 0x3 << 62) | (0x4 << 76 | 0x2 << 62)
        text = f"{bits:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def now_ms(self) -> int:
        return int(self._time() * 1000)

    def make(
        self,
        source: str,
        group: str,
        operation: str,
        resource: str,
        content: Any = None,
        *,
        parent: str = "",
        resource_version: str = "",
    ) -> Message:
        """Return a new message; ``parent`` is the id of the message that it answers."""
        return Message(
            self.new_id(), self.now_ms(), source, group, operation, resource, content, parent, resource_version
        )

    def reply(self, request: Message, content: Any, *, source: str = "", resource_version: str = "") -> Message:
        """Return the answer to ``request``: its route, operation "response"."""
        return self.make(
            source or request.source,
            request.group,
            Operation.RESPONSE,
            request.resource,
            content,
            parent=request.msg_id,
            resource_version=resource_version,
        )

    def ack(self, received: Message) -> Message:
        """Return the acknowledgement of ``received``; send it once what came is durable."""
        return self.reply(received, OK)

    def error(self, request: Message, content: Any) -> Message:
        """Return the refusal of ``request``; content is a text or an `error_content`. Its parent is the request, so that the
        waiting call ends (as since KubeEdge v1.18)."""
        return self.make(
            request.source, request.group, Operation.ERROR, request.resource, content, parent=request.msg_id
        )


def error_content(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return a ``Status`` object of the API in the form in which both ends recognise an error."""
    return {"ErrStatus": status}


def too_large(reason: str) -> dict[str, Any]:
    """Return the `error_content` of a message that its transport would not carry."""
    return error_content(
        {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "reason": "RequestEntityTooLarge",
            "message": reason,
            "code": 413,
        }
    )


def busy(reason: str, retry_after_s: int) -> dict[str, Any]:
    """Return the `error_content` of an end that can take nothing at the moment: a full disk, say."""
    return error_content(
        {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "reason": "ServiceUnavailable",
            "message": reason,
            "details": {"retryAfterSeconds": retry_after_s},
            "code": 503,
        }
    )


def busy_for(status: Mapping[str, Any]) -> float | None:
    """Return how long a peer wants to be left alone, by the ``Status`` of its error; None if it does not say that it is `busy`."""
    if status.get("reason") != "ServiceUnavailable":
        return None
    details = status.get("details")
    told = details.get("retryAfterSeconds") if isinstance(details, dict) else None
    return float(told) if isinstance(told, int) and told > 0 else 0.0


def error_status(content: Any) -> dict[str, Any] | None:
    """Return the ``Status`` object that ``content`` tells of, or None if it is no error."""
    status = content.get("ErrStatus") if isinstance(content, dict) else None
    if not isinstance(status, dict) or not (status.get("status") == "Failure" or status.get("reason")):
        return None
    return status
