"""The cgroups of this node's pods and of their classes: where they are, made before pods start, removed after them.

Errors  None: a host that does not let us is spoken of once, and pods run without limits of their own.
State   What was last set for the classes.
"""

from __future__ import annotations

import contextlib
import logging
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio

from edgesite.edge.edged.cgroups import end_cgroup, remove_cgroup
from edgesite.edge.edged.pod import Pod, amount_nano, effective_requests
from edgesite.edge.edged.podcgroups import ROOT, CgroupLimits, limit, slice_path
from edgesite.edge.edged.resources import BURSTABLE, cgroup_parent, cgroup_parents, cpu_shares, pod_limits, qos_class
from edgesite.edge.edged.runtime import Isolation

if TYPE_CHECKING:
    from edgesite.context import Threads
    from edgesite.edge.edged.services import NodeFacts
    from edgesite.edge.edged.settings import EdgedSettings

__all__ = ["PodGroups"]

SYSTEMD: Final = "systemd"
SYSTEMD_RUNS: Final = Path("/run/systemd/system")
STOP_S: Final = 10.0
END_S: Final = (0.1, 0.5, 1.0)  #: how long what is left in the cgroup of a pod that has ended may take to go
Log = logging.Logger | logging.LoggerAdapter[logging.Logger]


class PodGroups:
    """``pods`` gives all pods that run here; ``root`` is where cgroups are mounted."""

    def __init__(
        self,
        settings: EdgedSettings,
        node: NodeFacts,
        isolation: Isolation,
        threads: Threads,
        pods: Callable[[], Iterable[Pod]],
        log: Log,
        root: Path = ROOT,
    ) -> None:
        self._settings, self._node, self._threads, self._pods, self._log = settings, node, threads, pods, log
        self._root = root
        self._wanted = settings.cgroups_per_qos and isolation is Isolation.CONTAINER
        self._classes: dict[str, CgroupLimits] = {}
        self._spoke = False

    @property
    def driver(self) -> str:
        """cgroupfs or systemd: the runtime's word, where it tells, else the configuration's."""
        return self._node.cgroup_driver or self._settings.cgroup_driver

    def parent(self, pod: Pod) -> str:
        """What a runtime is asked to put the pod below; "" leaves it to the runtime."""
        return cgroup_parent(pod, self.driver, self._settings.cgroup_root) if self._wanted else ""

    async def before_sandbox(self, pod: Pod) -> None:
        """Make the groups of a pod and of the classes. Slices are systemd's to make."""
        if self._wanted and self.driver != SYSTEMD:
            await self._threads.run(self._set, pod, True, False)

    async def after_sandbox(self, pod: Pod) -> None:
        """Set the limits of slices, which are there now."""
        if self._wanted and self.driver == SYSTEMD:
            await self._threads.run(self._set, pod, False, False)

    async def change(self, pod: Pod, *, only_more: bool) -> None:
        """Set the limits of a pod that was resized: more before its containers get more, less when they have less."""
        if self._wanted:
            await self._threads.run(self._set, pod, False, only_more)

    async def remove(self, uid: str) -> None:
        """Remove the group of a pod that has ended. Of one known by its containers alone nobody knows the class."""
        if not self._wanted:
            return
        if self.driver == SYSTEMD:
            await self._threads.run(_stop_slices, uid, self._root)
            return
        parents = cgroup_parents(uid, self._settings.cgroup_root)
        for wait_s in END_S:  # whatever was killed takes a moment to end
            if await self._threads.run(self._remove, parents):
                return
            with anyio.move_on_after(wait_s):
                await anyio.sleep_forever()
            await self._threads.run(self._end, parents)
        await self._threads.run(self._remove, parents)

    def _remove(self, parents: Sequence[str]) -> bool:
        found = [remove_cgroup(parent, self._root) for parent in parents]
        return all(found)

    def _end(self, parents: Sequence[str]) -> None:
        for parent in parents:
            end_cgroup(parent, self._root)

    def _set(self, pod: Pod, make: bool, only_more: bool) -> None:
        settings = self._settings
        limits = pod_limits(
            pod,
            cfs_quota=settings.cpu_cfs_quota,
            period_us=settings.cpu_cfs_period_us,
            pids=max(settings.pod_pids_limit, 0),
            huge_pages=self._node.huge_page_sizes,
        )
        try:
            self._set_classes(pod, make)
            if not limit(self.parent(pod), limits, self._root, make=make, only_more=only_more):
                self._speak("the host does not let edgesite write its cgroups")
        except OSError as exc:
            self._speak(f"{exc.filename}: {exc.strerror}")

    def _speak(self, why: str) -> None:
        if not self._spoke:
            self._spoke = True
            self._log.warning("pods run without cgroup limits of their own: %s", why)

    def _set_classes(self, pod: Pod, make: bool) -> None:
        others = [one for one in self._pods() if one.uid != pod.uid]
        burstable = sum(effective_requests(one, "cpu") for one in (*others, pod) if qos_class(one) == BURSTABLE)
        wanted = {
            "": CgroupLimits(
                cpu_shares=cpu_shares(self._node.allocatable_nano.get("cpu", 0)), memory_bytes=self._memory()
            ),
            "burstable": CgroupLimits(cpu_shares=cpu_shares(burstable)),
            "besteffort": CgroupLimits(cpu_shares=cpu_shares(0)),
        }
        for name, limits in wanted.items():
            if self._classes.get(name) == limits:
                continue
            if limit(self._class_parent(name), limits, self._root, make=make):
                self._classes[name] = limits

    def _memory(self) -> int:
        """What all pods together may use of memory: all but what is reserved for the system; 0 where nothing is."""
        settings = self._settings
        reserved = sum(amount_nano({"resources": {"": one}}, "", "memory") for one in settings.reserved) // 10**9
        return max(self._node.memory_bytes - reserved, 0) if reserved and settings.enforce_allocatable else 0

    def _class_parent(self, name: str) -> str:
        if self.driver == SYSTEMD:
            return f"kubepods-{name}.slice" if name else "kubepods.slice"
        return "/".join(one for one in (f"{self._settings.cgroup_root.rstrip('/')}/kubepods", name) if one)


def _stop_slices(uid: str, root: Path) -> None:
    """Let systemd forget the slice of a pod: an empty one stays otherwise. Where systemd does not run, nothing made one."""
    if not SYSTEMD_RUNS.is_dir():
        return
    words = uid.replace("-", "_")
    for base in ("kubepods", "kubepods-burstable", "kubepods-besteffort"):
        name = f"{base}-pod{words}.slice"
        path = slice_path(name).lstrip("/")
        if any((root / top / path).is_dir() for top in ("", "systemd")):
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):  # an empty slice costs next to nothing
                subprocess.run(["systemctl", "stop", name], check=False, timeout=STOP_S, capture_output=True)
