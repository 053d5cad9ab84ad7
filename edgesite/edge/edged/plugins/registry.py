"""Finds plugins by the sockets that they leave in a folder, asks each who it is, and hands it to whoever has a use for its kind.

    <root>/plugins_registry/<any>.sock      the plugin's registration socket

A socket that goes away takes its plugin with it; one that does not answer is asked again with back-off.

Units   Seconds.
Errors  None leave `run`; what goes wrong with a plugin is logged, and told to the plugin itself.
State   In memory: everything is found again after a restart.
Source  Kubernetes pluginregistration v1 (kubelet's plugin registration service); kinds CSIPlugin and DevicePlugin.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import anyio

from edgesite.context import Clock, Folders, Net, Threads
from edgesite.edge.edged.plugins.errors import PluginError
from edgesite.kube.protowire import Messages

if TYPE_CHECKING:
    from edgesite.edge.edged.plugins.client import PluginClient

__all__ = ["PluginInfo", "PluginKind", "PluginRefused", "PluginRegistry"]

REGISTRATION: Final = Messages(
    """
InfoRequest: (empty)
PluginInfo: type string = 1; name string = 2; endpoint string = 3; supported_versions repeated string = 4
RegistrationStatus: plugin_registered bool = 1; error string = 2
RegistrationStatusResponse: (empty)
"""
)
_SERVICE: Final = "/pluginregistration.Registration/"
CALL_S: Final = 10.0
RETRY_FIRST_S: Final = 0.1
RETRY_MOST_S: Final = 30.0
MOST: Final = 256  #: sockets that are looked at
DEEPEST: Final = 4


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """What a plugin says of itself; ``endpoint`` is where it serves."""

    kind: str
    name: str
    endpoint: str
    versions: tuple[str, ...]


class PluginRefused(Exception):
    """Nobody here can use the plugin; the text is told to it."""


class PluginKind(Protocol):
    """Who has a use for plugins of one kind."""

    async def registered(self, info: PluginInfo) -> None:
        """Take a plugin that is new, or has come back. Raises PluginRefused for good, OSError to be asked again."""
        ...

    async def gone(self, info: PluginInfo) -> None:
        """Its socket is gone."""
        ...


@dataclass(slots=True)
class _Socket:
    identity: tuple[int, int]  # inode and time of making: a plugin that starts anew makes a new file
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    info: PluginInfo | None = None


class PluginRegistry:
    def __init__(
        self,
        folder: Path,
        folders: Folders,
        kinds: Mapping[str, PluginKind],
        net: Net,
        clock: Clock,
        random: random.Random,
        threads: Threads,
        log: logging.Logger | logging.LoggerAdapter[logging.Logger],
        beside: Callable[..., None],
    ) -> None:
        """``beside(function, *args)`` runs something beside."""
        self._folder, self._folders, self._kinds, self._log, self._beside = folder, folders, kinds, log, beside
        self._net, self._clock, self._random, self._threads = net, clock, random, threads
        self._known: dict[str, _Socket] = {}

    async def run(self) -> None:
        """Follow the folder until cancelled. Raises OSError if it is not there."""
        watch = self._folders.watch()
        try:
            watch.add(self._folder)
            while True:
                found, folders = await self._threads.run(_sockets, self._folder)
                fresh = False
                for folder in folders:
                    with contextlib.suppress(FileNotFoundError):  # gone again
                        fresh |= watch.add(folder)
                await self._follow(found)
                if not fresh:  # else something may have come into a folder before it was watched
                    await watch.changed()
        finally:
            watch.close()

    async def _follow(self, found: Mapping[str, tuple[int, int]]) -> None:
        for path, known in tuple(self._known.items()):
            if found.get(path) != known.identity:
                del self._known[path]
                known.scope.cancel()
                await self._forget(known)
        for path, identity in found.items():
            if path not in self._known:
                one = self._known[path] = _Socket(identity)
                self._beside(self._register, path, one)

    async def _forget(self, known: _Socket) -> None:
        """A plugin may have moved to another socket meanwhile; then it is still there."""
        info = known.info
        if info is None or any(
            one.info is not None and one.info.name == info.name and one.info.kind == info.kind
            for one in self._known.values()
        ):
            return
        self._log.info("plugin=%s kind=%s is gone", info.name, info.kind)
        await self._kinds[info.kind].gone(info)

    async def _register(self, path: str, known: _Socket) -> None:
        """Ask a socket until it has answered and its plugin is taken or refused."""
        from edgesite.edge.edged.plugins.client import (
            PluginClient,
        )  # loads gRPC, which a node without plugins has no use for

        delay_s = RETRY_FIRST_S
        with known.scope:
            client = PluginClient(self._net, path, REGISTRATION)
            try:
                while not await self._once(path, known, client):
                    await self._clock.sleep(delay_s * (0.75 + self._random.random() / 2))
                    delay_s = min(delay_s * 2, RETRY_MOST_S)
            finally:
                with anyio.move_on_after(1.0, shield=True):
                    await client.close()

    async def _once(self, path: str, known: _Socket, client: PluginClient) -> bool:
        try:
            said = await client.call(_SERVICE + "GetInfo", "InfoRequest", "PluginInfo", {}, CALL_S)
        except PluginError as exc:
            self._log.debug("plugin socket=%s: %s", path, exc)
            return False
        info = PluginInfo(
            said.get("type", ""),
            said.get("name", ""),
            said.get("endpoint", "") or path,
            tuple(said.get("supported_versions", ())),
        )
        why = ""
        try:
            if (kind := self._kinds.get(info.kind)) is None:
                raise PluginRefused(f"no handler registered for plugin type: {info.kind} at socket {path}")
            known.info = info  # before it is taken: should its socket go meanwhile, its kind is told
            await kind.registered(info)
        except PluginRefused as exc:
            known.info, why = None, str(exc)
        except OSError as exc:
            known.info = None
            self._log.info("plugin=%s kind=%s cannot be taken yet: %s", info.name, info.kind, exc)
            await self._notify(client, str(exc))
            return False
        if why:
            self._log.warning("plugin=%s kind=%s is refused: %s", info.name, info.kind, why)
        else:
            self._log.info("plugin=%s kind=%s is registered", info.name, info.kind)
        await self._notify(client, why)
        return True

    async def _notify(self, client: PluginClient, why: str) -> None:
        body = {"plugin_registered": not why, "error": why}
        try:
            await client.call(
                _SERVICE + "NotifyRegistrationStatus", "RegistrationStatus", "RegistrationStatusResponse", body, CALL_S
            )
        except PluginError as exc:
            self._log.info("plugin socket=%s does not hear of its registration: %s", client.socket, exc)


def _sockets(root: Path) -> tuple[dict[str, tuple[int, int]], list[Path]]:
    """Return the sockets below ``root`` with their identities, and the folders. Blocking."""
    found: dict[str, tuple[int, int]] = {}
    folders = [root]
    for folder in folders:
        try:
            entries = sorted(os.scandir(folder), key=lambda one: one.name)
        except OSError:
            continue  # it went away between two looks
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                about = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if stat.S_ISSOCK(about.st_mode) and len(found) < MOST:
                found[entry.path] = (about.st_ino, about.st_mtime_ns)
            elif stat.S_ISDIR(about.st_mode) and len(Path(entry.path).relative_to(root).parts) < DEEPEST:
                folders.append(Path(entry.path))
    return found, folders
