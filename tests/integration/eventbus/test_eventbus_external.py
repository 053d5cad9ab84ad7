"""EventBus with an external broker: a real mosquitto that comes late, goes, refuses, or wants certificates; both brokers at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream
from mqtt_peers import free_port, mosquitto, publish, resource_of, run, subscriber
from raw_client import RawClient

from edgesite.edge.eventbus.module import EventBus
from edgesite.edge.metamanager.module import MetaManager
from edgesite.net.pki import CLIENT, RealPki
from edgesite.net.real import RealClock
from edgesite.testing.busrig import BusRig, bus_rig, event_bus
from edgesite.testing.waiting import until
from edgesite.wire.mqtt.codec import Decoder, encode
from edgesite.wire.mqtt.packets import Connack, Connect, Publish, Suback, Subscribe

pytestmark = pytest.mark.anyio
MODULES = [MetaManager, EventBus]
UPDATE = "$hw/events/device/pump-1/twin/update"


def settings(port: int, **changed: object) -> dict[str, object]:
    return {
        "metaManager": {"enable": True},
        "eventBus": event_bus(**{"mqttServerExternal": f"tcp://127.0.0.1:{port}", **changed}),
    }


def is_connected(rig: BusRig) -> bool:
    return rig.host.metrics.get_sample_value("edgesite_eventbus_external_connected") == 1


async def connected(rig: BusRig) -> None:
    """Wait until the broker has us."""
    await until(lambda: is_connected(rig))


async def away(rig: BusRig) -> None:
    await until(lambda: not is_connected(rig))


async def subscribed(port: int, topic: str, came: Callable[[], Awaitable[object]]) -> None:
    """Publish until something comes."""
    with anyio.fail_after(60):
        while True:
            await publish(port, topic, "probe", "-q", "1")
            with anyio.move_on_after(0.2):
                await came()
                return


async def test_both_ways_and_subscriptions_of_the_cloud(tmp_path: Path) -> None:
    port = free_port()
    async with mosquitto(tmp_path, port), bus_rig(MODULES, tmp_path, settings(port)) as rig:
        await connected(rig)
        await publish(port, UPDATE, '{"twin":1}')
        assert (await rig.twin.next()).resource == resource_of(UPDATE)
        async with subscriber(port, "$hw/#", 2, "-q", "1") as wait:
            topic = UPDATE + "/result"
            await rig.tell("publishall", "", [(topic, b"1"), (topic, b"2")], source="twin")
            assert await wait() == [f"{topic} 1", f"{topic} 2"]
        await rig.tell("subscribe", "default/plant/out")
        await subscribed(port, "default/plant/out", rig.cloud.next)
        assert rig.cloud.messages[0].resource == "default/plant/out"
    async with mosquitto(tmp_path, port), bus_rig(MODULES, tmp_path, settings(port)) as rig:
        await connected(rig)
        await publish(port, "default/plant/out", "again")
        assert (await rig.cloud.next()).content == "again"


async def test_a_broker_that_comes_late_goes_and_comes_again(tmp_path: Path) -> None:
    """What is published meanwhile waits, the newest of it. A reader whose session the broker keeps sees what came."""
    port = free_port()
    lines = persistent(tmp_path, port)
    reader = RawClient(port, "keeps", 4)
    async with mosquitto(tmp_path, port, lines) as broker:
        await reader.connect(clean_start=False)
        await reader.subscribe("order", 1)
        await reader.close()
        broker.terminate()  # it writes its sessions
        await broker.wait()
    async with bus_rig(MODULES, tmp_path, settings(port, mqttSessionQueueSize=5)) as rig:
        for n in range(7):
            await rig.tell("publish", "order", f"early {n}")
        expected = [f"early {n}" for n in range(2, 7)]
        for start in range(2):
            async with mosquitto(tmp_path, port, lines) as broker:
                await connected(rig)
                await publish(port, UPDATE, f"{start}")
                assert (await rig.twin.next()).data() == f"{start}".encode()
                await reader.connect(clean_start=False)
                with anyio.fail_after(60):
                    while len(reader.got) < len(expected):
                        await reader.ping()
                await reader.ping()
                assert [payload.decode() for _, payload, _, _ in reader.taken()] == expected
                await reader.close()
                broker.terminate()
                await away(rig)
                await broker.wait()
            await rig.tell("publish", "order", "while away")
            expected = ["while away"]
        assert rig.host.metrics.get_sample_value("edgesite_eventbus_external_dropped_total") == 2


def persistent(folder: Path, port: int) -> list[str]:
    return [
        f"listener {port} 127.0.0.1",
        "allow_anonymous true",
        "user root",
        "persistence true",
        f"persistence_location {folder}/",
        "autosave_interval 1",
        "autosave_on_changes true",
        "log_type error",
    ]


async def test_what_is_retained_is_taken_once_not_at_each_connection(tmp_path: Path) -> None:
    port = free_port()
    async with bus_rig(MODULES, tmp_path, settings(port)) as rig:
        for start in range(2):
            async with mosquitto(tmp_path, port) as broker:
                await publish(port, UPDATE, "old", "-r")
                await connected(rig)
                await publish(port, UPDATE, f"new {start}")
                if not start:
                    assert {(await rig.twin.next()).data(), (await rig.twin.next()).data()} == {b"old", b"new 0"}
                else:
                    assert (await rig.twin.next()).data() == b"new 1"
                broker.kill()
                await away(rig)


async def test_tls_with_client_certificates_and_passwords(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    pki = RealPki(RealClock())
    ca = await pki.make_ca("broker-ca")
    server = await pki.issue(ca, "127.0.0.1", ips=["127.0.0.1"])
    client = await pki.issue(ca, "edge-1", usages=CLIENT)
    for name, data in (
        ("ca.crt", ca.certificate),
        ("server.crt", server.certificate),
        ("server.key", server.key),
        ("client.crt", client.certificate),
        ("client.key", client.key),
    ):
        await anyio.Path(tmp_path / name).write_bytes(data)
    await run("mosquitto_passwd", "-c", "-b", str(tmp_path / "passwords"), "edge", "s3cret")
    lines = [f"listener {port} 127.0.0.1", "require_certificate true", "user root", "allow_anonymous false"]
    lines += [f"cafile {tmp_path}/ca.crt", f"certfile {tmp_path}/server.crt", f"keyfile {tmp_path}/server.key"]
    lines += [f"password_file {tmp_path}/passwords", "log_type error"]
    tls = {"enable": True, "tlsMqttCAFile": f"{tmp_path}/ca.crt"}
    tls |= {"tlsMqttCertFile": f"{tmp_path}/client.crt", "tlsMqttPrivateKeyFile": f"{tmp_path}/client.key"}
    given = {"mqttServerExternal": f"ssl://127.0.0.1:{port}", "mqttUsername": "edge", "eventBusTLS": tls}
    options = ["--cafile", f"{tmp_path}/ca.crt", "--cert", f"{tmp_path}/client.crt", "--key", f"{tmp_path}/client.key"]
    async with bus_rig(MODULES, tmp_path, settings(port, **given, mqttPassword="s3cret")) as rig:
        for size in (100_000, 10):  # over two connections
            async with mosquitto(tmp_path, port, lines) as broker:
                await connected(rig)
                await publish(port, UPDATE, "x" * size, *options, "-u", "edge", "-P", "s3cret")
                assert len((await rig.twin.next()).data()) == size
                broker.kill()
                await away(rig)
    wrong = settings(port, **given, mqttPassword="wrong")
    async with mosquitto(tmp_path, port, lines), bus_rig(MODULES, tmp_path, wrong) as rig:
        await until(lambda: "the MQTT broker refuses" in caplog.text)
        assert not is_connected(rig)


async def test_both_brokers_at_once(tmp_path: Path) -> None:
    inner, outer = free_port(), free_port()
    both = settings(outer, mqttMode=1, mqttServerInternal=f"tcp://127.0.0.1:{inner}")
    async with mosquitto(tmp_path, outer), bus_rig(MODULES, tmp_path, both) as rig:
        await connected(rig)
        async with subscriber(inner, "t", 1) as near, subscriber(outer, "t", 1) as far:
            await rig.tell("publish", "t", "hi")
            assert await near() == await far() == ["t hi"]
        for port in (inner, outer):
            await publish(port, UPDATE, str(port))
            assert (await rig.twin.next()).data() == str(port).encode()


async def test_what_a_broker_says_right_before_it_goes_is_taken_and_nonsense_left(tmp_path: Path) -> None:
    """Of clean sessions it does not say it again."""
    said = 0

    async def serve(stream: SocketStream) -> None:
        nonlocal said
        decoder = Decoder()
        async with stream:
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                while True:
                    for packet in decoder.feed(await stream.receive()):
                        if isinstance(packet, Connect):
                            early = encode(Publish(UPDATE, b"0", 1, packet_id=9), 4)  # of a session that it kept
                            is_first = not said and "-sub-" in packet.client_id
                            await stream.send(encode(Connack(), 4) + (early if is_first else b""))
                        elif isinstance(packet, Subscribe):
                            answer = encode(Suback(packet.packet_id, [1] * len(packet.filters)), 4)
                            said += 1
                            nonsense = b"\x30\x05\x00\x02\xff\xfex"
                            last = [encode(Publish(UPDATE, b"%d" % n, 1, packet_id=n), 4) for n in (1, 2, 3)]
                            await stream.send(answer + (nonsense + b"".join(last) if said == 1 else b""))
                            if said == 1:
                                return

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as tasks, bus_rig(MODULES, tmp_path, settings(port)) as rig:
        tasks.start_soon(listener.serve, serve)
        assert [(await rig.twin.next()).data() for _ in range(4)] == [b"0", b"1", b"2", b"3"]
        tasks.cancel_scope.cancel()
