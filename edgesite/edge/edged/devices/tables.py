"""The device plugin interface on the wire.

Source  Kubernetes device plugin API v1beta1: names and numbers.
"""

from __future__ import annotations

from typing import Final

from edgesite.kube.protowire import Messages

__all__ = ["DEVICES", "PLUGIN_SERVICE", "REGISTER", "VERSION"]

VERSION: Final = "v1beta1"
REGISTER: Final = "/v1beta1.Registration/Register"
PLUGIN_SERVICE: Final = "/v1beta1.DevicePlugin/"
DEVICES: Final = Messages(
    """
AllocateRequest: container_requests repeated ContainerAllocateRequest = 1
AllocateResponse: container_responses repeated ContainerAllocateResponse = 1
CDIDevice: name string = 1
ContainerAllocateRequest: devices_ids repeated string = 1
ContainerAllocateResponse: envs map<string, string> = 1; mounts repeated Mount = 2; devices repeated DeviceSpec = 3; annotations map<string, string> = 4; cdi_devices repeated CDIDevice = 5
ContainerPreferredAllocationRequest: available_deviceIDs repeated string = 1; must_include_deviceIDs repeated string = 2; allocation_size int32 = 3
ContainerPreferredAllocationResponse: deviceIDs repeated string = 1
Device: ID string = 1; health string = 2; topology TopologyInfo = 3
DevicePluginOptions: pre_start_required bool = 1; get_preferred_allocation_available bool = 2
DeviceSpec: container_path string = 1; host_path string = 2; permissions string = 3
Empty: (empty)
ListAndWatchResponse: devices repeated Device = 1
Mount: container_path string = 1; host_path string = 2; read_only bool = 3
NUMANode: ID int64 = 1
PreStartContainerRequest: devices_ids repeated string = 1
PreStartContainerResponse: (empty)
PreferredAllocationRequest: container_requests repeated ContainerPreferredAllocationRequest = 1
PreferredAllocationResponse: container_responses repeated ContainerPreferredAllocationResponse = 1
RegisterRequest: version string = 1; endpoint string = 2; resource_name string = 3; options DevicePluginOptions = 4
TopologyInfo: nodes repeated NUMANode = 1
"""
)
