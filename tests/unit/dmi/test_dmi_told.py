"""What mappers are told, whatever happens on the way; values of free-form objects; small parts of EventBus and DMI."""

from __future__ import annotations

import logging
import random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.edge.dmi.convert import device_message, model_message
from edgesite.edge.dmi.mapper import Mapper, _Away, _Refused
from edgesite.edge.dmi.mappers import MapperInfo, socket_path
from edgesite.edge.dmi.rates import Rate
from edgesite.edge.dmi.records import Key
from edgesite.edge.eventbus.address import address_of
from edgesite.edge.eventbus.outbox import Command, Outbox
from edgesite.edge.eventbus.topics import FIXED, belongs_to_twin
from edgesite.kube.dmi.anyvalues import from_any, to_any
from edgesite.kube.dmi.messages import tables
from edgesite.kube.protowire import EncodeError, WireFormatError, decode, encode
from edgesite.net.grpc_messages import Code, GrpcError
from edgesite.wire.mqtt.topics import matches

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=8,
)


class FakeDevices:
    """Devices and models by place."""

    def __init__(self) -> None:
        self.objects: dict[Key, dict[str, Any]] = {}

    async def device(self, namespace: str, name: str) -> dict[str, Any] | None:
        return self.objects.get(Key("device", namespace, name))

    async def model(self, namespace: str, name: str) -> dict[str, Any] | None:
        return self.objects.get(Key("devicemodel", namespace, name))

    def namespace_of(self, name: str) -> str | None:
        return "default"


class TriedMapper(Mapper):
    """A mapper whose program is here: it knows devices and models, refuses what a real one does, and may be away or answer in vain."""

    def __init__(self, devices: Any, dice: random.Random) -> None:
        ctx: Any = SimpleNamespace(log=logging.getLogger("test"))
        info = MapperInfo("m", "modbus", "/m.sock", "v1beta1")
        super().__init__(ctx, info, tables("v1beta1"), devices, {}, lambda change: None)
        self.knows: dict[tuple[str, str], bytes] = {}
        self._dice = dice
        self.is_calm = False

    async def _raw_call(self, method: str, data: bytes) -> bytes:
        fault = "" if self.is_calm else self._dice.choice(["", "", "", "away", "lost"])
        if fault == "away":
            raise GrpcError(Code.UNAVAILABLE, "away")
        request = decode(self._tables[f"{method}Request"], data)
        kind = "model" if "Model" in method else "device"
        name = request.get(f"{kind}Name") or request[kind]["name"]
        if method.startswith("Remove"):
            if self.knows.pop((kind, name), None) is None:
                raise GrpcError(Code.UNKNOWN, "unknown")
        elif ((kind, name) in self.knows) is not method.startswith("Update"):
            raise GrpcError(Code.UNKNOWN, "it exists, or does not")
        elif kind == "device" and ("model", request["device"]["spec"]["deviceModelReference"]) not in self.knows:
            raise GrpcError(Code.UNKNOWN, "no such model")
        else:
            self.knows[kind, name] = data
        if fault == "lost":
            raise GrpcError(Code.DEADLINE_EXCEEDED, "the answer was lost")
        return b""


def device(name: str, model: str, protocol: str, desired: str) -> dict[str, Any]:
    spec = {"deviceModelRef": {"name": model}, "protocol": {"protocolName": protocol}}
    spec["properties"] = [{"name": "p", "desired": {"value": desired}}]  # type: ignore[assignment]
    return {
        "apiVersion": "devices.kubeedge.io/v1beta1",
        "kind": "Device",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


def model(name: str, protocol: str, unit: str) -> dict[str, Any]:
    spec = {"protocol": protocol, "properties": [{"name": "p", "type": "INT", "unit": unit}]}
    return {
        "apiVersion": "devices.kubeedge.io/v1beta1",
        "kind": "DeviceModel",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(60))
async def test_a_mapper_knows_in_the_end_what_it_should(seed: int) -> None:
    """Devices and models come, change, go and change their protocol, in any order, while calls fail or their answers are lost."""
    dice, devices = random.Random(seed), FakeDevices()
    mapper = TriedMapper(devices, dice)
    for _ in range(40):
        if dice.random() < 0.3:
            key = Key("devicemodel", "default", f"m{dice.randrange(2)}")
            obj = model(key.name, dice.choice(["modbus", "other"]), str(dice.randrange(3)))
        else:
            key = Key("device", "default", f"d{dice.randrange(4)}")
            obj = device(
                key.name, f"m{dice.randrange(2)}", dice.choice(["modbus", "modbus", "other"]), str(dice.randrange(3))
            )
        if dice.random() < 0.25:
            devices.objects.pop(key, None)
        else:
            devices.objects[key] = obj
        mapper.look(key)
        for _ in range(dice.randrange(4)):
            await step(mapper)
    for name in ("m0", "m1"):  # a device whose model is not there waits for it
        key = Key("devicemodel", "default", name)
        devices.objects.setdefault(key, model(name, "other", "x"))
        mapper.look(key)
    mapper.is_calm = True
    for _ in range(200):
        await step(mapper)
    wanted = {
        ("device", key.name)
        for key, obj in devices.objects.items()
        if key.kind == "device" and obj["spec"]["protocol"]["protocolName"] == "modbus"
    }
    assert {one for one in mapper.knows if one[0] == "device"} == wanted
    for kind, name in wanted:
        told = decode(mapper._tables["UpdateDeviceRequest"], mapper.knows[kind, name])["device"]
        obj = devices.objects[Key("device", "default", name)]
        assert told["spec"]["properties"][0]["desired"] == obj["spec"]["properties"][0]["desired"]
    for key, obj in devices.objects.items():
        if key.kind == "devicemodel" and ("model", key.name) in mapper.knows:
            told = decode(mapper._tables["UpdateDeviceModelRequest"], mapper.knows["model", key.name])["model"]
            assert told["spec"]["properties"][0].get("unit", "") == obj["spec"]["properties"][0]["unit"]


async def step(mapper: TriedMapper) -> None:
    """Settle one key, as `Mapper.run` does, without its waits."""
    for key in mapper._refused:
        mapper._dirty.setdefault(key)
    if not mapper._dirty:
        return
    key = next((one for one in mapper._dirty if one.kind == "devicemodel"), None) or next(iter(mapper._dirty))
    del mapper._dirty[key]
    try:
        await mapper._settle(key)
    except _Refused:
        mapper._refused[key] = (0.0, 0.0)
    except _Away:
        mapper._dirty.setdefault(key)


@given(JSON)
def test_values_of_free_form_objects(value: Any) -> None:
    made = to_any(value)
    if value is None:
        assert made is None
        return
    assert made is not None
    back = from_any(made)
    if isinstance(value, bool | str):
        assert back == value
    elif isinstance(value, int):
        assert back == (value if -(1 << 63) <= value < 1 << 63 else str(value))
    elif isinstance(value, float) and abs(value) < 3e38:
        assert back == pytest.approx(value, rel=1e-6, abs=1e-37)


@pytest.mark.parametrize("value", [0.1, 21.5, 502, 16777217, -1, 3.4e38, 1e-3])
def test_numbers_come_back_as_they_were_written(value: float) -> None:
    made = to_any(value)
    assert made is not None
    assert from_any(made) == value


@pytest.mark.parametrize(
    "given", [{}, {"type_url": "type.googleapis.com/x.Y"}, {"type_url": "/google.protobuf.BoolValue", "value": b"\xff"}]
)
def test_what_is_no_value_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(WireFormatError):
        from_any(given)


@given(st.sampled_from(["v1alpha1", "v1beta1"]), JSON, JSON)
def test_any_device_becomes_a_message_or_is_refused(version: str, spec: Any, status: Any) -> None:
    known = tables(version)
    for kind, make, table in (("Device", device_message, "Device"), ("DeviceModel", model_message, "DeviceModel")):
        obj = {"apiVersion": "devices.kubeedge.io/v1beta1", "kind": kind, "metadata": {"name": "x", "namespace": "y"}}
        if isinstance(spec, dict):
            obj["spec"] = spec
        if isinstance(status, dict):
            obj["status"] = status
        try:
            encode(known[table], make(known, version, obj))
        except EncodeError:
            continue


def test_calls_may_come_at_a_rate_and_in_bursts() -> None:
    clock: Any = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    rate = Rate(clock, 2, 3)
    assert [rate.take() for _ in range(4)] == [True, True, True, False]
    clock.now = 0.5
    assert [rate.take(), rate.take()] == [True, False]


def test_what_waits_for_a_broker_is_the_newest_and_subscriptions_stay() -> None:
    outbox = Outbox(3)
    assert outbox.put(Command("subscribe", "a"))
    for n in range(5):
        assert not outbox.put(Command("publish", "t", bytes([n])))
    assert [outbox.take() for _ in range(4)] == [
        Command("subscribe", "a"),
        Command("publish", "t", b"\3"),
        Command("publish", "t", b"\4"),
        None,
    ]
    assert outbox.dropped == 3


@pytest.mark.parametrize(
    ("url", "address", "is_tls"),
    [
        ("tcp://127.0.0.1:1884", "127.0.0.1:1884", False),
        ("ssl://broker", "broker:8883", True),
        ("mqtts://[::1]:8883/", "[::1]:8883", True),
        ("tcp://[::1]", "[::1]:1883", False),
        ("unix:///run/mqtt.sock", "unix:///run/mqtt.sock", False),
    ],
)
def test_addresses_of_brokers(url: str, address: str, is_tls: bool) -> None:
    assert address_of(url) == (address, is_tls)


@pytest.mark.parametrize("url", ["127.0.0.1:1883", "http://x:1", "tcp://", "tcp://::1:1883", ""])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match=r"no address of an MQTT broker|in brackets"):
        address_of(url)


@pytest.mark.parametrize("address", [b"", b"m.sock", b"/" + b"x" * 107, b"/a\0", b"\xff"])
def test_sockets_that_are_none(address: bytes) -> None:
    with pytest.raises(ValueError, match="address"):
        socket_path(address)


def test_mappers_are_kept_as_kubeedge_keeps_them() -> None:
    info = MapperInfo("m1", "modbus", "/tmp/m1.sock", "v1beta1", "v1", "v1", "ok")
    kept = info.to_json()
    assert kept["address"] == "L3RtcC9tMS5zb2Nr"
    assert MapperInfo.from_json(kept) == info
    assert MapperInfo.from_json({"name": "m"}) is None
    assert MapperInfo.from_json({"name": "m", "protocol": "p", "address": "!"}) is None


def test_fixed_topics_and_who_gets_them() -> None:
    for topic, is_twins in (
        ("$hw/events/device/d/state/update", True),
        ("$hw/events/device/ns/d/twin/get", True),
        ("$hw/events/node/n/membership/get", True),
        ("$hw/events/upload/x/y", False),
        ("SYS/dis/upload_records", False),
        ("app/user/x", False),
    ):
        assert sum(matches(pattern, topic) for pattern in FIXED) == 1, topic
        assert belongs_to_twin(topic) is is_twins
    assert not belongs_to_twin("$hw/events/devices/x")
