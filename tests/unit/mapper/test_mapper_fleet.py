"""Workers under virtual time: cycles, wishes, losses, hanging and broken drivers, an edge that is away."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from edgesite.mapper.conversion import ConversionError
from edgesite.mapper.driver import DeviceState, DriverError, Host
from edgesite.mapper.fleet import Fleet
from edgesite.mapper.metrics import Meters
from edgesite.mapper.reports import OutletAway, ReportRefused
from edgesite.testing.mapperrig import Edge, Machine, MachineDriver, pump

pytestmark = pytest.mark.anyio
KEY = ("default", "pump-1")


@asynccontextmanager
async def running(machine: Machine, outlet: Edge, host: Host, meters: Meters, *assigned: Any) -> AsyncGenerator[Fleet]:
    async with Fleet(host, outlet, meters) as fleet:
        for one in assigned or (pump(),):
            fleet.put(one, machine.make)
        yield fleet


@pytest.fixture
def parts(machine: Machine, outlet: Edge, host: Host, meters: Meters) -> tuple[Machine, Edge, Host, Meters]:
    return machine, outlet, host, meters


async def test_changed_values_are_reported_at_the_report_cycle(parts: Any) -> None:
    machine, outlet, *_ = parts
    async with running(*parts):
        await anyio.sleep(0.5)
        assert outlet.values("speed") == ["40"]
        assert outlet.values("temperature") == ["20.5"]
        assert outlet.states == [("pump-1", "online")]
        await anyio.sleep(10)
        assert len(outlet.readings) == 2  # nothing has changed
        assert machine.calls.count("read speed") == 11
        machine.values["speed"] = 41
        await anyio.sleep(1)
        assert outlet.values("speed") == ["40", "41"]
    assert machine.open == 0


async def test_values_are_collected_oftener_than_reported(parts: Any) -> None:
    machine, outlet, *_ = parts
    prop = {"name": "speed", "collectCycle": 100, "reportCycle": 5000}
    async with running(*parts, pump(properties=[prop])):
        for value in range(60):
            machine.values["speed"] = value
            await anyio.sleep(0.1)
        assert len(outlet.values("speed")) == 2
        assert machine.calls.count("read speed") >= 59


async def test_unchanged_values_and_states_are_said_again_now_and_then(parts: Any) -> None:
    _, outlet, *_ = parts
    async with running(*parts):
        await anyio.sleep(125)
        assert outlet.values("speed") == ["40"] * 3
        assert len(outlet.states) == 3


async def test_what_is_wanted_is_written_and_read_back(parts: Any) -> None:
    machine, outlet, *_ = parts
    async with running(*parts, pump(desired="55")) as fleet:
        await anyio.sleep(0.2)
        assert machine.writes == [("speed", 55)]
        assert outlet.values("speed") == ["55"]
        assert outlet.readings[0][1].observed_desired == "55"
        fleet.put(pump(desired="60"), machine.make)
        await anyio.sleep(1.1)
        assert machine.writes == [("speed", 55), ("speed", 60)]
        assert machine.connections == 1
        assert outlet.values("speed")[-1] == "60"


async def test_a_failed_write_is_tried_again_until_it_succeeds(parts: Any) -> None:
    machine, outlet, *_ = parts

    def refuse(call: str, name: str) -> None:
        if call == "write":
            raise DriverError("busy")

    machine.trouble = refuse
    async with running(*parts, pump(desired="55")):
        await anyio.sleep(20)
        tried = machine.calls.count("write speed")
        assert 4 <= tried <= 8
        assert machine.connections == 1
        assert len(outlet.values("temperature")) == 1
        machine.trouble = None
        await anyio.sleep(40)
        assert machine.writes == [("speed", 55)]


@pytest.mark.parametrize("wish", ["101", "fast"])
async def test_a_wish_that_is_no_value_is_left_out(parts: Any, wish: str) -> None:
    machine, *_ = parts
    async with running(*parts, pump(desired=wish)) as fleet:
        await anyio.sleep(100)
        assert machine.writes == []
        fleet.put(pump(desired="7"), machine.make)
        await anyio.sleep(1)
        assert machine.writes == [("speed", 7)]


async def test_after_a_loss_the_device_is_offline_until_it_is_back(parts: Any) -> None:
    machine, outlet, *_ = parts
    async with running(*parts, pump(desired="55")):
        await anyio.sleep(0.5)

        def gone(call: str, name: str) -> None:
            raise DriverError("no route")

        machine.trouble = gone
        await anyio.sleep(200)
        assert outlet.states[:2] == [("pump-1", "online"), ("pump-1", "offline")]
        assert machine.calls.count("connect") < 12  # less and less often
        machine.trouble, machine.values["speed"] = None, 0  # it was switched off and on
        await anyio.sleep(61)
        assert outlet.states[-1] == ("pump-1", "online")
        assert outlet.values("speed")[-1] == "55"


async def test_a_property_that_cannot_be_read_holds_up_no_other(parts: Any) -> None:
    machine, outlet, *_ = parts
    del machine.values["speed"]
    async with running(*parts):
        for value in range(30):
            machine.values["temperature"] = value + 0.5
            await anyio.sleep(1)
        assert len(outlet.values("temperature")) >= 29
        assert machine.connections == 1
        assert machine.calls.count("read speed") <= 6


async def test_a_driver_that_hangs_or_breaks_hurts_no_other_device(parts: Any, caplog: Any) -> None:
    machine, outlet, *_ = parts
    stuck, broken = Machine(), Machine()
    stuck.trouble = lambda call, name: anyio.sleep_forever() if call == "read" else None

    def bug(call: str, name: str) -> None:
        if call == "health":
            raise ZeroDivisionError("oh")

    broken.trouble = bug
    async with running(*parts) as fleet:
        fleet.put(pump("stuck"), stuck.make)
        fleet.put(pump("broken"), broken.make)
        for value in range(30):
            machine.values["speed"] = value
            await anyio.sleep(1)
        assert len(outlet.values("speed")) >= 29
        assert stuck.connections > 1
        assert ("stuck", "offline") in outlet.states
        assert fleet.get(("default", "broken")).state is DeviceState.OFFLINE
        assert len([one for one in caplog.records if one.exc_info]) == 1  # once, not each attempt
        stuck.trouble = broken.trouble = None
        await anyio.sleep(61)
        assert outlet.values("speed", "stuck") == outlet.values("speed", "broken") == ["40", "40"][:1]


async def test_while_the_edge_is_away_the_newest_values_wait(parts: Any) -> None:
    machine, outlet, *_ = parts

    def away(key: Any) -> None:
        raise OutletAway("no socket")

    outlet.trouble = away
    async with running(*parts):
        for value in range(50):
            machine.values["speed"] = value
            await anyio.sleep(1)
        outlet.trouble = None
        machine.values["speed"] = 50
        await anyio.sleep(31)
        assert outlet.values("speed") in (["50"], ["49", "50"])
        assert set(outlet.states) == {("pump-1", "online")}


async def test_what_the_edge_refuses_is_left_out_and_logged_once(parts: Any, caplog: Any) -> None:
    machine, outlet, *_ = parts

    def refuse(key: Any) -> None:
        raise ReportRefused("above the maximum")

    outlet.trouble = refuse
    async with running(*parts):
        for value in range(20):
            machine.values["speed"] = value
            await anyio.sleep(1)
        assert len([one for one in caplog.records if "refused" in one.message]) == 1
        outlet.trouble = None
        machine.values["speed"] = 77
        await anyio.sleep(2)
        assert outlet.values("speed") == ["77"]


async def test_a_changed_device_gets_a_new_driver_after_the_old_has_let_go(parts: Any) -> None:
    machine, *_ = parts
    async with running(*parts) as fleet:
        await anyio.sleep(1)
        machine.open = 5
        fleet.put(pump(cycle=500), machine.make)
        fleet.put(pump(cycle=200), machine.make)
        await anyio.sleep(1)
        assert (machine.connections, machine.open) == (2, 1)
        assert fleet.remove(KEY)
        assert not fleet.remove(KEY)
        await anyio.sleep(1)
        assert machine.open == 0
        assert fleet.get(KEY) is None


async def test_others_may_read_and_write_between_the_cycles(parts: Any) -> None:
    machine, *_ = parts
    async with running(*parts, pump(cycle=3_600_000)) as fleet:
        worker = fleet.get(KEY)
        machine.values["speed"] = 3
        prop, text = await worker.read("speed")
        assert (prop.type, text) == ("int", "3")
        await worker.write("speed", "9")
        assert machine.writes == [("speed", 9)]
        with pytest.raises(ConversionError):
            await worker.write("speed", "900")
        with pytest.raises(LookupError):
            await worker.read("colour")
        machine.trouble = lambda call, name: anyio.sleep_forever() if call == "read" else None
        with pytest.raises(DriverError, match="no answer"):
            await worker.read("speed")
        machine.trouble = None


async def test_who_asks_an_unreachable_device_is_told_at_once(parts: Any) -> None:
    machine, *_ = parts

    def gone(call: str, name: str) -> None:
        raise DriverError("no route")

    machine.trouble = gone
    async with running(*parts) as fleet:
        await anyio.sleep(30)
        with anyio.fail_after(1), pytest.raises(DriverError, match="no route"):
            await fleet.get(KEY).read("speed")


async def test_a_property_with_a_negative_cycle_is_read_only_when_asked(parts: Any) -> None:
    machine, *_ = parts
    prop = {"name": "speed", "collectCycle": -1, "reportCycle": 1000}
    async with running(*parts, pump(properties=[prop])) as fleet:
        await anyio.sleep(100)
        assert "read speed" not in machine.calls
        assert (await fleet.get(KEY).read("speed"))[1] == "40"


async def test_a_wish_does_not_wait_for_all_properties_of_a_slow_device(parts: Any) -> None:
    machine, *_ = parts
    slow = [{"name": f"p{number}", "collectCycle": 1000} for number in range(100)]
    machine.values |= {one["name"]: 1 for one in slow}
    machine.trouble = lambda call, name: anyio.sleep(1) if call == "read" else None
    speed = {"name": "speed", "collectCycle": -1}
    async with running(*parts, pump(properties=[speed, *slow])) as fleet:
        await anyio.sleep(10)
        fleet.put(pump(properties=[{**speed, "desired": {"value": "5"}}, *slow]), machine.make)
        await anyio.sleep(2)
        assert machine.writes == [("speed", 5)]
        assert machine.connections == 1


@pytest.mark.parametrize("seed", range(5))
async def test_no_older_value_follows_a_newer_one(parts: Any, seed: int) -> None:
    """Whatever becomes of reports: refused, timed out on the way, or the edge away."""
    machine, outlet, *_ = parts
    chance = random.Random(seed)

    class Rough(Edge):
        async def report(self, key: Any, readings: Any) -> None:
            await anyio.sleep(chance.random() * 3)
            match chance.randrange(6):
                case 0:
                    raise OutletAway("cut")
                case 1:
                    await super().report(key, readings)
                    raise OutletAway("cut after it was taken")
                case _:
                    await super().report(key, readings)

    outlet = Rough()
    others = [pump(f"pump-{number}") for number in range(2, 30)]
    async with running(machine, outlet, *parts[2:], pump(), *others):
        for value in range(100):
            machine.values["speed"] = value
            await anyio.sleep(chance.random())
        await anyio.sleep(120)
    for name in ["pump-1", *(one.device.name for one in others)]:
        values = [int(one) for one in outlet.values("speed", name)]
        assert values == sorted(values)
        assert values[-1] == 99


async def test_a_device_that_does_not_know_its_state_is_served(parts: Any) -> None:
    machine, outlet, *_ = parts
    machine.health = DeviceState.UNKNOWN
    async with running(*parts):
        await anyio.sleep(30)
        assert outlet.values("speed") == ["40"]
        assert outlet.states == []
        machine.health = DeviceState.UNHEALTHY
        await anyio.sleep(11)
        assert outlet.states == [("pump-1", "unhealthy")]


async def test_who_asks_without_end_does_not_hold_up_the_cycles(parts: Any) -> None:
    machine, _, *_ = parts

    def slow(call: str, name: str) -> Any:
        return anyio.sleep(0.05) if call in ("read", "write") else None

    async def ask(fleet: Fleet) -> None:
        worker = fleet.get(KEY)
        assert worker is not None
        while True:
            await worker.read("temperature")

    machine.trouble = slow
    async with running(*parts) as fleet, anyio.create_task_group() as tasks:
        await anyio.sleep(0.5)
        for _ in range(8):
            tasks.start_soon(ask, fleet)
        await anyio.sleep(20)
        fleet.put(pump(desired="55"), machine.make)
        await anyio.sleep(2)
        assert machine.writes == [("speed", 55)]
        assert machine.calls.count("read speed") >= 15
        tasks.cancel_scope.cancel()


async def test_a_device_that_comes_back_waits_until_its_former_driver_has_let_go(parts: Any) -> None:
    machine, *_ = parts
    closing = anyio.Event()
    overlaps: list[int] = []

    class Slow(MachineDriver):
        async def connect(self) -> None:
            overlaps.append(machine.open)
            await super().connect()

        async def close(self) -> None:
            closing.set()
            await anyio.sleep(3)
            await super().close()

    async with running(*parts) as fleet:
        fleet.put(pump(desired="1"), lambda device, host: Slow(machine, device))
        await anyio.sleep(1)
        assert fleet.remove(KEY)
        await closing.wait()
        fleet.put(pump(desired="2"), machine.make)
        fleet.remove(KEY)
        fleet.put(pump(desired="3"), lambda device, host: Slow(machine, device))
        await anyio.sleep(10)
        assert overlaps == [0, 0]
        assert machine.writes[-1] == ("speed", 3)


async def test_a_wish_that_changes_while_its_write_fails_is_tried_at_once(parts: Any) -> None:
    machine, *_ = parts
    tried: list[float] = []

    def refuse(call: str, name: str) -> Any:
        if call != "write":
            return None
        tried.append(anyio.current_time())
        if len(tried) < 6:
            raise DriverError("busy")
        return fail_late() if len(tried) == 6 else None

    async def fail_late() -> None:
        fleet.put(pump(desired="60"), machine.make)
        raise DriverError("busy")

    machine.trouble = refuse
    async with running(*parts, pump(desired="55")) as fleet:
        await anyio.sleep(100)
        assert tried[6] - tried[5] < 1
        assert machine.writes == [("speed", 60)]


@pytest.mark.parametrize("value", [None, [1], object()])
async def test_what_is_no_value_is_a_fault_of_the_property_alone(parts: Any, value: Any, caplog: Any) -> None:
    machine, outlet, *_ = parts
    machine.values["temperature"] = value
    async with running(*parts):
        await anyio.sleep(30)
        assert machine.connections == 1
        assert machine.calls.count("read speed") >= 28
        assert outlet.states[0] == ("pump-1", "online")
    assert len([one for one in caplog.messages if "property temperature cannot be read" in one]) == 1
