"""Which nodes a job is for, how it goes on, and what of it may leave for a node."""

from __future__ import annotations

from typing import Any

import pytest

from edgesite.cloud.taskmanager import prepull, upgrades
from edgesite.cloud.taskmanager.nodes import Speech, nodes_of, own_version, speech_of
from edgesite.edge.taskmanager.checks import failing

NOW = "2026-11-20T05:44:40Z"


def node(name: str, version: str = "", **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"node-role.kubernetes.io/edge": "", **labels}},
        "status": {"nodeInfo": {"kubeletVersion": version}},
    }


@pytest.mark.parametrize(
    ("version", "own", "speech"),
    [
        ("v1.22.17-kubeedge-v1.12.7", "v1.12.7", Speech.UPGRADE_ONLY),
        ("v1.26.10-kubeedge-v1.15.3", "v1.15.3", Speech.UPGRADE_ONLY),
        ("v1.27.7-kubeedge-v1.18.0", "v1.18.0", Speech.NONE),
        ("v1.32.10-kubeedge-v1.23.1", "v1.23.1", Speech.TASKS),
        ("v1.22.6-kubeedge-v1.11.1", "v1.11.1", Speech.NONE),
        ("v1.30.0", "", Speech.NONE),
    ],
)
def test_each_edge_is_told_as_it_understands(version: str, own: str, speech: Speech) -> None:
    one = node("n", version)
    assert (own_version(one), speech_of(one, is_ours=False), speech_of(one, is_ours=True)) == (
        own,
        speech,
        Speech.TASKS,
    )


def test_nodes_are_named_or_selected_and_edges_alone() -> None:
    cloud = {"metadata": {"name": "cloud", "labels": {"zone": "a"}}}
    nodes = [node("b", zone="a"), node("a", zone="a"), node("c", zone="b"), cloud]
    names = [one["metadata"]["name"] for one in nodes_of(nodes, {"labelSelector": {"matchLabels": {"zone": "a"}}})]
    assert names == ["a", "b"]
    names = [one["metadata"]["name"] for one in nodes_of(nodes, {"nodeNames": ["c", "cloud", "gone", "c", "a"]})]
    assert names == ["c", "a"]
    assert nodes_of(nodes, {}) == nodes_of(nodes, {"labelSelector": {}}) == []


@pytest.mark.parametrize(
    "spec",
    [
        {"version": "v1.2.3; reboot", "nodeNames": ["a"]},
        {"version": "1.2.3", "nodeNames": ["a"]},
        {"version": "v1.2.3", "nodeNames": ["a"], "image": "x`reboot`"},
        {"version": "v1.2.3", "nodeNames": ["a"], "image": "-x"},
        {"version": "v1.2.3", "nodeNames": ["a"], "upgradeTool": "sh"},
        {"version": "v1.2.3"},
        {"version": "v1.2.3", "nodeNames": ["a"], "labelSelector": {"matchLabels": {"a": "b"}}},
        {"nodeNames": ["a"]},
    ],
)
def test_nothing_strange_leaves_for_a_node(spec: dict[str, Any]) -> None:
    assert upgrades.invalid({"metadata": {"name": "j"}, "spec": spec})


@pytest.mark.parametrize(
    ("image", "sent"),
    [
        ("", "kubeedge/installation-package:v1.2.3"),
        ("pack:old", "pack:v1.2.3"),
        ("r.example.com:5000/a/pack", "r.example.com:5000/a/pack:v1.2.3"),
        ("r.example.com/pack@sha256:00", "r.example.com/pack:v1.2.3"),
    ],
)
def test_the_image_has_the_tag_of_the_version(image: str, sent: str) -> None:
    job = {"metadata": {"name": "j"}, "spec": {"version": "v1.2.3", "nodeNames": ["a"], "image": image}}
    assert upgrades.invalid(job) == ""
    assert upgrades.content_of(job, "h")["Image"] == sent


def test_nodes_take_turns_and_few_failures_are_borne() -> None:
    spec = {"concurrency": 2, "failureTolerate": "0.3"}
    entries: list[dict[str, Any]] = []
    names = ["a", "b", "c", "d"]
    assert prepull.to_begin(names, {"status": entries}, spec) == ["a", "b"]
    entries = [prepull.begin("a", NOW), prepull.begin("b", NOW)]
    assert prepull.to_begin(names, {"status": entries}, spec) == []
    assert prepull.summed_up(entries, 4, spec, NOW)["state"] == "Checking"
    entries[0] = prepull.ended("a", "Pull", "broken", NOW)
    assert prepull.to_begin(names, {"status": entries}, spec) == ["c"]
    assert prepull.summed_up(entries, 4, spec, NOW)["state"] == "Pulling"
    entries[1] = prepull.ended("b", "Pull", "broken", NOW)
    assert prepull.summed_up(entries, 4, spec, NOW)["state"] == "Failed"
    assert (
        prepull.summed_up(entries[:1] + [prepull.ended(one, "Pull", "", NOW) for one in "bcd"], 4, spec, NOW)["state"]
        == "Successful"
    )
    assert prepull.to_begin(names, {"status": []}, {}) == ["a"]


def test_what_is_over_stays_over() -> None:
    ended = prepull.ended("a", "TimeOut", "late", NOW)
    assert prepull.told(ended, "a", {"action": "Pull", "succ": True}, NOW) is None
    assert prepull.told(None, "a", {"action": "Pull", "succ": True}, NOW) is None
    for extend in ("no json", "[1]", '{"a":1}', 7, None):
        told = prepull.told(prepull.begin("a", NOW), "a", {"action": "Pull", "succ": True, "extend": extend}, NOW)
        assert told is not None
        assert told["nodeStatus"]["state"] == "Successful"
    history = {"history": {"historyID": "h"}, "state": "upgrading"}
    assert upgrades.finished(history, "rm -rf", "")["history"]["result"] == "upgrade_failed_rollback_success"


def test_a_full_machine_takes_no_task() -> None:
    used = {"cpu": 0.1, "mem": 0.95, "disk": 0.5}
    assert failing(["cpu", "disk"], used) == ""
    assert failing(["cpu", "mem"], used) == "mem is used to 95%"
    assert failing(["gpu", 7], used) == "unknown check items: gpu, 7"
