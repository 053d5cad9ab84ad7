"""WebSocket frames (RFC 6455), without I/O: bytes in, messages and control frames out; and the frames to send.

    reader = FrameReader(masked=True, limit=MESSAGE_BYTES)      # a server's: clients mask what they send
    for opcode, payload in reader.feed(data): ...               # messages are whole, fragments are joined
    data = encode(Opcode.BINARY, payload, mask=None)

An idle reader holds nothing but its own state: there are ten thousand in a hub. The library websockets (17) would take 3.0 MiB once
imported, 1.4 KB for each connection where this with its `WebSocket` takes 0.3, and twice the CPU for a message; tests hold these
frames against its own.

Units   Bytes.
Errors  FrameError for what breaks the protocol or a limit; the reader is of no use after it.
State   The frame that is incomplete, and the fragments of a message that is.
Source  RFC 6455: base framing 5.2, masking 5.3, fragmentation 5.4, control frames 5.5, close codes 7.4.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

__all__ = ["FrameError", "FrameReader", "Opcode", "close_payload", "encode", "parse_close"]

NORMAL: Final = 1000
PROTOCOL_ERROR: Final = 1002
NO_CODE: Final = 1005  #: never on the wire: a close frame without a code
TOO_BIG: Final = 1009
_CONTROL_BYTES: Final = 125
_REASON_BYTES: Final = 123
_KNOWN: Final = frozenset({0, 1, 2, 8, 9, 10})
_BYTE: Final = tuple(bytes((one,)) for one in range(256))


class Opcode(IntEnum):
    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class FrameError(ValueError):
    """The peer broke the protocol. ``code`` is what to close the connection with."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def encode(opcode: int, payload: bytes, mask: bytes | None) -> bytes:
    """Return one whole frame. ``mask`` is four random bytes at the client's end."""
    size = len(payload)
    bit = 0x80 if mask is not None else 0
    if size <= 125:
        head = _BYTE[0x80 | opcode] + _BYTE[bit | size]
    elif size <= 0xFFFF:
        head = bytes((0x80 | opcode, bit | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, bit | 127)) + size.to_bytes(8, "big")
    return head + payload if mask is None else head + mask + apply_mask(payload, mask)


def apply_mask(data: bytes, mask: bytes) -> bytes:
    """Mask, or unmask."""
    size = len(data)
    key = mask * (size // 4) + mask[: size % 4]
    return (int.from_bytes(data, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")


def close_payload(code: int, reason: str) -> bytes:
    """Return what a close frame carries; a reason that is too long is cut between characters."""
    return code.to_bytes(2, "big") + reason.encode()[:_REASON_BYTES].decode(errors="ignore").encode()


def parse_close(payload: bytes) -> tuple[int, str]:
    """Return code and reason of a close frame. Raises FrameError."""
    if not payload:
        return NO_CODE, ""
    code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 0
    if not (3000 <= code < 5000 or 1000 <= code < 1015) or code in (1004, 1005, 1006):
        raise FrameError(PROTOCOL_ERROR, "a close frame with a bad code")
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise FrameError(PROTOCOL_ERROR, "a close frame with a bad reason") from None


class FrameReader:
    """The receiving half of one connection. ``masked``: whether the peer must mask; ``limit``: of one message."""

    __slots__ = ("_buffer", "_limit", "_masked", "_needed", "_opcode", "_parts", "_size")

    def __init__(self, *, masked: bool, limit: int) -> None:
        self._masked = masked
        self._limit = limit
        self._buffer: bytearray | None = None  # of an incomplete frame
        self._needed = 0  # that many bytes make sense of it
        self._opcode = 0  # of the message whose fragments come, 0 if there is none
        self._parts: list[bytes] | None = None
        self._size = 0  # of the fragments

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return what is complete now: (opcode, payload) of messages and control frames, in order. Raises FrameError."""
        if self._buffer is not None:
            self._buffer += data
            if len(self._buffer) < self._needed:
                return []
            data, self._buffer = bytes(self._buffer), None
        found: list[tuple[int, bytes]] = []
        at, end = 0, len(data)
        while at < end:
            at = self._frame(data, at, end, found)
            if at < 0:
                break
        return found

    def _frame(self, data: bytes, at: int, end: int, found: list[tuple[int, bytes]]) -> int:
        """Read the frame at ``at``; returns where the next one begins, or -1 if this one is not complete."""
        head = at + 2
        if head > end:
            return self._keep(data, at, 2)
        first, size = data[at], data[at + 1]
        if (size & 0x80 != 0) is not self._masked:
            raise FrameError(PROTOCOL_ERROR, "a frame is masked as it must not be")
        size &= 0x7F
        if size > 125:
            head += 2 if size == 126 else 8
            if head > end:
                return self._keep(data, at, head - at)
            size = int.from_bytes(data[at + 2 : head], "big")
        self._check(first, size)
        body = head + 4 if self._masked else head
        stop = body + size
        if stop > end:
            return self._keep(data, at, stop - at)
        payload = data[body:stop]
        if self._masked and size:
            payload = apply_mask(payload, data[head:body])
        if first == 0x82 or first == 0x81 or first & 0x08:  # whole, or a control frame
            found.append((first & 0x0F, payload))
        else:
            self._fragment(first, payload, found)
        return stop

    def _keep(self, data: bytes, at: int, needed: int) -> int:
        self._buffer, self._needed = bytearray(memoryview(data)[at:]), needed
        return -1

    def _check(self, first: int, size: int) -> None:
        opcode = first & 0x0F
        if first & 0x70 or opcode not in _KNOWN:
            raise FrameError(PROTOCOL_ERROR, "a frame with a reserved bit or an unknown opcode")
        if opcode & 0x08:
            if size > _CONTROL_BYTES or not first & 0x80:
                raise FrameError(PROTOCOL_ERROR, "a control frame that is too long or in fragments")
        elif (opcode == 0) is (self._parts is None):
            raise FrameError(PROTOCOL_ERROR, "a fragment out of order")
        elif size + self._size > self._limit:
            raise FrameError(TOO_BIG, f"a message of more than {self._limit} bytes")

    def _fragment(self, first: int, payload: bytes, found: list[tuple[int, bytes]]) -> None:
        if self._parts is None:
            self._opcode, self._parts = first & 0x0F, []
        self._parts.append(payload)
        self._size += len(payload)
        if first & 0x80:
            found.append((self._opcode, b"".join(self._parts)))
            self._parts, self._size = None, 0
