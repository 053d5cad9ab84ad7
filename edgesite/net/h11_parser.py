"""HTTP/1.1 parsers on h11, with httptools' callbacks: for machines that httptools has no wheel for.

The callbacks: on_message_begin, on_url, on_header, on_headers_complete, on_body, on_message_complete.

Errors  ParserError for what is not HTTP; ParserUpgrade(offset) after a message that offers an upgrade, whose body is not read.
State   One h11 connection for each message: h11 also tracks the side that we do not show it.
Source  RFC 9112; the behaviour of httptools 0.9.
"""

from __future__ import annotations

import re
from typing import Any, Final

import h11

__all__ = ["ParserError", "ParserUpgrade", "RequestParser", "ResponseParser"]

#: Our own limits are lower; h11 must not be the one to speak.
_MOST_BYTES: Final = 4 * 1024 * 1024
#: h11 takes both, as it may; they are what request smuggling is made of.
_BARE_LF_OR_FOLD: Final = re.compile(rb"(?<!\r)\n|\n[ \t]").search
_ASKED: Final = h11.Request(
    method="GET", target="/", headers=[("Host", "peer"), ("Connection", "upgrade"), ("Upgrade", "websocket")]
)


class ParserError(Exception):
    """The peer does not speak HTTP/1.1."""


class ParserUpgrade(Exception):
    """What follows, from the offset in ``args[0]``, belongs to another protocol, or to nobody."""


class _Parser:
    def __init__(self, callbacks: Any) -> None:
        self._on = callbacks
        self._begun = False
        self._connection = self._make()
        self._headers: list[tuple[bytes, bytes]] = []
        self._version = b"1.1"
        self._upgrade = False
        self._head_bytes: bytearray | None = bytearray()  # of a request, until its head is complete

    def _make(self) -> h11.Connection:
        raise NotImplementedError

    def feed_data(self, data: bytes) -> None:
        """Parse, calling back. Raises ParserError, ParserUpgrade."""
        useful = data if self._begun else data.lstrip(b"\r\n")  # blank lines before a request: RFC 9112 section 2.2
        if useful:
            self._receive(useful)
        try:
            while self._step(data):
                pass
        except h11.RemoteProtocolError as exc:
            raise ParserError(str(exc)) from None

    def _receive(self, data: bytes) -> None:
        if self._head_bytes is not None:
            self._head_bytes += data
        self._connection.receive_data(data)

    def _step(self, data: bytes) -> bool:
        waiting = self._connection.trailing_data[0]
        if not self._begun and waiting.strip(b"\r\n"):
            self._begun = True
            if hasattr(self._on, "on_message_begin"):
                self._on.on_message_begin()
        event = self._connection.next_event()
        if event is h11.NEED_DATA or event is h11.PAUSED:
            return False
        if isinstance(event, h11.Data):
            self._on.on_body(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            self._end()
            return bool(self._connection.trailing_data[0])
        elif isinstance(event, h11.Request | h11.Response | h11.InformationalResponse):
            self._head(event)
            if self._upgrade:
                rest = self._connection.trailing_data[0]
                self._end(keep_rest=False)
                raise ParserUpgrade(len(data) - len(rest))
        return True

    def _head(self, event: Any) -> None:
        self._look_at_lines()
        self._headers = list(event.headers)
        self._version = bytes(event.http_version)
        self._note(event)
        if hasattr(self._on, "on_url"):
            self._on.on_url(event.target)
        for name, value in event.headers.raw_items():
            self._on.on_header(bytes(name), bytes(value))
        self._on.on_headers_complete()

    def _look_at_lines(self) -> None:
        """Raises ParserError."""

    def _note(self, event: Any) -> None:
        raise NotImplementedError

    def _end(self, *, keep_rest: bool = True) -> None:
        rest = self._connection.trailing_data[0]
        self._connection = self._make()
        self._head_bytes = bytearray()
        if keep_rest and (rest := rest.lstrip(b"\r\n")):
            self._receive(rest)
        self._begun = False
        self._on.on_message_complete()

    def _has_token(self, name: bytes, token: bytes) -> bool:
        return any(token in [part.strip() for part in v.lower().split(b",")] for n, v in self._headers if n == name)

    def get_http_version(self) -> str:
        return self._version.decode("ascii")

    def should_keep_alive(self) -> bool:
        return self._version == b"1.1" and not self._has_token(b"connection", b"close")

    def should_upgrade(self) -> bool:
        return self._upgrade


class RequestParser(_Parser):
    """Parses what a server receives."""

    def _make(self) -> h11.Connection:
        return h11.Connection(h11.SERVER, max_incomplete_event_size=_MOST_BYTES)

    def _look_at_lines(self) -> None:
        received, self._head_bytes = self._head_bytes or b"", None
        if _BARE_LF_OR_FOLD(received, 0, len(received) - len(self._connection.trailing_data[0])):
            raise ParserError("a line of the head ends without CR, or is folded")

    def _note(self, event: Any) -> None:
        self._method = bytes(event.method)
        offered = self._has_token(b"connection", b"upgrade") and any(name == b"upgrade" for name, _ in self._headers)
        self._upgrade = offered or self._method == b"CONNECT"

    def get_method(self) -> bytes:
        return self._method


class ResponseParser(_Parser):
    """Parses what a client receives."""

    def _look_at_lines(self) -> None:
        self._head_bytes = None

    def _make(self) -> h11.Connection:
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MOST_BYTES)
        connection.send(_ASKED)
        connection.send(h11.EndOfMessage())
        return connection

    def _note(self, event: Any) -> None:
        self._status = int(event.status_code)
        self._upgrade = self._status == 101

    def get_status_code(self) -> int:
        return self._status
