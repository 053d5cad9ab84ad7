"""gRPC with Go's ends: containerd as the server, and ctr as the client."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from pathlib import Path

import anyio
import pytest

from edgesite.edge.edged.grpccheck import grpc_health
from edgesite.kube.protowire import Messages, encode
from edgesite.net.grpc import Channel, Code, GrpcError
from edgesite.net.grpc_server import GrpcServer
from edgesite.net.real import RealNet
from edgesite.testing.containerd import Containerd, containerd

pytestmark = pytest.mark.anyio

VERSION = "/containerd.services.version.v1.Version/Version"
SERVER = "/containerd.services.introspection.v1.Introspection/Server"
EVENTS = "/containerd.services.events.v1.Events/Subscribe"
MESSAGES = Messages(
    """
VersionResponse: version string = 1; revision string = 2
ServerResponse: uuid string = 1
Envelope: namespace string = 2; topic string = 3
"""
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def daemon() -> Iterator[Containerd]:
    with containerd() as made:
        yield made


async def test_containerd_is_asked_for_its_health(daemon: Containerd) -> None:
    assert await grpc_health(RealNet(), daemon.endpoint, "", 5.0) == "SERVING"
    with pytest.raises(OSError, match="NOT_FOUND"):
        await grpc_health(RealNet(), daemon.endpoint, "nothing", 5.0)


async def test_what_is_under_way_at_containerd_ends_with_it_and_the_next_call_finds_it_again(
    daemon: Containerd,
) -> None:
    channel = Channel(RealNet(), daemon.endpoint)
    ended = anyio.Event()

    async def listen() -> None:
        async with aclosing(channel.stream(EVENTS, b"")) as events:
            with pytest.raises(GrpcError) as lost:
                await anext(events)
        assert lost.value.code is Code.UNAVAILABLE
        ended.set()

    async def call_on() -> None:
        while True:  # it goes on for a moment after it was told to stop
            await channel.call(VERSION, b"", timeout_s=0.5)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        await channel.call(VERSION, b"", timeout_s=5)
        daemon.hang()
        with pytest.raises(GrpcError) as slow:
            await call_on()
        assert slow.value.code is Code.DEADLINE_EXCEEDED
        daemon.resume()
        await channel.call(VERSION, b"", timeout_s=5)
        await anyio.to_thread.run_sync(daemon.restart)
        with anyio.fail_after(60):
            await ended.wait()
    await channel.call(VERSION, b"", timeout_s=5)
    await channel.close()


async def test_ctr_calls_a_server_of_ours_and_reads_its_stream(tmp_path: Path) -> None:
    socket = tmp_path / "s"

    async def version(request: bytes) -> bytes:
        return encode(MESSAGES["VersionResponse"], {"version": "v9.8.7", "revision": "of ours"})

    async def identity(request: bytes) -> bytes:
        return encode(MESSAGES["ServerResponse"], {"uuid": "1234"})

    async def events(request: bytes) -> AsyncGenerator[bytes]:
        for number in range(3):
            yield encode(MESSAGES["Envelope"], {"namespace": "n", "topic": f"/topic/{number}"})
        raise GrpcError(Code.ABORTED, "that was all, 100 %")

    async with GrpcServer({VERSION: version, SERVER: identity}, {EVENTS: events}) as server:
        await server.listen(RealNet(), f"unix://{socket}")
        said = await ctr(socket, "version")
        assert "v9.8.7" in said.stdout.decode()
        assert not said.returncode
        said = await ctr(socket, "events")
        assert [f"/topic/{number}" in said.stdout.decode() for number in range(3)] == [True] * 3
        assert "that was all, 100 %" in said.stderr.decode()


async def ctr(socket: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    with anyio.fail_after(60):
        return await anyio.run_process(["ctr", "-a", str(socket), *arguments], check=False)
