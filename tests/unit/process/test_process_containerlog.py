"""Container logs: every byte comes back, whatever the pieces it came in."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from edgesite.edge.edged.process.containerlog import MAX_LINE_BYTES, ContainerLog

LINE = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z) (stdout|stderr) ([PF]) (.*)", re.DOTALL)


def read(path: Path) -> list[tuple[bytes, bytes, bytes]]:
    found = []
    for line in path.read_bytes().split(b"\n")[:-1]:
        match = LINE.fullmatch(line)
        assert match is not None, line
        found.append((match[2], match[3], match[4]))
    return found


def test_lines_of_both_streams(tmp_path: Path) -> None:
    log = ContainerLog(str(tmp_path / "deep" / "0.log"))
    log.write("stdout", b"one\ntw")
    log.write("stderr", b"oops\n")
    log.write("stdout", b"o\nrest")
    log.close()
    assert read(tmp_path / "deep" / "0.log") == [
        (b"stdout", b"F", b"one"),
        (b"stderr", b"F", b"oops"),
        (b"stdout", b"F", b"two"),
        (b"stdout", b"F", b"rest"),
    ]


def test_a_long_line_is_written_in_parts(tmp_path: Path) -> None:
    log = ContainerLog(str(tmp_path / "0.log"))
    log.write("stdout", b"x" * (2 * MAX_LINE_BYTES + 5) + b"\n")
    log.close()
    assert [(tag, len(text)) for _, tag, text in read(tmp_path / "0.log")] == [
        (b"P", MAX_LINE_BYTES),
        (b"P", MAX_LINE_BYTES),
        (b"F", 5),
    ]


def test_without_a_path_nothing_is_kept() -> None:
    log = ContainerLog("")
    log.write("stdout", b"x\n")
    log.reopen()
    log.close()


def test_a_path_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    log = ContainerLog(str(tmp_path / "file" / "0.log"))
    log.write("stdout", b"x\n")
    log.close()


@given(st.lists(st.binary(max_size=60) | st.just(b"y" * 40000), max_size=8))
def test_what_was_printed_comes_back(pieces: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "0.log")
        log = ContainerLog(str(path))
        for piece in pieces:
            log.write("stdout", piece)
        log.close()
        text = b"".join(part + (b"\n" if tag == b"F" else b"") for _, tag, part in read(path))
        whole = b"".join(pieces)
        assert text == (whole + b"\n" if whole and not whole.endswith(b"\n") else whole)
