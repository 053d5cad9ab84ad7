"""The pod's folders and volumes on this host, kept up to date while it runs.

State   On disk, below the pod's folder; a token is asked for again before it ends.
Source  core/v1 Volume; folder names as kubelet's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from edgesite.edge.edged.events import WARNING
from edgesite.edge.edged.paths import Paths
from edgesite.edge.edged.services import PodServices
from edgesite.edge.edged.state import PodState, StageWait
from edgesite.edge.edged.together import together
from edgesite.edge.edged.volumes import host, images, subpaths
from edgesite.edge.edged.volumes.claims import ClaimPending
from edgesite.edge.edged.volumes.csi import records
from edgesite.edge.edged.volumes.payload import VolumeError
from edgesite.edge.edged.volumes.planner import VolumePlanner

__all__ = ["VolumesStage"]

RETRY_S: Final = 10.0
PENDING_S: Final = 1.0  #: A claim is bound soon after its pod has been given a node.
Job = Callable[[], None]


class VolumesStage:
    def __init__(self, services: PodServices) -> None:
        self._services = services
        self.stale = True  #: Something that files are made of may have changed.
        self.renew_at: float | None = None  #: monotonic: when a token is due
        self._let_go = False

    async def setup(self, state: PodState) -> None:
        state.recursive_read_only = self._services.node.recursive_read_only
        if self.renew_at is not None and self._services.clock.monotonic() >= self.renew_at:
            self.stale = True
        if not self.stale:
            return
        self.stale = False  # set again by whoever learns of a change meanwhile
        self.renew_at = None
        try:
            plan = await VolumePlanner(self._services, state).plan()
            await self._services.threads.run(_run_all, [self._folders(state), *plan.jobs])
            await together(*plan.steps)
        except (VolumeError, OSError) as exc:
            if state.volumes:  # the pod runs, and goes on with its old files: its containers may start again meanwhile
                self._services.log.warning("pod=%s volumes cannot be brought up to date: %s", state.pod.key, exc)
                self._renew_in(RETRY_S)
                return
            self.stale = True
            self._services.events.report(state.pod.reference(), WARNING, "FailedMount", str(exc))
            raise StageWait(str(exc), PENDING_S if isinstance(exc, ClaimPending) else RETRY_S) from exc
        if plan.renew_s is not None:
            self._renew_in(plan.renew_s)
        state.volumes = plan.paths

    async def let_go(self, state: PodState) -> None:
        """Give back the volumes of a pod whose last container has ended, as kubelet does: memory and disk that it was evicted for are
        free again before it is deleted. Raises OSError where a driver is missing or refuses."""
        if self._let_go or self._services.settings.keep_volumes:
            return
        await self._take_away(state.pod.uid, self._services.paths.volumes(state.pod.uid))
        state.volumes = {}
        self._let_go = state.given_back = True

    async def teardown(self, state: PodState) -> None:
        await self._take_away(state.pod.uid, self._services.paths.pod(state.pod.uid))

    async def _take_away(self, uid: str, folder: Path) -> None:
        """Remove a folder of the pod with its volumes. Raises OSError."""
        if await self._services.threads.run(_remove_plain, self._services.paths, uid, folder):
            return
        await self._services.image_volumes.unmount(uid)
        await self._services.csi.unmount(uid)  # before the folders go, with the records in them
        await self._services.threads.run(host.remove_tree, folder)

    def _folders(self, state: PodState) -> Job:
        pod, paths = state.pod, self._services.paths
        logs = paths.pod_logs(pod)
        names = [one["name"] for one in (*pod.init_containers, *pod.containers, *pod.ephemeral_containers)]

        def make() -> None:
            for name in names:
                (logs / name).mkdir(parents=True, exist_ok=True, mode=0o755)
                (paths.pod(pod.uid) / "containers" / name).mkdir(parents=True, exist_ok=True, mode=0o750)

        return make

    def _renew_in(self, seconds: float) -> None:
        self.renew_at = self._services.clock.monotonic() + seconds


def _remove_plain(paths: Paths, uid: str, folder: Path) -> bool:
    """Remove a folder of a pod; False if it has volumes which others have to take away first. Raises OSError."""
    subpaths.release(paths.sub_paths(uid))
    if _has_volumes(paths, uid, (images.PLUGIN, records.PLUGIN)):
        return False
    host.remove_tree(folder)
    return True


def _has_volumes(paths: Paths, uid: str, plugins: tuple[str, ...]) -> bool:
    return any(paths.volume(uid, plugin, "").is_dir() for plugin in plugins)


def _run_all(jobs: list[Job]) -> None:
    for job in jobs:
        job()
