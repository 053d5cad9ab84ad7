"""How a `Client` reaches an API server: one request, or one streamed answer.

The embedded API server implements `Transport` by calling its own handler; ``edgesite.client.http`` implements it over a
socket. Header names are lower case. The deadline belongs to the caller (``anyio.fail_after``).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

__all__ = ["CallerTransport", "Transport", "TransportStream"]


class TransportStream(Protocol):
    """An answer whose body comes in pieces, cut anywhere. An error answer has its Status as body."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over the body. Ends when the server ends it; raises OSError when the connection breaks."""
        ...


class Transport(Protocol):
    """``target`` is path and query. Neither method judges the status code. Both raise OSError when there is no answer."""

    async def request(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes = b""
    ) -> tuple[int, Mapping[str, str], bytes]: ...

    def stream(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes = b""
    ) -> AbstractAsyncContextManager[TransportStream]:
        """Open a streamed answer; leaving the block ends it."""
        ...


class CallerTransport:
    """A `Transport` without credentials of its own, for requests that carry those of somebody else in their headers.

    The transport of `Client` will not do for them: where it shows a certificate, API servers look at no token. A service of
    whoever provides `Client`.
    """

    def __init__(self, transport: Transport) -> None:
        self.request = transport.request
        self.stream = transport.stream
