"""Quantities: canonical text, rounding, arithmetic, refusals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.kube import quantity
from edgesite.kube.quantity import Format, InvalidQuantity, Quantity, canonical, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", "0"), ("-0", "0"), ("0Gi", "0"), ("00001", "1"), ("+5", "5"), ("-5", "-5"),
        ("1000m", "1"), ("1500m", "1500m"), ("0.5", "500m"), (".5", "500m"), ("1.", "1"), ("1.G", "1G"),
        ("100m", "100m"), ("0.1", "100m"), ("1k", "1k"), ("1000", "1k"), ("1000k", "1M"), ("1024", "1024"),
        ("1024Ki", "1Mi"), ("1Gi", "1Gi"), ("0.5Gi", "512Mi"), ("1.5Gi", "1536Mi"), ("512Ki", "512Ki"),
        ("0.5Ki", "512"), ("1.1Ki", "1126400m"), ("0.5Mi", "512Ki"), ("1023", "1023"), ("2000Ki", "2000Ki"),
        ("1e3", "1e3"), ("1E3", "1e3"), ("12e6", "12e6"), ("1e2", "100"), ("10e2", "1e3"), ("1e-3", "1e-3"), ("1E", "1E"),
        ("1n", "1n"), ("0.1n", "1n"), ("1.1n", "2n"), ("-0.1n", "-1n"), ("1e-20", "1e-9"), ("1u", "1u"), ("0.000001", "1u"),
        ("9223372036854775807", "9223372036854775807"), ("100Ei", "9223372036854775807"), ("1000E", "1000E"),
        ("4Ei", "4Ei"), ("128974848", "128974848"), ("129e6", "129e6"), ("129M", "129M"), ("123Mi", "123Mi"),
        ("2048Ei", "9223372036854775807"), ("0.0001Ki", "102400u"),
    ],
)  # fmt: skip
def test_canonical_text(text: str, expected: str) -> None:
    assert canonical(text) == expected
    assert canonical(expected) == expected


@pytest.mark.parametrize(("number", "expected"), [(1, "1"), (0.5, "500m"), (1e-7, "100e-9"), (1500, "1500")])
def test_json_numbers_count_as_their_text(number: float, expected: str) -> None:
    assert canonical(number) == expected


@pytest.mark.parametrize(
    ("text", "value", "milli"),
    [("1", 1, 1000), ("1500m", 2, 1500), ("-1500m", -2, -1500), ("1n", 1, 1), ("1.0005", 2, 1001), ("1Ki", 1024, 1024000)],
)  # fmt: skip
def test_values_are_rounded_away_from_zero(text: str, value: int, milli: int) -> None:
    assert parse(text).value() == value
    assert parse(text).milli_value() == milli


def test_equal_amounts_are_equal_however_written() -> None:
    assert parse("1Gi") == parse("1073741824")
    assert hash(parse("1000m")) == hash(parse("1"))
    assert parse("1Gi") > parse("1G")
    assert sorted([parse("1"), parse("999m"), parse("1k")])[0] == parse("999m")
    assert not quantity.ZERO
    assert parse("1n")


def test_arithmetic_keeps_the_format_of_what_is_not_zero() -> None:
    assert str(parse("1Gi") + parse("512Mi")) == "1536Mi"
    assert str(parse("0") + parse("512Mi")) == "512Mi"
    assert str(parse("1") - parse("1500m")) == "-500m"
    assert str(parse("250m") * 4) == "1"
    assert str(-parse("1Gi")) == "-1Gi"
    assert str(quantity.of(2048, Format.BINARY_SI)) == "2Ki"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "must match"), ("abc", "must match"), ("1 Gi", "must match"), ("1.2.3", "must match"), ("--1", "must match"),
        ("1Gib", "must match"), ("1e", "suffix"), ("1Q", "must match"), ("1i", "suffix"), ("1mm", "suffix"), ("1e3.5", "must match"),
        ("1K", "suffix"), ("1ki", "suffix"), ("1e400", "numeric"), (".", "must match"), ("9" * 2000, "must match"), ("１", "must match"),
    ],
)  # fmt: skip
def test_what_is_no_quantity_is_refused(text: str, why: str) -> None:
    with pytest.raises(InvalidQuantity, match=why):
        parse(text)


@pytest.mark.parametrize("value", [True, None, [], {}])
def test_other_types_are_refused(value: object) -> None:
    with pytest.raises(InvalidQuantity):
        parse(value)  # type: ignore[arg-type]


@given(st.integers(-(10**30), 10**30), st.sampled_from(Format))
def test_canonical_text_keeps_the_value(nano: int, form: Format) -> None:
    if form is Format.BINARY_SI:
        nano %= (1 << 63) * 10**9 - 10**9
    back = parse(str(Quantity(nano, form)))
    assert back.nano == nano
    assert str(back) == str(Quantity(nano, form))


@given(st.text("0123456789.+-eEinumkKMGTP", max_size=12))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        amount = parse(text)
    except InvalidQuantity:
        return
    assert parse(str(amount)) == amount


@given(st.integers(0, 10**15), st.integers(0, 10**15))
def test_sums_are_exact(first: int, second: int) -> None:
    total = parse(f"{first}m") + parse(f"{second}m")
    assert total.milli_value() == first + second
