"""Log records as the journal reads them."""

from __future__ import annotations

import logging
import sys

from hypothesis import given
from hypothesis import strategies as st

from edgesite.runtime.journal import fields_of, module_of, serialise


def parse(datagram: bytes) -> dict[str, str]:
    """An entry as journald reads it: systemd's JOURNAL_NATIVE_PROTOCOL."""
    fields = {}
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + size], rest[8 + size :]
            assert rest[:1] == b"\n"
            rest = rest[1:]
        fields[name.decode()] = value.decode()
        datagram = rest
    return fields


@given(st.dictionaries(st.from_regex(r"[A-Z][A-Z0-9_]{0,20}", fullmatch=True), st.text(st.characters(codec="utf-8"))))
def test_any_value_reaches_the_journal_whole(fields: dict[str, str]) -> None:
    assert parse(serialise(fields)) == fields


def record(level: int, text: str, *arguments: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("edgesite.edge.edgehub.link", level, "/src/link.py", 7, text, arguments, None, "connect")
    made.__dict__.update(extra)
    return made


def test_a_record_has_its_module_node_and_priority_as_fields() -> None:
    fields = fields_of(record(logging.WARNING, "lost %s", "the cloud", node="n1"), "edgecore")
    assert fields == {
        "MESSAGE": "edge.edgehub.link: lost the cloud",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "edgecore",
        "LOGGER": "edgesite.edge.edgehub.link",
        "MODULE": "edgehub",
        "NODE": "n1",
        "CODE_FILE": "/src/link.py",
        "CODE_LINE": "7",
        "CODE_FUNC": "connect",
    }


def test_priorities_are_syslogs() -> None:
    levels = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)
    assert [fields_of(record(level, ""), "x")["PRIORITY"] for level in levels] == ["7", "6", "4", "3", "2"]


def test_a_traceback_follows_the_message_in_the_same_entry() -> None:
    try:
        raise LookupError("gone")
    except LookupError:
        made = record(logging.ERROR, "crashed")
        made.exc_info = sys.exc_info()
    fields = fields_of(made, "edgesite")
    assert fields["EXCEPTION"] == "LookupError"
    assert fields["MESSAGE"].startswith("edge.edgehub.link: crashed\nTraceback")
    assert parse(serialise(fields)) == fields


def test_a_line_end_from_outside_does_not_begin_a_line() -> None:
    assert "\n" not in fields_of(record(logging.INFO, "pod %s", "a\nroot: all is well"), "x")["MESSAGE"]


def test_the_module_is_what_operators_call_it() -> None:
    names = (
        "edgesite.edged",
        "edgesite.edge.edged.pods",
        "edgesite.apiserver.watch",
        "edgesite.runtime.site",
        "asyncio",
    )
    assert [module_of(name) for name in names] == ["edged", "edged", "apiserver", "runtime", "asyncio"]
