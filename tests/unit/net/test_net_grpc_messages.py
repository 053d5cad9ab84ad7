"""gRPC's framing and statuses: any pieces, any text, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.net.grpc_messages import (
    Code,
    GrpcError,
    Unframer,
    framed,
    of_http,
    of_reset,
    read_status,
    read_timeout,
    timeout_text,
    write_status,
)


@given(st.lists(st.binary(max_size=40), max_size=8), st.integers(1, 50))
def test_messages_come_in_any_pieces(messages: list[bytes], size: int) -> None:
    data = b"".join(framed(one) for one in messages)
    unframer = Unframer(1000, "it")
    got = [one for at in range(0, len(data), size) for one in unframer.feed(data[at : at + size])]
    assert got == messages
    assert unframer.is_between


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\0\0\0\x03\xe9", Code.RESOURCE_EXHAUSTED),
        (b"\0\xff\xff\xff\xff", Code.RESOURCE_EXHAUSTED),
        (b"\1\0\0\0\1x", Code.UNIMPLEMENTED),
    ],
)
def test_what_is_too_large_or_compressed_is_refused_before_it_is_here(data: bytes, code: Code) -> None:
    with pytest.raises(GrpcError) as refused:
        list(Unframer(1000, "it").feed(data))
    assert refused.value.code is code


@given(st.text(max_size=200))
def test_a_status_text_survives(text: str) -> None:
    said = dict(write_status(Code.NOT_FOUND, text))
    assert read_status(said[b"grpc-status"], said.get(b"grpc-message", b"")) == (Code.NOT_FOUND, text)


@given(st.binary(max_size=30), st.binary(max_size=30))
def test_a_status_may_be_nonsense(code: bytes, text: bytes) -> None:
    assert isinstance(read_status(code, text)[0], Code)


@given(st.floats(0.001, 9e7))
def test_a_deadline_survives(seconds: float) -> None:
    text = timeout_text(seconds)
    assert len(text) <= 9
    assert read_timeout(text.encode()) == pytest.approx(seconds, abs=0.001 if seconds < 99_999 else 1.0)


@pytest.mark.parametrize("text", [b"", b"S", b"5", b"-1S", b"1.5S", b"123456789S", b"1x"])
def test_a_deadline_that_is_none_is_passed_over(text: bytes) -> None:
    assert read_timeout(text) is None


def test_other_ends_have_their_codes() -> None:
    assert [of_reset(code) for code in (0, 1, 7, 8, 11, 12, 999)] == [
        Code.INTERNAL,
        Code.INTERNAL,
        Code.UNAVAILABLE,
        Code.CANCELLED,
        Code.RESOURCE_EXHAUSTED,
        Code.PERMISSION_DENIED,
        Code.INTERNAL,
    ]
    assert [of_http(status) for status in ("404", "503", "418")] == [Code.UNIMPLEMENTED, Code.UNAVAILABLE, Code.UNKNOWN]
