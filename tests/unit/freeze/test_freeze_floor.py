"""What is asked of glibc is read from ELF files right, and from nothing else."""

from __future__ import annotations

import contextlib
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "packaging" / "freeze"))
import floor


def elf(*versions: str, wide: bool = True) -> bytes:
    """A file with one section of needed versions and its strings, in the layout of 64 or 32 bits."""
    strings = b"\0libc.so.6\0" + b"".join(one.encode() + b"\0" for one in versions)
    entries = []
    for number, one in enumerate(versions):
        last = number == len(versions) - 1
        entries.append(struct.pack("<IHHII", 0, 0, 2, strings.index(one.encode() + b"\0"), 0 if last else 16))
    needed = struct.pack("<HHIII", 1, len(versions), 1, 16, 0) + b"".join(entries)
    header = 64 if wide else 52
    start = header + len(needed) + len(strings)
    rows = [(0x6FFFFFFE, header, len(needed), 1, 1), (3, header + len(needed), len(strings), 0, 0)]
    if wide:
        table = b"".join(
            struct.pack("<IIQQQQIIQQ", 0, kind, 0, 0, at, size, link, info, 0, 0) for kind, at, size, link, info in rows
        )
        head = struct.pack("<4sBB10xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 3, 62, 1, 0, 0, start, 0, 64, 0, 0, 64, 2, 0)
    else:
        table = b"".join(
            struct.pack("<IIIIIIIIII", 0, kind, 0, 0, at, size, link, info, 0, 0) for kind, at, size, link, info in rows
        )
        head = struct.pack("<4sBB10xHHIIIIIHHHHHH", b"\x7fELF", 1, 1, 3, 40, 1, 0, 0, start, 0, 52, 0, 0, 40, 2, 0)
    return head + needed + strings + table


@pytest.mark.parametrize("wide", [True, False], ids=["64 bits", "32 bits"])
def test_reads_what_a_file_asks_for(wide: bool) -> None:
    assert floor.needs(elf("GLIBC_2.2.5", "GLIBC_2.34", wide=wide)) == {"GLIBC_2.2.5", "GLIBC_2.34"}


def test_finds_the_highest_version_and_who_asks_for_it(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "old.so").write_bytes(elf("GLIBC_2.9", "GLIBC_PRIVATE"))
    (tmp_path / "deep" / "new.so").write_bytes(elf("GLIBC_2.17", "GLIBC_2.30", "OPENSSL_3.0.0"))
    (tmp_path / "text").write_text("GLIBC_2.99")
    (tmp_path / "link.so").symlink_to("/nowhere")
    assert floor.floor_of(tmp_path) == ((2, 30), tmp_path / "deep" / "new.so")


def test_reads_this_very_interpreter() -> None:
    version, where = floor.floor_of(Path(sys.executable).resolve())
    assert (2, 2) < version < (3, 0)
    assert where is not None


@given(st.binary(max_size=200), st.integers(min_value=0, max_value=250), st.booleans())
def test_a_damaged_file_is_told_and_nothing_else_happens(noise: bytes, at: int, wide: bool) -> None:
    data = bytearray(elf("GLIBC_2.2.5", wide=wide))
    data[4 + at : 4 + at + len(noise)] = noise
    with contextlib.suppress(floor.Damaged):
        assert all(isinstance(name, str) for name in floor.needs(bytes(data)))
