"""The bus: routing by module and group, answers by parent, bounds."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import anyio.lowlevel
import pytest

from edgesite.runtime.bus import LocalBus
from edgesite.runtime.services import LocalServices, ModuleBus, ModuleServices
from edgesite.wire.message import Message

pytestmark = pytest.mark.anyio


@pytest.fixture
def bus() -> Iterator[ModuleBus]:
    bus = ModuleBus(LocalBus())
    yield bus
    bus.leave_all()


async def test_send_reaches_one_module_and_send_group_all_of_a_group(bus: ModuleBus) -> None:
    one, two, other = bus.join("one", "meta"), bus.join("two", "meta"), bus.join("other", "hub")

    await bus.send("one", Message("1"))
    await bus.send_group("meta", Message("2"))
    await bus.send_group("nobody", Message("3"))

    assert [(await one.receive()).msg_id, (await one.receive()).msg_id] == ["1", "2"]
    assert (await two.receive()).msg_id == "2"
    other.close()
    with pytest.raises(LookupError, match="no module 'other'"):
        await bus.send("other", Message("4"))


async def test_call_returns_the_answer_whose_parent_is_the_request(bus: ModuleBus) -> None:
    inbox = bus.join("server", "meta")

    async with anyio.create_task_group() as tasks:

        async def serve() -> None:
            request = await inbox.receive()
            assert not bus.respond(Message("x", parent_msg_id="somebody else's"))
            assert bus.respond(Message("y", parent_msg_id=request.msg_id, content=42))
            assert not bus.respond(Message("z", parent_msg_id=request.msg_id))  # a second answer finds nobody

        tasks.start_soon(serve)
        answer = await bus.call("server", Message("q"))

    assert answer.content == 42


async def test_call_without_an_answer_times_out_and_forgets_the_waiter(bus: ModuleBus) -> None:
    bus.join("server", "meta")

    with pytest.raises(TimeoutError):
        await bus.call("server", Message("q"), timeout_s=0)
    assert not bus.respond(Message("late", parent_msg_id="q"))


async def test_a_full_inbox_makes_the_sender_wait(bus: ModuleBus) -> None:
    inbox = bus.join("slow", "meta", size=1)
    await bus.send("slow", Message("1"))

    with anyio.move_on_after(0) as scope:
        await bus.send("slow", Message("2"))
    assert scope.cancelled_caught
    assert (await inbox.receive()).msg_id == "1"


async def test_a_module_that_ends_leaves_bus_and_services(bus: ModuleBus) -> None:
    services = LocalServices()
    mine, offered = ModuleBus(bus), ModuleServices(services)
    mine.join("edged", "edged")
    offered.provide(str, "interface")
    assert services.get(str) == "interface"

    mine.leave_all()
    offered.withdraw_all()

    bus.join("edged", "edged")  # the name is free again
    with pytest.raises(LookupError, match="no module provides str"):
        services.get(str)


async def test_a_module_that_takes_nothing_is_put_off_the_bus(
    bus: ModuleBus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edgesite.runtime.bus.STUCK_S", 0.0)
    stuck, other = bus.join("stuck", "meta", size=0), bus.join("other", "meta")

    await bus.send_group("meta", Message("1"))

    assert (await other.receive()).msg_id == "1"
    assert "module stuck has taken no message" in caplog.text
    with pytest.raises(anyio.ClosedResourceError):
        await stuck.receive()


async def test_many_messages_are_taken_in_few_turns_of_the_loop_and_others_get_theirs(bus: ModuleBus) -> None:
    inbox = bus.join("server", "meta", size=100)
    for number in range(100):
        await bus.send("server", Message(str(number)))
    turns, taken = 0, []

    async with anyio.create_task_group() as tasks:

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await anyio.lowlevel.checkpoint()

        tasks.start_soon(count)
        async for message in inbox:
            taken.append(message.msg_id)
            if len(taken) == 100:
                break
        tasks.cancel_scope.cancel()
    assert taken == [str(number) for number in range(100)]
    assert 3 <= turns <= 12


async def test_a_closed_inbox_ends_its_reader(bus: ModuleBus) -> None:
    inbox = bus.join("server", "meta")
    await bus.send("server", Message("1"))
    assert (await inbox.receive()).msg_id == "1"
    inbox.close()
    with pytest.raises(anyio.ClosedResourceError):
        await inbox.receive()
