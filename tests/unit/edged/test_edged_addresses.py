"""A node whose addresses change while it runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from edged_machine import Machine, condition, pod

from edgesite.edge.edged.machine import LinuxMachine, MachineFacts
from edgesite.testing.edgedrig import NODE

pytestmark = pytest.mark.anyio


class Moving(LinuxMachine):
    address = "192.0.2.1"

    def facts(self, data_dir: Path, resolv_conf: str, interface: str) -> MachineFacts:
        return replace(super().facts(data_dir, resolv_conf, interface), addresses=(self.address,))


async def test_node_and_pods_tell_the_new_address(tmp_path: Path) -> None:
    host, machine = Moving(), Machine()
    settings: dict[str, Any] = {"nodeIP": "", "tailoredKubeletConfig": {"nodeStatusUpdateFrequency": "50ms"}}
    async with machine.rig(tmp_path, host=host, **settings) as rig:
        cloud = rig.cloud
        await cloud.apply("pod", pod(hostNetwork=True))
        await cloud.until(lambda: condition(cloud, "Ready") == "True")
        assert cloud.status("web")["hostIP"] == "192.0.2.1"
        host.address = "192.0.2.2"
        await cloud.until(lambda: cloud.status("web")["hostIP"] == "192.0.2.2")
        assert cloud.status("web")["podIPs"] == [{"ip": "192.0.2.2"}]

        def told() -> list[str]:
            node = cloud.objects["node", "", NODE]
            return [one["address"] for one in node["status"]["addresses"] if one["type"] == "InternalIP"]

        await cloud.until(lambda: told()[-1] == "192.0.2.2")
