"""Ranges of user and group ids for pods with a user namespace of their own, each for one pod.

    <root>/pods/<uid>/userns      the range of a pod, as kubelet writes it

Errors  OSError; NoRange when all are taken.
State   On disk, with the pods: a range is free again once its pod's folder is gone.
Source  Kubernetes: "User Namespaces" (65536 ids a pod, none of the first 65536); kubelet's user namespace manager: the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio

from edgesite.edge.durable import replace_file
from edgesite.edge.edged.security import UserRange
from edgesite.kube import json

if TYPE_CHECKING:
    from edgesite.context import Threads
    from edgesite.edge.edged.paths import Paths
    from edgesite.edge.edged.pod import Pod

__all__ = ["NoRange", "UserRanges", "has_own_users"]

FILE: Final = "userns"
LENGTH: Final = 65536
MOST: Final = 65535  #: ids are numbers of 32 bits


def has_own_users(pod: Pod) -> bool:
    """Whether a pod asks not to have the host's users."""
    return pod.spec.get("hostUsers") is False


class NoRange(Exception):
    """Every range has a pod."""


class UserRanges:
    def __init__(self, paths: Paths, threads: Threads) -> None:
        self._paths, self._threads = paths, threads
        self._lock = anyio.Lock()

    async def give(self, uid: str) -> UserRange:
        """The range of a pod, now and after a restart the same. Raises NoRange, OSError."""
        async with self._lock:
            return await self._threads.run(self._give, uid)

    def _give(self, uid: str) -> UserRange:
        file = self._paths.pod(uid) / FILE
        if (found := _read(file)) is not None:
            return found
        taken = {one.first for path in self._paths.pods.glob(f"*/{FILE}") if (one := _read(path)) is not None}
        first = next((at for at in range(LENGTH, LENGTH * (MOST + 1), LENGTH) if at not in taken), None)
        if first is None:
            raise NoRange("all ranges of user ids are taken")
        mapping = [{"hostId": first, "containerId": 0, "length": LENGTH}]
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        replace_file(file, json.dumps({"uidMappings": mapping, "gidMappings": mapping}))
        return UserRange(first, LENGTH)


def _read(file: Path) -> UserRange | None:
    try:
        (mapping,) = json.loads(file.read_bytes())["uidMappings"]
        return UserRange(int(mapping["hostId"]), int(mapping["length"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
