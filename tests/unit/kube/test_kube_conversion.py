"""Views of stored objects, there and back."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edgesite.kube import resources
from edgesite.kube.conversion import from_storage, to_storage
from edgesite.kube.resources import BUILTIN, ResourceTable

V1 = ResourceTable(BUILTIN).find("autoscaling", "v1", "horizontalpodautoscalers")
assert V1 is not None


def test_rows_that_own_their_objects_keep_them() -> None:
    obj = {"a": 1}
    assert to_storage(resources.PODS, obj) is obj
    assert from_storage(resources.PODS, obj) is obj


def test_events_change_the_names_of_their_fields() -> None:
    new = {"apiVersion": "events.k8s.io/v1", "kind": "Event", "note": "n", "regarding": {"name": "a"}, "type": "Normal"}
    core = to_storage(resources.EVENTS_V1, new)
    assert core == {
        "apiVersion": "v1",
        "kind": "Event",
        "message": "n",
        "involvedObject": {"name": "a"},
        "type": "Normal",
    }
    assert from_storage(resources.EVENTS_V1, core) == new


def test_cpu_target_becomes_a_metric() -> None:
    spec = {"minReplicas": 1, "maxReplicas": 3, "targetCPUUtilizationPercentage": 70}
    stored = to_storage(V1, {"apiVersion": "autoscaling/v1", "metadata": {"name": "a"}, "spec": spec})
    assert stored["spec"]["metrics"] == [
        {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}
    ]
    assert stored["apiVersion"] == "autoscaling/v2"
    assert from_storage(V1, stored)["spec"] == spec


def test_unreadable_annotation_stays() -> None:
    meta = {"annotations": {"autoscaling.alpha.kubernetes.io/metrics": "{"}}
    assert to_storage(V1, {"metadata": meta})["metadata"] == meta


metrics = st.sampled_from(
    [
        {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 5}}},
        {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
        {"type": "Pods", "pods": {"metric": {"name": "x"}, "target": {"type": "AverageValue", "averageValue": "1"}}},
    ]
)


@given(st.lists(metrics, max_size=3, unique_by=str), st.booleans())
def test_nothing_is_lost_on_the_way_through_v1(chosen: list[Any], behaves: bool) -> None:
    chosen.sort(key=lambda one: one["type"] != "Resource" or one["resource"]["name"] != "cpu")
    spec: dict[str, Any] = {"maxReplicas": 3}
    if chosen:
        spec["metrics"] = chosen
    if behaves:
        spec["behavior"] = {"scaleUp": {"selectPolicy": "Max"}}
    stored = {"apiVersion": "autoscaling/v2", "metadata": {"name": "a"}, "spec": spec, "status": {"desiredReplicas": 1}}
    assert to_storage(V1, from_storage(V1, stored)) == stored
