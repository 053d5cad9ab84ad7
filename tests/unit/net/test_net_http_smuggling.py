"""Heads and bodies that two servers could read in two ways: each is refused, by either parser, and nothing after it is taken for a request."""

from __future__ import annotations

from typing import Any, Final

import anyio
import pytest
from net_browser import served, settle, talk

from edgesite.net import h11_parser, http_intake
from edgesite.net.http import Request, Response
from edgesite.net.http_head import fault, host_of_target

pytestmark = pytest.mark.anyio

HOST: Final = b"Host: h\r\n"
CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"
END: Final = b"0\r\n\r\n"
SMUGGLED: Final = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"


def post(lines: bytes, body: bytes = b"", start: bytes = b"POST / HTTP/1.1") -> bytes:
    return start + b"\r\n" + lines + b"\r\n" + body


BAD: Final = {
    "two Host lines": post(HOST + HOST),
    "two Host lines that differ": post(HOST + b"hOST: other\r\n"),
    "two Host lines and an absolute target": post(HOST + HOST, start=b"POST http://h/ HTTP/1.1"),
    "no Host": post(b"A: b\r\n"),
    "Host with a space": post(b"Host: a b\r\n"),
    "Host with a path": post(b"Host: a/b\r\n"),
    "Host with a user": post(b"Host: me@a\r\n"),
    "absolute target with a user": post(HOST, start=b"POST http://me@h/ HTTP/1.1"),
    "Content-Lengths that differ": post(HOST + b"Content-Length: 3\r\nContent-Length: 4\r\n", b"abcd"),
    "Content-Length with a sign": post(HOST + b"Content-Length: +3\r\n", b"abc"),
    "negative Content-Length": post(HOST + b"Content-Length: -3\r\n", b"abc"),
    "hexadecimal Content-Length": post(HOST + b"Content-Length: 0x3\r\n", b"abc"),
    "Content-Length with an underscore": post(HOST + b"Content-Length: 0_3\r\n", b"abc"),
    "empty Content-Length": post(HOST + b"Content-Length:\r\n"),
    "endless Content-Length": post(HOST + b"Content-Length: 99999999999999999999999999\r\n"),
    "vertical tab before Content-Length": post(HOST + b"Content-Length:\x0b3\r\n", b"abc"),
    "Transfer-Encoding, then Content-Length": post(HOST + CHUNKED + b"Content-Length: 3\r\n", END),
    "Content-Length, then Transfer-Encoding": post(HOST + b"Content-Length: 3\r\n" + CHUNKED, END),
    "Transfer-Encoding twice": post(HOST + CHUNKED + CHUNKED, END),
    "chunked twice": post(HOST + b"Transfer-Encoding: chunked, chunked\r\n", END),
    "gzip": post(HOST + b"Transfer-Encoding: gzip\r\n", END),
    "gzip, then chunked": post(HOST + b"Transfer-Encoding: gzip, chunked\r\n", END),
    "chunked, then gzip": post(HOST + b"Transfer-Encoding: chunked, gzip\r\n", END),
    "identity": post(HOST + b"Transfer-Encoding: identity\r\n", END),
    "nearly chunked": post(HOST + b"Transfer-Encoding: xchunked\r\n", END),
    "chunked with a parameter": post(HOST + b"Transfer-Encoding: chunked;a=b\r\n", END),
    "chunked in quotes": post(HOST + b'Transfer-Encoding: "chunked"\r\n', END),
    "empty Transfer-Encoding": post(HOST + b"Transfer-Encoding:\r\n", END),
    "vertical tab before chunked": post(HOST + b"Transfer-Encoding: \x0bchunked\r\n", END),
    "Transfer-Encoding in HTTP/1.0": post(HOST + CHUNKED, END, b"POST / HTTP/1.0"),
    "a folded line": post(HOST + b"X: a\r\n b\r\n"),
    "a folded Transfer-Encoding": post(HOST + b"Transfer-Encoding:\r\n chunked\r\n", END),
    "a Content-Length that is folded away": post(HOST + b"X: a\r\n\tContent-Length: 3\r\n"),
    "a folded first line": post(b" X: a\r\n" + HOST),
    "a space before the colon": post(HOST + b"X : a\r\n"),
    "a space before the colon of a length": post(HOST + b"Content-Length : 3\r\n", b"abc"),
    "a space before the colon of a coding": post(HOST + b"Transfer-Encoding : chunked\r\n", END),
    "no colon": post(HOST + b"X\r\n"),
    "no name": post(HOST + b": a\r\n"),
    "a name that is no token": post(HOST + b"X(y: a\r\n"),
    "NUL in a value": post(HOST + b"X: a\0b\r\n"),
    "NUL in a name": post(HOST + b"X\0: a\r\n"),
    "LF alone after a header": b"POST / HTTP/1.1\r\nHost: h\nX: a\r\n\r\n",
    "LF alone everywhere": b"POST / HTTP/1.1\nHost: h\n\n",
    "LF alone at the end of the head": b"POST / HTTP/1.1\r\nHost: h\r\n\n",
    "LF alone after the first line": b"POST / HTTP/1.1\nHost: h\r\n\r\n",
    "CR alone in a value": post(HOST + b"X: a\rTransfer-Encoding: chunked\r\n"),
    "CR twice": b"POST / HTTP/1.1\r\nHost: h\r\r\n\r\n",
    "LF alone after a chunk's size": post(HOST + CHUNKED, b"3\nabc\r\n" + END),
    "LF alone after a chunk": post(HOST + CHUNKED, b"3\r\nabc\n" + END),
    "LF alone in a chunk's extension": post(HOST + CHUNKED, b"3;a\nb\r\nabc\r\n" + END),
    "a chunk's size with 0x": post(HOST + CHUNKED, b"0x3\r\nabc\r\n" + END),
    "a chunk's size with a sign": post(HOST + CHUNKED, b"+3\r\nabc\r\n" + END),
    "a space before a chunk's size": post(HOST + CHUNKED, b" 3\r\nabc\r\n" + END),
    "a negative chunk": post(HOST + CHUNKED, b"-1\r\nabc\r\n" + END),
    "a chunk without size": post(HOST + CHUNKED, b"\r\nabc\r\n" + END),
    "a chunk longer than its size": post(HOST + CHUNKED, b"3\r\nabcd\r\n" + END),
    "an upgrade with a body": post(
        HOST + b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n", b"abc"
    ),
    "an upgrade with chunks": post(HOST + b"Connection: upgrade\r\nUpgrade: websocket\r\n" + CHUNKED, END),
    "a tab after the method": post(HOST, start=b"POST\t/ HTTP/1.1"),
    "a space before the method": post(HOST, start=b" POST / HTTP/1.1"),
    "a space in the target": post(HOST, start=b"POST /a b HTTP/1.1"),
    "a control character in the target": post(HOST, start=b"POST /a\x01b HTTP/1.1"),
    "HTTP in small letters": post(HOST, start=b"POST / http/1.1"),
    "HTTP/2.0": post(HOST, start=b"POST / HTTP/2.0"),
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/1.1x": post(HOST, start=b"POST / HTTP/1.1x"),
}


@pytest.fixture(params=["httptools", "h11"], autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run each test with both parsers."""
    if request.param == "h11":
        for name in ("ParserError", "ParserUpgrade", "RequestParser"):
            monkeypatch.setattr(http_intake, name, getattr(h11_parser, name))
    return request.param


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
async def test_what_could_be_read_in_two_ways_is_refused_with_all_that_follows(data: bytes) -> None:
    asked: list[str] = []

    def handler(request: Request) -> Response:
        asked.append(request.path)
        return Response(200)

    got = await talk(data + SMUGGLED, handler)
    status = got.split(b" ", 2)[1]
    assert (status, asked) in ((b"400", []), (b"501", []), (b"505", []))
    assert got.count(b"content-length: ") == 1, "one answer, then the connection is over"
    assert b"connection: close" in got


async def test_what_is_refused_byte_by_byte_gets_one_answer() -> None:
    data = BAD["two Host lines"] + SMUGGLED
    async with served() as browser:
        for at in range(len(data)):
            browser.transport.write(data[at : at + 1])
            await settle()
        with anyio.fail_after(5):
            await browser.ended.wait()
        assert browser.got.startswith(b"HTTP/1.1 400 ")
        assert browser.got.count(b"content-length: ") == 1


@pytest.mark.parametrize(
    ("lines", "start", "host"),
    [
        (b"Host: h:80\r\n", b"GET /x HTTP/1.1", "h:80"),
        (b"Host: [::1]:443\r\n", b"GET /x HTTP/1.1", "[::1]:443"),
        (b"Host:\r\n", b"GET /x HTTP/1.1", ""),
        (b"", b"GET /x HTTP/1.0", None),
        (b"Host: other\r\n", b"GET http://h:8080/x HTTP/1.1", "h:8080"),
        (b"Host: other\r\n", b"GET HTTP://h/x?y HTTP/1.1", "h"),
    ],
)
async def test_whom_a_request_is_for(lines: bytes, start: bytes, host: str | None) -> None:
    asked: list[tuple[str, str | None]] = []

    def handler(request: Request) -> Response:
        asked.append((request.path, request.headers.get("host")))
        return Response(200)

    await talk(start + b"\r\n" + lines + b"Connection: close\r\n\r\n", handler)
    assert asked == [("/x", host)]


async def test_trailers_say_nothing_of_the_request_and_count_as_body() -> None:
    seen: list[Request] = []

    def handler(request: Request) -> Response:
        seen.append(request)
        return Response(200)

    head = HOST + b"Connection: close\r\n" + CHUNKED
    body = b"3\r\nabc\r\n0\r\nX-Remote-User: admin\r\nHost: evil\r\n\r\n"
    await talk(post(head, body), handler)
    assert seen[0].body == b"abc"
    assert seen[0].headers.get_all("host") == ["h"]
    assert "x-remote-user" not in seen[0].headers
    long = b"1388\r\n" + b"a" * 5000 + b"\r\n0\r\nX: y\r\n\r\n"
    assert b" 200 OK" in await talk(post(head, long), handler, header_bytes=1000)


async def test_an_upgrade_that_says_it_has_no_body_passes() -> None:
    lines = HOST + b"Connection: upgrade\r\nUpgrade: SPDY/3.1\r\nContent-Length: 0\r\n"
    assert (await talk(post(lines), lambda _: Response(403))).startswith(b"HTTP/1.1 403 ")


def test_hosts_of_targets() -> None:
    targets = [b"/a://b", b"*", b"http://h", b"http://h:1?x", b"h:443", b"ht\xfftp://x/"]
    assert [host_of_target(one) for one in targets] == [None, None, b"h", b"h:1", None, None]


def test_a_length_may_be_repeated() -> None:
    lines = [(b"Host", b"h"), (b"Content-Length", b"3"), (b"content-length", b" 3\t")]
    assert fault("1.1", lines, upgrades=False) is None
    assert fault("1.1", [*lines, (b"content-length", b"03")], upgrades=False) is not None
