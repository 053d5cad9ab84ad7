"""Devices on nodes under all faults of the site: somebody in the cloud wants things of them, mappers on the nodes report.

Both count up: wishes 1, 2, 3 … and reports 1, 2, 3 … of each device, whatever becomes of them. Devices are bound elsewhere now and then.

Invariants: what a mapper was told is taken is there after any crash of the edge (but not after a loss of its database). The value that the API
shows of a device never goes back while it stays on its node. After each round of trouble every edge wants what the API says last, has
the devices that are bound to it and no others, and the API shows what was reported last.
"""

from __future__ import annotations

import functools
import random
from typing import Any, Final

import anyio

from edgesite.client import Client
from edgesite.edge.devicetwin import Devices, Reported
from edgesite.edge.metamanager.rows import Rows
from edgesite.edge.metamanager.store import StoreError
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import DEVICE_MODELS, DEVICES
from edgesite.testing.simulator.faults import Faults
from edgesite.testing.simulator.site import Site
from edgesite.testing.simulator.world import Scenario, Violation, World
from edgesite.testing.simulator.worlds.api import serving
from edgesite.testing.simulator.worlds.site import fetch_token, nodes_ready, outcome_of

__all__ = ["lasting", "scenario"]

EQUAL_S: Final = 250.0
NAMES: Final = tuple(f"device-{number}" for number in range(4))
Object = dict[str, Any]


class Mapper:
    """Reports 1, 2, 3 … for each device, wherever it is."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.attempted = dict.fromkeys(NAMES, 0)

    async def run(self) -> None:
        rng = self._site.world.rng
        while True:
            await self.report(rng.choice(NAMES))
            await anyio.sleep(rng.choice([0.01, 0.3, 3.0]) * rng.random())

    async def report(self, device: str) -> bool:
        """Try once, at the node that has the device; True if it was taken."""
        for edge in self._site.edges.values():
            role = edge.now if edge.running else None
            devices = role.services.find(Devices) if role is not None else None  # type: ignore[type-abstract]
            if devices is None or devices.namespace_of(device) is None:
                continue
            self.attempted[device] += 1
            with anyio.move_on_after(20.0):
                try:
                    await devices.report_twins("default", device, [Reported("value", str(self.attempted[device]))])
                except ApiError:
                    return False
                self._site.world.count("reports")
                return True
        return False


class Wisher:
    """Wants 1, 2, 3 … of each device, and moves them now and then."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.number = 0

    async def run(self) -> None:
        site, rng = self._site, self._site.world.rng
        async with site.client() as client:
            while True:
                name = rng.choice(NAMES)
                if rng.random() < 0.1:
                    patch: Any = [{"op": "replace", "path": "/spec/nodeName", "value": rng.choice(list(site.edges))}]
                else:
                    self.number += 1
                    path = "/spec/properties/0/desired/value"
                    patch = [{"op": "replace", "path": path, "value": str(self.number)}]
                await site.call(functools.partial(client.patch, DEVICES, name, patch, "default", kind="json"))
                site.world.count("wishes")
                await anyio.sleep(rng.choice([0.05, 1.0, 10.0]) * rng.random())


def lasting(seconds: float) -> Scenario:
    """The world for so long in its own time, or a little longer."""

    async def scenario(world: World) -> None:
        await _play(Site(world, edges=2), seconds)

    return scenario


scenario = lasting(120.0)


async def _play(site: Site, seconds: float) -> None:
    world, rng = site.world, site.world.rng
    site.cloud.host.start()
    await site.until("serving", lambda: serving(site), 60)
    await site.until("token there", lambda: fetch_token(site), 60)
    for edge in site.edges.values():
        edge.host.start()
    await site.until("nodes ready", lambda: nodes_ready(site), 60)
    async with site.client() as client:
        await _create(client, rng, list(site.edges))
    mapper, wisher = Mapper(site), Wisher(site)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_never_back, site)
        while world.loop.time() < seconds:
            async with anyio.create_task_group() as trouble:
                pause_s, mend_s = rng.choice([3.0, 8.0, 20.0]), rng.choice([1.0, 8.0, 30.0])
                trouble.start_soon(Faults(site, rng, pause_s=pause_s, mend_s=mend_s).run)
                trouble.start_soon(mapper.run)
                trouble.start_soon(wisher.run)
                await anyio.sleep(rng.uniform(40.0, 100.0))
                trouble.cancel_scope.cancel()
            site.mend()
            await site.until("edges want what the API says", lambda: _wanted(site), EQUAL_S)
            for name in NAMES:
                await site.until(f"{name} reports", functools.partial(_reports, mapper, name), EQUAL_S)
            await site.until("the API shows what was reported", lambda: _shown(site, mapper), EQUAL_S)
            world.count("rounds that ended equal")
        tasks.cancel_scope.cancel()


async def _create(client: Client, rng: random.Random, nodes: list[str]) -> None:
    metadata = {"name": "machine", "namespace": "default"}
    properties = [{"name": "value", "type": "INT", "accessMode": "ReadWrite"}]
    await client.create(DEVICE_MODELS, {"metadata": metadata, "spec": {"properties": properties}})
    for name in NAMES:
        spec = {
            "deviceModelRef": {"name": "machine"},
            "nodeName": rng.choice(nodes),
            "properties": [{"name": "value", "desired": {"value": "0", "metadata": {"type": "int"}}}],
        }
        await client.create(DEVICES, {"metadata": {"name": name, "namespace": "default"}, "spec": spec})


async def _reports(mapper: Mapper, name: str) -> str | None:
    return None if await mapper.report(name) else f"nobody takes a report of {name}"


async def _devices(site: Site) -> dict[str, Object] | None:
    async with site.client("checker") as client:
        answer = await site.call(lambda: client.list(DEVICES, "default"))
    return None if answer is None else {one["metadata"]["name"]: one for one in answer["items"]}


def _reported(device: Object) -> int:
    twins = (device.get("status") or {}).get("twins") or ()
    return next((int(one["reported"]["value"]) for one in twins if "reported" in one), 0)


async def _never_back(site: Site) -> None:
    """Raises Violation."""
    last: dict[str, tuple[str, int]] = {}
    while True:
        for name, device in (await _devices(site) or {}).items():
            node, value = device["spec"]["nodeName"], _reported(device)
            before = last.get(name)
            if before is not None and before[0] == node and value < before[1]:
                raise Violation(f"{name} showed {before[1]}, then {value}")
            last[name] = node, value
        await anyio.sleep(site.world.rng.uniform(0.2, 3.0))


async def _wanted(site: Site) -> str | None:
    devices = await _devices(site)
    if devices is None:
        return "the API does not answer"

    async def look() -> str | None:
        for node, edge in site.edges.items():
            held = await _held(edge)
            wanted = {
                name: one["spec"]["properties"][0]["desired"]["value"]
                for name, one in devices.items()
                if one["spec"]["nodeName"] == node
            }
            if {name: expected for name, (expected, _) in held.items()} != wanted:
                return f"{node} has {held}, the API says {wanted}"
        return None

    return await outcome_of(site, look)


async def _held(edge: Any) -> dict[str, tuple[str | None, str | None]]:
    """What each device on an edge shall be and is."""
    rows = edge.now.services.find(Rows) if edge.running else None
    if rows is None:
        return {}
    try:
        found = await rows.query(
            "SELECT device.name, expected, actual FROM device LEFT JOIN device_twin ON deviceid = device.id ORDER BY 1"
        )
    except StoreError:
        return {}
    return {name: (expected, actual) for name, expected, actual in found}


async def _shown(site: Site, mapper: Mapper) -> str | None:
    devices = await _devices(site)
    if devices is None:
        return "the API does not answer"
    for name, device in devices.items():
        if _reported(device) != mapper.attempted[name]:
            return f"the API shows {_reported(device)} of {name}, {mapper.attempted[name]} was reported"
    return None
