"""The gRPC client against grpcio's server, which is another's work.

The server has threads: grpcio's asyncio side is shared by all loops of a process, and trips over those that have ended.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import grpc
import pytest

from edgesite.net.grpc import Channel, Code, GrpcError
from edgesite.net.real import RealNet

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Both loops: their transports differ."""
    return "asyncio", {"use_uvloop": request.param}


class Service(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
    def __init__(self) -> None:
        self.began, self._over = threading.Event(), threading.Event()
        self.heard: dict[str, str] = {}

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        name = details.method.rpartition("/")[2]
        self.heard = {one.key: one.value for one in details.invocation_metadata}
        if name == "Count":
            return grpc.unary_stream_rpc_method_handler(self.count)
        handler = {"Echo": self.echo, "Fail": self.fail, "Hang": self.hang}.get(name)
        return grpc.unary_unary_rpc_method_handler(handler) if handler else None

    async def see_the_end(self) -> None:
        """Wait until a call that waits, or a stream, is over."""
        assert await anyio.to_thread.run_sync(self._over.wait, 10)
        self._over.clear()

    def echo(self, request: bytes, context: Any) -> bytes:
        return request

    def fail(self, request: bytes, context: Any) -> None:
        context.abort(grpc.StatusCode.NOT_FOUND, f"no such thing: 100 % of {request.decode()} — gone")

    def hang(self, request: bytes, context: Any) -> bytes:
        ended = threading.Event()
        if not context.add_callback(ended.set):
            ended.set()  # the call was over before it came here
        self.began.set()
        ended.wait(float(request or b"3600"))
        self._over.set()
        return b"woken"

    def count(self, request: bytes, context: Any) -> Iterator[bytes]:
        if not context.add_callback(self._over.set):
            self._over.set()
        for number in range(int(request)):
            yield str(number).encode()


class Served:
    def __init__(self, path: Path) -> None:
        self.service, self.address = Service(), f"unix://{path}/grpc.sock"
        self.channel = Channel(RealNet(), self.address)
        self._server: Any = None

    async def start(self) -> None:
        options = (("grpc.max_receive_message_length", 32 << 20), ("grpc.max_send_message_length", 32 << 20))
        self._server = grpc.server(ThreadPoolExecutor(32), handlers=(self.service,), options=options)
        self._server.add_insecure_port(self.address)
        self._server.start()

    async def stop(self, grace_s: float | None = None) -> None:
        await anyio.to_thread.run_sync(self._server.stop(grace_s).wait)

    async def call(self, name: str, request: bytes = b"", **options: Any) -> bytes:
        return await self.channel.call(f"/test/{name}", request, **options)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncGenerator[Served]:
    made = Served(tmp_path)
    await made.start()
    yield made
    await made.channel.close()
    await made.stop()


async def test_calls_of_any_size_side_by_side(served: Served) -> None:
    sizes = [0, 1, 16_379, 16_384, 70_000, 1 << 20, 5 << 20]

    async def one(size: int) -> None:
        assert await served.call("Echo", b"x" * size, timeout_s=30.0) == b"x" * size

    async with anyio.create_task_group() as tasks:
        for size in sizes * 3:
            tasks.start_soon(one, size)


async def test_metadata_and_deadline_reach_the_peer(served: Served) -> None:
    await served.call("Echo", metadata={"containerd-namespace": "k8s.io"}, timeout_s=5)
    assert served.service.heard["containerd-namespace"] == "k8s.io"


async def test_a_status_comes_with_its_text(served: Served) -> None:
    for _ in range(3):  # the texts after the first come out of the table
        with pytest.raises(GrpcError) as failed:
            await served.call("Fail", b"it")
        assert failed.value.code is Code.NOT_FOUND
        assert failed.value.text == "no such thing: 100 % of it — gone"
    with pytest.raises(GrpcError) as failed:
        await served.call("Nothing")
    assert failed.value.code is Code.UNIMPLEMENTED


async def test_an_answer_beyond_the_bounds_is_refused_and_others_go_on(served: Served) -> None:
    with pytest.raises(GrpcError) as failed:
        await served.call("Echo", bytes(17 << 20))
    assert failed.value.code is Code.RESOURCE_EXHAUSTED
    assert await served.call("Echo", b"still here") == b"still here"


async def test_a_deadline_ends_the_call_at_both_ends(served: Served) -> None:
    with pytest.raises(GrpcError) as failed:
        await served.call("Hang", timeout_s=0.05)
    assert failed.value.code is Code.DEADLINE_EXCEEDED
    await served.service.see_the_end()
    assert await served.call("Echo", b"next") == b"next"


async def test_a_cancelled_call_is_ended_at_the_peer_or_finished_first(served: Served) -> None:
    with anyio.move_on_after(0.05):
        await served.call("Hang")
    await served.service.see_the_end()
    began = asyncio.get_running_loop().time()
    with anyio.move_on_after(0.05):
        await served.call("Hang", b"0.3", finish_s=5.0)
    assert asyncio.get_running_loop().time() - began >= 0.3


async def test_a_stream_gives_everything_and_can_be_left(served: Served) -> None:
    got = [int(one) async for one in served.channel.stream("/test/Count", b"3000")]
    assert got == list(range(3000))
    stream = served.channel.stream("/test/Count", b"100000")
    async for _ in stream:
        break
    await stream.aclose()
    await served.service.see_the_end()


async def test_a_peer_that_is_gone_fails_calls_and_a_new_one_is_found(served: Served) -> None:
    failures: list[GrpcError] = []

    async def hang() -> None:
        try:
            await served.call("Hang")
        except GrpcError as exc:
            failures.append(exc)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hang)
        await anyio.to_thread.run_sync(served.service.began.wait, 10)
        await served.stop()
    assert [one.code for one in failures] in ([Code.UNAVAILABLE], [Code.CANCELLED])
    with pytest.raises(GrpcError) as failed:
        await served.call("Echo")
    assert failed.value.code is Code.UNAVAILABLE
    await served.start()
    assert await served.call("Echo", b"again") == b"again"


async def test_a_peer_that_takes_its_leave_lets_calls_end(served: Served) -> None:
    answers: list[bytes] = []

    async def slow() -> None:
        answers.append(await served.call("Hang", b"0.3"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(slow)
        await anyio.to_thread.run_sync(served.service.began.wait, 10)
        await served.stop(5.0)
    assert answers == [b"woken"]


async def test_what_is_no_http2_is_unavailable(tmp_path: Path) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 1000)
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(babble, tmp_path / "s")
    channel = Channel(RealNet(), f"unix://{tmp_path}/s")
    with pytest.raises(GrpcError) as failed:
        await channel.call("/x/Y", b"", timeout_s=5)
    assert failed.value.code is Code.UNAVAILABLE
    await channel.close()
    with pytest.raises(GrpcError):
        await channel.call("/x/Y", b"", timeout_s=5)
    server.close()
    await server.wait_closed()
