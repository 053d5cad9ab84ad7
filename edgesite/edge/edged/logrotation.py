"""Keeps containers' logs small: moves one away that has grown too large, packs the older ones, removes the oldest.

    0.log   0.log.20260102-150405   0.log.20260102-145500.gz

The runtime is asked to begin a new file; the last that was moved away stays unpacked, because a reader may still be in it.

Units   Bytes, seconds.
Errors  None leave `run`: a log that cannot be rotated is tried again at the next look.
State   In the files' names.
Source  kubelet: containerLogMaxSize, containerLogMaxFiles (which counts the file being written), names of rotated files.
"""

from __future__ import annotations

import gzip
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from edgesite.context import Clock, Threads
from edgesite.edge.edged.runtime import ContainerState, Runtime, RuntimeFault
from edgesite.edge.edged.state import PodState

__all__ = ["LogRotation", "log_files", "move_away", "tidy"]

LOOK_S: Final = 10.0
PACKED: Final = ".gz"
_UNFINISHED: Final = ".tmp"


class LogRotation:
    def __init__(
        self,
        runtime: Runtime,
        clock: Clock,
        threads: Threads,
        log: logging.Logger | logging.LoggerAdapter[logging.Logger],
        pods: Callable[[], Iterable[PodState]],
        *,
        max_bytes: int,
        max_files: int,
    ) -> None:
        """``max_bytes`` below 0 lets logs grow."""
        self._runtime, self._clock, self._threads, self._log, self._pods = runtime, clock, threads, log, pods
        self.max_bytes, self.max_files = max_bytes, max_files

    async def run(self) -> None:
        """Look at the logs of running containers again and again until cancelled."""
        while True:
            await self._clock.sleep(LOOK_S)
            if self.max_bytes >= 0:
                await self.look()

    async def look(self) -> None:
        """Rotate what is too large now."""
        running = {
            one.log_path: one.id
            for state in self._pods()
            for one in state.running()
            if one.log_path and one.state is ContainerState.RUNNING
        }
        for path in await self._threads.run(_too_large, list(running), self.max_bytes):
            try:
                await self._rotate(Path(path), running[path])
            except (OSError, RuntimeFault) as exc:
                self._log.warning("log=%s cannot be rotated now: %s", path, exc)

    async def _rotate(self, path: Path, container_id: str) -> None:
        await self._threads.run(tidy, path, self.max_files)
        moved = await self._threads.run(move_away, path, self._clock.time())
        try:
            await self._runtime.reopen_log(container_id)
        except RuntimeFault:
            await self._threads.run(os.replace, moved, path)  # it goes on in the old file
            raise


def log_files(path: Path) -> list[Path]:
    """Return the log at ``path`` and what was moved away from it, the oldest first. Blocking."""
    return [*_moved(path), *([path] if path.exists() else [])]


def tidy(path: Path, max_files: int) -> None:
    """Remove the oldest files and pack the others, so that one more may come. Blocking. Raises OSError."""
    for left in path.parent.glob(f"{path.name}.*{_UNFINISHED}"):
        left.unlink(missing_ok=True)
    moved = _moved(path)
    surplus = max(len(moved) - max(max_files - 2, 0), 0)
    for old in moved[:surplus]:
        old.unlink(missing_ok=True)
    for one in moved[surplus:]:
        if one.suffix != PACKED:
            _pack(one)


def move_away(path: Path, now: float) -> Path:
    """Give the log its second name and return that. Blocking. Raises OSError."""
    second = now
    while True:
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(second))
        target = path.with_name(f"{path.name}.{stamp}")
        if not target.exists() and not target.with_name(target.name + PACKED).exists():
            os.rename(path, target)
            return target
        second += 1  # a clock that was set back, or two in one second


def _moved(path: Path) -> list[Path]:
    found = [one for one in path.parent.glob(f"{path.name}.*") if one.suffix != _UNFINISHED]
    return sorted(found, key=lambda one: one.name.removesuffix(PACKED))


def _pack(path: Path) -> None:
    unfinished = path.with_name(path.name + _UNFINISHED)
    with path.open("rb") as plain, gzip.open(unfinished, "wb", compresslevel=6) as packed:
        shutil.copyfileobj(plain, packed, 256 * 1024)
    os.replace(unfinished, path.with_name(path.name + PACKED))
    path.unlink()


def _too_large(paths: Iterable[str], max_bytes: int) -> list[str]:
    found = []
    for path in paths:
        try:
            if os.stat(path).st_size > max_bytes:
                found.append(path)
        except OSError:
            continue  # not written yet, or just removed
    return found
