"""Frames of the stream tunnel (cloudStream, edgeStream): many HTTP streams over one WebSocket, without I/O.

One text message is one frame: uvarint stream id, uvarint type, data. The cloud opens streams, with ids counted from 1. Between
two ends of ours, which tell each other by the header `FEATURES_HEADER` of the handshake, each stream also has a window: a
sender never has more than that unacknowledged, so that a slow reader holds up its own stream alone.

Units   Bytes.
Errors  InvalidFrame for a message that is no frame; the tunnel is then closed.
State   None.
Source  KubeEdge v1.12.7 pkg/stream (frames, connect JSON, paths), v1.23.1 (type 6); sessions recorded from both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote

import msgspec

__all__ = [
    "CONNECT_PATH",
    "DATA_BYTES",
    "FEATURES_HEADER",
    "IP_HEADER",
    "MESSAGE_BYTES",
    "NODE_HEADER",
    "WINDOW",
    "WINDOW_BYTES",
    "Connect",
    "Frame",
    "FrameType",
    "InvalidFrame",
    "decode",
    "encode",
    "has_window",
    "read_uvarint",
    "uvarint",
]

CONNECT_PATH: Final = "/v1/kubeedge/connect"
NODE_HEADER: Final = "SessionHostNameOverride"
IP_HEADER: Final = "SessionInternalIP"
FEATURES_HEADER: Final = "Edgesite-Tunnel"  #: comma-separated; KubeEdge's ends neither send nor look at it
WINDOW: Final = "window"
WINDOW_BYTES: Final = 256 * 1024  #: what may be on its way in one direction of one stream
DATA_BYTES: Final = 16 * 1024  #: of one data frame, so that streams take turns
MESSAGE_BYTES: Final = 1024 * 1024  #: of one message; KubeEdge's ends read no more of it either
_LOCAL: Final = "127.0.0.1:10350"


class InvalidFrame(ValueError):
    """The message is not a tunnel frame."""


class FrameType(IntEnum):
    """What a frame is. Others are ignored: they come from newer peers."""

    LOGS = 0  #: cloud to edge: GET, and send the body alone
    EXEC = 1  #: cloud to edge: send the request, then raw bytes both ways, the head of the answer included
    METRICS = 2  #: cloud to edge: as LOGS
    DATA = 3
    REMOVE = 4  #: the stream is over
    CLOSE = 5  #: cloud to edge: the tunnel is over; data says why
    ATTACH = 6  #: cloud to edge, newer: as EXEC
    GRANT = 64  #: ours, only with `WINDOW`: uvarint bytes that may be sent beyond those sent before


class Frame(NamedTuple):
    """One frame; ``type`` is a number, known or not."""

    stream: int
    type: int
    data: bytes


def uvarint(value: int) -> bytes:
    """Return seven bits a byte, low ones first."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_uvarint(data: bytes, at: int = 0) -> tuple[int, int]:
    """Return the number at ``at`` and where it ends. Raises InvalidFrame."""
    value = shift = 0
    for index in range(at, min(at + 10, len(data))):
        byte = data[index]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= 1 << 64:
                break
            return value, index + 1
        shift += 7
    raise InvalidFrame("malformed number in a tunnel frame")


def encode(stream: int, kind: int, data: bytes = b"") -> bytes:
    """Return one message."""
    return uvarint(stream) + uvarint(kind) + data


def decode(message: bytes) -> Frame:
    """Return the frame of a message. Raises InvalidFrame."""
    stream, at = read_uvarint(message)
    kind, at = read_uvarint(message, at)
    return Frame(stream, kind, message[at:])


def has_window(features: str | None) -> bool:
    """Whether the peer's `FEATURES_HEADER` offers windows."""
    return features is not None and WINDOW in [one.strip() for one in features.split(",")]


@dataclass(frozen=True, slots=True)
class Connect:
    """What a stream is opened with: an HTTP request to the node's kubelet API, whatever host it names."""

    target: str  #: path and query, encoded
    method: str = "GET"
    headers: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def encode(self, stream: int) -> bytes:
        """Return the JSON that Go's ends read (``url`` is Go's URL struct)."""
        path, _, query = self.target.partition("?")
        decoded = unquote(path)
        url = {
            "Scheme": "http",
            "Opaque": "",
            "User": None,
            "Host": _LOCAL,
            "Path": decoded,
            "RawPath": path if _quote(decoded) != path else "",
            "ForceQuery": False,
            "RawQuery": query,
            "Fragment": "",
            "RawFragment": "",
        }
        headers = {name: list(values) for name, values in self.headers.items()}
        return msgspec.json.encode({"MessID": stream, "url": url, "header": headers, "method": self.method})

    @classmethod
    def decode(cls, data: bytes) -> Connect:
        """Read the JSON. Scheme and host are not looked at. Raises InvalidFrame."""
        try:
            raw = msgspec.json.decode(data, type=_RawConnect)
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as exc:
            raise InvalidFrame(f"malformed stream request: {exc}") from None
        target = raw.url.RawPath or _quote(raw.url.Path)
        if raw.url.RawQuery:
            target = f"{target}?{raw.url.RawQuery}"
        if not target.startswith("/") or any(not "!" <= char <= "~" for char in target):
            raise InvalidFrame("a stream request names no usable path")
        method = raw.method or "GET"
        if not (method.isascii() and method.isalpha() and method.isupper()):
            raise InvalidFrame("a stream request names no usable method")
        return cls(target, method, raw.header or {})


def _quote(path: str) -> str:
    return quote(path, safe="/:@!$&'()*+,;=~-._")


class _RawUrl(msgspec.Struct):
    Path: str
    RawPath: str = ""
    RawQuery: str = ""
    User: Any = None


class _RawConnect(msgspec.Struct):
    url: _RawUrl
    header: dict[str, list[str]] | None = None
    method: str | None = None
