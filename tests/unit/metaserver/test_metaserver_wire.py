"""What edge and cloud say to each other about the API: our own form, and KubeEdge's Applications."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.kube import json
from edgesite.wire import application, metaserver
from edgesite.wire.application import Application, Outcome, Place, place_of, query_of
from edgesite.wire.message import InvalidMessage
from edgesite.wire.metaserver import ApiAnswer, ApiRequest, Events, WatchRef, WatchRequest

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=6),
    max_leaves=12,
)
NAMES = st.sampled_from(["id", "method", "target", "headers", "body", "base64", "until", "link", "number", "events",
                         "revision", "error", "version", "resource", "since", "status", "clock", "Option", "Key", "Verb"])  # fmt: skip


@given(st.binary(max_size=200), st.text(max_size=30))
def test_requests_and_answers_come_back_as_they_were(body: bytes, value: str) -> None:
    request = ApiRequest("1", "PATCH", f"/api/v1/{value}", {"accept": value}, body, ("e", 7))
    assert ApiRequest.of(json.loads(json.dumps(request.content()))) == request
    answer = ApiAnswer(200, {"etag": value}, body, ("e", 7))
    assert ApiAnswer.of(json.loads(json.dumps(answer.content()))) == answer


def test_watches_and_events_come_back_as_they_were() -> None:
    watch = WatchRequest(WatchRef("l", 3), "apps", "v1", "deployments", "default", "a=b", "", 17, "Bearer t")
    assert WatchRequest.of(json.loads(json.dumps(watch.content()))) == watch
    assert "Bearer" not in repr(watch), "it may be logged"
    events = Events(WatchRef("l", 3, 9), (("ADDED", 18, '{"a":1}'), (metaserver.LEFT, 19, "{}")), 20, None)
    assert Events.of(json.loads(json.dumps(events.content()))) == events


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", "v1/secrets?watch=true&x="),
        ("resource", "pods/../secrets"),
        ("namespace", "a/secrets?"),
        ("group", "a%2fb"),
        ("resource", ".."),
        ("version", ""),
    ],
)
def test_a_watch_cannot_lead_elsewhere_than_what_was_authorised(field: str, value: str) -> None:
    content = WatchRequest(WatchRef("l", 3), "apps", "v1", "deployments", "default", "", "", 17).content()
    with pytest.raises(InvalidMessage, match=field):
        WatchRequest.of({**content, field: value})


@given(st.dictionaries(NAMES, ANYTHING, max_size=10))
def test_other_content_is_refused_and_breaks_nothing(content: dict[str, Any]) -> None:
    for kind in (ApiRequest, ApiAnswer, WatchRequest, WatchRef, Events, Application, Outcome):
        try:
            kind.of(content)  # type: ignore[attr-defined]
        except InvalidMessage:
            continue


@pytest.mark.parametrize(
    ("key", "verb", "option", "expected"),
    [
        ("/core/v1/pods/default/nginx", "get", b"{}", "823b58bb18e5084790c238c1888768181e2ecc8462a1d2e8c0a62d6f7b1dcf5a"),
        (
            "/core/v1/services/null/null",
            "watch",
            b'{"watch":true}',
            "0022033514a84006e572ef62f95b731d0e4625d28af0b3042846b2bd467334fa",
        ),
    ],
)  # fmt: skip
def test_ids_are_those_of_kubeedge(key: str, verb: str, option: bytes, expected: str) -> None:
    assert Application("edge1", key, verb, option).id == expected


def test_keys_and_urls() -> None:
    assert place_of("/core/v1/pods/default/nginx").url() == "/api/v1/namespaces/default/pods/nginx"
    assert place_of("/apps/v1/deployments/null/null").url() == "/apis/apps/v1/deployments"
    assert place_of("/core/v1/nodes/null/n").url("status") == "/api/v1/nodes/n/status"
    assert place_of("/openapi/v2").url() == "/openapi/v2"
    place = Place("apps", "v1", "deployments", "default", "web")
    assert place_of(place.key()) == place
    for bad in (
        "",
        "/",
        "/core/v1/pods",
        "core/v1/pods/a/b",
        "/core//pods/a/b",
        "/a/b/c/d/e/f",
        "/core/v1?x=/pods/a/b",
        "/core/v1/pods/../b",
        "/core/v1/pods/a/b#",
        "/core/v1/pods/a b/c",
    ):
        with pytest.raises(InvalidMessage):
            place_of(bad)


def test_options_become_a_query() -> None:
    assert query_of({"labelSelector": "a in (b)", "limit": 5, "watch": True, "kind": "X", "force": False}) == (
        "?labelSelector=a+in+%28b%29&limit=5&watch=true"
    )
    assert query_of({"dryRun": ["All"]}) == "?dryRun=All"
    assert query_of({}) == ""


@pytest.mark.parametrize(
    ("plural", "word"),
    [("configmaps", "configmap"), ("leases", "leas"), ("namespaces", "namespac"), ("endpoints", "endpoints"),
     ("networkpolicies", "networkpolicy"), ("nodes", "node"), ("endpointslices", "endpointslice"), ("services", "service")],
)  # fmt: skip
def test_type_words_are_guessed_as_kubeedge_does(plural: str, word: str) -> None:
    assert application.kind_word(plural) == word


def test_a_request_that_was_given_up_is_known() -> None:
    assert application.is_late({"Status": "Completed", "Reason": "timeout"})
    assert not application.is_late({"Status": "Completed", "Reason": ""}), "an identical one before it is done"
    assert not application.is_late({"Status": "InApplying", "Reason": "x"})


def test_an_answer_keeps_what_it_does_not_know() -> None:
    sent = {"ID": "1", "Timestamp": "x", "RespBody": None, "Status": "InApplying", "Reason": "", "Error": {}}
    answer = application.answered(sent, b"{}")
    assert list(answer) == list(sent)
    assert answer["RespBody"] == base64.b64encode(b"{}").decode()
    assert Outcome.of(application.rejected(sent, None, "why")).reason == "why"
