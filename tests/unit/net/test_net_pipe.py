"""Joined connections: bytes pass exactly, each end holds the other up, and both end together."""

from __future__ import annotations

import asyncio
import random

import anyio
import pytest

from edgesite.net.bytestream import ByteStream
from edgesite.net.errors import ClosedByPeer
from edgesite.net.mem import connect_pair
from edgesite.net.pipe import Pipe

pytestmark = pytest.mark.anyio


def ends() -> tuple[ByteStream, Pipe, Pipe, ByteStream]:
    """Two streams with a pipe between them, not joined yet."""
    loop = asyncio.get_running_loop()
    left, near, far, right = ByteStream(), Pipe(), Pipe(), ByteStream()
    connect_pair(loop, "left", left, near)
    connect_pair(loop, "right", right, far)
    return left, near, far, right


async def test_bytes_pass_also_those_from_before() -> None:
    left, near, far, right = ends()
    data = random.Random(3).randbytes(2_000_000)
    got = bytearray()

    async def receive() -> None:
        while len(got) < len(data):
            got.extend(await right.receive())

    with anyio.fail_after(10):
        await left.send(data[:1000])
        await anyio.wait_all_tasks_blocked()
        near.join(far)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await left.send(data[1000:])
        assert got == data
        await right.send(b"back")
        assert await left.receive() == b"back"


async def test_a_slow_end_holds_the_other_up() -> None:
    left, near, far, right = ends()
    near.join(far)
    sent = 0

    async def send() -> None:
        nonlocal sent
        while True:
            await left.send(b"x" * 10_000)
            sent += 10_000

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        held = sent
        assert held < 1_500_000
        await right.receive()
        await anyio.wait_all_tasks_blocked()
        assert sent > held
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("joined_first", [True, False])
async def test_both_end_together(joined_first: bool) -> None:
    left, near, far, right = ends()
    if joined_first:
        near.join(far)
    await left.send(b"last words")
    await anyio.wait_all_tasks_blocked()
    left.abort()
    await anyio.wait_all_tasks_blocked()
    if not joined_first:
        near.join(far)
    assert await right.receive() == b"last words"
    assert await right.receive() == b""
    with pytest.raises(ClosedByPeer):
        await right.send(b"too late")


async def test_an_idle_pipe_is_cut() -> None:
    left, near, far, right = ends()
    near.join(far, idle_s=0.05)
    with anyio.fail_after(5):
        assert await left.receive() == b""
        assert await right.receive() == b""
