"""Archives and settled folders depend on the files alone."""

from __future__ import annotations

import io
import os
import sys
import tarfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "packaging" / "freeze"))
import archive

TIME = 1_700_000_000


def fill(folder: Path, names: list[str], mode: int) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        path.chmod(mode)
    (folder / "link").symlink_to("b/program")
    return folder


def test_order_times_and_other_rights_leave_no_trace(tmp_path: Path) -> None:
    one = fill(tmp_path / "one", ["b/program", "a", "b.txt"], 0o700)
    other = fill(tmp_path / "other", ["b.txt", "a", "b/program"], 0o755)
    os.utime(other / "a", (1, 1))
    assert archive.pack(one, TIME, "x/") == archive.pack(other, TIME, "x/")
    with tarfile.open(fileobj=io.BytesIO(archive.pack(one, TIME))) as packed:
        assert packed.getnames() == ["a", "b", "b/program", "b.txt", "link"]
        assert {(one.mtime, one.uid, one.uname) for one in packed} == {(TIME, 0, "")}


def test_settled_files_have_one_time_and_plain_rights(tmp_path: Path) -> None:
    folder = fill(tmp_path / "one", ["a", "b/program"], 0o600)
    (folder / "b/program").chmod(0o711)
    archive.settle(folder, TIME)
    assert [
        (path.stat().st_mode & 0o777, int(path.stat().st_mtime))
        for path in (folder, folder / "a", folder / "b/program")
    ] == [
        (0o755, TIME),
        (0o644, TIME),
        (0o755, TIME),
    ]
