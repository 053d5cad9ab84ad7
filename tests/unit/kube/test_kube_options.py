"""Query parameters and DeleteOptions."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.kube.errors import ApiError
from edgesite.kube.options import DeleteOptions, ListOptions, WriteOptions, continue_token, read_continue


def query(text: str) -> dict[str, list[str]]:
    return parse_qs(text, keep_blank_values=True)


def test_list_options() -> None:
    read = ListOptions.of(query("limit=5&resourceVersion=7&labelSelector=a%3Db&timeoutSeconds=3"), watch=False)
    assert (read.limit, read.revision, str(read.labels), read.timeout_s) == (5, 7, "a=b", 3)
    assert ListOptions.of({}, watch=True).revision is None
    assert ListOptions.of(query("resourceVersion=0"), watch=True).revision == 0


@pytest.mark.parametrize(
    ("text", "watch", "code"),
    [
        ("limit=x", False, 400),
        ("limit=1_0", False, 400),
        ("limit=99999999999999999999", False, 400),
        ("labelSelector=a%3D%3D%3Db", False, 400),
        ("fieldSelector=a", False, 400),
        ("resourceVersion=-1", False, 422),
        ("resourceVersion=1x", False, 422),
        ("resourceVersion=99999999999999999999", False, 422),
        ("resourceVersionMatch=Exact", False, 422),
        ("resourceVersionMatch=Foo&resourceVersion=1", False, 422),
        ("resourceVersionMatch=Exact&resourceVersion=0", False, 422),
        ("resourceVersionMatch=Exact&resourceVersion=1&continue=x", False, 422),
        ("sendInitialEvents=true", False, 422),
        ("sendInitialEvents=true", True, 422),
        ("resourceVersionMatch=NotOlderThan", True, 422),
    ],
)
def test_bad_list_options(text: str, watch: bool, code: int) -> None:
    with pytest.raises(ApiError) as refused:
        ListOptions.of(query(text), watch=watch)
    assert refused.value.code == code


def test_write_options() -> None:
    read = WriteOptions.of(query("dryRun=All&fieldManager=me&force=true&fieldValidation=Strict"), "PatchOptions")
    assert read == WriteOptions(True, "me", "Strict", True)
    assert WriteOptions.of({}, "CreateOptions").field_validation == "Warn"
    for bad in ("dryRun=Some", "fieldValidation=x", "fieldManager=" + "x" * 129, "fieldManager=%00"):
        with pytest.raises(ApiError) as refused:
            WriteOptions.of(query(bad), "CreateOptions")
        assert refused.value.code == 422


def test_delete_options_of_the_body_go_first() -> None:
    body = {"gracePeriodSeconds": 1, "propagationPolicy": "Orphan", "preconditions": {"uid": "u"}, "dryRun": ["All"]}
    read = DeleteOptions.of(query("gracePeriodSeconds=9"), body)
    assert (read.grace_s, read.policy(), read.uid, read.dry_run) == (1, "Orphan", "u", True)
    read = DeleteOptions.of(query("gracePeriodSeconds=9&propagationPolicy=Foreground"), None)
    assert (read.grace_s, read.policy()) == (9, "Foreground")
    assert DeleteOptions.of(query("orphanDependents=true"), None).policy() == "Orphan"
    assert DeleteOptions.of(query("orphanDependents=false"), None).policy() == "Background"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"propagationPolicy": "x"}, 422),
        ({"propagationPolicy": "Orphan", "orphanDependents": True}, 422),
        ({"dryRun": ["x"]}, 422),
        ({"gracePeriodSeconds": True}, 400),
        ({"preconditions": []}, 400),
        ({"preconditions": {"uid": 5}}, 400),
        ([], 400),
        ("x", 400),
    ],
)
def test_bad_delete_options(body: Any, code: int) -> None:
    with pytest.raises(ApiError) as refused:
        DeleteOptions.of({}, body)
    assert refused.value.code == code


@given(st.integers(0, 2**62), st.text())
def test_continue_tokens_come_back(revision: int, start: str) -> None:
    token = continue_token(revision, start)
    assert token.isascii()
    assert read_continue(token) == (revision, start)


@given(st.text())
def test_any_other_token_is_refused(token: str) -> None:
    code = 400
    try:
        read_continue(token)
    except ApiError as exc:
        code = exc.code
    assert code == 400
