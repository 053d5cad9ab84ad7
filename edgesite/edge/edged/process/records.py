"""What is kept on disk of sandboxes and containers that run as host processes. Blocking: call it in a thread.

    <root>/sandboxes/<id>.json                    SandboxConfig, created_ns, stopped, boot
    <root>/containers/<id>/config.json            ContainerConfig, sandbox, created_ns, cgroup
    <root>/containers/<id>/plan.json              for the supervisor; written before the start
    <root>/containers/<id>/state.json             by the supervisor
    <root>/containers/<id>/work                   the program's working directory unless it names another

Files are replaced as a whole. They are not synced: after a power cut no process runs either, and what is unreadable is forgotten.

Errors  OSError.
State   The files.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from edgesite.edge.edged.process.cgroups import Cgroup
from edgesite.edge.edged.runtime import ContainerConfig, ContainerState, SandboxConfig

__all__ = ["ContainerRecord", "ProgramState", "Records", "SandboxRecord"]


@dataclass(slots=True)
class SandboxRecord:
    id: str
    config: SandboxConfig
    created_ns: int
    boot: str  #: of the kernel; after a reboot nothing of a sandbox is left
    stopped: bool = False


@dataclass(slots=True)
class ProgramState:
    """What the supervisor says of a program; ``pid`` 0: never started."""

    pid: int = 0
    ticks: int = 0
    boot: str = ""
    started_ns: int = 0
    finished_ns: int = 0
    exit_code: int = 0
    reason: str = ""
    message: str = ""

    @property
    def container_state(self) -> ContainerState:
        if self.finished_ns:
            return ContainerState.EXITED
        return ContainerState.RUNNING if self.pid else ContainerState.CREATED


@dataclass(slots=True)
class ContainerRecord:
    id: str
    sandbox: str
    config: ContainerConfig
    created_ns: int
    log: str = ""  #: absolute path
    cgroup: Cgroup | None = None
    state: ProgramState = field(default_factory=ProgramState)  # kept in a file of its own


class Records:
    def __init__(self, root: Path) -> None:
        self.root = root
        self._sandboxes = root / "sandboxes"
        self._containers = root / "containers"

    def make_folders(self) -> None:
        for one in (self.root, self._sandboxes, self._containers):
            one.mkdir(mode=0o700, parents=True, exist_ok=True)

    def load(self) -> tuple[dict[str, SandboxRecord], dict[str, ContainerRecord]]:
        """Read everything; what cannot be read was cut off while it was made, and goes."""
        sandboxes: dict[str, SandboxRecord] = {}
        containers: dict[str, ContainerRecord] = {}
        for path in self._sandboxes.glob("*.json"):
            if (sandbox := _read(path, SandboxRecord)) is not None:
                sandboxes[sandbox.id] = sandbox
            else:
                path.unlink(missing_ok=True)
        for directory in self._containers.iterdir():
            container = _read(directory / "config.json", ContainerRecord)
            if container is None:
                shutil.rmtree(directory, ignore_errors=True)
                continue
            container.state = self.read_state(container.id)
            containers[container.id] = container
        return sandboxes, containers

    def save_sandbox(self, sandbox: SandboxRecord) -> None:
        _write(self._sandboxes / f"{sandbox.id}.json", sandbox)

    def remove_sandbox(self, sandbox_id: str) -> None:
        (self._sandboxes / f"{sandbox_id}.json").unlink(missing_ok=True)

    def directory(self, container_id: str) -> Path:
        return self._containers / container_id

    def save_container(self, container: ContainerRecord) -> None:
        """Make a container's directory, with all that its plan needs beside."""
        directory = self.directory(container.id)
        directory.mkdir(mode=0o711, exist_ok=True)
        work = directory / "work"
        work.mkdir(mode=0o755, exist_ok=True)
        security = container.config.security
        if security.user is not None and os.getuid() == 0:
            os.chown(work, security.user, -1 if security.group is None else security.group)
        _write(directory / "config.json", container)

    def save_plan(self, container_id: str, plan: dict[str, Any]) -> None:
        _write(self.directory(container_id) / "plan.json", plan)

    def read_state(self, container_id: str) -> ProgramState:
        """What the supervisor wrote last; nothing counts as never started."""
        return _read(self.directory(container_id) / "state.json", ProgramState) or ProgramState()

    def remove_container(self, container_id: str) -> None:
        shutil.rmtree(self.directory(container_id), ignore_errors=True)


def _write(path: Path, value: Any) -> None:
    new = path.with_name(path.name + ".new")
    new.write_bytes(msgspec.json.encode(value))
    os.chmod(new, 0o600)
    os.replace(new, path)


def _read(path: Path, kind: type[Any]) -> Any:
    with contextlib.suppress(OSError, msgspec.ValidationError, msgspec.DecodeError):
        return msgspec.json.decode(path.read_bytes(), type=kind)
    return None
