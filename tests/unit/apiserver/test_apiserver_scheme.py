"""Members that stand twice in a body are never overlooked by the cheap look at it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edgesite.apiserver.scheme import may_hold_twice, parse_body
from edgesite.kube.negotiate import BodyFormat
from edgesite.kube.schema_decode import duplicate_fields

texts = st.text('a":\\ {},\n', max_size=4)
values = st.recursive(
    st.none() | st.integers() | texts, lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(texts, inner), max_size=3), max_leaves=10
)  # fmt: skip


def written(value: Any, colon: str) -> str:
    """JSON in which pairs are members, perhaps twice the same."""
    if isinstance(value, list) and value and all(isinstance(one, tuple) for one in value):
        return "{" + ",".join(f"{json.dumps(key)}{colon}{written(one, colon)}" for key, one in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(written(one, colon) for one in value) + "]"
    return json.dumps(value)


@given(values, st.sampled_from([":", " :", ": ", "\n:\t"]))
def test_nothing_is_overlooked(value: Any, colon: str) -> None:
    body = written(value, colon).encode()
    if duplicate_fields(body):
        assert may_hold_twice(body, parse_body(body, BodyFormat.JSON))


def test_plain_bodies_need_no_second_look() -> None:
    body = b'{"metadata":{"name":"a"},"data":{"k":"v","l":"w"},"list":[{"a":1},{"a":2}]}'
    assert not may_hold_twice(body, parse_body(body, BodyFormat.JSON))
