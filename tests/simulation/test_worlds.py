"""Whole worlds from some seeds; ``make check`` runs hundreds."""

from __future__ import annotations

import asyncio
import importlib
import logging

import anyio
import pytest

from edgesite.testing.simulator.machine import Process
from edgesite.testing.simulator.world import Outcome, Violation, World, run
from edgesite.testing.simulator.worlds import offline
from edgesite.testing.simulator.worlds.link import lasting

WORLDS = ("store", "api", "site", "link", "restore", "together", "offline", "metaserver", "devices")


def play(world: str, seed: int) -> Outcome:
    return run(importlib.import_module(f"edgesite.testing.simulator.worlds.{world}").scenario, seed)


@pytest.mark.parametrize("world", WORLDS)
def test_invariants_hold_and_a_seed_replays_exactly(world: str) -> None:
    first, second = play(world, 1001), play(world, 1001)
    assert first.failure is None, f"replay: python -m edgesite.testing.simulator --world {world} --seed 1001 -v"
    assert first.counts
    assert (first.digest, first.steps, first.virtual_s) == (second.digest, second.steps, second.virtual_s)


def test_another_seed_is_another_world() -> None:
    assert play("store", 1001).digest != play("store", 1002).digest


def test_ten_minutes_of_faults_end_equal_with_all_books_in_order() -> None:
    outcome = run(lasting(600.0), 2001)
    assert outcome.failure is None, "replay: python -m benchmarks.linkfaults --simulated 10m --seed 2001"
    assert outcome.counts["rounds that ended equal"] >= 3
    assert outcome.counts["messages acknowledged"] > 200
    assert "applied twice" not in outcome.counts


@pytest.mark.timeout(300)
def test_a_node_is_without_its_cloud_for_half_a_day() -> None:
    outcome = run(offline.lasting(43_200.0), 2002)
    assert outcome.failure is None
    assert outcome.virtual_s > 43_200.0
    assert outcome.counts["container starts"] > 100, "the program that crashes is started again every five minutes"


def test_a_broken_invariant_fails_the_world() -> None:
    async def scenario(world: World) -> None:
        await anyio.sleep(5)
        raise Violation("the cake is a lie")

    outcome = run(scenario, 1)
    assert outcome.failure is not None
    assert "the cake is a lie" in outcome.failure
    assert outcome.virtual_s == 5


def test_a_bug_that_a_module_logs_and_survives_fails_the_world() -> None:
    async def scenario(world: World) -> None:
        try:
            {}["missing"]
        except KeyError:
            logging.getLogger("edgesite.somewhere").exception("restarting")
        await anyio.sleep(5)

    outcome = run(scenario, 1)
    assert outcome.failure is not None
    assert "KeyError" in outcome.failure


def test_a_program_that_crashes_fails_the_world() -> None:
    async def crash(process: Process) -> None:
        raise RuntimeError("boom")

    async def scenario(world: World) -> None:
        world.machine("cloud").start("program", crash)
        await anyio.sleep(5)

    assert "boom" in (run(scenario, 1).failure or "")


def test_a_program_that_ends_with_tasks_left_fails_the_world() -> None:
    async def careless(process: Process) -> None:
        asyncio.get_running_loop().create_task(anyio.sleep(60))

    async def scenario(world: World) -> None:
        world.machine("cloud").start("program", careless)
        await anyio.sleep(5)

    assert "left behind tasks" in (run(scenario, 1).failure or "")
