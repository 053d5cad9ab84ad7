"""What the kubelet API needs of edged: `LogSource`, a service of the edge role that edged provides.

ctx.services.provide(LogSource, source)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edgesite.edge.edged.podusage import PodDetails
from edgesite.edge.edged.runtime import ContainerStats, FilesystemUsage
from edgesite.edge.edged.streams import StreamAddress, StreamOptions

__all__ = ["CommandResult", "ContainerLog", "ContainerUsage", "LogSource", "PodUsage", "ProbeCount", "api_address"]


def api_address(node_name: str) -> str:
    """Return the in-process address of a node's kubelet API."""
    return f"mem:kubelet/{node_name}"


@dataclass(frozen=True, slots=True)
class ContainerLog:
    """Where one attempt of a container writes its log, in CRI's format."""

    path: Path
    running: Callable[[], bool]  #: False once the container has ended: a follower then stops at the end of the file


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command in a container gave."""

    exit_code: int
    output: bytes  #: stdout, then stderr


@dataclass(frozen=True, slots=True)
class ContainerUsage:
    """A running container."""

    image: str
    started_ns: int
    stats: ContainerStats


@dataclass(frozen=True, slots=True)
class PodUsage:
    """A pod with running containers."""

    namespace: str
    name: str
    uid: str
    started: str  #: RFC 3339, "" while it is not known
    containers: Sequence[ContainerUsage]


@dataclass(frozen=True, slots=True)
class ProbeCount:
    """How often a probe of a container gave a result."""

    namespace: str
    pod: str
    uid: str
    container: str
    probe: str  #: Liveness, Readiness, Startup
    result: str  #: successful, failed, unknown
    count: int


class LogSource(Protocol):
    """Pods of this node, as edged sees them now."""

    async def container_log(self, namespace: str, pod: str, container: str, *, previous: bool = False) -> ContainerLog:
        """Find a log. Raises ApiError in kubelet's words: 404 for a pod or container that is not here, 400 for a container
        that is waiting to start, or that has no previous attempt."""
        ...

    def pods(self) -> list[dict[str, Any]]:
        """Every pod of this node with its status, for /pods."""
        ...

    def running_pods(self) -> list[dict[str, Any]]:
        """Pods that have running containers, reduced to metadata and containers, for /runningpods."""
        ...

    async def usage(self) -> list[PodUsage]:
        """What running pods use now. Raises ApiError."""
        ...

    async def details(self) -> dict[str, PodDetails]:
        """What running pods use of networks and disks, by uid."""
        ...

    async def image_disk(self) -> FilesystemUsage | None:
        """What images use of the disk. Raises ApiError."""
        ...

    def probe_counts(self) -> list[ProbeCount]:
        """Results of probes of the pods that are here."""
        ...

    async def run(self, namespace: str, pod: str, container: str, command: Sequence[str]) -> CommandResult:
        """Run a command to its end. Raises ApiError: 404 as above, 500 when the runtime fails."""
        ...

    async def exec(
        self, namespace: str, pod: str, container: str, command: Sequence[str], options: StreamOptions
    ) -> StreamAddress:
        """Prepare a command with streams. Raises ApiError: 404 as above, 500 when it does not run or the runtime fails."""
        ...

    async def attach(self, namespace: str, pod: str, container: str, options: StreamOptions) -> StreamAddress:
        """Prepare to join a container's own streams; whether it has a terminal is its own matter. Raises ApiError."""
        ...

    async def port_forward(self, namespace: str, pod: str, ports: Sequence[int]) -> StreamAddress:
        """Prepare connections to ports of a pod. Raises ApiError."""
        ...
