"""A camera as KubeEdge's mapper knows it (v1alpha2) at a real edge, driven by the program over DMI: what test_mapper_gige_site.py runs.

In a process of its own, for it makes a network of its own: ``unshare --net python gige_site.py``. A fake camera of Aravis is the camera.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import anyio
from mapper_edge import MODULES, Edge

from edgesite.kube import json
from edgesite.kube.devices import V1ALPHA2, to_v1beta1
from edgesite.net.client import HttpClient
from edgesite.net.real import RealNet
from edgesite.runtime.config.edge import EdgeModules
from edgesite.testing.busrig import bus_rig

HTTP = "127.0.0.1:7001"
PROTOCOL = "GigEVision"
FEATURES = {
    "width": ("Width", "int", "128"),
    "pixels": ("PixelFormat", "string", "RGB8"),
    "image": ("ImageTrigger", "string", ""),
}


def model() -> dict[str, Any]:
    properties = [
        {"name": name, "type": {kind: {"accessMode": "ReadWrite" if desired else "ReadOnly"}}}
        for name, (_, kind, desired) in FEATURES.items()
    ]
    metadata = {"name": "camera", "namespace": "default", "uid": "m", "resourceVersion": "1"}
    spec = {"protocol": PROTOCOL, "properties": properties}
    return {"apiVersion": V1ALPHA2, "kind": "DeviceModel", "metadata": metadata, "spec": spec}


def device() -> dict[str, Any]:
    def visitor(name: str, feature: str) -> dict[str, Any]:
        access = {"protocolName": PROTOCOL, "configData": {"FeatureName": feature}}
        cycle = -1 if name == "image" else 100_000_000
        return {"propertyName": name, "collectCycle": cycle, "reportCycle": cycle, "customizedProtocol": access}

    metadata = {"name": "camera-1", "namespace": "default", "uid": "d", "resourceVersion": "1"}
    where = [{"matchExpressions": [{"key": "", "operator": "In", "values": ["edge-1"]}]}]
    spec = {
        "deviceModelRef": {"name": "camera"},
        "nodeSelector": {"nodeSelectorTerms": where},
        "protocol": {
            "customizedProtocol": {"protocolName": PROTOCOL},
            "common": {"customizedValues": {"deviceSN": "GV01"}},
        },
        "propertyVisitors": [visitor(name, feature) for name, (feature, _, _) in FEATURES.items()],
    }
    twins = [
        {"propertyName": name, "desired": {"value": desired, "metadata": {"type": kind}}}
        for name, (_, kind, desired) in FEATURES.items()
    ]
    return {"apiVersion": V1ALPHA2, "kind": "Device", "metadata": metadata, "spec": spec, "status": {"twins": twins}}


async def play(folder: Path) -> None:
    modules = EdgeModules().model_dump()
    modules["deviceTwin"] |= {"dmiSockPath": str(folder)}
    words = ["--edge-socket", f"{folder}/dmi.sock", "--socket", f"{folder}/gige.sock", "--http", HTTP]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    async with bus_rig(MODULES, folder, modules, has_twin=False) as rig, anyio.create_task_group() as tasks:
        site = Edge(rig)
        tasks.start_soon(site.listen)
        command = [sys.executable, "-m", "edgesite_mapper_gige.program", *words]
        async with await anyio.open_process(command, env=environment, stdout=None, stderr=None) as running:
            await site.apply(to_v1beta1(model()))
            await site.apply(to_v1beta1(device()))
            await site.reported("width", "128", "camera-1")
            await site.reported("pixels", "RGB8", "camera-1")
            await site.state("online", "camera-1")
            async with HttpClient(RealNet(), HTTP) as client:
                answer = await client.request("GET", "/api/v1/device/default/camera-1/image")
            image = base64.b64decode(json.loads(answer.body)["Data"]["Value"])
            assert image.startswith(b"\x89PNG"), answer.body[:200]
            assert site.values("image", "camera-1") == []  # it is too long for a twin
            running.terminate()
            assert await running.wait() == 0
        tasks.cancel_scope.cancel()
        site.close()


def main() -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with (
        tempfile.TemporaryDirectory(prefix="map") as folder,
        subprocess.Popen(["arv-fake-gv-camera-0.8", "-i", "127.0.0.1", "-s", "GV01"]) as camera,
    ):
        try:
            anyio.run(play, Path(folder))
        finally:
            camera.kill()


if __name__ == "__main__":
    main()
