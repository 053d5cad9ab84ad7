"""The client's side of one HTTP/2 connection without I/O: as much of it as gRPC needs.

    connection = Connection()
    stream = connection.request(block, body)                # then send what `take` gives
    for event in connection.receive(data): ...              # Headers, Body, Reset; send what `take` gives

Windows are large and given back as data comes: whoever uses this bounds what it keeps. Server push is refused, priorities are passed over.

Units   Bytes.
Errors  Http2Error for what breaks the protocol or goes beyond the bounds; the connection cannot go on after it.
State   Streams that are open, windows of both directions, the table of `hpack.Decoder`.
Source  RFC 9113: frames 6, streams 5.1, flow control 5.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from edgesite.wire.hpack import Decoder, HpackError

__all__ = ["PREFACE", "REFUSED", "Body", "Connection", "Event", "Headers", "Http2Error", "Reset", "frame"]

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_BYTES: Final = 16_384  #: of one frame, either way: the protocol's default
BLOCK_BYTES: Final = 64 * 1024  #: of one header block, compressed, over all of its frames
WINDOW_BYTES: Final = 1 << 20  #: what a peer may send on one stream before we answer
_FIRST_WINDOW: Final = 65_535
_MOST: Final = (1 << 31) - 1
_HEADER: Final = 9

_DATA, _HEADERS, _PRIORITY, _RST, _SETTINGS, _PUSH, _PING, _GOAWAY, _WINDOW, _CONTINUATION = range(10)
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITISED = 0x1, 0x1, 0x4, 0x8, 0x20
_SET_TABLE, _SET_PUSH, _SET_STREAMS, _SET_WINDOW, _SET_FRAME = 1, 2, 3, 4, 5
_CANCEL: Final = 8
REFUSED: Final = 7  #: the code of a `Reset` for a request that the peer has not begun to work on


class Http2Error(Exception):
    """The peer broke the protocol."""


@dataclass(frozen=True, slots=True)
class Headers:
    stream: int
    headers: list[tuple[str, str]]
    ended: bool


@dataclass(frozen=True, slots=True)
class Body:
    stream: int
    data: bytes
    ended: bool


@dataclass(frozen=True, slots=True)
class Reset:
    stream: int
    code: int


Event = Headers | Body | Reset


class Connection:
    """Calls only fill a buffer: send what `take` returns after each of them."""

    _ends_with_data = True  # our side of a stream ends with the last of its body

    def __init__(self) -> None:
        settings = b"".join(
            number.to_bytes(2, "big") + value.to_bytes(4, "big")
            for number, value in ((_SET_PUSH, 0), (_SET_WINDOW, WINDOW_BYTES))
        )
        self._out = bytearray(PREFACE + frame(_SETTINGS, 0, 0, settings))
        self._out += frame(_WINDOW, 0, 0, (WINDOW_BYTES - _FIRST_WINDOW).to_bytes(4, "big"))
        self._in = bytearray()
        self._decoder = Decoder()
        self._next = 1
        self._streams: dict[int, int] = {}  # open ones, with what may still be sent on each
        self._unsent: dict[int, bytes] = {}  # request bodies that wait for a window
        self._window, self._first_window = _FIRST_WINDOW, _FIRST_WINDOW
        self._frame_bytes = FRAME_BYTES
        self._taken = 0  # received and not given back, of the connection's window
        self._taken_of: dict[int, int] = {}
        self._block: tuple[int, bytearray, bool] | None = None  # stream, header block so far, whether the stream ends
        self.most_streams = _MOST  #: that the peer allows at the same time
        self.closing = False  #: The peer takes no more requests here.

    @property
    def open_streams(self) -> int:
        return len(self._streams)

    def take(self) -> bytes:
        """What is to be sent now."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def request(self, block: bytes, body: bytes) -> int:
        """Begin a stream with all that there is to say on it; return its number."""
        stream, self._next = self._next, self._next + 2
        if self._next > _MOST - 2:
            self.closing = True
        self._streams[stream] = self._first_window
        pieces = [block[at : at + FRAME_BYTES] for at in range(0, len(block), FRAME_BYTES)]
        for number, piece in enumerate(pieces):
            flags = _END_HEADERS if number == len(pieces) - 1 else 0
            self._out += frame(_CONTINUATION if number else _HEADERS, flags, stream, piece)
        self._unsent[stream] = body
        self._flush(stream)
        return stream

    def cancel(self, stream: int) -> None:
        """Tell the peer that nobody waits for this stream any more. What still comes on it is passed over."""
        if stream in self._streams:
            self._forget(stream)
            self._out += frame(_RST, 0, stream, _CANCEL.to_bytes(4, "big"))

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes as they come; return what they say. Raises Http2Error."""
        self._in += data
        events: list[Event] = []
        for kind, flags, stream, payload in self._frames():
            events += self._take_frame(kind, flags, stream, payload)
        return events

    def _frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        at, held = 0, self._in
        try:
            while len(held) - at >= _HEADER:
                length = int.from_bytes(held[at : at + 3], "big")
                if length > FRAME_BYTES:
                    raise Http2Error(f"a frame of {length} bytes")
                end = at + _HEADER + length
                if len(held) < end:
                    return
                kind, flags = held[at + 3], held[at + 4]
                stream = int.from_bytes(held[at + 5 : at + 9], "big") & _MOST
                payload = bytes(held[at + _HEADER : end])
                at = end
                yield kind, flags, stream, payload
        finally:
            del held[:at]

    def _take_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> list[Event]:
        if self._block is not None and kind != _CONTINUATION:
            raise Http2Error("a header block breaks off")
        match kind:
            case 0:
                return self._take_data(flags, stream, payload)
            case 1 | 9:
                return self._take_headers(kind, flags, stream, payload)
            case 3:
                if stream in self._streams:
                    self._forget(stream)
                    return [Reset(stream, int.from_bytes(payload[:4], "big"))]
            case 4:
                self._take_settings(flags, payload)
            case 5:
                raise Http2Error("a push that was refused")
            case 6:
                if len(payload) != 8:
                    raise Http2Error("a ping of the wrong size")
                if not flags & _ACK:
                    self._out += frame(_PING, _ACK, 0, payload)
            case 7:
                return self._take_goaway(payload)
            case 8:
                self._take_window(stream, payload)
            case _:
                pass  # priorities, and frames of extensions
        return []

    def _take_data(self, flags: int, stream: int, payload: bytes) -> list[Event]:
        self._give_back(stream, len(payload))
        if stream not in self._streams:
            return []  # it was cancelled
        data = _unpadded(flags, payload)
        ended = bool(flags & _END_STREAM)
        if ended:
            self._forget(stream)
        return [Body(stream, data, ended)]

    def _give_back(self, stream: int, count: int) -> None:
        """Let the peer send on, half a window at a time."""
        self._taken += count
        if self._taken > WINDOW_BYTES:
            raise Http2Error("more than the window allows")
        if self._taken >= WINDOW_BYTES // 2:
            self._out += frame(_WINDOW, 0, 0, self._taken.to_bytes(4, "big"))
            self._taken = 0
        if stream in self._streams:
            taken = self._taken_of.get(stream, 0) + count
            if taken >= WINDOW_BYTES // 2:
                self._out += frame(_WINDOW, 0, stream, taken.to_bytes(4, "big"))
                taken = 0
            self._taken_of[stream] = taken

    def _take_headers(self, kind: int, flags: int, stream: int, payload: bytes) -> list[Event]:
        if kind == _HEADERS:
            if not stream:
                raise Http2Error("headers without a stream")
            piece = _unpadded(flags, payload)
            if flags & _PRIORITISED:
                piece = piece[5:]
            self._block = (stream, bytearray(piece), bool(flags & _END_STREAM))
        elif self._block is None or self._block[0] != stream:
            raise Http2Error("a continuation of nothing")
        else:
            self._block[1].extend(payload)
        _, block, ended = self._block
        if len(block) > BLOCK_BYTES:
            raise Http2Error("a header block is too long")
        if not flags & _END_HEADERS:
            return []
        self._block = None
        try:
            headers = self._decoder.decode(bytes(block))  # also of streams that were cancelled: the table goes on
        except HpackError as exc:
            raise Http2Error(str(exc)) from exc
        if stream not in self._streams:
            return []
        if ended:
            self._forget(stream)
        return [Headers(stream, headers, ended)]

    def _take_settings(self, flags: int, payload: bytes) -> None:
        if flags & _ACK:
            return
        if len(payload) % 6:
            raise Http2Error("settings of the wrong size")
        for at in range(0, len(payload), 6):
            number, value = int.from_bytes(payload[at : at + 2], "big"), int.from_bytes(payload[at + 2 : at + 6], "big")
            if number == _SET_STREAMS:
                self.most_streams = value
            elif number == _SET_FRAME:
                self._frame_bytes = min(max(value, FRAME_BYTES), 1 << 20)
            elif number == _SET_WINDOW:
                if value > _MOST:
                    raise Http2Error("a window that is too large")
                more, self._first_window = value - self._first_window, value
                for stream in tuple(self._streams):
                    self._streams[stream] += more
        # Acknowledged first: a peer may hold what comes before that to its old windows, as grpcio does.
        self._out += frame(_SETTINGS, _ACK, 0, b"")
        for stream in tuple(self._unsent):
            self._flush(stream)

    def _take_goaway(self, payload: bytes) -> list[Event]:
        self.closing = True
        last = int.from_bytes(payload[:4], "big") & _MOST
        lost = [stream for stream in self._streams if stream > last]
        for stream in lost:
            self._forget(stream)
        return [Reset(stream, REFUSED) for stream in lost]

    def _take_window(self, stream: int, payload: bytes) -> None:
        more = int.from_bytes(payload[:4], "big") & _MOST
        if stream:
            if stream in self._streams:
                self._streams[stream] += more
                self._flush(stream)
            return
        self._window += more
        for waiting in tuple(self._unsent):
            self._flush(waiting)

    def _flush(self, stream: int) -> None:
        """Send as much of a request's body as the windows allow."""
        body = self._unsent.get(stream)
        if body is None:
            return
        while True:
            count = min(len(body), self._frame_bytes, self._window, self._streams[stream])
            if count <= 0 < len(body):
                self._unsent[stream] = body
                return
            piece, body = body[:count], body[count:]
            self._window -= count
            self._streams[stream] -= count
            ends = not body and self._ends_with_data
            if piece or ends:
                self._out += frame(_DATA, _END_STREAM if ends else 0, stream, piece)
            if not body:
                del self._unsent[stream]
                if not ends:
                    self._end_data(stream)
                return

    def _end_data(self, stream: int) -> None:
        """All of a body is sent that something else follows."""

    def _forget(self, stream: int) -> None:
        del self._streams[stream]
        self._unsent.pop(stream, None)
        self._taken_of.pop(stream, None)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return one frame as it is sent."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _unpadded(flags: int, payload: bytes) -> bytes:
    if not flags & _PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise Http2Error("a frame that is all padding")
    return payload[1 : len(payload) - payload[0]]
