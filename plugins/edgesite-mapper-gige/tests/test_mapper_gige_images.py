"""Images from frames: what PNG and PNM hold, read back by a reader of a few lines."""

from __future__ import annotations

import struct
import zlib

import pytest
from edgesite_mapper_gige.images import Frame, ImageError, encode
from hypothesis import given
from hypothesis import strategies as st

MONO8, MONO12, MONO16, RGB8, BGR8 = 0x01080001, 0x01100005, 0x01100007, 0x02180014, 0x02180015
BAYER = {"GR": 0x01080008, "RG": 0x01080009, "GB": 0x0108000A, "BG": 0x0108000B}


def read_png(data: bytes) -> tuple[int, int, int, int, bytes]:
    """Width, height, bits, colour type and samples of a PNG without filters; its checksums are checked."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert struct.unpack_from(">I", data, at + 8 + size)[0] == zlib.crc32(kind + body)
        chunks[kind] = body
        at += 12 + size
    width, height, bits, colour = struct.unpack_from(">IIBB", chunks[b"IHDR"])
    rows = zlib.decompress(chunks[b"IDAT"])
    line = len(rows) // height
    assert all(rows[line * row] == 0 for row in range(height))
    return width, height, bits, colour, b"".join(rows[line * row + 1 : line * (row + 1)] for row in range(height))


def test_grey_of_8_bits() -> None:
    frame = Frame(2, 2, MONO8, b"\x00\x40\x80\xff")
    assert encode(frame, "pnm") == b"P5\n2 2\n255\n\x00\x40\x80\xff"
    assert read_png(encode(frame, "png")) == (2, 2, 8, 0, b"\x00\x40\x80\xff")


def test_grey_of_more_bits_has_its_high_byte_first() -> None:
    assert encode(Frame(2, 1, MONO16, b"\x34\x12\xff\x00"), "pnm") == b"P5\n2 1\n65535\n\x12\x34\x00\xff"
    assert encode(Frame(1, 1, MONO12, b"\xff\x0f"), "pnm") == b"P5\n1 1\n4095\n\x0f\xff"
    assert read_png(encode(Frame(1, 1, MONO12, b"\xff\x0f"), "png")) == (1, 1, 16, 0, b"\xff\xf0")


def test_colours() -> None:
    assert encode(Frame(1, 1, RGB8, b"\x01\x02\x03"), "pnm") == b"P6\n1 1\n255\n\x01\x02\x03"
    assert read_png(encode(Frame(1, 1, BGR8, b"\x03\x02\x01"), "png")) == (1, 1, 8, 2, b"\x01\x02\x03")


@pytest.mark.parametrize("pattern", BAYER)
def test_a_scene_of_one_colour_is_that_colour_in_each_bayer_pattern(pattern: str) -> None:
    scene = {"R": 10, "G": 20, "B": 30}
    first, second = pattern, {"GR": "BG", "RG": "GB", "GB": "RG", "BG": "GR"}[pattern]
    rows = [bytes(scene[one] for one in row * 2) for row in (first, second)] * 2
    assert read_png(encode(Frame(4, 4, BAYER[pattern], b"".join(rows)), "png"))[4] == bytes((10, 20, 30)) * 16


def test_each_row_of_a_bayer_pattern_has_its_own_green() -> None:
    cells = {"RG": b"\x0a\x01\x02\x1e", "GR": b"\x01\x0a\x1e\x02", "GB": b"\x01\x1e\x0a\x02", "BG": b"\x1e\x01\x02\x0a"}
    for pattern, data in cells.items():
        samples = read_png(encode(Frame(2, 2, BAYER[pattern], data), "png"))[4]
        assert samples == b"\x0a\x01\x1e" * 2 + b"\x0a\x02\x1e" * 2, pattern


def test_what_is_behind_each_line_is_left_out() -> None:
    assert encode(Frame(2, 2, MONO8, b"\x01\x02..\x03\x04", padding=2), "pnm")[-4:] == b"\x01\x02\x03\x04"


@pytest.mark.parametrize(
    ("frame", "form"),
    [
        (Frame(1, 1, 0x02100032, b"\0\0"), "png"),
        (Frame(4, 4, MONO8, b"\0" * 15), "png"),
        (Frame(0, 4, MONO8, b""), "png"),
        (Frame(1, 1, BAYER["RG"], b"\0"), "png"),
        (Frame(1, 1, MONO8, b"\0"), "jpeg"),
    ],
)
def test_other_frames_and_formats_are_refused(frame: Frame, form: str) -> None:
    with pytest.raises(ImageError):
        encode(frame, form)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 3), st.data())
def test_any_grey_frame_keeps_its_samples(width: int, height: int, padding: int, data: st.DataObject) -> None:
    stride = width + padding
    raw = data.draw(st.binary(min_size=stride * height, max_size=stride * height))
    pixels = b"".join(raw[stride * row :][:width] for row in range(height))
    frame = Frame(width, height, MONO8, raw, padding)
    assert read_png(encode(frame, "png")) == (width, height, 8, 0, pixels)
    assert encode(frame, "pnm") == b"P5\n%d %d\n255\n" % (width, height) + pixels
