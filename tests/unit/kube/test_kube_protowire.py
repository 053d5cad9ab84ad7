"""The protobuf codec: known bytes, round trips, and hostile input."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.kube.protowire import EncodeError, Messages, TableError, WireFormatError, decode, encode

KINDS = Messages("""
# a comment, and an empty line

enum State: IDLE 0, BUSY 1, BAD -1
All: s string = 1; b bytes = 2; flag bool = 3; i32 int32 = 4; i64 int64 = 5; u32 uint32 = 6; u64 uint64 = 7; z32 sint32 = 8; z64 sint64 = 9; f32 fixed32 = 10; f64 fixed64 = 11; g32 sfixed32 = 12; g64 sfixed64 = 13; x float = 14; y double = 15; state State = 16
Lists: names repeated string = 1; numbers repeated int32 = 2; doubles repeated double = 3; kids repeated Lists = 4; states repeated State = 5; flags repeated bool = 6
Maps: labels map<string, string> = 1; kids map<int32, Maps> = 2; sizes map<string, uint64> = 2000
Choice: a string = 1 (oneof pick); b int32 = 2 (oneof pick); c Choice = 3 (oneof pick); other optional int32 = 4
Empty: (empty)
Varint: a int32 = 1
Testing: b string = 2
Packed: f repeated int32 = 6
""")


@pytest.mark.parametrize(
    ("name", "message", "wire"),
    [
        ("Varint", {"a": 150}, "089601"),
        ("Varint", {"a": -1}, "08ffffffffffffffffff01"),
        ("Testing", {"b": "testing"}, "120774657374696e67"),
        ("Packed", {"f": [3, 270, 86942]}, "3206038e029ea705"),
        ("Empty", {}, ""),
        ("Maps", {"labels": {"a": "b"}}, "0a060a016112" + "0162"),
        ("Maps", {"labels": {"a": ""}}, "0a030a0161"),
        ("Maps", {"sizes": {"n": 1}}, "827d050a016e1001"),
        ("Choice", {"b": 0}, "1000"),
        ("Choice", {"other": 0}, "2000"),
        ("All", {"z32": -2}, "4003"),
        ("All", {"x": 1.0}, "750000803f"),
    ],
)
def test_known_bytes(name: str, message: dict[str, Any], wire: str) -> None:
    assert encode(KINDS[name], message).hex() == wire
    back = decode(KINDS[name], bytes.fromhex(wire))
    assert back == message


def test_zero_scalars_and_none_are_not_written() -> None:
    assert encode(KINDS["All"], {"s": "", "flag": False, "i32": 0, "b": b"", "y": 0.0, "i64": None}) == b""


def test_an_empty_message_member_is_kept() -> None:
    assert decode(KINDS["Choice"], encode(KINDS["Choice"], {"c": {}})) == {"c": {}}


def test_unpacked_numbers_are_read_where_packed_ones_are_expected() -> None:
    assert decode(KINDS["Packed"], bytes.fromhex("3003308e02")) == {"f": [3, 270]}


def test_the_last_member_of_a_oneof_wins() -> None:
    data = encode(KINDS["Choice"], {"a": "x"}) + encode(KINDS["Choice"], {"b": 7})
    assert decode(KINDS["Choice"], data) == {"b": 7}


def test_parts_of_a_singular_message_are_merged() -> None:
    data = encode(KINDS["Choice"], {"c": {"a": "x"}}) + encode(KINDS["Choice"], {"c": {"other": 3}})
    assert decode(KINDS["Choice"], data) == {"c": {"a": "x", "other": 3}}


def test_unknown_fields_of_every_wire_type_are_skipped() -> None:
    unknown = bytes.fromhex("f80101f9010102030405060708fa0103616263fd0101020304fb010801120161fc01")
    assert decode(KINDS["Varint"], unknown + bytes.fromhex("089601")) == {"a": 150}


def test_enums_are_numbers_and_may_be_negative_or_unknown() -> None:
    assert KINDS.enum("State") == {"IDLE": 0, "BUSY": 1, "BAD": -1}
    for number in (1, -1, 77):
        assert decode(KINDS["All"], encode(KINDS["All"], {"state": number})) == {"state": number}


def _ints(bits: int, signed: bool) -> st.SearchStrategy[int]:
    return st.integers(-(1 << bits - 1), (1 << bits - 1) - 1) if signed else st.integers(0, (1 << bits) - 1)


_text = st.text(st.characters(exclude_categories=["Cs"]))
_all = st.fixed_dictionaries(
    {},
    optional={
        "s": _text.filter(bool),
        "b": st.binary(min_size=1),
        "flag": st.just(True),
        "y": st.floats(allow_nan=False).filter(bool),
        **{name: _ints(32, True).filter(bool) for name in ("i32", "z32", "g32")},
        **{name: _ints(64, True).filter(bool) for name in ("i64", "z64", "g64")},
        **{name: _ints(32, False).filter(bool) for name in ("u32", "f32")},
        **{name: _ints(64, False).filter(bool) for name in ("u64", "f64")},
    },
)
_lists = st.recursive(
    st.fixed_dictionaries({"names": st.lists(_text, min_size=1), "numbers": st.lists(_ints(32, True), min_size=1)}),
    lambda kids: st.fixed_dictionaries({"kids": st.lists(kids, min_size=1), "flags": st.just([True, False])}),
    max_leaves=8,
)


@given(_all)
def test_scalars_come_back(message: dict[str, Any]) -> None:
    assert decode(KINDS["All"], encode(KINDS["All"], message)) == message


@given(_lists)
def test_lists_and_nesting_come_back(message: dict[str, Any]) -> None:
    assert decode(KINDS["Lists"], encode(KINDS["Lists"], message)) == message


@given(st.dictionaries(_text, _text, min_size=1), st.dictionaries(_ints(32, True), st.just({}), min_size=1))
def test_maps_come_back(labels: dict[str, str], kids: dict[int, dict[str, Any]]) -> None:
    message = {"labels": labels, "kids": kids}
    assert decode(KINDS["Maps"], encode(KINDS["Maps"], message)) == message


@given(st.binary(max_size=200), st.sampled_from(["All", "Lists", "Maps", "Choice", "Empty"]))
def test_any_bytes_decode_or_are_refused(data: bytes, name: str) -> None:
    try:
        message = decode(KINDS[name], data)
    except WireFormatError:
        return
    assert isinstance(message, dict)


@given(_lists, st.data())
def test_a_cut_message_never_gives_the_whole(message: dict[str, Any], data: st.DataObject) -> None:
    wire = encode(KINDS["Lists"], message)
    cut = wire[: data.draw(st.integers(0, len(wire) - 1))]
    with contextlib.suppress(WireFormatError):
        assert decode(KINDS["Lists"], cut) != message


@pytest.mark.parametrize(
    "wire",
    ["08", "1205", "08ffffffffffffffffffff01", "00", "0f", "7a0301", "fb01", "120a0a"],
    ids=["no value", "no text", "long varint", "field 0", "bad wire type", "unknown cut", "open group", "text cut"],
)
def test_broken_bytes_are_refused(wire: str) -> None:
    with pytest.raises(WireFormatError):
        decode(KINDS["Varint"], bytes.fromhex(wire))
    with pytest.raises(WireFormatError):
        decode(KINDS["Testing"], bytes.fromhex(wire))


def test_a_string_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(WireFormatError, match="UTF-8"):
        decode(KINDS["Testing"], b"\x12\x01\xff")


def test_limits_on_size_and_nesting() -> None:
    with pytest.raises(WireFormatError, match="limit"):
        decode(KINDS["Testing"], b"\x12\x05hello", limit=4)
    deep = b""
    for _ in range(120):
        part = bytearray(b"\x22")
        size = len(deep)
        while size > 0x7F:
            part.append(size & 0x7F | 0x80)
            size >>= 7
        part.append(size)
        deep = bytes(part) + deep
    with pytest.raises(WireFormatError, match="deeper"):
        decode(KINDS["Lists"], deep)
    message: dict[str, Any] = {}
    for _ in range(120):
        message = {"kids": [message]}
    with pytest.raises(EncodeError, match="deeper"):
        encode(KINDS["Lists"], message)


@pytest.mark.parametrize(
    ("name", "message", "text"),
    [
        ("All", {"nope": 1, "s": "x"}, "no field nope"),
        ("All", {"i32": 1 << 31}, "i32: .*out of range"),
        ("All", {"u64": -1}, "out of range"),
        ("All", {"s": 3}, "s"),
        ("All", {"i32": "3"}, "integer"),
        ("Lists", {"names": "abc"}, "list"),
        ("Lists", {"kids": [3]}, "mapping"),
        ("All", {"g32": "x"}, "g32"),
    ],
)
def test_values_that_do_not_fit_are_named(name: str, message: dict[str, Any], text: str) -> None:
    with pytest.raises(EncodeError, match=text):
        encode(KINDS[name], message)


def test_mistakes_in_tables_are_named() -> None:
    with pytest.raises(TableError, match="no name"):
        Messages("just words")
    with pytest.raises(TableError, match="cannot read field"):
        encode(Messages("A: what")["A"], {})
    with pytest.raises(TableError, match="no message or enum 'B'"):
        encode(Messages("A: b B = 1")["A"], {})
    with pytest.raises(TableError, match="twice"):
        encode(Messages("A: b string = 1; c string = 1")["A"], {})
