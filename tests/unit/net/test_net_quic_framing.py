"""Messages in a stream, however it is cut; greetings that are none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.net.errors import ProtocolError
from edgesite.net.quic.framing import Answer, Hello, Reader, encode

MESSAGES = st.lists(st.tuples(st.binary(max_size=200), st.booleans()), max_size=20)


@given(MESSAGES, st.lists(st.integers(1, 50), max_size=100))
def test_messages_come_out_as_they_went_in_however_the_stream_is_cut(
    messages: list[tuple[bytes, bool]], cuts: list[int]
) -> None:
    stream = b"".join(encode(data, text=text) for data, text in messages)
    reader, found = Reader(200), []
    for size in cuts:
        found += reader.feed(stream[:size])
        stream = stream[size:]
    found += reader.feed(stream)
    assert [(one.data, one.text) for one in found] == messages


def test_a_message_beyond_the_limit_is_refused_by_its_head_alone() -> None:
    with pytest.raises(ProtocolError, match="101 bytes; 100 are allowed"):
        Reader(100).feed(encode(bytes(101), text=False)[:4])
    reader = Reader(10)
    reader.limit = 100
    assert len(reader.feed(encode(bytes(100), text=True))) == 1


@given(st.binary(max_size=100))
def test_anything_may_come_for_a_greeting(data: bytes) -> None:
    for kind in (Hello, Answer):
        try:
            kind.from_bytes(data)  # type: ignore[attr-defined]
        except ProtocolError:
            continue


def test_greetings_survive_the_way() -> None:
    hello, answer = Hello("edge-1", "p"), Answer(503, "full", 30.0)
    assert Answer.from_bytes(answer.to_bytes()) == answer
    assert Hello.from_bytes(hello.to_bytes()) == Hello("edge-1", "p")
    assert Hello.from_bytes(b'{"version": 9, "node": "n", "later": [1]}').version == 9
    for bad in (b"", b"[]", b'{"version": "1", "node": "n"}', b'{"version": 1}', b'{"version": 1, "node": 7}'):
        with pytest.raises(ProtocolError):
            Hello.from_bytes(bad)
