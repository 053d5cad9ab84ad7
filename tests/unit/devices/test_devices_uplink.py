"""What the cloud is told, and how much of it: in virtual time, with the test in place of the hub."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from edgesite.edge.devicetwin.state import Device, Registry, Twin
from edgesite.edge.devicetwin.turn import ACTUAL
from edgesite.edge.devicetwin.uplink import Uplink
from edgesite.kube import json
from edgesite.testing.virtualtime import VirtualClock, VirtualLoop
from edgesite.wire.message import Message, MessageMaker


@pytest.fixture
def anyio_backend() -> Any:
    return "asyncio", {"loop_factory": VirtualLoop}


pytestmark = pytest.mark.anyio


class Hub:
    """Implements what `Uplink` needs of the bus. ``answers``: content of the answer, None for none."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.sent: list[tuple[float, Message]] = []
        self.answers: Callable[[Message], Any] = lambda message: "OK"

    async def send(self, module: str, message: Message) -> None:
        self.sent.append((self._clock.monotonic(), message))

    async def call(self, module: str, message: Message, *, timeout_s: float = 30.0) -> Message:
        await self.send(module, message)
        content = self.answers(message)
        if content is None:
            await self._clock.sleep(timeout_s)
            raise TimeoutError
        return Message("a", operation="response", content=content, parent_msg_id=message.msg_id)

    @property
    def messages(self) -> list[Message]:
        return [message for _, message in self.sent]


class Rig:
    def __init__(self, *, own: bool = True, bytes_per_s: float = 0.0) -> None:
        clock, draw = VirtualClock(), random.Random(1)
        self.registry, self.hub = Registry(), Hub(clock)
        maker = MessageMaker(clock.time, draw.getrandbits)
        bus: Any = self.hub
        self.uplink = Uplink(self.registry, bus, maker, clock, draw, lambda: own, bytes_per_s)

    def device(self, name: str) -> Device:
        found = self.registry.get(name)
        if found is None:
            found = Device(name, name, "default")
            self.registry.add(found)
        return found

    def report(self, name: str, **values: str) -> None:
        device = self.device(name)
        for key, value in values.items():
            twin = device.twins.setdefault(key, Twin(1, "int", optional=False))
            twin.actual, twin.actual_edge = value, twin.actual_edge + 1
            self.uplink.note([(device, key, ACTUAL)], [])


async def running(rig: Rig, play: Callable[[], Any]) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rig.uplink.run)
        rig.uplink.set_connected(True)
        await play()
        tasks.cancel_scope.cancel()


async def test_many_values_stay_within_the_bytes_and_the_newest_arrive() -> None:
    rig = Rig(bytes_per_s=1500)

    async def play() -> None:
        for second in range(120):
            for number in range(1000):
                rig.report(f"machine-{number:04d}", speed=str(second), temp=str(number))
            await anyio.sleep(1)
        told = sum(len(zlib.compress(json.dumps(one.content), 6)) for one in rig.hub.messages)
        assert 0.5 * 120 * 1500 < told < 1.2 * (120 + 8) * 1500  # eight seconds' worth may go at once
        last: dict[str, float] = {}
        for at, message in rig.hub.sent:
            for row in message.content["devices"]:
                last[row[0]] = at
        assert len(last) == 1000
        assert min(last.values()) > 120 - 60, "no device waits for ever"
        await anyio.sleep(60)
        values = {row[0]: row[2] for one in rig.hub.messages for row in one.content["devices"] if len(row) == 4}
        assert set(values.values()) == {"119"}

    await running(rig, play)


async def test_a_few_changes_go_at_once() -> None:
    rig = Rig(bytes_per_s=1500)

    async def play() -> None:
        await anyio.sleep(10)
        rig.report("a", speed="1")
        await anyio.sleep(0.2)
        assert [one.content["devices"] for one in rig.hub.messages] == [
            [["default/a", 0, "1", rig.hub.messages[0].content["devices"][0][3]]]
        ]

    await running(rig, play)


async def test_what_was_not_answered_comes_again_with_the_newest_value_and_backoff() -> None:
    rig = Rig()
    rig.hub.answers = lambda message: {"ErrStatus": {"status": "Failure", "reason": "ServiceUnavailable", "code": 503}}

    async def play() -> None:
        rig.report("a", speed="1")
        await anyio.sleep(100)
        assert 3 < len(rig.hub.sent) < 15
        rig.report("a", speed="2")
        rig.hub.answers = lambda message: "OK"
        await anyio.sleep(60)
        assert rig.hub.messages[-1].content["devices"][0][2] == "2"
        count = len(rig.hub.sent)
        rig.report("a", speed="2")
        await anyio.sleep(60)
        assert len(rig.hub.sent) == count

    await running(rig, play)


async def test_kubeedges_cloud_is_told_again_what_it_does_not_confirm() -> None:
    rig = Rig(own=False)

    async def play() -> None:
        rig.report("a", speed="1")
        await anyio.sleep(10)
        assert [one.resource for one in rig.hub.messages] == ["device/a/twin/edge_updated"]
        rig.report("a", speed="2")
        await anyio.sleep(1)
        rig.uplink.confirmed(rig.hub.messages[1].msg_id)
        await anyio.sleep(100)
        values = [one.content["twin"]["speed"]["actual"]["value"] for one in rig.hub.messages]
        assert values == ["1", "2"], "the first is unconfirmed, but what it says is past"
        rig.report("a", speed="3")
        await anyio.sleep(120)
        assert [one.content["twin"]["speed"]["actual"]["value"] for one in rig.hub.messages[2:4]] == ["3", "3"]

    await running(rig, play)


async def test_nothing_is_told_without_a_link() -> None:
    rig = Rig()

    async def play() -> None:
        rig.uplink.set_connected(False)
        for number in range(100):
            rig.report("a", speed=str(number))
        await anyio.sleep(100)
        assert rig.hub.sent == []
        rig.uplink.set_connected(True)
        await anyio.sleep(1)
        assert [row[2] for one in rig.hub.messages for row in one.content["devices"]] == ["99"]

    await running(rig, play)


async def test_a_device_that_ended_while_it_was_told_of_is_not_told_of_again() -> None:
    """A new one may have its name by then."""
    rig = Rig()

    async def play() -> None:
        rig.hub.answers = lambda message: None if len(rig.hub.sent) == 1 else "OK"
        rig.report("a", speed="1")
        await anyio.sleep(5)
        old = rig.registry.remove("a")
        assert old is not None
        rig.uplink.forget(old)
        rig.report("a", speed="2")
        await anyio.sleep(100)
        told = [row[2] for message in rig.hub.messages for row in message.content["devices"]]
        assert told == ["1", "2"]
        assert not rig.uplink._waiting

    await running(rig, play)


async def test_large_values_are_told_in_messages_that_a_link_can_carry() -> None:
    rig = Rig()

    async def play() -> None:
        for number in range(20):
            rig.report(f"d{number}", image=f"{number:02}" * 100_000)
        await anyio.sleep(10)
        sizes = [len(json.dumps(message.content)) for message in rig.hub.messages]
        assert len(sizes) >= 3
        assert max(sizes) < 2_000_000

    await running(rig, play)
