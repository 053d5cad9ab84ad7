"""From a container's configuration to the plan that the supervisor starts it by. Pure.

What a host process cannot have is refused here, in words fit for the pod's status, rather than left out in silence.

Errors  RuntimeFault.
Source  Environment and defaults as container runtimes give them; capability numbers of linux/capability.h.
"""

from __future__ import annotations

import resource
import signal
from collections.abc import Mapping, Sequence
from typing import Any, Final

from edgesite.edge.edged.process.cgroups import Cgroup
from edgesite.edge.edged.process.procfs import MARK
from edgesite.edge.edged.runtime import ContainerConfig, Mount, Propagation, RuntimeFault, SandboxConfig

__all__ = ["Host", "check", "plan"]

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MOUNTS: Final = "EDGESITE_MOUNTS"  #: "target=source" of mounts that this host could not make, parted by newlines.
_OPTIONAL: Final = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/termination-log")
_SERVICE_ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
_CAPABILITIES: Final = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
]


class Host:
    """What this process may do: its identity, and how it may make mounts ("root", "user", "")."""

    def __init__(self, uid: int, gid: int, mounting: str) -> None:
        self.uid = uid
        self.gid = gid
        self.mounting = mounting

    @property
    def is_root(self) -> bool:
        return self.uid == 0


def check(config: ContainerConfig, host: Host) -> None:
    """Raise RuntimeFault if the container cannot run as a host process."""
    if not config.command:
        raise RuntimeFault(
            "no command specified: the process runtime has no images to take one from, so the container needs a command"
        )
    security = config.security
    if not host.is_root and security.user not in (None, host.uid):
        raise RuntimeFault(f"cannot run as user {security.user}: edgesite itself runs as user {host.uid}")
    if not host.is_root and security.group not in (None, host.gid):
        raise RuntimeFault(f"cannot run as group {security.group}: edgesite itself runs as group {host.gid}")
    if security.username:
        raise RuntimeFault(f"cannot run as user {security.username}: the process runtime needs a number")
    if security.readonly_rootfs:
        raise RuntimeFault("readOnlyRootFilesystem is not possible for a process of the host")
    if config.stop_signal:
        _signal_number(config.stop_signal)
    if host.mounting == "":
        for mount in config.mounts:
            if not _is_optional(mount):
                raise RuntimeFault(
                    f"cannot show a volume at {mount.container_path}: this kernel lets neither edgesite nor a user "
                    "namespace of its own mount anything"
                )


def _is_optional(mount: Mount) -> bool:
    path = mount.container_path
    return path in _OPTIONAL or path.rstrip("/") == _SERVICE_ACCOUNT or path == mount.host_path


def plan(
    config: ContainerConfig,
    sandbox: SandboxConfig,
    container_id: str,
    work: str,
    log: str,
    cgroup: Cgroup | None,
    host: Host,
) -> dict[str, Any]:
    """Return the plan of `launch`, with what the supervisor itself needs."""
    mounts = [_mount(one) for one in config.mounts if one.container_path != one.host_path]
    mounts += [
        _mount(Mount(one.container_path, one.host_path))
        for one in config.devices
        if one.container_path != one.host_path
    ]
    env = _environment(config, sandbox, container_id, host, [] if host.mounting else mounts)
    if config.tty:
        env.setdefault("TERM", "xterm")
    security = config.security
    switches = host.is_root
    user = security.user if switches else None
    return {
        "argv": [*config.command, *config.args],
        "env": env,
        "cwd": config.working_dir or work,
        "hostname": sandbox.hostname,
        "mounting": host.mounting,
        "mounts": mounts if host.mounting else [],
        "uid": user,
        "gid": _gid(user, security.group) if switches else None,
        "groups": list(security.groups) if switches and (user is not None or security.groups) else None,
        "cgroups": cgroup.procs if cgroup else [],
        "oom": cgroup.oom_file if cgroup else "",
        "rlimits": _rlimits(config, cgroup),
        "oom_score_adj": config.resources.oom_score_adj,
        "no_new_privileges": security.no_new_privileges,
        "drop_capabilities": _dropped(config) if switches else [],
        "stop_signal": _signal_number(config.stop_signal) if config.stop_signal else signal.SIGTERM,
        "log": log,
        "stdin": config.stdin,
        "stdin_once": config.stdin_once,
        "tty": config.tty,
    }


def _mount(mount: Mount) -> dict[str, Any]:
    return {
        "source": mount.host_path,
        "target": mount.container_path,
        "readonly": mount.readonly,
        "shared": mount.propagation is not Propagation.PRIVATE,
    }


def _gid(user: int | None, group: int | None) -> int | None:
    if group is not None:
        return group
    return 0 if user is not None else None  # as container runtimes do where a user has no entry in passwd


def _environment(
    config: ContainerConfig, sandbox: SandboxConfig, container_id: str, host: Host, unmade: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    runs_as = host.uid if config.security.user is None else config.security.user
    env = {"PATH": PATH, "HOME": "/root" if runs_as == 0 else "/", "HOSTNAME": sandbox.hostname, **dict(config.envs)}
    env[MARK] = container_id
    if unmade:
        env[MOUNTS] = "\n".join(f"{one['target']}={one['source']}" for one in unmade)
    return {name: value for name, value in env.items() if name and "=" not in name and "\0" not in name + value}


def _rlimits(config: ContainerConfig, cgroup: Cgroup | None) -> list[list[int]]:
    """Without a control group, memory is bounded for each process by what it may write to."""
    limit = config.resources.memory_bytes
    return [[resource.RLIMIT_DATA, limit, limit]] if limit and cgroup is None else []


def _dropped(config: ContainerConfig) -> list[int]:
    security = config.security
    if security.privileged:
        return []
    kept = {one.removeprefix("CAP_").upper() for one in security.capabilities.add}
    gone = {one.removeprefix("CAP_").upper() for one in security.capabilities.drop}
    if "ALL" in kept:
        return []
    return [number for number, name in enumerate(_CAPABILITIES) if ("ALL" in gone or name in gone) and name not in kept]


def _signal_number(name: str) -> int:
    """Raises RuntimeFault for a name that is none."""
    try:
        base, plus, more = name.partition("+")
        return int(signal.Signals[base]) + (int(more) if plus else 0)
    except (KeyError, ValueError):
        raise RuntimeFault(f"unknown stop signal {name}") from None
