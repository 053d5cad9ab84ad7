"""Plain files of simulated machines: what is synced survives a power cut, and nothing else is sure to."""

from __future__ import annotations

import os
import random
from pathlib import Path

from edgesite.testing.simulator.files import PlainFiles, syncing


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def outcomes(root: Path, act: str) -> set[str]:
    """What a file holds after a power cut, over many seeds: "old" was safe before."""
    found = set()
    for seed in range(60):
        folder = root / f"{act}-{seed}"
        folder.mkdir()
        files = PlainFiles(folder, random.Random(seed))
        path, fresh = folder / "file", folder / "file.new"
        with syncing(lambda files=files: [files]):  # type: ignore[misc]
            path.write_text("old")
            sync(path)
            sync(folder)
            if act == "overwrite":
                path.write_text("new state")
            else:
                fresh.write_text("new state")
                if act in ("synced, then renamed", "all synced"):
                    sync(fresh)
                os.replace(fresh, path)
                if act == "all synced":
                    sync(folder)
            files.power_cut()
            before = path.read_text()
            files.power_cut()
            assert path.read_text() == before, "what stands there after a power cut is safe"
        found.add(before)
    return found


def test_what_is_not_synced_may_be_lost_or_torn(tmp_path: Path) -> None:
    assert outcomes(tmp_path, "all synced") == {"new state"}
    assert outcomes(tmp_path, "synced, then renamed") == {"old", "new state"}
    renamed = outcomes(tmp_path, "renamed only")
    assert {"old", "new state", ""} < renamed, "the rename may have reached the disk before the content"
    overwritten = outcomes(tmp_path, "overwrite")
    assert {"old", "new state"} < overwritten


def test_new_files_and_links_may_go(tmp_path: Path) -> None:
    there = set()
    for seed in range(40):
        folder = tmp_path / str(seed)
        folder.mkdir()
        files = PlainFiles(folder, random.Random(seed))
        (folder / "file").write_text("content")
        (folder / "link").symlink_to("file")
        files.power_cut()
        there.add(((folder / "file").exists(), (folder / "link").is_symlink()))
    assert there == {(True, True), (True, False), (False, True), (False, False)}
