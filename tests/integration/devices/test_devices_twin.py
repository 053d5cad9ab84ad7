"""DeviceTwin as a module, on a real database: what clients on MQTT see, in KubeEdge's words, and what is left after a crash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest

from edgesite.edge.devicetwin import Reported, engine
from edgesite.kube import json
from edgesite.kube.errors import ApiError
from edgesite.testing.twinrig import TwinRig, twin_rig
from edgesite.testing.waiting import until

pytestmark = pytest.mark.anyio
D1 = "$hw/events/device/d1"
MEMBERS = "$hw/events/node/edge-1/membership"
MODEL = {
    "apiVersion": "devices.kubeedge.io/v1beta1",
    "kind": "DeviceModel",
    "metadata": {"name": "m", "namespace": "default", "uid": "m", "resourceVersion": "90"},
    "spec": {
        "properties": [
            {"name": "t", "type": "INT", "accessMode": "ReadWrite", "minimum": "0", "maximum": "50"},
            {"name": "x", "type": "DOUBLE", "accessMode": "ReadOnly"},
        ]
    },
}


def device(version: int = 100, t: str = "5", **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "devices.kubeedge.io/v1beta1",
        "kind": "Device",
        "metadata": {"name": "d1", "namespace": "default", "uid": "u1", "resourceVersion": str(version), **metadata},
        "spec": {
            "deviceModelRef": {"name": "m"},
            "nodeName": "edge-1",
            "properties": [{"name": "t", "desired": {"value": t, "metadata": {"type": "int"}}}, {"name": "x"}],
        },
    }


def membership(name: str, t: str, version: int) -> dict[str, Any]:
    """What a cloud of KubeEdge v1.12 sends for a new device."""
    twin = {
        "expected": {"value": t, "metadata": {"timestamp": 1}},
        "optional": False,
        "metadata": {"type": "int"},
        "expected_version": {"cloud": version, "edge": 0},
    }
    added = [{"id": name, "name": name, "twin": {"t": twin}}]
    return {"event_id": "e", "timestamp": 1, "added_devices": added, "removed_devices": None}


def report(event: str, **values: str) -> dict[str, Any]:
    twin = {name: {"actual": {"value": value}} for name, value in values.items()}
    return {"event_id": event, "timestamp": 1, "twin": twin}


async def bring(rig: TwinRig, obj: dict[str, Any] | None = None) -> None:
    await rig.cloud("insert", "default/devicemodel/m", MODEL)
    await rig.stored(await rig.cloud("insert", "default/device/d1", obj or device()))
    await rig.settled()


async def test_the_first_device_is_told_to_who_drives_devices(tmp_path: Path) -> None:
    """It may be stored, and read from there, before the word of it is taken: DeviceTwin is loaded in between."""
    async with twin_rig(tmp_path) as rig:
        watch = rig.devices.watch()
        row = ("default/device/d1", "device", json.dumps(device()).decode())
        await rig.rows.write([("INSERT INTO meta (key, type, value) VALUES (?, ?, ?)", row)])
        await rig.cloud("insert", "default/device/d1", device(), group="twin")
        with anyio.fail_after(5):
            async for change in watch:
                if change.kind == "device":
                    break
        assert (change.operation, change.namespace, change.name) == ("insert", "default", "d1")


async def test_a_new_device_is_told_in_kubeedges_order(tmp_path: Path) -> None:
    async with twin_rig(tmp_path) as rig:
        await rig.connect(own=False)
        await rig.cloud("update", "membership", membership("d1", "5", 100), group="twin")
        await rig.settled()
        assert rig.topics()[:3] == [f"{D1}/twin/update/document", f"{D1}/twin/update/delta", f"{MEMBERS}/updated"]
        document = await rig.heard(f"{D1}/twin/update/document")
        assert document["twin"]["t"]["last"] is None
        assert (await rig.heard(f"{D1}/twin/update/delta"))["delta"] == {"t": "5"}
        told = await rig.heard(f"{MEMBERS}/updated")
        assert (told["added_devices"][0]["id"], told["removed_devices"]) == ("d1", None)
        assert "expected_version" not in told["added_devices"][0]["twin"]["t"]


async def test_a_report_is_answered_and_told_to_kubeedges_cloud(tmp_path: Path) -> None:
    async with twin_rig(tmp_path) as rig:
        await rig.connect(own=False)
        await rig.cloud("update", "membership", membership("d1", "5", 100), group="twin")
        await rig.say(f"{D1}/twin/update", report("e1", t="5"))
        answer = await rig.heard(f"{D1}/twin/update/result")
        assert (answer["event_id"], answer["twin"]["t"]["actual"]["value"]) == ("e1", "5")
        up = await rig.cloud_heard("edge_updated")
        assert up.resource == "device/d1/twin/edge_updated"
        assert (up.source, up.group, up.operation) == ("twin", "resource", "update")
        assert up.content["twin"]["t"]["actual_version"] == {"cloud": 0, "edge": 1}
        await rig.settled()
        assert rig.topics().count(f"{D1}/twin/update/delta") == 1  # of the membership: it is as wanted now


async def test_a_wish_of_the_cloud_arrives_as_an_object(tmp_path: Path) -> None:
    async with twin_rig(tmp_path) as rig:
        await bring(rig)
        await rig.say(f"{D1}/twin/update", report("e1", t="5"))
        await rig.cloud("update", "default/device/d1", device(101, "7"))
        while (await rig.heard(f"{D1}/twin/update/delta"))["delta"] != {"t": "7"}:
            pass
        await rig.cloud("update", "default/device/d1", device(99, "3"))  # late
        await rig.say(f"{D1}/twin/get", {"event_id": "g"})
        assert (await rig.heard(f"{D1}/twin/get/result"))["twin"]["t"]["expected"]["value"] == "7"


BAD = {
    "no JSON": (b"no json", "Unmarshal update request body failed, please check the request", ""),
    "no twin": ({"event_id": "e"}, "Update twin error, key:twin does not exist", ""),
    "a list": ([1], "Unmarshal update request body failed, please check the request", ""),
    "a number as value": (
        {"twin": {"t": {"actual": {"value": 5}}}},
        "Unmarshal update request body failed, please check the request",
        "",
    ),
    "wrong type": (report("e", t="abc"), "the value is not int or integer", "e"),
    "out of range": (report("e", t="51"), "the value must be at most 50, the maximum of its model", "e"),
    "deep nesting": (b"[" * 100_000, "Unmarshal update request body failed, please check the request", ""),
    "huge": (b" " * (1 << 20) + b"{}", "Unmarshal update request body failed, please check the request", ""),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
async def test_bad_input_is_answered_and_changes_nothing(tmp_path: Path, case: Any) -> None:
    payload, reason, event = case
    async with twin_rig(tmp_path) as rig:
        await bring(rig)
        await rig.say(f"{D1}/twin/update", payload)
        answer = await rig.heard(f"{D1}/twin/update/result")
        assert (answer["code"], answer["reason"], answer["event_id"]) == (400, reason, event)
        if not event:
            assert (await rig.heard("$hw/events/device//twin/update/result"))["code"] == 400
        assert await rig.table("SELECT actual FROM device_twin") == [(None,)]


async def test_garbage_on_any_topic_takes_nothing_down(tmp_path: Path) -> None:
    suffixes = ("twin/update", "twin/get", "twin/cloud_updated", "state/update", "updated", "x", "state/get", "")
    async with twin_rig(tmp_path) as rig:
        await bring(rig)
        for payload in (b"", b"\xff\xfe", b"null", b"{}", b"[]", b'"x"', b'{"event_id":5}', b'{"twin":{"":null}}'):
            for suffix in suffixes:
                await rig.say(f"{D1}/{suffix}", payload)
            for topic in ("membership/get", "membership/updated", "membership/detail/result", "other"):
                await rig.say(f"$hw/events/node/edge-1/{topic}", payload)
            for about in (
                "membership",
                "membership/detail",
                "device/d1/twin/cloud_updated",
                "device/d1",
                "devices/report",
            ):
                await rig.cloud("updated", about, payload.decode(errors="replace"), group="twin")
        await rig.say(f"{D1}/twin/update", report("still", t="6"))
        while (await rig.heard(f"{D1}/twin/update/result"))["event_id"] != "still":
            pass


async def test_clients_do_not_say_which_devices_there_are(tmp_path: Path) -> None:
    async with twin_rig(tmp_path) as rig:
        await bring(rig)
        gone = {"event_id": "", "timestamp": 1, "devices": [], "removed_devices": [{"id": "d1"}]}
        for topic in ("membership/updated", "membership/detail/result", "membership/detail"):
            await rig.say(f"$hw/events/node/edge-1/{topic}", gone)
        await rig.settled()
        assert rig.devices.namespace_of("d1") == "default"


async def test_unknown_devices_are_not_found(tmp_path: Path) -> None:
    async with twin_rig(tmp_path) as rig:
        await rig.say("$hw/events/device/d9/twin/update", report("e", t="1"))
        answer = await rig.heard("$hw/events/device/d9/twin/update/result")
        assert (answer["code"], answer["reason"]) == (404, "update rejected due to the device is not existed")
        await rig.say("$hw/events/device/d9/twin/get", {"event_id": "g"})
        answer = await rig.heard("$hw/events/device/d9/twin/get/result")
        assert (answer["code"], answer["reason"]) == (404, "Device d9 not found while getting twin")
        await rig.say(f"{MEMBERS}/get", {"event_id": "m"})
        assert (await rig.heard(f"{MEMBERS}/get/result"))["devices"] == []


async def test_topics_with_a_namespace_are_answered_in_their_form(tmp_path: Path) -> None:
    full = "$hw/events/device/default/d1"
    async with twin_rig(tmp_path) as rig:
        await bring(rig)
        await rig.say(f"{full}/state/update", {"event_id": "", "timestamp": 1, "state": "online"})
        shown = (await rig.heard(f"{full}/state/update/result"))["device"]
        assert set(shown) == {"name", "state", "lastOnlineTime"}
        rig.clear()
        await rig.stored(await rig.cloud("update", "default/device/d1", device(101, "8")))
        await rig.settled()
        assert [one for one in rig.topics() if one.endswith("/delta")] == [f"{full}/twin/update/delta"]
        await rig.say(f"{D1}/state/update", {"event_id": "", "timestamp": 1, "state": "OK"})
        assert set((await rig.heard(f"{D1}/state/update/result"))["device"]) == {"name", "state", "last_online"}
        await rig.say(f"{D1}/state/update", {"event_id": "", "timestamp": 1, "state": "broken"})
        await rig.settled()
        assert rig.topics().count(f"{D1}/state/update/result") == 1


async def test_all_is_there_after_a_start(tmp_path: Path) -> None:
    async with twin_rig(tmp_path) as rig:
        await bring(rig)
        await rig.say(f"{D1}/twin/update", report("e", t="6", x="1.5"))
        await rig.say(f"{D1}/state/update", {"event_id": "", "timestamp": 1, "state": "online"})
        await rig.settled()
    async with twin_rig(tmp_path) as rig:
        await rig.say(f"{D1}/twin/get", {"event_id": "g"})
        twin = (await rig.heard(f"{D1}/twin/get/result"))["twin"]
        assert (twin["t"]["expected"]["value"], twin["t"]["actual"]["value"], twin["x"]["actual"]["value"]) == (
            "5",
            "6",
            "1.5",
        )
        assert rig.devices.last_online("default", "d1")
        await rig.connect()
        up = await rig.cloud_heard("devices/reported")
        assert up.content["devices"][0][0] == "default/d1"


async def test_an_object_that_was_stored_before_a_crash_is_taken_after_it(tmp_path: Path) -> None:
    async with twin_rig(tmp_path) as rig:
        await bring(rig)
    database = apsw.Connection(str(tmp_path / "edgecore.db"))  # as if DeviceTwin had not come to it
    with database:
        database.execute("UPDATE device_twin SET expected = '1', expected_version = '{\"cloud\":50,\"edge\":0}'")
        database.execute("UPDATE edgesite_device SET version = 50")
    database.close()
    async with twin_rig(tmp_path) as rig:
        await rig.say(f"{D1}/twin/get", {"event_id": "g"})
        assert (await rig.heard(f"{D1}/twin/get/result"))["twin"]["t"]["expected"]["value"] == "5"


async def test_a_database_of_kubeedge_is_taken_over(tmp_path: Path) -> None:
    """Rows as edgecore v1.12.7 leaves them; then the device comes as an object of ours."""
    database = apsw.Connection(str(tmp_path / "edgecore.db"))
    with database:
        database.execute(
            "CREATE TABLE device (id varchar(64) NOT NULL PRIMARY KEY, name text, description text, state text, last_online text)"
        )
        database.execute(
            "INSERT INTO device VALUES ('d1', 'd1', 'pump', 'online', '2026-11-20 05:14:13'), ('old', 'old', NULL, NULL, NULL)"
        )
        database.execute(
            "CREATE TABLE device_twin (id integer NOT NULL PRIMARY KEY AUTOINCREMENT, deviceid text, name text, description text, expected"
            " text, actual text, expected_meta text, actual_meta text, expected_version text, actual_version text, optional bool, attr_type"
            " text, metadata text)"
        )
        database.execute(
            "INSERT INTO device_twin VALUES (7, 'd1', 't', '', '40', '38', '{\"timestamp\":1}', '{\"timestamp\":2}', '{\"cloud\":572,\"edge\":0}',"
            " '{\"cloud\":0,\"edge\":3}', 0, 'int', '{}')"
        )
    database.close()
    async with twin_rig(tmp_path) as rig:
        await rig.say(f"{MEMBERS}/get", {"event_id": "m"})
        listed = (await rig.heard(f"{MEMBERS}/get/result"))["devices"]
        assert listed[0] == {
            "id": "d1",
            "name": "d1",
            "description": "pump",
            "state": "online",
            "last_online": "2026-11-20 05:14:13",
        }
        await rig.say(f"{D1}/twin/update", report("e", t="39"))
        await rig.settled()
        assert await rig.table("SELECT id, actual_version FROM device_twin") == [(7, '{"cloud":0,"edge":4}')]
        await bring(rig, device(20, "41"))  # another cluster, whose versions are lower
        await rig.say(f"{D1}/twin/get", {"event_id": "g"})
        assert (await rig.heard(f"{D1}/twin/get/result"))["twin"]["t"]["expected"]["value"] == "41"
        await rig.connect()
        await rig.cloud_heard("membership/detail")  # there is a device that no object tells of
        detail = {"event_id": "", "timestamp": 1, "devices": [{"id": "default/d1", "name": "d1"}]}
        await rig.cloud("update", "membership/detail", detail, group="twin")
        await rig.settled()
        assert await rig.table("SELECT id, namespace FROM edgesite_device") == [("d1", "default")]
        assert await rig.table("SELECT id FROM device") == [("d1",)]


async def test_a_deleted_device_leaves_nothing(tmp_path: Path) -> None:
    async with twin_rig(tmp_path) as rig:
        await bring(rig)
        await rig.say(f"{D1}/twin/update", report("e", t="6"))
        await rig.stored(await rig.cloud("delete", "default/device/d1", device(102)))
        await rig.settled()
        told = [await rig.heard(f"{MEMBERS}/updated") for _ in range(2)][1]
        assert (told["added_devices"], told["removed_devices"][0]["id"]) == (None, "d1")
        for table in ("device", "device_twin", "edgesite_device"):
            assert await rig.table(f"SELECT * FROM {table}") == []


async def test_only_what_changed_goes_up_and_again_after_a_failure(tmp_path: Path) -> None:
    async with twin_rig(tmp_path) as rig:
        await bring(rig)
        rig.answer = lambda message: None  # the cloud does not answer
        await rig.connect()
        await rig.say(f"{D1}/twin/update", report("e", t="6"))
        first = await rig.cloud_heard("devices/reported")
        await rig.say(f"{D1}/twin/update", report("e", t="7"))
        await rig.disconnect()
        rig.answer = lambda message: "OK"
        await rig.connect()
        with anyio.fail_after(60):
            again = await rig.cloud_heard("devices/reported", 25)
        names, row = again.content["names"], again.content["devices"][0]
        assert (first.content["devices"][0][2], names[row[1]], row[2]) == ("6", "t", "7")
        await rig.settled()
        rig.told.clear()
        await rig.say(f"{D1}/twin/update", report("e", t="7"))
        await rig.say(f"{D1}/twin/update", report("e", t="8"))
        await rig.say(f"{D1}/twin/update", report("e", t="7"))
        await rig.settled()
        await anyio.sleep(0.2)
        assert [one for one in rig.told if one.resource == "devices/reported"] == []


async def test_what_a_mapper_acts_upon_goes_up_once(tmp_path: Path) -> None:
    async with twin_rig(tmp_path) as rig:
        await bring(rig)
        await rig.connect()
        for _ in range(2):
            await rig.devices.report_twins("default", "d1", [Reported("t", "6", observed_desired="5")])
            if len(rig.told) == 0:
                up = await rig.cloud_heard("devices/reported")
                assert up.content["observed"] == [["default/d1", 0, "5"]]
        await anyio.sleep(0.2)
        assert len(rig.told) == 1


async def test_what_shall_not_be_reported_stays_here(tmp_path: Path) -> None:
    quiet = device()
    quiet["spec"]["properties"][0]["reportToCloud"] = False
    async with twin_rig(tmp_path) as rig:
        await bring(rig, quiet)
        await rig.connect()
        await rig.say(f"{D1}/twin/update", report("e", t="6", x="1"))
        up = await rig.cloud_heard("devices/reported")
        assert up.content["names"] == ["x"]


async def test_the_cloud_may_ask_for_reports_anew(tmp_path: Path) -> None:
    async with twin_rig(tmp_path) as rig:
        await bring(rig)
        await rig.connect()
        await rig.say(f"{D1}/twin/update", report("e", t="6"))
        await rig.cloud_heard("devices/reported")
        await rig.cloud("query", "devices/report", {"devices": ["default/d1"]}, group="twin")
        assert (await rig.cloud_heard("devices/reported")).content["devices"][0][2] == "6"


async def test_mappers_report_through_the_service(tmp_path: Path) -> None:
    async with twin_rig(tmp_path) as rig:
        watch = rig.devices.watch()
        await bring(rig)
        changes = aiter(watch)
        assert [(one.kind, one.operation) for one in (await anext(changes), await anext(changes))] == [
            ("devicemodel", "insert"),
            ("device", "insert"),
        ]
        await rig.devices.report_twins(
            "default", "d1", [Reported("t", "9", observed_desired="5"), Reported("x", "2.5")]
        )
        assert await rig.table("SELECT name, actual, expected FROM device_twin ORDER BY name") == [
            ("t", "9", "5"),
            ("x", "2.5", None),
        ]
        assert (await rig.heard(f"{D1}/twin/update/result"))["twin"]["t"]["actual"]["value"] == "9"
        with pytest.raises(ApiError) as caught:
            await rig.devices.report_twins("default", "d1", [Reported("t", "x")])
        assert caught.value.reason == "Invalid"
        with pytest.raises(ApiError) as caught:
            await rig.devices.report_twins("default", "d9", [Reported("t", "1")])
        assert caught.value.reason == "NotFound"
        assert (await rig.heard("$hw/events/device/d9/twin/update/result"))["code"] == 404
        with pytest.raises(ApiError):
            await rig.devices.report_state("default", "d1", "broken")
        assert ((await rig.devices.device("default", "d1")) or {})["spec"]["nodeName"] == "edge-1"
        assert rig.devices.namespace_of("d1") == "default"
        watch.close()


async def test_mappers_do_not_hear_of_reports_that_come_down_again(tmp_path: Path) -> None:
    """KubeEdge's cloud sends a device whenever its status changes."""
    async with twin_rig(tmp_path) as rig:
        await bring(rig)
        watch = rig.devices.watch()
        status = {"twins": [{"propertyName": "t", "reported": {"value": "1"}}]}
        await rig.cloud("update", "default/device/d1", {**device(101), "status": status}, source="edgecontroller")
        await rig.stored(await rig.cloud("update", "default/device/d1", device(102, "9")))
        await rig.settled()
        heard = [await anext(aiter(watch))]
        assert [one.operation for one in heard] == ["update"]
        with anyio.move_on_after(0.1) as scope:
            await anext(aiter(watch))
        assert scope.cancelled_caught


async def test_a_clock_that_steps_loses_no_report(tmp_path: Path) -> None:
    async with twin_rig(tmp_path) as rig:
        await bring(rig)
        await rig.connect()
        for step, value in ((3600.0, "1"), (-86400.0, "2"), (0.0, "3")):
            rig.clock.ahead_s = step
            await rig.say(f"{D1}/twin/update", report("e", t=value))
            await rig.settled()
        assert await rig.table("SELECT actual, actual_version FROM device_twin WHERE name = 't'") == [
            ("3", '{"cloud":0,"edge":3}')
        ]


async def test_what_the_disk_refuses_is_taken_back_and_answered(tmp_path: Path) -> None:
    async with twin_rig(tmp_path) as rig:
        await bring(rig)
        await rig.say(f"{D1}/twin/update", report("e1", t="6"))
        await rig.heard(f"{D1}/twin/update/result")
        await rig.table("PRAGMA query_only = 1")
        await rig.say(f"{D1}/twin/update", report("e2", t="7", new="1"))
        answer = await rig.heard(f"{D1}/twin/update/result", 15)
        assert (answer["event_id"], answer["code"]) == ("e2", 500)
        await rig.table("PRAGMA query_only = 0")
        await rig.say(f"{D1}/twin/get", {"event_id": "g"})
        twin = (await rig.heard(f"{D1}/twin/get/result"))["twin"]
        assert (twin["t"]["actual"]["value"], "new" in twin) == ("6", False)
        await rig.say(f"{D1}/twin/update", report("e3", t="7"))
        assert (await rig.heard(f"{D1}/twin/update/result"))["event_id"] == "e3"


async def test_a_desired_value_that_the_disk_refused_comes_though_nothing_else_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine, "_PAUSE_S", 0.01)
    monkeypatch.setattr(engine, "_AGAIN_S", 0.1)
    async with twin_rig(tmp_path) as rig:
        await bring(rig)
        await rig.heard(f"{D1}/twin/update/delta")
        newer = device(101, "9")
        await rig.rows.write([("UPDATE meta SET value = ? WHERE type = 'device'", (json.dumps(newer).decode(),))])
        await rig.table("PRAGMA query_only = 1")
        await rig.cloud("update", "default/device/d1", newer, group="twin")
        await until(lambda: "cannot be read anew" in caplog.text)
        await rig.table("PRAGMA query_only = 0")
        assert (await rig.heard(f"{D1}/twin/update/delta"))["delta"] == {"t": "9"}
        assert await rig.table("SELECT expected FROM device_twin WHERE name = 't'") == [("9",)]


async def test_an_older_object_that_comes_late_changes_nothing(tmp_path: Path) -> None:
    """Words of devices that wait while this is loaded are older than what is stored by then."""
    async with twin_rig(tmp_path) as rig:
        await bring(rig)
        await rig.stored(await rig.cloud("update", "default/device/d1", device(102, "9")))
        await rig.settled()
        rig.clear()
        await rig.cloud("update", "default/device/d1", device(101, "7"), group="twin")
        await rig.settled()
        assert await rig.table("SELECT expected FROM device_twin WHERE name = 't'") == [("9",)]
        assert f"{D1}/twin/update/delta" not in rig.topics()
        restored = device(50, "3")  # the API, from a backup: metamanager has stored it
        await rig.rows.write([("UPDATE meta SET value = ? WHERE type = 'device'", (json.dumps(restored).decode(),))])
        await rig.cloud("update", "default/device/d1", restored, group="twin")
        await rig.settled()
        assert await rig.table("SELECT expected FROM device_twin WHERE name = 't'") == [("3",)]
