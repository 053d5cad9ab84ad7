"""Reports of edges, as the cloud takes them: what is merged into a status, what is left out, and what cannot be read."""

from __future__ import annotations

import logging
import random
from contextlib import nullcontext
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.client import ObjectKey
from edgesite.cloud.devicecontroller.objects import pack, unpacked
from edgesite.cloud.devicecontroller.statuses import Report, Statuses, Value, merged
from edgesite.cloud.devicecontroller.upstream import Upstream
from edgesite.kube.errors import ApiError, unavailable
from edgesite.kube.resources import DEVICES
from edgesite.net.real import RealClock
from edgesite.wire.message import Message, MessageMaker

TYPES = {"speed": "int", "temp": "double"}
DEVICE = {
    "apiVersion": "devices.kubeedge.io/v1beta1",
    "kind": "Device",
    "metadata": {"name": "d", "namespace": "default", "uid": "u", "resourceVersion": "5"},
    "spec": {
        "nodeName": "edge-1",
        "deviceModelRef": {"name": "m"},
        "properties": [{"name": "speed"}, {"name": "temp"}],
    },
}


def test_a_report_is_merged_by_property_and_unknown_ones_are_left_out() -> None:
    first = merged(DEVICE, Report({"temp": Value("1.5", 7), "nonsense": Value("1")}), TYPES)
    assert first == {
        "twins": [
            {"propertyName": "temp", "reported": {"value": "1.5", "metadata": {"timestamp": "7", "type": "double"}}}
        ]
    }
    device = {**DEVICE, "status": first}
    second = merged(device, Report({"speed": Value("3", 8)}, {"temp": "2"}, "online", "2026-11-20T05:25:57Z"), TYPES)
    assert [one["propertyName"] for one in second["twins"]] == ["speed", "temp"]
    assert second["twins"][1]["observedDesired"] == {"value": "2"}
    assert (second["state"], second["lastOnlineTime"]) == ("online", "2026-11-20T05:25:57Z")
    assert merged({**DEVICE, "status": second}, Report({"speed": Value("3", 99)}, state="online"), TYPES) == second
    ended = merged({**DEVICE, "status": second}, Report({"speed": Value(None)}), TYPES)
    assert [one["propertyName"] for one in ended["twins"]] == ["temp"]


class _Statuses:
    """Takes reports as `Statuses` does, writes at once."""

    def __init__(self) -> None:
        self.device: dict[str, Any] = DEVICE
        self.error: ApiError | None = None

    def add(self, key: ObjectKey, report: Report) -> Any:
        if self.error is None:
            self.device = {**self.device, "status": merged(self.device, report, TYPES)}
        self.done = anyio.Event()
        self.done.set()
        return self


class _Objects:
    node = "edge-1"

    def find(self, node: str, id_text: str) -> Any:
        return pack(DEVICE) if node == self.node and id_text in ("d", "default/d") else None


class _Bus:
    def __init__(self) -> None:
        self.sent: list[Message] = []

    async def send(self, module: str, message: Message) -> None:
        self.sent.append(message)


class Rig:
    def __init__(self) -> None:
        self.statuses, self.bus, self.counted = _Statuses(), _Bus(), list[str]()
        self.maker = MessageMaker(lambda: 1.0, lambda bits: 7)
        self.objects = _Objects()
        self.upstream = Upstream(
            self.objects,  # type: ignore[arg-type]
            self.statuses,  # type: ignore[arg-type]
            self.bus,  # type: ignore[arg-type]
            self.maker,
            self._members,
            self.counted.append,
            logging.getLogger("test"),
        )

    async def _members(self, node: str) -> None:
        self.counted.append(f"members {node}")

    def tell(self, about: str, content: Any, node: str = "edge-1") -> None:
        message = self.maker.make("twin", "resource", "update", f"node/{node}/{about}", content)
        anyio.run(self.upstream.handle, message)

    @property
    def reported(self) -> dict[str, str]:
        status = self.statuses.device.get("status") or {}
        return {one["propertyName"]: one["reported"]["value"] for one in status.get("twins") or () if "reported" in one}


def edge_updated(value: str, version: int, at_ms: int) -> dict[str, Any]:
    actual = {"value": value, "metadata": {"timestamp": at_ms}}
    return {"twin": {"speed": {"actual": actual, "actual_version": {"cloud": 0, "edge": version}}}}


@given(
    st.lists(st.integers(-3600_000, 3600_000), min_size=1, max_size=6).flatmap(
        lambda steps: st.tuples(st.just(steps), st.lists(st.integers(0, len(steps) - 1), max_size=8))
    )
)
def test_reports_that_are_repeated_late_do_not_come_back(case: tuple[list[int], list[int]]) -> None:
    """KubeEdge's edge counts up and repeats what was not confirmed; its clock may step between two reports."""
    steps, repeated = case
    rig, at_ms, sent = Rig(), 10**12, []
    for version, step in enumerate(steps, 1):
        at_ms += step
        sent.append(edge_updated(str(version), version, at_ms))
        rig.tell("device/d/twin/edge_updated", sent[-1])
    seen = max(one["twin"]["speed"]["actual"]["metadata"]["timestamp"] for one in sent)
    for index in repeated:
        if sent[index]["twin"]["speed"]["actual"]["metadata"]["timestamp"] < seen or index == len(sent) - 1:
            rig.tell("device/d/twin/edge_updated", sent[index])
    if at_ms == seen:  # no step back is in force
        assert rig.reported == {"speed": str(len(steps))}


def test_an_edge_that_begins_to_count_anew_is_believed() -> None:
    rig = Rig()
    rig.tell("device/d/twin/edge_updated", edge_updated("1", 50, 1000))
    rig.tell("device/d/twin/edge_updated", edge_updated("2", 1, 2000))
    assert rig.reported == {"speed": "2"}


def test_another_node_counts_anew_and_by_another_clock() -> None:
    rig = Rig()
    rig.tell("device/d/twin/edge_updated", edge_updated("1", 50, 2000))
    rig.objects.node = "edge-2"
    rig.tell("device/d/twin/edge_updated", edge_updated("2", 1, 1000), node="edge-2")
    assert rig.reported == {"speed": "2"}


def test_a_newer_value_of_another_instance_stays() -> None:
    newer = merged(DEVICE, Report({"speed": Value("2", 2000), "temp": Value("1", 500)}), TYPES)
    late = Report({"speed": Value("1", 1000), "temp": Value("2", 1000)})
    told = merged({**DEVICE, "status": newer}, late, TYPES, keeps_newer=True)
    assert [one["reported"]["value"] for one in told["twins"]] == ["2", "2"]
    assert merged({**DEVICE, "status": newer}, late, TYPES) != told, "a clock that was set back is believed otherwise"
    odd = {"twins": [{"propertyName": "speed", "reported": {"value": "9", "metadata": {"timestamp": "soon"}}}]}
    told = merged({**DEVICE, "status": odd}, late, TYPES, keeps_newer=True)
    assert told["twins"][0]["reported"]["value"] == "1"


def test_a_report_that_could_not_be_written_is_taken_when_it_comes_again() -> None:
    rig = Rig()
    rig.tell("device/d/twin/edge_updated", edge_updated("1", 1, 1000))
    rig.statuses.error = unavailable("the API is away")
    rig.tell("device/d/twin/edge_updated", edge_updated("2", 2, 2000))
    assert len(rig.bus.sent) == 1, "it is not confirmed"
    rig.statuses.error = None
    rig.tell("device/d/twin/edge_updated", edge_updated("1", 1, 1000))
    assert rig.reported == {"speed": "1"}
    rig.tell("device/d/twin/edge_updated", edge_updated("2", 2, 2000))
    assert rig.reported == {"speed": "2"}
    assert len(rig.bus.sent) == 3


def test_what_is_remembered_of_one_device_is_bounded() -> None:
    rig = Rig()
    names = {f"n{n}": edge_updated("1", 1, 1000)["twin"]["speed"] for n in range(10_000)}
    rig.tell("device/d/twin/edge_updated", {"twin": names})
    assert max(len(one) for one in rig.upstream._seen.values()) <= 4096


def test_a_report_of_many_is_answered_and_of_others_devices_nothing_is_taken() -> None:
    rig = Rig()
    content = {"base": 100, "names": ["speed"], "devices": [["default/d", 0, "4", 1], ["default/x", 0, "5", 1]]}
    rig.tell("devices/reported", content)
    assert rig.reported == {"speed": "4"}
    assert [(one.content, one.group) for one in rig.bus.sent] == [("OK", "resource")]
    rig.tell("devices/reported", {**content, "devices": [["default/d", 0, "9", 1]]}, node="edge-2")
    assert rig.reported == {"speed": "4"}
    assert rig.counted == ["refused", "refused"]


GARBAGE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["twin", "speed", "actual", "device", "base", "names", "devices", "states", "value"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
ABOUT = st.sampled_from(
    [
        "devices/reported",
        "device/d/twin/edge_updated",
        "device/d/state/update",
        "device//twin/edge_updated",
        "membership/detail",
        "x",
        "",
    ]
)


@given(ABOUT, GARBAGE)
def test_nonsense_is_counted_and_takes_nothing_down(about: str, content: Any) -> None:
    rig = Rig()
    rig.tell(about, content)
    assert rig.reported == {}


@pytest.mark.parametrize("told", ["2026-11-20 05:14:13", "2026-11-20T05:14:13Z"])
def test_a_state_is_written_with_its_time_in_one_form(told: str) -> None:
    rig = Rig()
    rig.tell("device/default/d/state/update", {"device": {"name": "d", "state": "OK", "last_online": told}})
    status = rig.statuses.device["status"]
    assert status["state"] == "OK"
    assert status["lastOnlineTime"].endswith("Z")
    assert rig.bus.sent[0].content == "OK"


def test_the_cache_keeps_devices_as_text_and_knows_what_changed() -> None:
    one = pack(DEVICE)
    assert unpacked(one)["spec"] == DEVICE["spec"]
    reported = pack({**DEVICE, "status": {"twins": [{"propertyName": "speed"}]}})
    assert one["digest"] == reported["digest"]
    assert one["reported"] != reported["reported"]
    labelled = pack({**DEVICE, "metadata": {**DEVICE["metadata"], "labels": {"description": "x"}}})  # type: ignore[dict-item]
    assert one["digest"] != labelled["digest"]


class _Devices:
    """Stands for the cache and the API: what is written comes into the cache when the test says so."""

    def __init__(self, count: int) -> None:
        self.cached = {ObjectKey("default", f"d{n}"): self._packed(f"d{n}", 1) for n in range(count)}
        self.devices, self.kinds, self.version = self, {"device": DEVICES}, 1
        self.handlers: list[Any] = []

    @staticmethod
    def _packed(name: str, version: int, status: Any = None) -> dict[str, Any]:
        metadata = {"name": name, "namespace": "default", "uid": f"u-{name}", "resourceVersion": str(version)}
        return pack({**DEVICE, "metadata": metadata, **({"status": status} if status else {})})

    def by_key(self, key: ObjectKey) -> Any:
        return self.cached.get(key)

    def add_handler(self, *handlers: Any) -> Any:
        self.handlers = list(handlers)
        return nullcontext()

    async def patch(self, kind: Any, name: str, patch: Any, namespace: str) -> Any:
        self.version += 1
        metadata = {**patch["metadata"], "name": name, "namespace": namespace, "resourceVersion": str(self.version)}
        self.answer = {**DEVICE, "metadata": metadata, "status": patch["status"]}
        return self.answer

    def catch_up(self, key: ObjectKey) -> dict[str, Any]:
        old, new = self.cached[key], pack(self.answer)
        self.cached[key] = new
        self.handlers[1](old, new)
        return new


@pytest.mark.anyio
async def test_whose_a_status_is_and_what_is_kept_of_it() -> None:
    """Also after the API was restored, when versions are lower than those that were written here."""
    api, key = _Devices(2), ObjectKey("default", "d0")
    statuses = Statuses(api, api, lambda one: TYPES, RealClock(), random.Random(1))  # type: ignore[arg-type]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(statuses.run)
        with anyio.fail_after(30):
            waiting = statuses.add(key, Report({"speed": Value("3", 8)}))
            await waiting.done.wait()
        assert waiting.error is None
        assert list(statuses._written) == [key], "the cache is behind"
        mine = api.catch_up(key)
        assert statuses._written == {}
        assert not statuses.is_foreign(key, mine)
        for version in (1, 9):
            assert statuses.is_foreign(key, api._packed("d0", version, {"twins": []}))
        api.handlers[2](mine)
        assert statuses._own == {}
        tasks.cancel_scope.cancel()
