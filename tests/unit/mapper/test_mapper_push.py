"""The queue before a sink under virtual time; what each sink writes, byte by byte; what is no ``pushMethod``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from edgesite.kube import json
from edgesite.kube.protowire import decode
from edgesite.mapper.driver import Device, Host, Property
from edgesite.mapper.push import Pusher, PushMeters
from edgesite.mapper.push.channel import IDLE_S, MOST, Channel
from edgesite.mapper.push.influxdb import line
from edgesite.mapper.push.mqtt import payload
from edgesite.mapper.push.mysql import table
from edgesite.mapper.push.otlp import OTLP, request
from edgesite.mapper.push.redis import command, member
from edgesite.mapper.push.routes import routes_of
from edgesite.mapper.push.sink import Away, Outside, Refused, Route, Sample
from edgesite.mapper.push.tdengine import insert

AT_MS = 1_700_000_000_123


def sample(value: str = "21.5", prop: str = "temperature", detail: Any = None) -> Sample:
    return Sample("default", "hall-1", prop, "float", value, AT_MS, detail)


class Shelf:
    """A sink in memory that does what it is told to do next."""

    most = 10

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.batches: list[int] = []
        self.next: list[Exception] = []
        self.poison = ""
        self.closed = False

    async def send(self, batch: Sequence[Sample]) -> None:
        await anyio.sleep(0.01)
        if self.next:
            raise self.next.pop(0)
        if any(one.value == self.poison for one in batch):
            raise Refused("poison")
        self.batches.append(len(batch))
        self.taken += [one.value for one in batch]

    async def close(self) -> None:
        self.closed = True


class Desk:
    """A channel before a shelf."""

    def __init__(self, host: Host) -> None:
        self.shelf = Shelf()
        self.registry = CollectorRegistry()
        route = Route("shelf", 1, lambda _: self.shelf)
        self.channel = Channel(route, Outside(host, {}), PushMeters(self.registry))

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"edgesite_mapper_{name}_total", {"sink": "shelf", **labels}) or 0.0

    async def work(self, feed: Callable[[], Any] = lambda: None) -> None:
        """Until nothing has come for long enough."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.channel.run)
            await anyio.sleep(0.005)
            feed()
        await self.channel.close()


@pytest.mark.anyio
async def test_values_that_come_while_others_are_sent_go_together(host: Host) -> None:
    desk = Desk(host)
    for n in range(25):
        desk.channel.put(sample(str(n)))
    await desk.work()
    assert desk.shelf.taken == [str(n) for n in range(25)]
    assert desk.shelf.batches == [10, 10, 5]
    assert (desk.count("pushed"), desk.shelf.closed) == (25, True)


@pytest.mark.anyio
async def test_an_absent_sink_is_tried_again_less_often_and_gets_all_in_order(host: Host) -> None:
    desk = Desk(host)
    desk.shelf.next = [Away("no"), OSError("broken"), Away("busy", 90.0), TimeoutError()]
    began = host.clock.monotonic()
    for n in range(15):
        desk.channel.put(sample(str(n)))
    await desk.work()
    assert desk.shelf.taken == [str(n) for n in range(15)]
    assert desk.count("push_failures") == 4
    assert 0.5 + 1 + 60 + 4 <= host.clock.monotonic() - began - IDLE_S <= 1 + 2 + 60 + 8 + 1


@pytest.mark.anyio
async def test_the_oldest_make_room_while_the_sink_is_away(host: Host) -> None:
    desk = Desk(host)
    desk.shelf.next = [Away("no")] * 3
    await desk.work(lambda: [desk.channel.put(sample(str(n))) for n in range(MOST + 50)])
    assert desk.shelf.taken[-1] == str(MOST + 49)
    assert desk.count("push_dropped", why="full") == 50
    assert desk.count("pushed") == MOST == len(desk.shelf.taken)


@pytest.mark.anyio
async def test_one_refused_value_costs_no_other(host: Host) -> None:
    desk = Desk(host)
    desk.shelf.poison = "3"
    for n in range(10):
        desk.channel.put(sample(str(n)))
    await desk.work()
    assert sorted(desk.shelf.taken) == sorted(set(map(str, range(10))) - {"3"})
    assert (desk.count("push_dropped", why="refused"), desk.count("pushed")) == (1, 9)


@pytest.mark.anyio
async def test_what_a_sink_was_rid_of_is_not_sent_again(host: Host) -> None:
    desk = Desk(host)

    class Counting(Shelf):
        taken_places = (4, 3)
        taken: Any = 0

        async def send(self, batch: Sequence[Sample]) -> None:
            self.seen = [*getattr(self, "seen", []), [one.value for one in batch]]
            if len(self.seen) <= 2:
                self.taken = self.taken_places[len(self.seen) - 1]
                raise Away("cut off", refused="" if len(self.seen) == 1 else "never")
            self.taken = len(batch)

    shelf = desk.shelf = Counting()
    for n in range(10):
        desk.channel.put(sample(str(n)))
    await desk.work()
    assert shelf.seen == [[*"0123456789"], [*"456789"], [*"89"]]
    assert (desk.count("pushed"), desk.count("push_dropped", why="refused")) == (9, 1)


@pytest.mark.anyio
async def test_a_sink_that_cannot_be_made_or_closed_ends_no_other(host: Host) -> None:
    class Broken(Shelf):
        async def close(self) -> None:
            raise RuntimeError("close")

    made: list[str] = []
    shelf = Broken()

    def opened(outside: Outside) -> Any:
        made.append("x")
        if len(made) == 1:
            raise RuntimeError("open")
        return shelf

    pusher = Pusher(host, {}, PushMeters(CollectorRegistry()), routes=lambda push: [Route("odd", 1, opened)])
    prop = Property("p", "int", True, push={"x": {}})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pusher.run)
        for value in ("1", "2"):
            pusher.offer(Device("default", "d", "m", "test", {}, (prop,)), prop, value, AT_MS)
            await anyio.sleep(1)
        tasks.cancel_scope.cancel()
    assert shelf.taken == ["2"]


@pytest.mark.anyio
async def test_places_that_are_refused_and_bugs_are_counted(host: Host) -> None:
    desk = Desk(host)
    desk.shelf.next = [Refused("two of them", [1, 2]), RuntimeError("a bug")]
    for n in range(20):
        desk.channel.put(sample(str(n)))
    await desk.work()
    assert desk.count("pushed") == 8
    assert (desk.count("push_dropped", why="refused"), desk.count("push_dropped", why="failed")) == (2, 10)


@pytest.mark.anyio
async def test_a_pusher_takes_anything_and_says_what_is_wrong_once(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    registry = CollectorRegistry()
    pusher = Pusher(host, {}, PushMeters(registry))
    push = {"mqtt": {"address": "tcp://127.0.0.1:1", "topic": "with/#/wildcard"}}
    wrong = Property("p", "int", False, push=push)
    device = Device("default", "d", "m", "virtual", {}, (wrong,))
    for _ in range(3):
        pusher.offer(device, wrong, "1", AT_MS)
    said = [one.getMessage() for one in caplog.records]
    assert len(said) == 1
    assert "pushMethod.mqtt: topic" in said[0]
    labels = {"sink": "unknown", "why": "misconfigured"}
    assert registry.get_sample_value("edgesite_mapper_push_dropped_total", labels) == 3


@pytest.mark.anyio
async def test_what_waits_at_the_end_is_counted(host: Host) -> None:
    desk = Desk(host)
    desk.shelf.next = [Away("no")] * 100
    for n in range(12):
        desk.channel.put(sample(str(n)))
    with anyio.move_on_after(30):
        await desk.channel.run()
    assert len(desk.channel) == 12
    await desk.channel.close()
    assert desk.count("push_dropped", why="ended") == 12


@pytest.mark.anyio
async def test_a_sink_that_was_given_up_is_opened_again(host: Host) -> None:
    shelf = Shelf()
    routes = [Route("shelf", 1, lambda _: shelf)]
    prop = Property("p", "int", False, push={"shelf": {}})
    device = Device("default", "d", "m", "virtual", {}, (prop,))
    pusher = Pusher(host, {}, PushMeters(CollectorRegistry()), routes=lambda _: routes)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pusher.run)
        for value in ("1", "2"):
            pusher.offer(device, prop, value, AT_MS)
            await anyio.sleep(IDLE_S + 10)
            assert shelf.closed
            shelf.closed = False
        tasks.cancel_scope.cancel()
    assert shelf.taken == ["1", "2"]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"http": {"port": 1}}, "hostName is missing"),
    ({"http": {"hostName": "ftp://x"}}, "no URL"),
    ({"http": {"hostName": "http://x", "port": 70000}}, "port"),
    ({"http": {"hostName": "http://x", "requestPath": "/a b"}}, "requestPath"),
    ({"http": [1]}, "no object"),
    ({"mqtt": {"address": "http://x", "topic": "t"}}, "address"),
    ({"mqtt": {"address": "tcp://x:1", "topic": "t", "qos": 3}}, "qos"),
    ({"dbMethod": {"influxdb2": {"influxdb2ClientConfig": {"url": "http://x"}}}}, "bucket is missing"),
    ({"dbMethod": {"redis": {"redisClientConfig": {"addr": "nowhere"}}}}, "expected host:port"),
    ({"dbMethod": {"TDEngine": {"TDEngineClientConfig": {"addr": "x/y", "dbName": "d"}}}}, "addr"),
    ({"dbMethod": {"mysql": {"mysqlClientConfig": {"addr": "x", "database": "d"}}}}, "userName is missing"),
    ({"otel": {"endpointURL": "x\ny"}}, "endpointURL"),
]


@pytest.mark.parametrize(("push", "why"), WRONG)
def test_what_is_wrong_is_named(push: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        routes_of(push)
    assert str(caught.value).startswith("pushMethod.")


def test_methods_that_are_not_ours_lead_nowhere() -> None:
    assert routes_of({"anomalyDetection": {"x": 1}, "dbMethod": {}}) == []


def test_properties_share_connections() -> None:
    def key(topic: str) -> Any:
        return routes_of({"mqtt": {"address": "tcp://broker:1883", "topic": topic}})[0].key

    assert key("a") == key("b") != routes_of({"mqtt": {"address": "tcp://other:1883", "topic": "a"}})[0].key
    both = {
        "http": {"hostName": "http://h", "port": 8080},
        "dbMethod": {"tdengine": {"TDEngineClientConfig": {"addr": "h", "dbName": "d"}}},
    }
    assert [one.kind for one in routes_of(both)] == ["http", "tdengine"]


def test_what_sinks_write() -> None:
    [influx] = routes_of(
        {
            "dbMethod": {
                "influxdb2": {
                    "influxdb2ClientConfig": {"url": "http://h:8086", "org": "o", "bucket": "b"},
                    "influxdb2DataConfig": {
                        "measurement": "room one",
                        "tag": {"unit": "C", "site": "a,b=c"},
                        "fieldKey": "temperature",
                    },
                }
            }
        }
    )
    assert line(sample('2"1', detail=influx.detail)) == (
        'room\\ one,site=a\\,b\\=c,unit=C temperature="2\\"1" 1700000000123000000\n'
    )
    [mqtt] = routes_of({"mqtt": {"address": "tcp://h:1", "topic": "a/b"}})
    assert payload(sample(detail=mqtt.detail)) == b"time is 2023-11-14 22:13:20  a/b: 21.5"
    assert json.loads(member(sample())) == {
        "DeviceName": "hall-1",
        "PropertyName": "temperature",
        "Namespace": "default",
        "Value": "21.5",
        "Type": "float",
        "TimeStamp": AT_MS,
    }
    assert command("ZADD", "a", b"\xff") == b"*3\r\n$4\r\nZADD\r\n$1\r\na\r\n$1\r\n\xff\r\n"
    assert table(sample(prop="a`b")) == "`default/hall-1/a``b`"
    assert insert([sample("it's")]) == (
        "INSERT INTO `default/hall_1/temperature` USING `default/hall_1` TAGS ('temperature') VALUES "
        "('2023-11-14T22:13:20.123Z', 'default/hall-1', 'temperature', 'it\\'s', 'float')"
    )


def test_otlp_has_gauges_by_device() -> None:
    message, refused = request([sample(), sample("cold"), sample("true", "heating")])
    assert refused == [1]
    [found] = decode(OTLP["Request"], message)["resource_metrics"]
    assert found["resource"]["attributes"] == [{"key": "device.id", "value": {"string_value": "default/hall-1"}}]
    metrics = found["scope_metrics"][0]["metrics"]
    assert [(one["name"], one["gauge"]["data_points"][0]["as_double"]) for one in metrics] == [
        ("temperature", 21.5),
        ("heating", 1.0),
    ]
    assert metrics[0]["gauge"]["data_points"][0]["time_unix_nano"] == AT_MS * 1_000_000


@given(st.text())
def test_no_value_breaks_out_of_its_quotes(value: str) -> None:
    statement = insert([sample(value)])
    quoted = statement.split("'temperature', '", 1)[1].rsplit("', 'float')", 1)[0]
    assert quoted.replace("\\\\", "").replace("\\'", "").count("'") == 0
    written = line(sample(value, detail="m f="))
    inner = written[len('m f="') :].rsplit('" ', 1)[0]
    assert inner.replace("\\\\", "").replace('\\"', "").count('"') == 0
