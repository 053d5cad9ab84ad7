"""CSI volumes of all pods: finds their drivers, stages and publishes them, undoes that, and clears what a crash has left.

All that is done to one volume is done under one lock, so that a pod that comes does not meet one that goes.

Units   Seconds.
Errors  VolumeError: why a volume cannot be mounted now. PluginError, an OSError: the driver refused to undo something.
State   Drivers, and what was staged since the start, in memory; the mounts' records on disk (`records`).
Source  kubelet's csi plugin: order of calls, what of a CSIDriver matters; texts as kubelet words them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.context import Net, Threads
from edgesite.edge.edged.objects import Objects
from edgesite.edge.edged.plugins.errors import PluginError
from edgesite.edge.edged.plugins.registry import PluginInfo, PluginRefused
from edgesite.edge.edged.pod import Pod
from edgesite.edge.edged.volumes import host
from edgesite.edge.edged.volumes.csi.attachments import Attachments
from edgesite.edge.edged.volumes.csi.expansion import Expansion, smaller
from edgesite.edge.edged.volumes.csi.records import (
    ATTACHED,
    CAPACITY,
    EPHEMERAL,
    LIFECYCLE,
    Record,
    Records,
    Waiting,
)
from edgesite.edge.edged.volumes.csi.rules import DriverRules
from edgesite.edge.edged.volumes.csi.volume import CsiVolume, capability, pod_context, wants_group
from edgesite.edge.edged.volumes.payload import VolumeError
from edgesite.kube import json
from edgesite.kube.errors import ApiError

if TYPE_CHECKING:
    from edgesite.edge.edged.podusage import FsUsage
    from edgesite.edge.edged.volumes.csi.driver import CsiDriver

__all__ = ["CsiVolumes", "Mounted"]

TOKENS: Final = "csi.storage.k8s.io/serviceAccount.tokens"
REPUBLISH_S: Final = 60.0
_VERSION: Final = "1."


@dataclass(frozen=True, slots=True)
class Mounted:
    path: str
    again_s: float | None = None  #: after how long the driver wants to be asked again


@dataclass(slots=True)
class _Lock:
    lock: anyio.Lock = field(default_factory=anyio.Lock)
    users: int = 0


class CsiVolumes:
    """One for the node; it is also who takes plugins of kind CSIPlugin."""

    def __init__(
        self,
        records: Records,
        node: str,
        objects: Objects,
        net: Net,
        threads: Threads,
        log: logging.Logger | logging.LoggerAdapter[logging.Logger],
        changed: Callable[[Mapping[str, CsiDriver]], None],
        beside: Callable[..., None],
        attachments: Attachments,
        expansion: Expansion,
    ) -> None:
        """``changed`` is told of the drivers whenever one comes or goes; ``beside(function, *args)`` runs something beside."""
        self._attachments, self._expansion = attachments, expansion
        self._records, self._node, self._objects, self._threads, self._log = records, node, objects, threads, log
        self._changed, self._beside, self._net = changed, beside, net
        self._drivers: dict[str, CsiDriver] = {}
        self._staged: set[tuple[str, str]] = set()
        self._locks: dict[tuple[str, str], _Lock] = {}

    async def load(self) -> None:
        """Find what pods have from before a restart. Raises OSError."""
        self._attachments.load(await self._threads.run(self._records.attached))

    def in_use(self) -> list[str]:
        """Volumes that are not to be detached, as ``volumesInUse`` of the Node names them."""
        return self._attachments.in_use()

    # -- drivers come and go

    async def registered(self, info: PluginInfo) -> None:
        """Take a driver. Raises PluginRefused, OSError."""
        if not any(one.removeprefix("v").startswith(_VERSION) for one in info.versions):
            said = ", ".join(info.versions) or "none"
            raise PluginRefused(f"driver {info.name} has no version of CSI that is supported: {said}")
        from edgesite.edge.edged.volumes.csi.driver import CsiDriver  # loads gRPC: not before there is a driver

        driver = CsiDriver(self._net, info.name, info.endpoint)
        try:
            await driver.about()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await driver.close()
            raise
        old, self._drivers[info.name] = self._drivers.get(info.name), driver
        self._staged = {one for one in self._staged if one[0] != info.name}
        if old is not None:
            await old.close()
        self._changed(self._drivers)
        self._beside(self.sweep, info.name)

    async def gone(self, info: PluginInfo) -> None:
        driver = self._drivers.pop(info.name, None)
        if driver is not None:
            self._changed(self._drivers)
            await driver.close()

    async def close(self) -> None:
        """Close the connections to all drivers."""
        drivers, self._drivers = self._drivers, {}
        for driver in drivers.values():
            await driver.close()

    def _driver(self, name: str) -> CsiDriver:
        if (found := self._drivers.get(name)) is None:
            raise VolumeError(f"driver name {name} not found in the list of registered CSI drivers")
        return found

    # -- a volume comes

    async def mount(self, pod: Pod, volume: CsiVolume, group: int | None, *, lazily: bool) -> Mounted:
        """Bring a volume to where the pod's containers find it. ``lazily``: change the group of files only if the folder itself is
        of another. Raises VolumeError, OSError."""
        record = self._records.of_pod(pod.uid, volume)
        rules = await self._rules(volume.driver)
        again_s = REPUBLISH_S if rules.republish else None
        async with self._alone(volume.driver, volume.handle):
            there = await self._threads.run(self._records.is_published, record)
            if not there or rules.republish:
                await self._bring(pod, volume, group, record, rules, lazily=lazily, again=there)
            grown_s = await self._grow(pod, volume, record)
        waits = [one for one in (again_s, grown_s) if one is not None]
        return Mounted(str(record.mount), min(waits, default=None))

    async def _bring(
        self,
        pod: Pod,
        volume: CsiVolume,
        group: int | None,
        record: Record,
        rules: DriverRules,
        *,
        lazily: bool,
        again: bool,
    ) -> None:
        driver = self._driver(volume.driver)
        kind = _lifecycle(volume)
        if kind not in rules.lifecycles:
            raise VolumeError(
                f'volume mode "{kind}" not supported by driver {volume.driver} (only supports {list(rules.lifecycles)})'
            )
        if not again and self._attachments.may_be_needed(volume, rules):
            await self._threads.run(self._records.write, record, self._told(volume, Waiting.YET))
        attached = await self._attachments.wait(volume, rules)
        body: dict[str, Any] = {
            "publish_context": attached.context,
            "volume_capability": capability(volume, driver.capabilities, group),
        }
        waiting = Waiting.NO_MORE if attached.is_needed else Waiting.NEVER
        if not again:
            await self._threads.run(self._records.write, record, self._told(volume, waiting))
        if "STAGE_UNSTAGE_VOLUME" in driver.capabilities and not volume.is_inline:
            staged = self._records.staged(volume.driver, volume.handle)
            if (volume.driver, volume.handle) not in self._staged:
                await self._stage(driver, volume, staged, body, waiting)
            body["staging_target_path"] = str(staged.staged)
        told = await self._context(pod, volume, rules)
        body |= {
            "readonly": volume.readonly,
            "secrets": await self._secret(volume.publish_secret),
            "volume_context": told,
        }
        await driver.publish(volume.handle, str(record.mount), body)
        sets_group = "VOLUME_MOUNT_GROUP" in driver.capabilities
        if group is not None and not again and not sets_group and wants_group(volume, rules.group_policy):
            await self._threads.run(host.give_all_to_group, record.mount, group, lazily)

    async def _stage(
        self, driver: CsiDriver, volume: CsiVolume, staged: Record, body: Mapping[str, Any], waiting: Waiting
    ) -> None:
        await self._threads.run(self._records.write, staged, {ATTACHED: waiting.value})
        await self._threads.run(_make_folder, staged.staged)
        secrets = await self._secret(volume.stage_secret)
        await driver.stage(
            volume.handle, str(staged.staged), {**body, "secrets": secrets, "volume_context": volume.attributes}
        )
        self._staged.add((volume.driver, volume.handle))

    async def _grow(self, pod: Pod, volume: CsiVolume, record: Record) -> float | None:
        """Let a mounted volume grow; returns after how long to come back. Raises VolumeError, OSError."""
        driver = self._drivers.get(volume.driver)
        if volume.is_inline or driver is None or "EXPAND_VOLUME" not in driver.capabilities:
            return None
        staged = self._records.staged(volume.driver, volume.handle)
        body: dict[str, Any] = {"volume_capability": capability(volume, driver.capabilities, None)}
        if staged.staged.is_dir():
            body["staging_target_path"] = str(staged.staged)
        body["secrets"] = await self._secret(volume.expand_secret)
        told = await self._threads.run(self._records.grown, record, volume.capacity)
        return await self._expansion.grow(pod, volume, record, driver, body, told)

    def _told(self, volume: CsiVolume, waiting: Waiting) -> dict[str, str]:
        return {
            "specVolID": volume.name,
            "nodeName": self._node,
            LIFECYCLE: _lifecycle(volume),
            CAPACITY: smaller(volume.capacity, volume.claim.capacity if volume.claim is not None else ""),
            ATTACHED: waiting.value,
        }

    async def _rules(self, driver: str) -> DriverRules:
        try:
            found = await self._objects.newest("csidriver", "", driver)
        except ApiError as exc:
            raise VolumeError(f"the CSIDriver {driver} cannot be read: {exc.message}") from exc
        if found is not None:
            return DriverRules.of(found)
        # A cloud of another make cannot tell of drivers: then only the attachment itself shows whether one is needed.
        return DriverRules(attach=self._objects.cloud_is_ours, lifecycles=("Persistent", "Ephemeral"), pod_info=True)

    async def _secret(self, reference: tuple[str, str] | None) -> dict[str, str]:
        if reference is None:
            return {}
        try:
            return await self._objects.secret_values(*reference)
        except ApiError as exc:
            raise VolumeError(f'secret "{reference[1]}" cannot be read: {exc.message}') from exc

    async def _context(self, pod: Pod, volume: CsiVolume, rules: DriverRules) -> dict[str, str]:
        told = dict(volume.attributes)
        if rules.pod_info:
            told |= pod_context(pod, volume)
        if rules.token_requests:
            told[TOKENS] = json.dumps(await self._tokens(pod, rules.token_requests)).decode()
        return told

    async def _tokens(self, pod: Pod, requests: tuple[Mapping[str, Any], ...]) -> dict[str, Any]:
        account = pod.spec.get("serviceAccountName") or "default"
        found = {}
        for one in requests:
            request = {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {
                    "audiences": [one["audience"]] if one.get("audience") else [],
                    "expirationSeconds": int(one.get("expirationSeconds") or 3600),
                    "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid},
                },
            }
            try:
                found[one.get("audience") or ""] = (await self._objects.token(pod.namespace, account, request))[
                    "status"
                ]
            except ApiError as exc:
                raise VolumeError(f"failed to fetch token: {exc.message}") from exc
        return found

    # -- a volume goes

    async def unmount(self, uid: str) -> None:
        """Take away all CSI volumes of a pod. Raises OSError where a driver is missing or refuses: to be tried again."""
        for record in await self._threads.run(self._records.of, uid):
            async with self._alone(record.driver, record.handle):
                await self._unpublish(record)
                await self._unstage_unused(record.driver, record.handle)

    async def _unpublish(self, record: Record) -> None:
        driver = self._drivers.get(record.driver)
        if await self._threads.run(self._records.is_untouched, record):
            await self._threads.run(self._records.remove, record)
            return
        if driver is not None:
            await driver.unpublish(record.handle, str(record.mount))
        elif await self._threads.run(host.is_in_mount_table, record.mount):
            raise OSError(f"driver name {record.driver} not found in the list of registered CSI drivers")
        await self._threads.run(host.unmount, record.mount)  # should the driver have left it
        await self._threads.run(self._records.remove, record)

    async def _unstage_unused(self, driver_name: str, handle: str) -> None:
        if await self._threads.run(self._records.users, driver_name, handle):
            return
        staged = self._records.staged(driver_name, handle)
        if staged.folder.is_dir():
            if (driver := self._drivers.get(driver_name)) is None:
                return  # `sweep` does it when the driver comes back
            if "STAGE_UNSTAGE_VOLUME" in driver.capabilities:
                await driver.unstage(handle, str(staged.staged))
            self._staged.discard((driver_name, handle))
            await self._threads.run(host.unmount, staged.staged)
            await self._threads.run(self._records.remove, staged)
        self._attachments.given_back((driver_name, handle))

    async def sweep(self, driver: str) -> None:
        """Unstage volumes of a driver that no pod has: their pods ended while edgesite or the driver was being stopped."""
        for record in await self._threads.run(self._records.all_staged):
            if record.driver != driver:
                continue
            try:
                async with self._alone(record.driver, record.handle):
                    await self._unstage_unused(record.driver, record.handle)
            except OSError as exc:
                self._log.warning("driver=%s volume=%s cannot be unstaged: %s", driver, record.handle, exc)

    # -- how full

    async def usage(self, uid: str) -> dict[str, FsUsage]:
        """How full a pod's volumes are, by where they are mounted, of those drivers that can tell."""
        found = {}
        for record in await self._threads.run(self._records.of, uid):
            driver = self._drivers.get(record.driver)
            if driver is not None and "GET_VOLUME_STATS" in driver.capabilities:
                try:
                    if (told := await driver.usage(record.handle, str(record.mount))) is not None:
                        found[str(record.mount)] = told
                except PluginError as exc:
                    self._log.debug("volume=%s: %s", record.handle, exc)
        return found

    def _alone(self, driver: str, handle: str) -> _Alone:
        return _Alone(self._locks, (driver, handle))


class _Alone:
    """Holds the lock of one volume; locks that nobody waits for are forgotten."""

    def __init__(self, locks: dict[tuple[str, str], _Lock], key: tuple[str, str]) -> None:
        self._locks, self._key = locks, key

    async def __aenter__(self) -> None:
        held = self._locks.setdefault(self._key, _Lock())
        held.users += 1
        try:
            await held.lock.acquire()
        except BaseException:
            self._leave(held)
            raise

    async def __aexit__(self, *exc: object) -> None:
        held = self._locks[self._key]
        held.lock.release()
        self._leave(held)

    def _leave(self, held: _Lock) -> None:
        held.users -= 1
        if not held.users:
            del self._locks[self._key]


def _lifecycle(volume: CsiVolume) -> str:
    return EPHEMERAL if volume.is_inline else "Persistent"


def _make_folder(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True, mode=0o750)
