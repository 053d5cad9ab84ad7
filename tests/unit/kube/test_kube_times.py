"""Times, durations and ages."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.kube import times


def test_seconds_micro_and_nano_are_cut_not_rounded() -> None:
    at = 1767323045.99999
    assert times.format_time(1767323045.99) == "2026-01-02T03:04:05Z"
    assert times.format_micro(1767323045.25) == "2026-01-02T03:04:05.250000Z"
    assert times.format_nano(1767323045_000000007) == "2026-01-02T03:04:05.000000007Z"
    assert times.format_time(at) == "2026-01-02T03:04:05Z"
    assert times.format_time(-1) == "1969-12-31T23:59:59Z"


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("1970-01-01T02:00:00+02:00", 0),
        ("1969-12-31T19:00:00.000000001-05:00", 1),
        ("2026-01-02T03:04:05.1234567899Z", 1767323045_123456789),
    ],
)
def test_times_are_read(text: str, ns: int) -> None:
    assert times.parse_time_ns(text) == ns
    assert times.parse_time(text) == ns / 10**9


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("yesterday", 'parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006"'),
        ("2020-01-02", 'parsing time "2020-01-02" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "T"'),
        ("2020-13-02T00:00:00Z", 'parsing time "2020-13-02T00:00:00Z": month out of range'),
        ("2020-02-30T00:00:00Z", 'parsing time "2020-02-30T00:00:00Z": day out of range'),
        ("2020-02-03T24:00:00Z", 'parsing time "2020-02-03T24:00:00Z": hour out of range'),
        ("2020-02-03T00:00:00Zx", 'parsing time "2020-02-03T00:00:00Zx": extra text: "x"'),
        ("", 'parsing time "" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "2006"'),
    ],
)
def test_bad_times_are_refused_with_gos_words(text: str, why: str) -> None:
    with pytest.raises(times.InvalidTime) as caught:
        times.parse_time(text)
    assert str(caught.value) == why


@given(st.integers(-62135596800 * 10**9, 253402300799 * 10**9))
def test_nanoseconds_come_back(ns: int) -> None:
    assert times.parse_time_ns(times.format_nano(ns)) == ns


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (times.parse_time, times.parse_duration):
        with contextlib.suppress(times.InvalidTime):
            assert isinstance(parse(text), float)


@pytest.mark.parametrize(
    ("text", "seconds", "canonical"),
    [
        ("1h30m", 5400, "1h30m0s"),
        ("500ms", 0.5, "500ms"),
        ("1.5s", 1.5, "1.5s"),
        ("-2m", -120, "-2m0s"),
        ("0", 0, "0s"),
        ("10us", 1e-5, "10µs"),
        ("+.5h", 1800, "30m0s"),
        ("40s", 40, "40s"),
    ],
)
def test_durations_both_ways(text: str, seconds: float, canonical: str) -> None:
    assert times.parse_duration(text) == pytest.approx(seconds)
    assert times.format_duration(seconds) == canonical


@pytest.mark.parametrize("text", ["", "5", "1h30", "s", "1 s", "--1s", "1d", "."])
def test_bad_durations_are_refused(text: str) -> None:
    with pytest.raises(times.InvalidTime, match="invalid duration"):
        times.parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "human", "short"),
    [
        (-3, "<invalid>", "<invalid>"),
        (-1, "0s", "0s"),
        (0.9, "0s", "0s"),
        (70, "70s", "1m"),
        (120, "2m", "2m"),
        (185, "3m5s", "3m"),
        (10 * 60 + 5, "10m", "10m"),
        (3 * 3600 - 1, "179m", "2h"),
        (3 * 3600, "3h", "3h"),
        (3 * 3600 + 300, "3h5m", "3h"),
        (8 * 3600 + 300, "8h", "8h"),
        (47 * 3600, "47h", "1d"),
        (51 * 3600, "2d3h", "2d"),
        (8 * 86400 + 3600, "8d", "8d"),
        (400 * 86400, "400d", "1y"),
        (770 * 86400, "2y40d", "2y"),
        (730 * 86400, "2y", "2y"),
        (9 * 365 * 86400, "9y", "9y"),
    ],
)
def test_ages_are_kubectls(seconds: float, human: str, short: str) -> None:
    assert times.human_duration(seconds) == human
    assert times.short_human_duration(seconds) == short
