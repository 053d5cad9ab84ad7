"""What a container may and may not do: the namespaces that it shares, its user, capabilities, and the profiles that hold it.

Part of what edged asks of a runtime (`edgesite.edge.edged.runtime`).

Source  Names and meaning: k8s.io/cri-api runtime/v1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

__all__ = [
    "ORDINARY",
    "Capabilities",
    "ContainerSecurity",
    "NamespaceMode",
    "Namespaces",
    "SeccompProfile",
    "UserRange",
]


class NamespaceMode(Enum):
    """Whose namespace a container lives in."""

    POD = "pod"
    CONTAINER = "container"
    NODE = "node"
    TARGET = "target"  #: that of the container `Namespaces.target`


@dataclass(frozen=True, slots=True)
class UserRange:
    """Ids of the host that stand for the first ``length`` ids inside."""

    first: int
    length: int


@dataclass(frozen=True, slots=True)
class Namespaces:
    network: NamespaceMode = NamespaceMode.POD
    pid: NamespaceMode = NamespaceMode.CONTAINER
    ipc: NamespaceMode = NamespaceMode.POD
    target: str = ""  #: container id, where a mode is TARGET
    users: UserRange | None = None  #: of a user namespace of the pod's own; None: the host's users


@dataclass(frozen=True, slots=True)
class SeccompProfile:
    type: str  #: RuntimeDefault, Unconfined or Localhost
    path: str = ""  #: of a Localhost profile


@dataclass(frozen=True, slots=True)
class Capabilities:
    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ContainerSecurity:
    """Who a container runs as and what it may do. None leaves the image's own choice."""

    user: int | None = None
    group: int | None = None
    username: str = ""  #: the image's user, where it has a name instead of a number
    groups: tuple[int, ...] = ()  #: supplementary
    privileged: bool = False
    readonly_rootfs: bool = False
    no_new_privileges: bool = False
    capabilities: Capabilities = Capabilities()
    namespaces: Namespaces = Namespaces()
    seccomp: SeccompProfile | None = None
    apparmor: SeccompProfile | None = None  #: ``path`` is the profile's name; None leaves the runtime's default
    selinux: Mapping[str, str] = field(default_factory=dict)  #: user, role, type, level
    strict_groups: bool = False  #: no groups but those named here, whatever the image's /etc/group says
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()


ORDINARY: Final = ContainerSecurity()
