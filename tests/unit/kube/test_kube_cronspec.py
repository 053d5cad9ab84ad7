"""Schedules of CronJobs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.kube.cronspec import problem


@pytest.mark.parametrize(
    "text",
    [
        "* * * * *",
        "*/5 * * * *",
        "0 0 1 1 0",
        "59 23 31 12 6",
        "0,30 8-18/2 * jan-mar MON-FRI",
        "5/15 * ? * *",
        "@daily",
        "@every 1h30m",
    ],
)
def test_schedules(text: str) -> None:
    assert problem(text) == ""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "expected exactly 5 fields, found 0: []"),
        ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("5-3 * * * *", "beginning of range (5) beyond end of range (3): 5-3"),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("a * * * *", 'failed to parse int from a: strconv.Atoi: parsing "a": invalid syntax'),
        ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
        ("1/2/3 * * * *", "too many slashes: 1/2/3"),
        ("@often", "unrecognized descriptor: @often"),
        ("TZ=UTC 0 0 * * *", "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"),
    ],
)
def test_what_is_wrong_with_others(text: str, why: str) -> None:
    assert problem(text) == why


@given(st.text(alphabet="0123456789*/-,? @janmo", max_size=25))
def test_any_text_is_judged(text: str) -> None:
    assert isinstance(problem(text), str)
