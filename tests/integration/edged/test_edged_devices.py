"""Extended resources on a real containerd: a device plugin in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from edged_site import FOREVER, clean_rig, container, is_ready, output, pod, rig_on

from edgesite.edge.edged.devices.podresources import POD_RESOURCES, SERVICE
from edgesite.kube.protowire import decode, encode
from edgesite.testing.containerd import Containerd
from edgesite.testing.edgedrig import NODE, Rig
from edgesite.testing.waiting import until

pytestmark = pytest.mark.anyio
RESOURCE = "devices.test/widget"
PROGRAM = Path(__file__).with_name("device_plugin.py")


class Plugin:
    def __init__(self, root: Path) -> None:
        self.folder, self.state = root / "edged" / "device-plugins", root / "plugin"
        (self.state / "driver").mkdir(parents=True, exist_ok=True)
        (self.state / "driver" / "version").write_text("7\n")
        self.process: subprocess.Popen[bytes] | None = None

    def offer(self, *lines: str) -> None:
        fresh = self.state / "fresh"
        fresh.write_text("\n".join(lines))
        fresh.replace(self.state / "devices")

    def start(self) -> None:
        self.process = subprocess.Popen([sys.executable, str(PROGRAM), str(self.folder), str(self.state), RESOURCE])

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(60)
            self.process = None

    def calls(self, name: str) -> list[dict[str, Any]]:
        try:
            found = [json.loads(line) for line in (self.state / "calls").read_text().splitlines()]
        except FileNotFoundError:
            return []
        return [one for one in found if one["call"] == name]


@contextmanager
def plugin(root: Path, *lines: str) -> Iterator[Plugin]:
    made = Plugin(root)
    made.offer(*lines)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def amounts(rig: Rig) -> tuple[str | None, str | None]:
    status = (rig.cloud.objects.get(("node", "", NODE)) or {}).get("status") or {}
    return status.get("capacity", {}).get(RESOURCE), status.get("allocatable", {}).get(RESOURCE)


def wanting(name: str, count: int = 1, script: str = FOREVER[2], **more: Any) -> dict[str, Any]:
    resources = {"limits": {RESOURCE: str(count)}, "requests": {RESOURCE: str(count)}}
    return container(name, ["/bin/sh", "-c", script], resources=resources, **more)


async def test_devices_are_counted_given_and_given_back(rig: Rig, tmp_path: Path) -> None:
    with plugin(tmp_path, "a", "b", "c sick") as devices:
        await rig.cloud.until(lambda: amounts(rig) == ("3", "2"))
        script = "echo $DEVICES; cat /driver/version; [ -c /dev/first ] && echo there; " + FOREVER[2]
        await rig.cloud.apply("pod", pod("user", wanting("main", script=script)))
        await rig.cloud.until(lambda: is_ready(rig.cloud, "user"))

        async def printed() -> bool:
            return (await output(rig, "user")).split() == ["b", "7", "there"]

        await until(printed)
        assert devices.calls("GetPreferredAllocation")[0]["available_deviceIDs"] == ["a", "b"]
        assert devices.calls("PreStartContainer") == [{"call": "PreStartContainer", "devices_ids": ["b"]}]
        await _ask_who_has_what(rig, tmp_path)
        await rig.cloud.apply("pod", pod("greedy", wanting("main", 2)))
        await rig.cloud.until(lambda: rig.cloud.status("greedy").get("phase") == "Failed")
        status = rig.cloud.status("greedy")
        assert status["reason"] == "UnexpectedAdmissionError"
        assert (
            f"requested number of devices unavailable for {RESOURCE}. Requested: 2, Available: 1" in status["message"]
        )
        await rig.cloud.delete("user", grace_s=1)
        await rig.cloud.until(lambda: bool(rig.cloud.deleted))
        await rig.cloud.apply("pod", pod("later", wanting("main", 2)))
        await rig.cloud.until(lambda: is_ready(rig.cloud, "later"))
        assert sorted(devices.calls("Allocate")[-1]["devices_ids"]) == ["a", "b"]


async def _ask_who_has_what(rig: Rig, root: Path) -> None:
    """Ask as a program does that monitors devices, with gRPC's own client."""
    socket = root / "edged" / "pod-resources" / "kubelet.sock"
    async with grpc.aio.insecure_channel(f"unix://{socket}") as channel:

        async def ask(method: str, answer: str, body: bytes = b"") -> dict[str, Any]:
            return decode(POD_RESOURCES[answer], await channel.unary_unary(f"{SERVICE}{method}")(body, timeout=10))

        held = {"resource_name": RESOURCE, "device_ids": ["b"], "topology": {"nodes": [{}]}}  # node 0
        user = {"name": "user", "namespace": "default", "containers": [{"name": "main", "devices": [held]}]}
        assert await ask("List", "ListPodResourcesResponse") == {"pod_resources": [user]}
        named = encode(POD_RESOURCES["GetPodResourcesRequest"], {"pod_name": "user", "pod_namespace": "default"})
        assert await ask("Get", "GetPodResourcesResponse", named) == {"pod_resources": user}
        with pytest.raises(grpc.aio.AioRpcError, match="not found"):
            await ask("Get", "GetPodResourcesResponse")
        there = await ask("GetAllocatableResources", "AllocatableResourcesResponse")
        assert [one["device_ids"] for one in there["devices"]] == [["a"], ["b"]]


async def test_init_containers_leave_their_devices_to_the_ones_after_them(rig: Rig, tmp_path: Path) -> None:
    with plugin(tmp_path, "a", "b") as devices:
        await rig.cloud.until(lambda: amounts(rig) == ("2", "2"))
        spec = pod("steps", wanting("main", 2), initContainers=[wanting("first", 1, "echo $DEVICES")])
        await rig.cloud.apply("pod", spec)
        await rig.cloud.until(lambda: is_ready(rig.cloud, "steps"))
        assert [len(one["devices_ids"]) for one in devices.calls("Allocate")] == [1, 2]


async def test_devices_that_fall_ill_and_a_plugin_that_goes(rig: Rig, tmp_path: Path) -> None:
    with plugin(tmp_path, "a", "b") as devices:
        await rig.cloud.until(lambda: amounts(rig) == ("2", "2"))
        devices.offer("a", "b sick")
        await rig.cloud.until(lambda: amounts(rig) == ("2", "1"))
        devices.stop()
        await rig.cloud.until(lambda: amounts(rig) == ("2", "0"))
        devices.offer("a", "b")
        devices.start()
        await rig.cloud.until(lambda: amounts(rig) == ("2", "2"))


async def test_who_has_which_device_is_known_after_a_restart(daemon: Containerd, tmp_path: Path) -> None:
    with plugin(tmp_path, "a", "b") as devices:
        async with rig_on(daemon, tmp_path) as rig:
            await rig.cloud.until(lambda: amounts(rig) == ("2", "2"))
            script = "echo $DEVICES; sleep 1; [ -e /driver/stop ] && exit 1; " + FOREVER[2]
            await rig.cloud.apply("pod", pod("kept", wanting("main", script=script)))
            await rig.cloud.until(lambda: is_ready(rig.cloud, "kept"))
            cloud = rig.cloud
            cloud.objects["node", "", NODE]["status"]["allocatable"][RESOURCE] = "of before"
            started = rig.cloud.status("kept")["containerStatuses"][0]["containerID"]
        async with clean_rig(daemon, tmp_path, cloud=cloud) as rig:
            await rig.cloud.until(lambda: amounts(rig) == ("2", "2"))
            await rig.cloud.apply("pod", pod("second", wanting("main")))
            await rig.cloud.until(lambda: is_ready(rig.cloud, "second"))
            assert [one["devices_ids"] for one in devices.calls("Allocate")] == [["b"], ["a"]]
            assert rig.cloud.status("kept")["containerStatuses"][0]["containerID"] == started
