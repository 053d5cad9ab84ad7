"""What an API server asks about devices: conversions that leave metadata alone, verdicts with paths, and nonsense."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.kube.devices import V1ALPHA2, V1BETA1, judgement
from edgesite.kube.devices.reviews import BadReview, answer, converted, question
from edgesite.kube.errors import invalid

Object = dict[str, Any]
ADMISSION = ("admission.k8s.io/v1", "admission.k8s.io/v1beta1")
CONVERSION = ("apiextensions.k8s.io/v1", "apiextensions.k8s.io/v1beta1")
MODEL = {
    "metadata": {"name": "room"},
    "apiVersion": V1BETA1,
    "kind": "DeviceModel",
    "spec": {"properties": [{"name": "target", "type": "FLOAT", "minimum": "5", "maximum": "30"}]},
}
METADATA = {
    "name": "hall",
    "namespace": "default",
    "uid": "u-1",
    "resourceVersion": "7",
    "generation": 2,
    "finalizers": ["a/b"],
    "managedFields": [{"manager": "kubectl", "apiVersion": V1ALPHA2}],
    "annotations": {"own": "word"},
}


def alpha(value: str = "20") -> Object:
    term = {"matchExpressions": [{"key": "", "operator": "In", "values": ["edge-1"]}]}
    return {
        "apiVersion": V1ALPHA2,
        "kind": "Device",
        "metadata": METADATA,
        "spec": {"deviceModelRef": {"name": "room"}, "nodeSelector": {"nodeSelectorTerms": [term]}},
        "status": {"twins": [{"propertyName": "target", "desired": {"value": value}}]},
    }


def conversion(to: str, *objects: Any, version: str = CONVERSION[0]) -> Object:
    request = {"uid": "c-1", "desiredAPIVersion": to, "objects": list(objects)}
    return {"apiVersion": version, "kind": "ConversionReview", "request": request}


def admission(obj: Any, old: Any = None, plural: str = "devices", version: str = ADMISSION[0]) -> Object:
    resource = {"group": "devices.kubeedge.io", "version": "v1alpha2", "resource": plural}
    request = {"uid": "a-1", "resource": resource, "operation": "UPDATE" if old else "CREATE", "namespace": "default"}
    return {
        "apiVersion": version,
        "kind": "AdmissionReview",
        "request": {**request, "name": "hall", "object": obj, "oldObject": old},
    }


@pytest.mark.parametrize("version", CONVERSION)
def test_objects_are_converted_there_and_back(version: str) -> None:
    made = converted(conversion(V1BETA1, alpha(), version=version))
    assert (made["apiVersion"], made["response"]["uid"]) == (version, "c-1")
    assert made["response"]["result"] == {"status": "Success"}
    (beta,) = made["response"]["convertedObjects"]
    assert (beta["apiVersion"], beta["spec"]["nodeName"]) == (V1BETA1, "edge-1")
    kept = {name: value for name, value in beta["metadata"].items() if name != "annotations"}
    assert kept == {name: value for name, value in METADATA.items() if name != "annotations"}, (
        "or API servers refuse it"
    )
    back = converted(conversion(V1ALPHA2, beta))["response"]["convertedObjects"]
    assert back == [alpha()]


@pytest.mark.parametrize(
    ("to", "objects"),
    [
        ("devices.kubeedge.io/v1", [alpha()]),
        (V1BETA1, [alpha(), {"apiVersion": "v1", "kind": "Pod"}]),
        (V1BETA1, [alpha(), 1]),
        (V1BETA1, [{**alpha(), "kind": "Other"}]),
    ],
)
def test_one_object_that_cannot_be_converted_fails_the_review(to: str, objects: list[Any]) -> None:
    response = converted(conversion(to, *objects))["response"]
    assert response["result"]["status"] == "Failure"
    assert response["result"]["message"]
    assert "convertedObjects" not in response


@pytest.mark.parametrize("version", ADMISSION)
def test_a_refusal_names_the_field_in_the_version_that_was_sent(version: str) -> None:
    asked = question(admission(alpha("31"), version=version))
    assert (asked.kind, asked.operation, asked.namespace, asked.name) == ("Device", "CREATE", "default", "hall")
    assert asked.object is not None
    error, warnings = judgement.judged("Device", "hall", asked.object, MODEL)
    made = answer(asked, error, warnings)
    assert (made["apiVersion"], made["response"]["uid"], made["response"]["allowed"]) == (version, "a-1", False)
    status = made["response"]["status"]
    assert (status["code"], status["reason"]) == (422, "Invalid")
    assert [one["field"] for one in status["details"]["causes"]] == ["status.twins[0].desired.value"]
    assert judgement.judged("Device", "hall", alpha(), MODEL) == (None, [])


def test_a_report_is_not_looked_at_and_a_wish_is() -> None:
    reported = alpha()
    reported["status"]["twins"][0] |= {"reported": {"value": "19"}}
    assert not judgement.is_looked_at(reported, alpha())
    assert judgement.is_looked_at(alpha("21"), alpha())
    assert judgement.is_looked_at(alpha(), None)


def test_long_warnings_are_cut() -> None:
    made = answer(question(admission(alpha())), None, ["x" * 1000] * 100)
    assert made["response"]["allowed"]
    assert len(made["response"]["warnings"]) <= 16
    assert max(map(len, made["response"]["warnings"])) <= 256


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
members = st.sampled_from(
    ["uid", "objects", "desiredAPIVersion", "resource", "object", "oldObject", "name", "operation"]
)


@given(st.dictionaries(members, json_values), st.booleans())
def test_nonsense_is_refused_or_answered(request: Object, converts: bool) -> None:
    kind, version = ("ConversionReview", CONVERSION[0]) if converts else ("AdmissionReview", ADMISSION[0])
    review = {"apiVersion": version, "kind": kind, "request": {"uid": "u", **request}}
    for one in (review, request, [request], None):
        try:
            made = converted(one) if converts else answer(question(one), invalid("Device", "a", []), [])
        except BadReview:
            continue
        assert made["kind"] == kind


fields = st.sampled_from(
    ["deviceModelRef", "properties", "methods", "propertyVisitors", "nodeName", "protocol", "data"]
)
inner = st.sampled_from(
    ["name", "desired", "value", "propertyNames", "type", "minimum", "maximum", "int", "propertyName"]
)
specs = st.dictionaries(
    fields,
    json_values
    | st.lists(st.dictionaries(inner, json_values, max_size=4), max_size=3)
    | st.dictionaries(inner, json_values),
)


@given(
    specs, json_values | st.dictionaries(st.just("twins"), st.lists(st.dictionaries(inner, json_values))), st.booleans()
)
def test_objects_of_no_shape_are_judged(spec: Object, status: Any, alpha: bool) -> None:
    obj = {"apiVersion": V1ALPHA2 if alpha else V1BETA1, "metadata": {}, "spec": spec, "status": status}
    for kind in ("Device", "DeviceModel"):
        judgement.judged(kind, "a", {"kind": kind, **obj}, {**MODEL, "spec": spec})
