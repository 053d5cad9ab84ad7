"""What an edge tells a mapper: as KubeEdge's edges were recorded, in any order, and nonsense."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.kube.dmi.messages import tables
from edgesite.kube.protowire import decode, encode
from edgesite.mapper.devices import NEVER_S, assignment_of, device_of
from edgesite.mapper.dmiservice import MapperService, Objects
from edgesite.mapper.driver import Host
from edgesite.mapper.fleet import Fleet
from edgesite.mapper.metrics import Meters
from edgesite.net.grpc_messages import Code, GrpcError
from edgesite.testing.mapperrig import Edge, Machine, pump_device, pump_model

pytestmark = pytest.mark.anyio
RECORDED: dict[str, Any] = json.loads(Path(__file__).with_name("recorded_dmi.json").read_text())
PUMP = ("default", "pump-1")


class Told:
    """The service of a mapper, and what has become of what it was told."""

    def __init__(self, fleet: Fleet, objects: Objects) -> None:
        self.fleet, self.objects = fleet, objects
        self._handlers = MapperService(objects).handlers()

    async def raw(self, path: str, data: bytes) -> bytes:
        return await self._handlers[path](data)

    async def call(self, method: str, version: str = "v1beta1", **request: Any) -> dict[str, Any]:
        known = tables(version)
        data = encode(known[f"{method}Request"], request)
        answer = await self.raw(f"/{version}.DeviceMapperService/{method}", data)
        return decode(known[f"{method}Response"], answer)

    def assigned(self, key: tuple[str, str] = PUMP) -> Any:
        worker = self.fleet.get(key)
        assert worker is not None
        return worker.assignment


@asynccontextmanager
async def told(machine: Machine, outlet: Edge, host: Host, meters: Meters) -> AsyncGenerator[Told]:
    async with Fleet(host, outlet, meters) as fleet:
        yield Told(fleet, Objects(fleet, machine.make, "modbus", host.log))


@pytest.fixture
def parts(machine: Machine, outlet: Edge, host: Host, meters: Meters) -> tuple[Any, ...]:
    return machine, outlet, host, meters


async def test_an_edge_of_v1_12_is_understood(parts: Any) -> None:
    async with told(*parts) as it:
        for number, (method, data) in enumerate(RECORDED["1.12.7"]):
            await it.raw(method, bytes.fromhex(data))
            if number == 1:
                device = it.assigned().device
                assert (device.model, device.protocol) == ("pump", "modbus")
                assert device.config == {"slaveID": 1, "common": {"tcp": {"ip": "192.168.1.7", "port": 502}}}
                speed = device.properties[0]
                assert (speed.name, speed.type, speed.writable, speed.minimum, speed.maximum) == (
                    "speed",
                    "int",
                    True,
                    "0",
                    "100",
                )
                assert (speed.collect_every, speed.report_to_cloud) == (1.0, True)
                assert speed.visitor["register"] == "HoldingRegister"
                assert (speed.visitor["offset"], speed.visitor["scale"]) == (2, 1)
                assert it.assigned().desired["speed"] == "40"
        assert len(it.fleet) == len(it.objects) == 0  # all were removed in the end


async def test_an_edge_of_v1_23_is_understood(parts: Any) -> None:
    async with told(*parts) as it:
        answers = [await it.raw(method, bytes.fromhex(data)) for method, data in RECORDED["1.23.1"]]
        assert answers[0] == b"\x0a\x04pump\x12\x07default"
        device = it.assigned().device
        assert device.config == {"ip": "192.168.1.7", "port": 502, "slaveID": 1, "rtu": False}
        speed, label, temp = device.properties
        assert speed.visitor == {"register": "HoldingRegister", "offset": 2, "limit": 1, "scale": 1.5}
        assert (speed.collect_every, speed.report_every, speed.report_to_cloud) == (1.0, 2.0, True)
        assert (label.type, temp.type) == ("string", "double")
        assert speed.push == {"mqtt": {"address": "tcp://127.0.0.1:1883", "topic": "demo/speed", "qos": 1}}
        assert not label.report_to_cloud  # KubeEdge's edge sends false where nothing is said


async def test_order_does_not_matter(parts: Any) -> None:
    """A device before its model, the same one twice, a change of one that is not known, and the removal of what is not there."""
    version = "v1beta1"
    model = {"name": "pump", "spec": {"properties": [{"name": "speed", "type": "INT", "accessMode": "ReadOnly"}]}}
    wish = {"name": "speed", "desired": {"value": "1"}, "reportToCloud": True}
    device = {"name": "pump-1", "spec": {"deviceModelReference": "pump", "properties": [wish]}}
    async with told(*parts) as it:
        await it.call("UpdateDevice", version, device=device)
        assert it.assigned().device.properties[0].type == "string"
        assert it.assigned().desired == {"speed": "1"}
        for _ in range(2):
            assert (await it.call("RegisterDevice", version, device=device))["deviceName"] == "pump-1"
        await it.call("UpdateDeviceModel", version, model=model)
        assert (it.assigned().device.properties[0].type, it.assigned().desired) == ("int", {})
        await it.call("RemoveDeviceModel", version, modelName="pump")
        for _ in range(2):
            await it.call("RemoveDevice", version, deviceName="pump-1")
        await it.call("RemoveDeviceModel", version, modelName="pump")
        with pytest.raises(GrpcError) as failure:
            await it.call("GetDevice", version, deviceName="pump-1")
        assert failure.value.code is Code.NOT_FOUND


async def test_desired_values_alone_may_be_told(parts: Any) -> None:
    visitors = [{"propertyName": "speed"}]
    async with told(*parts) as it:
        await it.call("RegisterDevice", "v1alpha1", device={"name": "pump-1", "spec": {"propertyVisitors": visitors}})
        twins = [{"propertyName": "speed", "desired": {"value": "5"}}]
        await it.call("UpdateDeviceStatus", "v1alpha1", deviceName="pump-1", desiredDevice={"twins": twins})
        assert it.assigned().desired == {"speed": "5"}


async def test_pushes_during_a_registration_are_newer_than_its_answer(parts: Any) -> None:
    old, new, gone = ({"name": name, "spec": {"protocol": {"protocolName": kind}}} for name, kind in (
        ("pump-1", "old"), ("pump-1", "new"), ("pump-2", "old")))  # fmt: skip
    async with told(*parts) as it:
        await it.call("RegisterDevice", device={"name": "pump-0", "spec": {}})
        it.objects.expect()
        await it.call("UpdateDevice", device=new)
        await it.call("RemoveDevice", deviceName="pump-2")
        it.objects.replace("v1beta1", [], [old, gone])
        assert it.assigned().device.protocol == "new"
        assert [worker.assignment.device.name for worker in it.fleet] == ["pump-1"]


async def test_one_device_that_cannot_be_read_costs_no_other(parts: Any, caplog: Any) -> None:
    odd = {"configData": {"data": {"ip": {"type_url": "type.googleapis.com/google.protobuf.Struct", "value": b"x"}}}}
    broken = {"name": "pump-0", "spec": {"protocol": odd, "deviceModelReference": "old"}}
    async with told(*parts) as it:
        it.objects.replace("v1beta1", [], [broken, {"name": "pump-1", "spec": {}}])
        assert [worker.assignment.device.name for worker in it.fleet] == ["pump-1"]
    assert "device default/pump-0 is not driven: an Any of type" in caplog.text


async def test_models_that_no_device_is_of_are_forgotten(parts: Any) -> None:
    models = [{"name": name, "spec": {}} for name in ("old", "used", "new")]
    device = {"name": "pump-1", "spec": {"deviceModelReference": "used"}}
    async with told(*parts) as it:
        it.objects.replace("v1beta1", models[:2], [device])
        it.objects.replace("v1beta1", models[2:], [device])
        assert sorted(it.objects._models) == [("default", "new"), ("default", "used")]


@pytest.mark.parametrize("data", [b"\xff", b"", b"\x0a\x00"])
async def test_nonsense_is_refused(parts: Any, data: bytes) -> None:
    async with told(*parts) as it:
        with pytest.raises(GrpcError) as failure:
            await it.raw("/v1beta1.DeviceMapperService/RegisterDevice", data)
        assert failure.value.code is Code.INVALID_ARGUMENT


def test_cycles_of_both_versions() -> None:
    def collected(cycle: Any, *, alpha: bool) -> float:
        device = pump_device(cycle=cycle)
        if alpha:
            device["metadata"]["annotations"] = {"devices.kubeedge.io/v1alpha2": "{}"}
        return assignment_of(device).device.properties[0].collect_every

    assert collected(500, alpha=False) == 0.5
    assert collected(500_000_000, alpha=True) == 0.5
    assert collected(500, alpha=True) == 0.5  # nobody means nanoseconds
    assert collected(0, alpha=False) == collected(0, alpha=True) == 1.0
    assert collected(-1, alpha=True) == NEVER_S
    assert collected(1, alpha=False) == 0.01


def test_a_model_gives_what_a_device_leaves_out() -> None:
    model, device = pump_model(), pump_device()
    model["spec"]["protocolConfigData"] = {"address": 1, "timeout": 3}
    model["spec"]["properties"][0]["visitors"] = {"configData": {"register": "a", "scale": 2}}
    device["spec"]["properties"][0]["visitors"] = {"configData": {"register": "b"}}
    made = assignment_of(device, model).device
    assert made.config == {"address": 7, "timeout": 3}
    assert made.properties[0].visitor == {"register": "b", "scale": 2}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
PARTS = ["name", "desired", "visitors", "configData", "collectCycle", "pushMethod", "value", "metadata", "type"]
odd = st.dictionaries(st.sampled_from(PARTS), values, max_size=4)


@given(
    spec=st.fixed_dictionaries(
        {},
        optional={
            "properties": st.lists(odd | values, max_size=3) | values,
            "protocol": odd | values,
            "deviceModelRef": odd | values,
            "methods": st.lists(odd, max_size=2),
            "stateReport": values,
        },
    ),
    model=st.lists(odd, max_size=3),
)
def test_objects_of_any_shape_are_taken(spec: Any, model: Any) -> None:
    device = {"apiVersion": "devices.kubeedge.io/v1beta1", "metadata": {"name": "d"}, "spec": spec}
    made = assignment_of(device, {**pump_model(), "spec": {"properties": model}})
    assert len({one.name for one in made.device.properties}) == len(made.device.properties)
    assert all(one.collect_every > 0 for one in made.device.properties)


def test_push_methods_have_the_names_of_the_api() -> None:
    push = {
        "http": {"hostname": "http://h", "requestpath": "/p"},
        "dbMethod": {"tdengine": {"tdEngineClientConfig": {"addr": "a", "dbname": "d"}}},
    }
    message = {"name": "d", "spec": {"properties": [{"name": "p", "pushMethod": push}]}}
    made = device_of("v1beta1", message)["spec"]["properties"][0]["pushMethod"]
    assert made["http"] == {"hostName": "http://h", "requestPath": "/p"}
    assert made["dbMethod"] == {"TDEngine": {"TDEngineClientConfig": {"addr": "a", "dbName": "d"}}}
