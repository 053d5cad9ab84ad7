"""A whole site in one process, as ``edgesite up --edge-nodes 2`` runs it, under the faults and invariants of world `site`."""

from __future__ import annotations

from edgesite.testing.simulator.site import Site
from edgesite.testing.simulator.world import World
from edgesite.testing.simulator.worlds.api import serving
from edgesite.testing.simulator.worlds.site import nodes_ready, trouble_and_peace

__all__ = ["scenario"]


async def scenario(world: World) -> None:
    site = Site(world, edges=world.rng.choice([1, 2]), together=True)
    site.cloud.host.start()
    await site.until("serving", lambda: serving(site), 60)
    await site.until("nodes ready", lambda: nodes_ready(site), 60)
    await trouble_and_peace(site)
