"""Devices by HTTP: the paths, members and texts of KubeEdge's mapper-framework, with and without a device that answers."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from prometheus_client import CollectorRegistry

from edgesite.kube import json
from edgesite.mapper import worker
from edgesite.mapper.driver import DriverError
from edgesite.mapper.fleet import Fleet
from edgesite.mapper.metrics import Meters
from edgesite.mapper.rest import Rest
from edgesite.net.client import HttpClient
from edgesite.testing.mapperrig import Edge, Machine, driver_host, pump

pytestmark = pytest.mark.anyio
BASE = "/api/v1"
METHODS = [{"name": "turn", "propertyNames": ["speed"]}, {"name": "odd", "propertyNames": ["temperature"]}]


class Asker:
    def __init__(self, client: HttpClient, fleet: Fleet, address: str) -> None:
        self.client, self.fleet, self.address = client, fleet, address

    async def status_of(self, path: str, headers: dict[str, str]) -> int:
        """Ask as a browser does, with a Host of its own."""
        host, _, port = self.address.rpartition(":")
        lines = [f"GET {path} HTTP/1.1", "connection: close"]
        lines += [f"{name}: {value}" for name, value in ({"host": self.address} | headers).items()]
        async with await anyio.connect_tcp(host, int(port)) as stream:
            await stream.send("\r\n".join([*lines, "", ""]).encode())
            return int((await stream.receive()).split()[1])

    async def text(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
        answer = await self.client.request(method, path, {name.replace("_", "-"): one for name, one in headers.items()})
        return answer.status, bytes(answer.body).decode()

    async def json(self, path: str, method: str = "GET") -> dict[str, Any]:
        answer = await self.client.request(method, BASE + path, {})
        assert answer.status == 200, answer.body
        assert answer.headers.get("content-type") == "application/json"
        body: dict[str, Any] = json.loads(answer.body)
        assert body.pop("apiVersion") == "v1"
        assert body.pop("statusCode") == 200
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", body.pop("timeStamp"))
        return body


@asynccontextmanager
async def serving(machine: Machine, **changed: Any) -> AsyncGenerator[Asker]:
    registry = CollectorRegistry()
    changed.setdefault("methods", METHODS)
    async with driver_host() as host, Fleet(host, Edge(), Meters(registry)) as fleet:
        fleet.put(pump(cycle=60_000, **changed), machine.make)
        async with Rest(fleet, host, "127.0.0.1:0", registry) as rest:
            client = HttpClient(host.net, rest.address)
            try:
                yield Asker(client, fleet, rest.address)
            finally:
                with anyio.CancelScope(shield=True):
                    await client.close()


async def test_what_kubeedges_mappers_answer() -> None:
    machine = Machine()
    async with serving(machine) as ask:
        assert await ask.json("/ping") == {"Message": "This is v1 API, the server is running normally."}
        for path in ("/device/default/pump-1/speed", "/device/pump-1/speed"):  # the second as in v1.15
            data = (await ask.json(path))["Data"]
            assert data.pop("TimeStamp") > 1_600_000_000_000
            assert data == {
                "DeviceName": "pump-1",
                "PropertyName": "speed",
                "Namespace": "default",
                "Value": "40",
                "Type": "int",
            }
        machine.values["speed"] = 41  # it is read now, not taken from the last cycle
        assert (await ask.json("/device/default/pump-1/speed"))["Data"]["Value"] == "41"
        methods = (await ask.json("/devicemethod/default/pump-1"))["Data"]["Methods"]
        assert methods[0] == {
            "Name": "turn",
            "Path": "/api/v1/devicemethod/default/pump-1/turn/{propertyName}/{data}",
            "Parameters": [{"PropertyName": "speed", "ValueType": "int"}],
        }
        assert await ask.json("/devicemethod/default/pump-1/turn/speed/55") == {
            "Message": "Write data 55 to device default/pump-1 successfully."
        }
        assert machine.writes == [("speed", 55)]
        model = await ask.json("/meta/model/default/pump-1")
        assert (model["id"], model["name"], model["namespace"]) == ("default/pump", "pump", "default")
        assert model["properties"][0] == {
            "name": "speed",
            "dataType": "INT",
            "accessMode": "ReadWrite",
            "minimum": "0",
            "maximum": "100",
        }


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/device/default/none/speed", 500, "Get device data error: not found device default/none"),
        ("/device/default/pump-1/none", 500, "Get device data error: device pump-1 has no property none"),
        ("/devicemethod/default/none", 500, "Get device method error: not found device default/none"),
        ("/devicemethod/default/none/turn/speed/1", 500, "Write device data error: not found device default/none"),
        (
            "/devicemethod/default/pump-1/stop/speed/1",
            500,
            "Write device data error: device default/pump-1 has no method stop for property speed",
        ),
        (
            "/devicemethod/default/pump-1/odd/temperature/1",
            500,
            "Write device data error: property temperature is read-only",
        ),
        ("/devicemethod/default/pump-1/turn/speed/101", 500, "Write device data error: 101 is above 100"),
        ("/devicemethod/default/pump-1/turn/speed/a%2Fb", 500, "Write device data error: 'a/b' is no int"),
        ("/meta/model/default/none", 500, "Get device error: not found device default/none"),
        ("/database/default/pump-1", 503, "The database is not enabled. Please configure mapper and try again"),
        ("/nothing", 404, "404 page not found"),
    ],
)
async def test_errors_are_plain_texts(path: str, status: int, text: str) -> None:
    machine = Machine()
    async with serving(machine) as ask:
        assert await ask.text(BASE + path) == (status, text + "\n")
        assert machine.writes == []


async def test_a_device_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "CALL_S", 0.1)
    machine = Machine()
    async with serving(machine) as ask:
        await ask.json("/device/default/pump-1/speed")

        def fail(call: str, name: str) -> Any:
            if call == "read":
                raise DriverError("register 7: illegal address")

        machine.trouble = fail
        path = f"{BASE}/device/default/pump-1/speed"
        text = "Get device data error: get device data failed: register 7: illegal address\n"
        assert await ask.text(path) == (500, text)
        machine.trouble = lambda call, name: anyio.sleep_forever()
        status, text = await ask.text(path)
        assert (status, "no answer within" in text) == (500, True)
        status, text = await ask.text(path)  # it is not connected any more: at once
        assert (status, "get device data failed" in text) == (500, True)
        assert await ask.json("/ping")


async def test_many_who_ask_wait_in_turn_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    async with serving(machine) as ask:
        await ask.json("/device/default/pump-1/speed")
        held = anyio.Event()
        machine.trouble = lambda call, name: held.wait() if call == "read" else None
        answers: list[str] = []
        known = ask.fleet.get(("default", "pump-1"))
        assert known is not None

        async def read() -> None:
            try:
                answers.append((await known.read("speed"))[1])
            except DriverError as exc:
                answers.append(str(exc))

        async with anyio.create_task_group() as tasks:
            for _ in range(worker.REQUESTS + 10):
                tasks.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            assert set(answers) == {"too many requests wait for this device"}
            held.set()
        assert answers.count("40") >= worker.REQUESTS


async def test_pages_of_other_sites_reach_no_device() -> None:
    machine = Machine()
    async with serving(machine) as ask:
        path = f"{BASE}/devicemethod/default/pump-1/turn/speed/1"
        status, _ = await ask.text(path, sec_fetch_site="cross-site")
        assert (status, machine.writes) == (403, [])
        for header in (
            {"origin": "http://evil.example"},
            {"origin": "null"},
            {"referer": "http://evil.example/page"},
            {"host": "evil.example:7777"},
            {"host": "127.0.0.1.evil.example"},
            {"origin": "http://evil.example:7777", "host": "evil.example:7777", "sec-fetch-site": "same-origin"},
        ):
            assert await ask.status_of(path, header) == 403, header
        assert machine.writes == []
        for header in (
            {"host": "localhost:7777"},
            {"host": "[::1]:7777"},
            {"host": "10.0.0.1", "origin": "http://10.0.0.1"},
        ):
            assert await ask.status_of(f"{BASE}/ping", header) == 200, header
        assert (await ask.text(path, "DELETE"))[0] == 405
        assert (await ask.text(path, "PUT"))[0] == 200


async def test_health_and_metrics() -> None:
    async with serving(Machine()) as ask:
        await ask.json("/device/default/pump-1/speed")
        assert await ask.text("/healthz") == (200, "ok")
        status, text = await ask.text("/metrics")
        assert status == 200
        assert 'edgesite_mapper_devices{state="online"} 1.0' in text
        assert 'edgesite_mapper_calls_total{call="connect",outcome="ok",protocol="test"} 1.0' in text
