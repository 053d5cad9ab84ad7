"""Bodies in Kubernetes' protobuf form: what Go clients send becomes what their JSON would be."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.apiserver import protobuf
from edgesite.apiserver.protobuf_tables import TEXT
from edgesite.kube import protowire, schema
from edgesite.kube.errors import ApiError
from edgesite.kube.protowire import Messages, encode

MESSAGES = Messages(TEXT)
SCHEMAS = schema.load()


def body(version: str, kind: str, message: str, value: dict[str, Any]) -> bytes:
    raw = encode(MESSAGES[message], value)
    wrapped = {"typeMeta": {"apiVersion": version, "kind": kind}, "raw": raw}
    return protobuf.MAGIC + encode(MESSAGES["runtime.Unknown"], wrapped)


def test_a_deployment() -> None:
    container = {
        "name": "web",
        "image": "nginx",
        "resources": {"limits": {"cpu": {"string": "100m"}}},
        "ports": [{"containerPort": 80}],
        "livenessProbe": {"inline_handler": {"httpGet": {"port": {"type": 1, "strVal": "http"}}}, "periodSeconds": 5},
    }
    volume = {"name": "v", "inline_volumeSource": {"configMap": {"inline_localObjectReference": {"name": "c"}}}}
    pod = {"containers": [container], "volumes": [volume], "terminationGracePeriodSeconds": 5}
    value = {
        "metadata": {"name": "web", "labels": {"a": "b"}, "creationTimestamp": {}},
        "spec": {"replicas": 0, "template": {"spec": pod}, "strategy": {}},
    }
    # As Go writes it: zeros of fields that are no pointers are on the wire, too.
    read = protobuf.parse(body("apps/v1", "Deployment", "apps.v1.Deployment", value))
    assert read["kind"], read["apiVersion"] == ("Deployment", "apps/v1")
    assert read["metadata"] == {"name": "web", "labels": {"a": "b"}}
    spec = read["spec"]["template"]["spec"]
    assert spec["volumes"] == [{"name": "v", "configMap": {"name": "c"}}]
    made = spec["containers"][0]
    assert made["resources"] == {"limits": {"cpu": "100m"}}
    assert made["livenessProbe"] == {"httpGet": {"port": "http"}, "periodSeconds": 5}


def test_zeros_that_are_choices_are_kept() -> None:
    def varint(number: int, value: int) -> bytes:
        return bytes([number << 3, value])

    # DeploymentSpec: replicas (by pointer) and minReadySeconds (not), both zero on the wire.
    spec = varint(1, 0) + varint(5, 0)
    raw = bytes([2 << 3 | 2, len(spec)]) + spec
    wrapped = {"typeMeta": {"apiVersion": "apps/v1", "kind": "Deployment"}, "raw": raw}
    read = protobuf.parse(protobuf.MAGIC + encode(MESSAGES["runtime.Unknown"], wrapped))
    assert read["spec"] == {"replicas": 0}


def test_times_bytes_and_lists_of_texts() -> None:
    secret = {"metadata": {"name": "s", "creationTimestamp": {"seconds": 1}}, "data": {"k": b"v"}}
    read = protobuf.parse(body("v1", "Secret", "core.v1.Secret", secret))
    assert read["data"] == {"k": "dg=="}
    assert read["metadata"]["creationTimestamp"] == "1970-01-01T00:00:01Z"
    lease = {"spec": {"renewTime": {"seconds": 1, "nanos": 5000}, "holderIdentity": "h"}}
    read = protobuf.parse(body("coordination.k8s.io/v1", "Lease", "coordination.v1.Lease", lease))
    assert read["spec"]["renewTime"] == "1970-01-01T00:00:01.000005Z"
    review = {"spec": {"user": "u", "extra": {"a": {"items": ["b"]}}}}
    name = "authorization.v1.SubjectAccessReview"
    read = protobuf.parse(body("authorization.k8s.io/v1", "SubjectAccessReview", name, review))
    assert read["spec"]["extra"] == {"a": ["b"]}


def test_delete_options_of_any_group() -> None:
    value = {"gracePeriodSeconds": 0, "propagationPolicy": "Background"}
    raw = bytes([1 << 3, 0]) + encode(MESSAGES["meta.v1.DeleteOptions"], {"propagationPolicy": "Background"})
    wrapped = {"typeMeta": {"apiVersion": "apps/v1", "kind": "DeleteOptions"}, "raw": raw}
    read = protobuf.parse(protobuf.MAGIC + encode(MESSAGES["runtime.Unknown"], wrapped))
    assert {key: read[key] for key in value} == value


def test_unknown_kinds_and_other_bytes() -> None:
    with pytest.raises(ApiError) as refused:
        protobuf.parse(body("example.com/v1", "Sensor", "core.v1.Secret", {}))
    assert refused.value.code == 415
    with pytest.raises(ApiError) as refused:
        protobuf.parse(b"{}")
    assert refused.value.code == 400


@given(st.binary())
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    wrapped = encode(MESSAGES["runtime.Unknown"], {"typeMeta": {"apiVersion": "v1", "kind": "Pod"}, "raw": data})
    for sent in (protobuf.MAGIC + data, protobuf.MAGIC + wrapped):
        code = 400
        try:
            protobuf.parse(sent)
        except ApiError as exc:
            code = exc.code
        assert code in (400, 415)


def test_tables_and_schemas_know_the_same_fields() -> None:
    """A member that the schema lacks would be dropped: none may be misspelt."""
    for name in MESSAGES:
        if name.split(".")[0] in ("runtime", "resource", "util"):
            continue
        definition = _definition(name)
        if definition is None or definition.type != "struct":
            continue
        for field in MESSAGES[name].fields:
            if not field.name.startswith("inline_"):
                assert field.name in definition.fields, f"{name}.{field.name}"


def _definition(name: str) -> schema.Definition | None:
    for prefix in ("io.k8s.api.", "io.k8s.apimachinery.pkg.apis."):
        try:
            return SCHEMAS.definition(prefix + name)
        except KeyError:
            continue
    return None


def test_every_table_can_be_read() -> None:
    for name in MESSAGES:
        assert protowire.decode(MESSAGES[name], b"") == {}
