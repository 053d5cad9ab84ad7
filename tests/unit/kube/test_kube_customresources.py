"""Custom resources: a CRD becomes rows, schemas, printers; its objects are pruned, defaulted and validated."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.kube import conversion, defaults, discovery, jsonpath, openapi, schema, tables, validation
from edgesite.kube import json as kube_json
from edgesite.kube.apply import Applier
from edgesite.kube.customresources import CustomKind, established, kinds_of
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import BUILTIN, CUSTOM_RESOURCE_DEFINITIONS
from edgesite.kube.schema_decode import decode

Object = dict[str, Any]
SPEC = {
    "type": "object",
    "required": ["size"],
    "properties": {
        "size": {"type": "integer", "minimum": 1, "maximum": 10},
        "mode": {"type": "string", "enum": ["a", "b"], "default": "a"},
        "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5},
        "port": {"x-kubernetes-int-or-string": True},
        "tags": {"type": "object", "additionalProperties": {"type": "string"}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "parts": {
            "type": "array",
            "maxItems": 2,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string"}, "count": {"type": "integer", "default": 1}},
            },
        },
        "since": {"type": "string", "format": "date-time"},
        "maybe": {"type": "string", "nullable": True},
    },
}
STATUS = {"type": "object", "properties": {"replicas": {"type": "integer"}}}


def crd(**version: Any) -> Object:
    raw = {
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing", "shortNames": ["th"], "categories": ["all"]},
            "versions": [
                {"name": "v1alpha1", "served": True, "storage": False, "schema": version.get("schema", whole())},
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": whole(),
                    "subresources": {
                        "status": {},
                        "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.replicas"},
                    },
                    "selectableFields": [{"jsonPath": ".spec.mode"}],
                    "additionalPrinterColumns": [
                        {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
                        {"name": "Since", "type": "date", "jsonPath": ".spec.since", "priority": 1},
                    ],
                    **version,
                },
            ],
        },
    }
    row = CUSTOM_RESOURCE_DEFINITIONS
    result = decode(schema.load(), row.group, row.version, row.kind, raw).object
    defaults.apply(row.group, row.version, row.kind, result)
    return result


def whole() -> Object:
    return {"openAPIV3Schema": {"type": "object", "properties": {"spec": copy.deepcopy(SPEC), "status": STATUS}}}


@pytest.fixture
def schemas() -> schema.Schemas:
    return schema.load()


@pytest.fixture
def thing(schemas: schema.Schemas) -> CustomKind:
    return kinds_of(crd(), schemas)[0]


def test_a_good_definition_passes() -> None:
    assert validation.validate(CUSTOM_RESOURCE_DEFINITIONS, crd()) == []


def test_rows_follow_from_names_and_versions(schemas: schema.Schemas) -> None:
    stored, other = kinds_of(crd(), schemas)
    assert (stored.row.version, stored.row.stored_as) == ("v1", None)
    assert stored.row.subresources == ("scale", "status")
    assert stored.row.short_names == ("th",)
    assert stored.row.list_name == "ThingList"
    assert "spec.mode" in stored.row.field_paths
    assert stored.scale == (".spec.size", ".status.replicas", "")
    assert (other.row.version, other.row.stored_as) == ("v1alpha1", ("example.com", "v1", "things"))
    obj = {"apiVersion": "example.com/v1alpha1", "kind": "Thing", "spec": {"size": 1}}
    there = conversion.to_storage(other.row, obj)
    assert there["apiVersion"] == "example.com/v1"
    assert conversion.from_storage(other.row, there) == obj
    group = discovery.group([*BUILTIN, stored.row, other.row], "example.com")
    assert [one["version"] for one in group["versions"]] == ["v1", "v1alpha1"]


def test_unknown_fields_are_pruned_and_named(thing: CustomKind) -> None:
    obj = {
        "apiVersion": "example.com/v1",
        "kind": "Thing",
        "metadata": {"name": "a", "foo": 1},
        "spec": {"size": 1, "bar": 2, "free": {"x": {"y": 1}}, "parts": [{"name": "a", "z": 1}], "tags": {"k": "v"}},
        "extra": 1,
    }
    decoded, problems = thing.decode(obj)
    assert decoded["spec"] == {"size": 1, "free": {"x": {"y": 1}}, "parts": [{"name": "a"}], "tags": {"k": "v"}}
    assert decoded["metadata"] == {"name": "a"}
    assert sorted(problems) == [
        'unknown field "extra"',
        'unknown field "metadata.foo"',
        'unknown field "spec.bar"',
        'unknown field "spec.parts[0].z"',
    ]


def test_metadata_is_typed(thing: CustomKind) -> None:
    with pytest.raises(ApiError) as caught:
        thing.decode({"metadata": {"labels": {"a": 1}}})
    assert caught.value.message == (
        'Thing in version "v1" cannot be handled as a Thing: json: cannot unmarshal number into '
        "Go struct field ObjectMeta.metadata.labels of type string"
    )


def test_defaults_are_filled_in(thing: CustomKind) -> None:
    obj: Object = {"spec": {"size": 1, "parts": [{"name": "a"}], "mode": None}}
    thing.default(obj)
    assert obj["spec"] == {"size": 1, "parts": [{"name": "a", "count": 1}], "mode": "a"}
    bare: Object = {}
    thing.default(bare)
    assert bare == {}


def test_nulls_vanish_where_there_may_be_none(thing: CustomKind) -> None:
    spec = {"size": 1, "free": None, "port": None, "maybe": None, "tags": {"a": None, "b": "c"}, "parts": [None]}
    obj: Object = {"spec": spec, "status": {"replicas": None}}
    thing.default(obj)
    assert obj == {
        "spec": {"size": 1, "maybe": None, "tags": {"b": "c"}, "mode": "a", "parts": [None]},
        "status": {},
    }


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"size": 1}, []),
        ({"size": 1, "maybe": None, "port": "http"}, []),
        ({}, ["spec.size: Required value"]),
        ({"size": "x"}, ['spec.size: Invalid value: "string": spec.size in body must be of type integer: "string"']),
        ({"size": 11}, ["spec.size: Invalid value: 11: spec.size in body should be less than or equal to 10"]),
        ({"size": 0}, ["spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1"]),
        ({"size": 1, "mode": "c"}, ['spec.mode: Unsupported value: "c": supported values: "a", "b"']),
        ({"size": 1, "name": "A"}, ["spec.name: Invalid value: \"A\": spec.name in body should match '^[a-z]+$'"]),
        ({"size": 1, "name": "abcdef"}, ["spec.name: Too long: may not be more than 5 bytes"]),
        (
            {"size": 1, "name": None},
            ['spec.name: Invalid value: "null": spec.name in body must be of type string: "null"'],
        ),
        (
            {"size": 1, "port": True},
            ['spec.port: Invalid value: "boolean": spec.port in body must be of type integer,string: "boolean"'],
        ),
        ({"size": 1, "parts": [{}]}, ["spec.parts[0].name: Required value"]),
        (
            {"size": 1, "parts": [{"name": "a"}, {"name": "a"}]},
            ['spec.parts[1]: Duplicate value: {"name":"a"}'],
        ),
        (
            {"size": 1, "parts": [{"name": str(i)} for i in range(3)]},
            ["spec.parts: Too many: 3: must have at most 2 items"],
        ),
        (
            {"size": 1, "since": "soon"},
            ['spec.since: Invalid value: "soon": spec.since in body must be of type date-time: "soon"'],
        ),
        (
            {"size": 1, "tags": {"a": 1}},
            ['spec.tags.a: Invalid value: "integer": spec.tags.a in body must be of type string: "integer"'],
        ),
    ],
    ids=str,
)
def test_rules_of_the_schema(thing: CustomKind, spec: Object, expected: list[str]) -> None:
    found = thing.validate({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {}, "spec": spec})
    assert [f"{one['field']}: {one['message']}" for one in found] == expected


@pytest.mark.parametrize(
    ("rule", "value", "text"),
    [
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, 1.5, "must validate at least one schema (anyOf)"),
        ({"oneOf": [{"minimum": 1}, {"minimum": 2}]}, 3, "one and only one schema (oneOf). Found 2 valid alternatives"),
        ({"oneOf": [{"minimum": 5}, {"minimum": 6}]}, 3, "one and only one schema (oneOf). Found none valid"),
        ({"not": {"type": "integer"}}, 3, "must not validate the schema (not)"),
        ({"allOf": [{"maximum": 2}]}, 3, "should be less than or equal to 2"),
        ({"multipleOf": 2}, 3, "should be a multiple of 2"),
    ],
)
def test_combined_rules(schemas: schema.Schemas, rule: Object, value: Any, text: str) -> None:
    body = {
        "openAPIV3Schema": {
            "type": "object",
            "properties": {"spec": {"x-kubernetes-preserve-unknown-fields": True, **rule}},
        }
    }
    kind = kinds_of(crd(schema=body), schemas)[0]
    found = kind.validate({"spec": value})
    assert len(found) == 1
    assert text in found[0]["message"]


def test_bad_definitions_are_refused() -> None:
    def causes(definition: Object) -> list[str]:
        found = validation.validate(CUSTOM_RESOURCE_DEFINITIONS, definition)
        return [f"{one['field']}: {one['message']}" for one in found]

    bad = crd()
    bad["metadata"]["name"] = "other.example.com"
    assert causes(bad) == [
        'metadata.name: Invalid value: "other.example.com": must be spec.names.plural+"."+spec.group'
    ]
    bad = crd()
    del bad["spec"]["versions"][1]["schema"]["openAPIV3Schema"]["properties"]["spec"]["type"]
    assert causes(bad) == [
        "spec.versions[1].schema.openAPIV3Schema.properties[spec].type: Required value: "
        "must not be empty for specified object fields"
    ]
    bad = crd()
    bad["spec"]["versions"][1]["storage"] = False
    assert causes(bad)[0].endswith("must have exactly one version marked as storage version")
    bad = crd()
    bad["spec"]["versions"][1]["schema"] = {}
    assert causes(bad) == ["spec.versions[1].schema.openAPIV3Schema: Required value: schemas are required"]


def test_group_and_names_may_not_change() -> None:
    old, new = crd(), crd()
    new["spec"]["scope"] = "Cluster"
    found = validation.validate_update(CUSTOM_RESOURCE_DEFINITIONS, new, old)
    assert [one["field"] for one in found] == ["spec.scope"]


def test_status_says_that_it_is_established_and_keeps_old_versions() -> None:
    definition = crd()
    definition["status"] = {"storedVersions": ["v1alpha1"]}
    status = established(definition, 0)
    assert [(one["type"], one["status"]) for one in status["conditions"]] == [
        ("NamesAccepted", "True"),
        ("Established", "True"),
    ]
    assert status["storedVersions"] == ["v1alpha1", "v1"]
    definition["status"] = status
    assert established(definition, 1000) == status
    refused = established(crd(), 0, '"things" is already in use')
    assert [one["status"] for one in refused["conditions"]] == ["False", "False"]


def test_columns_of_its_own(thing: CustomKind) -> None:
    obj = {"metadata": {"name": "a"}, "spec": {"size": 3, "since": "1970-01-01T00:00:00Z"}}
    table = tables.table(thing.row, [obj, {"metadata": {"name": "b"}}], 60, printer=thing.printer)
    assert [(one["name"], one["type"], one["priority"]) for one in table["columnDefinitions"]] == [
        ("Name", "string", 0),
        ("Size", "integer", 0),
        ("Since", "date", 1),
    ]
    assert [row["cells"] for row in table["rows"]] == [["a", 3, "60s"], ["b", None, None]]


def test_without_columns_name_and_age_are_shown(schemas: schema.Schemas) -> None:
    kind = kinds_of(crd(additionalPrinterColumns=[]), schemas)[0]
    table = tables.table(kind.row, [{"metadata": {"name": "a"}}], 60, printer=kind.printer)
    assert table["rows"][0]["cells"] == ["a", "<unknown>"]


def test_definitions_tell_how_objects_merge(thing: CustomKind, schemas: schema.Schemas) -> None:
    assert schemas.definition_of("example.com", "v1", "Thing") == thing.definition
    spec = schemas.merge_info(thing.definition, "spec")
    assert spec is not None
    parts = schemas.merge_info(spec.definition, "parts")
    assert parts is not None
    assert (parts.list_type, parts.list_map_keys, parts.is_atomic) == ("map", ("name",), False)
    thing.schema.unregister()
    assert schemas.definition_of("example.com", "v1", "Thing") is None
    assert not schemas.has(thing.definition)


def test_what_no_schema_tells_of_is_applied_where_unknown_fields_are_kept(schemas: schema.Schemas) -> None:
    keeps = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    known = {**keeps, "properties": {"parts": SPEC["properties"]["parts"]}}
    config = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a", "namespace": "d"}}
    config["spec"] = {"free": {"a": 1}, "parts": [{"name": "p", "count": 1}]}
    for whole_schema in (keeps, {"type": "object", "properties": {"spec": known}}):
        kind = kinds_of(crd(schema={"openAPIV3Schema": whole_schema}), schemas)[0]
        made = Applier(schemas, kind.definition).apply(None, config, manager="m", now="2026-01-01T00:00:00Z")
        assert made["spec"] == config["spec"]
    bounded = {**keeps, "properties": {"spec": {"type": "object", "properties": known["properties"]}}}
    kind = kinds_of(crd(schema={"openAPIV3Schema": bounded}), schemas)[0]
    with pytest.raises(ApiError, match="free: field not declared in schema"):
        Applier(schemas, kind.definition).apply(None, config, manager="m", now="2026-01-01T00:00:00Z")


def test_openapi_documents_hold_its_schema(schemas: schema.Schemas) -> None:
    kinds = kinds_of(crd(), schemas)
    rows = [*BUILTIN, *(kind.row for kind in kinds)]
    v3 = kube_json.loads(openapi.v3_group(rows, schemas, "example.com", "v1", "v1"))
    definition = v3["components"]["schemas"]["com.example.v1.Thing"]
    assert definition["properties"]["spec"]["required"] == ["size"]
    assert set(definition["properties"]) == {"apiVersion", "kind", "metadata", "spec", "status"}
    assert "com.example.v1.ThingList" in v3["components"]["schemas"]
    v2 = kube_json.loads(openapi.v2_json(rows, schemas, "v1"))
    spec = v2["definitions"]["com.example.v1.Thing"]["properties"]["spec"]["properties"]
    assert "default" not in spec["mode"]
    assert spec["free"] == {"x-kubernetes-preserve-unknown-fields": True}
    assert openapi.v2_protobuf(rows, schemas, "v1")
    before = openapi.Documents(rows, schemas, "v1").v3_hash("example.com", "v1")
    kinds[0].schema.unregister()
    assert openapi.Documents(rows, schemas, "v1").v3_hash("example.com", "v1") != before


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (".metadata.name", "a"),
        ("{.metadata.name}", "a"),
        ("$.metadata.name", "a"),
        (".metadata.labels['a.b']", "c"),
        (r".metadata.labels.a\.b", "c"),
        (".list[0].n", 1),
        (".list[-1].n", 2),
        (".list[*].n", 1),
        (".list[?(@.t=='y')].n", 2),
        ('.list[?(@.t!="x")].n', 2),
        (".nothing.here", None),
        (".list[9]", None),
    ],
)
def test_json_paths(path: str, value: Any) -> None:
    obj = {"metadata": {"name": "a", "labels": {"a.b": "c"}}, "list": [{"n": 1, "t": "x"}, {"n": 2, "t": "y"}]}
    assert jsonpath.parse(path).first(obj) == value


@given(st.text(alphabet=".[]'@?()=*ab0\\", max_size=12))
def test_any_text_is_a_path_or_refused(text: str) -> None:
    try:
        path = jsonpath.parse(text)
    except jsonpath.InvalidPath:
        return
    path.all({"a": [{"b": 0}], "b": {"a": "x"}})


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["spec", "size", "parts", "name", "free", "tags", "x"]), inner, max_size=4)
    ),
    max_leaves=15,
)


@given(st.dictionaries(st.sampled_from(["spec", "status", "x"]), values))
def test_any_object_is_judged_without_a_crash(obj: Object) -> None:
    kind = kinds_of(crd(), schema.load())[0]
    decoded, _ = kind.decode(obj)
    kind.default(decoded)
    once = kube_json.dumps(decoded)
    kind.validate(decoded)
    kind.default(decoded)
    assert kube_json.dumps(decoded) == once
    assert kind.decode(decoded)[1] == []
