"""One CSI driver behind its node socket: its capabilities, and the calls of the Node service.

Units   Seconds; bytes.
Errors  PluginError: the driver's own refusal, or no answer in time.
State   What the driver said of itself when it registered.
Source  Container Storage Interface v1, package csi.v1: services Node and Identity; deadline as kubelet has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from edgesite.context import Net
from edgesite.edge.edged.plugins.client import PluginClient
from edgesite.edge.edged.podusage import FsUsage
from edgesite.kube.protowire import Messages

__all__ = ["CsiDriver", "NodeInfo"]

CSI: Final = Messages(
    """
VolumeCapability: block BlockVolume = 1 (oneof access_type); mount MountVolume = 2 (oneof access_type); access_mode AccessMode = 3
BlockVolume: (empty)
MountVolume: fs_type string = 1; mount_flags repeated string = 2; volume_mount_group string = 3
AccessMode: mode int32 = 1
NodeStageVolumeRequest: volume_id string = 1; publish_context map<string, string> = 2; staging_target_path string = 3; volume_capability VolumeCapability = 4; secrets map<string, string> = 5; volume_context map<string, string> = 6
NodeUnstageVolumeRequest: volume_id string = 1; staging_target_path string = 2
NodePublishVolumeRequest: volume_id string = 1; publish_context map<string, string> = 2; staging_target_path string = 3; target_path string = 4; volume_capability VolumeCapability = 5; readonly bool = 6; secrets map<string, string> = 7; volume_context map<string, string> = 8
NodeUnpublishVolumeRequest: volume_id string = 1; target_path string = 2
NodeGetVolumeStatsRequest: volume_id string = 1; volume_path string = 2; staging_target_path string = 3
NodeGetVolumeStatsResponse: usage repeated VolumeUsage = 1; volume_condition VolumeCondition = 2
VolumeUsage: available int64 = 1; total int64 = 2; used int64 = 3; unit int32 = 4
VolumeCondition: abnormal bool = 1; message string = 2
NodeExpandVolumeRequest: volume_id string = 1; volume_path string = 2; capacity_range CapacityRange = 3; staging_target_path string = 4; volume_capability VolumeCapability = 5; secrets map<string, string> = 6
NodeExpandVolumeResponse: capacity_bytes int64 = 1
CapacityRange: required_bytes int64 = 1; limit_bytes int64 = 2
NodeGetCapabilitiesResponse: capabilities repeated NodeServiceCapability = 1
NodeServiceCapability: rpc RPC = 1 (oneof type)
RPC: type int32 = 1
NodeGetInfoResponse: node_id string = 1; max_volumes_per_node int64 = 2; accessible_topology Topology = 3
Topology: segments map<string, string> = 1
Empty: (empty)
"""
)
_NODE: Final = "/csi.v1.Node/"
_CAPABILITIES: Final = {
    1: "STAGE_UNSTAGE_VOLUME",
    2: "GET_VOLUME_STATS",
    3: "EXPAND_VOLUME",
    4: "VOLUME_CONDITION",
    5: "SINGLE_NODE_MULTI_WRITER",
    6: "VOLUME_MOUNT_GROUP",
}
CALL_S: Final = 120.0  #: Mounting may have to check a file system first.
ASK_S: Final = 10.0
_BYTES, _INODES = 1, 2


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """What the driver says of this node."""

    node_id: str
    topology: Mapping[str, str]
    max_volumes: int  #: 0: no limit


class CsiDriver:
    """``about`` once after the start; the other calls any time after that."""

    def __init__(self, net: Net, name: str, endpoint: str) -> None:
        self.name, self.endpoint = name, endpoint
        self.capabilities: frozenset[str] = frozenset()
        self.info = NodeInfo("", {}, 0)
        self._client = PluginClient(net, endpoint, CSI)

    async def close(self) -> None:
        await self._client.close()

    async def about(self) -> None:
        """Ask for the node's id and the driver's capabilities. Raises PluginError."""
        said = await self._ask("NodeGetInfo", "NodeGetInfoResponse")
        topology = (said.get("accessible_topology") or {}).get("segments") or {}
        self.info = NodeInfo(said.get("node_id", ""), topology, int(said.get("max_volumes_per_node", 0)))
        found = (await self._ask("NodeGetCapabilities", "NodeGetCapabilitiesResponse")).get("capabilities", ())
        numbers = [(one.get("rpc") or {}).get("type", 0) for one in found]
        self.capabilities = frozenset(_CAPABILITIES[one] for one in numbers if one in _CAPABILITIES)

    async def stage(self, volume_id: str, target: str, body: Mapping[str, Any]) -> None:
        """Make the volume ready below ``target``, for all pods. Raises PluginError."""
        await self._do("NodeStageVolume", {"volume_id": volume_id, "staging_target_path": target, **body})

    async def unstage(self, volume_id: str, target: str) -> None:
        """Raises PluginError."""
        await self._do("NodeUnstageVolume", {"volume_id": volume_id, "staging_target_path": target})

    async def publish(self, volume_id: str, target: str, body: Mapping[str, Any]) -> None:
        """Bring the volume to ``target``, for one pod. Raises PluginError."""
        await self._do("NodePublishVolume", {"volume_id": volume_id, "target_path": target, **body})

    async def unpublish(self, volume_id: str, target: str) -> None:
        """Raises PluginError."""
        await self._do("NodeUnpublishVolume", {"volume_id": volume_id, "target_path": target})

    async def expand(self, volume_id: str, body: Mapping[str, Any]) -> int:
        """Let the file system grow to the volume's new size; return that in bytes. Raises PluginError."""
        answer = await self._do("NodeExpandVolume", {"volume_id": volume_id, **body}, "NodeExpandVolumeResponse")
        return int(answer.get("capacity_bytes", 0))

    async def usage(self, volume_id: str, path: str) -> FsUsage | None:
        """How full the volume is; None if the driver does not say. Raises PluginError."""
        body = {"volume_id": volume_id, "volume_path": path}
        said = await self._do("NodeGetVolumeStats", body, "NodeGetVolumeStatsResponse", ASK_S)
        by_unit = {one.get("unit", 0): one for one in said.get("usage", ())}
        if (space := by_unit.get(_BYTES)) is None:
            return None
        inodes = by_unit.get(_INODES, {})
        return FsUsage(
            capacity_bytes=space.get("total", 0),
            available_bytes=space.get("available", 0),
            inodes=inodes.get("total", 0),
            inodes_free=inodes.get("available", 0),
            used_bytes=space.get("used", 0),
            inodes_used=inodes.get("used", 0),
        )

    async def _ask(self, name: str, answer: str) -> dict[str, Any]:
        return await self._client.call(_NODE + name, "Empty", answer, {}, ASK_S)

    async def _do(
        self, name: str, body: Mapping[str, Any], answer: str = "Empty", timeout_s: float = CALL_S
    ) -> dict[str, Any]:
        return await self._client.call(_NODE + name, f"{name}Request", answer, body, timeout_s)
