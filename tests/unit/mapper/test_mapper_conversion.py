"""Bytes and texts of values: KubeEdge's formats, and that nothing is lost there and back."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.mapper.conversion import ConversionError, decode, encode, encode_within, from_text, to_text
from edgesite.mapper.driver import Property


def prop(kind: str, minimum: str = "", maximum: str = "", **visitor: Any) -> Property:
    return Property("p", kind, True, visitor, minimum, maximum)


@pytest.mark.parametrize(
    ("property_", "data", "text"),
    [
        (prop("float", scale=2), "3fc00000", "3.000000"),  # what KubeEdge's modbus mapper says
        (prop("int", isSwap=True), "0001", "256"),
        (prop("double"), struct.pack(">d", 1e-9).hex(), "0.000000001"),
        (prop("double"), struct.pack(">d", -21.5).hex(), "-21.500000"),
        (prop("int"), "ffff", "65535"),
        (prop("int", signed=True), "ffff", "-1"),
        (prop("int", dataType="int16"), "fffe", "-2"),
        (prop("int", dataType="int64"), "7fffffffffffffff", "9223372036854775807"),
        (prop("int", dataType="int64", valueOffset=-1), "7ffffffffffffffe", "9223372036854775805"),
        (prop("int", dataType="uint64"), "7fffffffffffffff", "9223372036854775807"),
        (prop("int", scale=0), "0007", "7"),  # v1.12 takes a scale that is not there for 0
        (prop("int", scale=1.5), "0003", "4"),
        (prop("float", scale=0.1), "00d7", "21.500000"),
        (prop("float", scale=0.1, valueOffset=-50, dataType="uint32"), "000002bc", "20.000000"),
        (prop("float", isRegisterSwap=True), "00003fc0", "1.500000"),
        (prop("float", isRegisterSwap=True, isSwap=True), "0000c03f", "1.500000"),
        (prop("float", wordOrder="little", byteOrder="little"), "0000c03f", "1.500000"),
        (prop("int", shiftRight=4, mask=0xF), "01a5", "10"),
        (prop("int", shiftRight=4, mask="0xf"), "01a5", "10"),
        (prop("boolean", shiftRight=3, mask=1), "08", "true"),
        (prop("boolean"), "00", "false"),
        (prop("string"), "6f6b0000", "ok"),
        (prop("bytes"), "00ff", "AP8="),
        (prop("stream"), "ffd8", "/9g="),
        (
            prop(
                "float",
                dataConverter={
                    "startIndex": 2,
                    "endIndex": 1,
                    "shiftRight": 2,
                    "orderOfOperations": [{"operationType": "Multiply", "operationValue": 0.03125}],
                },
            ),
            "00800c00",
            "25.000000",
        ),
    ],
)
def test_bytes_mean_what_the_visitor_says(property_: Property, data: str, text: str) -> None:
    assert to_text(property_, bytes.fromhex(data)) == text


@pytest.mark.parametrize(
    ("kind", "raw", "text"),
    [
        ("int", 7, "7"),
        ("int", 7.9, "7"),
        ("int", "12", "12"),
        ("int", True, "1"),
        ("float", 21.5, "21.5"),
        ("float", 3.0, "3"),
        ("float", 1e-7, "0.0000001"),
        ("double", 1e22, "10000000000000000000000"),
        ("boolean", 1, "true"),
        ("boolean", "false", "false"),
        ("string", 21.5, "21.5"),
        ("string", False, "false"),
    ],
)
def test_values_of_drivers_become_texts(kind: str, raw: Any, text: str) -> None:
    assert to_text(prop(kind), raw) == text


@pytest.mark.parametrize(
    ("property_", "raw"),
    [
        (prop("int"), "warm"),
        (prop("int"), math.nan),
        (prop("float"), math.inf),
        (prop("float"), bytes(5)),
        (prop("float"), b"\x7f\xc0\x00\x00"),
        (prop("int"), b""),
        (prop("int"), None),
        (prop("string"), [1]),
        (prop("int"), (1 << 63).to_bytes(8, "big")),
        (prop("int", scale=0.1), b"\x7f" * 200),
        (prop("float"), b"\x7f" * 200),
        (prop("int", scale=10**400), b"\0\1"),
        (prop("int", orderOfOperations=5), b"\0\1"),
        (prop("int", startIndex=math.inf), b"\0\1"),
        (prop("int", isSwap=True), b"\0\0\0"),
        (prop("int", dataType="uint32"), b"\0\0"),
        (prop("int", startIndex=3, endIndex=4), b"\0\0"),
        (prop("float", orderOfOperations=[{"operationType": "Divide", "operationValue": 0}]), b"\0\0\0\0"),
        (prop("int", scale="x"), b"\0\0"),
        (prop("int", byteOrder="middle"), b"\0\0"),
        (prop("int", shiftLeft=10**9), b"\0\0"),
        (prop("boolean"), "yes"),
    ],
)
def test_what_makes_no_sense_is_refused(property_: Property, raw: Any) -> None:
    with pytest.raises(ConversionError):
        to_text(property_, raw)


@pytest.mark.parametrize(
    ("property_", "text"),
    [
        (prop("int", "0", "100"), "101"),
        (prop("int", "0", "100"), "-1"),
        (prop("int"), "1.5"),
        (prop("float", maximum="30.5"), "31"),
        (prop("float", maximum="30.5"), "nan"),
        (prop("boolean"), "2"),
        (prop("float"), "nan"),
        (prop("double"), "-Infinity"),
        (prop("int", "0", "9007199254740992"), "9007199254740993"),
        (prop("bytes"), "?"),
    ],
)
def test_wishes_beyond_type_or_limits_are_refused(property_: Property, text: str) -> None:
    with pytest.raises(ConversionError):
        from_text(property_, text)


def test_other_bits_of_a_register_stay() -> None:
    bit = prop("boolean", shiftRight=3, mask=1)
    assert encode(bit, True, 2, old=b"\xa0\x05") == b"\xa0\x0d"
    assert encode(bit, False, 2, old=b"\xa0\x0d") == b"\xa0\x05"
    with pytest.raises(ConversionError, match="does not fit the mask"):
        encode(prop("int", mask=0xF), 16, 2)


@pytest.mark.parametrize(("kind", "value", "size"), [("int", 70000, 2), ("int", -1, 2), ("float", 1e39, 4)])
def test_what_does_not_fit_its_bytes_is_refused(kind: str, value: Any, size: int) -> None:
    with pytest.raises(ConversionError):
        encode(prop(kind), value, size)


orders = st.fixed_dictionaries({"isSwap": st.booleans(), "isRegisterSwap": st.booleans()})


@given(data=st.data(), size=st.sampled_from([2, 4, 8]), signed=st.booleans(), order=orders)
def test_whole_numbers_come_back(data: st.DataObject, size: int, signed: bool, order: dict[str, Any]) -> None:
    bits = size * 8
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    value = data.draw(st.integers(low, high))
    property_ = prop("int", signed=signed, **order)
    assert decode(property_, encode(property_, value, size)) == value


@given(value=st.integers(-1000, 1000), scale=st.sampled_from([0.1, 0.5, 2.0, 0.001]), offset=st.integers(-40, 40))
def test_scaled_numbers_come_back(value: int, scale: float, offset: int) -> None:
    wanted = value * scale + offset
    property_ = prop("double", dataType="int32", scale=scale, valueOffset=offset)
    assert decode(property_, encode(property_, wanted, 4)) == pytest.approx(wanted)


@given(value=st.floats(allow_nan=False, allow_infinity=False), order=orders)
def test_floats_come_back(value: float, order: dict[str, Any]) -> None:
    property_ = prop("double", **order)
    assert decode(property_, encode(property_, value, 8)) == value
    assert float(to_text(property_, value)) == value
    assert "e" not in to_text(property_, value)


@given(value=st.integers(0, 15), old=st.binary(min_size=2, max_size=2), order=orders)
def test_bit_fields_come_back(value: int, old: bytes, order: dict[str, Any]) -> None:
    property_ = prop("int", shiftRight=5, mask=0xF, **order)
    made = encode(property_, value, 2, old=old)
    assert decode(property_, made) == value
    whole = prop("int", **order)
    kept = ~(0xF << 5)
    assert decode(whole, made) & kept == decode(whole, old) & kept  # type: ignore[operator]


@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20))
def test_texts_come_back(text: str) -> None:
    property_ = prop("string")
    assert decode(property_, encode(property_, text, 100)) == text


@given(kind=st.sampled_from(["int", "float", "boolean", "string", "bytes"]), raw=st.binary(max_size=12))
def test_no_bytes_are_a_surprise(kind: str, raw: bytes) -> None:
    property_ = prop(kind, isSwap=True)
    try:
        text = to_text(property_, raw)
    except ConversionError:
        return
    if kind != "string":
        from_text(property_, text)


words = st.dictionaries(
    st.sampled_from(
        [
            "scale",
            "valueOffset",
            "dataType",
            "isSwap",
            "byteOrder",
            "startIndex",
            "endIndex",
            "shiftLeft",
            "shiftRight",
            "mask",
            "orderOfOperations",
            "dataConverter",
        ]
    ),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.sampled_from(["", "little", "uint16", "0xff", "1e9"]),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(st.sampled_from(["operationType", "operationValue", "mask"]), inner, max_size=2)
        ),
        max_leaves=4,
    ),
    max_size=4,
)


@given(kind=st.sampled_from(["int", "float", "boolean", "string"]), visitor=words, raw=st.binary(max_size=300))
def test_no_words_are_a_surprise(kind: str, visitor: dict[str, Any], raw: bytes) -> None:
    """Whoever may write a Device may write any of them."""
    try:
        text = to_text(prop(kind, **visitor), raw)
        encode_within(prop(kind, **visitor), from_text(prop(kind), text), raw)
    except ConversionError:
        pass


def test_a_value_stands_in_its_place_among_other_bytes() -> None:
    one = prop("int", startIndex=2, endIndex=1)
    assert encode_within(one, 0xABCD, b"\x01\x02\x03\x04") == b"\x01\xcd\xab\x04"
    assert decode(one, b"\x01\xcd\xab\x04") == 0xABCD
    with pytest.raises(ConversionError, match="bytes 2 to 1 of 2"):
        encode_within(one, 1, b"\0\0")
    signed = prop("int", mask=0xF, signed=True)
    assert encode_within(signed, 3, b"\x80\x01") == b"\x80\x03"


@pytest.mark.parametrize(("text", "value"), [("0", False), ("T", True), ("FALSE", False), ("true", True)])
def test_booleans_are_wished_for_in_words_that_kubeedges_mappers_read(text: str, value: bool) -> None:
    assert from_text(prop("boolean"), text) is value
