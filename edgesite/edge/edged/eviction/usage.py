"""What each pod uses of memory and of the local disk, measured when somebody asks.

Units   Bytes.
Errors  RuntimeFault. What vanishes while it is being counted counts nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from edgesite.context import Threads
from edgesite.edge.edged.eviction.ranking import Usage
from edgesite.edge.edged.paths import Paths
from edgesite.edge.edged.runtime import LABEL_POD_UID, Runtime
from edgesite.edge.edged.state import PodState

__all__ = ["measure"]


async def measure(
    pods: Iterable[PodState], runtime: Runtime, paths: Paths, threads: Threads, *, disk: bool
) -> dict[str, Usage]:
    """Return the usage of pods by uid; ``disk``: of volumes and logs too, for which their folders are gone through. Raises RuntimeFault."""
    found = {one.pod.uid: Usage() for one in pods}
    for row in await runtime.container_stats():
        if (usage := found.get(row.labels.get(LABEL_POD_UID, ""))) is not None:
            usage.memory[row.name] = usage.memory.get(row.name, 0) + row.memory_working_set_bytes
            usage.storage[row.name] = row.writable_layer.used_bytes if row.writable_layer else 0
    if disk:
        for state in pods:
            await threads.run(_count_disk, state, paths, found[state.pod.uid])
    return found


def _count_disk(state: PodState, paths: Paths, usage: Usage) -> None:
    pod = state.pod
    for volume in pod.spec.get("volumes") or ():
        if (source := volume.get("emptyDir")) is not None and (source or {}).get("medium") in (None, ""):
            name = volume["name"]
            usage.volumes[name] = _size(Path(state.volumes.get(name) or paths.volume(pod.uid, "empty-dir", name)))
    for container in (*pod.init_containers, *pod.containers):
        name = container["name"]
        usage.storage[name] = usage.storage.get(name, 0) + _size(paths.pod_logs(pod) / name)


def _size(folder: Path) -> int:
    """Blocks that the files below take, as du counts them."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
            except OSError:
                continue  # it has just gone
    return total
