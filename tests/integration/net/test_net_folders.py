"""Folders that change: one inotify instance for all who watch, and looking where the kernel gives none."""

from __future__ import annotations

import logging
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from edgesite.net import folders as module
from edgesite.net.folders import RealFolders

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def instances() -> int:
    return sum(
        os.readlink(entry) == "anon_inode:inotify" for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()
    )


async def test_two_hundred_watch_with_one_instance_and_each_is_told_of_its_own(tmp_path: Path) -> None:
    before, folders = instances(), RealFolders()
    assert instances() == before, "nobody watches yet"
    watches = [folders.watch() for _ in range(200)]
    for number, watch in enumerate(watches):
        (tmp_path / str(number)).mkdir()
        assert watch.add(tmp_path / str(number))
        assert not watch.add(tmp_path / str(number)), "it is watched already"
    assert instances() == before + 1
    (tmp_path / "7" / "plugin.sock").touch()
    with anyio.fail_after(60):
        await watches[7].changed()
    for number in (6, 7, 8):  # what has been told is told once, and to nobody else
        with anyio.move_on_after(0.02) as waited:
            await watches[number].changed()
        assert waited.cancelled_caught
    for watch in watches:
        watch.close()
        watch.close()
    assert instances() == before


async def test_a_folder_that_was_made_anew_is_another_one(tmp_path: Path) -> None:
    folder, folders = tmp_path / "registry", RealFolders()
    folder.mkdir()
    one, other = folders.watch(), folders.watch()
    assert one.add(folder)
    assert other.add(folder), "it is new to this one"
    folder.rmdir()
    folder.mkdir()
    with anyio.fail_after(60):
        await one.changed()
        await other.changed()
    assert one.add(folder)
    one.close()
    assert other.add(folder)
    (folder / "plugin.sock").touch()
    with anyio.fail_after(60):
        await other.changed()
    with pytest.raises(FileNotFoundError):
        other.add(tmp_path / "nowhere")
    other.close()


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """inotify_init fails with EMFILE, as it does on a host whose instances are all taken."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = os.dup(0)
    os.close(probe)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_who_gets_no_instance_looks_now_and_then_which_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    folders = RealFolders()
    watches = [folders.watch(), folders.watch()]
    with caplog.at_level(logging.WARNING), no_descriptor_left(), anyio.fail_after(60):
        for watch in watches:
            assert not watch.add(tmp_path)
            await watch.changed()
            await watch.changed()
            watch.close()
    assert [one.getMessage().partition(" (")[0] for one in caplog.records] == ["folders cannot be watched"]
