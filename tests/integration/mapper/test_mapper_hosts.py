"""One driver class at a real edge: as a plugin of its process, and as a program over DMI of both versions. The same is asked of each."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mapper_edge import KINDS, Mapper, edge

from edgesite.edge.devicetwin import Devices
from edgesite.edge.dmi.mappers import Mappers
from edgesite.mapper import dmi
from edgesite.mapper.driver import DriverError
from edgesite.net.client import HttpClient
from edgesite.net.real import RealNet
from edgesite.testing.mapperrig import Machine, pump_device, pump_model
from edgesite.testing.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short: those of sockets have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="map") as name:
        yield Path(name)


@pytest.fixture(params=KINDS)
def mapper(request: Any, folder: Path) -> Mapper:
    return Mapper(request.param, folder, Machine())


def device(name: str = "pump-1", desired: str = "", **changed: Any) -> dict[str, Any]:
    return pump_device(name, desired, cycle=50, **changed)


async def test_values_come_up_and_wishes_go_down(mapper: Mapper) -> None:
    machine = mapper.machine
    async with edge(mapper.folder, mapper.plugin) as site, mapper.serve():
        await site.apply(pump_model())
        await site.apply(device())
        await site.reported("speed", "40")
        await site.reported("temperature", "20.5")
        await site.state("online")
        machine.values["temperature"] = 21.25
        await site.reported("temperature", "21.25")
        await site.apply(device(desired="55", version=2), "update")
        await site.reported("speed", "55")
        assert machine.writes == [("speed", 55)]
        assert machine.connections == 1


async def test_devices_of_the_time_before_are_served(mapper: Mapper) -> None:
    async with edge(mapper.folder, None) as site:
        await site.apply(pump_model())
        await site.apply(device(desired="7"))
    async with edge(mapper.folder, mapper.plugin) as site, mapper.serve():
        await site.reported("speed", "7")


async def test_a_device_that_goes_is_let_go(mapper: Mapper) -> None:
    machine = mapper.machine
    async with edge(mapper.folder, mapper.plugin) as site, mapper.serve():
        await site.apply(pump_model())
        await site.apply(device())
        await site.reported("speed", "40")
        await site.apply(device(version=2), "delete")
        await until(lambda: not machine.open)


async def test_a_machine_that_is_away_is_offline_and_comes_back(mapper: Mapper) -> None:
    machine = mapper.machine
    async with edge(mapper.folder, mapper.plugin) as site, mapper.serve():
        await site.apply(pump_model())
        await site.apply(device())
        await site.state("online")

        def gone(call: str, name: str) -> None:
            raise DriverError("no route")

        machine.trouble = gone
        await site.state("offline")
        machine.trouble, machine.values["speed"] = None, 41
        await site.state("online")
        await site.reported("speed", "41")


async def test_what_the_model_does_not_allow_goes_nowhere(mapper: Mapper, caplog: Any) -> None:
    machine = mapper.machine
    async with edge(mapper.folder, mapper.plugin) as site, mapper.serve():
        await site.apply(pump_model())
        await site.apply(device(desired="900"))
        await site.reported("speed", "40")
        machine.values["speed"] = 500  # the twin refuses it
        machine.values["temperature"] = 30.5
        await site.reported("temperature", "30.5")
        assert "500" not in site.values("speed")
        machine.values["speed"] = 50
        await site.reported("speed", "50")
        assert machine.writes == []


async def test_the_edge_begins_anew(mapper: Mapper, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program stays, and registers again; what changed while the edge was away is known, in both directions."""
    monkeypatch.setattr(dmi, "LOOK_S", 0.05)
    monkeypatch.setattr(dmi, "MOST_S", 0.2)
    machine = mapper.machine
    async with mapper.serve():
        async with edge(mapper.folder, mapper.plugin) as site:
            await site.apply(pump_model())
            await site.apply(device())
            await site.reported("speed", "40")
        machine.values["speed"] = 42
        async with edge(mapper.folder, mapper.plugin) as site:
            await site.reported("speed", "42")
            await site.apply(device(desired="43", version=3), "update")
            await site.reported("speed", "43")
            await site.apply(device("pump-2", desired="8", version=4))
            await site.reported("speed", "8", "pump-2")


async def test_the_edge_asks_a_program_what_it_knows(folder: Path) -> None:
    for kind in ("v1beta1", "v1alpha1"):
        mapper = Mapper(kind, folder, Machine())
        async with edge(folder) as site, mapper.serve():
            await site.apply(pump_model())
            await site.apply(device(desired="9"))
            await site.reported("speed", "9")
            mappers = site.rig.host.services.get(Mappers)  # type: ignore[type-abstract]
            told = await mappers.get_device("default", "pump-1")
            twins = {one["propertyName"]: one["reported"]["value"] for one in told["status"]["twins"]}
            assert twins == {"speed": "9", "temperature": "20.5"}


async def test_automatic_version_is_the_newer_one(folder: Path) -> None:
    mapper = Mapper("auto", folder, Machine())
    async with edge(folder) as site, mapper.serve():
        await site.apply(pump_model())
        await site.apply(device())
        await site.reported("speed", "40")
        mappers = site.rig.host.services.get(Mappers)  # type: ignore[type-abstract]
        assert [one.dmi for one in mappers.registered()] == ["v1beta1"]


async def test_an_edge_without_devices_loads_no_driver(folder: Path) -> None:
    async with edge(folder, None) as site:
        await site.apply(pump_model())
        await site.apply(device())
        metrics = {one.name for one in site.rig.host.metrics.collect()}
        assert not any(name.startswith("edgesite_mapper") for name in metrics)


async def test_a_protocol_may_be_left_to_a_program(folder: Path) -> None:
    inside, outside = Machine(), Mapper("v1beta1", folder, Machine())
    async with edge(folder, inside, outOfProcess=["test"]) as site, outside.serve():
        await site.apply(pump_model())
        await site.apply(device())
        await site.reported("speed", "40")
        assert (inside.connections, outside.machine.connections) == (0, 1)


async def test_a_plugins_devices_go_on_with_another_device_twin(folder: Path) -> None:
    class Another:
        """The same to whom asks, but another object, as after a restart of DeviceTwin."""

        def __init__(self, devices: Devices) -> None:
            self._devices = devices

        def __getattr__(self, name: str) -> Any:
            return getattr(self._devices, name)

    machine = Machine()
    async with edge(folder, machine) as site:
        await site.apply(pump_model())
        await site.apply(device())
        await site.reported("speed", "40")
        services = site.rig.host.services
        devices = services.get(Devices)  # type: ignore[type-abstract]
        services.withdraw(Devices)
        services.provide(Devices, Another(devices))  # type: ignore[type-abstract, arg-type]
        machine.values["speed"] = 41
        await site.reported("speed", "41")
        await until(lambda: machine.connections == 2)
        metrics = site.rig.host.metrics
        assert metrics.get_sample_value("edgesite_mapper_devices", {"state": "online"}) == 1


async def test_a_plugins_devices_are_served_by_http_where_the_edge_is_told_to(folder: Path, caplog: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with edge(folder, Machine(), httpAddress=address) as site:
            await site.apply(pump_model())
            await site.apply(device())
            await site.reported("speed", "40")  # somebody else's port keeps no device from being driven
            assert "modules.mappers.httpAddress" in caplog.text
    async with edge(folder, Machine(), httpAddress=address) as site:
        await site.reported("temperature", "20.5")
        client = HttpClient(RealNet(), address)
        answer = await client.request("GET", "/api/v1/device/default/pump-1/speed", {})
        assert b'"Value":"40"' in answer.body
        await client.close()
