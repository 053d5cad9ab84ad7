"""The Modbus driver against pymodbus's server, over TCP and over a serial line (a pair of pseudo-terminals)."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import tty
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from edgesite_mapper_modbus.bus import Bus
from edgesite_mapper_modbus.driver import ModbusDriver
from edgesite_mapper_modbus.settings import Line
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from edgesite.mapper import Device, DeviceState, DriverError, Host, Property
from edgesite.mapper.conversion import to_text
from edgesite.net.real import RealClock, RealNet, RealThreads

pytestmark = pytest.mark.anyio

COIL, SWITCH, DIAL, SENSOR = "CoilRegister", "DiscreteInputRegister", "HoldingRegister", "InputRegister"


def prop(name: str, kind: str, register: str, offset: int, limit: int = 1, **words: Any) -> Property:
    return Property(name, kind, True, {"register": register, "offset": offset, "limit": limit, **words})


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    async with anyio.create_task_group():
        yield Host(RealNet(), RealClock(), RealThreads(), random.Random(1), logging.getLogger("test"))


def machine(unit: int, first: int = 0) -> SimDevice:
    """Coils, discrete inputs, holding and input registers, each a block of its own."""
    bits = [bool(at % 3 == 0) for at in range(16)]
    registers = [first + at for at in range(32)]
    return SimDevice(
        unit,
        (
            [SimData(0, values=list(bits), datatype=DataType.BITS)],
            [SimData(0, values=list(bits), datatype=DataType.BITS)],
            [SimData(0, values=list(registers), datatype=DataType.REGISTERS)],
            [SimData(0, values=[0x3FC0, 0x0000, 0x0001, 0xFFFE], datatype=DataType.REGISTERS)],
        ),
    )


@asynccontextmanager
async def tcp_server(*machines: SimDevice, port: int = 0) -> AsyncIterator[int]:
    server = ModbusTcpServer(list(machines), address=("127.0.0.1", port))
    await server.serve_forever(background=True)
    try:
        yield server.transport.sockets[0].getsockname()[1]
    finally:
        await server.shutdown()


@asynccontextmanager
async def serial_server(*machines: SimDevice) -> AsyncIterator[str]:
    """Two pseudo-terminals with a cable between them, yields the path of our end. Whatever is for unit 9 is lost on the way."""
    ends = [os.openpty(), os.openpty()]
    loop = asyncio.get_running_loop()
    for master, slave in ends:
        tty.setraw(slave)
        os.set_blocking(master, False)
    (ours, our_port), (theirs, their_port) = ends

    def forward() -> None:
        if not (data := os.read(ours, 4096)).startswith(b"\x09"):
            os.write(theirs, data)

    loop.add_reader(ours, forward)
    loop.add_reader(theirs, lambda: os.write(ours, os.read(theirs, 4096)))
    server = ModbusSerialServer(list(machines), port=os.ttyname(their_port), baudrate=19200)
    await server.serve_forever(background=True)
    try:
        yield os.ttyname(our_port)
    finally:
        await server.shutdown()
        for end in (ours, theirs):
            loop.remove_reader(end)
        for descriptor in (*ends[0], *ends[1]):
            os.close(descriptor)


def device(config: dict[str, Any], *properties: Property, name: str = "pump") -> Device:
    return Device("default", name, "model", "modbus", config, properties)


def over_tcp(port: int, unit: int = 1) -> dict[str, Any]:
    return {"slaveID": unit, "common": {"tcp": {"ip": "127.0.0.1", "port": port}}, "timeout": 1}


async def test_all_four_tables_are_read_and_what_can_be_is_written(host: Host) -> None:
    speed = prop("speed", "int", DIAL, 4)
    async with tcp_server(machine(1)) as port:
        driver = ModbusDriver(device(over_tcp(port), speed), host)
        await driver.connect()
        assert await driver.read(prop("c", "boolean", COIL, 3)) is True
        assert await driver.read(prop("c", "boolean", COIL, 4)) is False
        assert await driver.read(prop("c", "int", COIL, 0, 4)) == 0b1001
        assert await driver.read(prop("d", "boolean", SWITCH, 6)) is True
        ratio = prop("r", "float", SENSOR, 0, 2, scale=2)
        assert to_text(ratio, await driver.read(ratio)) == "3.000000"
        swapped = prop("s", "int", SENSOR, 2, isSwap=True)
        assert to_text(swapped, await driver.read(swapped)) == "256"
        assert to_text(speed, await driver.read(speed)) == "4"

        await driver.write(speed, 1500)
        assert to_text(speed, await driver.read(speed)) == "1500"
        exact = prop("x", "double", DIAL, 8, 4, isRegisterSwap=True)
        await driver.write(exact, -2.5)
        assert to_text(exact, await driver.read(exact)) == "-2.500000"
        await driver.write(prop("c", "boolean", COIL, 4), True)
        assert await driver.read(prop("c", "int", COIL, 3, 2)) == 0b11
        await driver.write(prop("c", "int", COIL, 0, 4), 0b0110)
        assert await driver.read(prop("c", "int", COIL, 0, 4)) == 0b0110
        with pytest.raises(DriverError, match="input of the machine"):
            await driver.write(prop("d", "boolean", SWITCH, 6), False)
        assert await driver.health() is DeviceState.ONLINE
        await driver.close()
    assert host.shared == {}


async def test_some_bits_of_a_register_are_written_without_the_others(host: Host) -> None:
    whole = prop("w", "int", DIAL, 0)
    async with tcp_server(machine(1)) as port:
        driver = ModbusDriver(device(over_tcp(port), whole), host)
        await driver.connect()
        await driver.write(whole, 0xABCD)
        await driver.write(prop("mode", "int", DIAL, 0, shiftRight=4, mask=0xF), 7)
        assert await driver.read(whole) == b"\xab\x7d"
        await driver.close()


async def test_machines_on_one_serial_line_share_it(host: Host) -> None:
    value = prop("v", "int", DIAL, 2)
    async with serial_server(machine(1), machine(7, first=700)) as port:
        config = {"common": {"com": {"serialPort": port, "baudRate": 19200, "parity": "none"}}, "timeout": 2}
        one = ModbusDriver(device({**config, "slaveID": 1}, value), host)
        other = ModbusDriver(device({**config, "slaveID": 7}, value), host)
        gone = ModbusDriver(device({**config, "slaveID": 9}, value), host)
        async with anyio.create_task_group() as group:
            group.start_soon(one.connect)
            group.start_soon(other.connect)
        assert len(host.shared) == 1
        began = anyio.current_time()
        for _ in range(3):
            with pytest.raises(DriverError, match="unit 9 does not answer"):
                await gone.connect()
        assert anyio.current_time() - began < 6, "a silent machine takes the line from the others"
        assert len(host.shared) == 1

        read: dict[str, list[bytes]] = {"one": [], "other": []}

        async def read_often(name: str, driver: ModbusDriver) -> None:
            read[name] = [await driver.read(value) for _ in range(5)]

        async with anyio.create_task_group() as group:
            group.start_soon(read_often, "one", one)
            group.start_soon(read_often, "other", other)
        assert read == {"one": [b"\x00\x02"] * 5, "other": [(702).to_bytes(2, "big")] * 5}
        await gone.close()
        await one.close()
        assert await other.read(value) == (702).to_bytes(2, "big")
        await other.close()
    assert host.shared == {}


async def test_a_machine_that_comes_back_is_reached_again(host: Host) -> None:
    value = prop("v", "int", DIAL, 2)
    async with tcp_server(machine(1)) as port:
        driver = ModbusDriver(device(over_tcp(port), value), host)
        await driver.connect()
    with pytest.raises(DriverError):
        await driver.read(value)
    with pytest.raises(DriverError, match="no connection"):
        await driver.health()
    async with tcp_server(machine(1), port=port):
        await driver.connect()
        assert await driver.read(value) == b"\x00\x02"
    await driver.close()


async def test_an_answer_that_comes_too_late_is_nobodys(host: Host) -> None:
    """A request is cancelled; its answer must not be taken for that of the next one."""
    late = anyio.Event()

    async def slow(function: int, start: int, address: int, *rest: Any) -> None:
        if address == 5:
            await late.wait()

    sim = machine(1)
    sim.action = slow
    async with tcp_server(sim) as port:
        driver = ModbusDriver(device(over_tcp(port), prop("v", "int", DIAL, 2)), host)
        await driver.connect()
        with anyio.move_on_after(0.1) as scope:
            await driver.read(prop("slow", "int", DIAL, 5))
        assert scope.cancelled_caught
        late.set()
        assert await driver.read(prop("v", "int", DIAL, 2)) == b"\x00\x02"
        await driver.close()


async def test_a_refusal_says_what_the_machine_has_against_it(host: Host) -> None:
    async with tcp_server(machine(1)) as port:
        driver = ModbusDriver(device(over_tcp(port), prop("v", "int", DIAL, 2)), host)
        await driver.connect()
        with pytest.raises(DriverError, match="unit 1 has no such address"):
            await driver.read(prop("far", "int", DIAL, 999))
        assert await driver.health() is DeviceState.ONLINE
        await driver.close()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "neither com.serialPort nor tcp.ip"),
        ({"ip": "127.0.0.1", "port": "no"}, "port is no number"),
        ({"ip": "127.0.0.1", "port": 70000}, "is no port"),
        ({"ip": "127.0.0.1", "slaveID": 300}, "slaveID 300"),
        ({"serialPort": "/dev/null", "parity": "mark"}, "baudRate, dataBits, parity"),
        ({"serialPort": "/dev/nowhere"}, "no connection"),
        ({"serialPort": "/dev/full"}, "is no serial port"),
        ({"serialPort": "spy:///dev/ttyS0?file=/etc/passwd"}, "no device file"),
        ({"serialPort": "socket://192.0.2.1:7"}, "no device file"),
        ({"serialPort": "/etc/shadow"}, "no device file"),
        ({"serialPort": "/dev/../etc/shadow"}, "no device file"),
    ],
)
async def test_a_device_that_says_too_little_or_nonsense_is_told_so(
    config: dict[str, Any], said: str, host: Host
) -> None:
    driver = ModbusDriver(device(config, prop("v", "int", DIAL, 0)), host)
    with pytest.raises(DriverError, match=said):
        await driver.connect()
    await driver.close()


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        ({"register": "Magic", "offset": 0}, "int", "none of the four kinds"),
        ({"register": DIAL, "offset": -1}, "int", "beyond"),
        ({"register": DIAL, "offset": 0, "limit": 126}, "int", "beyond"),
        ({"register": DIAL, "offset": 0}, "string", "limit of property v must say"),
        ({"register": DIAL, "offset": True}, "int", "offset is no number"),
    ],
)
async def test_a_visitor_that_is_wrong_names_its_property(
    words: dict[str, Any], kind: str, said: str, host: Host
) -> None:
    async with tcp_server(machine(1)) as port:
        wrong = Property("v", kind, True, words)
        driver = ModbusDriver(device(over_tcp(port), wrong, prop("w", "int", DIAL, 0)), host)
        await driver.connect()
        with pytest.raises(DriverError, match=said):
            await driver.read(wrong)
        await driver.close()


async def test_dead_machines_of_a_line_hold_up_the_others_by_one_silence_at_most(host: Host) -> None:
    async with tcp_server(machine(1)) as port:
        bus = Bus.of(host, Line("127.0.0.1", port, timeout_s=0.2))
        silences: list[int] = []

        async def silent(unit: int) -> None:
            async def wait(client: Any) -> Any:
                await anyio.sleep_forever()

            with pytest.raises(DriverError, match="does not answer"):
                await bus.ask(unit, wait)
            silences.append(unit)

        def well(client: Any) -> Any:
            return client.read_coils(0, count=1, device_id=1)

        await bus.ask(1, well)
        async with anyio.create_task_group() as tasks:
            for unit in range(2, 12):
                tasks.start_soon(silent, unit)
            await anyio.sleep(0.05)
            for asked in range(1, 4):
                await bus.ask(1, well)
                assert len(silences) <= asked
        assert len(silences) == 10
        bus.release(host.shared)
