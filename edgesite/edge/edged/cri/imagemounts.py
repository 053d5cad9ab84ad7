"""The files of an image, mounted at a folder of the host by containerd's own snapshots.

Its CRI plugin mounts images into containers since version 2.1 only; its snapshots have always been there. A view of the image's layers
is made under a key of ours, marked so that containerd's garbage collection leaves it alone, and mounted as containerd says.

Errors  RuntimeFault, OSError.
State   The snapshot in containerd, until it is removed, and the mount.
Source  containerd: services.snapshots.v1, label containerd.io/gc.root, verbose answers of its CRI plugin (chainID, snapshotter).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from edgesite.edge.edged.faults import RuntimeFault
from edgesite.edge.edged.runtime import HostMount
from edgesite.kube import json
from edgesite.kube.protowire import Messages

__all__ = ["SNAPSHOTS", "mounts_of_image", "remove_view"]

_SERVICE: Final = "/containerd.services.snapshots.v1.Snapshots/"
_DEFAULT: Final = "overlayfs"
SNAPSHOTS: Final = Messages(
    """
ViewSnapshotRequest: snapshotter string = 1; key string = 2; parent string = 3; labels map<string, string> = 4
MountsRequest: snapshotter string = 1; key string = 2
RemoveSnapshotRequest: snapshotter string = 1; key string = 2
MountsResponse: mounts repeated Mount = 1
Mount: type string = 1; source string = 2; target string = 3; options repeated string = 4
Empty: (empty)
"""
)
#: Calls containerd's own service: path, request, answer, body.
Call = Callable[[str, str, str, dict[str, Any]], Awaitable[dict[str, Any]]]


async def mounts_of_image(call: Call, image: dict[str, Any], status: dict[str, Any], key: str) -> list[HostMount]:
    """Make a view of an image under ``key``, or find it, and return how it is mounted.

    ``image`` and ``status`` are verbose answers of the CRI plugin. Raises RuntimeFault.
    """
    chain = _info(image, "info").get("chainID", "")
    if not chain:
        raise RuntimeFault("the runtime does not tell of what layers the image is made")
    names = {"snapshotter": snapshotter_of(status), "key": key}
    labels = {"containerd.io/gc.root": "edgesite"}
    try:
        answer = await call(
            f"{_SERVICE}View", "ViewSnapshotRequest", "MountsResponse", {**names, "parent": chain, "labels": labels}
        )
    except RuntimeFault as exc:
        if "already exists" not in str(exc):
            raise
        answer = await call(f"{_SERVICE}Mounts", "MountsRequest", "MountsResponse", names)
    return [
        HostMount(one.get("type", ""), one.get("source", ""), tuple(one.get("options", ())))
        for one in answer.get("mounts", ())
    ]


async def remove_view(call: Call, status: dict[str, Any], key: str) -> None:
    """Raises RuntimeFault; NotInRuntime where there is none."""
    names = {"snapshotter": snapshotter_of(status), "key": key}
    await call(f"{_SERVICE}Remove", "RemoveSnapshotRequest", "Empty", names)


def snapshotter_of(status: dict[str, Any]) -> str:
    containerd = _info(status, "config").get("containerd")
    found = containerd.get("snapshotter") if isinstance(containerd, dict) else ""
    return str(found or _DEFAULT)


def _info(answer: dict[str, Any], name: str) -> dict[str, Any]:
    try:
        found = json.loads((answer.get("info") or {}).get(name, "{}").encode())
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
