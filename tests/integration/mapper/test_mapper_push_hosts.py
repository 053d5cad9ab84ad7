"""``pushMethod`` of a device on its whole way, to a plugin of the edge and over DMI: values reach their servers, and the cloud hears nothing of them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mapper_edge import Mapper, edge

from edgesite.net.http import HttpServer, Request, Response
from edgesite.net.real import RealNet
from edgesite.testing.mapperrig import Machine, pump_device, pump_model
from edgesite.testing.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short: those of sockets have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="map") as name:
        yield Path(name)


def pushed_device(port: int) -> dict[str, Any]:
    at = f"127.0.0.1:{port}"
    influx = {
        "influxdb2ClientConfig": {"url": f"http://{at}", "org": "o", "bucket": "b"},
        "influxdb2DataConfig": {"measurement": "m", "tag": {"hostname": "pump one"}, "fieldKey": "t"},
    }
    device = pump_device(cycle=50)
    device["spec"]["properties"][1] |= {
        "reportToCloud": False,
        "pushMethod": {
            "http": {"hostName": "http://127.0.0.1", "port": port, "requestPath": "/in", "timeout": 5},
            "dbMethod": {
                "influxdb2": influx,
                "TDEngine": {"TDEngineClientConfig": {"addr": at, "dbName": "plant"}},
            },
        },
    }
    return device


@pytest.mark.parametrize("kind", ["plugin", "v1beta1"])
async def test_values_go_straight_to_their_servers(folder: Path, kind: str) -> None:
    got: dict[str, Request] = {}

    def answer(request: Request) -> Response:
        got.setdefault(request.path, request)
        return Response(200, {}, b'{"code":0}')

    mapper = Mapper(kind, folder, Machine())
    async with HttpServer(answer) as server:
        listener = await server.listen(RealNet(), "127.0.0.1:0")
        async with edge(folder, mapper.plugin) as site, mapper.serve():
            await site.apply(pump_model())
            await site.apply(pushed_device(int(listener.address.rpartition(":")[2])))
            await site.reported("speed", "40")
            await until(lambda: {"/in", "/api/v2/write", "/rest/sql/plant"} <= got.keys())
            assert site.values("temperature") == []
    assert got["/in"].body.startswith(b"temperature=20.5&time=")
    assert got["/api/v2/write"].body.startswith(b'm,hostname=pump\\ one t="20.5" ')
    assert got["/rest/sql/plant"].body.startswith(b"CREATE STABLE IF NOT EXISTS `default/pump_1` ")
