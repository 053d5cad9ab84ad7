"""Hashes of containers, against what programs in Go computed from the same JSON with Kubernetes' own types."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.edge.edged.gohash import go_container_json, hash_1_22, hash_1_31
from edgesite.kube import json
from edgesite.kube.gojson import go_json

DEFAULTED: dict[str, Any] = {
    "name": "main",
    "image": "registry.example/gate:2",
    "resources": {},
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
    "imagePullPolicy": "IfNotPresent",
}
FULL: dict[str, Any] = {
    "name": "full",
    "image": "i:1",
    "command": ["/bin/sh", "-c", 'a < b && c > "d"\f'],
    "env": [
        {"name": "A", "value": ""},
        {"name": "B", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        {"name": "C", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": False}}},
    ],
    "envFrom": [{"configMapRef": {"name": "conf"}}],
    "ports": [{"name": "web", "containerPort": 80, "hostPort": 0, "protocol": "TCP"}],
    "resources": {"limits": {"memory": "1024Mi", "cpu": "0.5"}, "requests": {"cpu": "1000m"}},
    "volumeMounts": [
        {
            "name": "v",
            "mountPath": "/v",
            "readOnly": False,
            "mountPropagation": "None",
            "recursiveReadOnly": "Disabled",
        }
    ],
    "livenessProbe": {
        "httpGet": {"path": "/", "port": "web", "scheme": "HTTP"},
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
    },
    "lifecycle": {"preStop": {"exec": {"command": ["/bye"]}}},
    "securityContext": {"privileged": False, "runAsUser": 0, "capabilities": {"drop": ["ALL"]}},
    "stdin": False,
    "tty": True,
}
BARE: dict[str, Any] = {"name": "bare", "image": "x", "securityContext": {}, "command": [], "restartPolicy": "Always"}


@pytest.mark.parametrize(("container", "hashed"), [(DEFAULTED, "2b53a25b"), (FULL, "fd5b8021"), (BARE, "91f0061d")])
def test_the_hash_is_that_of_kubernetes_1_22(container: dict[str, Any], hashed: str) -> None:
    assert hash_1_22(container) == hashed
    assert hash_1_22(dict(reversed(container.items()))) == hashed, "the order of members in the API does not count"


def test_the_json_has_the_members_of_the_go_type_alone_in_its_order() -> None:
    assert go_container_json(BARE) == '{"name":"bare","image":"x","resources":{},"securityContext":{}}'
    assert '"divisor":"0"' in go_container_json(FULL)
    assert "recursiveReadOnly" not in go_container_json(FULL)


def test_since_1_31_only_name_and_image_count() -> None:
    assert hash_1_31(DEFAULTED) == hash_1_31({"image": "registry.example/gate:2", "name": "main"})
    assert hash_1_31(DEFAULTED) != hash_1_31(DEFAULTED | {"image": "registry.example/gate:3"})


@given(st.text())
def test_text_as_go_writes_it_reads_back(text: str) -> None:
    written = go_json({"a": text})
    assert json.loads(written) == {"a": text}
    assert not set("<>&\u2028\u2029") & set(written)
