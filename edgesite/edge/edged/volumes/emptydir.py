"""emptyDir volumes: on disk, in memory, in huge pages.

Units   Bytes.
Errors  VolumeError, OSError.
Source  core/v1 EmptyDirVolumeSource; kubelet: a volume in memory is no larger than its limit, the pod's memory, the node's; the page
        size of HugePages is that of the pod's requests, which must be of one size.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from edgesite.edge.edged.pod import Pod, amount_nano
from edgesite.edge.edged.volumes import host
from edgesite.edge.edged.volumes.payload import VolumeError
from edgesite.kube.quantity import InvalidQuantity, parse

__all__ = ["make", "medium", "size_limit"]

PAGES: Final = "hugepages-"
_NANO: Final = 10**9


def medium(pod: Pod, source: Mapping[str, Any]) -> str:
    """Return "", "Memory", or "HugePages-SIZE" with the size that is meant. Raises VolumeError."""
    wanted = str(source.get("medium") or "")
    if not wanted.startswith("HugePages"):
        return wanted
    sizes = sorted({one.removeprefix(PAGES) for one in _requested(pod) if one.startswith(PAGES)})
    if wanted == "HugePages":
        if len(sizes) != 1:
            said = f"there are {', '.join(sizes)}" if sizes else "there are none"
            raise VolumeError(f"medium HugePages wants huge pages of one size to be requested by the pod: {said}")
        return f"HugePages-{sizes[0]}"
    if wanted.removeprefix("HugePages-") not in sizes:
        raise VolumeError(f"medium {wanted} is not requested by the pod")
    return wanted


def _requested(pod: Pod) -> set[str]:
    found: set[str] = set()
    for one in (*pod.containers, *pod.init_containers):
        resources = one.get("resources") or {}
        found |= set(resources.get("requests") or {}) | set(resources.get("limits") or {})
    return found


def size_limit(pod: Pod, source: Mapping[str, Any], allocatable_nano: Mapping[str, int]) -> int:
    """Return how large the volume may become; 0: no limit is known. What lies on disk is not held to it, but evicted."""
    kind = str(source.get("medium") or "")
    if not kind:
        return 0
    try:
        said = parse(str(source.get("sizeLimit") or "0")).value()
    except InvalidQuantity:
        said = 0
    if kind != "Memory":
        return said
    limits = [amount_nano(one, "limits", "memory") for one in pod.containers]
    of_pod = sum(limits) // _NANO if limits and all(limits) else 0
    of_node = allocatable_nano.get("memory", 0) // _NANO
    return min((one for one in (said, of_pod, of_node) if one), default=0)


def make(target: Path, kind: str, size_bytes: int, group: int | None) -> None:
    """Make the folder, or mount it. Raises VolumeError, OSError."""
    mode = 0o777
    if kind == "Memory":
        if host.mount_memory(target, size_bytes):
            mode = 0o1777  # as the kernel makes it, and as kubelet leaves it
    elif kind.startswith("HugePages-"):
        try:
            page = parse(kind.removeprefix("HugePages-")).value()
        except InvalidQuantity as exc:
            raise VolumeError(f"medium {kind} names no page size") from exc
        host.mount_huge_pages(target, page, size_bytes)
    target.mkdir(parents=True, exist_ok=True)
    target.chmod(mode)
    if group is not None:
        host.give_to_group(target, group)
