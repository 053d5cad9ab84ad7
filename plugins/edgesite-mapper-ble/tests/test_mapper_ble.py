"""The Bluetooth driver through bleak and D-Bus, against a double of BlueZ. There is no adapter and no radio in these tests."""

from __future__ import annotations

import base64
import logging
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from bluez_double import Characteristic, Peripheral, Radio, bluez
from edgesite_mapper_ble import driver as driver_module
from edgesite_mapper_ble.driver import BleDriver

from edgesite.mapper import Device, DeviceState, DriverError, Host, Property
from edgesite.mapper.conversion import to_text
from edgesite.net.real import RealClock, RealNet, RealThreads

pytestmark = pytest.mark.anyio

THERMO, LAMP = "AA:BB:CC:00:11:22", "AA:BB:CC:00:11:33"
TEMPERATURE = "00002a6e-0000-1000-8000-00805f9b34fb"
MODE = "f000aa02-0451-4000-b000-000000000000"
SECRET = "f000aa03-0451-4000-b000-000000000000"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def host() -> Host:
    return Host(RealNet(), RealClock(), RealThreads(), random.Random(1), logging.getLogger("test"))


@pytest.fixture
async def radio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Radio]:
    monkeypatch.setattr(driver_module, "LOOK_S", 1.0)
    async with bluez(tmp_path, monkeypatch) as radio:
        for address in (THERMO, LAMP):
            characteristics = {
                TEMPERATURE: Characteristic("", TEMPERATURE, b"\x66\x08"),
                MODE: Characteristic("", MODE, b"\x01\x02\x03\x04"),
                SECRET: Characteristic("", SECRET, b"", is_readable=False),
            }
            radio.near[address] = Peripheral(address, characteristics)
        yield radio


def driver_for(address: str, host: Host) -> BleDriver:
    return BleDriver(Device("default", "thermo", "model", "bluetooth", {"macAddress": address}, ()), host)


def prop(kind: str, uuid: str, **words: Any) -> Property:
    return Property("p", kind, True, {"characteristicUUID": uuid, **words})


async def soon(driver: BleDriver, wanted: Property, value: bytes | None = None) -> Any:
    """Read again and again, until the value is there; what it is in the end."""
    found: Any = None
    for _ in range(500):
        found = await driver.read(wanted)
        if found == value:
            break
        await anyio.sleep(0.01)
    return found


async def test_characteristics_are_read_by_the_words_of_a_visitor(radio: Radio, host: Host) -> None:
    driver = driver_for(THERMO.lower(), host)
    await driver.connect()
    assert await driver.health() is DeviceState.ONLINE
    temperature = prop("float", "2A6E", dataConverter={"startIndex": 1, "endIndex": 0}, scale=0.01)
    assert to_text(temperature, await driver.read(temperature)) == "21.500000"
    assert to_text(prop("bytes", MODE), await driver.read(prop("bytes", MODE))) == "AQIDBA=="
    with pytest.raises(DriverError, match="22: GATT Protocol Error: Read Not Permitted"):
        await driver.read(prop("int", SECRET))
    with pytest.raises(DriverError, match="2a99"):
        await driver.read(prop("int", "2a99"))
    with pytest.raises(DriverError, match="characteristicUUID of property p is none"):
        await driver.read(prop("int", "temperature"))
    await driver.close()
    assert host.shared == {}
    assert not radio.near[THERMO].is_connected


async def test_values_are_written_as_commands_texts_and_parts_of_bytes(radio: Radio, host: Host) -> None:
    driver = driver_for(THERMO, host)
    await driver.connect()
    mode = radio.near[THERMO].characteristics[MODE]
    words = {"true": base64.b64encode(b"\x55\xaa").decode(), "3": "no base64!", "4": [4, 255, 0, 1]}
    await driver.write(prop("boolean", MODE, dataWrite=words), True)
    await driver.write(prop("string", MODE), "hello")
    await driver.write(prop("int", MODE, dataType="uint16"), 258)
    await driver.write(prop("bytes", MODE), b"\x01\x02\x03\x04")
    await driver.write(prop("int", MODE, startIndex=2, endIndex=1), 0xABCD)
    await driver.write(prop("int", MODE), 7)
    await driver.write(prop("int", MODE, dataWrite=words), 4)
    assert mode.written == [
        b"\x55\xaa",
        b"hello",
        b"\x01\x02",
        b"\x01\x02\x03\x04",
        b"\x01\xcd\xab\x04",
        b"\x00\x00\x00\x07",
        b"\x04\xff\x00\x01",
    ]
    with pytest.raises(DriverError, match="dataWrite of '3' is neither base64"):
        await driver.write(prop("int", MODE, dataWrite=words), 3)
    with pytest.raises(DriverError, match="bytes 2 to 9 of 4"):
        await driver.write(prop("int", MODE, startIndex=2, endIndex=9), 3)
    await driver.close()


async def test_what_a_peripheral_sends_by_itself_is_its_value(
    radio: Radio, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = driver_for(THERMO, host)
    await driver.connect()
    value, source = prop("bytes", MODE, notify=True), radio.near[THERMO].characteristics[MODE]
    got: list[Any] = []

    async def first() -> None:
        got.append(await driver.read(value))

    async with anyio.create_task_group() as group:
        group.start_soon(first)
        await source.listened_to.wait()
        source.notify(b"one")
    source.notify(b"two")
    assert got == [b"one"]
    assert await soon(driver, value, b"two") == b"two"

    monkeypatch.setattr(driver_module, "FIRST_NEWS_S", 0.1)
    with pytest.raises(DriverError, match="has not sent characteristic 00002a6e"):
        await driver.read(prop("bytes", TEMPERATURE, notify=True))
    radio.near[THERMO].change(connected=False)
    with pytest.raises(DriverError, match="is not connected"):
        await soon(driver, value)
    await driver.close()


async def test_a_lost_peripheral_is_reached_again_and_another_goes_on(radio: Radio, host: Host) -> None:
    driver, other = driver_for(THERMO, host), driver_for(LAMP, host)
    await driver.connect()
    await other.connect()
    assert len(host.shared) == 1
    value = prop("bytes", TEMPERATURE)

    radio.near[THERMO].change(connected=False)
    while driver._client is not None and driver._client.is_connected:
        assert await other.read(value) == b"\x66\x08"
    with pytest.raises(DriverError, match="is not connected"):
        await driver.health()
    radio.near[THERMO].refuses = "br-connection-canceled"
    with pytest.raises(DriverError, match="br-connection-canceled"):
        await driver.connect()
    radio.near[THERMO].refuses = ""
    await driver.connect()
    assert await driver.read(value) == b"\x66\x08"
    assert (radio.near[THERMO].connections, radio.near[LAMP].connections) == (2, 1)
    await driver.close()
    assert await other.read(value) == b"\x66\x08"
    await other.close()
    assert host.shared == {}


async def test_a_peripheral_that_is_away_or_has_no_address_is_said_so(radio: Radio, host: Host) -> None:
    away = driver_for("AA:BB:CC:99:99:99", host)
    with pytest.raises(DriverError, match="AA:BB:CC:99:99:99 is not to be seen"):
        await away.connect()
    await away.close()
    with pytest.raises(DriverError, match="macAddress is none"):
        await driver_for("thermo", host).connect()


async def test_a_machine_without_bluetooth_says_so(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/nothing")
    driver = driver_for(THERMO, host)
    with pytest.raises(DriverError, match=THERMO):
        await driver.connect()
    await driver.close()
