"""The virtual machine: its physics, its curves, and what its driver refuses."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.mapper.driver import Device, DeviceState, DriverError, Host, Property
from edgesite.mapper.virtual.driver import VirtualDriver
from edgesite.mapper.virtual.thermostat import Room
from edgesite.mapper.virtual.waves import wave

TARGET = Property("target", "float", True)
ACTUAL = Property("actual", "float", False)
HEATING = Property("heating", "boolean", False)


def driver(host: Host, **config: Any) -> VirtualDriver:
    return VirtualDriver(Device("default", "hall", "thermostat", "virtual", config, (TARGET, ACTUAL)), host)


def test_a_room_is_heated_to_its_target_and_kept_there() -> None:
    room = Room(temperature=10.0, target=20.0)
    room.advance(600)
    assert room.heating
    assert 10.0 < room.temperature < 20.0
    room.advance(3 * 3600)
    seen = []
    for _ in range(200):
        room.advance(60)
        seen.append(room.temperature)
    assert all(19.8 - 1e-6 <= one <= 20.2 + 1e-6 for one in seen)
    assert max(seen) - min(seen) > 0.2  # it does switch


def test_a_heater_that_is_too_weak_does_what_it_can() -> None:
    room = Room(temperature=10.0, target=30.0, outside=0.0, heater_w=1000.0)
    room.advance(86_400)
    assert room.heating
    assert room.temperature == pytest.approx(10.0, abs=0.1)


@given(
    st.lists(st.floats(0, 20_000), max_size=20),
    st.floats(-40, 60),
    st.floats(5, 30),
    st.floats(-30, 40),
)
def test_steps_of_any_length_lead_to_the_same(steps: list[float], start: float, target: float, outside: float) -> None:
    once, often = (Room(temperature=start, target=target, outside=outside) for _ in range(2))
    if sum(steps) > 80_000:
        steps = [one * 80_000 / sum(steps) for one in steps]
    for one in steps:
        often.advance(one)
    once.advance(math.fsum(steps))
    assert often.temperature == pytest.approx(once.temperature, abs=0.01)


@pytest.mark.anyio
async def test_the_driver_lets_time_pass_by_the_clock(host: Host) -> None:
    made = driver(host, speed="60", temperature=15, outside=5)
    await made.connect()
    assert (await made.read(ACTUAL), await made.read(HEATING)) == (15.0, True)
    await anyio.sleep(30)
    warmer = await made.read(ACTUAL)
    assert isinstance(warmer, float)
    assert 16.0 < warmer < 20.0
    await made.write(TARGET, 8)
    await anyio.sleep(300)
    assert (await made.read(HEATING), await made.health()) == (False, DeviceState.ONLINE)


@pytest.mark.anyio
async def test_what_the_machine_does_not_have_is_a_cell(host: Host) -> None:
    made = driver(host)
    await made.connect()
    note = Property("note", "string", True)
    assert await made.read(note) == ""
    await made.write(note, "x")
    assert await made.read(note) == "x"
    assert await made.read(Property("count", "int", True)) == 0


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"machine": "rocket"}, "rocket"),
        ({"speed": "fast"}, "speed 'fast'"),
        ({"outside": float("nan")}, "outside"),
        ({"heaterWatts": True}, "heaterWatts"),
        ({"offline": True}, "switched off"),
    ],
)
async def test_a_machine_that_cannot_be_is_not_reached(host: Host, config: dict[str, Any], why: str) -> None:
    with pytest.raises(DriverError, match=why):
        await driver(host, **config).connect()


@pytest.mark.anyio
async def test_what_cannot_be_written_is_said(host: Host) -> None:
    made = driver(host)
    with pytest.raises(DriverError, match="not connected"):
        await made.read(ACTUAL)
    await made.connect()
    for prop in (HEATING, Property("s", "int", True, {"wave": "sine"})):
        with pytest.raises(DriverError, match="cannot be written"):
            await made.write(prop, 1)
    with pytest.raises(DriverError, match="none of constant"):
        await made.read(Property("s", "int", True, {"wave": "tsunami"}))


@pytest.mark.parametrize(
    ("kind", "at", "value"),
    [("sine", 0, 20), ("sine", 15, 80), ("ramp", 15, 50), ("square", 14, 20), ("square", 16, 80), ("constant", 9, 20)],
)
def test_curves(kind: str, at: float, value: float) -> None:
    visitor = {"wave": kind, "low": 20, "high": "80", "period": 30}
    assert wave(visitor, at, Random(1)) == pytest.approx(value)
    assert 20 <= wave({**visitor, "wave": "random"}, at, Random(1)) <= 80
