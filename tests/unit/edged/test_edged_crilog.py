"""Container logs: where to begin, what is shown, and following."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesite.edge.edged.server import crilog
from edgesite.edge.edged.server.crilog import Renderer, entry_time_ns, since_offset, tail_offset
from edgesite.edge.edged.server.options import LogOptions
from edgesite.edge.edged.server.reader import read_log
from edgesite.edge.edged.server.source import ContainerLog
from edgesite.kube import times
from edgesite.kube.errors import ApiError
from edgesite.net.real import RealClock
from edgesite.net.threads import RealThreads

SECOND = 1_000_000_000
START = 1_795_152_000 * SECOND


def entry(number: int, text: str, tag: str = "F", stream: str = "stdout") -> bytes:
    return f"{times.format_nano(START + number * SECOND)} {stream} {tag} {text}\n".encode()


def write(path: Path, count: int, width: int = 30) -> bytes:
    data = b"".join(entry(number, f"line {number} ".ljust(width, "x")) for number in range(count))
    path.write_bytes(data)
    return data


def append(path: Path, data: bytes) -> None:
    with path.open("ab", buffering=0) as file:
        file.write(data)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"1970-01-01T00:00:01.5Z stdout F x", 1_500_000_000),
        (b"1970-01-01T02:00:00.000000001+02:00 stdout F x", 1),
        (b"1970-01-01T00:00:00Z x", 0),
        (b"no time", None),
        (b"\xff\xfe \xff", None),
        (b"", None),
    ],
)
def test_times_of_entries(line: bytes, expected: int | None) -> None:
    assert entry_time_ns(line) == expected


@pytest.mark.parametrize("count", [0, 1, 2, 5000])
@pytest.mark.parametrize("lines", [0, 1, 3, 4999, 5000, 6000])
def test_tail_finds_the_beginning_of_the_last_lines(tmp_path: Path, count: int, lines: int) -> None:
    path = tmp_path / "0.log"
    data = write(path, count)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        rest = data[tail_offset(descriptor, len(data), lines) :]
    finally:
        os.close(descriptor)
    assert rest.splitlines() == (data.splitlines()[-lines:] if lines else [])


def test_tail_counts_an_entry_whose_end_is_not_written_yet(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(b"a\nb\nc")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert tail_offset(descriptor, 5, 2) == 2
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("since", [-5, 0, 1, 2500, 4999, 6000])
def test_since_skips_most_of_the_older_entries_and_no_newer_one(tmp_path: Path, since: int) -> None:
    path = tmp_path / "0.log"
    data = write(path, 5000)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        offset = since_offset(descriptor, len(data), START + since * SECOND)
    finally:
        os.close(descriptor)
    assert offset == 0 or data[offset - 1 : offset] == b"\n"
    first_wanted = data.find(entry(since, "")[:30]) if 0 <= since < 5000 else (0 if since < 0 else len(data))
    assert offset <= first_wanted
    assert first_wanted - offset < 3 * crilog._BLOCK_BYTES


def test_parts_of_a_long_line_are_one_line_with_one_time() -> None:
    parts = entry(1, "one ", "P") + entry(2, "two ", "P") + entry(3, "three") + entry(4, "next")
    assert Renderer().render(parts) == b"one two three\nnext\n"
    shown = Renderer(timestamps=True).render(parts).splitlines()
    assert shown == [
        f"{times.format_nano(START + SECOND)} one two three".encode(),
        f"{times.format_nano(START + 4 * SECOND)} next".encode(),
    ]


def test_empty_lines_and_tags_with_more_fields_are_kept() -> None:
    assert Renderer().render(entry(1, "") + entry(2, "x", "F:more")) == b"\nx\n"
    assert Renderer().render(b"2026-01-01T00:00:00Z stdout F\n") == b"\n"


def test_the_byte_limit_cuts_within_a_line() -> None:
    renderer = Renderer(limit_bytes=8)
    assert renderer.render(entry(1, "12345") + entry(2, "67890")) == b"12345\n67"
    assert renderer.full
    assert renderer.render(entry(3, "x")) == b""


def test_entries_before_the_time_asked_for_are_left_out() -> None:
    entries = b"".join(entry(number, str(number)) for number in range(10))
    assert Renderer(since_ns=START + 7 * SECOND).render(entries) == b"7\n8\n9\n"


@given(st.binary(max_size=400))
def test_whatever_is_in_the_file_is_shown_or_skipped(data: bytes) -> None:
    for renderer in (Renderer(), Renderer(timestamps=True, since_ns=5, limit_bytes=100)):
        assert renderer.render(data + b"\n").count(b"\n") <= data.count(b"\n") + 1


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, LogOptions()),
        ({"follow": ["true"], "previous": ["1"], "timestamps": [""]}, LogOptions(True, True, True)),
        ({"follow": ["false"], "tailLines": ["0"]}, LogOptions(tail_lines=0)),
        ({"sinceSeconds": ["10"], "limitBytes": ["5"]}, LogOptions(limit_bytes=5, since_ns=90 * SECOND)),
        ({"sinceTime": ["1970-01-01T00:00:05Z"]}, LogOptions(since_ns=5 * SECOND)),
    ],
)
def test_queries(query: dict[str, list[str]], expected: LogOptions) -> None:
    assert LogOptions.from_query(query, 100.0) == expected


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"tailLines": ["x"]}, 400),
        ({"tailLines": ["9" * 30]}, 400),
        ({"sinceTime": ["yesterday"]}, 400),
        ({"tailLines": ["-1"]}, 422),
        ({"limitBytes": ["0"]}, 422),
        ({"sinceSeconds": ["0"]}, 422),
        ({"sinceSeconds": ["1"], "sinceTime": ["1970-01-01T00:00:05Z"]}, 422),
    ],
)
def test_bad_queries(query: dict[str, list[str]], code: int) -> None:
    with pytest.raises(ApiError) as caught:
        LogOptions.from_query(query, 100.0)
    assert caught.value.code == code


class QuickClock(RealClock):
    """Sleeps are one turn of the loop: followers look again at once."""

    async def sleep(self, seconds: float) -> None:
        await checkpoint()


class Follower:
    def __init__(self) -> None:
        self.got = b""
        self.ended = anyio.Event()

    async def has(self, text: bytes) -> None:
        with anyio.fail_after(10):
            while not self.got.endswith(text):
                await checkpoint()


@asynccontextmanager
async def following(path: Path, running: Callable[[], bool], options: LogOptions) -> AsyncIterator[Follower]:
    threads = RealThreads()
    follower = Follower()

    async def follow() -> None:
        async with aclosing(read_log(ContainerLog(path, running), options, threads, QuickClock())) as pieces:
            async for piece in pieces:
                follower.got += piece
        follower.ended.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        yield follower
        tasks.cancel_scope.cancel()
    await threads.close()


@pytest.mark.anyio
async def test_a_follower_waits_for_the_file_and_goes_on_over_rotation_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    alive = True
    async with following(path, lambda: alive, LogOptions(follow=True)) as follower:
        await checkpoint()
        with path.open("ab", buffering=0) as file:
            file.write(entry(1, "one"))
            await follower.has(b"one\n")
            file.write(entry(2, "two")[:20])
            await checkpoint()
            file.write(entry(2, "two")[20:])
            await follower.has(b"one\ntwo\n")
            path.rename(tmp_path / "0.log.old")
            file.write(entry(3, "late"))
            await follower.has(b"late\n")
        with path.open("ab", buffering=0) as file:
            file.write(entry(4, "new"))
            await follower.has(b"new\n")
            file.write(entry(5, "last"))
        alive = False
        with anyio.fail_after(10):
            await follower.ended.wait()
        assert follower.got == b"one\ntwo\nlate\nnew\nlast\n"


@pytest.mark.anyio
async def test_without_follow_reading_ends_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    write(path, 20_000)
    for options, lines in ((LogOptions(), 20_000), (LogOptions(tail_lines=7), 7), (LogOptions(tail_lines=0), 0)):
        async with following(path, lambda: True, options) as follower:
            with anyio.fail_after(10):
                await follower.ended.wait()
        assert follower.got.count(b"\n") == lines


@pytest.mark.anyio
async def test_a_file_emptied_in_place_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(entry(1, "before, and longer than what follows"))
    async with following(path, lambda: True, LogOptions(follow=True)) as follower:
        await follower.has(b"follows\n")
        path.write_bytes(entry(2, "after"))
        await follower.has(b"after\n")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 400), max_size=30), st.integers(0, 2**32))
def test_a_follower_sees_each_byte_once_however_it_is_written(sizes: list[int], seed: int) -> None:
    import tempfile

    chance = random.Random(seed)
    text = b"".join(entry(number, "x" * size) for number, size in enumerate(sizes))

    async def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "0.log")
            alive = True
            async with following(path, lambda: alive, LogOptions(follow=True)) as follower:
                at = 0
                while at < len(text):
                    step = chance.randint(1, 500)
                    append(path, text[at : at + step])
                    at += step
                    await checkpoint()
                alive = False
                with anyio.fail_after(10):
                    await follower.ended.wait()
            assert follower.got == b"".join(b"x" * size + b"\n" for size in sizes)

    anyio.run(run)
