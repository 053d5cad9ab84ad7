"""Strategic merge patch on real kinds."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.kube.errors import ApiError
from edgesite.kube.patch_strategic import strategic_merge
from edgesite.kube.schema import Schemas, load


@pytest.fixture(scope="module")
def schemas() -> Schemas:
    return load()


def pod(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}


def merge(schemas: Schemas, obj: dict[str, Any], patch: Any, kind: str = "Pod", group: str = "") -> dict[str, Any]:
    before, given_patch = copy.deepcopy(obj), copy.deepcopy(patch)
    result = strategic_merge(schemas, schemas.definition_of(group, "v1", kind), obj, patch)
    assert obj == before
    assert patch == given_patch
    return result


A = {"name": "a", "image": "a:1"}
B = {"name": "b", "image": "b:1"}
C = {"name": "c", "image": "c:1"}


def names(obj: dict[str, Any], field: str = "containers") -> list[str]:
    return [one["name"] for one in obj["spec"][field]]


def test_lists_merge_by_their_key_and_keep_what_the_patch_does_not_name(schemas: Schemas) -> None:
    result = merge(schemas, pod(containers=[A, B]), {"spec": {"containers": [{"name": "b", "image": "b:2"}]}})
    assert {one["name"]: one["image"] for one in result["spec"]["containers"]} == {"a": "a:1", "b": "b:2"}


def test_new_elements_come_after_old_ones(schemas: Schemas) -> None:
    result = merge(schemas, pod(containers=[A, B]), {"spec": {"containers": [C]}})
    assert sorted(names(result)) == ["a", "b", "c"]
    assert result["spec"]["containers"][names(result).index("c")] == C


def test_lists_without_a_merge_strategy_are_replaced(schemas: Schemas) -> None:
    result = merge(
        schemas,
        pod(containers=[{**A, "args": ["1", "2"]}], tolerations=[{"key": "x"}]),
        {"spec": {"containers": [{"name": "a", "args": ["3"]}], "tolerations": [{"key": "y"}]}},
    )
    assert result["spec"]["containers"][0]["args"] == ["3"]
    assert result["spec"]["tolerations"] == [{"key": "y"}]


def test_null_removes_a_member_and_maps_merge(schemas: Schemas) -> None:
    obj = {"metadata": {"labels": {"a": "1", "b": "2"}, "name": "p"}, "spec": {"nodeName": "n"}}
    result = merge(schemas, obj, {"metadata": {"labels": {"a": None, "c": "3"}}, "spec": {"nodeName": None}})
    assert result == {"metadata": {"labels": {"b": "2", "c": "3"}, "name": "p"}, "spec": {}}


def test_an_element_is_deleted_by_directive(schemas: Schemas) -> None:
    result = merge(schemas, pod(containers=[A, B]), {"spec": {"containers": [{"name": "a", "$patch": "delete"}]}})
    assert result["spec"]["containers"] == [B]


def test_deleting_what_is_not_there_is_no_error(schemas: Schemas) -> None:
    patch = {
        "spec": {"containers": [{"name": "x", "$patch": "delete"}], "volumes": [{"name": "v", "$patch": "delete"}]}
    }
    result = merge(schemas, pod(containers=[A]), patch)
    assert result["spec"] == {"containers": [A], "volumes": []}


def test_a_list_is_replaced_by_directive(schemas: Schemas) -> None:
    result = merge(schemas, pod(containers=[A, B]), {"spec": {"containers": [C, {"$patch": "replace"}]}})
    assert result["spec"]["containers"] == [C]


def test_a_map_is_replaced_or_emptied_by_directive(schemas: Schemas) -> None:
    obj = pod(containers=[A], securityContext={"runAsUser": 1, "fsGroup": 2})
    result = merge(schemas, obj, {"spec": {"securityContext": {"$patch": "replace", "runAsUser": 3}}})
    assert result["spec"]["securityContext"] == {"runAsUser": 3}
    result = merge(schemas, obj, {"spec": {"securityContext": {"$patch": "delete"}}})
    assert result["spec"]["securityContext"] == {}


def test_retain_keys_drops_the_other_members_of_a_union(schemas: Schemas) -> None:
    obj = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    assert merge(schemas, obj, patch, "Deployment", "apps")["spec"]["strategy"] == {"type": "Recreate"}


def test_retain_keys_must_name_what_the_patch_sets(schemas: Schemas) -> None:
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}}}
    with pytest.raises(ApiError, match="invalid patch format of retainKeys") as caught:
        merge(schemas, {"spec": {"strategy": {}}}, patch, "Deployment", "apps")
    assert caught.value.code == 400


def test_scalars_merge_as_a_set_and_leave_by_directive(schemas: Schemas) -> None:
    obj = {"metadata": {"finalizers": ["a", "b", "c"]}}
    result = merge(schemas, obj, {"metadata": {"finalizers": ["d", "a"]}})
    assert sorted(result["metadata"]["finalizers"]) == ["a", "b", "c", "d"]
    result = merge(schemas, obj, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["b", "x"]}})
    assert result["metadata"]["finalizers"] == ["a", "c"]
    result = merge(
        schemas,
        obj,
        {
            "metadata": {
                "finalizers": ["d"],
                "$deleteFromPrimitiveList/finalizers": ["b"],
                "$setElementOrder/finalizers": ["d", "a", "c"],
            }
        },
    )
    assert result["metadata"]["finalizers"] == ["d", "a", "c"]


def test_element_order_is_set_and_foreign_elements_keep_their_place(schemas: Schemas) -> None:
    obj = pod(containers=[A, {"name": "sidecar"}, B])
    patch = {"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}, {"name": "c"}], "containers": [C]}}
    result = merge(schemas, obj, patch)
    found = names(result)
    assert [one for one in found if one != "sidecar"] == ["b", "a", "c"]
    assert found.index("sidecar") < found.index("b")


def test_order_alone_reorders(schemas: Schemas) -> None:
    patch = {"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}
    assert names(merge(schemas, pod(containers=[A, B]), patch)) == ["b", "a"]


def test_what_is_absent_takes_the_patch_without_its_directives(schemas: Schemas) -> None:
    patch = {
        "spec": {
            "containers": [A, {"name": "x", "$patch": "delete"}],
            "$setElementOrder/volumes": [{"name": "v"}],
            "volumes": [{"name": "v", "emptyDir": {"medium": None}, "$retainKeys": ["name", "emptyDir"]}],
            "securityContext": {"$patch": "delete"},
        }
    }
    assert merge(schemas, {}, patch) == {"spec": {"containers": [A], "volumes": [{"name": "v", "emptyDir": {}}]}}


def test_kubectl_apply_of_a_changed_deployment(schemas: Schemas) -> None:
    live = {
        "metadata": {"name": "web", "annotations": {"deployment.kubernetes.io/revision": "1"}},
        "spec": {"replicas": 1, "template": {"spec": {"containers": [{**A, "terminationMessagePath": "/dev/x"}]}}},
    }
    patch = {
        "metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}},
        "spec": {
            "replicas": 3,
            "template": {"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "a", "image": "a:2"}]}},
        },
    }  # fmt: skip
    result = merge(schemas, live, patch, "Deployment", "apps")
    assert result["spec"]["replicas"] == 3
    assert result["spec"]["template"]["spec"]["containers"] == [
        {"name": "a", "image": "a:2", "terminationMessagePath": "/dev/x"}
    ]
    assert len(result["metadata"]["annotations"]) == 2


def test_ports_of_a_service_merge_by_port(schemas: Schemas) -> None:
    obj = {"spec": {"ports": [{"port": 80, "name": "http"}, {"port": 443, "name": "https"}]}}
    result = merge(schemas, obj, {"spec": {"ports": [{"port": 443, "nodePort": 30443}]}}, "Service")
    ports = {one["port"]: one for one in result["spec"]["ports"]}
    assert ports == {80: {"port": 80, "name": "http"}, 443: {"port": 443, "name": "https", "nodePort": 30443}}


def test_fields_that_the_schema_does_not_know_merge_as_json(schemas: Schemas) -> None:
    result = merge(schemas, {"spec": {"new": {"a": 1, "l": [1]}}}, {"spec": {"new": {"b": 2, "l": [2]}}})
    assert result["spec"]["new"] == {"a": 1, "b": 2, "l": [2]}


@pytest.mark.parametrize(
    ("patch", "why"),
    [
        ({"spec": {"containers": [{"image": "x"}]}}, r"map: map\[image:x\] does not contain declared merge key: name"),
        ({"spec": {"containers": [{"name": "a", "$patch": "frob"}]}}, "unknown patch type: frob in map"),
        ({"spec": {"containers": [{"$patch": "delete"}]}}, "does not contain declared merge key"),
        ({"spec": {"containers": [{"name": "a", "$patch": "merge"}]}}, "merging lists cannot yet be specified"),
        ({"spec": {"containers": ["a"]}}, "list element types are not identical"),
        ({"spec": {"containers": [["a"]]}}, "lists of lists"),
        ({"spec": {"containers": [{"name": ["x"]}]}}, "must be a scalar"),
        ({"spec": {"$patch": "nope"}}, r"unknown patch type: nope in map: map\[\$patch:nope\]"),
        ({"spec": {"$setElementOrder/containers": "a"}}, "invalid patch format of setElementOrder list"),
        ({"spec": {"$setElementOrder/containers": ["a"]}}, "invalid patch format of setElementOrder list|declared merge key"),
        ({"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "z"}]}}, "The order in patch list"),
        ({"metadata": {"$deleteFromPrimitiveList/finalizers": "a"}}, "invalid patch format of primitive list"),
        ({"spec": {"$deleteFromPrimitiveList/containers": ["a"]}}, "invalid patch format of primitive list"),
        ({"spec": {"$retainKeys": "x"}}, "invalid patch format of retainKeys"),
        ([], "invalid JSON document"),
    ],
)  # fmt: skip
def test_bad_shapes_are_refused(schemas: Schemas, patch: Any, why: str) -> None:
    with pytest.raises(ApiError, match=why) as caught:
        merge(schemas, {"metadata": {"finalizers": ["a"]}, "spec": {"containers": [A, B]}}, patch)
    assert caught.value.code == 400


def test_kinds_without_schema_have_no_strategic_merge(schemas: Schemas) -> None:
    with pytest.raises(ApiError) as caught:
        strategic_merge(schemas, None, {}, {})
    assert caught.value.code == 415
    assert "application/merge-patch+json" in caught.value.message


_scalar = st.sampled_from(["a", "b", 1, True, None])
_name = st.sampled_from(["a", "b", "c"])
_element = st.fixed_dictionaries(
    {}, optional={"name": _name, "image": _scalar, "$patch": st.sampled_from(["delete", "replace", "merge"])}
)
_patch = st.fixed_dictionaries(
    {},
    optional={
        "containers": st.lists(_element | _scalar, max_size=3) | _scalar,
        "$setElementOrder/containers": st.lists(_element, max_size=3),
        "$retainKeys": st.lists(_name, max_size=2),
        "$patch": st.sampled_from(["delete", "replace"]),
        "nodeSelector": st.dictionaries(_name, _scalar),
        "$deleteFromPrimitiveList/containers": st.lists(_scalar, max_size=2),
    },
)


@given(_patch, st.lists(st.fixed_dictionaries({"name": _name}), max_size=3, unique_by=lambda one: one["name"]))
def test_any_patch_merges_or_is_a_400_and_changes_nothing(
    schemas: Schemas, spec: dict[str, Any], containers: list[Any]
) -> None:
    try:
        result = merge(schemas, {"spec": {"containers": containers}}, {"spec": spec})
    except ApiError as refused:
        code = refused.code
    else:
        code = 400
        found = result["spec"].get("containers")
        if isinstance(found, list) and all(isinstance(one, dict) for one in found) and "$patch" not in spec:
            assert len(names(result)) == len(set(names(result)))
    assert code == 400


@given(st.permutations(["a", "b", "c", "d"]), st.sets(st.sampled_from("abcd")))
def test_an_order_is_kept_whatever_else_there_is(schemas: Schemas, live: list[str], order: set[str]) -> None:
    wanted = sorted(order)
    patch = {"spec": {"$setElementOrder/containers": [{"name": one} for one in wanted]}}
    result = names(merge(schemas, pod(containers=[{"name": one} for one in live]), patch))
    assert [one for one in result if one in order] == wanted
    assert [one for one in result if one not in order] == [one for one in live if one not in order]
