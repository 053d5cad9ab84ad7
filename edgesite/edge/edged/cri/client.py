"""Calls to a CRI socket: bytes over gRPC, tables for the messages, the runtime's errors in our terms.

Units   Deadlines are seconds.
Errors  Those of `edgesite.edge.edged.runtime`: RuntimeUnavailable when the socket is missing or the runtime is gone,
        NotInRuntime, RuntimeUnsupported, DeadlineReached, InvalidReference, else RuntimeFault with the runtime's own text.
State   One connection per socket, made anew by the next call when it is gone; nothing is sent twice.
Source  gRPC status codes; containerd wraps several causes as UNKNOWN and says which in its text.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

from edgesite.context import Net
from edgesite.edge.edged.runtime import (
    DeadlineReached,
    InvalidReference,
    NotInRuntime,
    RuntimeFault,
    RuntimeUnavailable,
    RuntimeUnsupported,
)
from edgesite.kube.protowire import Messages, WireFormatError, decode, encode
from edgesite.net.grpc import Channel, Code, GrpcError

__all__ = ["CriClient"]


class CriClient:
    """One socket."""

    def __init__(self, net: Net, endpoint: str) -> None:
        """``endpoint`` is "unix:///run/containerd/containerd.sock"; a bare path is taken as a socket too."""
        self.endpoint = endpoint if "://" in endpoint else f"unix://{endpoint}"
        self._channel = Channel(net, self.endpoint.removeprefix("tcp://"))

    async def close(self) -> None:
        await self._channel.close()

    async def call(
        self,
        path: str,
        messages: Messages,
        request: str,
        answer: str,
        body: Mapping[str, Any],
        timeout_s: float | None,
        *,
        finish_s: float = 0.0,
        namespace: str = "",
    ) -> dict[str, Any]:
        """Make one unary call. Raises RuntimeFault.

        A call that is cancelled here is given ``finish_s`` to come to its end first: a runtime that is interrupted half-way
        through a start may be left with a process that it does not know of. ``namespace`` is containerd's, for its own services.
        """
        metadata = {"containerd-namespace": namespace} if namespace else None
        data = encode(messages[request], body)
        try:
            got = await self._channel.call(path, data, timeout_s=timeout_s, metadata=metadata, finish_s=finish_s)
        except GrpcError as exc:
            raise self._fault(exc) from None
        return _decoded(messages, answer, got)

    async def stream(
        self, path: str, messages: Messages, request: str, answer: str, body: Mapping[str, Any]
    ) -> AsyncIterator[dict[str, Any]]:
        """Give the answers of one server stream until it ends. Raises RuntimeFault."""
        try:
            async with aclosing(self._channel.stream(path, encode(messages[request], body))) as answers:
                async for data in answers:
                    yield _decoded(messages, answer, data)
        except GrpcError as exc:
            raise self._fault(exc) from None

    def _fault(self, error: GrpcError) -> RuntimeFault:
        code, text = error.code, error.text
        if code is Code.UNAVAILABLE:
            return RuntimeUnavailable(f"no container runtime answers at {self.endpoint}: {text}")
        if code is Code.UNIMPLEMENTED:
            return RuntimeUnsupported(text)
        if code is Code.DEADLINE_EXCEEDED or "deadline exceeded" in text or "DeadlineExceeded" in text:
            return DeadlineReached(text)
        if "invalid reference format" in text or "failed to parse image reference" in text:
            return InvalidReference(text)
        if code is Code.NOT_FOUND or text.endswith((": not found", " not found")):
            return NotInRuntime(text)
        return RuntimeFault(text)


def _decoded(messages: Messages, answer: str, data: bytes) -> dict[str, Any]:
    try:
        return decode(messages[answer], data)
    except WireFormatError as exc:
        raise RuntimeFault(f"the runtime's answer cannot be read: {exc}") from exc
