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
    path = archive.file(served.as_uri(), digest, name="named")
    assert (path.name, path.read_bytes()) == ("named", b"content")
    served.unlink()
    assert archive.file(served.as_uri(), digest, name="named") == path
    path.write_bytes(b"damaged")
    with pytest.raises(BuildFailed):
        archive.file(served.as_uri(), digest, name="named")


def test_what_the_index_does_not_name_is_refused(tmp_path: Path) -> None:
    (served := tmp_path / "served").write_bytes(b"other content")
    with pytest.raises(BuildFailed, match="not what the archive's index says"):
        mirror.Mirror(tmp_path / "cache").file(served.as_uri(), "0" * 64)
    assert list((tmp_path / "cache").iterdir()) == []


def debian_package(name: str, files: bytes) -> bytes:
    """An ar archive of three members, of which the second has an odd size."""
    parts = [("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), (name, files)]
    rows = [f"{one:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data for one, data in parts]
    return b"!<arch>\n" + b"".join(row + b"\n" * (len(row) % 2) for row in rows)


def packed(**files: str) -> bytes:
    """An archive of files, and of links for names that begin with ``link_``."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:xz") as made:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"./lib/{name.removeprefix('link_')}")
            if name.startswith("link_"):
                entry.type, entry.linkname = tarfile.SYMTYPE, text
            entry.size = 0 if entry.issym() else len(text)
            made.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


def test_a_package_is_unpacked_through_the_links_of_a_root(tmp_path: Path) -> None:
    (root := tmp_path / "root").mkdir()
    (root / "usr" / "lib").mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    (package := tmp_path / "one.deb").write_bytes(
        debian_package("data.tar.xz", packed(libc="code", link_ld="/lib/libc"))
    )
    assert binaries.unpack(package, root) == ["lib/libc", "lib/ld"]
    assert (root / "lib").is_symlink()
    assert (root / "usr" / "lib" / "libc").read_text() == "code"
    assert (root / "usr" / "lib" / "ld").readlink() == Path("/lib/libc")


def test_what_is_no_package_is_refused(tmp_path: Path) -> None:
    for name, data in (("none", b"no archive"), ("other", debian_package("data.tar.zst", b""))):
        (broken := tmp_path / f"{name}.deb").write_bytes(data)
        with pytest.raises(BuildFailed):
            binaries.contents(broken)


def test_versions_are_in_the_order_of_debian() -> None:
    found = ["2.31-13+deb11u9", "2.31-13+deb11u14", "1:1.0", "2.31-13~rc1", "2.31-13"]
    assert mirror.newest_first(found, str) == ["1:1.0", "2.31-13+deb11u14", "2.31-13+deb11u9", "2.31-13", "2.31-13~rc1"]
