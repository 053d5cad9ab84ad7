"""JSON patch and merge patch: the RFCs' examples, limits, refusals."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.kube.errors import ApiError
from edgesite.kube.patch import diff_merge, json_patch, merge_patch


@pytest.mark.parametrize(
    ("obj", "operations", "expected"),
    [
        ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"baz": "qux", "foo": "bar"}),
        ({"foo": ["bar", "baz"]}, [{"op": "add", "path": "/foo/1", "value": "qux"}], {"foo": ["bar", "qux", "baz"]}),
        ({"baz": "qux", "foo": "bar"}, [{"op": "remove", "path": "/baz"}], {"foo": "bar"}),
        ({"foo": ["bar", "qux", "baz"]}, [{"op": "remove", "path": "/foo/1"}], {"foo": ["bar", "baz"]}),
        ({"baz": "qux"}, [{"op": "replace", "path": "/baz", "value": "boo"}], {"baz": "boo"}),
        (
            {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}},
            [{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}],
            {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}},
        ),
        ({"foo": ["a", "b", "c"]}, [{"op": "move", "from": "/foo/0", "path": "/foo/2"}], {"foo": ["b", "c", "a"]}),
        ({"a": 1}, [{"op": "test", "path": "/a", "value": 1}], {"a": 1}),
        ({"foo": ["a"]}, [{"op": "add", "path": "/foo/-", "value": ["x"]}], {"foo": ["a", ["x"]]}),
        ({"a/b": {"m~n": 8}}, [{"op": "replace", "path": "/a~1b/m~0n", "value": 9}], {"a/b": {"m~n": 9}}),
        ({"~1": 10}, [{"op": "test", "path": "/~01", "value": 10}], {"~1": 10}),
        ({"a": [1, 2]}, [{"op": "replace", "path": "/a/-1", "value": 3}], {"a": [1, 3]}),
        ({"a": [1, 2]}, [{"op": "add", "path": "/a/-1", "value": 3}], {"a": [1, 2, 3]}),
        ({"a": {"b": [1]}}, [{"op": "copy", "from": "/a", "path": "/c"}], {"a": {"b": [1]}, "c": {"b": [1]}}),
        ({"a": 1}, [{"op": "replace", "path": "", "value": {"b": 2}}], {"b": 2}),
        ({"a": 1}, [{"op": "test", "path": "/b", "value": None}], {"a": 1}),
        ({"a": 1}, [{"op": "add", "path": "/b", "value": None}], {"a": 1, "b": None}),
        ({"": 1}, [{"op": "remove", "path": "/"}], {}),
        ({"a": 1}, [], {"a": 1}),
    ],
)
def test_operations_apply(obj: dict[str, Any], operations: list[Any], expected: dict[str, Any]) -> None:
    before = copy.deepcopy(obj)
    assert json_patch(obj, operations) == expected
    assert obj == before


def test_later_operations_do_not_reach_into_copied_or_given_values() -> None:
    value = {"x": 1}
    result = json_patch(
        {"a": {"x": 0}},
        [
            {"op": "add", "path": "/b", "value": value},
            {"op": "copy", "from": "/a", "path": "/c"},
            {"op": "replace", "path": "/b/x", "value": 2},
            {"op": "replace", "path": "/c/x", "value": 3},
        ],
    )
    assert result == {"a": {"x": 0}, "b": {"x": 2}, "c": {"x": 3}}
    assert value == {"x": 1}


@pytest.mark.parametrize(
    ("operation", "why"),
    [
        ({"op": "remove", "path": "/nope"}, "missing value"),
        ({"op": "replace", "path": "/nope", "value": 1}, "missing value"),
        ({"op": "add", "path": "/nope/x", "value": 1}, "missing value"),
        ({"op": "add", "path": "/list/7", "value": 1}, "invalid index"),
        ({"op": "add", "path": "/list/01", "value": 1}, "no place"),
        ({"op": "add", "path": "/list/x", "value": 1}, "no place"),
        ({"op": "replace", "path": "/list/-", "value": 1}, "no place"),
        ({"op": "add", "path": "/text/x", "value": 1}, "missing value"),
        ({"op": "test", "path": "/text", "value": "other"}, "test failed"),
        ({"op": "test", "path": "/flag", "value": 1}, "test failed"),
        ({"op": "test", "path": "/nope", "value": 1}, "missing value"),
        ({"op": "frobnicate", "path": "/text"}, "Unexpected kind: frobnicate"),
        ({"path": "/text"}, "Unexpected kind"),
        ({"op": "add", "path": "/x"}, "no value"),
        ({"op": "add", "value": 1}, "no path"),
        ({"op": "add", "path": 3, "value": 1}, "no path"),
        ({"op": "add", "path": "x", "value": 1}, "begin with"),
        ({"op": "copy", "path": "/x"}, "no from"),
        ({"op": "move", "from": "/map", "path": "/map/in"}, "into itself"),
        ({"op": "remove", "path": ""}, "cannot be removed"),
        ({"op": "replace", "path": "", "value": 3}, "no object"),
    ],
)
def test_what_does_not_apply_is_a_422_that_says_why(operation: dict[str, Any], why: str) -> None:
    obj = {"text": "t", "list": [1], "map": {"a": 1}, "flag": True}
    with pytest.raises(ApiError) as caught:
        json_patch(obj, [operation])
    assert (caught.value.code, caught.value.reason) == (422, "Invalid")
    assert caught.value.message == "the server rejected our request due to an error in our request"
    assert why in caught.value.details["causes"][0]["message"]


@pytest.mark.parametrize("patch", [{}, "x", None, [1], [[]]])
def test_what_is_no_json_patch_is_a_400(patch: Any) -> None:
    with pytest.raises(ApiError) as caught:
        json_patch({}, patch)
    assert caught.value.code == 400


def test_too_many_operations_are_refused() -> None:
    with pytest.raises(ApiError) as caught:
        json_patch({}, [{"op": "test", "path": "/a", "value": None}] * 10_001)
    assert caught.value.code == 413
    assert "is 10000, got 10001" in caught.value.message
    assert json_patch({}, [{"op": "test", "path": "/a", "value": None}] * 10_000) == {}


def test_copies_that_double_are_stopped() -> None:
    operations: list[Any] = [{"op": "add", "path": "/a", "value": {"x": "y" * 1000}}]
    operations += [{"op": "copy", "from": "/a", "path": f"/a/k{number}"} for number in range(40)]
    with pytest.raises(ApiError) as caught:
        json_patch({}, operations)
    assert caught.value.code in (400, 422)


def test_deep_nesting_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(400):
        deep = {"a": deep}
    for patch in (lambda: merge_patch({}, deep), lambda: json_patch({}, [{"op": "add", "path": "/a", "value": deep}])):
        with pytest.raises(ApiError) as caught:
            patch()
        assert caught.value.code == 400
    longer = "/a" * 300
    grown = [{"op": "add", "path": "/a" * (n + 1), "value": {}} for n in range(300)]
    with pytest.raises(ApiError):
        json_patch({}, [*grown, {"op": "add", "path": longer, "value": 1}])


@pytest.mark.parametrize(
    ("obj", "patch", "expected"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        ({"a": "foo"}, {"a": {"b": 1}}, {"a": {"b": 1}}),
    ],
)
def test_merge_patch_is_rfc_7396(obj: dict[str, Any], patch: dict[str, Any], expected: dict[str, Any]) -> None:
    before = copy.deepcopy(obj)
    assert merge_patch(obj, patch) == expected
    assert obj == before


@pytest.mark.parametrize("patch", [[], "x", 3, None, True])
def test_a_merge_patch_is_an_object(patch: Any) -> None:
    with pytest.raises(ApiError) as caught:
        merge_patch({}, patch)
    assert caught.value.code == 400


_scalar = st.booleans() | st.integers(-5, 5) | st.text("ab", max_size=2)
_value = st.recursive(
    _scalar,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=1), inner),
    max_leaves=12,
)
_object = st.dictionaries(st.text("abc", min_size=1, max_size=1), _value, max_size=3)


def _same(one: Any, other: Any) -> bool:
    return repr(_sorted(one)) == repr(_sorted(other))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(one) for one in value] if isinstance(value, list) else value


@given(_object, _object)
def test_a_diff_applied_gives_the_new_object(old: dict[str, Any], new: dict[str, Any]) -> None:
    patch = diff_merge(old, new)
    assert _same(merge_patch(old, patch), new)
    assert (patch == {}) is _same(old, new)


@given(_object, _object)
def test_merging_twice_is_merging_once(obj: dict[str, Any], patch: dict[str, Any]) -> None:
    once = merge_patch(obj, patch)
    assert merge_patch(once, patch) == once


_operation = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]), "path": st.text("/ab01-~", max_size=6)},
    optional={"value": _value, "from": st.text("/ab01-", max_size=4)},
)  # fmt: skip


@given(_object, st.lists(_operation, max_size=4))
def test_any_patch_applies_or_is_refused_and_changes_nothing(obj: dict[str, Any], operations: list[Any]) -> None:
    before, given_operations = copy.deepcopy(obj), copy.deepcopy(operations)
    with contextlib.suppress(ApiError):
        assert isinstance(json_patch(obj, operations), dict)
    assert obj == before
    assert operations == given_operations
