"""EventBus with its own broker, against mosquitto's clients: what reaches DeviceTwin and the cloud, what comes back, what outlives a restart."""

from __future__ import annotations

import socket
import sqlite3
import subprocess
from pathlib import Path

import anyio
import pytest
from mqtt_peers import answers, free_port, publish, resource_of, subscriber

from edgesite.context import Section
from edgesite.edge.edgehub.link import CONNECTED, DISCONNECTED
from edgesite.edge.eventbus import Interest, incoming
from edgesite.edge.eventbus.module import EventBus
from edgesite.edge.metamanager.module import MetaManager
from edgesite.testing.busrig import bus_rig, event_bus
from edgesite.wire.mqtt.access import hash_password

pytestmark = pytest.mark.anyio
MODULES = [MetaManager, EventBus]
UPDATE = "$hw/events/device/pump-1/twin/update"


def settings(port: int, **changed: object) -> dict[str, object]:
    return {
        "metaManager": {"enable": True},
        "eventBus": event_bus(mqttMode=0, mqttServerInternal=f"tcp://127.0.0.1:{port}", **changed),
    }


async def test_publications_reach_devicetwin_and_the_cloud(tmp_path: Path) -> None:
    port = free_port()
    async with bus_rig(MODULES, tmp_path, settings(port)) as rig:
        await publish(port, UPDATE, '{"twin":1}', "-V", "mqttv5", "-q", "1")
        got = await rig.twin.next()
        assert (got.source, got.group, got.operation) == ("bus", "user", "response")
        assert (got.resource, got.data()) == (resource_of(UPDATE), b'{"twin":1}')
        await publish(port, "$hw/events/device/factory/pump-1/twin/get", "{}")
        assert (await rig.twin.next()).resource == resource_of("$hw/events/device/factory/pump-1/twin/get")
        await publish(port, "SYS/dis/upload_records", "raw upload")
        up = await rig.cloud.next()
        assert (up.source, up.group, up.operation, up.resource) == ("bus", "user", "upload", "SYS/dis/upload_records")
        assert up.content == "raw upload"
        await publish(port, "nobody/asked", "x")
        await publish(port, "app/user/x", "y")
        assert (await rig.cloud.next()).resource == "app/user/x"


async def test_what_edgecore_publishes_reaches_clients_and_not_itself(tmp_path: Path) -> None:
    port = free_port()
    async with bus_rig(MODULES, tmp_path, settings(port)) as rig:
        interest = rig.host.services.get(Interest)  # type: ignore[type-abstract]
        assert not interest.wanted("app/user/x")
        async with subscriber(port, "#", 3, "-t", "$hw/#", "-q", "1") as wait:
            assert interest.wanted("app/user/x")
            await rig.tell("publish", "app/user/x", "hi")
            await rig.tell("publishall", "", [("$hw/events/device/d/twin/update/result", b"{}"), ("a", b"\x00")])
            assert (await wait())[:2] == ["app/user/x hi", "$hw/events/device/d/twin/update/result {}"]
        assert not rig.cloud.messages


async def test_subscriptions_of_the_cloud_outlive_a_restart(tmp_path: Path) -> None:
    port = free_port()
    for start in range(2):
        async with bus_rig(MODULES, tmp_path, settings(port)) as rig:
            if not start:
                await rig.tell("subscribe", "default/plant/+")
                await rig.tell("publish", "order", "")  # taken in order: the subscription is there when this was
                async with subscriber(port, "order", 1) as wait:
                    await rig.tell("publish", "order", "x")
                    await wait()
            await publish(port, "default/plant/out", f"{start}")
            assert (await rig.cloud.next()).content == str(start)
    async with bus_rig(MODULES, tmp_path, settings(port)) as rig:
        await rig.tell("unsubscribe", "default/plant/+")
        async with subscriber(port, "order", 1) as wait:
            await rig.tell("publish", "order", "x")
            await wait()
        await publish(port, "default/plant/out", "gone")
        await publish(port, "app/user/x", "y")
        assert (await rig.cloud.next()).resource == "app/user/x"
    with sqlite3.connect(tmp_path / "edgecore.db") as database:
        assert database.execute("SELECT count(*) FROM sub_topics").fetchone() == (0,)
    database.close()


async def test_what_cannot_be_carried_out_is_counted_and_stops_nothing(tmp_path: Path) -> None:
    port = free_port()
    async with bus_rig(MODULES, tmp_path, settings(port)) as rig:
        for operation, resource, content in (
            ("publish", "a/#", "x"),
            ("publish", "", "x"),
            ("publishall", "", 7),
            ("publishall", "", [("x",)]),
            ("publishall", "", [("a/+", b"1"), ("fine", b"2")]),
            ("subscribe", "a/#/b", None),
            ("subscribe", "$share/g/a", None),
            ("message", "x", {"message": {"topic": 3}}),
            ("message", "x", "no json"),
        ):
            await rig.tell(operation, resource, content)
        async with subscriber(port, "plain", 1) as wait:
            await rig.tell("message", "x", {"message": {"topic": "plain", "v": 1}})
            assert await wait() == ['plain {"topic":"plain","v":1}']
        assert rig.host.metrics.get_sample_value("edgesite_eventbus_refused_total") == 9
        assert rig.host.metrics.get_sample_value("edgesite_eventbus_published_total") == 2  # "fine" and "plain"


async def test_a_slow_devicetwin_holds_up_clients_and_loses_nothing(tmp_path: Path) -> None:
    """What DeviceTwin cannot take stays with the clients: the acknowledgement of QoS 1 means that it was taken."""
    port, count = free_port(), 12_000
    async with bus_rig(MODULES, tmp_path, settings(port)) as rig:
        held = rig.twin.blocked = anyio.Event()
        lines = "\n".join(f'{{"n":{n}}}' for n in range(count)).encode()
        command = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(port), "-t", UPDATE, "-q", "1", "-l"]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: anyio.run_process(command, input=lines))
            await publish(port, "app/user/x", "beside")  # waits, too, until there is room
            assert len(rig.cloud.messages) <= 1
            held.set()
            for n in range(count):
                assert (await rig.twin.next(30)).data() == f'{{"n":{n}}}'.encode()


async def test_users_and_rights_are_taken_over_while_it_runs(tmp_path: Path) -> None:
    port = free_port()
    passwords, acl = anyio.Path(tmp_path / "passwords"), anyio.Path(tmp_path / "acl")
    await passwords.write_text("anna:" + hash_password(b"one", b"salt"))
    await acl.write_text("user anna\ntopic readwrite #\n")
    given = settings(port, broker={"passwordFile": str(passwords), "aclFile": str(acl)})
    async with bus_rig(MODULES, tmp_path, given) as rig:
        module = next(one.module for one in rig.host.running if isinstance(one.module, EventBus))
        section = Section(given["eventBus"])  # type: ignore[arg-type]
        anna = ["-u", "anna", "-P"]
        async with subscriber(port, "a", 2, *anna, "one") as wait:
            await publish(port, "a", "1", *anna, "one", "-q", "1")
            await passwords.write_text("anna:" + hash_password(b"two", b"salt"))
            module.reload(section)
            with pytest.raises(subprocess.CalledProcessError):
                await publish(port, "a", "2", *anna, "one")
            await publish(port, "a", "3", *anna, "two", "-q", "1")
            assert await wait() == ["a 1", "a 3"]  # who was there stays
        await acl.write_text("nonsense")
        with pytest.raises(ValueError, match="acl: line 1"):
            module.reload(section)
        await acl.write_text("")
        module.reload(section)
        await publish(port, UPDATE, "{}", *anna, "two", "-q", "1")
        assert not rig.twin.messages


async def test_what_is_for_the_cloud_waits_for_the_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KubeEdge loses it. The newest is kept, and nobody is held up."""
    monkeypatch.setattr(incoming, "COUNT", 3)
    port = free_port()
    async with bus_rig(MODULES, tmp_path, settings(port)) as rig:
        await rig.tell("connect", "node/connection", DISCONNECTED)
        async with subscriber(port, "order", 1) as wait:
            await rig.tell("publish", "order", "x")
            await wait()
        for n in range(5):
            await publish(port, "app/user/x", str(n), "-q", "1")
        await publish(port, UPDATE, "{}", "-q", "1")
        await rig.twin.next()
        assert not rig.cloud.messages
        assert rig.host.metrics.get_sample_value("edgesite_eventbus_uploads_dropped_total") == 2
        await rig.tell("connect", "node/connection", CONNECTED)
        assert [(await rig.cloud.next()).content for _ in range(3)] == ["2", "3", "4"]


async def test_a_port_that_is_taken_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = int(taken.getsockname()[1])
        async with bus_rig(MODULES, tmp_path, settings(port)) as rig:  # the module is ready all the same
            assert "the MQTT broker cannot serve" in caplog.text
            taken.close()
            await answers(port)
            await publish(port, UPDATE, "{}", "-q", "1")
            await rig.twin.next()


async def test_answers_to_topics_as_long_as_can_be_do_not_end_the_module(tmp_path: Path) -> None:
    port = free_port()
    long = "é" * 32_760  # as bytes a topic of MQTT; with "/result" behind it none
    async with bus_rig(MODULES, tmp_path, settings(port)) as rig:
        async with subscriber(port, "#", 1, "-q", "1") as wait:
            await rig.tell("publishall", "", [(long + "é" * 100, b"{}"), ("\ud800", b"{}"), ("fine", b"1")])
            assert await wait() == ["fine 1"]
        for topic in (long + "é" * 100, "\ud800"):
            await rig.tell("subscribe", topic)
            await rig.tell("publish", topic, "x")
        await rig.tell("subscribe", long)
        await publish(port, "app/user/x", "y")
        assert (await rig.cloud.next()).resource == "app/user/x"
