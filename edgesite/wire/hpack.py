"""HPACK, the compression of HTTP/2's header blocks, without I/O.

    block = literal(":path", "/x") + indexed(":method", "POST")      # for what we send: no state, so a block may be kept and sent again
    headers = Decoder().decode(block)                               # for what comes: one decoder for a connection

Units   Bytes. Names and values are text of Latin-1, so that every byte keeps its value.
Errors  HpackError for what is no header block or goes beyond the bounds; the connection cannot go on after it.
State   The decoder's dynamic table: blocks must be decoded in the order in which they come. What is sent leaves the peer's table empty.
Source  RFC 7541; the code lengths are those of its appendix B, whose codes are canonical.
"""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["Decoder", "HpackError", "indexed", "literal"]

TABLE_BYTES: Final = 4096  #: of the dynamic table: the protocol's default, which we never change
LIST_BYTES: Final = 64 * 1024  #: of one list of headers, decoded
_ENTRY_BYTES: Final = 32  #: what each entry counts beyond its text
_NUMBER_MOST: Final = 1 << 28

_STATIC_TEXT: Final = """
:authority|:method GET|:method POST|:path /|:path /index.html|:scheme http|:scheme https|:status 200|:status 204|:status 206
:status 304|:status 400|:status 404|:status 500|accept-charset|accept-encoding gzip, deflate|accept-language|accept-ranges|accept
access-control-allow-origin|age|allow|authorization|cache-control|content-disposition|content-encoding|content-language
content-length|content-location|content-range|content-type|cookie|date|etag|expect|expires|from|host|if-match|if-modified-since
if-none-match|if-range|if-unmodified-since|last-modified|link|location|max-forwards|proxy-authenticate|proxy-authorization|range
referer|refresh|retry-after|server|set-cookie|strict-transport-security|transfer-encoding|user-agent|vary|via|www-authenticate
"""
_STATIC: Final[tuple[tuple[str, str], ...]] = tuple(
    (name, value)
    for name, _, value in (one.partition(" ") for one in _STATIC_TEXT.strip().replace("\n", "|").split("|"))
)
_NAMES: Final = {name: number for number, (name, _) in reversed(tuple(enumerate(_STATIC, 1)))}
_PAIRS: Final = {pair: number for number, pair in enumerate(_STATIC, 1)}

#: Bits of each byte's Huffman code, as a digit of base 36; the end mark of 30 bits is the 257th.
_LENGTHS: Final = (
    "dnsssssssoussussssssssusssssssss6aacd68baa8b8666555666666678f6cad67777777777777777777777878djde6f565"
    "65666577666567655677777fbedskmkkmmmnmnnnnnonoomnonnnnlmnmnnomlkmmnnlnmmolmnnllmlnmnnkmmmnmmnqqkjmnmp"
    "qqqrrqopjlqrrqrollqqsrrrkoklmllnmmppooqnqrqqrrrrrsrrrrrqu"
)


def literal(name: str, value: str) -> bytes:
    """Return a header that the peer does not put into its table."""
    number = _NAMES.get(name, 0)
    out = _number(number, 4, 0x00)
    if not number:
        out += _plain(name)
    return out + _plain(value)


def indexed(name: str, value: str) -> bytes:
    """Return a header of the static table. Raises KeyError if that does not have it."""
    return _number(_PAIRS[name, value], 7, 0x80)


class Decoder:
    """One for each direction of a connection."""

    def __init__(self) -> None:
        self._table: deque[tuple[str, str]] = deque()  # newest first
        self._held = 0
        self._most = TABLE_BYTES

    def decode(self, block: bytes) -> list[tuple[str, str]]:
        """Return the headers of one block, in order. Raises HpackError."""
        headers: list[tuple[str, str]] = []
        at, size = 0, 0
        while at < len(block):
            first = block[at]
            if first & 0x80:
                number, at = _read_number(block, at, 7)
                pair = self._entry(number)
            elif first & 0xE0 == 0x20:
                most, at = _read_number(block, at, 5)
                self._resize(most)
                continue
            else:
                number, at = _read_number(block, at, 6 if first & 0x40 else 4)
                name, at = (self._entry(number)[0], at) if number else _read_text(block, at)
                value, at = _read_text(block, at)
                pair = (name, value)
                if first & 0x40:
                    self._add(pair)
            size += _size(pair)
            if size > LIST_BYTES:
                raise HpackError("the headers are too long")
            headers.append(pair)
        return headers

    def _entry(self, number: int) -> tuple[str, str]:
        if 0 < number <= len(_STATIC):
            return _STATIC[number - 1]
        place = number - len(_STATIC) - 1
        if 0 <= place < len(self._table):
            return self._table[place]
        raise HpackError(f"no entry {number} in the tables")

    def _add(self, pair: tuple[str, str]) -> None:
        self._table.appendleft(pair)
        self._held += _size(pair)
        self._shrink()

    def _resize(self, most: int) -> None:
        if most > TABLE_BYTES:
            raise HpackError("the table grows beyond what was agreed")
        self._most = most
        self._shrink()

    def _shrink(self) -> None:
        while self._held > self._most:
            self._held -= _size(self._table.pop())


class HpackError(Exception):
    """A header block that cannot be read."""


def _size(pair: tuple[str, str]) -> int:
    return len(pair[0]) + len(pair[1]) + _ENTRY_BYTES


def _number(value: int, bits: int, flags: int) -> bytes:
    most = (1 << bits) - 1
    if value < most:
        return bytes((flags | value,))
    out = bytearray((flags | most,))
    value -= most
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _plain(text: str) -> bytes:
    data = text.encode("latin-1")
    return _number(len(data), 7, 0x00) + data


def _read_number(data: bytes, at: int, bits: int) -> tuple[int, int]:
    most = (1 << bits) - 1
    value = data[at] & most
    at += 1
    if value < most:
        return value, at
    shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        value += (byte & 0x7F) << shift
        if value > _NUMBER_MOST or shift > 28:
            raise HpackError("a number is too large")
        if not byte & 0x80:
            return value, at
        shift += 7
    raise HpackError("a number breaks off")


def _read_text(data: bytes, at: int) -> tuple[str, int]:
    if at >= len(data):
        raise HpackError("a header breaks off")
    packed = data[at] & 0x80
    length, at = _read_number(data, at, 7)
    end = at + length
    if end > len(data):
        raise HpackError("a text breaks off")
    piece = data[at:end]
    return (_unpack(piece) if packed else piece).decode("latin-1"), end


def _codes() -> dict[int, int]:
    """The byte of each Huffman code; a one stands before the code's bits, so that its length counts."""
    codes: dict[int, int] = {}
    code, bits = 0, 0
    for length, byte in sorted((int(digit, 36), byte) for byte, digit in enumerate(_LENGTHS)):
        code <<= length - bits
        bits = length
        codes[1 << bits | code] = byte
        code += 1
    return codes


_CODES: Final = _codes()
_END: Final = 256


def _unpack(data: bytes) -> bytes:
    out = bytearray()
    code = 1
    for byte in data:
        for bit in range(7, -1, -1):
            code = code << 1 | byte >> bit & 1
            found = _CODES.get(code)
            if found is None:
                continue
            if found == _END:
                raise HpackError("an end mark inside a text")
            out.append(found)
            code = 1
    padding = code.bit_length() - 1
    if padding > 7 or code != (1 << padding + 1) - 1:
        raise HpackError("a text ends in the middle of a code")
    return bytes(out)
