"""HPACK: the examples of RFC 7541, and that nothing but HpackError comes out of what is no header block."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.wire import hpack
from edgesite.wire.hpack import Decoder, HpackError, indexed, literal

TEXT = st.text(st.characters(max_codepoint=255), max_size=300)


def packed(text: str) -> bytes:
    """A text in Huffman code, with its length ahead."""
    codes = {byte: code for code, byte in hpack._CODES.items()}
    bits = "".join(bin(codes[byte])[3:] for byte in text.encode("latin-1"))
    bits += "1" * (-len(bits) % 8)
    data = bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8))
    return hpack._number(len(data), 7, 0x80) + data


def test_requests_of_appendix_c4() -> None:
    decoder = Decoder()
    first = decoder.decode(bytes.fromhex("828684418cf1e3c2e5f23a6ba0ab90f4ff"))
    assert first[-1] == (":authority", "www.example.com")
    second = decoder.decode(bytes.fromhex("828684be5886a8eb10649cbf"))
    assert second[-2:] == [(":authority", "www.example.com"), ("cache-control", "no-cache")]


def test_the_code_is_complete() -> None:
    assert sum(2.0 ** -(code.bit_length() - 1) for code in hpack._CODES) == 1.0
    assert len(hpack._CODES) == 257


def test_static_headers_take_one_byte() -> None:
    assert indexed(":method", "POST") == b"\x83"
    with pytest.raises(KeyError):
        indexed(":method", "BREW")


@given(st.lists(st.tuples(TEXT, TEXT), max_size=8))
def test_literals_come_back(headers: list[tuple[str, str]]) -> None:
    assert Decoder().decode(b"".join(literal(*one) for one in headers)) == headers


@given(st.lists(TEXT, min_size=1, max_size=8))
def test_packed_texts_come_back_and_stay_in_the_table(values: list[str]) -> None:
    decoder = Decoder()
    block = b"".join(b"\x40" + packed("x") + packed(one) for one in values)
    assert decoder.decode(block) == [("x", one) for one in values]
    assert decoder.decode(b"\xbe") == [("x", values[-1])]


def test_the_table_forgets_what_does_not_fit() -> None:
    decoder = Decoder()
    for number in range(200):
        decoder.decode(b"\x40" + packed("name") + packed(f"{number:060}"))
    assert decoder._held <= hpack.TABLE_BYTES
    with pytest.raises(HpackError):
        decoder.decode(hpack._number(61 + 150, 7, 0x80))
    decoder.decode(b"\x20")
    assert not decoder._table


@given(st.binary(max_size=200))
def test_anything_is_headers_or_refused(data: bytes) -> None:
    try:
        Decoder().decode(data)
    except HpackError:
        return


@pytest.mark.parametrize(
    "block", [b"\x80", b"\x3f\xe2\x7f", b"\x40\x81\xff\x00", b"\x00\x05ab", b"\xff\xff\xff\xff\xff\xff", b"\x00"]
)
def test_broken_blocks_are_refused(block: bytes) -> None:
    with pytest.raises(HpackError):
        Decoder().decode(block)


def test_a_small_block_cannot_become_a_large_list() -> None:
    decoder = Decoder()
    decoder.decode(b"\x40" + literal("n", "v" * 3000)[1:])
    with pytest.raises(HpackError, match="too long"):
        decoder.decode(b"\xbe" * 100)
