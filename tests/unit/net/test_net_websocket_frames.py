"""WebSocket framing against another implementation of the RFC, and against peers that break it."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame
from websockets.frames import Opcode as TheirOpcode
from websockets.protocol import CLIENT, SERVER, Protocol

from edgesite.net.websocket_frames import (
    FrameError,
    FrameReader,
    Opcode,
    apply_mask,
    close_payload,
    encode,
    parse_close,
)

_LIMIT = 1 << 20
_payloads = st.one_of(st.binary(max_size=200), st.integers(0, 70_000).map(lambda size: b"\xa5" * size))
_messages = st.lists(
    st.tuples(st.sampled_from([Opcode.TEXT, Opcode.BINARY]), _payloads, st.integers(1, 5)), min_size=1, max_size=6
)


def _pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[begin:end] for begin, end in pairwise(edges)]


def _fed(reader: FrameReader, pieces: list[bytes]) -> list[tuple[int, bytes]]:
    return [one for piece in pieces for one in reader.feed(piece)]


@given(messages=_messages, cuts=st.lists(st.integers(0, 1 << 20), max_size=8), client=st.booleans())
def test_messages_of_another_implementation_come_whole_however_they_are_cut(
    messages: list[tuple[Opcode, bytes, int]], cuts: list[int], client: bool
) -> None:
    theirs = Protocol(CLIENT if client else SERVER)
    wanted = []
    for opcode, payload, fragments in messages:
        wanted.append((opcode, payload))
        parts = _pieces(payload, [len(payload) * at // fragments for at in range(1, fragments)]) or [b""]
        for at, part in enumerate(parts):
            theirs.send_frame(
                Frame(TheirOpcode.CONT if at else TheirOpcode(int(opcode)), part, fin=at == len(parts) - 1)
            )
            if at == 0 and len(parts) > 1:
                theirs.send_ping(b"between")
                wanted.insert(len(wanted) - 1, (Opcode.PING, b"between"))
    data = b"".join(theirs.data_to_send())
    assert _fed(FrameReader(masked=client, limit=_LIMIT), _pieces(data, cuts)) == wanted


@given(payload=_payloads, opcode=st.sampled_from([Opcode.TEXT, Opcode.BINARY]), client=st.booleans())
def test_another_implementation_reads_our_frames(payload: bytes, opcode: Opcode, client: bool) -> None:
    theirs = Protocol(SERVER if client else CLIENT)
    theirs.receive_data(encode(opcode, payload, b"\x01\xfe\x80\x7f" if client else None))
    (frame,) = theirs.events_received()
    assert isinstance(frame, Frame)
    assert (int(frame.opcode), frame.data, frame.fin) == (opcode, payload, True)


@given(data=st.binary(max_size=400), mask=st.binary(min_size=4, max_size=4))
def test_masking_twice_changes_nothing(data: bytes, mask: bytes) -> None:
    assert apply_mask(apply_mask(data, mask), mask) == data


@given(data=st.binary(max_size=300), masked=st.booleans())
def test_any_bytes_are_read_or_refused(data: bytes, masked: bool) -> None:
    reader = FrameReader(masked=masked, limit=100)
    with suppress(FrameError):  # anything else fails
        assert all(len(payload) <= 125 for _, payload in reader.feed(data))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xc1\x00", 1002),  # a reserved bit: no extension was agreed on
        (b"\x83\x00", 1002),  # an unknown opcode
        (b"\x89\x7e\x00\x7e", 1002),  # a control frame of 126 bytes
        (b"\x09\x00", 1002),  # a control frame in fragments
        (b"\x80\x00", 1002),  # a continuation of nothing
        (b"\x01\x00\x81\x00", 1002),  # a new message within another
        (b"\x82\x81\0\0\0\0a", 1002),  # masked though it comes from a server
        (b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff", 1009),
        (b"\x02\x60" + b"a" * 96 + b"\x80\x05aaaaa", 1009),  # the fragments together
    ],
)
def test_what_breaks_the_rules_is_refused_with_its_code(data: bytes, code: int) -> None:
    with pytest.raises(FrameError) as caught:
        FrameReader(masked=False, limit=100).feed(data)
    assert caught.value.code == code


def test_what_a_client_does_not_mask_is_refused() -> None:
    with pytest.raises(FrameError):
        FrameReader(masked=True, limit=100).feed(b"\x82\x01a")


def test_a_size_beyond_the_limit_is_refused_before_it_comes() -> None:
    with pytest.raises(FrameError):
        FrameReader(masked=False, limit=100).feed(b"\x82\x7e\x00\x80")


@pytest.mark.parametrize("payload", [b"\x03", b"\x03\xe7", b"\x03\xed", b"\x03\xee", b"\x13\x88", b"\x03\xe8\xff"])
def test_close_frames_that_make_no_sense_are_refused(payload: bytes) -> None:
    with pytest.raises(FrameError):
        parse_close(payload)


def test_close_frames_are_read_as_they_were_made() -> None:
    assert parse_close(close_payload(1001, "goodbye")) == (1001, "goodbye")
    assert parse_close(b"") == (1005, "")
    assert len(close_payload(1000, "ü" * 100)) == 124
