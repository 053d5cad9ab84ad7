"""Real MQTT peers for tests: a mosquitto of one's own, its clients, free ports."""

from __future__ import annotations

import base64
import contextlib
import shutil
import socket
import subprocess
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import Process

MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin") or "mosquitto"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def resource_of(topic: str) -> str:
    return base64.urlsafe_b64encode(topic.encode()).decode()


async def answers(port: int) -> None:
    """Wait until somebody listens."""
    with anyio.fail_after(60):
        while True:
            try:
                async with await anyio.connect_tcp("127.0.0.1", port):
                    return
            except OSError:
                await anyio.sleep(0.02)


@asynccontextmanager
async def mosquitto(folder: Path, port: int, lines: Sequence[str] = ()) -> AsyncGenerator[Process]:
    """Run a mosquitto until the block ends."""
    usual = [f"listener {port} 127.0.0.1", "allow_anonymous true", "user root", "log_type error"]
    config = folder / f"mosquitto-{port}.conf"
    await anyio.Path(config).write_text("\n".join([*(lines or usual), ""]))
    process = await anyio.open_process([MOSQUITTO, "-c", str(config)], stdout=None, stderr=None)
    try:
        await answers(port)
        yield process
    finally:
        with anyio.CancelScope(shield=True), contextlib.suppress(ProcessLookupError):
            process.kill()
            await process.wait()


async def run(*command: str, timeout_s: float = 20.0) -> str:
    """Run a command to its end; return what it wrote. Raises CalledProcessError, TimeoutError."""
    with anyio.fail_after(timeout_s):
        done = await anyio.run_process(command, stderr=subprocess.STDOUT)
    return done.stdout.decode()


async def publish(port: int, topic: str, payload: str, *more: str) -> str:
    return await run("mosquitto_pub", "-h", "127.0.0.1", "-p", str(port), "-t", topic, "-m", payload, *more)


@asynccontextmanager
async def subscriber(port: int, topic: str, count: int, *more: str) -> AsyncGenerator[Any]:
    """Run mosquitto_sub for ``count`` messages; the block gets a function that waits for them, lines of topic and payload."""
    command = [
        "stdbuf",
        "-oL",
        "mosquitto_sub",
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
        "-t",
        topic,
        "-C",
        str(count),
        "-d",
        *more,
    ]
    process = await anyio.open_process([*command, "-F", "GOT %t %p"], stderr=subprocess.STDOUT)
    lines: list[str] = []
    buffer = b""

    async def read(until: str) -> list[str]:
        nonlocal buffer
        assert process.stdout is not None
        with anyio.fail_after(60):
            async for chunk in process.stdout:
                buffer += chunk
                *whole, buffer = buffer.split(b"\n")
                lines.extend(line.decode() for line in whole)
                if until and any(until in line for line in lines):
                    break
        return [line[4:] for line in lines if line.startswith("GOT ")]

    try:
        await read("SUBACK")
        yield lambda: read("")
    finally:
        if process.returncode is None:
            process.kill()
        with anyio.CancelScope(shield=True):
            await process.aclose()
