"""The embedded broker and a real mosquitto are given the same, step by step, and must answer the same."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mqtt_peers import free_port, mosquitto
from raw_client import RawClient

from edgesite.edge.eventbus.module import EventBus
from edgesite.edge.metamanager.module import MetaManager
from edgesite.testing.busrig import bus_rig, event_bus
from edgesite.wire.mqtt import properties as props
from edgesite.wire.mqtt.packets import Disconnect, Will

pytestmark = pytest.mark.anyio
TOPICS = ["a", "a/b", "a/b/c", "b", "$x/a", "/a", "a//b"]
#: One client has one of these alone: what comes by several filters at once, mosquitto 2.0 sends several times.
FILTERS = ["a/#", "+/b", "#", "a/b/c", "$x/+", "+/+", "/+", "a/+/b", "+"]


class Pair:
    """The same client of both brokers."""

    def __init__(self, ports: tuple[int, int], name: str, version: int) -> None:
        self.name, self.version = name, version
        self.both = [RawClient(port, name, version) for port in ports]
        self.filter = ""

    async def do(self, method: str, *args: Any, **given: Any) -> list[Any]:
        return [await getattr(one, method)(*args, **given) for one in self.both]

    @property
    def is_connected(self) -> bool:
        return self.both[0].is_connected


@asynccontextmanager
async def brokers(folder: Path) -> AsyncGenerator[tuple[int, int]]:
    ours, theirs = free_port(), free_port()
    settings = {
        "metaManager": {"enable": True},
        "eventBus": event_bus(mqttMode=0, mqttServerInternal=f"tcp://127.0.0.1:{ours}", mqttSessionQueueSize=1000),
    }
    async with mosquitto(folder, theirs), bus_rig([MetaManager, EventBus], folder, settings):
        yield ours, theirs


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("seed", range(2))
async def test_the_same_steps_have_the_same_effects(tmp_path: Path, version: int, seed: int) -> None:
    dice = random.Random(seed)
    async with brokers(tmp_path) as ports:
        pairs = [Pair(ports, f"c{n}", version) for n in range(4)]
        try:
            await play_all(dice, pairs)
        finally:
            for one in pairs:
                await one.do("close")


async def play_all(dice: random.Random, pairs: list[Pair]) -> None:
    for step in range(80):
        pair = dice.choice(pairs)
        told = await play(dice, pair, step)
        assert told is None or told[0] == told[1], f"step {step}"
        for one in pairs:
            ours, theirs = await taken(one)
            assert ours == theirs, f"{one.name} at step {step}"


async def taken(pair: Pair) -> list[list[Any]]:
    """What both have got since the last step, in any order, as retained messages come. Ours of QoS 2 come once they are stored."""
    found: list[list[Any]] = [[], []]
    for attempt in range(100):
        if pair.is_connected:
            await pair.do("ping")
        for so_far, client in zip(found, pair.both, strict=True):
            so_far += client.taken()
            so_far.sort()
        if found[0] == found[1]:
            break
        await anyio.sleep(0.001 * attempt)
    return found


async def play(dice: random.Random, pair: Pair, step: int) -> list[Any] | None:
    """Take one step with both; return what both were told."""
    if not pair.is_connected:
        clean = dice.random() < 0.3
        given: dict[str, Any] = {"clean_start": clean}
        if pair.version == 5:
            given["properties"] = {props.SESSION_EXPIRY: 300}
        if dice.random() < 0.5:
            given["will"] = Will(dice.choice(TOPICS), b"will %d" % step, dice.randrange(3), dice.random() < 0.3)
        if clean:
            pair.filter = ""
        return [(one.code, one.session_present) for one in await pair.do("connect", **given)]
    action = dice.choice(["publish"] * 6 + ["subscribe"] * 2 + ["leave", "lose"])
    if action == "publish":
        payload = b"" if dice.random() < 0.1 else b"%d" % step
        retain = dice.random() < 0.3
        codes = await pair.do("publish", dice.choice(TOPICS), payload, dice.randrange(3), retain=retain)
        return [code < 0x80 for code in codes]
    if action == "subscribe":
        if pair.filter:
            await pair.do("unsubscribe", pair.filter)
        pair.filter = dice.choice(FILTERS)
        options = {}
        if pair.version == 5:
            options = {"no_local": dice.random() < 0.3, "retain_as_published": dice.random() < 0.3}
            options["retain_handling"] = dice.randrange(3)
        return await pair.do("subscribe", pair.filter, dice.randrange(3), **options)
    if action == "leave":
        await pair.do("send", Disconnect())
    await pair.do("close")
    return None
