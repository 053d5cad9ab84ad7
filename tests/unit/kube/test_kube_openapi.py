"""OpenAPI documents: what kubectl's explain, validation and feature checks look for in them."""

import gzip
from typing import Any

import pytest

from edgesite.kube import json, openapi, schema
from edgesite.kube.openapi_proto import MESSAGES
from edgesite.kube.protowire import decode
from edgesite.kube.resources import BUILTIN, Resource

SCHEMAS = schema.load()
VERSION = "v1.36.0"
DEPLOYMENT = {"group": "apps", "kind": "Deployment", "version": "v1"}


@pytest.fixture(scope="module")
def v2() -> dict[str, Any]:
    document = json.loads(openapi.v2_json(BUILTIN, SCHEMAS, VERSION))
    assert isinstance(document, dict)
    return document


@pytest.fixture(scope="module")
def apps() -> dict[str, Any]:
    document = json.loads(openapi.v3_group(BUILTIN, SCHEMAS, "apps", "v1", VERSION))
    assert isinstance(document, dict)
    return document


@pytest.fixture(scope="module")
def message() -> dict[str, Any]:
    return decode(MESSAGES["Document"], openapi.v2_protobuf(BUILTIN, SCHEMAS, VERSION))


def refs(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(refs(one) for one in value.values()))
    if isinstance(value, list):
        return set().union(*(refs(one) for one in value))
    return set()


def test_every_reference_leads_somewhere(v2: dict[str, Any], apps: dict[str, Any]) -> None:
    assert refs(v2) <= {f"#/definitions/{name}" for name in v2["definitions"]}
    assert refs(apps) <= {f"#/components/schemas/{name}" for name in apps["components"]["schemas"]}


def test_every_row_has_a_definition_that_names_its_kind(v2: dict[str, Any]) -> None:
    kinds = {
        (one["group"], one["version"], one["kind"])
        for definition in v2["definitions"].values()
        for one in definition.get("x-kubernetes-group-version-kind", ())
    }
    assert {(row.group, row.version, row.kind) for row in BUILTIN} <= kinds


def test_definitions_say_how_lists_merge(v2: dict[str, Any]) -> None:
    field = v2["definitions"]["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"]
    assert field["x-kubernetes-patch-merge-key"] == "name"
    assert field["x-kubernetes-patch-strategy"] == "merge"
    assert field["x-kubernetes-list-type"] == "map"
    assert field["x-kubernetes-list-map-keys"] == ["name"]
    assert field["items"] == {"$ref": "#/definitions/io.k8s.api.core.v1.Container"}
    assert field["description"]
    spec = v2["definitions"]["io.k8s.api.core.v1.PodSpec"]
    assert spec["required"] == ["containers"]


def test_scalars_with_a_name(v2: dict[str, Any], apps: dict[str, Any]) -> None:
    name = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
    assert v2["definitions"][name]["format"] == "int-or-string"
    assert v2["definitions"][name]["type"] == "string"
    assert apps["components"]["schemas"][name]["oneOf"] == [{"type": "integer"}, {"type": "string"}]


def test_patches_tell_their_kind_types_and_parameters(v2: dict[str, Any], apps: dict[str, Any]) -> None:
    path = "/apis/apps/v1/namespaces/{namespace}/deployments/{name}"
    for document in (v2, apps):
        patch = document["paths"][path]["patch"]
        assert patch["x-kubernetes-group-version-kind"] == DEPLOYMENT
        query = {one["name"] for one in patch["parameters"] if one["in"] == "query"}
        assert {"dryRun", "fieldManager", "fieldValidation", "force"} <= query
    assert "application/apply-patch+yaml" in v2["paths"][path]["patch"]["consumes"]
    content = apps["paths"][path]["patch"]["requestBody"]["content"]
    assert "application/strategic-merge-patch+json" in content


def test_collections_and_subresources_have_paths(apps: dict[str, Any]) -> None:
    paths = apps["paths"]
    assert paths["/apis/apps/v1/deployments"]["get"]["x-kubernetes-action"] == "list"
    assert set(paths["/apis/apps/v1/namespaces/{namespace}/deployments"]) == {"get", "post", "delete", "parameters"}
    scale = paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]
    assert scale["get"]["x-kubernetes-group-version-kind"]["kind"] == "Scale"


def test_operations_have_names_of_their_own(v2: dict[str, Any]) -> None:
    names = [
        one["operationId"] for item in v2["paths"].values() for method, one in item.items() if method != "parameters"
    ]
    assert len(names) == len(set(names))
    assert "createCoreV1NamespacedPod" in names
    assert "listAppsV1DeploymentForAllNamespaces" in names


def test_protobuf_says_the_same(message: dict[str, Any], v2: dict[str, Any]) -> None:
    assert message["swagger"] == "2.0"
    assert message["info"] == {"title": "Kubernetes", "version": VERSION}
    definitions = {one["name"]: one["value"] for one in message["definitions"]["additional_properties"]}
    assert list(definitions) == list(v2["definitions"])
    pod = definitions["io.k8s.api.core.v1.Pod"]
    extensions = {one["name"]: json.loads(one["value"]["yaml"]) for one in pod["vendor_extension"]}
    assert extensions["x-kubernetes-group-version-kind"] == [{"group": "", "kind": "Pod", "version": "v1"}]
    fields = {one["name"]: one["value"] for one in pod["properties"]["additional_properties"]}
    assert fields["spec"]["_ref"] == "#/definitions/io.k8s.api.core.v1.PodSpec"
    assert fields["kind"]["type"] == {"value": ["string"]}
    paths = {one["name"]: one["value"] for one in message["paths"]["path"]}
    assert list(paths) == list(v2["paths"])


def test_protobuf_patch_has_the_query_parameters_that_old_kubectl_looks_for(message: dict[str, Any]) -> None:
    paths = {one["name"]: one["value"] for one in message["paths"]["path"]}
    patch = paths["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"]
    names = {
        one["parameter"]["non_body_parameter"]["query_parameter_sub_schema"]["name"]
        for one in patch["parameters"]
        if "non_body_parameter" in one["parameter"]
    }
    assert {"dryRun", "fieldValidation"} <= names


def test_index_names_each_group_version_with_a_hash_that_follows_its_rows() -> None:
    index = json.loads(openapi.v3_index(BUILTIN, SCHEMAS, VERSION))["paths"]
    assert set(index) == {row.base_path[1:] for row in BUILTIN}
    documents = openapi.Documents(BUILTIN, SCHEMAS, VERSION)
    assert index["apis/apps/v1"]["serverRelativeURL"] == (
        f"/openapi/v3/apis/apps/v1?hash={documents.v3_hash('apps', 'v1')}"
    )
    more = (*BUILTIN, Resource("apps", "v1", "Thing", "things"))
    changed = json.loads(openapi.v3_index(more, SCHEMAS, VERSION))["paths"]
    assert [name for name in index if changed[name] != index[name]] == ["apis/apps/v1"]


def test_documents_are_kept_compressed() -> None:
    documents = openapi.Documents(BUILTIN, SCHEMAS, VERSION)
    first = documents.v3_group("apps", "v1")
    assert documents.v3_group("apps", "v1") is first
    assert gzip.decompress(first.gzipped) == openapi.v3_group(BUILTIN, SCHEMAS, "apps", "v1", VERSION)
    assert first.etag != documents.v3_index().etag
    with pytest.raises(LookupError):
        documents.v3_group("apps", "v9")


def test_kind_without_a_schema_is_an_object_of_anything() -> None:
    rows = (Resource("example.com", "v1", "Thing", "things"),)
    document = json.loads(openapi.v3_group(rows, SCHEMAS, "example.com", "v1", VERSION))
    definition = document["components"]["schemas"]["com.example.v1.Thing"]
    kind = {"group": "example.com", "kind": "Thing", "version": "v1"}
    assert definition["x-kubernetes-group-version-kind"] == [kind]
    assert definition["x-kubernetes-preserve-unknown-fields"] is True
    assert set(definition["properties"]) == {"apiVersion", "kind", "metadata"}
    assert refs(document) <= {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    v2 = json.loads(openapi.v2_json(rows, SCHEMAS, VERSION))
    assert v2["definitions"]["com.example.v1.Thing"] == {
        "type": "object",
        "x-kubernetes-group-version-kind": [kind],
        "x-kubernetes-preserve-unknown-fields": True,
    }


def test_custom_kinds_take_no_strategic_merge_patch() -> None:
    rows = (Resource("example.com", "v1", "Thing", "things"),)
    document = json.loads(openapi.v3_group(rows, SCHEMAS, "example.com", "v1", VERSION))
    patch = document["paths"]["/apis/example.com/v1/namespaces/{namespace}/things/{name}"]["patch"]
    assert set(patch["requestBody"]["content"]) == {
        "application/apply-patch+yaml",
        "application/json-patch+json",
        "application/merge-patch+json",
    }
