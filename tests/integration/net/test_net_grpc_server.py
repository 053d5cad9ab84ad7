"""The gRPC server against grpcio's client, which is another's work.

The client has threads: grpcio's asyncio side is shared by all loops of a process, and trips over those that have ended.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import grpc
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

    async def count(self, request: bytes) -> AsyncGenerator[bytes]:
        for number in range(int(request)):
            if number == 2000:
                raise GrpcError(Code.ABORTED, "no further than 2000")
            yield str(number).encode() * 200

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
    async with GrpcServer(calls, {"/test.Test/count": made.count}) as server:
        await server.listen(RealNet(), made.address)
        yield made


class Client:
    """grpcio's channel, with calls in threads."""

    def __init__(self, address: str, send_bytes: int) -> None:
        options = (("grpc.max_receive_message_length", 8 << 20), ("grpc.max_send_message_length", send_bytes))
        self.channel = grpc.insecure_channel(address, options=options)
        self._threads = anyio.CapacityLimiter(100)

    async def call(self, name: str, request: bytes) -> bytes:
        method = self.channel.unary_unary(f"/test.Test/{name}")
        return await anyio.to_thread.run_sync(lambda: method(request, timeout=20), limiter=self._threads)

    async def all_of(self, name: str, request: bytes) -> list[bytes]:
        method = self.channel.unary_stream(f"/test.Test/{name}")
        return await anyio.to_thread.run_sync(lambda: list(method(request, timeout=20)), limiter=self._threads)


@asynccontextmanager
async def connected(service: Service, send_bytes: int = 8 << 20) -> AsyncGenerator[Client]:
    made = Client(service.address, send_bytes)
    yield made
    await anyio.to_thread.run_sync(made.channel.close)


@pytest.fixture
async def client(service: Service) -> AsyncGenerator[Client]:
    async with connected(service) as made:
        yield made


@pytest.mark.parametrize("size", [0, 1, 16_383, 16_384, 65_535, 65_536, 1 << 20, 4 << 20])
async def test_requests_and_answers_of_any_size(client: Client, size: int) -> None:
    assert await client.call("echo", b"x" * size) == b"x" * size


async def test_many_calls_at_once_on_one_connection(client: Client) -> None:
    found: dict[int, bytes] = {}

    async def call(number: int) -> None:
        found[number] = await client.call("echo", str(number).encode() * 5000)

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
async def test_refusals(client: Client, method: str, code: grpc.StatusCode, words: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        await client.call(method, b"it")
    assert (caught.value.code(), caught.value.details()) == (code, words)
    assert await client.call("echo", b"on") == b"on"


async def test_a_stream_gives_everything_and_may_end_with_a_refusal(client: Client) -> None:
    assert await client.all_of("count", b"1000") == [str(number).encode() * 200 for number in range(1000)]
    assert await client.all_of("count", b"0") == []
    with pytest.raises(grpc.RpcError) as caught:
        await client.all_of("count", b"3000")
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.ABORTED, "no further than 2000")


async def test_a_request_beyond_the_bound_is_refused(service: Service) -> None:
    async with connected(service, 16 << 20) as client:
        with pytest.raises(grpc.RpcError) as caught:
            await client.call("echo", b"x" * (5 << 20))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_call_that_its_client_gives_up_is_cancelled(service: Service, client: Client) -> None:
    call = client.channel.unary_unary("/test.Test/hang").future(b"")
    with anyio.fail_after(60):
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
        with anyio.fail_after(60):
            assert [len(one) < 1000 async for one in until_cut(stream)] == [True]  # our settings, and no answer
