"""Calls to a plugin's socket: unary and streamed gRPC with `edgesite.kube.protowire` tables.

Units   Deadlines are seconds.
Errors  PluginError, an OSError: the plugin refused, answered nonsense, or does not answer in time.
State   One channel, which gRPC connects again by itself; nothing is sent twice.
Source  gRPC status codes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.kube.protowire import EncodeError, Messages, WireFormatError, decode, encode

if TYPE_CHECKING:
    import grpc.aio

__all__ = ["PluginClient", "PluginError"]

_OPTIONS: Final = (
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 3000),
    # Each client has connections of its own: else a new plugin behind an old path would be taken for the old one.
    ("grpc.use_local_subchannel_pool", 1),
)


class PluginError(OSError):
    """``code`` is gRPC's name of the failure ("UNAVAILABLE"); ``text`` is the plugin's own."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"rpc error: code = {code} desc = {text}")
        self.code, self.text = code, text

    @property
    def is_lasting(self) -> bool:
        """Whether the plugin said no, so that nothing of the call goes on there."""
        return self.code not in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "ABORTED", "RESOURCE_EXHAUSTED")


class PluginClient:
    """One socket, given by its path. Make it on the running loop; close it there."""

    def __init__(self, socket: str, messages: Messages) -> None:
        import grpc.aio

        self.socket = socket.removeprefix("unix://")
        self._messages = messages
        self._channel: grpc.aio.Channel = grpc.aio.insecure_channel(f"unix://{self.socket}", options=_OPTIONS)

    async def close(self) -> None:
        await self._channel.close()

    async def call(
        self, path: str, request: str, answer: str, body: Mapping[str, Any], timeout_s: float
    ) -> dict[str, Any]:
        """Make one unary call. Raises PluginError."""
        import grpc.aio

        call = self._channel.unary_unary(path)(self._encoded(request, body), timeout=timeout_s)
        # Not awaited itself: it would answer a cancellation with one of its own, which anyio takes for another's.
        done = anyio.Event()
        call.add_done_callback(lambda _: done.set())
        try:
            await done.wait()
        except BaseException:
            call.cancel()
            raise
        if call.cancelled():
            raise PluginError("CANCELLED", f"the connection to {self.socket} was closed")
        try:
            data = await call
        except grpc.aio.AioRpcError as exc:
            raise PluginError(exc.code().name, exc.details() or "") from None
        return self._decoded(answer, data)

    async def stream(
        self, path: str, request: str, answer: str, body: Mapping[str, Any]
    ) -> AsyncIterator[dict[str, Any]]:
        """Give the answers of one server stream until it ends. Raises PluginError."""
        import grpc.aio

        call = self._channel.unary_stream(path)(self._encoded(request, body))
        try:
            async for data in call:
                yield self._decoded(answer, data)
        except grpc.aio.AioRpcError as exc:
            raise PluginError(exc.code().name, exc.details() or "") from None
        finally:
            call.cancel()

    def _encoded(self, request: str, body: Mapping[str, Any]) -> bytes:
        try:
            return encode(self._messages[request], body)
        except EncodeError as exc:
            raise PluginError("INVALID_ARGUMENT", f"the request cannot be written: {exc}") from exc

    def _decoded(self, answer: str, data: bytes) -> dict[str, Any]:
        try:
            return decode(self._messages[answer], data)
        except WireFormatError as exc:
            raise PluginError("INTERNAL", f"the answer cannot be read: {exc}") from exc
