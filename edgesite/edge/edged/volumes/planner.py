"""From a pod's volumes to where they are on this host, and the work that brings them there.

Errors  VolumeError: the volume cannot be had now; ClaimPending where that may change any moment.
State   None.
Source  core/v1 Volume; folder names as kubelet's; which kinds an fsGroup is applied to, as kubelet has it.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from edgesite.edge.edged.environment import Reference
from edgesite.edge.edged.services import PodServices
from edgesite.edge.edged.state import PodState
from edgesite.edge.edged.together import together
from edgesite.edge.edged.volumes import emptydir, host
from edgesite.edge.edged.volumes.atomic import File, write_payload
from edgesite.edge.edged.volumes.claims import (
    ClaimPending,
    check_claimed,
    claim_name,
    holds,
    is_bound,
    is_for_one_pod,
    source_of,
)
from edgesite.edge.edged.volumes.csi.volume import CsiVolume, inline, persistent
from edgesite.edge.edged.volumes.payload import (
    DEFAULT_MODE,
    VolumeError,
    projected_sources,
    source_files,
    volume_references,
)
from edgesite.edge.edged.volumes.tokens import get_token, only_user

__all__ = ["IMAGE", "Plan", "VolumePlanner"]

GROUP_READS: Final = 0o440  #: With an fsGroup, files of objects can be read by it whatever their mode says.
IMAGE: Final = "image"  #: volumes of this kind are mounted where their container is made
_PLUGINS: Final = {
    "configMap": "configmap",
    "secret": "secret",
    "downwardAPI": "downward-api",
    "projected": "projected",
    "emptyDir": "empty-dir",
}
Job = Callable[[], None]
Objects = Mapping[tuple[str, str], Mapping[str, Any] | None]


@dataclass(slots=True)
class Plan:
    """``jobs`` block, and are done first; ``steps`` talk to others. Both raise VolumeError and OSError."""

    paths: dict[str, str] = field(default_factory=dict)  #: host path by name of a volume
    jobs: list[Job] = field(default_factory=list)
    steps: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    renew_s: float | None = None  #: after how long something of it is due anew


class VolumePlanner:
    """Makes one plan for one pod."""

    def __init__(self, services: PodServices, state: PodState) -> None:
        self._services, self._state = services, state
        self._plan = Plan()
        context = state.pod.spec.get("securityContext") or {}
        group = context.get("fsGroup")
        self._group = int(group) if group is not None else None
        self._lazily = context.get("fsGroupChangePolicy") == "OnRootMismatch"

    async def plan(self) -> Plan:
        """Raises VolumeError."""
        objects = await self._objects()
        for volume in self._state.pod.spec.get("volumes") or ():
            name = volume.get("name", "")
            try:
                await self._add(name, volume, objects)
            except VolumeError as exc:
                raise type(exc)(f'MountVolume.SetUp failed for volume "{name}" : {exc}') from exc
        return self._plan

    def again_in(self, seconds: float) -> None:
        """Something of the volumes is due anew after so long."""
        before = self._plan.renew_s
        self._plan.renew_s = seconds if before is None else min(seconds, before)

    async def _objects(self) -> dict[tuple[str, str], Mapping[str, Any] | None]:
        found: dict[tuple[str, str], Mapping[str, Any] | None] = {}

        async def get(ref: Reference) -> None:
            namespace = self._state.pod.namespace
            found[ref.kind, ref.name] = await self._services.objects.get(ref.kind, namespace, ref.name)

        wanted = {(one.kind, one.name): one for one in volume_references(self._state.pod)}.values()
        await together(*(functools.partial(get, ref) for ref in wanted))
        return found

    def _job(self, name: str, job: Callable[..., None], *args: Any) -> None:
        self._plan.jobs.append(_named(name, functools.partial(job, *args)))

    async def _add(self, name: str, volume: Mapping[str, Any], objects: Objects) -> None:
        """Plan one volume. Raises VolumeError."""
        readonly, is_claimed = False, False
        if claim := claim_name(self._state.pod, volume):
            readonly = bool((volume.get("persistentVolumeClaim") or {}).get("readOnly"))
            bound, found = await self._claimed(claim)
            is_claimed, volume = True, {"name": name, **source_of(found)}
            if "csi" in volume:
                self._csi(name, persistent(found, readonly=readonly, claim=bound))
                return
        if "csi" in volume:
            self._csi(name, inline(self._state.pod, volume))
        elif (source := volume.get("hostPath")) is not None:
            self._plan.paths[name] = source.get("path", "")
            self._job(name, host.prepare_host_path, source.get("path", ""), source.get("type") or "")
        elif (source := volume.get("local")) is not None and is_claimed:
            self._local(name, source)
        elif (source := volume.get("nfs")) is not None:
            from edgesite.edge.edged.volumes import nfs  # few nodes have any

            target = self._target("nfs", name)
            self._plan.paths[name] = str(target)
            options = (found.get("spec") or {}).get("mountOptions") or () if is_claimed else ()
            share = nfs.Share.of(source, options, readonly=readonly)
            self._step(name, functools.partial(nfs.mount, share, target, self._services.threads))
        elif volume.get(IMAGE) is None:
            await self._of_ours(name, volume, objects)

    def _step(self, name: str, step: Callable[[], Awaitable[object]]) -> None:
        async def run() -> None:
            try:
                await step()
            except (VolumeError, OSError) as exc:
                kind = type(exc) if isinstance(exc, VolumeError) else VolumeError
                raise kind(f'MountVolume.SetUp failed for volume "{name}" : {exc}') from exc

        self._plan.steps.append(run)

    def _target(self, plugin: str, name: str) -> Path:
        return self._services.paths.volume(self._state.pod.uid, plugin, name)

    def _csi(self, name: str, volume: CsiVolume) -> None:
        async def mount() -> None:
            mounted = await self._services.csi.mount(self._state.pod, volume, self._group, lazily=self._lazily)
            if mounted.again_s is not None:
                self.again_in(mounted.again_s)

        self._plan.paths[name] = str(self._target("csi", volume.name) / "mount")
        self._step(name, mount)

    def _local(self, name: str, source: Mapping[str, Any]) -> None:
        path = source["path"]
        self._plan.paths[name] = path
        self._job(name, host.prepare_host_path, path, source["type"])
        if self._group is not None and source["type"] == "Directory" and not self._state.containers:
            self._job(name, host.give_all_to_group, Path(path), self._group, self._lazily)

    async def _of_ours(self, name: str, volume: Mapping[str, Any], objects: Objects) -> None:
        """Plan a volume whose content comes from here."""
        kind = next((one for one in _PLUGINS if one in volume), "")
        if not kind:
            kinds = sorted(set(volume) - {"name"})
            if kinds:
                raise VolumeError(f"volumes of kind {kinds[0]} are not supported")
            kind, volume = "emptyDir", {**volume, "emptyDir": {}}  # no source at all means an empty directory
        target = self._target(_PLUGINS[kind], name)
        self._plan.paths[name] = str(target)
        if kind == "emptyDir":
            source = volume["emptyDir"] or {}
            size = emptydir.size_limit(self._state.pod, source, self._services.node.allocatable_nano)
            self._job(name, emptydir.make, target, emptydir.medium(self._state.pod, source), size, self._group)
            return
        files = await self._files(volume, objects, target)
        # Secrets stay off the disk where the host lets us mount memory.
        in_memory = kind == "secret" or any(
            "serviceAccountToken" in one or "secret" in one for one in projected_sources(volume)
        )
        in_memory = in_memory and self._services.node.mounts
        self._job(name, _make_files, target, files, self._version(), in_memory, self._group)

    async def _claimed(self, name: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """A claim and the PersistentVolume behind it. Raises VolumeError."""
        objects = self._services.objects
        claim = await objects.claim(self._state.pod.namespace, name)
        if claim is None:
            raise ClaimPending(f'persistentvolumeclaim "{name}" not found')
        if not is_bound(claim):
            raise ClaimPending(f'persistentvolumeclaim "{name}" is not bound')
        if (claim.get("metadata") or {}).get("deletionTimestamp") and not self._state.containers:
            raise VolumeError(f"error processing PVC {self._state.pod.namespace}/{name}: PVC is being deleted")
        volume = await objects.get("persistentvolume", "", claim["spec"]["volumeName"])
        if volume is None:
            raise ClaimPending(f'persistentvolume "{claim["spec"]["volumeName"]}" not found')
        check_claimed(volume, claim, await self._labels())
        if is_for_one_pod(volume):
            self._take_alone(name)
        return claim, volume

    def _take_alone(self, claim: str) -> None:
        """Have a claim that only one pod may use, once the last one has let go of it. Raises ClaimPending."""
        mine = self._state
        for other in self._services.pods():
            if other is not mine and other.pod.namespace == mine.pod.namespace and holds(other, claim):
                raise ClaimPending("volume uses the ReadWriteOncePod access mode and is already in use by another pod")
        mine.sole_claims.add(claim)

    async def _labels(self) -> Mapping[str, str]:
        """The node's labels: those that it gives itself, and what operators and drivers have added."""
        node = self._services.node
        stored = await self._services.objects.get("node", "", node.name) or {}
        return {**((stored.get("metadata") or {}).get("labels") or {}), **node.labels}

    async def _files(self, volume: Mapping[str, Any], objects: Objects, target: Path) -> dict[str, File]:
        own = next(volume[kind] or {} for kind in ("projected", "configMap", "secret", "downwardAPI") if kind in volume)
        mode = own.get("defaultMode")
        mode = DEFAULT_MODE if mode is None else mode
        facts = self._services.node.seen_by(self._state.ips)
        files: dict[str, File] = {}
        user = only_user(self._state.pod)
        for source in projected_sources(volume):
            if (token := source.get("serviceAccountToken")) is not None:
                path = token.get("path", "")
                found = await get_token(self._services, self._state, token, target / path)
                files[path] = File(found.text, mode if self._group is None and user is None else 0o600, user)
                self.again_in(found.renew_s)
            else:
                files |= source_files(self._state.pod, source, objects, facts, mode)
        if self._group is None:
            return files
        return {name: replace(one, mode=one.mode | GROUP_READS) for name, one in files.items()}

    def _version(self) -> str:
        return f"{int(self._services.clock.time() * 1000):x}.{self._services.random.getrandbits(40):010x}"


def _named(name: str, job: Job) -> Job:
    def run() -> None:
        try:
            job()
        except VolumeError as exc:
            raise VolumeError(f'MountVolume.SetUp failed for volume "{name}" : {exc}') from exc
        except OSError as exc:
            raise VolumeError(f'MountVolume.SetUp failed for volume "{name}" : {exc.strerror}: {exc.filename}') from exc

    return run


def _make_files(target: Path, files: Mapping[str, File], version: str, in_memory: bool, group: int | None) -> None:
    if in_memory:
        host.mount_memory(target)
    write_payload(target, files, version, group)
