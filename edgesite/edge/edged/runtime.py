"""What edged asks of a container runtime: sandboxes, containers, images, exec and stats, shaped as CRI v1.

``cri/`` (gRPC), ``process/`` (host processes) and `edgesite.testing.fakeruntime` pass `edgesite.testing.runtime.RuntimeContract`. A sandbox
is what the containers of a pod share (network, cgroup, log directory); its containers are started and stopped one by one.

Units   Times from a runtime are nanoseconds since the epoch (``*_ns``, 0: never); durations are seconds (``*_s``); sizes ``*_bytes``.
Errors  Every call raises a RuntimeFault and nothing else (cancellation aside):
            RuntimeFault
             ├── RuntimeUnavailable   the runtime does not answer: try again later
             ├── NotInRuntime         no such sandbox, container or image
             ├── RuntimeUnsupported   this runtime lacks the call
             ├── InvalidReference     the text cannot be the name of an image
             └── DeadlineReached      the call took longer than the runtime was given; what it does may still happen

State   A runtime keeps containers over a restart of edgesite: what is listed after one is adopted, never started anew. They are
        recognised by labels and annotations, so a runtime must give these back as it got them.
Source  Names and meaning: k8s.io/cri-api runtime/v1; label and annotation keys: kubelet's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Protocol

from edgesite.edge.edged.faults import (
    DeadlineReached,
    InvalidReference,
    NotInRuntime,
    RuntimeFault,
    RuntimeUnavailable,
    RuntimeUnsupported,
)
from edgesite.edge.edged.security import (
    ORDINARY,
    Capabilities,
    ContainerSecurity,
    NamespaceMode,
    Namespaces,
    SeccompProfile,
)
from edgesite.edge.edged.streams import Streams

__all__ = [
    "ANNOTATION_HASH",
    "ANNOTATION_RESTARTS",
    "ANNOTATION_TERMINATION_PATH",
    "ANNOTATION_TERMINATION_POLICY",
    "LABEL_CONTAINER",
    "LABEL_POD_NAME",
    "LABEL_POD_NAMESPACE",
    "LABEL_POD_UID",
    "Capabilities",
    "ContainerConfig",
    "ContainerEvent",
    "ContainerEventType",
    "ContainerInfo",
    "ContainerSecurity",
    "ContainerState",
    "ContainerStats",
    "ContainerStatus",
    "DeadlineReached",
    "Device",
    "DnsConfig",
    "ExecResult",
    "FilesystemUsage",
    "HostMount",
    "Image",
    "InvalidReference",
    "Isolation",
    "LinuxResources",
    "Mount",
    "NamespaceMode",
    "Namespaces",
    "NotInRuntime",
    "PortMapping",
    "Propagation",
    "PullProgress",
    "RegistryAuth",
    "Runtime",
    "RuntimeCondition",
    "RuntimeFault",
    "RuntimeUnavailable",
    "RuntimeUnsupported",
    "RuntimeVersion",
    "SandboxConfig",
    "SandboxInfo",
    "SandboxState",
    "SandboxStatus",
    "SeccompProfile",
]

LABEL_POD_NAME: Final = "io.kubernetes.pod.name"
LABEL_POD_NAMESPACE: Final = "io.kubernetes.pod.namespace"
LABEL_POD_UID: Final = "io.kubernetes.pod.uid"
LABEL_CONTAINER: Final = "io.kubernetes.container.name"
ANNOTATION_HASH: Final = (
    "io.kubernetes.container.hash"  #: of the container's spec: a running one with another hash is replaced
)
ANNOTATION_RESTARTS: Final = "io.kubernetes.container.restartCount"
ANNOTATION_TERMINATION_PATH: Final = "io.kubernetes.container.terminationMessagePath"
ANNOTATION_TERMINATION_POLICY: Final = "io.kubernetes.container.terminationMessagePolicy"


class Isolation(Enum):
    """What stands between a container and the host."""

    CONTAINER = "container"
    NONE = "none"  #: host processes: everything that the user of edgesite may do, a pod may do


class SandboxState(Enum):
    READY = "ready"
    NOT_READY = "notready"


class ContainerState(Enum):
    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"
    UNKNOWN = "unknown"


class Propagation(Enum):
    PRIVATE = "private"
    HOST_TO_CONTAINER = "host-to-container"
    BIDIRECTIONAL = "bidirectional"


class ContainerEventType(Enum):
    CREATED = "created"
    STARTED = "started"
    STOPPED = "stopped"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class LinuxResources:
    """Limits of a container; 0 leaves the default."""

    cpu_period_us: int = 0
    cpu_quota_us: int = 0
    cpu_shares: int = 0
    memory_bytes: int = 0
    oom_score_adj: int = 0
    memory_swap_bytes: int = 0  #: memory and swap together, under cgroup version 1
    unified: Mapping[str, str] = field(default_factory=dict)  #: files of cgroup version 2
    huge_pages: Mapping[str, int] = field(default_factory=dict)  #: bytes by page size ("2Mi")


@dataclass(frozen=True, slots=True)
class DnsConfig:
    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PortMapping:
    container_port: int
    host_port: int  #: 0: not mapped
    protocol: str = "TCP"
    host_ip: str = ""


@dataclass(frozen=True, slots=True)
class SandboxConfig:
    """What the containers of one pod share. ``attempt`` counts the sandboxes that this pod has had."""

    name: str
    namespace: str
    uid: str
    attempt: int = 0
    hostname: str = ""
    log_directory: str = ""  #: absolute; exists before the sandbox is made
    dns: DnsConfig | None = None  #: None leaves the host's
    ports: tuple[PortMapping, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    cgroup_parent: str = ""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    security: ContainerSecurity = ORDINARY
    runtime_handler: str = ""


@dataclass(frozen=True, slots=True)
class SandboxInfo:
    """One row of a list of sandboxes."""

    id: str
    name: str
    namespace: str
    uid: str
    attempt: int
    state: SandboxState
    created_ns: int
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SandboxStatus(SandboxInfo):
    ips: tuple[str, ...] = ()  #: the first is the pod's IP; none for a sandbox in the host's network
    host_network: bool = False


@dataclass(frozen=True, slots=True)
class Mount:
    container_path: str
    host_path: str
    readonly: bool = False
    propagation: Propagation = Propagation.PRIVATE
    image: str = ""  #: id of an image whose files are mounted, in place of ``host_path``
    image_sub_path: str = ""


@dataclass(frozen=True, slots=True)
class HostMount:
    """One mount of the host as runtimes describe them: type, source, and options as mount(8) names them."""

    kind: str
    source: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Device:
    container_path: str
    host_path: str
    permissions: str = "mrw"


@dataclass(frozen=True, slots=True)
class ContainerConfig:
    """One container to make. ``command`` and ``args`` empty leave the image's own entry point and arguments."""

    name: str
    image: str  #: what `Runtime.image_status` or `pull_image` gave as id, else the reference
    attempt: int = 0  #: how often this container has been started in this pod before
    user_image: str = ""  #: the reference as the pod has it
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    envs: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    devices: tuple[Device, ...] = ()
    cdi_devices: tuple[str, ...] = ()  #: full names of the Container Device Interface
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    log_path: str = ""  #: below the sandbox's log directory; lines are written in the CRI log format
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    resources: LinuxResources = LinuxResources()
    security: ContainerSecurity = ORDINARY
    stop_signal: str = ""  #: "SIGUSR1"; empty: the image's, else SIGTERM


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """One row of a list of containers."""

    id: str
    sandbox_id: str
    name: str
    attempt: int
    state: ContainerState
    created_ns: int
    image: str
    image_ref: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ContainerStatus:
    id: str
    name: str
    attempt: int
    state: ContainerState
    created_ns: int
    started_ns: int
    finished_ns: int
    exit_code: int
    image: str  #: the reference that it was made from
    image_ref: str  #: its digest or id, as ``imageID`` of a pod's status wants it
    reason: str  #: "OOMKilled", "Completed", "Error", ""
    message: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    mounts: tuple[Mount, ...] = ()
    log_path: str = ""  #: absolute


@dataclass(frozen=True, slots=True)
class ContainerEvent:
    """Something happened to a container; the receiver looks at its pod anew, whatever the event says."""

    container_id: str
    type: ContainerEventType
    pod_uid: str


@dataclass(frozen=True, slots=True)
class ExecResult:
    stdout: bytes
    stderr: bytes
    exit_code: int


@dataclass(frozen=True, slots=True)
class Image:
    id: str
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    size_bytes: int
    user: int | None = None  #: whom its processes run as unless told otherwise
    username: str = ""
    pinned: bool = False  #: never to be removed


@dataclass(frozen=True, slots=True)
class RegistryAuth:
    username: str = ""
    password: str = field(default="", repr=False)
    server: str = ""
    identity_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class FilesystemUsage:
    mountpoint: str
    used_bytes: int
    inodes: int
    at_ns: int


@dataclass(frozen=True, slots=True)
class ContainerStats:
    """Use of one container; counters run since its start."""

    id: str
    name: str
    labels: Mapping[str, str]
    at_ns: int
    cpu_ns: int  #: core nanoseconds used
    memory_working_set_bytes: int
    memory_usage_bytes: int = 0
    memory_rss_bytes: int = 0
    writable_layer: FilesystemUsage | None = None


@dataclass(frozen=True, slots=True)
class RuntimeVersion:
    name: str  #: "containerd"
    version: str
    api_version: str = "v1"
    cgroup_driver: str = ""  #: cgroupfs or systemd; "" where it does not tell


@dataclass(frozen=True, slots=True)
class RuntimeCondition:
    """RuntimeReady and NetworkReady are what edged looks at."""

    type: str
    status: bool
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class PullProgress:
    """Of layers that are under way, not of those that are here as a whole or have not begun."""

    here_bytes: int
    total_bytes: int  #: 0 while it is not known


class Runtime(Streams, Protocol):
    """Runs containers. Calls may come at the same time, also for one sandbox. Each must be safe to repeat: to stop or remove
    what is stopped or gone succeeds.

    Made by a `edgesite.hookspecs.RuntimeFactory` without side effects; everything happens between the start and the end of `run`.
    """

    isolation: Isolation

    async def run(self, started: Callable[[], None]) -> None:
        """Do the background work; edged keeps it in its task group. Call ``started`` as soon as calls can be made: soon, and
        also when the runtime does not answer yet (its calls then raise RuntimeUnavailable until it does).

        Ends by cancellation, and leaves containers as they are.
        """
        ...

    async def version(self) -> RuntimeVersion: ...

    async def status(self) -> Sequence[RuntimeCondition]: ...

    async def user_namespaces(self, handler: str) -> bool:
        """Whether pods run by that handler ("" for the default one) may have users of their own."""
        ...

    async def run_sandbox(self, config: SandboxConfig) -> str:
        """Make and start a sandbox; return its id."""
        ...

    async def stop_sandbox(self, sandbox_id: str) -> None:
        """Kill what still runs in it and release its network. It stays listed, not ready."""
        ...

    async def remove_sandbox(self, sandbox_id: str) -> None:
        """Forget it and its containers."""
        ...

    async def sandbox_status(self, sandbox_id: str) -> SandboxStatus:
        """Raises NotInRuntime."""
        ...

    async def list_sandboxes(self, labels: Mapping[str, str] | None = None) -> Sequence[SandboxInfo]:
        """Sandboxes in any state that carry all of ``labels``."""
        ...

    async def create_container(self, sandbox_id: str, config: ContainerConfig, sandbox: SandboxConfig) -> str:
        """Make a container, not started, and return its id. Raises NotInRuntime for the sandbox or the image.

        ``sandbox`` is what the sandbox was made from.
        """
        ...

    async def start_container(self, container_id: str) -> None:
        """Raises NotInRuntime; RuntimeFault when its program cannot be run: the container is then EXITED."""
        ...

    async def stop_container(self, container_id: str, grace_s: float) -> None:
        """Send its stop signal, and SIGKILL after ``grace_s``; return when it has ended. 0 kills at once."""
        ...

    async def remove_container(self, container_id: str) -> None:
        """Forget a container, killing it if it still runs. Its log stays."""
        ...

    async def list_containers(
        self, sandbox_id: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Sequence[ContainerInfo]:
        """Containers in any state."""
        ...

    async def container_status(self, container_id: str) -> ContainerStatus:
        """Raises NotInRuntime."""
        ...

    async def update_resources(self, container_id: str, resources: LinuxResources) -> None:
        """Change the limits of a running container. Raises NotInRuntime."""
        ...

    async def reopen_log(self, container_id: str) -> None:
        """Begin a new log file at the container's log path: the old one was moved away."""
        ...

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_s: float) -> ExecResult:
        """Run a command in a running container to its end. Raises NotInRuntime, DeadlineReached (the command is killed)."""
        ...

    async def container_stats(self, labels: Mapping[str, str] | None = None) -> Sequence[ContainerStats]:
        """Use of the running containers that carry all of ``labels``."""
        ...

    async def list_images(self) -> Sequence[Image]: ...

    async def image_status(self, reference: str) -> Image | None:
        """What ``reference`` (name, digest or id) means here, or None. Raises InvalidReference."""
        ...

    async def pull_image(self, reference: str, auth: RegistryAuth | None = None) -> str:
        """Fetch an image and return its id. Raises InvalidReference, NotInRuntime where no registry has it."""
        ...

    async def pull_progress(self) -> PullProgress | None:
        """How far all pulls together are; None where the runtime does not tell. One of a plugin may lack this."""
        ...

    async def remove_image(self, reference: str) -> None: ...

    async def image_mounts(self, image_id: str, key: str) -> Sequence[HostMount]:
        """Return how the files of an image are mounted on the host, read-only; what is held for that is held under ``key``, and found
        again under it. Nothing is returned by a runtime that mounts images itself (`Mount.image`). Raises RuntimeUnsupported."""
        ...

    async def forget_image_mounts(self, key: str) -> None:
        """Let go of what is held under a key; nothing may be mounted any more. Raises NotInRuntime."""
        ...

    async def image_filesystems(self) -> Sequence[FilesystemUsage]: ...

    def events(self) -> AsyncIterator[ContainerEvent]:
        """What happens to containers from now on, until the connection is lost (RuntimeUnavailable). Iterating raises
        RuntimeUnsupported where the runtime has no events: edged then lists."""
        ...
