"""CRI messages from and to the types of `edgesite.edge.edged.runtime`. Nothing here does I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from edgesite.edge.edged.cri.tables import CRI
from edgesite.edge.edged.runtime import (
    ContainerConfig,
    ContainerInfo,
    ContainerSecurity,
    ContainerState,
    ContainerStats,
    ContainerStatus,
    FilesystemUsage,
    Image,
    LinuxResources,
    Mount,
    NamespaceMode,
    Namespaces,
    Propagation,
    SandboxConfig,
    SandboxInfo,
    SandboxState,
    SandboxStatus,
)
from edgesite.edge.edged.security import UserRange
from edgesite.kube import json

__all__ = [
    "cgroup_driver",
    "container_config",
    "container_info",
    "container_stats",
    "container_status",
    "filesystem",
    "image",
    "linux_resources",
    "sandbox_config",
    "sandbox_info",
    "sandbox_status",
]

_CONTAINER_STATES: Final = (
    ContainerState.CREATED,
    ContainerState.RUNNING,
    ContainerState.EXITED,
    ContainerState.UNKNOWN,
)
_PROTOCOLS: Final = {"TCP": 0, "UDP": 1, "SCTP": 2}
_MODES: Final = {NamespaceMode.POD: 0, NamespaceMode.CONTAINER: 1, NamespaceMode.NODE: 2, NamespaceMode.TARGET: 3}
_PROPAGATIONS: Final = {Propagation.PRIVATE: 0, Propagation.HOST_TO_CONTAINER: 1, Propagation.BIDIRECTIONAL: 2}
_PROFILES: Final = {"RuntimeDefault": 0, "Unconfined": 1, "Localhost": 2}


def sandbox_config(config: SandboxConfig) -> dict[str, Any]:
    """Return the PodSandboxConfig."""
    security = config.security
    message: dict[str, Any] = {
        "metadata": {
            "name": config.name,
            "uid": config.uid,
            "namespace": config.namespace,
            "attempt": config.attempt,
        },
        "hostname": config.hostname,
        "log_directory": config.log_directory,
        "port_mappings": [
            {
                "protocol": _PROTOCOLS.get(port.protocol, 0),
                "container_port": port.container_port,
                "host_port": port.host_port,
                "host_ip": port.host_ip,
            }
            for port in config.ports
        ],
        "labels": config.labels,
        "annotations": config.annotations,
        "linux": {
            "cgroup_parent": config.cgroup_parent,
            "sysctls": config.sysctls,
            "security_context": {
                "namespace_options": _namespaces(security.namespaces),
                "run_as_user": _number(security.user),
                "run_as_group": _number(security.group),
                "readonly_rootfs": security.readonly_rootfs,
                "supplemental_groups": list(security.groups),
                "privileged": security.privileged,
                "seccomp": _seccomp(security),
                "selinux_options": security.selinux or None,
                "supplemental_groups_policy": int(security.strict_groups),
            },
        },
    }
    if config.dns is not None:
        dns = config.dns
        message["dns_config"] = {
            "servers": list(dns.servers),
            "searches": list(dns.searches),
            "options": list(dns.options),
        }
    return message


def container_config(config: ContainerConfig) -> dict[str, Any]:
    """Return the ContainerConfig message."""
    users = config.security.namespaces.users
    return {
        "metadata": {"name": config.name, "attempt": config.attempt},
        "image": {"image": config.image, "user_specified_image": config.user_image},
        "command": list(config.command),
        "args": list(config.args),
        "working_dir": config.working_dir,
        "envs": [{"key": name, "value": value.encode()} for name, value in config.envs],
        "mounts": [_mount(one, users) for one in config.mounts],
        "devices": [
            {"container_path": one.container_path, "host_path": one.host_path, "permissions": one.permissions}
            for one in config.devices
        ],
        "CDI_devices": [{"name": name} for name in config.cdi_devices],
        "labels": config.labels,
        "annotations": config.annotations,
        "log_path": config.log_path,
        "stdin": config.stdin,
        "stdin_once": config.stdin_once,
        "tty": config.tty,
        "linux": {"resources": linux_resources(config.resources), "security_context": _security(config.security)},
        "stop_signal": CRI.enum("Signal").get(config.stop_signal, 0) if config.stop_signal else 0,
    }


def linux_resources(resources: LinuxResources) -> dict[str, Any]:
    """Return the LinuxContainerResources."""
    return {
        "cpu_period": resources.cpu_period_us,
        "cpu_quota": resources.cpu_quota_us,
        "cpu_shares": resources.cpu_shares,
        "memory_limit_in_bytes": resources.memory_bytes,
        "oom_score_adj": resources.oom_score_adj,
        "memory_swap_limit_in_bytes": resources.memory_swap_bytes,
        "unified": resources.unified,
        "hugepage_limits": [
            {"page_size": _page_size(size), "limit": limit} for size, limit in resources.huge_pages.items()
        ],
    }


def _page_size(size: str) -> str:
    """Runtimes name page sizes as the kernel's controller does: "2MB" for "2Mi"."""
    return size.replace("i", "B") if size.endswith(("Ki", "Mi", "Gi")) else size


def _mount(mount: Mount, users: UserRange | None) -> dict[str, Any]:
    """With ids of its own, a container sees files of the host's root as its root's, and leaves files of the ids that it knows."""
    ids = _ids(users) if mount.host_path else []
    image = {"image": {"image": mount.image}, "image_sub_path": mount.image_sub_path} if mount.image else {}
    return {
        **image,
        "container_path": mount.container_path,
        "host_path": mount.host_path,
        "readonly": mount.readonly,
        "propagation": _PROPAGATIONS[mount.propagation],
        **({"uidMappings": ids, "gidMappings": ids} if ids else {}),
    }


def _namespaces(namespaces: Namespaces) -> dict[str, Any]:
    ids = _ids(namespaces.users)
    return {
        "network": _MODES[namespaces.network],
        "pid": _MODES[namespaces.pid],
        "ipc": _MODES[namespaces.ipc],
        "target_id": namespaces.target,
        **({"userns_options": {"mode": _MODES[NamespaceMode.POD], "uids": ids, "gids": ids}} if ids else {}),
    }


def _ids(users: UserRange | None) -> list[dict[str, int]]:
    return [] if users is None else [{"host_id": users.first, "container_id": 0, "length": users.length}]


def _number(value: int | None) -> dict[str, int] | None:
    return None if value is None else {"value": value}


def _seccomp(security: ContainerSecurity) -> dict[str, Any] | None:
    if security.seccomp is None:
        return None
    return {"profile_type": _PROFILES.get(security.seccomp.type, 1), "localhost_ref": security.seccomp.path}


def _apparmor(security: ContainerSecurity) -> dict[str, Any]:
    """As a profile, and as the text that runtimes before containerd 1.7 read."""
    profile = security.apparmor
    if profile is None:
        return {}
    texts = {"RuntimeDefault": "runtime/default", "Unconfined": "unconfined"}
    return {
        "apparmor": {"profile_type": _PROFILES.get(profile.type, 1), "localhost_ref": profile.path},
        "apparmor_profile": texts.get(profile.type, f"localhost/{profile.path}"),
    }


def _security(security: ContainerSecurity) -> dict[str, Any]:
    return {
        "capabilities": {
            "add_capabilities": list(security.capabilities.add),
            "drop_capabilities": list(security.capabilities.drop),
        },
        "privileged": security.privileged,
        "namespace_options": _namespaces(security.namespaces),
        "run_as_user": _number(security.user),
        "run_as_group": _number(security.group),
        "run_as_username": security.username,
        "readonly_rootfs": security.readonly_rootfs,
        "supplemental_groups": list(security.groups),
        "no_new_privs": security.no_new_privileges,
        "masked_paths": list(security.masked_paths),
        "readonly_paths": list(security.readonly_paths),
        "seccomp": _seccomp(security),
        "selinux_options": security.selinux or None,
        "supplemental_groups_policy": int(security.strict_groups),
        **_apparmor(security),
    }


def sandbox_info(message: Mapping[str, Any]) -> SandboxInfo:
    """Read a PodSandbox."""
    return SandboxInfo(**_sandbox(message))


def sandbox_status(message: Mapping[str, Any]) -> SandboxStatus:
    """Read a PodSandboxStatus."""
    network = message.get("network", {})
    ips = [network["ip"]] if network.get("ip") else []
    ips += [one["ip"] for one in network.get("additional_ips", ()) if one.get("ip")]
    options = message.get("linux", {}).get("namespaces", {}).get("options", {})
    in_host = options.get("network", 0) == _MODES[NamespaceMode.NODE]
    return SandboxStatus(**_sandbox(message), ips=tuple(ips), host_network=in_host)


def _sandbox(message: Mapping[str, Any]) -> dict[str, Any]:
    metadata = message.get("metadata", {})
    return {
        "id": message.get("id", ""),
        "name": metadata.get("name", ""),
        "namespace": metadata.get("namespace", ""),
        "uid": metadata.get("uid", ""),
        "attempt": metadata.get("attempt", 0),
        "state": SandboxState.NOT_READY if message.get("state", 0) else SandboxState.READY,
        "created_ns": message.get("created_at", 0),
        "labels": message.get("labels", {}),
        "annotations": message.get("annotations", {}),
    }


def _container_state(message: Mapping[str, Any]) -> ContainerState:
    number = message.get("state", 0)
    return _CONTAINER_STATES[number] if number < len(_CONTAINER_STATES) else ContainerState.UNKNOWN


def container_info(message: Mapping[str, Any]) -> ContainerInfo:
    """Read a Container."""
    metadata = message.get("metadata", {})
    return ContainerInfo(
        id=message.get("id", ""),
        sandbox_id=message.get("pod_sandbox_id", ""),
        name=metadata.get("name", ""),
        attempt=metadata.get("attempt", 0),
        state=_container_state(message),
        created_ns=message.get("created_at", 0),
        image=message.get("image", {}).get("image", ""),
        image_ref=message.get("image_ref", ""),
        labels=message.get("labels", {}),
        annotations=message.get("annotations", {}),
    )


def container_status(message: Mapping[str, Any]) -> ContainerStatus:
    """Read a ContainerStatus message."""
    metadata = message.get("metadata", {})
    return ContainerStatus(
        id=message.get("id", ""),
        name=metadata.get("name", ""),
        attempt=metadata.get("attempt", 0),
        state=_container_state(message),
        created_ns=message.get("created_at", 0),
        started_ns=message.get("started_at", 0),
        finished_ns=message.get("finished_at", 0),
        exit_code=message.get("exit_code", 0),
        image=message.get("image", {}).get("image", ""),
        image_ref=message.get("image_ref", ""),
        reason=message.get("reason", ""),
        message=message.get("message", ""),
        labels=message.get("labels", {}),
        annotations=message.get("annotations", {}),
        mounts=tuple(
            Mount(one.get("container_path", ""), one.get("host_path", ""), one.get("readonly", False))
            for one in message.get("mounts", ())
        ),
        log_path=message.get("log_path", ""),
    )


def container_stats(message: Mapping[str, Any]) -> ContainerStats:
    """Read a ContainerStats message."""
    attributes, cpu, memory = (message.get(name, {}) for name in ("attributes", "cpu", "memory"))
    layer = message.get("writable_layer")
    return ContainerStats(
        id=attributes.get("id", ""),
        name=attributes.get("metadata", {}).get("name", ""),
        labels=attributes.get("labels", {}),
        at_ns=cpu.get("timestamp", 0),
        cpu_ns=_wrapped(cpu, "usage_core_nano_seconds"),
        memory_working_set_bytes=_wrapped(memory, "working_set_bytes"),
        memory_usage_bytes=_wrapped(memory, "usage_bytes"),
        memory_rss_bytes=_wrapped(memory, "rss_bytes"),
        writable_layer=filesystem(layer) if layer is not None else None,
    )


def filesystem(message: Mapping[str, Any]) -> FilesystemUsage:
    """Read a FilesystemUsage message."""
    return FilesystemUsage(
        message.get("fs_id", {}).get("mountpoint", ""),
        _wrapped(message, "used_bytes"),
        _wrapped(message, "inodes_used"),
        message.get("timestamp", 0),
    )


def image(message: Mapping[str, Any]) -> Image:
    """Read an Image message."""
    user = message.get("uid")
    return Image(
        message.get("id", ""),
        tuple(message.get("repo_tags", ())),
        tuple(message.get("repo_digests", ())),
        message.get("size", 0),
        user.get("value", 0) if user is not None else None,
        message.get("username", ""),
        message.get("pinned", False),
    )


def _wrapped(message: Mapping[str, Any], name: str) -> int:
    value = message.get(name, {}).get("value", 0)
    return int(value)


def cgroup_driver(settings: str) -> str:
    """Read the driver of the default runtime out of the settings that containerd 1.x shows as JSON; "" if they say nothing of it."""
    try:
        containerd = json.loads(settings)["containerd"]
        options = containerd["runtimes"][containerd["defaultRuntimeName"]]["options"]
        return "systemd" if options.get("SystemdCgroup") else "cgroupfs"
    except (json.InvalidJson, KeyError, TypeError, AttributeError):
        return ""
