"""Arithmetic and status of rollouts, as pure functions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.controlplane.deployment import revisions, rollout, status


def deployment(replicas, surge="25%", unavailable="25%", strategy="RollingUpdate", generation=1, **more):
    spec = {"replicas": replicas, "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"image": "v1"}}, **more}
    spec["strategy"] = {"type": strategy}
    if strategy == "RollingUpdate":
        spec["strategy"]["rollingUpdate"] = {"maxSurge": surge, "maxUnavailable": unavailable}
    spec["selector"] = {"matchLabels": {"app": "x"}}
    return {"metadata": {"name": "web", "namespace": "d", "uid": "u", "generation": generation}, "spec": spec}


def replica_set(name, replicas, available=None, created="2026-01-01T00:00:00Z", **annotations):
    counts = {"replicas": replicas, "availableReplicas": replicas if available is None else available}
    return {
        "metadata": {"name": name, "uid": name, "creationTimestamp": created, "annotations": annotations},
        "spec": {"replicas": replicas, "template": {"spec": {"image": name}}},
        "status": counts,
    }


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "most", "least"),
    [
        (10, "25%", "25%", 13, 8),
        (3, 1, 0, 4, 3),
        (1, "25%", "25%", 2, 1),
        (4, 0, 0, 4, 3),
        (4, "0%", "10%", 4, 3),
        (2, 5, 5, 7, 0),
        (0, 1, 1, 1, 0),
    ],
)
def test_bounds_round_surge_up_and_unavailable_down(replicas, surge, unavailable, most, least):
    limits = rollout.bounds(deployment(replicas, surge, unavailable))
    assert (limits.most, limits.least) == (most, least)


@given(
    replicas=st.integers(0, 12),
    surge=st.integers(0, 5),
    unavailable=st.integers(0, 5),
    olds=st.lists(st.integers(0, 8), max_size=3),
    luck=st.lists(st.booleans(), max_size=40),
)
def test_a_rolling_update_keeps_its_bounds_at_every_step_and_ends(replicas, surge, unavailable, olds, luck):
    """Steps of the controller, with pods that become available one by one or fail to for a while."""
    one = deployment(replicas, surge, unavailable)
    limits = rollout.bounds(one)
    old = [replica_set(f"old{at}", size, created=f"2026-01-01T00:00:0{at}Z") for at, size in enumerate(olds)]
    new = replica_set("new", 0, created="2026-01-02T00:00:00Z")
    began_total, began_available = sum(olds), sum(olds)

    def step():
        wanted = rollout.new_replicas(one, [*old, new], new)
        if wanted != rollout.replicas_of(new):
            new["spec"]["replicas"] = wanted
            return True
        sizes = rollout.scale_down_old(one, old, new)
        for each in old:
            size = sizes.get(each["metadata"]["name"], rollout.replicas_of(each))
            each["spec"]["replicas"] = size
            each["status"]["availableReplicas"] = min(each["status"]["availableReplicas"], size)
        return bool(sizes)

    chances = iter(luck)
    for _ in range(200):
        changed = step()
        assert rollout.total([*old, new]) <= max(limits.most, began_total)
        assert rollout.available([*old, new]) >= min(limits.least, began_available)
        if next(chances, True) and new["status"]["availableReplicas"] < new["spec"]["replicas"]:
            new["status"]["availableReplicas"] += 1
            changed = True
        began_total = min(began_total, max(rollout.total([*old, new]), limits.most))
        if not changed and new["status"]["availableReplicas"] == replicas == rollout.total([*old, new]):
            break
    assert rollout.replicas_of(new) == replicas
    assert rollout.total(old) == 0


def test_broken_old_pods_go_first_so_that_a_stuck_rollout_can_be_replaced():
    one = deployment(3, 1, 0)
    broken = replica_set("broken", 1, available=0, created="2026-01-02T00:00:00Z")
    good = replica_set("good", 3)
    new = replica_set("new", 0, created="2026-01-03T00:00:00Z")
    assert rollout.scale_down_old(one, [broken, good], new) == {"broken": 0}


def test_scaling_a_rollout_under_way_shares_out_in_proportion():
    one = deployment(15, 5, 0)
    most = {revisions.MOST: "15"}
    old = replica_set("old", 8, **most)
    new = replica_set("new", 7, available=2, created="2026-01-02T00:00:00Z", **most)
    sizes = rollout.proportional(one, [old, new], new)
    assert sum(sizes.values()) == 20
    assert sizes == {"old": 11, "new": 9}


@given(
    replicas=st.integers(0, 50), before=st.integers(1, 50), sizes=st.lists(st.integers(1, 20), min_size=2, max_size=4)
)
def test_proportional_scaling_reaches_the_total_and_no_set_falls_below_zero(replicas, before, sizes):
    one = deployment(replicas, 2, 0)
    sets = [
        replica_set(
            f"s{at}", size, available=0, created=f"2026-01-0{at + 1}T00:00:00Z", **{revisions.MOST: str(before)}
        )
        for at, size in enumerate(sizes)
    ]
    found = rollout.proportional(one, sets, sets[-1])
    after = [found.get(each["metadata"]["name"], rollout.replicas_of(each)) for each in sets]
    assert min(after) >= 0
    assert sum(after) == (replicas + 2 if replicas else 0)


def test_a_template_is_found_again_by_what_it_says():
    one = deployment(1)
    fresh = revisions.make_new(one, 4, 1, 2)
    assert revisions.find_new(one, [fresh]) is fresh
    assert fresh["metadata"]["name"] == f"web-{fresh['spec']['selector']['matchLabels'][revisions.HASH_LABEL]}"
    assert fresh["metadata"]["annotations"][revisions.REVISION] == "4"
    one["spec"]["template"]["spec"] = {"image": "v2"}
    assert revisions.find_new(one, [fresh]) is None


def test_the_hash_is_stable_and_a_collision_gives_another():
    one = {"b": 1, "a": {"d": [1], "c": None}}
    same = {"a": {"c": None, "d": [1]}, "b": 1}
    assert revisions.template_hash(one, 0) == revisions.template_hash(same, 0)
    assert revisions.template_hash(one, 0) != revisions.template_hash(one, 1)


def test_going_back_to_a_revision_makes_it_the_newest_and_keeps_its_history():
    one = deployment(1)
    back = replica_set("a", 0, **{revisions.REVISION: "2", revisions.HISTORY: "1"})
    marked = revisions.with_revision(one, back, 5, 2)
    annotations = marked["metadata"]["annotations"]
    assert (annotations[revisions.REVISION], annotations[revisions.HISTORY]) == ("5", "1,2")
    assert back["metadata"]["annotations"][revisions.REVISION] == "2"
    assert revisions.with_revision(one, marked, 5, 2) is marked


def conditions(found):
    return {one["type"]: (one["status"], one["reason"]) for one in found["conditions"]}


def progressed(one, sets, new, now):
    one["status"] = status.next_status(one, sets, new, now)
    return conditions(one["status"])


def test_progress_lateness_and_completion():
    one = deployment(2, progressDeadlineSeconds=60)
    new = replica_set("new", 2, available=0)
    assert progressed(one, [new], new, 1000)["Progressing"] == ("True", "ReplicaSetUpdated")
    assert status.stuck_in_s(one, one["status"], 1000) == 61
    assert progressed(one, [new], new, 1030)["Progressing"] == ("True", "ReplicaSetUpdated")
    assert progressed(one, [new], new, 1061)["Progressing"] == ("False", "ProgressDeadlineExceeded")
    assert status.stuck_in_s(one, one["status"], 1061) is None
    new["status"]["availableReplicas"] = 1
    assert progressed(one, [new], new, 1100)["Progressing"] == ("True", "ReplicaSetUpdated")
    new["status"]["availableReplicas"] = 2
    found = progressed(one, [new], new, 1110)
    assert found == {
        "Progressing": ("True", "NewReplicaSetAvailable"),
        "Available": ("True", "MinimumReplicasAvailable"),
    }
    assert one["status"]["conditions"][-1]["message"] == 'ReplicaSet "new" has successfully progressed.'


def test_a_complete_deployment_that_loses_a_pod_is_not_late():
    one = deployment(2, progressDeadlineSeconds=60)
    new = replica_set("new", 2)
    progressed(one, [new], new, 0)
    new["status"]["availableReplicas"] = 0
    found = progressed(one, [new], new, 10_000)
    assert found == {
        "Progressing": ("True", "NewReplicaSetAvailable"),
        "Available": ("False", "MinimumReplicasUnavailable"),
    }


def test_status_that_changed_nothing_stays_equal():
    one = deployment(2, progressDeadlineSeconds=60)
    new = replica_set("new", 2)
    progressed(one, [new], new, 0)
    assert status.next_status(one, [new], new, 500) == one["status"]
