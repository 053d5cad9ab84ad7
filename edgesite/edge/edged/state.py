"""What edged knows of one pod: the wanted version, and what the runtime showed last.

State   In memory only. Everything here is found again after a restart, from the runtime and from the stored pod.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import anyio

from edgesite.edge.edged.pod import FINAL_PHASES, Pod
from edgesite.edge.edged.runtime import ContainerState, ContainerStatus, SandboxConfig, SandboxInfo, SandboxState

__all__ = ["PodState", "Rejection", "ResizeTrouble", "Seen", "StageWait", "Termination", "Unhealthy", "Waiting"]


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a container does not run, in kubelet's words."""

    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why this node does not take the pod; it fails for good."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Termination:
    """Why this node ended a pod before its time; it has failed."""

    reason: str
    message: str
    disruption: bool = False  #: the node's doing, not the pod's: told by the condition DisruptionTarget


@dataclass(frozen=True, slots=True)
class Unhealthy:
    """A container that is to be restarted."""

    why: str
    grace_s: float | None = None  #: the probe's own, in place of the pod's


@dataclass(frozen=True, slots=True)
class ResizeTrouble:
    """Why a change of resources has not been made: a condition of the pod."""

    condition: str  #: PodResizePending or PodResizeInProgress
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Seen:
    """One container as the runtime showed it, in the sandbox that it belongs to."""

    status: ContainerStatus
    sandbox_id: str


class StageWait(Exception):
    """A stage cannot go on now. The pod is looked at again when something changes, or after ``retry_s``."""

    def __init__(self, why: str, retry_s: float | None = None) -> None:
        super().__init__(why)
        self.retry_s = retry_s


@dataclass(slots=True)
class PodState:
    """Changed by the pod's worker alone."""

    pod: Pod
    seen_at: float = 0.0  #: monotonic: when this node heard of the pod
    sandboxes: list[SandboxInfo] = field(default_factory=list)  #: newest first
    containers: dict[str, Seen] = field(default_factory=dict)  #: by id
    made: set[str] = field(
        default_factory=set
    )  #: ids made since the last reading: some may have ended before they were seen
    unsure: bool = False  #: A call that makes something failed: the runtime may have made it all the same.
    waiting: dict[str, Waiting] = field(default_factory=dict)  #: by container name
    ips: tuple[str, ...] = ()
    sandbox_config: SandboxConfig | None = None  #: of the sandbox that is ready
    admitted: bool = False
    rejection: Rejection | None = None
    termination: Termination | None = None
    mirror_uid: str = ""  #: of a static pod's mirror, once there is one
    volumes: dict[str, str] = field(default_factory=dict)  #: host path by name of a volume
    sole_claims: set[str] = field(default_factory=set)  #: claims that only one pod may use, and that this one has
    recursive_read_only: bool = False  #: whether mounts are read-only to the bottom where that is wanted if possible
    ready: dict[str, bool] = field(default_factory=dict)  #: answers of readiness probes, by container id
    started: dict[str, bool] = field(default_factory=dict)  #: answers of startup probes, by container id
    unhealthy: dict[str, Unhealthy] = field(default_factory=dict)  #: containers to be restarted, by id
    messages: dict[str, str] = field(default_factory=dict)  #: termination messages by container id
    actual: dict[str, dict[str, Any]] = field(default_factory=dict)  #: CPU and memory of running containers, by id
    resize: ResizeTrouble | None = None
    probed: Counter[tuple[str, str, str]] = field(default_factory=Counter)  #: results by container, probe and result
    start_time: str = ""
    ending: anyio.Event = field(default_factory=anyio.Event)  #: set once nothing of the pod is to be started any more
    given_back: bool = False  #: It has ended, and has no volumes any more.
    released: bool = False  #: It has ended, and the cloud was told: all that may still be here is its sandbox.
    reported: dict[str, Any] = field(default_factory=dict)  #: the status as last sent

    @property
    def sandbox(self) -> SandboxInfo | None:
        """The newest sandbox if it is ready."""
        newest = self.sandboxes[0] if self.sandboxes else None
        return newest if newest is not None and newest.state is SandboxState.READY else None

    @property
    def finished(self) -> bool:
        """Whether the pod has come to its end and starts nothing any more."""
        return self.rejection is not None or self.reported.get("phase") in FINAL_PHASES

    def all_of(self, name: str) -> list[ContainerStatus]:
        """Every container that the runtime has under this name, the last started first."""
        found = [one.status for one in self.containers.values() if one.status.name == name]
        return sorted(found, key=lambda one: (one.attempt, one.created_ns), reverse=True)

    def latest(self, name: str) -> ContainerStatus | None:
        return next(iter(self.all_of(name)), None)

    def current(self, name: str) -> ContainerStatus | None:
        """The latest container of this name in the sandbox that is ready."""
        sandbox = self.sandbox
        if sandbox is None:
            return None
        return next((one for one in self.all_of(name) if self.containers[one.id].sandbox_id == sandbox.id), None)

    def running(self) -> Iterator[ContainerStatus]:
        for one in self.containers.values():
            if one.status.state in (ContainerState.RUNNING, ContainerState.UNKNOWN):
                yield one.status

    def reported_restarts(self, name: str) -> int:
        """Restarts of a container as the pod's status last told, for when the runtime has forgotten them; -1 if none told."""
        for status in (self.reported, self.pod.status):
            for member in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
                for one in status.get(member) or ():
                    if one.get("name") == name and (
                        one.get("containerID") or one.get("lastState", {}).get("terminated")
                    ):
                        return int(one.get("restartCount") or 0)
        return -1
