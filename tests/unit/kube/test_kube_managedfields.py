"""managedFields as ordinary writes keep them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from edgesite.kube.apply_sets import paths
from edgesite.kube.managedfields import Tracker, read_entries
from edgesite.kube.schema import Schemas, load


@pytest.fixture(scope="module")
def schemas() -> Schemas:
    return load()


@pytest.fixture
def pods(schemas: Schemas) -> Tracker:
    return Tracker(schemas, schemas.definition_of("", "v1", "Pod"))


def pod() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "d", "uid": "u", "labels": {"app": "x"}},
        "spec": {
            "containers": [
                {"name": "c", "image": "i", "ports": [{"containerPort": 80, "protocol": "TCP"}], "args": ["1"]}
            ],
            "volumes": [{"name": "v", "emptyDir": {}}],
        },
    }


def write(tracker: Tracker, old: dict[str, Any] | None, new: dict[str, Any], **how: Any) -> dict[str, Any]:
    given = copy.deepcopy((old, new))
    how = {"manager": "me", "api_version": "v1", "now": "2026-01-01T00:00:00Z"} | how
    fields = tracker.updated(old, new, **how)
    assert (old, new) == given
    return {**new, "metadata": {**new["metadata"], "managedFields": fields}}


def owners(obj: dict[str, Any], path: str) -> list[str]:
    return [one.manager for one in read_entries(obj) if path in paths(one.fields)]


def test_who_creates_owns_what_was_set(pods: Tracker) -> None:
    created = write(pods, None, pod())
    (entry,) = created["metadata"]["managedFields"]
    assert entry == {
        "manager": "me",
        "operation": "Update",
        "apiVersion": "v1",
        "time": "2026-01-01T00:00:00Z",
        "fieldsType": "FieldsV1",
        "fieldsV1": {
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {
                "f:containers": {
                    'k:{"name":"c"}': {
                        ".": {},
                        "f:name": {},
                        "f:image": {},
                        "f:args": {},
                        "f:ports": {
                            ".": {},
                            'k:{"containerPort":80,"protocol":"TCP"}': {
                                ".": {},
                                "f:containerPort": {},
                                "f:protocol": {},
                            },
                        },
                    }
                },
                "f:volumes": {".": {}, 'k:{"name":"v"}': {".": {}, "f:name": {}, "f:emptyDir": {}}},
            },
        },
    }


def test_who_changes_a_field_takes_it(pods: Tracker) -> None:
    created = write(pods, None, pod())
    changed = copy.deepcopy(created)
    changed["spec"]["containers"][0]["image"] = "i2"
    changed = write(pods, created, changed, manager="other", now="2026-01-02T00:00:00Z")
    image = '.spec.containers[name="c"].image'
    assert owners(changed, image) == ["other"]
    assert owners(changed, '.spec.containers[name="c"].args') == ["me"]
    assert [one["manager"] for one in changed["metadata"]["managedFields"]] == ["me", "other"]


def test_a_write_that_changes_nothing_leaves_the_list_alone(pods: Tracker) -> None:
    created = write(pods, None, pod())
    again = write(pods, created, copy.deepcopy(created), manager="other", now="2027-01-01T00:00:00Z")
    assert again == created


def test_a_later_write_of_the_same_manager_renews_its_time(pods: Tracker) -> None:
    created = write(pods, None, pod())
    changed = copy.deepcopy(created)
    changed["metadata"]["labels"]["b"] = "y"
    changed = write(pods, created, changed, now="2026-02-02T00:00:00Z")
    (entry,) = changed["metadata"]["managedFields"]
    assert entry["time"] == "2026-02-02T00:00:00Z"
    assert owners(changed, ".metadata.labels.b") == ["me"]
    assert owners(changed, ".metadata.labels.app") == ["me"]


def test_what_is_removed_belongs_to_nobody_and_empty_entries_go(pods: Tracker) -> None:
    base = write(pods, None, pod())
    labelled = copy.deepcopy(base)
    labelled["metadata"]["labels"]["b"] = "y"
    labelled = write(pods, base, labelled, manager="labeller")
    assert owners(labelled, ".metadata.labels.b") == ["labeller"]
    without = copy.deepcopy(labelled)
    del without["metadata"]["labels"]["b"]
    without = write(pods, labelled, without, manager="third")
    assert [one.manager for one in read_entries(without)] == ["me"]


def test_removing_an_element_removes_all_that_was_owned_below(pods: Tracker) -> None:
    created = write(pods, None, pod())
    without = copy.deepcopy(created)
    without["spec"]["containers"] = [{"name": "d", "image": "i"}]
    del without["spec"]["volumes"]
    without = write(pods, created, without, manager="other")
    assert all('name="c"' not in path for one in read_entries(without) for path in paths(one.fields))
    assert all("volumes" not in path for one in read_entries(without) for path in paths(one.fields))


def test_status_is_an_entry_of_its_own(pods: Tracker) -> None:
    created = write(pods, None, pod())
    running = copy.deepcopy(created)
    running["status"] = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    running = write(pods, created, running, manager="kubelet", subresource="status", now="2026-01-02T00:00:00Z")
    entry = running["metadata"]["managedFields"][1]
    assert entry["subresource"] == "status"
    assert entry["fieldsV1"] == {
        "f:status": {
            "f:phase": {},
            "f:conditions": {".": {}, 'k:{"type":"Ready"}': {".": {}, "f:type": {}, "f:status": {}}},
        }
    }


def test_what_an_endpoint_resets_is_not_owned(pods: Tracker) -> None:
    new = {**pod(), "status": {"phase": "Running"}}
    created = write(pods, None, new, reset={"f:status": {}})
    assert owners(created, ".status.phase") == []


def test_clients_that_drop_managed_fields_do_not_lose_them(pods: Tracker) -> None:
    created = write(pods, None, pod())
    bare = copy.deepcopy(created)
    del bare["metadata"]["managedFields"]
    bare["spec"]["nodeName"] = "n"
    result = write(pods, created, bare, manager="scheduler")
    assert owners(result, ".spec.nodeName") == ["scheduler"]
    assert owners(result, ".metadata.labels.app") == ["me"]


def test_clients_may_rewrite_and_forget_managed_fields(pods: Tracker) -> None:
    created = write(pods, None, pod())
    renamed = copy.deepcopy(created)
    renamed["metadata"]["managedFields"][0]["manager"] = "kubectl"
    assert owners(write(pods, created, renamed), ".metadata.labels.app") == ["kubectl"]
    forgotten = copy.deepcopy(created)
    forgotten["metadata"]["managedFields"] = [{}]
    assert write(pods, created, forgotten)["metadata"]["managedFields"] == []


@pytest.mark.parametrize(
    "sent",
    [
        [{"manager": "x", "operation": "Nope", "fieldsV1": {"f:a": {}}}],
        [{"manager": "x", "operation": "Update", "fieldsV1": {"nonsense": {}}}],
        ["text"],
    ],
)
def test_managed_fields_that_cannot_be_read_are_ignored(pods: Tracker, sent: Any) -> None:
    created = write(pods, None, pod())
    broken = copy.deepcopy(created)
    broken["metadata"]["managedFields"] = sent
    assert write(pods, created, broken)["metadata"]["managedFields"] == created["metadata"]["managedFields"]


def test_old_updaters_are_merged_beyond_ten(pods: Tracker) -> None:
    obj = write(pods, None, pod(), now="2026-01-01T00:00:00Z")
    for number in range(15):
        new = copy.deepcopy(obj)
        new["metadata"]["labels"][f"l{number}"] = "x"
        obj = write(pods, obj, new, manager=f"m{number:02}", now=f"2026-01-02T00:00:{number:02}Z")
    entries = read_entries(obj)
    assert len(entries) == 10
    assert "ancient-changes" in [one.manager for one in entries]
    for path in (".metadata.labels.app", ".metadata.labels.l0", ".metadata.labels.l5"):
        assert owners(obj, path) == ["ancient-changes"]
    assert owners(obj, ".metadata.labels.l14") == ["m14"]


def test_kinds_without_a_schema_are_tracked_by_shape(schemas: Schemas) -> None:
    tracker = Tracker(schemas, None)
    obj = {
        "apiVersion": "x/v1",
        "kind": "X",
        "metadata": {"name": "x", "finalizers": ["a"]},
        "spec": {"metadata": {"finalizers": ["b"]}, "list": [{"name": "a"}]},
    }
    created = write(tracker, None, obj, api_version="x/v1")
    assert created["metadata"]["managedFields"][0]["fieldsV1"] == {
        "f:metadata": {"f:finalizers": {".": {}, 'v:"a"': {}}},
        "f:spec": {"f:metadata": {".": {}, "f:finalizers": {}}, "f:list": {}},
    }


def test_duplicate_elements_are_owned_as_one(pods: Tracker) -> None:
    created = pod()
    created["spec"]["containers"][0]["env"] = [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]
    first = write(pods, None, created)
    second = copy.deepcopy(first)
    second["spec"]["containers"][0]["env"][1]["value"] = "3"
    second = write(pods, first, second, manager="other")
    assert owners(second, '.spec.containers[name="c"].env[name="A"]') == ["other"]
