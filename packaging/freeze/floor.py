"""The oldest glibc that a folder of programs and libraries runs on: the highest version that any of them asks for.

Errors  Damaged for a file that begins as ELF and is none.
Source  System V ABI, chapter 4 (sections); Linux Standard Base, section "Symbol Version Requirements".
"""

from __future__ import annotations

import re
import struct
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from layout import PROJECT

__all__ = ["BUDGET", "Damaged", "floor_of", "needs", "text"]

#: openEuler 22.03 has glibc 2.34, Debian 11 has 2.31.
_BUDGETS: Final = tomllib.loads((PROJECT / "benchmarks" / "budgets.toml").read_text())["frozen"]
_MAJOR, _MINOR = _BUDGETS["glibc_floor"].split(".")
BUDGET: Final = (int(_MAJOR), int(_MINOR))

_NEEDED: Final = 0x6FFFFFFE  #: SHT_GNU_verneed
_VERSION: Final = re.compile(r"GLIBC_(\d+)\.(\d+)")


class Damaged(Exception):
    """An ELF file that cannot be read."""


@dataclass(frozen=True, slots=True)
class _Section:
    kind: int
    offset: int
    size: int
    link: int
    count: int


def needs(data: bytes) -> set[str]:
    """Return the symbol versions that an ELF file asks of libraries; nothing for other files. Raises Damaged."""
    if data[:4] != b"\x7fELF":
        return set()
    try:
        sections = _sections(data)
        return {name for one in sections if one.kind == _NEEDED for name in _names(data, one, sections[one.link])}
    except (struct.error, IndexError, OverflowError, ValueError) as exc:
        raise Damaged(f"a damaged ELF file: {exc}") from None


def floor_of(folder: Path) -> tuple[tuple[int, int], Path | None]:
    """Return the glibc version that a folder or file needs, and which file needs it. Raises Damaged, OSError."""
    highest, where = (0, 0), None
    for path in [folder] if folder.is_file() else sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        for name in needs(path.read_bytes()):
            if found := _VERSION.fullmatch(name):
                version = (int(found[1]), int(found[2]))
                if version > highest:
                    highest, where = version, path
    return highest, where


def text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _sections(data: bytes) -> list[_Section]:
    wide = data[4] == 2
    order = "<" if data[5] == 1 else ">"
    if wide:
        start, size, number = (
            *struct.unpack_from(order + "Q", data, 0x28),
            *struct.unpack_from(order + "HH", data, 0x3A),
        )
        layout = order + "IIQQQQIIQQ"
    else:
        start, size, number = (
            *struct.unpack_from(order + "I", data, 0x20),
            *struct.unpack_from(order + "HH", data, 0x2E),
        )
        layout = order + "IIIIIIIIII"
    rows = [struct.unpack_from(layout, data, start + at * size) for at in range(number)]
    return [_Section(kind=row[1], offset=row[4], size=row[5], link=row[6], count=row[7]) for row in rows]


def _names(data: bytes, section: _Section, strings: _Section) -> set[str]:
    order = "<" if data[5] == 1 else ">"
    names = set()
    at = section.offset
    for _ in range(section.count):
        _, entries, _, first, following = struct.unpack_from(order + "HHIII", data, at)
        entry = at + first
        for _ in range(entries):
            _, _, _, name, after = struct.unpack_from(order + "IHHII", data, entry)
            begin = strings.offset + name
            names.add(data[begin : data.index(b"\0", begin)].decode("ascii", "replace"))
            entry += after
            if not after:
                break
        at += following
        if not following:
            break
    return names
