"""Calls to a CRI socket: bytes over gRPC, tables for the messages, the runtime's errors in our terms.

Units   Deadlines are seconds.
Errors  Those of `edgesite.edge.edged.runtime`: RuntimeUnavailable when the socket is missing or the runtime is gone,
        NotInRuntime, RuntimeUnsupported, DeadlineReached, InvalidReference, else RuntimeFault with the runtime's own text.
State   One channel per socket, which gRPC connects again by itself; nothing is sent twice.
Source  gRPC status codes; containerd wraps several causes as UNKNOWN and says which in its text.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import anyio
import grpc
import grpc.aio

from edgesite.edge.edged.runtime import (
    DeadlineReached,
    InvalidReference,
    NotInRuntime,
    RuntimeFault,
    RuntimeUnavailable,
    RuntimeUnsupported,
)
from edgesite.kube.protowire import MAX_BYTES, Messages, WireFormatError, decode, encode

__all__ = ["CriClient"]

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_BYTES),
    ("grpc.max_send_message_length", MAX_BYTES),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 3000),
)


class CriClient:
    """One socket. Make it on the running loop; close it there."""

    def __init__(self, endpoint: str) -> None:
        """``endpoint`` is "unix:///run/containerd/containerd.sock"; a bare path is taken as a socket too."""
        self.endpoint = endpoint if "://" in endpoint else f"unix://{endpoint}"
        self._channel = grpc.aio.insecure_channel(self.endpoint, options=_OPTIONS)
        self._methods: dict[str, Any] = {}

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
        if (method := self._methods.get(path)) is None:
            method = self._methods[path] = self._channel.unary_unary(path)
        metadata = (("containerd-namespace", namespace),) if namespace else None
        call = method(encode(messages[request], body), timeout=timeout_s, metadata=metadata)
        # Not awaited itself: it would answer a cancellation with one of its own, which anyio takes for another's.
        done = anyio.Event()
        call.add_done_callback(lambda _: done.set())
        try:
            await done.wait()
        except BaseException:
            if finish_s:
                with anyio.move_on_after(finish_s, shield=True):
                    await done.wait()
            call.cancel()
            raise
        if call.cancelled():
            raise RuntimeUnavailable(f"the connection to {self.endpoint} was closed")
        try:
            data = await call
        except grpc.aio.AioRpcError as exc:
            raise self._fault(exc) from None
        return _decoded(messages, answer, data)

    async def stream(
        self, path: str, messages: Messages, request: str, answer: str, body: Mapping[str, Any]
    ) -> AsyncIterator[dict[str, Any]]:
        """Give the answers of one server stream until it ends. Raises RuntimeFault."""
        call = self._channel.unary_stream(path)(encode(messages[request], body))
        try:
            async for data in call:
                yield _decoded(messages, answer, data)
        except grpc.aio.AioRpcError as exc:
            raise self._fault(exc) from None
        finally:
            call.cancel()

    def _fault(self, error: grpc.aio.AioRpcError) -> RuntimeFault:
        code, text = error.code(), error.details() or error.code().name
        if code is grpc.StatusCode.UNAVAILABLE:
            return RuntimeUnavailable(f"no container runtime answers at {self.endpoint}: {text}")
        if code is grpc.StatusCode.UNIMPLEMENTED:
            return RuntimeUnsupported(text)
        if code is grpc.StatusCode.DEADLINE_EXCEEDED or "deadline exceeded" in text or "DeadlineExceeded" in text:
            return DeadlineReached(text)
        if "invalid reference format" in text or "failed to parse image reference" in text:
            return InvalidReference(text)
        if code is grpc.StatusCode.NOT_FOUND or text.endswith((": not found", " not found")):
            return NotInRuntime(text)
        return RuntimeFault(text)


def _decoded(messages: Messages, answer: str, data: bytes) -> dict[str, Any]:
    try:
        return decode(messages[answer], data)
    except WireFormatError as exc:
        raise RuntimeFault(f"the runtime's answer cannot be read: {exc}") from exc
