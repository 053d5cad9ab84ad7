"""Which form and encoding an Accept header asks for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.kube.errors import ApiError
from edgesite.kube.negotiate import BodyFormat, Form, View, body_format, negotiate, patch_type

TABLES = (
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
)


@pytest.mark.parametrize(
    ("accept", "view"),
    [
        (None, View()),
        ("", View()),
        ("*/*", View()),
        ("application/json", View()),
        ("application/vnd.kubernetes.protobuf,application/json", View()),
        ("application/yaml", View(format=BodyFormat.YAML)),
        ("application/yaml;q=0.5,application/json", View()),
        ("application/json;q=0.1,application/yaml;q=0.9", View(format=BodyFormat.YAML)),
        (TABLES, View(Form.TABLE)),
        ("application/json;as=Table;v=v9;g=meta.k8s.io,application/json", View()),
        ("application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", View(Form.PARTIAL)),
        ("application/json;as=Nonsense;v=v1;g=meta.k8s.io,*/*", View()),
    ],
)
def test_first_offered_view_wins(accept: str | None, view: View) -> None:
    assert negotiate(accept) == view


@pytest.mark.parametrize("accept", ["text/html", "application/vnd.kubernetes.protobuf", "application/json;q=0", ","])
def test_nothing_that_is_offered(accept: str) -> None:
    with pytest.raises(ApiError) as refused:
        negotiate(accept)
    assert refused.value.code == 406


def test_no_tables_of_what_is_no_resource() -> None:
    assert negotiate(TABLES, tables=False) == View()


@given(st.text())
def test_any_header_is_understood_or_refused(accept: str) -> None:
    code = 406
    try:
        negotiate(accept)
    except ApiError as exc:
        code = exc.code
    assert code == 406


def test_body_formats() -> None:
    assert body_format(None) is BodyFormat.JSON
    assert body_format("application/json; charset=utf-8") is BodyFormat.JSON
    assert body_format("application/yaml") is BodyFormat.YAML
    assert body_format("application/vnd.kubernetes.protobuf") is BodyFormat.PROTOBUF
    with pytest.raises(ApiError) as refused:
        body_format("text/plain")
    assert refused.value.code == 415


def test_patch_types() -> None:
    assert patch_type("application/strategic-merge-patch+json") == "strategic"
    assert patch_type("application/apply-patch+yaml; x=y") == "apply"
    for content_type, strategic in (("application/strategic-merge-patch+json", False), ("application/json", True)):
        with pytest.raises(ApiError) as refused:
            patch_type(content_type, strategic=strategic)
        assert refused.value.code == 415
