"""The Device Management Interface against mappers of grpcio: both versions, restarts of either side, mappers that refuse, hang or are away."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import anyio
import grpc
import pytest
from dmi_rig import Edge, GoMapper, device, edge, model

from edgesite.edge.dmi import mapper as mapper_module
from edgesite.edge.dmi.mappers import Mappers
from edgesite.kube.dmi.anyvalues import from_any
from edgesite.kube.errors import ApiError
from edgesite.testing.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short: those of sockets have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="dmi") as name:
        yield Path(name)


async def settled(site: Edge) -> None:
    """Wait until the edge has acknowledged all objects that it was told of."""
    await site.rig.cloud.next()


async def test_a_mapper_registers_and_is_told_of_its_devices(folder: Path) -> None:
    async with edge(folder) as site:
        assert stat.S_IMODE(os.stat(folder / "dmi.sock").st_mode) == 0o600
        mapper = GoMapper(f"{folder}/m1.sock")
        async with mapper.serve():
            assert await site.register(mapper) == {}
            await site.apply(model())
            await site.apply(device())
            method, told = await mapper.next()
            assert (method, told["model"]["name"], told["model"]["namespace"]) == (
                "CreateDeviceModel",
                "pump",
                "default",
            )
            method, told = await mapper.next()
            assert (method, told["device"]["name"]) == ("RegisterDevice", "pump-1")
            spec = told["device"]["spec"]
            assert from_any(spec["protocol"]["configData"]["data"]["slaveID"]) == 1
            assert spec["properties"][0]["desired"]["value"] == "40"
            await site.apply(device(desired="55", version=3), "update")
            method, told = await mapper.next()
            assert (method, told["device"]["spec"]["properties"][0]["desired"]["value"]) == ("UpdateDevice", "55")
            await site.apply(device(desired="55", version=4), "delete")
            assert await mapper.next() == ("RemoveDevice", {"deviceName": "pump-1", "deviceNamespace": "default"})
            await site.apply(model(), "delete")
            assert (await mapper.next())[0] == "RemoveDeviceModel"
            assert len(mapper.calls) == 5


async def test_both_versions_at_once_and_the_answer_to_a_registration(folder: Path) -> None:
    async with edge(folder) as site:
        for obj in (model(), device(), device("pump-2", protocol="demo")):
            await site.apply(obj)
            await settled(site)
        old, new = GoMapper(f"{folder}/m1.sock"), GoMapper(f"{folder}/m2.sock")
        async with old.serve(), new.serve():
            answer = await site.register(old, version="v1alpha1")
            assert [one["name"] for one in answer["deviceList"]] == ["pump-1"]
            assert answer["deviceList"][0]["spec"]["protocol"]["modbus"] == {"slaveID": 1}
            assert answer["modelList"][0]["spec"]["properties"][0]["type"]["int"]["maximum"] == 100
            answer = await site.register(new, name="m2", protocol="demo")
            assert [one["name"] for one in answer["deviceList"]] == ["pump-2"]
            for name, protocol, mapper in (("pump-1", "modbus", old), ("pump-2", "demo", new)):
                await site.apply(device(name, desired="7", version=9, protocol=protocol), "update")
                assert (await mapper.next())[0] == "UpdateDevice"
            mappers = site.rig.host.services.get(Mappers)  # type: ignore[type-abstract]
            assert {one.dmi for one in mappers.registered()} == {"v1alpha1", "v1beta1"}
            assert await mappers.get_device("default", "pump-1") == {"name": "pump-1"}
        with pytest.raises(ApiError) as failure:
            await mappers.get_device("default", "pump-2")
        assert failure.value.code == 503


async def test_a_device_moves_from_one_mapper_to_another(folder: Path) -> None:
    async with edge(folder) as site:
        old, new = GoMapper(f"{folder}/m1.sock"), GoMapper(f"{folder}/m2.sock")
        async with old.serve(), new.serve():
            await site.register(old)
            await site.register(new, name="m2", protocol="demo")
            await site.apply(model())
            await site.apply(device())
            assert [(await old.next())[0], (await old.next())[0]] == ["CreateDeviceModel", "RegisterDevice"]
            await site.apply(device(protocol="demo", version=3), "update")
            assert (await old.next())[0] == "RemoveDevice"
            assert [(await new.next())[0], (await new.next())[0]] == ["CreateDeviceModel", "RegisterDevice"]


async def test_after_a_restart_of_the_edge_a_mapper_is_told_what_has_changed(folder: Path) -> None:
    mapper = GoMapper(f"{folder}/m1.sock")
    async with mapper.serve():
        async with edge(folder) as site:
            for obj in (model(), device(), device("pump-2"), device("pump-3")):
                await site.apply(obj)
                await settled(site)
            await site.register(mapper)
        async with edge(folder) as site:
            await site.apply(device("pump-2", desired="1", version=7), "update")
            assert (await mapper.next())[1]["device"]["name"] == "pump-2"
            await site.apply(device("pump-3", version=8), "delete")
            assert (await mapper.next())[0] == "RemoveDevice"
            assert len(mapper.calls) == 2


async def test_a_mapper_that_is_away_is_told_when_it_is_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapper_module, "FIRST_S", 0.05)
    mapper = GoMapper(f"{folder}/m1.sock")
    async with edge(folder) as site:
        async with mapper.serve():
            await site.register(mapper)
        await site.apply(model())
        await site.apply(device())
        await site.apply(device(desired="41", version=3), "update")
        metrics = site.rig.host.metrics
        await until(lambda: metrics.get_sample_value("edgesite_dmi_mappers_troubled"))
        async with mapper.serve():
            assert (await mapper.next())[0] == "CreateDeviceModel"
            method, told = await mapper.next()
            assert (method, told["device"]["spec"]["properties"][0]["desired"]["value"]) == ("RegisterDevice", "41")


async def test_a_mapper_that_hangs_holds_up_nobody_else(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapper_module, "CALL_S", 0.2)
    monkeypatch.setattr(mapper_module, "FIRST_S", 0.05)
    stuck, other = GoMapper(f"{folder}/m1.sock"), GoMapper(f"{folder}/m2.sock")
    async with edge(folder) as site, stuck.serve(), other.serve():
        for obj in (model(), device(), device("pump-2", protocol="demo")):
            await site.apply(obj)
            await settled(site)
        await site.register(stuck)
        await site.register(other, name="m2", protocol="demo")
        waits = anyio.Event()
        stuck.answer = lambda method: waits.wait()
        await site.apply(device(desired="1", version=5), "update")
        await site.apply(device("pump-2", desired="1", version=6, protocol="demo"), "update")
        assert (await other.next())[0] == "UpdateDevice"
        stuck.answer = None
        assert (await stuck.next())[1]["device"]["spec"]["properties"][0]["desired"]["value"] == "1"
        waits.set()


async def test_a_mapper_that_knows_a_device_already_has_it_updated(folder: Path) -> None:
    mapper = GoMapper(f"{folder}/m1.sock")
    mapper.answer = lambda method: "it exists" if method == "RegisterDevice" else None
    async with edge(folder) as site, mapper.serve():
        await site.register(mapper)
        await site.apply(model())
        await site.apply(device())
        assert [(await mapper.next())[0], (await mapper.next())[0]] == ["CreateDeviceModel", "UpdateDevice"]


async def test_reports_become_twin_updates(folder: Path) -> None:
    """The bytes are those that KubeEdge's own mappers were recorded with."""
    async with edge(folder) as site:
        inbox = site.rig.bus.join("eventbus", "bus")
        await site.apply(model())
        await site.apply(device())
        await settled(site)
        await settled(site)
        beta = "0a0670756d702d311a0764656661756c74124b0a490a05737065656412110a023430120b0a04747970651203696e741a2d0a"
        beta += "023338120b0a04747970651203696e74121a0a0974696d657374616d70120d31373030303030303030303030"
        alpha = "0a0670756d702d3112480a3e0a0573706565641a350a02333812130a0c70726f7065727479547970651203696e74121a0a09"
        alpha += "74696d657374616d70120d3137303030303030303030303012066f6e6c696e65"
        states = "0a0670756d702d31120764656661756c741a066f6e6c696e65"
        for path, data in (
            ("/v1beta1.DeviceManagerService/ReportDeviceStatus", beta),
            ("/v1alpha1.DeviceManagerService/ReportDeviceStatus", alpha),
            ("/v1beta1.DeviceManagerService/ReportDeviceStates", states),
        ):
            assert await site.raw(path, bytes.fromhex(data)) == b""
        published = []
        with anyio.fail_after(60):
            while not any("state/update/result" in topic for topic in published):
                message = await inbox.receive()
                batch = message.content if message.operation == "publishall" else [(message.resource, b"")]
                published += [topic for topic, _ in batch]
        inbox.close()
        assert sum(topic.endswith("/twin/update/result") for topic in published) == 2


@pytest.mark.parametrize(
    ("path", "data", "code", "text"),
    [
        ("v1alpha1.DeviceManagerService/MapperRegister", "0801122f0a026d30120676312e302e301a0676312e302e3022002a132f72756e2f6d61707065722f6d312e736f636b32026f6b", "UNKNOWN", "fail to register mapper m0 because the protocol is nil"),
        ("v1alpha1.DeviceManagerService/ReportDeviceStatus", "0a0670756d702d31120f0a0d0a0573706565641a040a023339", "UNKNOWN", "fail to get propertyType for property speed of device pump-1"),
        ("v1beta1.DeviceManagerService/ReportDeviceStatus", "0a0670756d702d311a0764656661756c741200", "UNKNOWN", "ReportDeviceStatusRequest does not have twin data"),
        ("v1beta1.DeviceManagerService/ReportDeviceStates", "0a0670756d702d31120764656661756c741a00", "UNKNOWN", "ReportDeviceStatesRequest is invalid data"),
        ("v1beta1.DeviceManagerService/ReportDeviceStatus", "ff", "INVALID_ARGUMENT", ""),
        ("v1alpha1.DeviceManagerService/ReportDeviceStatus", "0a0670756d702d31", "INVALID_ARGUMENT", ""),
        ("v1alpha1.DeviceManagerService/ReportDeviceStates", "", "UNIMPLEMENTED", ""),
    ],
)  # fmt: skip
async def test_bad_calls_are_refused_in_the_words_of_kubeedge(
    folder: Path, path: str, data: str, code: str, text: str
) -> None:
    async with edge(folder) as site:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await site.raw(f"/{path}", bytes.fromhex(data))
        assert failure.value.code().name == code
        assert not text or failure.value.details() == text


async def test_a_report_of_an_unknown_device_succeeds(folder: Path) -> None:
    async with edge(folder) as site:
        twin = {"propertyName": "speed", "reported": {"value": "1", "metadata": {"propertyType": "int"}}}
        request = {"deviceName": "pump-9", "reportedDevice": {"twins": [twin]}}
        assert await site.call("v1alpha1.DeviceManagerService/ReportDeviceStatus", request) == {}


async def test_too_many_calls_and_sockets_of_others_are_refused(folder: Path) -> None:
    async with edge(folder, dmiReportsPerSecond=1) as site:
        request = {"deviceName": "pump-1", "state": "online"}
        path = "v1beta1.DeviceManagerService/ReportDeviceStates"
        for _ in range(2):
            assert await site.call(path, request) == {}
        with pytest.raises(grpc.aio.AioRpcError, match="fail to report device status because of too many request"):
            await site.call(path, request)
        for address in (b"relative.sock", b"/" + b"x" * 200, b"\xff", b"/a\0b"):
            with pytest.raises(grpc.aio.AioRpcError, match="INVALID_ARGUMENT"):
                await site.register(GoMapper(f"{folder}/m1.sock"), address=address)
        mapper = GoMapper(f"{folder}/m1.sock")
        async with mapper.serve():
            os.chown(mapper.path, 12345, 12345)
            await site.register(mapper)
            await site.apply(model())
            metrics = site.rig.host.metrics
            await until(lambda: metrics.get_sample_value("edgesite_dmi_mappers_troubled"))
            assert not mapper.calls
