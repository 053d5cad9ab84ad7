"""The embedded broker with the clients that users have: paho-mqtt and mosquitto's in all versions; who may come in; certificates; a disk that
refuses, a power cut, slow and hostile clients."""

from __future__ import annotations

import random
import ssl
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest
from mqtt_peers import free_port, publish, run, subscriber
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from raw_client import RawClient

from edgesite.context import Section
from edgesite.edge.eventbus.broker.journal import SqliteJournal
from edgesite.edge.eventbus.broker.server import BrokerServer
from edgesite.edge.eventbus.broker.settings import Who, read_settings
from edgesite.net.pki import CLIENT, RealPki
from edgesite.net.real import RealClock, RealDisk, RealNet, RealThreads
from edgesite.testing.busrig import event_bus
from edgesite.testing.waiting import until
from edgesite.wire.mqtt import properties as props
from edgesite.wire.mqtt.broker import Broker
from edgesite.wire.mqtt.packets import Publish, Reason
from edgesite.wire.mqtt.session import Limits

pytestmark = pytest.mark.anyio
KEEP = {props.SESSION_EXPIRY: 300}


class Serving:
    def __init__(self, broker: Broker, port: int) -> None:
        self.broker, self.port = broker, port


@asynccontextmanager
async def serving(
    folder: Path, *, limits: Limits = Limits(), disk: RealDisk | None = None, given: dict[str, Any] | None = None
) -> AsyncGenerator[Serving]:
    """Run a broker on a free port; its end is abrupt: what was not stored is lost."""
    port, clock, threads = free_port(), RealClock(), RealThreads()
    settings = None
    if given is not None:
        settings = read_settings(Section(event_bus(**{"mqttServerInternal": f"tcp://127.0.0.1:{port}", **given})))
        port = int(settings.address.rpartition(":")[2])
    worker = threads.worker("mqtt")
    journal = SqliteJournal(disk or RealDisk(), folder / "mqtt.db", worker, clock)
    await journal.open()
    broker = Broker(limits, random.Random(1).getrandbits, journal=journal, acl=settings.acl if settings else None)
    await journal.load(broker)
    server = BrokerServer(broker, settings.who if settings else Who(), clock=clock, threads=threads, journal=journal)
    try:
        async with server, anyio.create_task_group() as tasks:
            listener = await server.listen(RealNet(), f"127.0.0.1:{port}", settings.tls if settings else None)
            tasks.start_soon(server.run)
            try:
                yield Serving(broker, port)
            finally:
                server.close()
                await listener.close()
                tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await worker.submit(journal._close)
            await threads.close()


@pytest.mark.parametrize("version", [paho.MQTTv31, paho.MQTTv311, paho.MQTTv5])
async def test_paho_in_each_version_and_quality(tmp_path: Path, version: Any) -> None:
    def talk(port: int) -> list[tuple[str, bytes, int]]:
        got: list[tuple[str, bytes, int]] = []
        client = paho.Client(CallbackAPIVersion.VERSION2, f"paho-{version}", protocol=version)
        client.on_message = lambda _, __, one: got.append((one.topic, one.payload, one.qos))
        client.connect("127.0.0.1", port)
        client.loop_start()
        try:
            subscribed: list[int] = []
            client.on_subscribe = lambda _, __, mid, ___, ____: subscribed.append(mid)
            client.subscribe([("a/#", 2), ("$hw/+/x", 1)])
            for n in range(30):
                client.publish("a/b" if n % 2 else "$hw/d/x", b"%d" % n, qos=n % 3).wait_for_publish(10)
        finally:
            client.disconnect()
            client.loop_stop()
        return got

    async with serving(tmp_path) as broker:
        got = await anyio.to_thread.run_sync(talk, broker.port)
    assert sorted(int(payload) for _, payload, _ in got) == list(range(30))
    assert {(topic, qos) for topic, _, qos in got} == {
        ("a/b", 0),
        ("a/b", 1),
        ("a/b", 2),
        ("$hw/d/x", 0),
        ("$hw/d/x", 1),
    }


async def test_users_of_a_password_file_and_what_the_acl_gives_them(tmp_path: Path) -> None:
    for name, password in (("anna", "s3cret"), ("bert", "other")):
        create = [] if (tmp_path / "passwords").exists() else ["-c"]
        await run("mosquitto_passwd", *create, "-b", str(tmp_path / "passwords"), name, password)
    (tmp_path / "acl").write_text("user anna\ntopic readwrite a/#\nuser bert\ntopic read a/#\n")
    given = {"broker": {"passwordFile": f"{tmp_path}/passwords", "aclFile": f"{tmp_path}/acl"}}
    async with serving(tmp_path, given=given) as broker:
        port = broker.port
        async with subscriber(port, "a/#", 1, "-u", "bert", "-P", "other") as wait:
            await publish(port, "a/b", "not his", "-u", "bert", "-P", "other", "-q", "1")
            await publish(port, "a/b", "hers", "-u", "anna", "-P", "s3cret", "-V", "mqttv5", "-q", "2")
            assert await wait() == ["a/b hers"]
        for wrong in (["-u", "anna", "-P", "wrong"], ["-u", "nobody", "-P", "x"], []):
            with pytest.raises(subprocess.CalledProcessError):
                await publish(port, "a/b", "x", *wrong)
        assert broker.broker.counts.refused == 3


async def test_client_certificates_are_users(tmp_path: Path) -> None:
    pki = RealPki(RealClock())
    ca = await pki.make_ca("broker-ca")
    server = await pki.issue(ca, "broker", ips=["127.0.0.1"])
    client = await pki.issue(ca, "anna", usages=CLIENT)
    files = {"ca.crt": ca.certificate, "server.crt": server.certificate, "server.key": server.key}
    files |= {"client.crt": client.certificate, "client.key": client.key}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "acl").write_text("pattern readwrite own/%u/#\n")
    port = free_port()
    own: dict[str, Any] = {"certFile": f"{tmp_path}/server.crt", "keyFile": f"{tmp_path}/server.key"}
    own |= {"caFile": f"{tmp_path}/ca.crt", "requireCertificate": True, "useIdentityAsUsername": True}
    own |= {"aclFile": f"{tmp_path}/acl", "allowAnonymous": False}
    given = {"mqttServerInternal": f"ssl://127.0.0.1:{port}", "broker": own}
    options = ["--cafile", f"{tmp_path}/ca.crt", "--cert", f"{tmp_path}/client.crt", "--key", f"{tmp_path}/client.key"]
    async with serving(tmp_path, given=given):
        async with subscriber(port, "own/#", 1, *options) as wait:
            await publish(port, "own/bert/x", "1", *options)
            await publish(port, "own/anna/x", "2", *options)
            assert await wait() == ["own/anna/x 2"]
        with pytest.raises((subprocess.CalledProcessError, ssl.SSLError)):
            await publish(port, "own/anna/x", "3", "--cafile", f"{tmp_path}/ca.crt")


def test_who_comes_without_a_name_must_be_of_this_host() -> None:
    assert Who().takes_anonymous(is_local=True)
    assert not Who().takes_anonymous(is_local=False)
    assert not Who({}).takes_anonymous(is_local=True)
    assert Who(anonymous=True).takes_anonymous(is_local=False)


async def test_what_was_acknowledged_survives_a_power_cut(tmp_path: Path) -> None:
    async with serving(tmp_path) as broker:
        reader, writer = RawClient(broker.port, "r"), RawClient(broker.port, "w")
        await reader.connect(clean_start=False, properties=KEEP)
        await reader.subscribe("a/#", 2, properties={props.SUBSCRIPTION_ID: [9]})
        await reader.close()
        await writer.connect()
        for n in range(40):
            assert await writer.publish("a/b", b"%d" % n, 1 + n % 2, properties={props.CONTENT_TYPE: "t"}) < 0x80
        await writer.publish("kept", b"here", 1, retain=True)
        await writer.close()
    async with serving(tmp_path) as broker:
        reader = RawClient(broker.port, "r")
        assert (await reader.connect(clean_start=False, properties=KEEP)).session_present
        await reader.ping()
        with anyio.fail_after(60):
            while len(reader.got) < 40:
                await reader.ping()
        assert [int(one.payload) for one in reader.got] == list(range(40))
        assert reader.got[0].properties == {props.CONTENT_TYPE: "t", props.SUBSCRIPTION_ID: [9]}
        reader.got.clear()
        await reader.subscribe("kept")
        await reader.ping()
        assert reader.taken() == [("kept", b"here", 0, True)]
        await reader.close()


class FullDisk(RealDisk):
    """Refuses to write as long as ``is_full``."""

    is_full = False

    def connect(self, path: Path) -> apsw.Connection:
        connection = super().connect(path)
        connection.set_authorizer(None)
        connection.set_commit_hook(self._refuse)
        return connection

    def _refuse(self) -> bool:
        return self.is_full


async def test_a_disk_that_refuses_holds_acknowledgements_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = FullDisk()
    async with serving(tmp_path, disk=disk) as broker:
        reader, writer = RawClient(broker.port, "r"), RawClient(broker.port, "w")
        await reader.connect(clean_start=False, properties=KEEP)
        await reader.subscribe("a", 1)
        await writer.connect()
        disk.is_full = True
        await writer.send(Publish("a", b"x", 1, packet_id=7))
        await writer.ping()
        await reader.ping()
        assert reader.taken() == [("a", b"x", 1, False)]  # who is here gets it
        await until(lambda: "the disk refuses" in caplog.text)
        disk.is_full = False
        await writer.publish("b", b"y", 1)
        assert "takes messages of the MQTT broker again" in caplog.text
        await reader.close()
        await writer.close()


async def test_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "mqtt.db").write_bytes(b"no database" * 1000)
    async with serving(tmp_path) as broker:
        await publish(broker.port, "a", "x", "-r", "-q", "1")
    assert (tmp_path / "mqtt.db.corrupt-1").exists()


async def test_slow_and_hostile_clients_cost_nobody_else_anything(tmp_path: Path) -> None:
    limits = Limits(connections=30, packet_bytes=100_000, queued_bytes=1 << 20, connect_s=0.3)
    async with serving(tmp_path, limits=limits) as broker:
        port, counts = broker.port, broker.broker.counts
        slow, writer, reader = (RawClient(port, name) for name in ("slow", "writer", "reader"))
        for client in (slow, writer, reader):
            await client.connect()
        await slow.subscribe("big", 1)
        await reader.subscribe("small", 1)
        for _ in range(120):  # nobody reads at "slow"
            await writer.publish("big", bytes(90_000), 1)
        assert counts.dropped_full > 0
        assert counts.held_bytes < 2 << 20
        await writer.publish("small", b"x", 1)
        await reader.ping()
        assert reader.taken() == [("small", b"x", 1, False)]
        await writer.send(Publish("big", bytes(200_000)))
        with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
            await writer.ping()
        await writer.close()
        silent = [await anyio.connect_tcp("127.0.0.1", port) for _ in range(40)]
        assert len(broker.broker.connections) <= 30
        await until(lambda: len(broker.broker.connections) <= 2)
        for stream in silent:
            await stream.aclose()
        garbage = await anyio.connect_tcp("127.0.0.1", port)
        await garbage.send(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
            await garbage.receive()
        await garbage.aclose()
        assert await RawClientOnce(port).code() == Reason.SUCCESS
        for client in (slow, reader):
            await client.close()


class RawClientOnce:
    """Connects and leaves."""

    def __init__(self, port: int) -> None:
        self._client = RawClient(port, "once")

    async def code(self) -> int:
        found = (await self._client.connect()).code
        await self._client.close()
        return found
