"""A mapper at edges that are not ours, played by grpcio: older versions, refusals, limits, restarts; and what its program says of bad settings."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import grpc
import pytest
from prometheus_client import CollectorRegistry

from edgesite.edge.dmi.convert import device_message, model_message
from edgesite.kube.dmi.messages import tables
from edgesite.kube.protowire import decode, encode
from edgesite.mapper import dmi, program, reports
from edgesite.mapper.dmi import DmiEnd, Identity
from edgesite.mapper.metrics import Meters
from edgesite.testing.mapperrig import Machine, driver_host, pump_device, pump_model

pytestmark = pytest.mark.anyio
UNKNOWN, UNIMPLEMENTED = grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNIMPLEMENTED
Refusal = tuple[grpc.StatusCode, str]


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="map") as name:
        yield Path(name)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait as long between attempts as a test may."""
    monkeypatch.setattr(dmi, "LOOK_S", 0.05)
    monkeypatch.setattr(dmi, "FIRST_S", 0.05)
    monkeypatch.setattr(reports, "FIRST_S", 0.05)


class OldEdge(grpc.GenericRpcHandler):  # type: ignore[misc]
    """An edge of some version. ``refuse`` gives a status for a method, or None."""

    def __init__(self, path: Path, version: str) -> None:
        self.path, self.version = path, version
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.refuse: Callable[[str], Refusal | None] = lambda method: None
        self._came = anyio.Event()

    @asynccontextmanager
    async def serve(self) -> AsyncGenerator[None]:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((self,))
        server.add_insecure_port(f"unix:{self.path}")
        await server.start()
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await server.stop(None)
                await anyio.Path(self.path).unlink(missing_ok=True)

    def service(self, details: Any) -> Any:
        version, _, method = details.method.strip("/").partition(".DeviceManagerService/")
        if version != self.version:
            return None  # grpcio answers UNIMPLEMENTED
        return grpc.unary_unary_rpc_method_handler(partial(self._answer, method))

    async def _answer(self, method: str, data: bytes, context: Any) -> bytes:
        if (refusal := self.refuse(method)) is not None:
            await context.abort(*refusal)
        known = tables(self.version)
        self.calls.append((method, decode(known[f"{method}Request"], data)))
        self._came.set()
        self._came = anyio.Event()
        if method != "MapperRegister":
            return b""
        objects = {
            "modelList": [model_message(known, self.version, pump_model())],
            "deviceList": [device_message(known, self.version, pump_device(desired="55", cycle=50))],
        }
        return encode(known["MapperRegisterResponse"], objects)

    async def until(self, wanted: Callable[[str, dict[str, Any]], bool]) -> dict[str, Any]:
        with anyio.fail_after(60):
            while True:
                for method, request in self.calls:
                    if wanted(method, request):
                        return request
                await self._came.wait()

    def reported(self, prop: str, value: str) -> Callable[[str, dict[str, Any]], bool]:
        return lambda method, request: any(
            one["propertyName"] == prop and one["reported"]["value"] == value
            for one in request.get("reportedDevice", {}).get("twins", [])
        )


@asynccontextmanager
async def mapper(folder: Path, machine: Machine, version: Any = "auto") -> AsyncGenerator[DmiEnd]:
    async with driver_host() as host, anyio.create_task_group() as tasks:
        end = DmiEnd(Identity("m1", "test", f"{folder}/m1.sock"), f"{folder}/dmi.sock", host, version=version)
        await tasks.start(partial(end.run, machine.make, Meters(CollectorRegistry())))
        yield end
        tasks.cancel_scope.cancel()


async def test_an_edge_of_v1_12_is_spoken_to_in_its_version(folder: Path) -> None:
    edge, machine = OldEdge(folder / "dmi.sock", "v1alpha1"), Machine()
    async with edge.serve(), mapper(folder, machine) as end:
        request = await edge.until(edge.reported("speed", "55"))
        assert end.version == "v1alpha1"
        assert request["deviceName"] == "pump-1"
        twin = next(one for one in request["reportedDevice"]["twins"] if one["propertyName"] == "speed")
        assert twin["reported"]["metadata"]["propertyType"] == "int"  # without it KubeEdge refuses
        assert int(twin["reported"]["metadata"]["timestamp"]) > 1_600_000_000_000
        assert machine.writes == [("speed", 55)]


async def test_states_are_left_out_where_there_is_no_call_for_them(folder: Path) -> None:
    """v1.15 to v1.17."""
    edge = OldEdge(folder / "dmi.sock", "v1beta1")
    tried: list[str] = []

    def refuse(method: str) -> Refusal | None:
        tried.append(method)
        return (UNIMPLEMENTED, "unknown method ReportDeviceStates") if method == "ReportDeviceStates" else None

    edge.refuse = refuse
    machine = Machine()
    async with edge.serve(), mapper(folder, machine):
        await edge.until(edge.reported("speed", "55"))
        machine.values["temperature"] = 33.5
        await edge.until(edge.reported("temperature", "33.5"))
        assert tried.count("ReportDeviceStates") == 1


async def test_one_call_a_second_is_enough(folder: Path) -> None:
    """KubeEdge v1.12 refuses more; the newest values get there when it takes them again."""
    edge, machine = OldEdge(folder / "dmi.sock", "v1alpha1"), Machine()
    left = 3

    def refuse(method: str) -> Refusal | None:
        nonlocal left
        if method == "MapperRegister":
            return None
        left -= 1
        if left < 0 and left > -5:
            return UNKNOWN, "fail to report device status because of too many request: slow"
        return None

    edge.refuse = refuse
    async with edge.serve(), mapper(folder, machine):
        for value in range(60, 70):
            machine.values["temperature"] = value
            await anyio.sleep(0.05)
        await edge.until(edge.reported("temperature", "69"))
        assert [method for method, _ in edge.calls].count("MapperRegister") == 1


async def test_it_waits_for_an_edge_and_registers_with_each_new_one(folder: Path) -> None:
    edge, machine = OldEdge(folder / "dmi.sock", "v1beta1"), Machine()
    async with mapper(folder, machine) as end:
        assert not end.registered.is_set()
        for round_ in (1, 2):
            edge.calls.clear()
            machine.values["temperature"] = 10 + round_
            async with edge.serve():
                first = await edge.until(lambda method, request: method == "MapperRegister")
                assert first["mapper"]["address"] == f"{folder}/m1.sock".encode()
                assert first["withData"] is True
                await edge.until(edge.reported("temperature", str(10 + round_)))
        assert machine.connections == 1  # the device was served all along


async def test_an_edge_that_refuses_the_registration_is_asked_again(folder: Path, caplog: Any) -> None:
    edge = OldEdge(folder / "dmi.sock", "v1beta1")
    tries = 0

    def refuse(method: str) -> Refusal | None:
        nonlocal tries
        tries += method == "MapperRegister"
        return (UNKNOWN, "fail to register mapper because of too many request: slow") if tries < 3 else None

    edge.refuse = refuse
    async with edge.serve(), mapper(folder, Machine()):
        await edge.until(edge.reported("speed", "55"))
    assert len([one for one in caplog.records if "takes no mapper" in one.message]) == 1


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--socket", "m.sock"], "--socket m.sock: an absolute path"),
        (["--edge-socket", "/" + "x" * 107], "an absolute path of at most 107 bytes"),
        (["--http", "7777"], "--http 7777: it is written as 127.0.0.1:7777"),
        (["--config-file", "/nonexistent.yaml"], "/nonexistent.yaml"),
    ],
)
def test_bad_settings_are_said(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.run(Machine().make, name="m1", argv=argv) == 2
    assert said in capsys.readouterr().err


def test_a_socket_that_cannot_be_had_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--socket", f"{folder}/none/m.sock", "--edge-socket", f"{folder}/dmi.sock", "--http", ""]
    assert program.run(Machine().make, name="m1", argv=argv) == 1
    assert "m.sock" in capsys.readouterr().err


def test_a_file_of_kubeedges_mappers_is_read(folder: Path) -> None:
    file = folder / "config.yaml"
    file.write_text(
        "grpc_server: {socket_path: /etc/kubeedge/modbus.sock}\n"
        "common: {name: Modbus-mapper, version: v1.13.0, api_version: v1.0.0, protocol: modbus, address: 127.0.0.1,"
        " edgecore_sock: /etc/kubeedge/dmi.sock, http_port: '7778'}\n"
    )
    arguments = program._parser("m1").parse_args(["--config-file", str(file), "--http", "[::1]:80"])
    found = program._settings(arguments, "m1", "test")
    assert found.identity == Identity("Modbus-mapper", "modbus", "/etc/kubeedge/modbus.sock", "v1.13.0", "v1.0.0")
    assert (found.edge, found.http) == ("/etc/kubeedge/dmi.sock", "[::1]:80")
    for text in ("[]", "common: 7", "common: {name: 'a b'}", "common: {name: [a]}", "{"):
        file.write_text(text)
        arguments = program._parser("m1").parse_args(["--config-file", str(file)])
        with pytest.raises(program._Usage):
            program._settings(arguments, "m1", "test")
