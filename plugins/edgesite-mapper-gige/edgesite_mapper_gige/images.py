"""Images as cameras send them, as PNG or PNM.

Grey is kept with as many bits as it has: 8, or 16 where the camera says 10 to 16. Colour has 8 bits a channel. Bayer patterns are made colours by
taking, for each 2 x 2 cell, its red, its blue, and each row's own green: no pixel is invented, and no arithmetic is done on millions of them.

Errors  ImageError for a pixel format that is not known here, or a frame of another size than it says.
Source  GenICam PFNC (codes), the PNG specification (RFC 2083), netpbm's pgm and ppm.
"""

from __future__ import annotations

import struct
import sys
import zlib
from array import array
from dataclasses import dataclass
from typing import Final

__all__ = ["FORMATS", "Frame", "ImageError", "encode"]

FORMATS: Final = ("png", "pnm")

#: Code → bits that a grey value has.
_GREY: Final = {
    0x01080001: 8,  # Mono8
    0x010800C6: 8,  # Confidence8
    0x01100003: 10,  # Mono10
    0x01100005: 12,  # Mono12
    0x01100025: 14,  # Mono14
    0x01100007: 16,  # Mono16
    0x011000B8: 16,  # Coord3D_C16
}
_RGB8: Final = 0x02180014
_BGR8: Final = 0x02180015
#: Code → where a cell's red is: row, column.
_BAYER: Final = {
    0x01080008: (0, 1),  # BayerGR8
    0x01080009: (0, 0),  # BayerRG8
    0x0108000A: (1, 0),  # BayerGB8
    0x0108000B: (1, 1),  # BayerBG8
}


class ImageError(ValueError):
    """The frame cannot be made an image."""


@dataclass(frozen=True, slots=True)
class Frame:
    width: int
    height: int
    code: int  #: of its pixel format
    data: bytes
    padding: int = 0  #: bytes behind each line


@dataclass(frozen=True, slots=True)
class _Plain:
    """Grey or RGB, 8 or 16 bits (high byte first), without padding."""

    width: int
    height: int
    channels: int
    bits: int
    data: bytes


def encode(frame: Frame, format_: str) -> bytes:
    """Return the image as a file of that format. Raises ImageError."""
    plain = _plain(frame)
    if format_ == "png":
        return _png(plain)
    if format_ == "pnm":
        return _pnm(plain)
    raise ImageError(f"images are made as {' or '.join(FORMATS)}, not {format_[:20]}")


def _plain(frame: Frame) -> _Plain:
    width, height, code = frame.width, frame.height, frame.code
    if code in _GREY:
        bits = _GREY[code]
        data = _lines(frame, width * (2 if bits > 8 else 1))
        return _Plain(width, height, 1, bits, _big_endian(data) if bits > 8 else data)
    if code == _RGB8:
        return _Plain(width, height, 3, 8, _lines(frame, 3 * width))
    if code == _BGR8:
        mixed = _lines(frame, 3 * width)
        data = bytearray(mixed)
        data[0::3], data[2::3] = mixed[2::3], mixed[0::3]
        return _Plain(width, height, 3, 8, bytes(data))
    if code in _BAYER:
        return _coloured(width, height, _lines(frame, width), *_BAYER[code])
    raise ImageError(f"pixel format 0x{code:08X} cannot be made an image; choose a Mono, RGB8, BGR8 or 8 bit Bayer one")


def _lines(frame: Frame, line: int) -> bytes:
    """The lines without what is behind each of them."""
    stride = line + frame.padding
    wanted = stride * frame.height - frame.padding
    if frame.width <= 0 or frame.height <= 0 or len(frame.data) < wanted:
        raise ImageError(f"a frame of {frame.width} x {frame.height} has {len(frame.data)} bytes, not {wanted}")
    if not frame.padding:
        return frame.data[:wanted]
    return b"".join(frame.data[at : at + line] for at in range(0, stride * frame.height, stride))


def _big_endian(data: bytes) -> bytes:
    values = array("H", data)
    if sys.byteorder == "little":
        values.byteswap()
    return values.tobytes()


def _coloured(width: int, height: int, data: bytes, red_row: int, red_column: int) -> _Plain:
    """Whole cells only: an odd last line or column is left out."""
    width, lines = width // 2 * 2, [data[at : at + width] for at in range(0, width * height, width)]
    if not width or height < 2:
        raise ImageError("a Bayer pattern needs two lines and columns")
    made = []
    for at in range(0, height // 2 * 2, 2):
        with_red, with_blue = lines[at + red_row][:width], lines[at + 1 - red_row][:width]
        red, blue = with_red[red_column::2], with_blue[1 - red_column :: 2]
        greens = with_red[1 - red_column :: 2], with_blue[red_column::2]
        for green in greens if red_row == 0 else greens[::-1]:
            line = bytearray(3 * width)
            for channel, values in enumerate((red, green, blue)):
                line[channel::6] = line[channel + 3 :: 6] = values
            made.append(bytes(line))
    return _Plain(width, len(made), 3, 8, b"".join(made))


def _pnm(plain: _Plain) -> bytes:
    kind = b"P5" if plain.channels == 1 else b"P6"
    return b"%b\n%d %d\n%d\n" % (kind, plain.width, plain.height, (1 << plain.bits) - 1) + plain.data


def _png(plain: _Plain) -> bytes:
    data, bits = plain.data, plain.bits
    if 8 < bits < 16:  # PNG has 8 or 16; the range is filled so that the image is as bright as it was
        values = array("H", _big_endian(data))
        data, bits = _big_endian(array("H", [value << (16 - bits) & 0xFFFF for value in values]).tobytes()), 16
    line = plain.width * plain.channels * (bits // 8)
    rows = b"".join(b"\0" + data[at : at + line] for at in range(0, line * plain.height, line))
    colour = 0 if plain.channels == 1 else 2
    header = struct.pack(">IIBBBBB", plain.width, plain.height, bits, colour, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )
