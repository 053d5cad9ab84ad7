"""Server-side apply: merging, ownership, conflicts, removal."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.kube.apply import LAST_APPLIED, Applier
from edgesite.kube.apply_sets import difference, paths, subtract, union
from edgesite.kube.errors import ApiError
from edgesite.kube.managedfields import UNOWNED, Tracker, read_entries
from edgesite.kube.schema import Schemas, load

NOW = "2026-01-01T00:00:00Z"
LATER = "2026-01-02T00:00:00Z"


@pytest.fixture(scope="module")
def schemas() -> Schemas:
    return load()


@pytest.fixture(scope="module")
def deployments(schemas: Schemas) -> Applier:
    return Applier(schemas, schemas.definition_of("apps", "v1", "Deployment"))


@pytest.fixture(scope="module")
def tracker(schemas: Schemas) -> Tracker:
    return Tracker(schemas, schemas.definition_of("apps", "v1", "Deployment"))


def deployment(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "d"}, "spec": spec}


def containers(*given: dict[str, Any]) -> dict[str, Any]:
    return {"template": {"spec": {"containers": list(given)}}}


def apply(applier: Applier, live: dict[str, Any] | None, config: dict[str, Any], **how: Any) -> dict[str, Any]:
    before = copy.deepcopy((live, config))
    result = applier.apply(live, config, **({"manager": "a", "now": NOW} | how))
    assert (live, config) == before, "what is given is not changed"
    return result


def update(tracker: Tracker, live: dict[str, Any] | None, new: dict[str, Any], manager: str) -> dict[str, Any]:
    fields = tracker.updated(live, new, manager=manager, api_version="apps/v1", now=LATER)
    return {**new, "metadata": {**new["metadata"], "managedFields": fields}}


def owned(obj: dict[str, Any], manager: str) -> set[str]:
    return {path for one in read_entries(obj) if one.manager == manager for path in paths(one.fields)}


def test_the_first_apply_creates_and_owns_what_it_names(deployments: Applier) -> None:
    config = deployment(replicas=1, **containers({"name": "c", "image": "i"}))
    created = apply(deployments, None, config)
    assert created["spec"] == config["spec"]
    (entry,) = created["metadata"]["managedFields"]
    assert (entry["operation"], entry["apiVersion"], entry["time"]) == ("Apply", "apps/v1", NOW)
    assert entry["fieldsV1"] == {
        "f:spec": {
            "f:replicas": {},
            "f:template": {
                "f:spec": {"f:containers": {'k:{"name":"c"}': {".": {}, "f:name": {}, "f:image": {}}}},
            },
        }
    }


def test_applying_the_same_again_changes_nothing_at_all(deployments: Applier) -> None:
    config = deployment(replicas=1)
    live = apply(deployments, None, config)
    assert apply(deployments, live, config, now=LATER) is live


def test_a_field_no_longer_applied_is_removed(deployments: Applier) -> None:
    live = apply(deployments, None, deployment(replicas=1, paused=True))
    result = apply(deployments, live, deployment(replicas=1))
    assert result["spec"] == {"replicas": 1}
    assert owned(result, "a") == {".spec.replicas"}


def test_what_nobody_applied_stays(deployments: Applier) -> None:
    live = apply(deployments, None, deployment(replicas=1))
    live["spec"]["revisionHistoryLimit"] = 10
    live["status"] = {"replicas": 1}
    result = apply(deployments, live, deployment())
    assert result["spec"] == {"revisionHistoryLimit": 10}
    assert result["status"] == {"replicas": 1}


def test_an_element_no_longer_applied_is_removed_with_all_below(deployments: Applier) -> None:
    two = deployment(
        **containers({"name": "c", "image": "i"}, {"name": "d", "image": "j", "ports": [{"containerPort": 1}]})
    )
    live = apply(deployments, None, two)
    result = apply(deployments, live, deployment(**containers({"name": "c", "image": "i"})))
    assert result["spec"] == containers({"name": "c", "image": "i"})


def test_a_map_that_is_emptied_goes(deployments: Applier) -> None:
    config = deployment(replicas=1)
    config["metadata"]["labels"] = {"a": "1"}
    live = apply(deployments, None, config)
    result = apply(deployments, live, deployment(replicas=1))
    assert "labels" not in result["metadata"]


def test_an_empty_map_that_is_applied_stays(deployments: Applier) -> None:
    def with_volume(source: dict[str, Any]) -> dict[str, Any]:
        return deployment(template={"spec": {"volumes": [{"name": "v", "emptyDir": source}]}})

    live = apply(deployments, None, with_volume({"medium": "Memory"}))
    result = apply(deployments, live, with_volume({}))
    assert result["spec"]["template"]["spec"]["volumes"] == [{"name": "v", "emptyDir": {}}]


def test_a_shared_field_stays_while_one_of_its_owners_applies_it(deployments: Applier) -> None:
    live = apply(deployments, None, deployment(replicas=2))
    live = apply(deployments, live, deployment(replicas=2), manager="b")
    assert owned(live, "a") == owned(live, "b") == {".spec.replicas"}
    result = apply(deployments, live, deployment(), manager="a")
    assert result["spec"] == {"replicas": 2}
    assert owned(result, "a") == {".spec"}
    assert apply(deployments, result, deployment(), manager="b")["spec"] == {}


def test_changing_what_another_owns_is_a_conflict(deployments: Applier, tracker: Tracker) -> None:
    live = update(tracker, None, deployment(replicas=1), "kubectl-edit")
    with pytest.raises(ApiError) as caught:
        apply(deployments, live, deployment(replicas=2))
    assert (caught.value.code, caught.value.reason) == (409, "Conflict")
    assert (
        caught.value.message
        == 'Apply failed with 1 conflict: conflict with "kubectl-edit" using apps/v1: .spec.replicas'
    )
    assert caught.value.details["causes"] == [
        {
            "reason": "FieldManagerConflict",
            "message": 'conflict with "kubectl-edit" using apps/v1',
            "field": ".spec.replicas",
        }
    ]


def test_several_conflicts_are_told_by_owner(deployments: Applier) -> None:
    live = apply(deployments, None, deployment(replicas=1, paused=True), manager="x")
    live = apply(deployments, live, deployment(**containers({"name": "c", "image": "i"})), manager="y")
    with pytest.raises(ApiError) as caught:
        apply(
            deployments,
            live,
            deployment(replicas=2, paused=False, **containers({"name": "c", "image": "j"})),
            manager="z",
        )
    assert caught.value.message == (
        'Apply failed with 3 conflicts: conflicts with "x":\n- .spec.paused\n- .spec.replicas\nconflicts with "y":\n'
        '- .spec.template.spec.containers[name="c"].image'
    )


def test_force_takes_the_field(deployments: Applier) -> None:
    live = apply(deployments, None, deployment(replicas=1, paused=True), manager="x")
    result = apply(deployments, live, deployment(replicas=2), manager="y", force=True)
    assert result["spec"] == {"replicas": 2, "paused": True}
    assert owned(result, "x") == {".spec.paused"}
    assert owned(result, "y") == {".spec.replicas"}


def test_an_ordinary_update_takes_an_applied_field_so_that_the_next_apply_conflicts(
    deployments: Applier, tracker: Tracker
) -> None:
    live = apply(deployments, None, deployment(replicas=1))
    scaled = copy.deepcopy(live)
    scaled["spec"]["replicas"] = 5
    scaled = update(tracker, live, scaled, "hpa")
    assert owned(scaled, "hpa") == {".spec.replicas"}
    with pytest.raises(ApiError, match=r'conflict with "hpa" using apps/v1: \.spec\.replicas'):
        apply(deployments, scaled, deployment(replicas=1))
    handed_over = apply(deployments, scaled, deployment())
    assert handed_over["spec"] == {"replicas": 5}


def test_two_appliers_share_a_list_by_its_keys(deployments: Applier) -> None:
    live = apply(deployments, None, deployment(**containers({"name": "app", "image": "i"})), manager="x")
    live = apply(deployments, live, deployment(**containers({"name": "mesh", "image": "m"})), manager="y")
    names = [one["name"] for one in live["spec"]["template"]["spec"]["containers"]]
    assert sorted(names) == ["app", "mesh"]
    live = apply(deployments, live, deployment(**containers({"name": "app", "image": "i2"})), manager="x")
    assert {one["name"]: one["image"] for one in live["spec"]["template"]["spec"]["containers"]} == {
        "app": "i2",
        "mesh": "m",
    }


def test_atomic_lists_are_owned_as_a_whole(deployments: Applier) -> None:
    live = apply(deployments, None, deployment(**containers({"name": "c", "args": ["1"]})), manager="x")
    with pytest.raises(ApiError, match=r'containers\[name="c"\]\.args'):
        apply(deployments, live, deployment(**containers({"name": "c", "args": ["1", "2"]})), manager="y")


@pytest.mark.parametrize(
    ("live", "config", "expected"),
    [
        ("abc", "abc", "abc"),
        ("abc", "cb", "acb"),
        ("abc", "d", "abcd"),
        ("abc", "dc", "abdc"),
        ("ab", "ba", "ba"),
        ("axb", "ba", "xba"),
        ("", "ab", "ab"),
        ("ab", "", "ab"),
        ("xay", "ba", "xbay"),
    ],
)
def test_the_configurations_order_rules_and_others_keep_their_place(
    deployments: Applier, live: str, config: str, expected: str
) -> None:
    def of(names: str) -> dict[str, Any]:
        return deployment(**containers(*({"name": one} for one in names)))

    result = apply(deployments, of(live), of(config), force=True)
    assert "".join(one["name"] for one in result["spec"]["template"]["spec"]["containers"]) == expected


def test_objects_without_managed_fields_belong_to_before_first_apply(deployments: Applier) -> None:
    live = deployment(replicas=1)
    with pytest.raises(ApiError, match='conflict with "before-first-apply" using apps/v1'):
        apply(deployments, live, deployment(replicas=2))
    same = apply(deployments, live, deployment(replicas=1))
    assert owned(same, "a") == owned(same, "before-first-apply") == {".spec.replicas"}


def test_kubectl_may_change_what_it_applied_on_its_own_side(deployments: Applier, tracker: Tracker) -> None:
    live = deployment(replicas=1, paused=True)
    live["metadata"]["annotations"] = {LAST_APPLIED: json.dumps(deployment(replicas=1, paused=False))}
    live = update(tracker, None, live, "kubectl-client-side-apply")
    result = apply(deployments, live, deployment(replicas=2), manager="kubectl")
    assert result["spec"]["replicas"] == 2
    assert json.loads(result["metadata"]["annotations"][LAST_APPLIED])["spec"] == {"replicas": 2}
    with pytest.raises(ApiError, match=r"\.spec\.paused"):
        apply(deployments, live, deployment(replicas=2, paused=False), manager="kubectl")
    with pytest.raises(ApiError, match=r"\.spec\.replicas"):
        apply(deployments, live, deployment(replicas=2), manager="flux")


def test_reset_fields_are_neither_merged_nor_owned(deployments: Applier) -> None:
    config = {**deployment(replicas=1), "status": {"replicas": 7}}
    created = apply(deployments, None, config, reset={"f:status": {}})
    assert "status" not in created
    assert owned(created, "a") == {".spec.replicas"}


def test_status_is_applied_as_its_own_entry(deployments: Applier) -> None:
    live = apply(deployments, None, deployment(replicas=1))
    config = {**deployment(), "status": {"replicas": 1}}
    result = apply(deployments, live, config, subresource="status", reset={"f:spec": {}})
    assert result["spec"] == {"replicas": 1}
    assert [one.get("subresource") for one in result["metadata"]["managedFields"]] == [None, "status"]


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (deployment(nope=1), r"failed to create typed patch object \(d/web; apps/v1, Kind=Deployment\): .spec.nope: field not declared in schema"),
        (deployment(replicas="x"), r'\.spec\.replicas: expected numeric \(int or float\), got "x"'),
        (deployment(template=[]), r"\.spec\.template: expected map, got \[\]"),
        (deployment(**containers({"image": "i"})), 'associative list with keys has an element that omits key field "name"'),
        (deployment(**containers({"name": "c"}, {"name": "c"})), r'\.spec\.template\.spec\.containers: duplicate entries for key \[name="c"\]'),
        ({**deployment(), "metadata": {"name": "web", "managedFields": []}}, "metadata.managedFields must be nil"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_schema_is_a_400(deployments: Applier, config: dict[str, Any], why: str) -> None:
    with pytest.raises(ApiError, match=why) as caught:
        apply(deployments, None, config)
    assert caught.value.code == 400


def test_ports_are_told_apart_with_their_default_protocol(deployments: Applier) -> None:
    def with_ports(*ports: dict[str, Any]) -> dict[str, Any]:
        return deployment(**containers({"name": "c", "ports": list(ports)}))

    live = apply(deployments, None, with_ports({"containerPort": 53}, {"containerPort": 53, "protocol": "UDP"}))
    result = apply(deployments, live, with_ports({"containerPort": 53, "protocol": "UDP"}))
    assert result["spec"]["template"]["spec"]["containers"][0]["ports"] == [{"containerPort": 53, "protocol": "UDP"}]


def test_kinds_without_a_schema(schemas: Schemas) -> None:
    applier = Applier(schemas, None)
    config = {"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "x"}, "spec": {"a": {"b": 1}, "l": [1, 2]}}
    live = apply(applier, None, config)
    result = apply(applier, live, {**config, "spec": {"l": [3]}})
    assert result["spec"] == {"l": [3]}


_name = st.sampled_from("abc")
_config = st.fixed_dictionaries(
    {},
    optional={
        "replicas": st.integers(0, 3),
        "paused": st.booleans(),
        "template": st.fixed_dictionaries(
            {},
            optional={
                "metadata": st.fixed_dictionaries(
                    {"labels": st.dictionaries(_name, st.sampled_from("xy"), max_size=2)}
                ),
                "spec": st.fixed_dictionaries(
                    {
                        "containers": st.lists(
                            st.fixed_dictionaries({"name": _name}, optional={"image": st.sampled_from("ij")}),
                            max_size=3,
                            unique_by=lambda one: one["name"],
                        )
                    }
                ),
            },
        ),
    },
)
_steps = st.lists(st.tuples(st.sampled_from("mn"), _config), min_size=1, max_size=5)


def _holds(obj: Any, config: Any) -> bool:
    """Whether all that ``config`` names is in ``obj``."""
    if isinstance(config, dict):
        return isinstance(obj, dict) and all(_holds(obj.get(name), one) or one == {} for name, one in config.items())
    if isinstance(config, list) and config and isinstance(config[0], dict):
        found = {one["name"]: one for one in obj or ()}
        return all(_holds(found.get(one["name"]), one) for one in config)
    return bool(obj == config) or config == []


@given(_steps)
def test_what_was_applied_last_holds_and_a_repeat_is_no_change(deployments: Applier, steps: list[Any]) -> None:
    live: dict[str, Any] | None = None
    for manager, spec in steps:
        config = deployment(**spec)
        live = apply(deployments, live, config, manager=manager, force=True)
        assert _holds(live["spec"], spec)
        assert apply(deployments, live, config, manager=manager, force=True, now=LATER) is live


@given(_steps)
def test_one_applier_alone_gets_exactly_its_last_configuration(deployments: Applier, steps: list[Any]) -> None:
    live: dict[str, Any] | None = None
    for _, spec in steps:
        live = apply(deployments, live, deployment(**spec))
    assert live is not None
    assert owned(live, "a") == owned(apply(deployments, None, deployment(**steps[-1][1])), "a")
    for path in owned(live, "a"):
        assert path.startswith(".spec")


ALWAYS_THERE = ("metadata", "spec", "template")  # structs that nobody adds, even where they are empty


def _emptied(live: dict[str, Any]) -> tuple[str, ...]:
    """A map or list whose last member somebody removed is there, but nobody set it; the API server drops it altogether."""
    template = live["spec"].get("template", {})
    hollow = {
        "labels": template.get("metadata", {}).get("labels") == {},
        "containers": template.get("spec", {}).get("containers") == [],
    }
    return tuple(name for name, empty in hollow.items() if empty)


def _found(fields: dict[str, Any], value: Any, path: str = "") -> list[str]:
    """The members of a field set that ``value`` does not hold."""
    missing = []
    for element, node in fields.items():
        kind, key = element[:2], element[2:]
        if element == ".":
            continue
        inner: Any = None
        if kind == "f:" and isinstance(value, dict):
            inner = value.get(key)
        elif kind == "k:" and isinstance(value, list):
            keys = json.loads(key)
            inner = next((one for one in value if all(one.get(name) == keys[name] for name in keys)), None)
        if inner is None:
            missing.append(path + element)
        else:
            missing += _found(node, inner, path + element)
    return missing


@given(st.lists(st.tuples(st.sampled_from("mn"), st.booleans(), _config), min_size=1, max_size=6))
def test_owners_and_fields_agree(deployments: Applier, tracker: Tracker, steps: list[Any]) -> None:
    live: dict[str, Any] | None = None
    for manager, applies, spec in steps:
        if applies:
            live = apply(deployments, live, deployment(**spec), manager=manager, force=True)
        else:
            live = update(tracker, live, deployment(**spec), manager)
        assert [one for entry in read_entries(live) for one in _found(entry.fields, live)] == []
        assert all(entry.fields for entry in read_entries(live))
        everyone: dict[str, Any] = {}
        for entry in read_entries(live):
            everyone = union(everyone, entry.fields)
        fields = subtract(tracker.walker.fields_of(live), UNOWNED)
        nobodys = (*ALWAYS_THERE, *_emptied(live))
        without = {path for path in paths(difference(fields, everyone)) if path.rpartition(".")[2] not in nobodys}
        assert not without, "what is there has an owner"
