"""A double of BlueZ on a D-Bus of its own, so that bleak and dbus-fast run as they do on a machine with an adapter. No radio is in it.

Source  BlueZ's D-Bus API (doc/org.bluez.Adapter.rst, Device.rst, GattService.rst, GattCharacteristic.rst).
"""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import anyio
from dbus_fast import DBusError
from dbus_fast.aio import MessageBus
from dbus_fast.annotations import DBusBool, DBusBytes, DBusDict, DBusInt16, DBusObjectPath, DBusSignature, DBusStr
from dbus_fast.constants import PropertyAccess
from dbus_fast.service import ServiceInterface, dbus_method, dbus_property

READ = PropertyAccess.READ
ADAPTER = "/org/bluez/hci0"
ADVERTISE_S = 0.05
DBusStrings = Annotated[list[str], DBusSignature("as")]


class Characteristic(ServiceInterface):
    def __init__(self, service: str, uuid: str, value: bytes, *, is_readable: bool = True) -> None:
        super().__init__("org.bluez.GattCharacteristic1")
        self.service, self.uuid, self.value, self.is_readable = service, uuid, value, is_readable
        self.written: list[bytes] = []
        self.listened_to = anyio.Event()

    @dbus_property(access=READ, name="UUID")
    def uuid_(self) -> DBusStr:
        return self.uuid

    @dbus_property(access=READ, name="Service")
    def service_(self) -> DBusObjectPath:
        return self.service

    @dbus_property(access=READ, name="Flags")
    def flags_(self) -> DBusStrings:
        return ["read", "write", "notify"]

    @dbus_property(access=READ, name="Value")
    def value_(self) -> DBusBytes:
        return self.value

    @dbus_method(name="StartNotify")
    def start_notify(self) -> None:
        self.listened_to.set()

    @dbus_method(name="StopNotify")
    def stop_notify(self) -> None:
        self.listened_to = anyio.Event()

    def notify(self, value: bytes) -> None:
        self.value = value
        self.emit_properties_changed({"Value": value})

    @dbus_method(name="ReadValue")
    def read_value(self, options: DBusDict) -> DBusBytes:
        if not self.is_readable:
            raise DBusError("org.bluez.Error.NotPermitted", "Read not permitted")
        return self.value

    @dbus_method(name="WriteValue")
    def write_value(self, value: DBusBytes, options: DBusDict) -> None:
        self.value = bytes(value)
        self.written.append(self.value)


class Service(ServiceInterface):
    def __init__(self, device: str) -> None:
        super().__init__("org.bluez.GattService1")
        self.device = device

    @dbus_property(access=READ, name="UUID")
    def uuid_(self) -> DBusStr:
        return "0000181a-0000-1000-8000-00805f9b34fb"

    @dbus_property(access=READ, name="Device")
    def device_(self) -> DBusObjectPath:
        return self.device

    @dbus_property(access=READ, name="Primary")
    def primary_(self) -> DBusBool:
        return True


class Peripheral(ServiceInterface):
    """``org.bluez.Device1`` of a peripheral with characteristics by UUID."""

    def __init__(self, address: str, characteristics: dict[str, Characteristic]) -> None:
        super().__init__("org.bluez.Device1")
        self.address, self.characteristics = address, characteristics
        self.path = f"{ADAPTER}/dev_{address.replace(':', '_')}"
        self.is_connected = False
        self.refuses = ""
        self.connections = 0

    @dbus_property(access=READ, name="Address")
    def address_(self) -> DBusStr:
        return self.address

    @dbus_property(access=READ, name="AddressType")
    def address_type_(self) -> DBusStr:
        return "public"

    @dbus_property(access=READ, name="Name")
    def name_(self) -> DBusStr:
        return "thermo"

    @dbus_property(access=READ, name="Alias")
    def alias_(self) -> DBusStr:
        return "thermo"

    @dbus_property(access=READ, name="Adapter")
    def adapter_(self) -> DBusObjectPath:
        return ADAPTER

    @dbus_property(access=READ, name="RSSI")
    def rssi_(self) -> DBusInt16:
        return -40

    @dbus_property(access=READ, name="UUIDs")
    def uuids_(self) -> DBusStrings:
        return []

    @dbus_property(access=READ, name="Paired")
    def paired_(self) -> DBusBool:
        return False

    @dbus_property(access=READ, name="Connected")
    def connected_(self) -> DBusBool:
        return self.is_connected

    @dbus_property(access=READ, name="ServicesResolved")
    def services_resolved_(self) -> DBusBool:
        return self.is_connected

    @dbus_method(name="Connect")
    def connect_(self) -> None:
        if self.refuses:
            raise DBusError("org.bluez.Error.Failed", self.refuses)
        self.connections += 1
        self.change(connected=True)

    @dbus_method(name="Disconnect")
    def disconnect_(self) -> None:
        self.change(connected=False)

    def change(self, *, connected: bool) -> None:
        self.is_connected = connected
        self.emit_properties_changed({"Connected": connected, "ServicesResolved": connected})


class Radio(ServiceInterface):
    """``org.bluez.Adapter1``. Peripherals that are `near` advertise again and again while somebody discovers."""

    def __init__(self, bus: MessageBus) -> None:
        super().__init__("org.bluez.Adapter1")
        self._bus = bus
        self.near: dict[str, Peripheral] = {}
        self._shown: set[str] = set()
        self._seekers = 0

    @dbus_property(access=READ, name="Address")
    def address_(self) -> DBusStr:
        return "00:00:00:00:00:01"

    @dbus_property(access=READ, name="Powered")
    def powered_(self) -> DBusBool:
        return True

    @dbus_property(access=READ, name="Roles")
    def roles_(self) -> DBusStrings:
        return ["central"]

    @dbus_method(name="SetDiscoveryFilter")
    def filter_(self, properties: DBusDict) -> None:
        pass

    @dbus_method(name="StartDiscovery")
    def start_(self) -> None:
        self._seekers += 1
        if self._seekers == 1:
            self._advertise()

    @dbus_method(name="StopDiscovery")
    def stop_(self) -> None:
        self._seekers -= 1

    def _advertise(self) -> None:
        if self._seekers <= 0:
            return
        for peripheral in self.near.values():
            if peripheral.address in self._shown:
                peripheral.emit_properties_changed({"RSSI": -41})
            else:
                self._shown.add(peripheral.address)
                self._show(peripheral)
        asyncio.get_running_loop().call_later(ADVERTISE_S, self._advertise)

    def _show(self, peripheral: Peripheral) -> None:
        service = f"{peripheral.path}/service0001"
        self._bus.export(peripheral.path, peripheral)
        self._bus.export(service, Service(peripheral.path))
        for at, characteristic in enumerate(peripheral.characteristics.values()):
            characteristic.service = service
            self._bus.export(f"{service}/char{at:04x}", characteristic)

    def close(self) -> None:
        self._seekers = 0
        self._bus.disconnect()


@asynccontextmanager
async def bluez(folder: Path, monkeypatch: Any) -> AsyncIterator[Radio]:
    """Run a D-Bus with the double on it; what looks for the system's bus finds this one."""
    socket = f"unix:path={folder}/bus"
    config = folder / "bus.conf"
    config.write_text(
        "<busconfig><type>system</type>"
        f"<listen>{socket}</listen><auth>EXTERNAL</auth><policy context='default'><allow send_destination='*'/>"
        "<allow receive_sender='*'/><allow own='*'/><allow user='*'/></policy></busconfig>"
    )
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", socket)
    command = ["dbus-daemon", f"--config-file={config}", "--nofork", "--print-address"]
    async with await anyio.open_process(command, stderr=subprocess.DEVNULL) as daemon:
        try:
            assert daemon.stdout is not None
            assert await daemon.stdout.receive()
            bus = await MessageBus(bus_address=socket).connect()
            radio = Radio(bus)
            bus.export(ADAPTER, radio)
            await bus.request_name("org.bluez")
            try:
                yield radio
            finally:
                radio.close()
        finally:
            daemon.terminate()
