"""SPDY/3.1 framing without I/O, as Kubernetes streams use it: exec, attach and port-forward.

    decoder, encoder = Decoder(), Encoder()
    for frame in decoder.feed(data): ...            # Data comes in pieces as it arrives, never held back
    out = encoder.syn_stream(1, {"streamtype": "stdin"}) + encoder.data(1, b"...")

Kubernetes' ends never hold streams to their windows and send no window updates, so SETTINGS, WINDOW_UPDATE and CREDENTIAL are skipped; a
slow reader holds up the whole connection through TCP.

Units   Bytes.
Errors  SpdyError for what is no SPDY or goes beyond the bounds; the connection cannot go on after it.
State   Each direction has one compression context over all header blocks, so each must be made in the order in which it is sent.
Source  SPDY protocol draft 3.1: framing 2.2, control frames 2.6, name/value header block and its dictionary 2.6.10.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

__all__ = [
    "DATA_BYTES",
    "Data",
    "Decoder",
    "Encoder",
    "Frame",
    "GoAway",
    "Headers",
    "Ping",
    "Reset",
    "ResetStatus",
    "SpdyError",
    "SynReply",
    "SynStream",
]

DATA_BYTES: Final = 64 * 1024  #: of one data frame that we send
CONTROL_BYTES: Final = 64 * 1024  #: of one control frame
HEADER_BYTES: Final = 256 * 1024  #: of one header block, decompressed
_VERSION: Final = 3
_FIN: Final = 0x01
_STREAM: Final = 0x7FFFFFFF
_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _PING, _GOAWAY, _HEADERS = 1, 2, 3, 6, 7, 8

_NAMES: Final = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length content-location "
    "content-md5 content-range content-type date etag expect expires from host if-match if-modified-since if-none-match "
    "if-range if-unmodified-since last-modified location max-forwards pragma proxy-authenticate proxy-authorization range "
    "referer retry-after server te trailer transfer-encoding upgrade user-agent vary via warning www-authenticate method get "
    "status"
)
_MORE_NAMES: Final = ("200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin")
_TAIL: Final = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative "
    "Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 Internal "
    "Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, "
    "Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,"
    "text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
#: The protocol's constant: 1423 bytes with the Adler-32 checksum e3c6a7c2, by which peers recognise it.
DICTIONARY: Final = (
    b"".join(struct.pack(">I", len(one)) + one.encode() for one in (*_NAMES.split(), *_MORE_NAMES)) + _TAIL.encode()
)


class SpdyError(ValueError):
    """The peer does not speak SPDY/3.1, or goes beyond our bounds."""


class ResetStatus(IntEnum):
    """Why a stream is reset."""

    PROTOCOL_ERROR = 1
    INVALID_STREAM = 2
    REFUSED_STREAM = 3
    CANCEL = 5
    INTERNAL_ERROR = 6


@dataclass(frozen=True, slots=True)
class SynStream:
    """The peer opens a stream. Header names are in lower case."""

    stream: int
    headers: Mapping[str, str]
    fin: bool = False


@dataclass(frozen=True, slots=True)
class SynReply:
    stream: int
    headers: Mapping[str, str] = field(default_factory=dict)
    fin: bool = False


@dataclass(frozen=True, slots=True)
class Headers:
    stream: int
    headers: Mapping[str, str]
    fin: bool = False


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of a data frame; ``fin`` comes with the last piece of the last."""

    stream: int
    data: bytes
    fin: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    stream: int
    status: int


@dataclass(frozen=True, slots=True)
class Ping:
    number: int


@dataclass(frozen=True, slots=True)
class GoAway:
    last_stream: int
    status: int = 0


Frame = SynStream | SynReply | Headers | Data | Reset | Ping | GoAway


class Decoder:
    """Turns received bytes into frames."""

    def __init__(self) -> None:
        self._waiting = bytearray()
        self._data: tuple[int, bool] | None = None  # the data frame that is coming in: stream, fin
        self._left = 0  # of it, or of a control frame that is skipped
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Give the frames that ``data`` completes, and pieces of data frames. Raises SpdyError."""
        if self._waiting:
            self._waiting += data
            data = bytes(self._waiting)
            self._waiting.clear()
        at = 0
        while at < len(data) or (self._data is not None and not self._left):
            if self._left or self._data is not None:
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                if self._data is not None:
                    stream, fin = self._data
                    ended = not self._left
                    if ended:
                        self._data = None
                    if piece or (ended and fin):
                        yield Data(stream, piece, fin and ended)
                continue
            used, frame = self._head(data, at)
            if not used:
                self._waiting += data[at:]
                return
            at += used
            if frame is not None:
                yield frame

    def _head(self, data: bytes, at: int) -> tuple[int, Frame | None]:
        """Read the frame head at ``at``; returns how many bytes were used, 0 if more must come. Raises SpdyError."""
        if len(data) - at < 8:
            return 0, None
        first, second = struct.unpack_from(">II", data, at)
        flags, length = second >> 24, second & 0xFFFFFF
        if not first >> 31:
            self._data, self._left = (first, bool(flags & _FIN)), length
            return 8, None
        if first >> 16 & 0x7FFF != _VERSION:
            raise SpdyError("this is not SPDY/3")
        kind = first & 0xFFFF
        if kind not in (_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _PING, _GOAWAY, _HEADERS):
            self._left = length
            return 8, None
        if length > CONTROL_BYTES:
            raise SpdyError(f"a control frame of {length} bytes is too long")
        if len(data) - at < 8 + length:
            return 0, None
        return 8 + length, self._control(kind, flags, data[at + 8 : at + 8 + length])

    def _control(self, kind: int, flags: int, body: bytes) -> Frame:
        """Raises SpdyError."""
        fin = bool(flags & _FIN)
        fixed = {_SYN_STREAM: 10, _SYN_REPLY: 4, _RST_STREAM: 8, _PING: 4, _GOAWAY: 8, _HEADERS: 4}[kind]
        if len(body) < fixed:
            raise SpdyError("a control frame is too short")
        (number,) = struct.unpack_from(">I", body)
        if kind == _PING:
            return Ping(number)
        number &= _STREAM
        if kind == _RST_STREAM:
            return Reset(number, struct.unpack_from(">I", body, 4)[0])
        if kind == _GOAWAY:
            return GoAway(number, struct.unpack_from(">I", body, 4)[0])
        headers = self._headers(body[fixed:])
        if kind == _SYN_STREAM:
            return SynStream(number, headers, fin)
        return SynReply(number, headers, fin) if kind == _SYN_REPLY else Headers(number, headers, fin)

    def _headers(self, block: bytes) -> dict[str, str]:
        """Raises SpdyError."""
        try:
            plain = self._inflate.decompress(block, HEADER_BYTES)
        except zlib.error as exc:
            raise SpdyError(f"a header block cannot be decompressed: {exc}") from None
        if self._inflate.unconsumed_tail or self._inflate.eof:
            raise SpdyError("a header block is too long")
        try:
            return _read_headers(plain)
        except struct.error:
            raise SpdyError("a header block is cut short") from None


def _read_headers(plain: bytes) -> dict[str, str]:
    """Raises SpdyError, struct.error."""
    (count,) = struct.unpack_from(">I", plain)
    at = 4
    texts: list[str] = []
    if count > len(plain) // 8:
        raise SpdyError("a header block is cut short")
    for _ in range(2 * count):
        (length,) = struct.unpack_from(">I", plain, at)
        at += 4 + length
        if at > len(plain):
            raise SpdyError("a header block is cut short")
        texts.append(plain[at - length : at].decode("latin-1"))
    return {name.lower(): value for name, value in zip(texts[::2], texts[1::2], strict=True)}


class Encoder:
    """Makes frames."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def syn_stream(self, stream: int, headers: Mapping[str, str], *, fin: bool = False) -> bytes:
        """Open a stream; ids of clients are odd, those of servers even."""
        body = struct.pack(">IIH", stream, 0, 0) + self._block(headers)
        return _control(_SYN_STREAM, body, _FIN if fin else 0)

    def syn_reply(self, stream: int, headers: Mapping[str, str] | None = None, *, fin: bool = False) -> bytes:
        return _control(_SYN_REPLY, struct.pack(">I", stream) + self._block(headers or {}), _FIN if fin else 0)

    def headers(self, stream: int, headers: Mapping[str, str], *, fin: bool = False) -> bytes:
        return _control(_HEADERS, struct.pack(">I", stream) + self._block(headers), _FIN if fin else 0)

    def data(self, stream: int, data: bytes, *, fin: bool = False) -> list[bytes]:
        """Return the frames of ``data`` in pieces that may be written one after the other."""
        out: list[bytes] = []
        for at in range(0, len(data), DATA_BYTES) or (0,):
            piece = data if len(data) <= DATA_BYTES else data[at : at + DATA_BYTES]
            last = fin and at + DATA_BYTES >= len(data)
            out.append(struct.pack(">II", stream, (_FIN if last else 0) << 24 | len(piece)))
            if piece:
                out.append(piece)
        return out

    def reset(self, stream: int, status: int = ResetStatus.CANCEL) -> bytes:
        return _control(_RST_STREAM, struct.pack(">II", stream, status))

    def ping(self, number: int) -> bytes:
        return _control(_PING, struct.pack(">I", number))

    def go_away(self, last_stream: int, status: int = 0) -> bytes:
        return _control(_GOAWAY, struct.pack(">II", last_stream, status))

    def _block(self, headers: Mapping[str, str]) -> bytes:
        parts = [struct.pack(">I", len(headers))]
        for pair in headers.items():
            for text in (pair[0].lower(), pair[1]):
                raw = text.encode("latin-1", "replace")
                parts += (struct.pack(">I", len(raw)), raw)
        return self._deflate.compress(b"".join(parts)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)


def _control(kind: int, body: bytes, flags: int = 0) -> bytes:
    return struct.pack(">II", 0x80000000 | _VERSION << 16 | kind, flags << 24 | len(body)) + body
