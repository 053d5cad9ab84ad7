"""Calls to a plugin's socket: unary and streamed gRPC with `edgesite.kube.protowire` tables.

Units   Deadlines are seconds.
Errors  PluginError, an OSError: the plugin refused, answered nonsense, or does not answer in time.
State   One connection, made anew by the next call when it is gone; nothing is sent twice.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from edgesite.context import Net
from edgesite.edge.edged.plugins.errors import PluginError
from edgesite.kube.protowire import EncodeError, Messages, WireFormatError, decode, encode
from edgesite.net.grpc import Channel, GrpcError

__all__ = ["PluginClient"]


class PluginClient:
    """One socket, given by its path."""

    def __init__(self, net: Net, socket: str, messages: Messages) -> None:
        self.socket = socket.removeprefix("unix://")
        self._messages = messages
        self._channel = Channel(net, f"unix://{self.socket}")

    async def close(self) -> None:
        await self._channel.close()

    async def call(
        self, path: str, request: str, answer: str, body: Mapping[str, Any], timeout_s: float
    ) -> dict[str, Any]:
        """Make one unary call. Raises PluginError."""
        try:
            data = await self._channel.call(path, self._encoded(request, body), timeout_s=timeout_s)
        except GrpcError as exc:
            raise PluginError(exc.code.name, exc.text) from None
        return self._decoded(answer, data)

    async def stream(
        self, path: str, request: str, answer: str, body: Mapping[str, Any]
    ) -> AsyncGenerator[dict[str, Any]]:
        """Give the answers of one server stream until it ends. Raises PluginError."""
        try:
            async with aclosing(self._channel.stream(path, self._encoded(request, body))) as answers:
                async for data in answers:
                    yield self._decoded(answer, data)
        except GrpcError as exc:
            raise PluginError(exc.code.name, exc.text) from None

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
