"""The receiving half of an HTTP server's connection: bytes in, complete requests out, within limits and in time.

Units   Seconds of the event loop's clock; sizes in bytes.
Errors  None leave: what breaks the rules is refused through ``_refuse``.
State   The request that is being received: its head, then its body. ``_leaving``: no more requests are taken.
Source  RFC 9112: framing 6, chunked 7.1, incomplete messages 8; RFC 9110: Expect 10.1.1, Upgrade 7.8.
"""

from __future__ import annotations

import asyncio
from typing import Final

from edgesite.net.headers import Headers
from edgesite.net.http_head import fault, host_of_target
from edgesite.net.http_messages import Limits, PeerInfo, Request
from edgesite.net.http_parser import ParserError, ParserUpgrade, RequestParser

__all__ = ["Intake"]

#: Other upgrades (h2c, which some clients always offer) are ignored, as RFC 9110 section 7.8 allows.
_UPGRADES: Final = ("websocket", "spdy/3.1")
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Intake(asyncio.Protocol):
    """Drives the parser. A subclass answers: `_take_request`, `_refuse`, `close`."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser: RequestParser | None = None
        self._peer: PeerInfo
        # the request that is being received
        self._in_message = False
        self._in_head = False
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._size = 0  # of the head, then of the body
        self._ignored_upgrade = False
        self._partial = False  # it needs more than one read
        self._deadline = 0.0  # of a partial request
        # what follows requests
        self._answering: Request | None = None  # the request whose answer is not complete
        self._upgraded: asyncio.Protocol | None = None
        self._tail: list[bytes] | None = None  # bytes after a request that asks for an upgrade
        self._leaving = False
        self._reading_paused = False
        self._timer: asyncio.TimerHandle | None = None
        self._served = self._served_before = 0  # the timer compares them to tell an idle connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._peer = PeerInfo(transport)
        self._parser = RequestParser(self)
        self._arm(self.limits.head_timeout_s)

    def put(self, data: bytes) -> None:
        """Write to the peer."""
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        """Take no more requests; close once what was written is sent."""
        self._leaving = True
        if self._transport is not None:
            self._transport.close()

    def _take_request(self, request: Request) -> None:
        """A request is complete; it still has to be told its connection."""
        raise NotImplementedError

    def _refuse(self, status: int, message: str) -> None:
        """The peer broke the rules."""
        raise NotImplementedError

    # Timers: one per connection, never re-armed by a request that is served in time

    def _on_timer(self) -> None:
        self._timer = None
        if self._answering is not None or self._upgraded is not None:
            return  # armed again when the answer is complete
        if self._in_message:
            left_s = self._deadline - self._loop.time()
            if left_s > 0:
                self._arm(left_s)
            else:
                self._refuse(408, "the request was not received in time")
        elif self._served == self._served_before:
            self.close()
        else:
            self._served_before = self._served
            self._arm(self.limits.idle_timeout_s)

    def _arm(self, delay_s: float) -> None:
        self._timer = self._loop.call_later(delay_s, self._on_timer)

    # Receiving

    def data_received(self, data: bytes) -> None:
        if self._leaving or self._parser is None:
            return
        if self._tail is not None:
            self._take_tail(data)
            return
        began_before = self._in_head
        try:
            self._parser.feed_data(data)
        except ParserUpgrade as exc:
            if self._ignored_upgrade:
                self._parse_again(data[exc.args[0] :])
            else:
                self._take_tail(data[exc.args[0] :])
        except ParserError as exc:
            self._refuse(400, f"malformed HTTP request: {exc}")
        if self._in_message and not self._leaving:
            self._wait_for_rest(len(data) if began_before else 0)

    def _wait_for_rest(self, size: int) -> None:
        """A request is incomplete: bound its head, and the time that it may take."""
        limits = self.limits
        if self._in_head:
            self._size += size  # the parser holds back a line that has no end
            if self._size > limits.header_bytes:
                self._refuse(431, "the request's headers are too long")
                return
        elif not self._body and not self._expected_body():
            return
        if not self._partial:
            self._partial = True
            self._deadline = self._loop.time() + limits.head_timeout_s
            if self._timer is not None:
                self._timer.cancel()
            self._arm(limits.head_timeout_s)
        if not self._in_head:
            self._deadline = self._loop.time() + limits.body_timeout_s

    def _expected_body(self) -> bool:
        """Refuse a body that is announced too long before it comes; ask for one that waits for our go-ahead."""
        headers = Headers(self._headers)
        length = headers.get("content-length", "0")
        if length and length.isdigit() and int(length) > self.limits.body_bytes:
            self._refuse(413, f"request body larger than {self.limits.body_bytes} bytes")
            return False
        if self._answering is None and headers.get("expect", "").lower() == "100-continue":  # type: ignore[union-attr]
            self.put(_CONTINUE)
        return True

    def _parse_again(self, tail: bytes) -> None:
        """Take a request as if it had not offered its upgrade."""
        assert self._parser is not None
        kept = [one for one in self._headers if one[0].lower() not in (b"upgrade", b"connection", b"http2-settings")]
        lines = b"".join([b"%b: %b\r\n" % one for one in kept])
        head = b"%b %b HTTP/1.1\r\n%b\r\n" % (self._parser.get_method(), self._url, lines)
        self._ignored_upgrade = self._in_message = False
        self._parser = RequestParser(self)
        self.data_received(head + tail)

    def _take_tail(self, data: bytes) -> None:
        """Keep what follows a request for an upgrade until the handler has decided."""
        if self._upgraded is not None:
            if data:
                self._upgraded.data_received(data)
            return
        if self._leaving:
            return  # it was declined
        if self._tail is None:
            self._tail = []
        self._tail.append(data)
        if data:
            self._pause_reading()

    # What the parser calls

    def on_message_begin(self) -> None:
        self._in_message = self._in_head = True
        self._partial = False
        self._url = b""
        self._headers = []
        self._size = 0

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._size += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:  # a trailer, which may not speak for the request: RFC 9110 section 6.5.1
            self._count_body(len(name) + len(value) + 4)
            return
        self._headers.append((name, value))
        self._size += len(name) + len(value) + 4
        if self._size > self.limits.header_bytes:
            self._refuse(431, "the request's headers are too long")

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._size = 0
        if self._leaving:
            return
        parser = self._parser
        assert parser is not None
        if self._url[:1] != b"/":
            self._put_host_of_target()
        asks = parser.should_upgrade()
        if asks:
            self._on_upgrade_offer()
        found = fault(parser.get_http_version(), self._headers, upgrades=asks and not self._ignored_upgrade)
        if found is not None:
            self._refuse(*found)

    def _put_host_of_target(self) -> None:
        """A target in absolute form names the host, whatever Host says: RFC 9112 section 3.2.2."""
        host = host_of_target(self._url)
        if host is not None and sum(name.lower() == b"host" for name, _ in self._headers) < 2:
            self._headers = [one for one in self._headers if one[0].lower() != b"host"] + [(b"host", host)]

    def _on_upgrade_offer(self) -> None:
        assert self._parser is not None
        if self._parser.get_method() == b"CONNECT":
            self._refuse(405, "CONNECT is not served here")
            return
        offered = Headers(self._headers).get("upgrade", "")
        self._ignored_upgrade = (offered or "").strip().lower() not in _UPGRADES

    def on_body(self, data: bytes) -> None:
        if self._count_body(len(data)):
            self._body.append(data)

    def _count_body(self, size: int) -> bool:
        """Whether there is room for so many bytes; refuses what is too long."""
        self._size += size
        if self._size <= self.limits.body_bytes:
            return True
        self._refuse(413, f"request body larger than {self.limits.body_bytes} bytes")
        return False

    def on_message_complete(self) -> None:
        self._in_message = False
        if self._leaving or self._ignored_upgrade:
            return
        parser = self._parser
        assert parser is not None
        parts = self._body
        if parts:
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            self._body = []
        else:
            body = b""
        request = Request(
            None,
            parser.get_method().decode("ascii"),
            self._url.decode("latin-1"),
            Headers(self._headers),
            body,
            self._peer,
            parser.should_keep_alive() and not parser.should_upgrade(),  # one that is declined ends the connection
            parser.get_http_version() == "1.1",
        )
        self._take_request(request)

    def _pause_reading(self) -> None:
        if not self._reading_paused and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._reading_paused and self._transport is not None:
            self._reading_paused = False
            self._transport.resume_reading()
