"""Files of Debian's archive are taken as its indices have them, and in no other state."""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "packaging" / "freeze"))
import binaries
import mirror
from command import BuildFailed


def test_a_file_is_fetched_once_and_again_when_it_is_damaged(tmp_path: Path) -> None:
    (served := tmp_path / "served").write_bytes(b"content")
    digest = hashlib.sha256(b"content").hexdigest()
    archive = mirror.Mirror(tmp_path / "cache")
    path = archive.file(served.as_uri(), digest, "a file", "named")
    assert (path.name, path.read_bytes()) == ("named", b"content")
    served.unlink()
    assert archive.file(served.as_uri(), digest, "a file", "named") == path
    path.write_bytes(b"damaged")
    with pytest.raises(BuildFailed):
        archive.file(served.as_uri(), digest, "a file", "named")


def test_what_the_index_does_not_name_is_refused(tmp_path: Path) -> None:
    (served := tmp_path / "served").write_bytes(b"other content")
    with pytest.raises(BuildFailed, match="not what the archive's index says"):
        mirror.Mirror(tmp_path / "cache").file(served.as_uri(), "0" * 64, "a file")
    assert list((tmp_path / "cache").iterdir()) == []


def debian_package(name: str, files: bytes) -> bytes:
    """An ar archive of three members, of which the second has an odd size."""
    parts = [("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), (name, files)]
    rows = [f"{one:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data for one, data in parts]
    return b"!<arch>\n" + b"".join(row + b"\n" * (len(row) % 2) for row in rows)


def test_the_files_of_a_package_are_read(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as made:
        made.addfile(entry := tarfile.TarInfo("./lib/libc.so.6"), io.BytesIO())
        entry.size = 0
    (whole := tmp_path / "whole.deb").write_bytes(debian_package("data.tar.xz", packed.getvalue()))
    with binaries.contents(whole) as found:
        assert found.getnames() == ["./lib/libc.so.6"]
    for name, data in (("none", b"no archive"), ("other", debian_package("data.tar.zst", b""))):
        (broken := tmp_path / f"{name}.deb").write_bytes(data)
        with pytest.raises(BuildFailed):
            binaries.contents(broken)
