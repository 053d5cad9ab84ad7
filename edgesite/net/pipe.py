"""Joins two connections: what one receives the other sends, and each holds the other up when it is full.

    near, far = Pipe(), Pipe()            # each the protocol of a connection
    near.join(far, idle_s=4 * 3600)

Units   Seconds of the event loop's clock.
Errors  None: when one end is lost the other is closed, after what was written to it has left.
State   What came before `join`.
"""

from __future__ import annotations

import asyncio

__all__ = ["Pipe"]


class Pipe(asyncio.Protocol):
    """One of two joined ends."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._other: Pipe | None = None
        self._early: list[bytes] = []
        self._over = False
        self._full = False  # it takes nothing more for now
        self._idle_s = 0.0
        self._active = False  # since the timer was last set
        self._timer: asyncio.TimerHandle | None = None

    def join(self, other: Pipe, *, idle_s: float = 0.0) -> None:
        """Begin to pass bytes on. Both ends are cut when nothing has passed for ``idle_s`` to twice that; 0: never."""
        self._other, other._other = other, self
        if idle_s and not self._over and not other._over:
            self._idle_s = idle_s
            self._watch()
        for one in (self, other):
            early, one._early = one._early, []
            for data in early:
                one.data_received(data)
            if one._over:
                one._pass_end()
            elif early and one._transport is not None and one._other is not None and not one._other._full:
                one._transport.resume_reading()

    def abort(self) -> None:
        """Cut the connection; the other end is closed."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._active = True
        if self._other is None:
            self._early.append(data)
            if self._transport is not None:
                self._transport.pause_reading()
        elif self._other._transport is not None:
            self._other._transport.write(data)

    def pause_writing(self) -> None:
        self._full = True
        if self._other is not None and self._other._transport is not None:
            self._other._transport.pause_reading()

    def resume_writing(self) -> None:
        self._full = False
        if self._other is not None and self._other._transport is not None:
            self._other._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._over = True
        self._stop_watching()
        self._pass_end()

    def _pass_end(self) -> None:
        if self._other is not None:
            self._other._stop_watching()
            if self._other._transport is not None:
                self._other._transport.close()
                self._other._transport.resume_reading()  # a paused one might never see that its peer has gone

    def _watch(self) -> None:
        self._active = False
        if self._other is not None:
            self._other._active = False
        self._timer = asyncio.get_running_loop().call_later(self._idle_s, self._on_timer)

    def _on_timer(self) -> None:
        if self._active or (self._other is not None and self._other._active):
            self._watch()
        else:
            self.abort()

    def _stop_watching(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
