"""Bytes of objects, lists and events: spliced, yet what a plain encoder would have said."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edgesite.kube import json
from edgesite.kube.encoding import encoder, list_body, watch_line, with_revision

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)  # fmt: skip
objects = st.fixed_dictionaries(
    {"kind": st.text(), "apiVersion": st.text(), "metadata": st.dictionaries(st.text(), values)},
    optional={"spec": values, "data": values, 'quote"d': values},
)


@given(objects, st.integers(1, 2**62), st.integers(1, 2**62))
def test_revision_is_spliced_in(obj: dict[str, Any], first: int, second: int) -> None:
    encode = encoder(obj)
    for revision, encoded in ((first, encode(first)), (second, with_revision(encode(first), second))):
        wanted = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(revision)}}
        assert json.loads(encoded) == wanted
        assert next(iter(json.loads(encoded)["metadata"])) == "resourceVersion"


@given(objects)
def test_no_revision(obj: dict[str, Any]) -> None:
    wanted = {**obj, "metadata": {key: value for key, value in obj["metadata"].items() if key != "resourceVersion"}}
    assert json.loads(encoder(obj)(0)) == wanted


def test_lists() -> None:
    assert json.loads(list_body("PodList", "v1", 5, [])) == {
        "kind": "PodList",
        "apiVersion": "v1",
        "metadata": {"resourceVersion": "5"},
        "items": [],
    }
    paged = json.loads(list_body("PodList", "v1", 5, [b"1", b"2"], "t", 3))
    assert (paged["items"], paged["metadata"]) == (
        [1, 2],
        {"resourceVersion": "5", "continue": "t", "remainingItemCount": 3},
    )


def test_watch_lines_are_lines() -> None:
    line = watch_line("ADDED", b'{"a":"b\\n"}')
    assert line.count(b"\n") == 1
    assert json.loads(line) == {"type": "ADDED", "object": {"a": "b\n"}}
