"""A mapper as a program: what several of them on one node share."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.abc
import pytest

from edgesite.mapper import program
from edgesite.testing.mapperrig import MachineDriver
from edgesite.testing.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short: those of sockets have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="map") as name:
        yield Path(name)


def settings(folder: Path, *argv: str) -> program._Settings:
    words = ["--socket", f"{folder}/m.sock", "--edge-socket", f"{folder}/dmi.sock", *argv]
    return program._settings(program._parser("test").parse_args(words), "test", "test")


async def test_who_finds_the_usual_address_taken_goes_on_without(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    other = await anyio.create_tcp_listener(local_host="127.0.0.1")
    taken = f"127.0.0.1:{other.extra(anyio.abc.SocketAttribute.local_port)}"
    monkeypatch.setattr(program, "HTTP", taken)
    async with other, anyio.create_task_group() as tasks:
        tasks.start_soon(program._main, MachineDriver, settings(folder))
        await until(lambda: f"devices cannot be served at {taken}" in caplog.text)
        assert (folder / "m.sock").is_socket()
        tasks.cancel_scope.cancel()


async def test_who_is_told_an_address_that_is_taken_ends(folder: Path) -> None:
    other = await anyio.create_tcp_listener(local_host="127.0.0.1")
    taken = f"127.0.0.1:{other.extra(anyio.abc.SocketAttribute.local_port)}"
    async with other:
        with pytest.raises(BaseExceptionGroup) as caught:
            await program._main(MachineDriver, settings(folder, "--http", taken))
    assert caught.group_contains(OSError, match="devices cannot be served", depth=None)
