"""A device from end to end at the edge: an MQTT client and a mapper of DMI see the same twin."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import anyio
import grpc
import pytest
from dmi_rig import Edge, GoMapper, device, model
from mqtt_peers import free_port, publish, subscriber

from edgesite.edge.devicetwin.module import DeviceTwin
from edgesite.edge.dmi.module import Dmi
from edgesite.edge.eventbus.module import EventBus
from edgesite.edge.metamanager.module import MetaManager
from edgesite.runtime.config.edge import EdgeModules
from edgesite.testing.busrig import bus_rig, event_bus

pytestmark = pytest.mark.anyio


async def test_a_report_of_a_mapper_is_seen_on_mqtt_and_the_other_way_round() -> None:
    with tempfile.TemporaryDirectory(prefix="dev") as name:
        folder, port = Path(name), free_port()
        modules = EdgeModules().model_dump()
        modules["deviceTwin"] |= {"dmiSockPath": str(folder)}
        modules["eventBus"] = event_bus(mqttMode=0, mqttServerInternal=f"tcp://127.0.0.1:{port}")
        chosen = [MetaManager, DeviceTwin, EventBus, Dmi]
        async with (
            bus_rig(chosen, folder, modules, has_twin=False) as rig,
            grpc.aio.insecure_channel(f"unix:{folder}/dmi.sock") as channel,
        ):
            site = Edge(rig, channel)
            for obj in (model(), device()):
                await site.apply(obj)
                await rig.cloud.next()
            mapper = GoMapper(f"{folder}/m1.sock")
            async with mapper.serve():
                await site.register(mapper)
                prefix = "$hw/events/device/default/pump-1/twin"
                async with subscriber(port, f"{prefix}/#", 2, "-q", "1") as wait:
                    twin = {"propertyName": "speed", "reported": {"value": "38"}}
                    request = {
                        "deviceName": "pump-1",
                        "deviceNamespace": "default",
                        "reportedDevice": {"twins": [twin]},
                    }
                    await site.call("v1beta1.DeviceManagerService/ReportDeviceStatus", request)
                    topics = {line.partition(" ")[0] for line in await wait()}
                assert f"{prefix}/update/document" in topics
                async with subscriber(port, f"{prefix}/update/result", 1, "-q", "1") as wait:
                    reported = {"event_id": "e1", "timestamp": 1, "twin": {"speed": {"actual": {"value": "41"}}}}
                    await publish(port, f"{prefix}/update", json.dumps(reported), "-q", "1")
                    (line,) = await wait()
                assert json.loads(line.partition(" ")[2])["twin"]["speed"]["actual"]["value"] == "41"
                async with subscriber(port, f"{prefix}/update/delta", 1, "-q", "1") as wait:
                    await site.apply(device(desired="55", version=3), "update")
                    with anyio.fail_after(60):
                        (line,) = await wait()
                assert json.loads(line.partition(" ")[2])["delta"] == {"speed": "55"}
                assert (await mapper.next())[0] == "UpdateDevice"
