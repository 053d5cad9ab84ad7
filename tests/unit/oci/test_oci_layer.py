"""Layers of images, and what files need of libraries."""

from __future__ import annotations

import gzip
import hashlib
import io
import shutil
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "packaging" / "oci"))
try:
    import elf
    from layer import Tree
finally:
    sys.path.pop(0)


def entries(packed: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        return {one.name: one for one in archive}


def test_a_layer_says_nothing_of_who_made_it_and_when(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "b").mkdir(parents=True)
    (source / "b" / "run").write_bytes(b"program")
    (source / "b" / "run").chmod(0o4777)
    (source / "a").write_bytes(b"text")
    (source / "a").chmod(0o600)
    (source / "link").symlink_to("b/run")
    tree = Tree()
    tree.copy(source, "usr/lib/x")
    tree.folder("tmp", 0o1777)
    made = tree.write(tmp_path / "layer", 1_700_000_000)
    packed = (tmp_path / "layer").read_bytes()
    found = entries(packed)
    assert list(found) == [
        "tmp",
        "usr",
        "usr/lib",
        "usr/lib/x",
        *(f"usr/lib/x/{one}" for one in ("a", "b", "b/run", "link")),
    ]
    assert {(one.uid, one.gid, one.uname, one.mtime) for one in found.values()} == {(0, 0, "", 1_700_000_000)}
    assert [found[f"usr/lib/x/{one}"].mode for one in ("a", "b", "b/run")] == [0o644, 0o755, 0o755]
    assert found["usr/lib/x/link"].linkname == "b/run"
    assert made.digest == f"sha256:{hashlib.sha256(packed).hexdigest()}"
    assert made.diff_id == f"sha256:{hashlib.sha256(gzip.decompress(packed)).hexdigest()}"
    assert made.size == len(packed)
    again = Tree()
    again.folder("tmp", 0o1777)
    again.copy(source, "usr/lib/x")
    assert again.write(tmp_path / "again", 1_700_000_000).digest == made.digest


def test_what_programs_need() -> None:
    assert "libc.so.6" in elf.needed(Path(shutil.which("dpkg") or "/bin/ls"))
    assert elf.needed(Path("/bin/busybox")) == []  # linked statically
    assert elf.needed(Path(__file__)) == []


@settings(max_examples=200, deadline=None)
@given(cut=st.integers(4, 4096), where=st.integers(4, 400), byte=st.integers(0, 255))
def test_broken_elf_files_are_told(tmp_path_factory: pytest.TempPathFactory, cut: int, where: int, byte: int) -> None:
    data = bytearray(Path("/bin/ls").read_bytes()[:cut])
    if where < len(data):
        data[where] = byte
    path = tmp_path_factory.getbasetemp() / "broken"
    path.write_bytes(data)
    try:
        elf.needed(path)
    except ValueError as exc:
        assert "broken ELF file" in str(exc)  # noqa: PT017
