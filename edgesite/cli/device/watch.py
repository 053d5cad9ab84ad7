"""Follows one device over the API, through losses of it.

Errors  DeviceGone; OSError, TimeoutError, LookupError (what the API refuses) before the device was seen once; ValueError for a kubeconfig that is none.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.cli.device.values import Seen, seen
from edgesite.client.client import Client
from edgesite.client.http import HttpTransport
from edgesite.client.kubeconfig import load
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import DEVICES
from edgesite.kube.times import format_time
from edgesite.net.real import RealClock, RealNet

if TYPE_CHECKING:
    from edgesite.cli.device.screen import View

__all__ = ["DeviceGone", "Watcher", "watch"]

_DEADLINE_S: Final = 15.0
_FIRST_S: Final = 0.5
_MOST_S: Final = 10.0


class DeviceGone(Exception):
    """There is no such device, or no longer."""


class _Enough(Exception):
    """As many changes as were wanted."""


async def watch(kubeconfig: Path, namespace: str, name: str, view: View, count: int = 0) -> None:
    """Show a device until ``count`` changes have been seen; 0: for ever."""
    clock = RealClock()
    transport = HttpTransport(RealNet(), clock, load(kubeconfig))
    try:
        await Watcher(Client(transport), clock, namespace, name, view, count).run()
    finally:
        with anyio.move_on_after(1, shield=True):
            await transport.close()


class Watcher:
    """See `watch`."""

    def __init__(self, client: Client, clock: RealClock, namespace: str, name: str, view: View, count: int) -> None:
        self._client, self._clock, self._view = client, clock, view
        self._namespace, self._name = namespace, name
        self._left = count or None
        self._before: Seen | None = None

    async def run(self) -> None:
        """Raises what the module docstring says."""
        wait_s = _FIRST_S
        while True:
            try:
                await self._follow()
                wait_s = _FIRST_S
            except _Enough:
                return
            except (ApiError, OSError) as exc:
                if isinstance(exc, ApiError) and exc.code == 404:
                    raise self._gone() from None
                if self._before is None:
                    raise LookupError(str(exc)) from exc
                print(f"edgesite: {exc}; trying again", file=sys.stderr)
            await self._clock.sleep(wait_s)
            wait_s = min(2 * wait_s, _MOST_S)

    async def _follow(self) -> None:
        """Read the device, then its changes, until the stream ends. Raises ApiError, OSError, DeviceGone, _Enough."""
        with anyio.fail_after(_DEADLINE_S):
            device = await self._client.get(DEVICES, self._name, self._namespace)
        self._take(device)
        async with self._client.watch(
            DEVICES,
            self._namespace,
            resource_version=str(device["metadata"]["resourceVersion"]),
            field_selector=f"metadata.name={self._name}",
        ) as events:
            async for event in events:
                if event.type == "DELETED":
                    raise self._gone()
                if event.type != "BOOKMARK":
                    self._take(event.object)

    def _gone(self) -> DeviceGone:
        name = f"{self._namespace}/{self._name}"
        return DeviceGone(f"there is no device {name}" if self._before is None else f"device {name} is gone")

    def _take(self, device: dict[str, Any]) -> None:
        """Raises _Enough."""
        now = seen(device)
        changes = list(now.changes(self._before))
        if self._left is not None:
            changes = changes[: self._left]
            self._left -= len(changes)
        if changes or self._before is None:
            self._view.show(format_time(self._clock.time()), self._name, now, changes)
        self._before = now
        if self._left == 0:
            raise _Enough
