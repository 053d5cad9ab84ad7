"""Which shared libraries an ELF file asks the loader for.

Source  ELF specification (gABI): file header, program headers, dynamic section; little-endian, 32 and 64 bit.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

__all__ = ["needed"]

_LOAD: Final = 1
_DYNAMIC: Final = 2
_NEEDED: Final = 1
_STRTAB: Final = 5


def needed(path: Path) -> list[str]:
    """Return the names; none for what is no ELF file, or linked statically. Raises OSError, ValueError."""
    with path.open("rb") as file:
        if file.read(4) != b"\x7fELF":
            return []
    try:
        return _needed(path.read_bytes())
    except (struct.error, IndexError, OverflowError, ValueError) as exc:
        raise ValueError(f"{path} is a broken ELF file: {exc}") from None


def _needed(data: bytes) -> list[str]:
    """Raises struct.error, IndexError, OverflowError, ValueError."""
    wide = data[4] == 2
    at, size, count = (
        struct.unpack_from("<Q", data, 32)[0] if wide else struct.unpack_from("<I", data, 28)[0],
        *(struct.unpack_from("<HH", data, 54 if wide else 42)),
    )
    segments = [_segment(data, at + number * size, wide) for number in range(count)]
    dynamic = next((one for one in segments if one[0] == _DYNAMIC), None)
    if dynamic is None:
        return []
    form = "<QQ" if wide else "<II"
    entries = list(
        struct.iter_unpack(
            form, data[dynamic[1] : dynamic[1] + dynamic[3] // struct.calcsize(form) * struct.calcsize(form)]
        )
    )
    address = next((value for tag, value in entries if tag == _STRTAB), 0)
    names = next(
        (
            address - where + start
            for kind, start, where, length in segments
            if kind == _LOAD and where <= address < where + length
        ),
        0,
    )
    return [_text(data, names + value) for tag, value in entries if tag == _NEEDED]


def _segment(data: bytes, at: int, wide: bool) -> tuple[int, int, int, int]:
    """Type, place in the file, address, length in the file."""
    if wide:
        kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", data, at)
    else:
        kind, offset, address, _, length = struct.unpack_from("<IIIII", data, at)
    return kind, offset, address, length


def _text(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()
