"""HTTP/2 over a raw transport without TLS: h2's protocol, and what a connection needs beside it.

    class Link(Http2Protocol): ...                  # its hooks are told what comes: see "For heirs"
    stream = link.open(headers)                     # a client's; a server is told of streams
    link.send(stream, body, ends=True)              # goes out as the windows allow

Received data is given back to the peer's window by `consumed`: who does not call it holds the sender up. Frames that move nothing (pings,
settings, priorities, resets) are counted, and a peer that sends too many of them is cut off, as is one that never says hello.

Units   Seconds, bytes.
Errors  None is raised by what comes: the connection ends, and `lost` is told why. `open` raises ConnectionError without room.
State   h2's, and what waits for a window.
Source  RFC 9113; CVE-2023-44487 (rapid reset), CVE-2019-9512 and -9515 (floods of pings and settings).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import H2Error, ProtocolError
from h2.settings import SettingCodes, Settings

if TYPE_CHECKING:
    from hyperframe.frame import Frame, GoAwayFrame

__all__ = ["ErrorCodes", "HeaderList", "Http2Protocol"]

HeaderList = Sequence[tuple[bytes, bytes]]

STREAMS: Final = (
    100  #: at the same time: what we allow a client, and take as a server's bound until it has said its own
)
STREAM_WINDOW: Final = 1 << 20  #: that a peer may send on one stream before we have taken it
CONNECTION_WINDOW: Final = 16 << 20
HEADERS_BYTES: Final = 64 * 1024  #: of one list of headers, decoded; told to the peer
FRAME_BYTES: Final = 256 * 1024  #: that we put into one frame, where the peer allows more
PIECE_BYTES: Final = 16 * 1024  #: taken between two looks at what has come
IDLE_FRAMES: Final = 2000  #: without anything of use among them, in `IDLE_FRAMES_S`
IDLE_FRAMES_S: Final = 10.0
HELLO_S: Final = 10.0  #: for a client's preface and settings
LINGER_S: Final = 1.0  #: for the reason of an end to be taken

_FIRST_WINDOW: Final = 65_535
_IDLE: Final = (
    events.PingReceived,
    events.PingAckReceived,
    events.RemoteSettingsChanged,
    events.SettingsAcknowledged,
    events.PriorityUpdated,
    events.StreamReset,
    events.UnknownFrameReceived,
    events.WindowUpdated,
)


class _Connection(H2Connection):
    """h2's connection, which lets streams come to their end after GOAWAY (h2 itself ends the connection at once)."""

    MAX_CLOSED_STREAMS = 512  # h2's own 65,536 take 12 MB on a connection that lives for days

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[events.Event]]:
        told = events.ConnectionTerminated()
        told.error_code, told.last_stream_id = frame.error_code, frame.last_stream_id
        told.additional_data = frame.additional_data or None
        return [], [told]


class _Outgoing:
    """What waits to be sent on one stream."""

    __slots__ = ("body", "ends", "room", "trailers")

    def __init__(self) -> None:
        self.body = bytearray()
        self.ends = False
        self.trailers: HeaderList | None = None
        self.room: asyncio.Future[None] | None = None


class Http2Protocol(asyncio.Protocol):
    """One connection, of either side."""

    def __init__(self, *, client: bool) -> None:
        # What we send is made of constants, and what comes is only looked up. h2 would end all calls for one odd header.
        config = H2Configuration(
            client_side=client,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
            validate_inbound_headers=False,
            normalize_inbound_headers=False,
        )
        self._h2 = _Connection(config)
        settings: dict[int, int] = {
            SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS,
            SettingCodes.MAX_HEADER_LIST_SIZE: HEADERS_BYTES,
        }
        if client:
            settings[SettingCodes.ENABLE_PUSH] = 0
        self._h2.local_settings = Settings(client=client, initial_values=cast("Any", settings))
        self._client = client
        self._transport: asyncio.Transport | None = None
        self._outgoing: dict[int, _Outgoing] = {}
        self._paused = False
        self._greeted = False  # the peer's settings are here
        self._timer: asyncio.TimerHandle | None = None  # of the client's hello, then of the end
        self._idle_frames, self._idle_since = 0, 0.0
        self._ended = False
        self._gone = asyncio.Event()

    # For heirs

    def came(self) -> None:
        """The connection is made."""

    def headers(self, stream: int, headers: HeaderList, ended: bool) -> None:
        """Headers or trailers have come."""

    def data(self, stream: int, data: bytes, ended: bool) -> None:
        """A piece of a body has come: give it back by `consumed`."""

    def reset(self, stream: int, code: int) -> None:
        """The peer has ended a stream."""

    def leaving(self, last_stream: int) -> None:
        """The peer takes no more streams here, and does not work on those after ``last_stream``."""

    def answered_ping(self) -> None:
        """A ping of ours has come back."""

    def lost(self, why: str) -> None:
        """The connection is over. Told once."""

    # What heirs do

    @property
    def is_held_up(self) -> bool:
        """The peer does not take what was sent."""
        return self._paused

    @property
    def most_streams(self) -> int:
        """That the peer allows us at the same time."""
        most = self._h2.remote_settings.max_concurrent_streams
        return most if self._greeted else min(most, STREAMS)

    def open(self, headers: HeaderList) -> int:
        """Begin a stream as the client. Raises ConnectionError when the connection has none left."""
        try:
            stream = self._h2.get_next_available_stream_id()
            self._h2.send_headers(stream, headers)
        except ProtocolError as exc:
            raise ConnectionError(str(exc)) from exc
        self._outgoing[stream] = _Outgoing()
        return stream

    def respond(self, stream: int, headers: HeaderList, *, ends: bool = False) -> None:
        """Send the headers of an answer as the server."""
        try:
            self._h2.send_headers(stream, headers, end_stream=ends)
        except ProtocolError:  # the peer has taken it back, which we are about to hear
            return
        if not ends:
            self._outgoing[stream] = _Outgoing()

    def fail(self, stream: int, headers: HeaderList, trailers: HeaderList) -> None:
        """End an answer as the server, with all that there is to say in one list if it has not begun."""
        out = self._outgoing.pop(stream, None)
        if out is not None:
            _release(out)
        try:
            self._h2.send_headers(stream, trailers if out is not None else [*headers, *trailers], end_stream=True)
        except ProtocolError:  # the peer has taken it back, which we are about to hear
            return

    def send(self, stream: int, data: bytes, *, ends: bool = False, trailers: HeaderList | None = None) -> None:
        """Send on a stream that was begun; passed over if it is gone."""
        if (out := self._outgoing.get(stream)) is None:
            return
        out.body += data
        out.ends, out.trailers = ends, trailers
        self._flush(stream, out)
        self.write()

    async def room(self, stream: int) -> bool:
        """Wait until all that was sent on a stream is on its way; return whether it is still there."""
        while (out := self._outgoing.get(stream)) is not None and out.body:
            if out.room is None:
                out.room = asyncio.get_running_loop().create_future()
            await asyncio.shield(out.room)
        return stream in self._outgoing

    def cancel(self, stream: int, code: ErrorCodes = ErrorCodes.CANCEL) -> None:
        """Tell the peer that a stream is over, if that is news to it."""
        self._drop(stream)
        held = self._h2.streams.get(stream)
        if held is None or held.closed or self._ended:
            return
        self._h2.reset_stream(stream, code)
        self.write()

    def consumed(self, stream: int, count: int) -> None:
        """Let the peer send on. What it does not send on a stream that is gone is given back to the connection all the same."""
        if not self._ended:
            self._h2.acknowledge_received_data(count, stream)

    def ping(self) -> None:
        """Ask for a sign of life: `answered_ping` tells of it."""
        if not self._ended:
            self._h2.ping(b"edgesite")
            self.write()

    def useful(self) -> None:
        """Something was done for the peer, or by it: it does not idle."""
        self._idle_frames = 0

    def write(self) -> None:
        """Send what waits in h2."""
        data = self._h2.data_to_send()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def leave(self, why: str, code: ErrorCodes = ErrorCodes.NO_ERROR) -> None:
        """Say goodbye, and end the connection."""
        if not self._ended:
            self._h2.close_connection(code)
        self._end(why)

    async def wait_gone(self) -> None:
        """Wait, after the end, until the transport is closed, too."""
        if self._transport is not None:
            await self._gone.wait()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(CONNECTION_WINDOW - _FIRST_WINDOW)
        if not self._client:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(HELLO_S, self.leave, "the peer does not say hello")
        self.came()
        self.write()

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        view = memoryview(data)
        for at in range(0, len(view), PIECE_BYTES):
            try:
                found = self._h2.receive_data(view[at : at + PIECE_BYTES])
            except (H2Error, ValueError, TypeError, IndexError) as exc:  # the latter: bytes that h2 stumbles over
                self._end(f"the peer does not speak HTTP/2 as it should: {exc}")
                return
            for event in found:
                self._take(event)
                if self._ended:
                    return
            if self._idle_frames > IDLE_FRAMES and self._idles():
                self.leave("the peer sends frames without end", ErrorCodes.ENHANCE_YOUR_CALM)
                return
        self.write()

    def pause_writing(self) -> None:
        self._paused = True
        if not self._client and not self._ended and self._transport is not None:
            self._transport.pause_reading()  # a peer that asks and does not listen is not served on

    def resume_writing(self) -> None:
        self._paused = False
        if self._ended:
            return
        if not self._client and self._transport is not None:
            self._transport.resume_reading()
        self._flush_all()
        self.write()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"the connection broke: {exc}" if exc else "the connection was closed", is_gone=True)
        self._stop_timer()
        self._gone.set()

    # Inside

    def _take(self, event: events.Event) -> None:
        if isinstance(event, _IDLE):
            self._idle_frames += 1
        match event:
            case events.DataReceived():
                if not event.data:
                    self._idle_frames += 1
                if (padding := event.flow_controlled_length - len(event.data)) > 0:
                    self.consumed(event.stream_id, padding)
                self.data(event.stream_id, event.data, event.stream_ended is not None)
            case events.RequestReceived() | events.ResponseReceived() | events.TrailersReceived():
                self.headers(event.stream_id, cast("HeaderList", event.headers), event.stream_ended is not None)
            case events.StreamReset():
                self._drop(event.stream_id)
                self.reset(event.stream_id, int(event.error_code))
            case events.WindowUpdated():
                self._flush_all(event.stream_id)
            case events.RemoteSettingsChanged():
                self._greeted = True
                self._stop_timer()
                self._flush_all()
            case events.PingAckReceived():
                self.answered_ping()
            case events.ConnectionTerminated():
                self.leaving(event.last_stream_id or 0)

    def _idles(self) -> bool:
        """Too many frames without use have come: in too short a time?"""
        now = asyncio.get_running_loop().time()
        if now - self._idle_since < IDLE_FRAMES_S:
            return True
        self._idle_frames, self._idle_since = 0, now
        return False

    def _flush_all(self, stream: int = 0) -> None:
        for number in (stream,) if stream else tuple(self._outgoing):
            if (out := self._outgoing.get(number)) is not None:
                self._flush(number, out)

    def _flush(self, stream: int, out: _Outgoing) -> None:
        """Send as much on one stream as its windows and the transport allow."""
        try:
            while out.body and not self._paused:
                most = min(self._h2.local_flow_control_window(stream), self._h2.max_outbound_frame_size, FRAME_BYTES)
                if most <= 0:
                    return
                piece = bytes(memoryview(out.body)[:most])
                del out.body[: len(piece)]
                is_last = out.ends and not out.body and out.trailers is None
                self._h2.send_data(stream, piece, end_stream=is_last)
                self._idle_frames = 0
                if is_last:
                    self._drop(stream)
                    return
            if not out.body:
                self._finish(stream, out)
        except ProtocolError:  # the peer has taken the stream back, which we are about to hear
            self._drop(stream)

    def _finish(self, stream: int, out: _Outgoing) -> None:
        """All of the body is on its way."""
        if out.trailers is not None:
            self._h2.send_headers(stream, out.trailers, end_stream=True)
        elif out.ends:
            self._h2.end_stream(stream)
        if out.ends or out.trailers is not None:
            self._drop(stream)
        else:
            _release(out)

    def _drop(self, stream: int) -> None:
        if (out := self._outgoing.pop(stream, None)) is not None:
            _release(out)

    def _end(self, why: str, *, is_gone: bool = False) -> None:
        if self._ended:
            return
        self._ended = True
        self._stop_timer()
        for stream in tuple(self._outgoing):
            self._drop(stream)
        if self._transport is not None:
            self.write()  # the reason, as GOAWAY
            self._transport.close()
            if not is_gone:
                self._timer = asyncio.get_running_loop().call_later(LINGER_S, self._transport.abort)
        self.lost(why)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _release(out: _Outgoing) -> None:
    if out.room is not None and not out.room.done():
        out.room.set_result(None)
    out.room = None
