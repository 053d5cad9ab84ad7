"""The mapper SDK: who has a machine that speaks some protocol writes a `Driver` of four methods; the rest is here.

One driver class serves as a program of its own, which reaches the edge over DMI (`edgesite.mapper.program.run`), and as a plugin in the edge role's
process (hook ``edgesite_mapper``).
"""

from edgesite.mapper.driver import Device, DeviceState, Driver, DriverError, Host, Property, Value

__all__ = ["Device", "DeviceState", "Driver", "DriverError", "Host", "Property", "Value"]
