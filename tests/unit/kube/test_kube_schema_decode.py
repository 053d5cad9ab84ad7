"""Decoding into a kind, in kube-apiserver's words."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.kube import json, schema
from edgesite.kube.errors import ApiError
from edgesite.kube.schema_decode import Decoded, decode, duplicate_fields, strict_error

SCHEMAS = schema.load()


def pod(spec: dict[str, Any]) -> Decoded:
    return decode(
        SCHEMAS, "", "v1", "Pod", {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec}
    )


def refusal(group: str, version: str, kind: str, obj: Any) -> str:
    with pytest.raises(ApiError) as caught:
        decode(SCHEMAS, group, version, kind, obj)
    assert (caught.value.code, caught.value.reason) == (400, "BadRequest")
    return caught.value.message


def test_unknown_fields_are_dropped_and_reported_by_path() -> None:
    decoded = pod({"foo": 1, "containers": [{"name": "a"}, {"name": "b", "img": "x", "ports": [{"prot": 1}]}]})
    assert decoded.unknown == ["spec.foo", "spec.containers[1].img", "spec.containers[1].ports[0].prot"]
    assert decoded.object["spec"] == {"containers": [{"name": "a"}, {"name": "b", "ports": [{"containerPort": 0}]}]}
    assert decoded.warnings()[0] == 'unknown field "spec.foo"'


def test_strict_error_names_all_problems() -> None:
    error = strict_error("Deployment", "v1", ['unknown field "spec.foo"', 'duplicate field "spec.bar"'])
    assert error.code == 400
    assert error.message == (
        'Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: '
        'unknown field "spec.foo", duplicate field "spec.bar"'
    )


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"replicas": "3"}, "cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"),
        (
            {"replicas": 1.5},
            "cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            {"replicas": 3000000000},
            "cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        ({"replicas": True}, "cannot unmarshal bool into Go struct field DeploymentSpec.spec.replicas of type int32"),
        ({"paused": "x"}, "cannot unmarshal string into Go struct field DeploymentSpec.spec.paused of type bool"),
        ([], "cannot unmarshal array into Go struct field Deployment.spec of type v1.DeploymentSpec"),
        (
            {"template": {"spec": {"containers": {}}}},
            "cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
        ),
        (
            {"template": {"spec": {"containers": [{"env": [{"name": "A", "value": 1}]}]}}},
            "cannot unmarshal number into Go struct field EnvVar.spec.template.spec.containers.env.value of type string",
        ),
        (
            {"template": {"metadata": {"labels": {"a": 1}}}},
            "cannot unmarshal number into Go struct field ObjectMeta.spec.template.metadata.labels of type string",
        ),
    ],
    ids=lambda value: value[-40:] if isinstance(value, str) else "",
)
def test_wrong_types_are_refused_as_go_words_it(spec: Any, text: str) -> None:
    message = refusal("apps", "v1", "Deployment", {"spec": spec})
    assert message == f'Deployment in version "v1" cannot be handled as a Deployment: json: {text}'


def test_body_that_is_no_object_is_refused() -> None:
    assert refusal("", "v1", "Pod", [1]).endswith("json: cannot unmarshal array into Go value of type v1.Pod")


def test_nulls_and_empty_lists_and_maps_vanish_but_required_ones_stay() -> None:
    decoded = pod({"nodeName": None, "volumes": [], "nodeSelector": {}, "containers": [], "securityContext": {}})
    assert decoded.object["spec"] == {"containers": [], "securityContext": {}}


def test_required_scalars_are_always_there() -> None:
    status = {"containerStatuses": [{"name": "a"}]}
    decoded = decode(SCHEMAS, "", "v1", "Pod", {"status": status})
    assert decoded.object["status"]["containerStatuses"] == [
        {"name": "a", "image": "", "imageID": "", "ready": False, "restartCount": 0}
    ]
    decoded = decode(SCHEMAS, "apps", "v1", "ReplicaSet", {"status": {"readyReplicas": 1}})
    assert decoded.object["status"] == {"readyReplicas": 1, "replicas": 0}


def test_null_among_map_values_is_the_empty_string() -> None:
    decoded = decode(SCHEMAS, "", "v1", "ConfigMap", {"data": {"a": None, "b": "c"}})
    assert decoded.object == {"data": {"a": "", "b": "c"}}


def test_quantities_take_their_canonical_form() -> None:
    limits = {"cpu": 0.5, "memory": "2048Mi", "x": "1000m", "y": 3}
    decoded = pod({"containers": [{"name": "a", "resources": {"limits": limits}}]})
    assert decoded.object["spec"]["containers"][0]["resources"]["limits"] == {
        "cpu": "500m",
        "memory": "2Gi",
        "x": "1",
        "y": "3",
    }


def test_bad_quantity_is_refused() -> None:
    spec = {"containers": [{"name": "a", "resources": {"limits": {"cpu": "many"}}}]}
    assert "quantities must match the regular expression" in refusal("", "v1", "Pod", {"spec": spec})


def test_times_take_their_canonical_form() -> None:
    lease = {
        "metadata": {"deletionTimestamp": "2024-05-01T12:00:00+02:00"},
        "spec": {"renewTime": "2024-05-01T12:00:00Z"},
    }
    decoded = decode(SCHEMAS, "coordination.k8s.io", "v1", "Lease", lease)
    assert decoded.object["metadata"]["deletionTimestamp"] == "2024-05-01T10:00:00Z"
    assert decoded.object["spec"]["renewTime"] == "2024-05-01T12:00:00.000000Z"


def test_bad_time_is_refused() -> None:
    message = refusal("", "v1", "Pod", {"metadata": {"creationTimestamp": "soon"}})
    assert 'parsing time "soon"' in message


@pytest.mark.parametrize(("text", "at"), [("a$==", 1), ("YWJj=", 4), ("YW", 0), ("!", 0), ("YWJjYQ", 4)])
def test_bad_base64_is_refused_with_its_place(text: str, at: int) -> None:
    assert refusal("", "v1", "Secret", {"data": {"a": text}}).endswith(f"illegal base64 data at input byte {at}")


def test_line_breaks_in_base64_are_dropped() -> None:
    assert decode(SCHEMAS, "", "v1", "Secret", {"data": {"a": "YWJj\nYQ=="}}).object["data"]["a"] == "YWJjYQ=="


def test_int_or_string_takes_both_and_nothing_else() -> None:
    ports = [{"port": 80, "targetPort": "web"}, {"port": 81, "targetPort": 81}]
    service = {"spec": {"ports": ports}}
    assert decode(SCHEMAS, "", "v1", "Service", service).object == service
    ports[0]["targetPort"] = True
    assert "cannot unmarshal bool" in refusal("", "v1", "Service", service)


def test_schemas_of_custom_resources_nest_only_so_deep() -> None:
    props: dict[str, Any] = {}
    for _ in range(400):
        props = {"properties": {"a": props}}
    crd = {"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": props}}]}}
    assert "exceeded max depth" in refusal("apiextensions.k8s.io", "v1", "CustomResourceDefinition", crd)


def test_kind_without_schema_keeps_all_but_metadata_as_it_is() -> None:
    obj = {"anything": [None, {"goes": 1.5}], "metadata": {"name": "a", "annotations": {}, "foo": 1}}
    decoded = decode(SCHEMAS, "example.com", "v1", "Thing", obj)
    assert decoded == Decoded({"anything": obj["anything"], "metadata": {"name": "a"}}, ["metadata.foo"])
    message = refusal("example.com", "v1", "Thing", {"metadata": {"labels": [1]}})
    assert message.endswith(
        "cannot unmarshal array into Go struct field ObjectMeta.metadata.labels of type map[string]string"
    )
    assert refusal("example.com", "v1", "Thing", {"metadata": 1}).endswith("Thing.metadata of type v1.ObjectMeta")


def test_duplicate_members_are_named() -> None:
    body = b'{"spec":{"replicas":1,"replicas":2,"list":[{"a":1},{"a":1,"a":2}]}}'
    assert duplicate_fields(body) == ['duplicate field "spec.replicas"', 'duplicate field "spec.list[1].a"']
    assert duplicate_fields(b'{"a":{"b":1}}') == []
    assert duplicate_fields(b"{") == []


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["spec", "metadata", "labels", "containers", "name", "env", "resources", "limits", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(values)
def test_any_json_decodes_or_is_refused(value: Any) -> None:
    before = json.dumps(value)
    try:
        decoded = decode(SCHEMAS, "", "v1", "Pod", value)
    except ApiError as exc:
        code = exc.code
    else:
        code = 400
        again = decode(SCHEMAS, "", "v1", "Pod", decoded.object)
        assert again == Decoded(decoded.object, [])
    assert code == 400
    assert json.dumps(value) == before
