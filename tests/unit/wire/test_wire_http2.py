"""HTTP/2, the client's side: frames, windows, what ends streams, and what a peer must not do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.wire import http2
from edgesite.wire.hpack import literal
from edgesite.wire.http2 import Body, Connection, Headers, Http2Error, Reset

OK = literal(":status", "200")


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def sent(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """Frames of what the client wrote."""
    data = data.removeprefix(http2.PREFACE)
    found = []
    while data:
        length = int.from_bytes(data[:3], "big")
        found.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + length]))
        data = data[9 + length :]
    return found


def opened(body: bytes = b"hello") -> tuple[Connection, int]:
    connection = Connection()
    connection.take()
    stream = connection.request(b"block", body)
    return connection, stream


def test_a_request_and_its_answer() -> None:
    connection, stream = opened()
    assert [one[:3] for one in sent(connection.take())] == [(1, 4, 1), (0, 1, 1)]
    events = connection.receive(frame(1, 4, stream, OK) + frame(0, 0, stream, b"abc") + frame(1, 5, stream, OK))
    assert events == [
        Headers(stream, [(":status", "200")], False),
        Body(stream, b"abc", False),
        Headers(stream, [(":status", "200")], True),
    ]
    assert connection.open_streams == 0


@given(st.integers(1, 40))
def test_frames_may_come_in_any_pieces(size: int) -> None:
    connection, stream = opened()
    padded = b"\x02abc\0\0"
    split = frame(1, 0, stream, OK[:3]) + frame(9, 4, stream, OK[3:])
    data = frame(4, 0, 0) + frame(99, 0, 0, b"?") + frame(2, 0, 1, bytes(5)) + split + frame(0, 9, stream, padded)
    events = [one for at in range(0, len(data), size) for one in connection.receive(data[at : at + size])]
    assert events == [Headers(stream, [(":status", "200")], False), Body(stream, b"abc", True)]


def test_a_large_body_waits_for_windows() -> None:
    connection, stream = opened(bytes(100_000))
    assert sum(len(one[3]) for one in sent(connection.take()) if one[0] == 0) == 65_535
    connection.receive(frame(8, 0, stream, (50_000).to_bytes(4, "big")))
    assert connection.take() == b""
    connection.receive(frame(8, 0, 0, (20_000).to_bytes(4, "big")))
    connection.receive(frame(8, 0, 0, (20_000).to_bytes(4, "big")))
    data = [one for one in sent(connection.take()) if one[0] == 0]
    assert sum(len(one[3]) for one in data) == 34_465
    assert data[-1][1] == 1


def test_windows_that_the_settings_change_count_for_open_streams() -> None:
    connection, _ = opened(bytes(60_000))
    connection.take()
    other = connection.request(b"block", bytes(10_000))
    connection.take()
    connection.receive(frame(8, 0, 0, (20_000).to_bytes(4, "big")) + frame(4, 0, 0, b"\0\x04\0\0\0\x10"))
    third = connection.request(b"block", bytes(100))
    frames = sent(connection.take())
    assert sum(len(one[3]) for one in frames if one[:1] + one[2:3] == (0, other)) == 10_000 - 5_535
    assert [len(one[3]) for one in frames if one[:1] + one[2:3] == (0, third)] == [16]


def test_new_windows_are_used_only_after_they_were_acknowledged() -> None:
    connection, _ = opened(bytes(100_000))
    connection.take()
    connection.receive(frame(8, 0, 0, (1 << 20).to_bytes(4, "big")) + frame(4, 0, 0, b"\0\x04\0\x01\x86\xa0"))
    assert [one[0] for one in sent(connection.take())] == [4, 0, 0, 0]


def test_room_is_given_back() -> None:
    connection, stream = opened()
    connection.take()
    for _ in range(64):
        connection.receive(frame(0, 0, stream, bytes(16_384)))
    windows = [(one[2], int.from_bytes(one[3], "big")) for one in sent(connection.take()) if one[0] == 8]
    assert sum(more for at, more in windows if at == 0) == 1 << 20
    assert sum(more for at, more in windows if at == stream) == 1 << 20


def test_pings_and_settings_are_answered() -> None:
    connection = Connection()
    connection.take()
    connection.receive(frame(4, 0, 0, b"\0\x03\0\0\0\x02") + frame(6, 0, 0, b"12345678") + frame(6, 1, 0, bytes(8)))
    assert sent(connection.take()) == [(4, 1, 0, b""), (6, 1, 0, b"12345678")]
    assert connection.most_streams == 2


def test_goaway_ends_what_the_peer_has_not_begun() -> None:
    connection, first = opened()
    second = connection.request(b"block", b"")
    assert connection.receive(frame(7, 0, 0, first.to_bytes(4, "big") + bytes(4))) == [Reset(second, http2.REFUSED)]
    assert connection.closing
    assert connection.receive(frame(1, 5, first, OK)) == [Headers(first, [(":status", "200")], True)]


def test_a_cancelled_stream_is_passed_over_and_the_table_goes_on() -> None:
    connection, stream = opened()
    connection.take()
    connection.cancel(stream)
    connection.cancel(stream)
    assert sent(connection.take()) == [(3, 0, stream, b"\0\0\0\x08")]
    assert connection.receive(frame(1, 4, stream, b"\x40\x01a\x01b") + frame(0, 1, stream, b"late")) == []
    other = connection.request(b"block", b"")
    assert connection.receive(frame(1, 5, other, b"\xbe")) == [Headers(other, [("a", "b")], True)]
    assert connection.receive(frame(3, 0, other, bytes(4))) == []


@pytest.mark.parametrize(
    "data",
    [
        frame(5, 4, 1, bytes(4)),
        frame(9, 4, 1, OK),
        frame(1, 0, 1, OK) + frame(0, 0, 1),
        frame(1, 4, 0, OK),
        frame(6, 0, 0, b"short"),
        frame(4, 0, 0, b"short"),
        frame(4, 0, 0, b"\0\x04\xff\xff\xff\xff"),
        frame(0, 8, 1, b"\x05abc"),
        frame(1, 4, 1, b"\xff\xff"),
        b"\xff\xff\xff\x00\x00\x00\x00\x00\x00",
        frame(1, 0, 1, bytes(16_384)) + frame(9, 0, 1, bytes(16_384)) * 4,
    ],
)
def test_what_a_peer_must_not_do(data: bytes) -> None:
    connection, _ = opened()
    with pytest.raises(Http2Error):
        connection.receive(data)


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 255), st.integers(0, 5), st.binary(max_size=60)), max_size=12)
)
def test_anything_is_taken_or_refused(frames: list[tuple[int, int, int, bytes]]) -> None:
    connection, _ = opened(bytes(100))
    try:
        for one in frames:
            connection.receive(frame(*one))
    except Http2Error:
        return
