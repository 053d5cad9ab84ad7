"""The server's side of one HTTP/2 connection without I/O: as much of it as answering gRPC calls needs.

    connection = ServerConnection()
    for event in connection.receive(data): ...              # Headers, Body, Reset, as the client's side tells them
    connection.respond(stream, head, body, trailers)        # then send what `take` gives

Frames, windows and bounds are those of `edgesite.wire.http2`. An answer is given at once and whole.

Units   Bytes.
Errors  Http2Error for what breaks the protocol or goes beyond the bounds; the connection cannot go on after it.
State   That of a `Connection`, and the answers that wait for a window.
Source  RFC 9113: preface 3.4, streams 5.1; grpc.io: "gRPC over HTTP2" (an answer ends with trailers).
"""

from __future__ import annotations

from typing import Final

from edgesite.wire.http2 import PREFACE, REFUSED, Connection, Event, Http2Error, frame

__all__ = ["ServerConnection"]

STREAMS: Final = 64  #: that a client may have open at the same time; more are refused
_HEADERS, _RST = 1, 3
_END_STREAM, _END_HEADERS = 0x1, 0x4


class ServerConnection(Connection):
    """Calls only fill a buffer: send what `take` returns after each of them."""

    _ends_with_data = False  # trailers come after it

    def __init__(self) -> None:
        super().__init__()
        del self._out[: len(PREFACE)]  # that is the client's to send
        self._greeting = PREFACE
        self._last = 0
        self._answered: dict[int, bytes] = {}  # trailers of answers that are under way

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes as they come; return what they say. Raises Http2Error."""
        if self._greeting:
            count = min(len(self._greeting), len(data))
            if data[:count] != self._greeting[:count]:
                raise Http2Error("the peer does not begin as HTTP/2 does")
            self._greeting, data = self._greeting[count:], data[count:]
        return super().receive(data)

    def respond(self, stream: int, head: bytes, body: bytes | None, trailers: bytes) -> None:
        """Answer a request with a block of headers, a body and a block that ends it. One that was taken back gets no answer."""
        if stream not in self._streams:
            return
        self._answered[stream] = trailers
        if body is None:
            self._finish(stream, trailers)
            return
        self._out += frame(_HEADERS, _END_HEADERS, stream, head)
        self._unsent[stream] = body
        self._flush(stream)

    def _take_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> list[Event]:
        if kind == _HEADERS and stream not in self._streams:
            if stream <= self._last or not stream % 2:
                raise Http2Error(f"a request on stream {stream}")
            self._last = stream
            if self.open_streams < STREAMS:
                self._streams[stream] = self._first_window
            else:
                self._out += frame(_RST, 0, stream, REFUSED.to_bytes(4, "big"))
        elif kind == _RST:
            self._answered.setdefault(stream, b"")
        return super()._take_frame(kind, flags, stream, payload)

    def _forget(self, stream: int) -> None:
        """The end of a request is not the end of its stream: it is still to be answered."""
        if self._answered.pop(stream, None) is not None:
            super()._forget(stream)

    def _end_data(self, stream: int) -> None:
        self._finish(stream, self._answered[stream])

    def _finish(self, stream: int, trailers: bytes) -> None:
        self._out += frame(_HEADERS, _END_HEADERS | _END_STREAM, stream, trailers)
        self._forget(stream)
