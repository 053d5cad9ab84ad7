"""All sinks of a mapper: `Pusher` is what a worker gives the values of properties with a ``pushMethod`` to.

    pusher = Pusher(host, os.environ, PushMeters(registry))
    tasks.start_soon(pusher.run)
    pusher.offer(device, prop, "21.5", at_ms)

Errors  A ``pushMethod`` that is wrong is logged once and its values are counted as dropped. None is raised.
Bounds  `CHANNELS` sinks; the routes of `ROUTES` properties are remembered.
State   What waits, in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.mapper.push.channel import Channel
from edgesite.mapper.push.routes import routes_of
from edgesite.mapper.push.sink import Outside, Route, Sample

if TYPE_CHECKING:
    from edgesite.mapper.driver import Device, Host, Property
    from edgesite.mapper.push.meters import PushMeters

__all__ = ["Pusher"]

CHANNELS: Final = 64
ROUTES: Final = 20_000


class Pusher:
    """See the module docstring. ``environ`` holds credentials under the names that KubeEdge's mappers know: TOKEN, USERNAME, PASSWORD."""

    def __init__(
        self,
        host: Host,
        environ: Mapping[str, str],
        meters: PushMeters,
        *,
        routes: Callable[[Mapping[str, Any]], list[Route]] = routes_of,
    ) -> None:
        self._outside = Outside(host, environ)
        self._meters = meters
        meters.watch(self._count)
        self._channels: dict[tuple[str, Any], Channel] = {}
        self._new: list[tuple[tuple[str, Any], Channel]] = []
        self._came = anyio.Event()
        self._routes_of = routes
        self._routes: dict[tuple[str, str, str], tuple[Mapping[str, Any], list[Route] | None]] = {}

    def offer(self, device: Device, prop: Property, value: str, at_ms: int) -> None:
        """Take a value for where ``prop.push`` says. Never waits, never raises."""
        routes = self._find(device, prop)
        if routes is None:
            self._meters.dropped("unknown", "misconfigured")
            return
        for route in routes:
            sample = Sample(device.namespace, device.name, prop.name, prop.type, value, at_ms, route.detail)
            channel = self._channel(route)
            if channel is None:
                self._meters.dropped(route.kind, "full")
            else:
                channel.put(sample)

    async def run(self) -> None:
        """Serve until cancelled."""
        async with anyio.create_task_group() as tasks:
            while True:
                while self._new:
                    tasks.start_soon(self._serve, *self._new.pop())
                self._came = anyio.Event()
                await self._came.wait()

    async def _serve(self, key: tuple[str, Any], channel: Channel) -> None:
        try:
            await channel.run()
        except Exception:  # a bug: it shall not end the others, nor the devices
            self._outside.host.log.exception("pushing to %s has ended, and begins anew", key[0])
        finally:
            self._channels.pop(key, None)
            await channel.close()

    def _channel(self, route: Route) -> Channel | None:
        key = (route.kind, route.key)
        channel = self._channels.get(key)
        if channel is None:
            if len(self._channels) >= CHANNELS:
                return None
            channel = self._channels[key] = Channel(route, self._outside, self._meters)
            self._new.append((key, channel))
            self._came.set()
        return channel

    def _find(self, device: Device, prop: Property) -> list[Route] | None:
        """None for a ``pushMethod`` that is wrong."""
        key = (device.namespace, device.name, prop.name)
        known = self._routes.get(key)
        if known is not None and known[0] is prop.push:
            return known[1]
        routes: list[Route] | None = None
        try:
            routes = self._routes_of(prop.push)
        except ValueError as exc:
            self._outside.host.log.warning(
                "property %s of device %s/%s is not pushed: %s", prop.name, device.namespace, device.name, exc
            )
        if len(self._routes) >= ROUTES:
            self._routes.clear()
        self._routes[key] = (prop.push, routes)
        return routes

    def _count(self) -> int:
        return sum(map(len, self._channels.values()))
