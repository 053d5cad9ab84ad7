"""The pod's folders and volumes on this host, kept up to date while it runs.

State   On disk, below the pod's folder; a token is asked for again before it ends.
Source  core/v1 Volume; folder names as kubelet's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from edgesite.edge.edged.environment import Reference
from edgesite.edge.edged.events import WARNING
from edgesite.edge.edged.services import PodServices
from edgesite.edge.edged.state import PodState, StageWait
from edgesite.edge.edged.together import together
from edgesite.edge.edged.volumes import host, subpaths
from edgesite.edge.edged.volumes.atomic import File, write_payload
from edgesite.edge.edged.volumes.claims import ClaimPending, claim_name, is_bound, source_of
from edgesite.edge.edged.volumes.payload import (
    DEFAULT_MODE,
    VolumeError,
    projected_sources,
    source_files,
    volume_references,
)
from edgesite.edge.edged.volumes.tokens import get_token
from edgesite.kube.quantity import InvalidQuantity, parse

__all__ = ["VolumesStage"]

RETRY_S: Final = 10.0
PENDING_S: Final = 1.0  #: A claim is bound soon after its pod has been given a node.
GROUP_READS: Final = 0o440  #: With an fsGroup, files of objects can be read by it whatever their mode says.
_PLUGINS: Final = {
    "configMap": "configmap",
    "secret": "secret",
    "downwardAPI": "downward-api",
    "projected": "projected",
    "emptyDir": "empty-dir",
}
Job = Callable[[], None]


class VolumesStage:
    def __init__(self, services: PodServices) -> None:
        self._services = services
        self.stale = True  #: Something that files are made of may have changed.
        self.renew_at: float | None = None  #: monotonic: when a token is due

    async def setup(self, state: PodState) -> None:
        if self.renew_at is not None and self._services.clock.monotonic() >= self.renew_at:
            self.stale = True
        if not self.stale:
            return
        self.stale = False  # set again by whoever learns of a change meanwhile
        try:
            paths, jobs = await self._plan(state)
            await self._services.threads.run(_run_all, [self._folders(state), *jobs])
        except (VolumeError, OSError) as exc:
            if state.volumes:  # the pod runs, and goes on with its old files: its containers may start again meanwhile
                self._services.log.warning("pod=%s volumes cannot be brought up to date: %s", state.pod.key, exc)
                self._renew_in(RETRY_S)
                return
            self.stale = True
            self._services.events.report(state.pod.reference(), WARNING, "FailedMount", str(exc))
            raise StageWait(str(exc), PENDING_S if isinstance(exc, ClaimPending) else RETRY_S) from exc
        state.volumes = paths

    async def teardown(self, state: PodState) -> None:
        uid, paths = state.pod.uid, self._services.paths
        await self._services.threads.run(subpaths.release, paths.sub_paths(uid))
        await self._services.threads.run(host.remove_tree, paths.pod(uid))

    def _folders(self, state: PodState) -> Job:
        pod, paths = state.pod, self._services.paths
        logs = paths.pod_logs(pod)
        names = [one["name"] for one in (*pod.init_containers, *pod.containers, *pod.ephemeral_containers)]

        def make() -> None:
            for name in names:
                (logs / name).mkdir(parents=True, exist_ok=True, mode=0o755)
                (paths.pod(pod.uid) / "containers" / name).mkdir(parents=True, exist_ok=True, mode=0o750)

        return make

    async def _plan(self, state: PodState) -> tuple[dict[str, str], list[Job]]:
        """Return the host path of each volume, and what is to be done to make it. Raises VolumeError."""
        objects = await self._objects(state)
        paths: dict[str, str] = {}
        jobs: list[Job] = []
        self.renew_at = None
        for volume in state.pod.spec.get("volumes") or ():
            name = volume.get("name", "")
            try:
                paths[name], job = await self._one(state, volume, objects)
            except VolumeError as exc:
                raise type(exc)(f'MountVolume.SetUp failed for volume "{name}" : {exc}') from exc
            if job is not None:
                jobs.append(_named(name, job))
        return paths, jobs

    async def _objects(self, state: PodState) -> dict[tuple[str, str], Mapping[str, Any] | None]:
        found: dict[tuple[str, str], Mapping[str, Any] | None] = {}

        async def get(ref: Reference) -> None:
            found[ref.kind, ref.name] = await self._services.objects.get(ref.kind, state.pod.namespace, ref.name)

        wanted = {(one.kind, one.name): one for one in volume_references(state.pod)}.values()
        await together(*(functools.partial(get, ref) for ref in wanted))
        return found

    async def _one(
        self, state: PodState, volume: Mapping[str, Any], objects: Mapping[tuple[str, str], Mapping[str, Any] | None]
    ) -> tuple[str, Job | None]:
        if claim := claim_name(state.pod, volume):
            return await self._claimed(state, claim)
        if (source := volume.get("hostPath")) is not None:
            path = source.get("path", "")
            return path, functools.partial(host.prepare_host_path, path, source.get("type") or "")
        kind = next((one for one in _PLUGINS if one in volume), "")
        if not kind:
            kinds = sorted(set(volume) - {"name"})
            if kinds:
                raise VolumeError(f"volumes of kind {kinds[0]} are not supported")
            kind, volume = "emptyDir", {**volume, "emptyDir": {}}  # no source at all means an empty directory
        target = self._services.paths.volume(state.pod.uid, _PLUGINS[kind], volume.get("name", ""))
        if kind == "emptyDir":
            return str(target), functools.partial(_make_empty, target, volume["emptyDir"] or {}, _group(state))
        files = await self._files(state, volume, objects, target)
        # As kubelet has it: secrets stay off the disk, and a Go edgecore that comes back finds the mounts that it expects.
        in_memory = kind != "configMap"
        return str(target), functools.partial(_make_files, target, files, self._version(), in_memory, _group(state))

    async def _claimed(self, state: PodState, name: str) -> tuple[str, Job | None]:
        """The folder of this host behind a claim; with an fsGroup it is given to that group."""
        objects = self._services.objects
        claim = await objects.claim(state.pod.namespace, name)
        if claim is None:
            raise ClaimPending(f'persistentvolumeclaim "{name}" not found')
        if not is_bound(claim):
            raise ClaimPending(f'persistentvolumeclaim "{name}" is not bound')
        volume = await objects.get("persistentvolume", "", claim["spec"]["volumeName"])
        if volume is None:
            raise ClaimPending(f'persistentvolume "{claim["spec"]["volumeName"]}" not found')
        source = source_of(volume, claim, self._services.node.labels)
        group = _group(state) if "local" in volume["spec"] else None
        return source["path"], functools.partial(_make_claimed, source["path"], source["type"], group)

    async def _files(
        self,
        state: PodState,
        volume: Mapping[str, Any],
        objects: Mapping[tuple[str, str], Mapping[str, Any] | None],
        target: Path,
    ) -> dict[str, File]:
        own = next(volume[kind] or {} for kind in ("projected", "configMap", "secret", "downwardAPI") if kind in volume)
        mode = own.get("defaultMode")
        mode = DEFAULT_MODE if mode is None else mode
        group = _group(state)
        facts = self._services.node.seen_by(state.ips)
        files: dict[str, File] = {}
        for source in projected_sources(volume):
            if (token := source.get("serviceAccountToken")) is not None:
                path = token.get("path", "")
                found = await get_token(self._services, state, token, target / path)
                files[path] = File(found.text, mode if group is None else 0o600)
                self._renew_in(found.renew_s)
            else:
                files |= source_files(state.pod, source, objects, facts, mode)
        if group is None:
            return files
        return {name: replace(one, mode=one.mode | GROUP_READS) for name, one in files.items()}

    def _renew_in(self, seconds: float) -> None:
        due = self._services.clock.monotonic() + seconds
        self.renew_at = due if self.renew_at is None else min(due, self.renew_at)

    def _version(self) -> str:
        return f"{int(self._services.clock.time() * 1000):x}.{self._services.random.getrandbits(40):010x}"


def _run_all(jobs: list[Job]) -> None:
    for job in jobs:
        job()


def _named(name: str, job: Job) -> Job:
    def run() -> None:
        try:
            job()
        except VolumeError as exc:
            raise VolumeError(f'MountVolume.SetUp failed for volume "{name}" : {exc}') from exc
        except OSError as exc:
            raise VolumeError(f'MountVolume.SetUp failed for volume "{name}" : {exc.strerror}: {exc.filename}') from exc

    return run


def _make_claimed(path: str, kind: str, group: int | None) -> None:
    host.prepare_host_path(path, kind)
    if group is not None:
        host.give_to_group(Path(path), group)


def _make_empty(target: Path, source: Mapping[str, Any], group: int | None) -> None:
    if source.get("medium") == "Memory":
        host.mount_memory(target, _size(source))
    target.mkdir(parents=True, exist_ok=True)
    target.chmod(0o777)
    if group is not None:
        host.give_to_group(target, group)


def _size(source: Mapping[str, Any]) -> int:
    try:
        return parse(str(source.get("sizeLimit") or "0")).value()
    except InvalidQuantity:
        return 0


def _make_files(target: Path, files: Mapping[str, File], version: str, in_memory: bool, group: int | None) -> None:
    if in_memory and not (target / "..data").is_symlink():  # a mount over what containers have open would hide it
        host.mount_memory(target)
    write_payload(target, files, version, group)


def _group(state: PodState) -> int | None:
    group = (state.pod.spec.get("securityContext") or {}).get("fsGroup")
    return int(group) if group is not None else None
