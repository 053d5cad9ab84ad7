"""How the MetaServer of an edge of ours asks a cloud of ours: whole requests to the API, and watches that resume where they ended.

    edge → cloud   metaserver/api      {"id", "method", "target", "headers", "body" | "base64", "until": [epoch, ms] | null}
    cloud → edge   metaserver/api      {"status", "headers", "body" | "base64", "clock": [epoch, ms]}
    edge → cloud   metaserver/watch    {"link", "id", "group", "version", "resource", "namespace", "labels", "fields", "since", "token"}
    cloud → edge   metaserver/watch    {}                                        or an error: 410, since is too old
    cloud → edge   metaserver/events   {"link", "id", "number", "events": [[type, revision, object's text], …], "revision"} no answer
    edge → cloud   metaserver/credit   {"link", "id", "number"}                                                             no answer
    edge → cloud   metaserver/stop     {"link", "id"}                                                                       no answer

Questions have operation "null", what is not answered "tell"; the source is metaserver or dynamiccontroller, and answers carry the id of the
question as parent. With a KubeEdge peer `edgesite.wire.application` is spoken instead.

A write has an ``id`` of its own, under which it may be sent again after a lost link: it is carried out once. ``until`` is when its
asker stops waiting, by the clock of the cloud, which every answer tells: later it is not begun any more. So a write that its caller was told has failed is not
applied afterwards.

A watch is told of events after revision ``since``. Messages of one watch are numbered from 1, so that a loss is seen; the edge then
watches again from where it is. It names the last number that it has taken, and the cloud goes not further than `WINDOW` beyond.
``type`` is the API's; `LEFT` for an object that the selectors no longer let through, whose text is its new state; `SEEN_OR_NEW` where the cloud does
not know whether it was let through before. ``revision`` is how far the watch has come, whether or not there were events.

``link`` is drawn by the edge for each connection: what came over an older one is over.

Units   ``until`` and ``clock`` are milliseconds of the cloud's monotonic clock; ``epoch`` names the run of the cloud that it belongs to.
Errors  InvalidMessage for content of another shape.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from edgesite.wire.message import InvalidMessage
from edgesite.wire.resource import is_path_part

__all__ = [
    "API",
    "ASK",
    "CREDIT",
    "EVENTS",
    "GROUP",
    "LEFT",
    "SEEN_OR_NEW",
    "SOURCE_CLOUD",
    "SOURCE_EDGE",
    "STOP",
    "TELL",
    "WATCH",
    "WINDOW",
    "ApiAnswer",
    "ApiRequest",
    "Events",
    "WatchRef",
    "WatchRequest",
]

SOURCE_EDGE: Final = "metaserver"
SOURCE_CLOUD: Final = "dynamiccontroller"
GROUP: Final = "metaserver"  #: of what the cloud sends unasked
ASK: Final = "null"  #: the operation of what is answered
TELL: Final = "tell"
API: Final = "metaserver/api"
WATCH: Final = "metaserver/watch"
EVENTS: Final = "metaserver/events"
CREDIT: Final = "metaserver/credit"
STOP: Final = "metaserver/stop"
WINDOW: Final = 64  #: messages of a watch that may be under way
LEFT: Final = "LEFT"
SEEN_OR_NEW: Final = "SEEN_OR_NEW"
_TYPES: Final = frozenset({"ADDED", "MODIFIED", "DELETED", LEFT, SEEN_OR_NEW})
Content = Mapping[str, Any]


def _text(content: Content, name: str, *, most: int = 4096) -> str:
    value = content.get(name, "")
    if not isinstance(value, str) or len(value) > most:
        raise InvalidMessage(f"{name} is no text, or too long")
    return value


def _path_part(content: Content, name: str, *, most: int = 256, needed: bool = False) -> str:
    """A text of which a URL is made: what it is about was authorised part by part."""
    value = _text(content, name, most=most)
    if (value or needed) and not is_path_part(value):
        raise InvalidMessage(f"{name} is no part of a path")
    return value


def _whole(content: Content, name: str) -> int:
    value = content.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidMessage(f"{name} is no count")
    return value


def _headers(content: Content) -> dict[str, str]:
    value = content.get("headers") or {}
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise InvalidMessage("headers are no texts")
    return value


def _clock(content: Content, name: str) -> tuple[str, int] | None:
    match content.get(name):
        case None:
            return None
        case [str(epoch), int(ms)]:
            return epoch, ms
    raise InvalidMessage(f"{name} is no time")


def _put_body(content: dict[str, Any], body: bytes) -> None:
    """As text where it is text, which JSON nearly always is: it is deflated better, and not decoded again."""
    if not body:
        return
    try:
        content["body"] = body.decode()
    except UnicodeDecodeError:
        content["base64"] = base64.b64encode(body).decode()


def _body(content: Content) -> bytes:
    if "base64" in content:
        try:
            return base64.b64decode(_text(content, "base64", most=1 << 30), validate=True)
        except binascii.Error as exc:
            raise InvalidMessage(f"the body is no base64: {exc}") from exc
    return _text(content, "body", most=1 << 30).encode()


@dataclass(frozen=True, slots=True)
class ApiRequest:
    id: str
    method: str
    target: str  #: path and query
    headers: Mapping[str, str]  #: names in lower case
    body: bytes = b""
    until: tuple[str, int] | None = None

    def content(self) -> dict[str, Any]:
        content: dict[str, Any] = {
            "id": self.id,
            "method": self.method,
            "target": self.target,
            "headers": dict(self.headers),
        }
        if self.until is not None:
            content["until"] = list(self.until)
        _put_body(content, self.body)
        return content

    @classmethod
    def of(cls, content: Content) -> ApiRequest:
        """Raises InvalidMessage."""
        target, id_ = _text(content, "target", most=64 * 1024), _text(content, "id", most=64)
        if not target.startswith("/") or not id_:
            raise InvalidMessage("a request needs an id and a path")
        method = _text(content, "method", most=16)
        return cls(id_, method, target, _headers(content), _body(content), _clock(content, "until"))


@dataclass(frozen=True, slots=True)
class ApiAnswer:
    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    clock: tuple[str, int] | None = None

    def content(self) -> dict[str, Any]:
        content: dict[str, Any] = {"status": self.status, "headers": dict(self.headers)}
        if self.clock is not None:
            content["clock"] = list(self.clock)
        _put_body(content, self.body)
        return content

    @classmethod
    def of(cls, content: Content) -> ApiAnswer:
        """Raises InvalidMessage."""
        return cls(_whole(content, "status"), _headers(content), _body(content), _clock(content, "clock"))


@dataclass(frozen=True, slots=True)
class WatchRef:
    """One watch of one connection. ``number`` is the last message of it that was taken, where it tells that."""

    link: str
    id: int
    number: int = 0

    def content(self) -> dict[str, Any]:
        return {"link": self.link, "id": self.id, "number": self.number}

    @classmethod
    def of(cls, content: Content) -> WatchRef:
        """Raises InvalidMessage."""
        return cls(_text(content, "link", most=64), _whole(content, "id"), _whole({"number": 0, **content}, "number"))


@dataclass(frozen=True, slots=True)
class WatchRequest:
    ref: WatchRef
    group: str
    version: str
    resource: str
    namespace: str
    labels: str
    fields: str
    since: int
    token: str = field(default="", repr=False)

    def content(self) -> dict[str, Any]:
        return {
            "link": self.ref.link,
            "id": self.ref.id,
            "group": self.group,
            "version": self.version,
            "resource": self.resource,
            "namespace": self.namespace,
            "labels": self.labels,
            "fields": self.fields,
            "since": self.since,
            "token": self.token,
        }

    @classmethod
    def of(cls, content: Content) -> WatchRequest:
        """Raises InvalidMessage."""
        return cls(
            WatchRef.of(content),
            _path_part(content, "group"),
            _path_part(content, "version", most=64, needed=True),
            _path_part(content, "resource", needed=True),
            _path_part(content, "namespace"),
            _text(content, "labels"),
            _text(content, "fields"),
            _whole(content, "since"),
            _text(content, "token", most=32 * 1024),
        )


@dataclass(frozen=True, slots=True)
class Events:
    """What a watch saw, oldest first; each with its type, revision and the object's JSON text. ``error``: a Status that ends the watch."""

    ref: WatchRef
    events: tuple[tuple[str, int, str], ...]
    revision: int
    error: Mapping[str, Any] | None = None

    def content(self) -> dict[str, Any]:
        content = {**self.ref.content(), "events": self.events, "revision": self.revision}
        if self.error is not None:
            content["error"] = self.error
        return content

    @classmethod
    def of(cls, content: Content) -> Events:
        """Raises InvalidMessage."""
        rows, error = content.get("events"), content.get("error")
        if not isinstance(rows, list) or not isinstance(error, dict | None):
            raise InvalidMessage("events are a list")
        found = []
        for row in rows:
            match row:
                case [str(type_), int(revision), str(text)] if type_ in _TYPES:
                    found.append((type_, revision, text))
                case _:
                    raise InvalidMessage(f"a watch told of {row!r:.80}")
        return cls(WatchRef.of(content), tuple(found), _whole(content, "revision"), error)
