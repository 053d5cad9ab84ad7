"""NFS shares, mounted by the host's own helper.

Units   Seconds.
Errors  VolumeError with what the helper said, or that there is none.
State   The mount. Nothing here looks into it: a server that is gone would hold up whoever does.
Source  core/v1 NFSVolumeSource; mount.nfs(8); kubelet: how the failure of a mount is told.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio

from edgesite.context import Threads
from edgesite.edge.edged.volumes import host
from edgesite.edge.edged.volumes.payload import VolumeError

__all__ = ["Share", "mount"]

HELPER: Final = "mount.nfs"
MOUNT_S: Final = 120.0
_PLACES: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Share:
    server: str
    path: str
    options: tuple[str, ...] = ()

    @classmethod
    def of(cls, source: Mapping[str, Any], options: Iterable[str], *, readonly: bool) -> Share:
        """Raises VolumeError."""
        server, path = str(source.get("server") or ""), str(source.get("path") or "")
        if (
            not server or server.startswith("-") or not path.startswith("/")
        ):  # the helper would take a dash for an option
            raise VolumeError("an nfs volume needs a server and an absolute path")
        more = ("ro",) if readonly or source.get("readOnly") else ()
        return cls(f"[{server}]" if ":" in server and not server.startswith("[") else server, path, (*options, *more))


async def mount(share: Share, target: Path, threads: Threads) -> None:
    """Mount a share unless it is there already. Raises VolumeError, OSError."""
    if await threads.run(host.is_in_mount_table, target):
        return
    places = os.pathsep.join(one for one in (os.environ.get("PATH", ""), _PLACES) if one)
    helper = shutil.which(HELPER, path=places)
    if helper is None:
        raise VolumeError(
            f"mount failed: this node has no {HELPER}, which nfs volumes need (package nfs-common or nfs-utils)"
        )
    await threads.run(_make_folder, target)
    command = [helper, f"{share.server}:{share.path}", str(target)]
    if share.options:
        command += ["-o", ",".join(share.options)]
    try:
        with anyio.fail_after(MOUNT_S):
            done = await anyio.run_process(command, check=False)
    except TimeoutError:
        raise VolumeError(
            f"mount failed: {HELPER} of {share.server}:{share.path} took longer than {MOUNT_S:g} s"
        ) from None
    if done.returncode:
        said = (done.stdout + done.stderr).decode(errors="replace").strip()[:1024]
        lines = (
            f"mount failed: exit status {done.returncode}",
            f"Mounting command: {HELPER}",
            f"Mounting arguments: {' '.join(command[1:])}",
            f"Output: {said}",
        )
        raise VolumeError("\n".join(lines))


def _make_folder(target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True, mode=0o750)
