"""The first mapper that knocks is served though the gRPC server is loaded only then, on the event loop that is shipped."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import anyio
import pytest

from edgesite.edge.dmi.doorway import Doorway
from edgesite.net.grpc import Channel
from edgesite.net.real import RealNet, loop_factory

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": loop_factory()}


@pytest.mark.parametrize("attempt", range(5))
async def test_whoever_knocks_first_is_served(attempt: int) -> None:
    async def echo(data: bytes) -> bytes:
        return data

    with tempfile.TemporaryDirectory() as name:
        address = f"unix://{Path(name)}/dmi.sock"
        doorway, net = Doorway(lambda: {"/a.B/C": echo}), RealNet()
        listener = await doorway.open(net, address)
        channels = [Channel(net, address) for _ in range(3)]
        answers: list[bytes] = []

        async def call(channel: Channel) -> None:
            answers.append(await channel.call("/a.B/C", bytes(2000), timeout_s=10))

        async with anyio.create_task_group() as tasks:
            async with anyio.create_task_group() as calls:
                for channel in channels:
                    calls.start_soon(call, channel)
                for _ in range(3 * attempt):  # the calls are further and further when the server comes
                    await anyio.lowlevel.checkpoint()
                tasks.start_soon(doorway.run)
            assert answers == [bytes(2000)] * 3
            for channel in channels:
                await channel.close()
            await listener.close()
            tasks.cancel_scope.cancel()
