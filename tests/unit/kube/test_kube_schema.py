"""The distilled schema: look-up of definitions and what merges read from it."""

import pytest

from edgesite.kube import schema
from edgesite.kube.resources import BUILTIN, Resource

POD_SPEC = "io.k8s.api.core.v1.PodSpec"


@pytest.fixture(scope="module")
def schemas() -> schema.Schemas:
    return schema.load()


@pytest.mark.parametrize(
    "row", [row for row in BUILTIN if not row.group.endswith(".kubeedge.io")], ids=lambda row: row.group_resource
)
def test_every_kubernetes_kind_has_a_definition(schemas: schema.Schemas, row: Resource) -> None:
    name = schemas.definition_of(row.group, row.version, row.kind)
    assert name is not None
    assert "metadata" in schemas.definition(name).fields


def test_all_definitions_that_fields_lead_to_exist(schemas: schema.Schemas) -> None:
    for name in schemas:
        for field in schemas.definition(name).fields.values():
            while field.items is not None:
                field = field.items
            if field.definition:
                assert schemas.definition(field.definition).type == field.type


def test_unknown_kind_has_no_definition(schemas: schema.Schemas) -> None:
    assert schemas.definition_of("example.com", "v1", "Pod") is None
    assert schemas.definition_of("", "v1beta1", "Pod") is None


def test_containers_merge_by_name(schemas: schema.Schemas) -> None:
    field = schemas.merge_info(POD_SPEC, "containers")
    assert field is not None
    assert field.items is not None
    assert field.items.definition == "io.k8s.api.core.v1.Container"
    assert (field.patch_strategies, field.merge_key) == (("merge",), "name")
    assert (field.list_type, field.list_map_keys, field.is_atomic) == ("map", ("name",), False)


def test_volumes_retain_keys(schemas: schema.Schemas) -> None:
    field = schemas.merge_info(POD_SPEC, "volumes")
    assert field is not None
    assert field.patch_strategies == ("merge", "retainKeys")


def test_ports_take_their_protocol_as_tcp_where_it_is_left_out(schemas: schema.Schemas) -> None:
    field = schemas.merge_info("io.k8s.api.core.v1.Container", "ports")
    assert field is not None
    assert field.list_map_keys == ("containerPort", "protocol")
    assert field.key_defaults == {"protocol": "TCP"}


def test_untyped_lists_selectors_and_scalars_are_atomic(schemas: schema.Schemas) -> None:
    for definition, name in (
        (POD_SPEC, "tolerations"),
        (POD_SPEC, "nodeSelector"),
        ("io.k8s.api.apps.v1.DeploymentSpec", "selector"),
        (POD_SPEC, "hostNetwork"),
    ):
        field = schemas.merge_info(definition, name)
        assert field is not None
        assert field.is_atomic, name


def test_labels_and_structs_are_granular(schemas: schema.Schemas) -> None:
    for definition, name in (
        ("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "labels"),
        ("io.k8s.api.apps.v1.Deployment", "spec"),
        ("io.k8s.api.core.v1.PersistentVolumeSpec", "claimRef"),
    ):
        field = schemas.merge_info(definition, name)
        assert field is not None
        assert not field.is_atomic, name


def test_unknown_field_has_no_merge_info(schemas: schema.Schemas) -> None:
    assert schemas.merge_info(POD_SPEC, "containerz") is None
