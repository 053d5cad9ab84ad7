"""Label and field selectors: text, objects, matching, and what users see when one is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.kube.selectors import (
    EVERYTHING,
    NOTHING,
    InvalidSelector,
    LabelSelector,
    Operator,
    Requirement,
    from_labels,
    from_object,
    parse_fields,
    parse_labels,
)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("", ""),
        ("app", "app"),
        ("!app", "!app"),
        ("! app", "!app"),
        ("app=web", "app=web"),
        ("app==web", "app==web"),
        (" app = web ,\ttier != a", "app=web,tier!=a"),
        ("x in (b,a)", "x in (a,b)"),
        ("x notin (a)", "x notin (a)"),
        ("b,a", "a,b"),
        ("x in ()", "x in ()"),
        ("x in (,)", "x in ()"),
        ("x in (a,,b)", "x in (,a,b)"),
        ("x=", "x="),
        ("x=,y", "x=,y"),
        ("x>1,y<2", "x>1,y<2"),
        ("example.com/a=b", "example.com/a=b"),
        ("in in (in,notin)", "in in (in,notin)"),
        ("in=in", "in=in"),
        ("notin", "notin"),
        ("x in(a,b),y", "x in (a,b),y"),
        ("a,", None),
    ],
)
def test_texts_have_one_canonical_form(text: str, canonical: str | None) -> None:
    if canonical is None:
        with pytest.raises(InvalidSelector):
            parse_labels(text)
        return
    selector = parse_labels(text)
    assert str(selector) == canonical
    assert parse_labels(str(selector)) == selector


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (",a", "found ',', expected: !, identifier, or 'end of string'"),
        ("a,,b", "found ',', expected: identifier after ','"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("!a=b", "found '=', expected: ',' or 'end of string'"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a in (b c)", "unable to parse requirement: found 'c', expected: ',' or ')'"),
        ("a in (!)", "unable to parse requirement: found '!', expected: ',', ')' or identifier"),
        ("a=(", "unable to parse requirement: found '(', expected: identifier"),
        ("!", "unable to parse requirement: found '', expected: identifier"),
        ("x>abc", "unable to parse requirement: values[0]: Invalid value: \"abc\": for 'Gt', 'Lt' operators, the value must be an integer"),
        (
            "a/b/c=d",
            "unable to parse requirement: <nil>: Invalid value: \"a/b/c\": a valid label key must consist of "
            "alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. "
            "'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
            "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. "
            "'example.com/MyName')",
        ),
        (
            "a=-",
            "unable to parse requirement: values[0][a]: Invalid value: \"-\": a valid label must be an empty string or "
            "consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
            "(e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
            "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        ),
    ],
)  # fmt: skip
def test_mistakes_are_told_as_the_api_server_does(text: str, why: str) -> None:
    with pytest.raises(InvalidSelector) as caught:
        parse_labels(text)
    assert str(caught.value) == why


@pytest.mark.parametrize(
    ("text", "labels", "expected"),
    [
        ("a=1", {"a": "1"}, True),
        ("a=1", {"a": "2"}, False),
        ("a=1", {}, False),
        ("a!=1", {}, True),
        ("a!=1", {"a": "1"}, False),
        ("a in (1,2)", {"a": "2"}, True),
        ("a in (1,2)", {"a": "3"}, False),
        ("a notin (1,2)", {}, True),
        ("a notin (1,2)", {"a": "1"}, False),
        ("a", {"a": ""}, True),
        ("!a", {"a": ""}, False),
        ("a=", {"a": ""}, True),
        ("a=", {}, False),
        ("a>5", {"a": "6"}, True),
        ("a>5", {"a": "x"}, False),
        ("a<5", {"a": "-6"}, True),
        ("a<5", {}, False),
        ("a=1,b", {"a": "1"}, False),
        ("", {}, True),
    ],
)
def test_matching(text: str, labels: dict[str, str], expected: bool) -> None:
    assert parse_labels(text).matches(labels) is expected


def test_objects() -> None:
    selector = from_object(
        {
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["a", "b"]},
                {"key": "old", "operator": "DoesNotExist"},
            ],
        }
    )
    assert str(selector) == "app=web,!old,tier in (a,b)"
    assert selector.matches({"app": "web", "tier": "a"})
    assert not selector.matches({"app": "web", "tier": "a", "old": ""})
    assert selector.exact("app") == "web"
    assert selector.exact("tier") is None


def test_no_selector_selects_nothing_and_an_empty_one_everything() -> None:
    assert from_object(None) is NOTHING
    assert not NOTHING.matches({})
    assert from_object({}) == EVERYTHING
    assert EVERYTHING.matches(None)
    assert EVERYTHING.is_everything
    assert not NOTHING.is_everything
    assert from_labels({"a": "1"}).matches({"a": "1", "b": "2"})


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ({"key": "a", "operator": "Like"}, '"Like" is not a valid label selector operator'),
        ({"key": "a", "operator": "In"}, "values set can't be empty"),
        ({"key": "a", "operator": "Exists", "values": ["x"]}, "values set must be empty"),
        ({"key": "", "operator": "Exists"}, "name part must be non-empty"),
    ],
)
def test_wrong_objects_are_refused(expression: dict[str, object], why: str) -> None:
    with pytest.raises(InvalidSelector, match=why):
        from_object({"matchExpressions": [expression]})


_key = st.from_regex(r"([a-z]{1,5}\.com/)?[A-Za-z0-9][-A-Za-z0-9_.]{0,6}[A-Za-z0-9]", fullmatch=True)
_value = st.from_regex(r"([A-Za-z0-9][-A-Za-z0-9_.]{0,6})?[A-Za-z0-9]", fullmatch=True)
_requirement = st.one_of(
    st.builds(Requirement, _key, st.sampled_from([Operator.EXISTS, Operator.NOT_EXISTS])),
    st.builds(
        Requirement,
        _key,
        st.sampled_from([Operator.EQUALS, Operator.DOUBLE_EQUALS, Operator.NOT_EQUALS]),
        st.tuples(_value),
    ),
    st.builds(
        Requirement,
        _key,
        st.sampled_from([Operator.IN, Operator.NOT_IN]),
        st.sets(_value, min_size=1).map(lambda one: tuple(sorted(one))),
    ),
)


@given(st.lists(_requirement, max_size=5))
def test_canonical_text_reads_back_as_the_same(requirements: list[Requirement]) -> None:
    selector = LabelSelector(tuple(sorted(requirements, key=lambda one: one.key)))
    assert parse_labels(str(selector)) == selector


@given(st.text(st.characters(codec="utf-8"), max_size=30) | st.text("ab=!,() <>in", max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        selector = parse_labels(text)
    except InvalidSelector:
        return
    assert isinstance(selector.matches({"a": "b"}), bool)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("", ""),
        ("metadata.name=a", "metadata.name=a"),
        ("metadata.name==a", "metadata.name=a"),
        ("b!=2,a=1", "a=1,b!=2"),
        ("a=1,,b=2,", "a=1,b=2"),
        (r"a=x\,y\=z\\", r"a=x\,y\=z\\"),
        ("a=", "a="),
    ],
)
def test_field_selectors_have_one_canonical_form(text: str, canonical: str) -> None:
    assert str(parse_fields(text)) == canonical


def test_escapes_in_field_values() -> None:
    selector = parse_fields(r"a=x\,y\=z\\,b!=1")
    assert selector.exact("a") == "x,y=z\\"
    assert selector.exact("b") is None
    assert selector.matches({"a": "x,y=z\\"})
    assert not selector.matches({"a": "x,y=z\\", "b": "1"})
    assert parse_fields("a=").matches({})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a", "invalid selector: 'a'; can't understand 'a'"),
        ("a=1,b", "invalid selector: 'a=1,b'; can't understand 'b'"),
        ("a=b=c", "invalid field selector: unescaped character in value: 61"),
        (r"a=\x", r"invalid field selector: invalid escape sequence: \x"),
        ("a=\\", "invalid field selector: invalid escape sequence: \\"),
    ],
)
def test_wrong_field_selectors_are_refused(text: str, why: str) -> None:
    with pytest.raises(InvalidSelector) as caught:
        parse_fields(text)
    assert str(caught.value) == why


@given(st.text("abc", min_size=1, max_size=3), st.text(max_size=10))
def test_any_field_value_survives_escaping(field: str, value: str) -> None:
    escaped = value.replace("\\", r"\\").replace(",", r"\,").replace("=", r"\=")
    selector = parse_fields(f"{field}={escaped}")
    assert selector.exact(field) == value
    assert parse_fields(str(selector)) == selector
