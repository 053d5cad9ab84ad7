"""The machines of this distribution, and the driver that the plugin gives for them."""

from __future__ import annotations

import logging
import random
from typing import Any

import pytest
from edgesite_mapper_virtual import plugin
from edgesite_mapper_virtual.press import Press
from edgesite_mapper_virtual.tank import Tank
from hypothesis import given
from hypothesis import strategies as st

from edgesite.mapper import Device, DriverError, Host, Property
from edgesite.net.real import RealClock


def test_a_tank_settles_where_as_much_leaves_as_comes() -> None:
    tank = Tank(level=0.5, pump=30, valve=60)
    tank.advance(20_000)
    assert tank.outflow == pytest.approx(tank.inflow, rel=0.01)
    assert (tank.alarm, tank.spilled) == (False, 0.0)


@given(st.floats(0, 200_000), st.floats(0, 100), st.floats(0, 100), st.floats(0, 4))
def test_no_tank_holds_more_than_it_can_or_less_than_nothing(
    seconds: float, pump: float, valve: float, level: float
) -> None:
    tank = Tank(level=level, pump=pump, valve=valve)
    tank.advance(seconds)
    assert 0 <= tank.level <= tank.height
    assert tank.spilled >= 0


def test_a_tank_runs_over() -> None:
    tank = Tank(level=3.9, pump=100, valve=0)
    tank.advance(60)
    assert (tank.level, tank.alarm) == (tank.height, True)
    assert tank.spilled == pytest.approx(60 * 0.02 - 0.1 * 2, abs=0.01)


def test_a_press_stops_with_its_tool_worn_out_until_it_is_served() -> None:
    press = Press(rate=60, life=100)
    press.advance(1000)
    assert (press.whole_parts, press.jammed, press.running) == (100, True, False)
    press.service = 0.0
    press.advance(10)
    assert (press.whole_parts, press.running, press.wear) == (110, True, pytest.approx(10))


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_plugin_gives_a_driver_with_all_machines() -> None:
    assert plugin.edgesite_mapper("modbus") is None
    make = plugin.edgesite_mapper("virtual")
    assert make is not None
    nothing: Any = None
    host = Host(nothing, RealClock(), nothing, random.Random(1), logging.getLogger("virtual-test"))

    def driver(**config: Any) -> Any:
        return make(Device("default", "one", "m", "virtual", config, ()), host)

    for machine, name, kind in (
        ("tank", "level", "float"),
        ("press", "parts", "int"),
        ("thermostat", "actual", "float"),
    ):
        made = driver(machine=machine)
        await made.connect()
        assert isinstance(await made.read(Property(name, kind, False)), int | float)
    made = driver(machine="press", rate=0)
    await made.connect()
    with pytest.raises(DriverError, match="parts of the machine cannot be written"):
        await made.write(Property("parts", "int", True), 5)
    with pytest.raises(DriverError, match="none of thermostat, press, tank"):
        await driver(machine="rocket").connect()
