"""SPDY frames: there and back in any pieces, the dictionary, bounds, and whatever bytes a peer may send."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.wire import spdy
from edgesite.wire.spdy import (
    Data,
    Decoder,
    Encoder,
    Frame,
    GoAway,
    Headers,
    Ping,
    Reset,
    SpdyError,
    SynReply,
    SynStream,
)

names = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12)
headers = st.dictionaries(names, st.text(st.characters(max_codepoint=255), max_size=30), max_size=5)
numbers = st.integers(1, 2**31 - 1)
words = st.integers(0, 2**32 - 1)
frames = st.one_of(
    st.builds(SynStream, numbers, headers, st.booleans()),
    st.builds(SynReply, numbers, headers, st.booleans()),
    st.builds(Headers, numbers, headers, st.booleans()),
    st.builds(Reset, numbers, words),
    st.builds(Ping, words),
    st.builds(GoAway, numbers, words),
    st.builds(Data, numbers, st.binary(max_size=300), st.booleans()),
)


def encoded(encoder: Encoder, frame: Frame) -> bytes:
    if isinstance(frame, SynStream):
        return encoder.syn_stream(frame.stream, frame.headers, fin=frame.fin)
    if isinstance(frame, SynReply):
        return encoder.syn_reply(frame.stream, frame.headers, fin=frame.fin)
    if isinstance(frame, Headers):
        return encoder.headers(frame.stream, frame.headers, fin=frame.fin)
    if isinstance(frame, Data):
        return b"".join(encoder.data(frame.stream, frame.data, fin=frame.fin))
    if isinstance(frame, Reset):
        return encoder.reset(frame.stream, frame.status)
    if isinstance(frame, Ping):
        return encoder.ping(frame.number)
    return encoder.go_away(frame.last_stream, frame.status)


def joined(given: list[Frame]) -> list[Frame]:
    """Pieces of data put together, empty ones left out: where pieces end is nobody's business."""
    out: list[Frame] = []
    for one in given:
        last = out[-1] if out else None
        if isinstance(one, Data) and isinstance(last, Data) and last.stream == one.stream and not last.fin:
            out[-1] = Data(one.stream, last.data + one.data, one.fin)
        elif not isinstance(one, Data) or one.data or one.fin:
            out.append(one)
    return out


@given(st.lists(frames, max_size=12), st.lists(st.integers(1, 200), min_size=1, max_size=20))
def test_frames_come_through_in_any_pieces(sent: list[Frame], sizes: list[int]) -> None:
    encoder, decoder = Encoder(), Decoder()
    wire = b"".join(encoded(encoder, one) for one in sent)
    got: list[Frame] = []
    at = turn = 0
    while at < len(wire):
        size = sizes[turn % len(sizes)]
        got += decoder.feed(wire[at : at + size])
        at, turn = at + size, turn + 1
    assert joined(got) == joined(sent)


@given(st.binary(max_size=400))
def test_any_bytes_are_frames_or_an_error(data: bytes) -> None:
    decoder = Decoder()
    try:
        for _ in decoder.feed(data):
            pass
    except SpdyError:
        return


@given(st.binary(max_size=60), st.sampled_from([1, 2, 8]))
def test_any_header_block_is_read_or_refused(block: bytes, kind: int) -> None:
    packed = zlib.compressobj(zdict=spdy.DICTIONARY)
    body = struct.pack(">I", 1) + (b"\0" * 6 if kind == 1 else b"")
    body += packed.compress(block) + packed.flush(zlib.Z_SYNC_FLUSH)
    wire = struct.pack(">II", 0x80030000 | kind, len(body)) + body
    try:
        assert len(list(Decoder().feed(wire))) == 1
    except SpdyError:
        return


def test_the_dictionary_is_the_protocols() -> None:
    assert (len(spdy.DICTIONARY), zlib.adler32(spdy.DICTIONARY)) == (1423, 0xE3C6A7C2)


def test_what_peers_need_not_understand_is_skipped() -> None:
    settings = struct.pack(">IIIII", 0x80030004, 12, 1, 0, 0)
    window = struct.pack(">IIII", 0x80030009, 8, 1, 65536)
    assert list(Decoder().feed(settings + window + Encoder().ping(3))) == [Ping(3)]


def test_large_data_is_split() -> None:
    payload = bytes(range(256)) * 1000
    parts = Encoder().data(5, payload, fin=True)
    assert max(map(len, parts)) == spdy.DATA_BYTES
    assert joined(list(Decoder().feed(b"".join(parts)))) == [Data(5, payload, True)]


@pytest.mark.parametrize(
    "wire",
    [
        struct.pack(">II", 0x80020001, 10) + b"\0" * 10,  # SPDY/2
        struct.pack(">II", 0x80030001, 4) + b"\0" * 4,  # too short
        struct.pack(">II", 0x80030001, 0xFFFFFF),  # too long
        struct.pack(">II", 0x80030008, 8) + b"\0\0\0\1junk",
    ],
)
def test_what_is_no_spdy_is_refused(wire: bytes) -> None:
    with pytest.raises(SpdyError):
        list(Decoder().feed(wire))


def test_a_header_block_that_blows_up_is_refused() -> None:
    packed = zlib.compressobj(zdict=spdy.DICTIONARY)
    block = packed.compress(b"\0" * (4 << 20)) + packed.flush(zlib.Z_SYNC_FLUSH)
    body = struct.pack(">I", 1) + block
    with pytest.raises(SpdyError, match="too long"):
        list(Decoder().feed(struct.pack(">II", 0x80030008, len(body)) + body))
