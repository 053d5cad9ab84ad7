"""The data plane against its real counterparts: redis-server, mariadbd, mosquitto; doubles over HTTP that keep every byte for the others."""

from __future__ import annotations

import logging
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pymysql
import pytest
from prometheus_client import CollectorRegistry

from edgesite.kube import json
from edgesite.kube.protowire import decode
from edgesite.mapper.driver import Device, Host, Property
from edgesite.mapper.push import Pusher, PushMeters, channel, mqtt
from edgesite.mapper.push.otlp import OTLP
from edgesite.net.http import HttpServer, Request, Response
from edgesite.net.real import RealClock, RealNet, RealThreads
from edgesite.testing.waiting import until
from edgesite.wire.mqtt.codec import Decoder, encode
from edgesite.wire.mqtt.packets import V3_1_1, Ack, Connack, Connect, Kind, Packet, Ping, Publish

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "eventbus"))
from mqtt_peers import free_port, mosquitto, run, subscriber

pytestmark = pytest.mark.anyio
AT_MS = 1_700_000_000_123
WALL = "2023-11-14 22:13:20"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Plane:
    """A pusher at work, and what it counts."""

    def __init__(self, host: Host, environ: dict[str, str]) -> None:
        self.registry = CollectorRegistry()
        self._pusher = Pusher(host, environ, PushMeters(self.registry))
        self.run = self._pusher.run

    def offer(self, push: dict[str, Any], *values: str, device: str = "hall", prop: str = "temperature") -> None:
        one = Property(prop, "float", False, push=push)
        for place, value in enumerate(values):
            self._pusher.offer(Device("default", device, "room", "virtual", {}, (one,)), one, value, AT_MS + place)

    def count(self, name: str, sink: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"edgesite_mapper_{name}_total", {"sink": sink, **labels}) or 0.0

    async def pushed(self, sink: str, count: int) -> None:
        await until(lambda: self.count("pushed", sink) >= count)


@asynccontextmanager
async def plane(**environ: str) -> AsyncGenerator[Plane]:
    async with AsyncExitStack() as stack:
        threads = RealThreads()
        stack.push_async_callback(threads.close)
        host = Host(RealNet(), RealClock(), threads, random.Random(1), logging.getLogger("push-test"))
        made = Plane(host, environ)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(made.run)
            yield made
            tasks.cancel_scope.cancel()


class Server:
    """An HTTP server that keeps what it gets and answers as it is told."""

    def __init__(self) -> None:
        self.got: list[Request] = []
        self.answers: list[Response] = []
        self.usual = Response(204, {}, b"")
        self.port = 0

    def handle(self, request: Request) -> Response:
        self.got.append(request)
        return self.answers.pop(0) if self.answers else self.usual

    def bodies(self) -> list[bytes]:
        return [one.body for one in self.got]


@asynccontextmanager
async def web() -> AsyncGenerator[Server]:
    made = Server()
    async with HttpServer(made.handle) as server:
        listener = await server.listen(RealNet(), "127.0.0.1:0")
        made.port = int(listener.address.rpartition(":")[2])
        yield made


@asynccontextmanager
async def program(*command: str) -> AsyncGenerator[Any]:
    """Run a server until the block ends; the block gets it, to end it before."""
    process = await anyio.open_process(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.aclose()


async def test_http_posts_a_form_for_each_value_over_a_connection_that_stays() -> None:
    async with web() as server, plane() as data:
        server.answers = [Response(503, {"Retry-After": "1"}, b"starting"), Response(400, {}, b"no")]
        push = {"http": {"hostName": "http://127.0.0.1", "port": server.port, "requestPath": "/in?x=1", "timeout": 5}}
        data.offer(push, "20", "21.5", "a&b=c d")
        await data.pushed("http", 2)
        assert server.bodies()[-2:] == [
            f"temperature=21.5&time={WALL}".encode(),
            f"temperature=a%26b%3Dc d&time={WALL}".encode(),
        ]
        assert data.count("push_dropped", "http", why="refused") == 1
        assert data.count("push_failures", "http") == 1
        last = server.got[-1]
        assert (last.method, last.target, last.headers.get("content-type")) == (
            "POST",
            "/in?x=1",
            "application/x-www-form-urlencoded",
        )


async def test_influxdb_gets_lines_in_batches_and_the_token() -> None:
    async with web() as server, plane(TOKEN="s3cret") as data:
        push = {
            "dbMethod": {
                "influxdb2": {
                    "influxdb2ClientConfig": {"url": f"http://127.0.0.1:{server.port}", "org": "my org", "bucket": "b"},
                    "influxdb2DataConfig": {"measurement": "m", "tag": {"room": "hall"}, "fieldKey": "t"},
                }
            }
        }
        data.offer(push, "1", "2", "3")
        await data.pushed("influxdb2", 3)
        assert b"".join(server.bodies()).decode().splitlines() == [
            f'm,room=hall t="{value}" {(AT_MS + place) * 1_000_000}' for place, value in enumerate("123")
        ]
        assert server.got[0].target == "/api/v2/write?bucket=b&org=my+org&precision=ns"
        assert server.got[0].headers.get("authorization") == "Token s3cret"


async def test_tdengine_makes_its_super_table_once_and_again_when_it_is_gone() -> None:
    async with web() as server, plane(USERNAME="root", PASSWORD="taosdata") as data:
        server.usual = Response(200, {}, b'{"code":0,"rows":1}')
        server.answers = [server.usual, Response(200, {}, b'{"code":9731,"desc":"Table does not exist"}')]
        push = {
            "dbMethod": {"TDEngine": {"TDEngineClientConfig": {"addr": f"127.0.0.1:{server.port}", "dbName": "db"}}}
        }
        data.offer(push, "20", device="hall-1")
        await data.pushed("tdengine", 1)
        words = [body.split(b" ")[0] for body in server.bodies()]
        assert words == [b"CREATE", b"INSERT", b"CREATE", b"INSERT"]
        assert server.bodies()[0].startswith(b"CREATE STABLE IF NOT EXISTS `default/hall_1` (ts timestamp, ")
        assert server.got[0].target == "/rest/sql/db"
        assert server.got[0].headers.get("authorization") == "Basic cm9vdDp0YW9zZGF0YQ=="
        server.answers = [Response(200, {}, b'{"code":9728,"desc":"syntax error"}')]
        data.offer(push, "21", device="hall-1")
        await until(lambda: data.count("push_dropped", "tdengine", why="refused") == 1)


async def test_opentelemetry_gets_gauges() -> None:
    async with web() as server, plane() as data:
        data.offer({"otel": {"endpointURL": f"http://127.0.0.1:{server.port}"}}, "20.5", "warm")
        await until(lambda: data.count("push_dropped", "otel", why="refused") == 1)
        assert data.count("pushed", "otel") == 1
        assert server.got[0].target == "/v1/metrics"
        assert server.got[0].headers.get("content-type") == "application/x-protobuf"
        [metrics] = decode(OTLP["Request"], server.got[0].body)["resource_metrics"]
        assert metrics["scope_metrics"][0]["metrics"][0]["name"] == "temperature"


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_mqtt_reaches_a_broker_that_comes_later_and_goes(tmp_path: Path, qos: int) -> None:
    port = free_port()
    push = {"mqtt": {"address": f"tcp://127.0.0.1:{port}", "topic": "plant/hall", "qos": qos, "retained": True}}
    async with plane() as data:
        data.offer(push, "19")
        await until(lambda: data.count("push_failures", "mqtt") >= 1)
        async with mosquitto(tmp_path, port), subscriber(port, "plant/#", 3, "-q", "2") as lines:
            await data.pushed("mqtt", 1)
            data.offer(push, "20", "21")
            assert [one.partition(" ")[2] for one in await lines()] == [
                f"time is {WALL}  plant/hall: {value}" for value in ("19", "20", "21")
            ]
        data.offer(push, "22")
        await until(lambda: data.count("push_failures", "mqtt") >= 2)
        async with mosquitto(tmp_path, port), subscriber(port, "plant/#", 1, "-q", "2") as lines:
            assert (await lines())[0].endswith(": 22")


class StrictBroker:
    """Closes the connection at a value that it does not allow, as brokers in clouds do, and keeps the others."""

    def __init__(self, poison: str) -> None:
        self.poison, self.got, self.connections = poison, list[str](), 0

    async def serve(self, stream: anyio.abc.SocketStream) -> None:
        self.connections += 1
        decoder = Decoder()
        async with stream:
            async for piece in stream:
                for packet in decoder.feed(piece):
                    if isinstance(packet, Publish):
                        value = packet.payload.decode().rpartition(" ")[2]
                        if value == self.poison:
                            return
                        self.got.append(value)
                    if (answer := self._answer(packet)) is not None:
                        await stream.send(encode(answer, V3_1_1))

    @staticmethod
    def _answer(packet: Packet) -> Packet | None:
        if isinstance(packet, Connect):
            return Connack()
        if isinstance(packet, Ping):
            return Ping(Kind.PINGRESP)
        return Ack(Kind.PUBACK, packet.packet_id) if isinstance(packet, Publish) and packet.qos else None


@pytest.mark.parametrize("qos", [0, 1])
async def test_a_value_that_the_broker_does_not_allow_costs_no_other(qos: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "FIRST_S", 0.01)
    broker = StrictBroker("13")
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    push = {"mqtt": {"address": f"tcp://127.0.0.1:{port}", "topic": "plant/hall", "qos": qos}}
    async with listener, plane() as data, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, broker.serve)
        data.offer(push, *map(str, range(30)))
        await data.pushed("mqtt", 29)
        assert data.count("push_dropped", "mqtt", why="refused") == 1
        wanted = [str(value) for value in range(30) if value != 13]
        assert list(dict.fromkeys(broker.got)) == wanted
        assert broker.got.count("0") == 2  # it was in the batch that was cut off, and that is all
        assert broker.got.count("20") == 1
        assert broker.connections == 1 + mqtt.BREAKS + 1
        tasks.cancel_scope.cancel()


async def test_redis_gets_sorted_sets_and_a_wrong_key_costs_no_other() -> None:
    port = free_port()
    server = shutil.which("redis-server") or "redis-server"
    options = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--requirepass", "s3cret")

    async def ask(*words: str) -> str:
        return await run("redis-cli", "-p", str(port), "-a", "s3cret", "--no-auth-warning", "-n", "2", *words)

    async with plane(PASSWORD="s3cret") as data:
        push = {"dbMethod": {"redis": {"redisClientConfig": {"addr": f"127.0.0.1:{port}", "db": 2, "poolsize": 3}}}}
        data.offer(push, "1")
        await until(lambda: data.count("push_failures", "redis") >= 1)
        async with program(server, *options) as running:
            await data.pushed("redis", 1)
            await ask("SET", "cellar", "a text")
            data.offer(push, "5", device="cellar")
            data.offer(push, "2", "3")
            await data.pushed("redis", 3)
            assert data.count("push_dropped", "redis", why="refused") == 1
            found = (await ask("ZRANGE", "hall", "0", "-1")).splitlines()
            assert [json.loads(one)["Value"] for one in found] == ["1", "2", "3"]
            assert (await ask("ZSCORE", "hall", found[0])).strip() == str(AT_MS)
            running.send_signal(signal.SIGKILL)
            await running.wait()
            data.offer(push, "4")
            await until(lambda: data.count("push_failures", "redis") >= 2)
        async with program(server, *options):
            await data.pushed("redis", 4)
            assert (await ask("ZCARD", "hall")).strip() == "1"


@asynccontextmanager
async def mariadb(folder: Path) -> AsyncGenerator[Callable[..., Any]]:
    """A MariaDB with a database ``plant``; the block gets a function that asks it."""
    where, socket = folder / "db", folder / "s"
    await run(
        "mariadb-install-db",
        "--no-defaults",
        f"--datadir={where}",
        "--auth-root-authentication-method=normal",
        "--user=root",
        "--skip-test-db",
        timeout_s=60,
    )
    options = [
        f"--datadir={where}",
        f"--socket={socket}",
        "--skip-networking",
        "--user=root",
        "--innodb-buffer-pool-size=8M",
    ]
    async with program(shutil.which("mariadbd", path="/usr/sbin:/usr/bin") or "mariadbd", "--no-defaults", *options):
        await until(socket.exists)

        def ask(statement: str, database: str | None = None) -> Any:
            connection = pymysql.connect(unix_socket=str(socket), user="root", database=database, autocommit=True)
            try:
                with connection.cursor() as cursor:
                    cursor.execute(statement)
                    return cursor.fetchall()
            finally:
                connection.close()

        ask("CREATE DATABASE plant")
        ask("CREATE USER edge@localhost IDENTIFIED BY 's3cret'")
        ask("GRANT ALL ON plant.* TO edge@localhost")
        yield ask


async def test_mysql_gets_a_table_for_each_property(tmp_path: Path) -> None:
    async with mariadb(tmp_path) as ask, plane(PASSWORD="s3cret") as data:
        client = {"addr": f"unix://{tmp_path / 's'}", "database": "plant", "userName": "edge"}
        push = {"dbMethod": {"mysql": {"mysqlClientConfig": client}}}
        data.offer(push, "20", "it's; 100%")
        data.offer(push, "x", prop="p" * 80)
        data.offer(push, "on", prop="heating")
        await data.pushed("mysql", 3)
        assert data.count("push_dropped", "mysql", why="refused") == 1
        rows = ask("SELECT id, ts, field FROM `default/hall/temperature` ORDER BY id", "plant")
        assert [(row[0], str(row[1]), row[2]) for row in rows] == [(1, WALL, "20"), (2, WALL, "it's; 100%")]
        ask("DROP TABLE `default/hall/heating`", "plant")
        data.offer(push, "off", prop="heating")
        await data.pushed("mysql", 4)
        assert ask("SELECT field FROM `default/hall/heating`", "plant") == (("off",),)
