"""Generated names and the checks of given ones."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.kube import names


@given(st.integers(), st.text("abc-", max_size=80))
def test_generated_names_keep_the_base_and_fit_a_label(seed: int, base: str) -> None:
    name = names.generate(base, random.Random(seed))
    assert name[:-5] == base[:58]
    assert set(name[-5:]) <= set(names.ALPHABET)
    assert len(name) <= 63


def test_generated_names_follow_the_random_source() -> None:
    first, second = random.Random(1), random.Random(1)
    assert names.generate("a-", first) == names.generate("a-", second)
    assert names.generate("a-", first) != names.generate("a-", random.Random(2))


def test_hashes_are_encoded_as_pod_template_hashes_are() -> None:
    assert names.safe_encode("0123456789") == "456789bcdf"
    assert set(names.safe_encode("5f8d7c9b6")) <= set(names.ALPHABET)


@pytest.mark.parametrize("value", ["a", "my-name", "1-2", "a" * 63])
def test_good_labels(value: str) -> None:
    assert names.dns1123_label_problems(value) == []
    assert names.dns1123_subdomain_problems(value + ".example.com") == []


def test_the_words_are_the_api_servers() -> None:
    assert names.dns1123_label_problems("Bad_") == [
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
        "with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
        "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
    ]
    assert names.dns1123_subdomain_problems("a..b") == [
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
        "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
        r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
    ]
    assert names.label_value_problems("-x") == [
        "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start "
        "and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for "
        "validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
    ]
    assert names.dns1123_label_problems("a.b") == ["must not contain dots"]
    assert names.dns1123_label_problems("a" * 64) == ["must be no more than 63 bytes"]


@pytest.mark.parametrize("value", ["app", "app.kubernetes.io/name", "a/b", "A_b.c"])
def test_good_qualified_names(value: str) -> None:
    assert names.qualified_name_problems(value) == []


@pytest.mark.parametrize(
    ("value", "starts"),
    [
        ("/a", ["prefix part must be non-empty"]),
        ("a/", ["name part must be non-empty", "name part must consist of"]),
        ("", ["name part must be non-empty", "name part must consist of"]),
        ("A.b/c", ["prefix part a lowercase RFC 1123 subdomain"]),
        ("a/b/c", ["a valid label key must consist of"]),
        ("x" * 64, ["name part must be no more than 63"]),
        ("näme", ["name part must consist of"]),
    ],
)
def test_bad_qualified_names(value: str, starts: list[str]) -> None:
    problems = names.qualified_name_problems(value)
    assert len(problems) == len(starts)
    for problem, start in zip(problems, starts, strict=True):
        assert problem.startswith(start)


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (names.dns1035_label_problems, ["a", "web-1"], ["1a", "", "-a", "A"]),
        (names.config_map_key_problems, ["a.b", "KEY_1", "..."[:1] + "a"], [".", "..", "..a", "", "a b", "ä"]),
        (names.env_name_problems, ["A", "a.b-c", "x y"], ["", "A=B", "é", "a\nb"]),
        (names.path_segment_problems, ["system:node", "a"], [".", "..", "a/b", "a%b"]),
        (names.port_name_problems, ["http", "a-1"], ["", "123", "a--b", "-a", "Http", "abcdefghijklmnop"]),
        (names.label_value_problems, ["", "a", "A_b"], ["a b", "-", "a" * 64, "x\n"]),
    ],
    ids=["dns1035", "config key", "env", "path", "port", "label value"],
)
def test_other_checks(check: object, good: list[str], bad: list[str]) -> None:
    assert callable(check)
    for value in good:
        assert check(value) == [], value
    for value in bad:
        assert check(value), value
