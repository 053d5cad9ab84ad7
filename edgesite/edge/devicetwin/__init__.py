"""DeviceTwin: what devices of this node shall be and say that they are. `Devices` is what DMI asks."""

from edgesite.edge.devicetwin.devices import DeviceChange, Devices, DeviceWatch, Reported

__all__ = ["DeviceChange", "DeviceWatch", "Devices", "Reported"]
