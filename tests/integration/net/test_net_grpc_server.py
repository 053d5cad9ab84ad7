"""The gRPC server against grpcio's client, which is another's work."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import grpc
import grpc.aio
import pytest

from edgesite.net.grpc import Channel, Code, GrpcError
from edgesite.net.grpc_server import GrpcServer
from edgesite.net.real import RealNet

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Service:
    def __init__(self, address: str) -> None:
        self.address = address
        self.began, self.cancelled = anyio.Event(), anyio.Event()

    async def echo(self, request: bytes) -> bytes:
        return request

    async def fail(self, request: bytes) -> bytes:
        raise GrpcError(Code.NOT_FOUND, f"no such thing: 100 % of {request.decode()} — gone")

    async def crash(self, request: bytes) -> bytes:
        raise KeyError("inner secret")

    async def hang(self, request: bytes) -> bytes:
        self.began.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.cancelled.set()


@pytest.fixture
async def service(tmp_path: Path) -> AsyncGenerator[Service]:
    made = Service(f"unix://{tmp_path}/grpc.sock")
    calls = {f"/test.Test/{one.__name__}": one for one in (made.echo, made.fail, made.crash, made.hang)}
    async with GrpcServer(calls) as server:
        await server.listen(RealNet(), made.address)
        yield made


@pytest.fixture
async def channel(service: Service) -> AsyncGenerator[Any]:
    options = (("grpc.max_receive_message_length", 8 << 20), ("grpc.max_send_message_length", 8 << 20))
    async with grpc.aio.insecure_channel(service.address, options=options) as made:
        yield made


@pytest.mark.parametrize("size", [0, 1, 16_383, 16_384, 65_535, 65_536, 1 << 20, 4 << 20])
async def test_requests_and_answers_of_any_size(channel: Any, size: int) -> None:
    assert await channel.unary_unary("/test.Test/echo")(b"x" * size, timeout=20) == b"x" * size


async def test_many_calls_at_once_on_one_connection(channel: Any) -> None:
    found: dict[int, bytes] = {}

    async def call(number: int) -> None:
        found[number] = await channel.unary_unary("/test.Test/echo")(str(number).encode() * 5000, timeout=20)

    async with anyio.create_task_group() as tasks:
        for number in range(60):
            tasks.start_soon(call, number)
    assert found == {number: str(number).encode() * 5000 for number in range(60)}


@pytest.mark.parametrize(
    ("method", "code", "words"),
    [
        ("fail", grpc.StatusCode.NOT_FOUND, "no such thing: 100 % of it — gone"),
        ("crash", grpc.StatusCode.INTERNAL, "the call failed here"),
        ("absent", grpc.StatusCode.UNIMPLEMENTED, "unknown method /test.Test/absent"),
    ],
)
async def test_refusals(channel: Any, method: str, code: grpc.StatusCode, words: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary(f"/test.Test/{method}")(b"it", timeout=20)
    assert (caught.value.code(), caught.value.details()) == (code, words)
    assert await channel.unary_unary("/test.Test/echo")(b"on", timeout=20) == b"on"


async def test_a_request_beyond_the_bound_is_refused(service: Service) -> None:
    options = (("grpc.max_send_message_length", 16 << 20),)
    async with grpc.aio.insecure_channel(service.address, options=options) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/test.Test/echo")(b"x" * (5 << 20), timeout=20)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_call_that_its_client_gives_up_is_cancelled(service: Service, channel: Any) -> None:
    call = channel.unary_unary("/test.Test/hang")(b"")
    with anyio.fail_after(10):
        await service.began.wait()
        call.cancel()
        await service.cancelled.wait()


async def test_our_own_client(service: Service) -> None:
    channel = Channel(RealNet(), service.address)
    assert await channel.call("/test.Test/echo", b"both ends", timeout_s=10) == b"both ends"
    with pytest.raises(GrpcError, match="no such thing"):
        await channel.call("/test.Test/fail", b"it", timeout_s=10)
    await channel.close()


async def until_cut(stream: anyio.abc.SocketStream) -> AsyncGenerator[bytes]:
    with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
        while True:
            yield await stream.receive()


async def test_a_peer_that_speaks_something_else_is_cut_off(service: Service) -> None:
    async with await anyio.connect_unix(service.address.removeprefix("unix://")) as stream:
        await stream.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        with anyio.fail_after(10):
            assert [len(one) < 1000 async for one in until_cut(stream)] == [True]  # our settings, and no answer
