"""Tables: kubectl's columns."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kube_objects import SCHEMAS, WITH_SCHEMA, objects

from edgesite.kube import defaults, json, resources, tables
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import BUILTIN, Resource
from edgesite.kube.schema_decode import decode
from edgesite.kube.tables_workload import pod_status
from edgesite.kube.times import parse_time

NOW = parse_time("2024-05-01T12:00:00Z")
META = {"name": "a", "namespace": "default", "creationTimestamp": "2024-05-01T11:55:00Z"}
Object = dict[str, Any]


def cells(row: Resource, obj: Object, wide: bool = False) -> dict[str, Any]:
    table = tables.table(row, [{**obj, "metadata": {**META, **obj.get("metadata", {})}}], NOW)
    named = zip(table["columnDefinitions"], table["rows"][0]["cells"], strict=True)
    return {column["name"]: cell for column, cell in named if wide or not column["priority"]}


@pytest.mark.parametrize("row", BUILTIN, ids=lambda row: f"{row.group_resource}-{row.version}")
def test_an_empty_object_of_any_kind_has_a_cell_for_each_column(row: Resource) -> None:
    table = tables.table(row, [{"metadata": {}}], NOW)
    assert len(table["rows"][0]["cells"]) == len(table["columnDefinitions"])
    assert table["columnDefinitions"][0]["name"] in ("Name", "Last Seen")


def test_table_carries_what_was_asked_for() -> None:
    obj = {"metadata": META, "data": {"a": "b"}}
    table = tables.table(resources.CONFIG_MAPS, [obj], NOW, metadata={"resourceVersion": "5"})
    assert (table["kind"], table["apiVersion"], table["metadata"]) == (
        "Table",
        "meta.k8s.io/v1",
        {"resourceVersion": "5"},
    )
    assert table["rows"] == [
        {
            "cells": ["a", 1, "5m"],
            "object": {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": META},
        }
    ]
    assert tables.table_row(resources.CONFIG_MAPS, obj, NOW, "Object")["object"] == obj
    assert tables.table_row(resources.CONFIG_MAPS, obj, NOW, "None")["object"] is None
    with pytest.raises(ApiError):
        tables.table_row(resources.CONFIG_MAPS, obj, NOW, "All")


def pod(*statuses: Object, init: tuple[Object, ...] = (), **more: Any) -> Object:
    names = [{"name": str(index)} for index, _ in enumerate(statuses)]
    inits = [{"name": one["name"], **({"restartPolicy": "Always"} if one.pop("sidecar", 0) else {})} for one in init]
    return {
        "metadata": {"name": "a"},
        "spec": {"containers": names, "initContainers": inits, **more.pop("spec", {})},
        "status": {
            "phase": "Pending",
            "containerStatuses": list(statuses),
            "initContainerStatuses": list(init),
            **more,
        },
    }


RUNNING = {"ready": True, "state": {"running": {}}}
DONE = {"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}


@pytest.mark.parametrize(
    ("obj", "status", "ready"),
    [
        (pod(RUNNING, phase="Running"), "Running", "1/1"),
        (pod({"state": {"waiting": {"reason": "ContainerCreating"}}}), "ContainerCreating", "0/1"),
        (pod({"state": {"waiting": {"reason": "CrashLoopBackOff"}}}, phase="Running"), "CrashLoopBackOff", "0/1"),
        (pod({"state": {"terminated": {"exitCode": 3}}}, phase="Running"), "ExitCode:3", "0/1"),
        (pod({"state": {"terminated": {"exitCode": 137, "signal": 9}}}, phase="Running"), "Signal:9", "0/1"),
        (pod(DONE, phase="Succeeded"), "Completed", "0/1"),
        (pod(DONE, RUNNING, phase="Running"), "NotReady", "1/2"),
        (pod(DONE, RUNNING, phase="Running", conditions=[{"type": "Ready", "status": "True"}]), "Running", "1/2"),
        (pod({}, init=({"name": "i", "state": {"running": {}}},)), "Init:0/1", "0/1"),
        (
            pod({}, init=({"name": "i", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}},)),
            "Init:Error",
            "0/1",
        ),
        (pod({}, init=({"name": "i", "state": {"waiting": {"reason": "ErrImagePull"}}},)), "Init:ErrImagePull", "0/1"),
        (
            pod(RUNNING, init=({"name": "i", "sidecar": 1, "started": True, **RUNNING},), phase="Running"),
            "Running",
            "2/2",
        ),
        (pod(RUNNING, reason="Evicted", phase="Failed"), "Evicted", "1/1"),
        (
            pod({}, conditions=[{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]),
            "SchedulingGated",
            "0/1",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_status_of_a_pod(obj: Object, status: str, ready: str) -> None:
    shown = cells(resources.PODS, obj)
    assert (shown["Status"], shown["Ready"]) == (status, ready)


def test_a_pod_that_is_being_deleted_is_terminating() -> None:
    obj = pod(RUNNING, phase="Running")
    obj["metadata"]["deletionTimestamp"] = "2024-05-01T11:59:00Z"
    assert pod_status(obj)[0] == "Terminating"


def test_restarts_tell_when_the_last_one_was() -> None:
    last = {"terminated": {"finishedAt": "2024-05-01T11:57:00Z"}}
    assert cells(resources.PODS, pod({**RUNNING, "restartCount": 2, "lastState": last}))["Restarts"] == "2 (3m ago)"
    assert cells(resources.PODS, pod({**RUNNING}))["Restarts"] == "0"


def test_wide_pod() -> None:
    shown = cells(resources.PODS, pod(RUNNING, podIPs=[{"ip": "10.0.0.1"}], spec={"nodeName": "n"}), wide=True)
    assert (shown["IP"], shown["Node"], shown["Nominated Node"], shown["Readiness Gates"]) == (
        "10.0.0.1",
        "n",
        "<none>",
        "<none>",
    )


def test_node() -> None:
    node = {
        "metadata": {"labels": {"node-role.kubernetes.io/edge": "", "node-role.kubernetes.io/agent": ""}},
        "spec": {"unschedulable": True},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "nodeInfo": {"kubeletVersion": "v1"},
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
        },
    }
    shown = cells(resources.NODES, node, wide=True)
    assert shown["Status"] == "Ready,SchedulingDisabled"
    assert (shown["Roles"], shown["Version"], shown["Internal-IP"]) == ("agent,edge", "v1", "10.0.0.1")


def test_service() -> None:
    ports = [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]
    shown = cells(resources.SERVICES, {"spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1", "ports": ports}})
    assert (shown["Cluster-IP"], shown["External-IP"], shown["Port(s)"]) == (
        "10.0.0.1",
        "<pending>",
        "80:30080/TCP,53/UDP",
    )


def test_deployment_and_replica_set() -> None:
    template = {"spec": {"containers": [{"name": "c", "image": "i"}]}}
    obj = {
        "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}}, "template": template},
        "status": {"readyReplicas": 2},
    }
    shown = cells(resources.DEPLOYMENTS, obj, wide=True)
    assert (shown["Ready"], shown["Containers"], shown["Images"], shown["Selector"]) == ("2/3", "c", "i", "a=b")
    assert cells(resources.REPLICA_SETS, obj)["Desired"] == 3


def test_endpoints_show_the_first_few() -> None:
    subsets = [{"addresses": [{"ip": f"10.0.0.{index}"} for index in range(5)], "ports": [{"port": 80}]}]
    shown = cells(resources.ENDPOINTS, {"subsets": subsets})
    assert shown["Endpoints"] == "10.0.0.0:80,10.0.0.1:80,10.0.0.2:80 + 2 more..."


def test_events_of_both_groups_print_alike() -> None:
    core = {
        "involvedObject": {"kind": "Pod", "name": "a"},
        "type": "Normal",
        "reason": "Started",
        "message": "it runs\n",
        "firstTimestamp": "2024-05-01T11:58:00Z",
        "lastTimestamp": "2024-05-01T11:59:00Z",
        "count": 2,
        "source": {"component": "edged", "host": "n"},
    }
    new = {
        "regarding": core["involvedObject"],
        "type": "Normal",
        "reason": "Started",
        "note": "it runs\n",
        "deprecatedFirstTimestamp": core["firstTimestamp"],
        "deprecatedLastTimestamp": core["lastTimestamp"],
        "deprecatedCount": 2,
        "deprecatedSource": core["source"],
    }
    shown = cells(resources.EVENTS, core, wide=True)
    assert shown == cells(resources.EVENTS_V1, new, wide=True)
    assert list(shown.values()) == ["60s", "Normal", "Started", "pod/a", "", "edged, n", "it runs", "2m", 2, "a"]


def test_job_and_claim() -> None:
    status = {
        "succeeded": 1,
        "startTime": "2024-05-01T11:58:00Z",
        "conditions": [{"type": "Complete", "status": "True"}],
    }
    shown = cells(
        resources.JOBS, {"spec": {"completions": 1}, "status": {**status, "completionTime": "2024-05-01T11:58:20Z"}}
    )
    assert (shown["Status"], shown["Completions"], shown["Duration"]) == ("Complete", "1/1", "20s")
    claim = {
        "spec": {"volumeName": "v"},
        "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]},
    }
    shown = cells(resources.PERSISTENT_VOLUME_CLAIMS, claim)
    assert (shown["Status"], shown["Capacity"], shown["Access Modes"]) == ("Bound", "1Gi", "RWO")


@given(st.data(), st.sampled_from(WITH_SCHEMA))
def test_any_stored_object_prints(data: st.DataObject, row: Resource) -> None:
    obj = {"metadata": META, **data.draw(objects(row))}
    decoded = decode(SCHEMAS, row.group, row.version, row.kind, obj).object
    defaults.apply(row.group, row.version, row.kind, decoded)
    table = tables.table(row, [decoded], NOW)
    assert len(table["rows"][0]["cells"]) == len(table["columnDefinitions"])
    assert json.dumps(table)
