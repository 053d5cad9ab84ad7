"""The algebra of field sets, held against plain sets of paths."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.kube.apply_sets import (
    FieldSet,
    InvalidFieldSet,
    check,
    difference,
    intersection,
    is_member,
    paths,
    subtract,
    union,
)

Path = tuple[str, ...]


def members(fields: FieldSet, prefix: Path = ()) -> set[Path]:
    found: set[Path] = set()
    for element, node in fields.items():
        if element == ".":
            continue
        if is_member(node):
            found.add((*prefix, element))
        found |= members(node, (*prefix, element))
    return found


def tree(found: set[Path]) -> FieldSet:
    root: FieldSet = {}
    for path in sorted(found):
        node = root
        for element in path:
            node = node.setdefault(element, {})
    for path in found:
        node = root
        for element in path:
            node = node[element]
        if node:
            node["."] = {}
    return root


_sets = st.sets(st.lists(st.sampled_from(["f:a", "f:b", "f:c"]), min_size=1, max_size=3).map(tuple), max_size=8)


@given(_sets)
def test_the_model_agrees_with_itself(one: set[Path]) -> None:
    assert members(tree(one)) == one


@given(_sets, _sets)
def test_operations_are_those_of_sets(one: set[Path], other: set[Path]) -> None:
    first, second = tree(one), tree(other)
    below = {path for path in one if any(path[: len(top)] == top for top in other)}
    assert members(union(first, second)) == one | other
    assert members(difference(first, second)) == one - other
    assert members(intersection(first, second)) == one & other
    assert members(subtract(first, second)) == one - below
    assert (first, second) == (tree(one), tree(other)), "what is given is not changed"


@given(_sets, _sets)
def test_results_have_one_form(one: set[Path], other: set[Path]) -> None:
    first, second = tree(one), tree(other)
    for operation, expected in ((union, one | other), (difference, one - other), (intersection, one & other)):
        assert operation(first, second) == tree(expected)


def test_paths_are_told_as_users_see_them() -> None:
    fields = {
        "f:spec": {
            "f:containers": {
                'k:{"name":"web"}': {
                    ".": {},
                    "f:image": {},
                    "f:ports": {'k:{"containerPort":80,"protocol":"TCP"}': {}},
                    "f:args": {'v:"x"': {}, "i:3": {}},
                }
            },
            "f:replicas": {},
        }
    }
    assert list(paths(fields)) == [
        '.spec.containers[name="web"]',
        '.spec.containers[name="web"].args[3]',
        '.spec.containers[name="web"].args[="x"]',
        '.spec.containers[name="web"].image',
        '.spec.containers[name="web"].ports[containerPort=80,protocol="TCP"]',
        ".spec.replicas",
    ]


def test_what_clients_send_is_brought_into_one_form() -> None:
    assert check({".": {}, "f:a": {'k:{"b": 1, "a" : "x"}': {".": {}}}, "f:b": {"v: 1": {}}}) == {
        "f:a": {'k:{"a":"x","b":1}': {}},
        "f:b": {"v:1": {}},
    }


@pytest.mark.parametrize(
    "fields",
    [[], "x", None, {"x:a": {}}, {"f:a": 3}, {"k:{": {}}, {"k:[]": {}}, {"k:{}": {}}, {"i:x": {}}, {"v:{}": {}}],
)
def test_what_is_no_set_is_refused(fields: Any) -> None:
    with pytest.raises(InvalidFieldSet):
        check(fields)
