"""Tunnel frames, against samples recorded from KubeEdge v1.23.1 (tests hold one of each kind)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.wire import tunnel
from edgesite.wire.tunnel import Connect, Frame, FrameType, InvalidFrame

#: `kubectl logs keep --tail=3`, cloudcore to edgecore.
RECORDED = (
    b"\x01\x00"
    b'{"MessID":1,"url":{"Scheme":"http","Opaque":"","User":null,"Host":"127.0.0.1:10350","Path":"/containerLogs/default/'
    b'keep/c","RawPath":"","OmitHost":false,"ForceQuery":false,"RawQuery":"tailLines=3","Fragment":"","RawFragment":""},'
    b'"header":{"Accept-Encoding":["gzip"],"User-Agent":["Go-http-client/1.1"]}}'
)


def test_a_recorded_request_is_read() -> None:
    frame = tunnel.decode(RECORDED)
    assert (frame.stream, frame.type) == (1, FrameType.LOGS)
    connect = Connect.decode(frame.data)
    assert connect.target == "/containerLogs/default/keep/c?tailLines=3"
    assert connect.method == "GET"
    assert connect.headers["User-Agent"] == ["Go-http-client/1.1"]


def test_a_request_has_the_members_that_go_reads() -> None:
    raw = json.loads(Connect("/exec/a/b%2Fc/d?command=a&command=b", "POST", {"X": ["1", "2"]}).encode(7))
    assert raw["MessID"] == 7
    assert raw["method"] == "POST"
    assert raw["header"] == {"X": ["1", "2"]}
    assert raw["url"] == {
        "Scheme": "http",
        "Opaque": "",
        "User": None,
        "Host": "127.0.0.1:10350",
        "Path": "/exec/a/b/c/d",
        "RawPath": "/exec/a/b%2Fc/d",
        "ForceQuery": False,
        "RawQuery": "command=a&command=b",
        "Fragment": "",
        "RawFragment": "",
    }


@pytest.mark.parametrize("target", ["/pods", "/a%2Fb?x=%20&y", "/a/b%20c", "/%C3%A4"])
def test_targets_pass_unchanged(target: str) -> None:
    assert Connect.decode(Connect(target).encode(1)).target == target


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b'{"url":{"Path":"relative"}}',
        b'{"url":{"Path":"/a","RawQuery":"x y"}}',
        b'{"url":{"Path":"/a","RawPath":"/a\\r\\nX: y"}}',
        b'{"url":{"Path":"/a"},"method":"GET /"}',
        b'{"url":{"Path":"/a"},"header":{"a":"b"}}',
        b"\xff\xfe",
    ],
)
def test_bad_requests_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidFrame):
        Connect.decode(data)


@given(st.integers(0, 2**64 - 1), st.integers(0, 300), st.binary(max_size=50))
def test_frames_pass_unchanged(stream: int, kind: int, data: bytes) -> None:
    assert tunnel.decode(tunnel.encode(stream, kind, data)) == Frame(stream, kind, data)


@pytest.mark.parametrize("message", [b"", b"\x01", b"\x80", b"\xff" * 11, b"\xff" * 9 + b"\x7f\x00"])
def test_what_is_no_frame_is_refused(message: bytes) -> None:
    with pytest.raises(InvalidFrame):
        tunnel.decode(message)


@given(st.binary(max_size=60))
def test_no_message_fails_otherwise(message: bytes) -> None:
    try:
        frame = tunnel.decode(message)
        Connect.decode(frame.data)
    except InvalidFrame:
        return


@pytest.mark.parametrize(
    ("text", "expected"), [("window", True), ("a, window", True), ("windows", False), (None, False)]
)
def test_windows_are_used_only_when_offered(text: str | None, expected: bool) -> None:
    assert tunnel.has_window(text) is expected
