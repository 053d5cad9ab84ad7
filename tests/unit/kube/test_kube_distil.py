"""The build step that distils definitions, on a small set of them."""

from typing import Any

import pytest

from edgesite.kube import distil
from edgesite.kube.schema import Blobs, Field, Schemas

META = "io.k8s.apimachinery.pkg.apis.meta.v1"
SOURCE: dict[str, Any] = {
    "io.k8s.api.core.v1.Thing": {
        "description": "A thing.",
        "properties": {
            "apiVersion": {"type": ["string", "null"], "enum": ["v1"]},
            "count": {"type": ["integer", "null"], "format": "int32"},
            "data": {"type": ["string", "null"], "format": "byte"},
            "labels": {
                "additionalProperties": {"type": ["string", "null"]},
                "description": "Labels.",
                "type": ["object", "null"],
                "x-kubernetes-map-type": "atomic",
            },
            "made": {"$ref": f"#/$defs/{META}.Time"},
            "parts": {
                "items": {"$ref": "#/$defs/io.k8s.api.core.v1.Part"},
                "type": ["array", "null"],
                "x-kubernetes-list-map-keys": ["name"],
                "x-kubernetes-list-type": "map",
                "x-kubernetes-patch-merge-key": "name",
                "x-kubernetes-patch-strategy": "merge,retainKeys",
            },
            "raw": {"$ref": "#/$defs/io.k8s.apimachinery.pkg.runtime.RawExtension"},
            "reference": {"$ref": "#/$defs/io.k8s.api.core.v1.Part"},
        },
        "required": ["count"],
        "type": ["object", "null"],
        "x-kubernetes-group-version-kind": [
            {"group": "", "kind": "Thing", "version": "v1"},
            {"group": "", "kind": "Thing", "version": "v1beta1"},
        ],
    },
    "io.k8s.api.core.v1.Part": {
        "properties": {"name": {"type": "string"}},
        "type": "object",
        "x-kubernetes-map-type": "atomic",
    },
    "io.k8s.api.core.v1alpha1.Thing": {"type": "object"},
    f"{META}.Time": {"format": "date-time", "type": ["string", "null"]},
    "io.k8s.apimachinery.pkg.runtime.RawExtension": {"type": ["object", "null"]},
}


@pytest.fixture
def schemas() -> Schemas:
    return Schemas(Blobs(distil.distil(SOURCE)[0]))


def test_alpha_and_beta_are_left_out(schemas: Schemas) -> None:
    assert "io.k8s.api.core.v1alpha1.Thing" not in list(schemas)
    assert schemas.definition("io.k8s.api.core.v1.Thing").kinds == (("", "v1", "Thing"),)
    assert schemas.definition_of("", "v1", "Thing") == "io.k8s.api.core.v1.Thing"


def test_fields_keep_what_decoding_and_merging_need(schemas: Schemas) -> None:
    fields = schemas.definition("io.k8s.api.core.v1.Thing").fields
    part = "io.k8s.api.core.v1.Part"
    assert fields["count"] == Field("integer", format="int32")
    assert fields["data"] == Field("bytes", format="byte")
    assert fields["labels"] == Field("map", items=Field("string"), map_type="atomic")
    assert fields["made"] == Field("time", f"{META}.Time")
    assert fields["raw"] == Field("object", "io.k8s.apimachinery.pkg.runtime.RawExtension")
    assert fields["reference"] == Field("struct", part, map_type="atomic")
    assert fields["parts"] == Field(
        "array",
        items=Field("struct", part, map_type="atomic"),
        list_type="map",
        list_map_keys=("name",),
        patch_strategies=("merge", "retainKeys"),
        merge_key="name",
    )
    assert schemas.zeros("io.k8s.api.core.v1.Thing") == {"count": 0}


def test_descriptions_stand_in_a_file_of_their_own() -> None:
    structure, descriptions = (Blobs(packed) for packed in distil.distil(SOURCE))
    assert list(structure) == list(descriptions)
    assert bytes(descriptions["io.k8s.api.core.v1.Thing"]) == b'["A thing.",{"labels":"Labels."}]'
    assert b"Labels." not in bytes(structure["io.k8s.api.core.v1.Thing"])


def test_the_same_source_gives_the_same_bytes() -> None:
    assert distil.distil(SOURCE) == distil.distil(dict(reversed(SOURCE.items())))


def test_missing_data_files_are_told_with_the_remedy() -> None:
    with pytest.raises(LookupError, match=r"python -m edgesite\.kube\.distil"):
        Blobs.of("nothing.bin")
