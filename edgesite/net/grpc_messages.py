"""What gRPC puts into HTTP/2, without I/O: messages with their lengths in front, statuses and their texts, deadlines.

Units   Seconds, bytes.
Errors  GrpcError is what a call ends with at either end; `Unframer.feed` raises it for messages beyond the bounds.
Source  grpc.io: "gRPC over HTTP2", "HTTP to gRPC status code mapping"; status codes of gRPC.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Final
from urllib.parse import quote, unquote_to_bytes

__all__ = [
    "Code",
    "GrpcError",
    "Unframer",
    "framed",
    "of_http",
    "of_reset",
    "read_status",
    "read_timeout",
    "timeout_text",
    "write_status",
]

_PREFIX: Final = 5
_TEXT_BYTES: Final = 16_384  #: of a status message: more is cut off
_TIMEOUT_MOST: Final = 99_999_999  #: eight digits
_UNITS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_PLAIN: Final = " !\"#$&'()*+,/:;<=>?@[\\]^`{|}~"


class Code(IntEnum):
    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


_OF_HTTP: Final = {
    "400": Code.INTERNAL,
    "401": Code.UNAUTHENTICATED,
    "403": Code.PERMISSION_DENIED,
    "404": Code.UNIMPLEMENTED,
    "429": Code.UNAVAILABLE,
    "502": Code.UNAVAILABLE,
    "503": Code.UNAVAILABLE,
    "504": Code.UNAVAILABLE,
}
#: RST_STREAM: refused, cancelled, enhance your calm, inadequate security
_OF_RESET: Final = {7: Code.UNAVAILABLE, 8: Code.CANCELLED, 11: Code.RESOURCE_EXHAUSTED, 12: Code.PERMISSION_DENIED}


class GrpcError(Exception):
    """A call that did not succeed."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(f"{code.name}: {text}" if text else code.name)
        self.code, self.text = code, text or code.name


def framed(message: bytes) -> bytes:
    """Return a message as it is sent."""
    return b"\0" + len(message).to_bytes(4, "big") + message


class Unframer:
    """The messages of one direction of a call."""

    __slots__ = ("_buffer", "_most", "_what")

    def __init__(self, most_bytes: int, what: str) -> None:
        self._buffer = bytearray()
        self._most, self._what = most_bytes, what

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Give the messages that ``data`` completes. Raises GrpcError."""
        held = self._buffer
        held += data
        while len(held) >= _PREFIX:
            length = int.from_bytes(held[1:_PREFIX], "big")
            if held[0]:
                raise GrpcError(Code.UNIMPLEMENTED, f"{self._what} is compressed, which was not agreed")
            if length > self._most:
                raise GrpcError(Code.RESOURCE_EXHAUSTED, f"{self._what} is too large: {length} of {self._most} bytes")
            end = _PREFIX + length
            if len(held) < end:
                return
            message = bytes(memoryview(held)[_PREFIX:end])
            del held[:end]
            yield message

    @property
    def is_between(self) -> bool:
        """No message has begun that is not complete."""
        return not self._buffer


def timeout_text(timeout_s: float) -> str:
    """Return a deadline as ``grpc-timeout`` says it."""
    milliseconds = max(int(timeout_s * 1000), 1)
    return f"{milliseconds}m" if milliseconds <= _TIMEOUT_MOST else f"{min(int(timeout_s), _TIMEOUT_MOST)}S"


def read_timeout(text: bytes) -> float | None:
    """Return what ``grpc-timeout`` says, or None if that is nothing."""
    unit = _UNITS.get(text[-1:])
    return int(text[:-1]) * unit if unit and text[:-1].isdigit() and len(text) <= 9 else None


def read_status(code: bytes, text: bytes) -> tuple[Code, str]:
    """Return what ``grpc-status`` and ``grpc-message`` say."""
    said = unquote_to_bytes(text[:_TEXT_BYTES]).decode(errors="replace")
    try:
        return Code(int(code)), said
    except ValueError:
        return Code.UNKNOWN, said


def write_status(code: Code, text: str = "") -> Sequence[tuple[bytes, bytes]]:
    """Return trailers for a status."""
    trailers = [(b"grpc-status", b"%d" % code)]
    if text:
        trailers.append((b"grpc-message", quote(text[: _TEXT_BYTES // 4], safe=_PLAIN).encode("ascii")))
    return trailers


def of_http(status: str) -> Code:
    """Return what an HTTP status without one of gRPC's stands for."""
    return _OF_HTTP.get(status, Code.UNKNOWN)


def of_reset(code: int) -> Code:
    """Return what the code of an RST_STREAM stands for."""
    return _OF_RESET.get(code, Code.INTERNAL)
