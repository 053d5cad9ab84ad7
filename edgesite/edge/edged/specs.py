"""From a pod to what a runtime is asked to make: `SandboxConfig` and `ContainerConfig`. Nothing here does I/O.

Source  core/v1 PodSecurityContext and SecurityContext; labels and annotations as kubelet sets them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from edgesite.edge.edged.adoption import LABEL_NODE, container_annotations
from edgesite.edge.edged.environment import expand
from edgesite.edge.edged.pod import Pod
from edgesite.edge.edged.runtime import (
    ANNOTATION_RESTARTS,
    ANNOTATION_TERMINATION_PATH,
    ANNOTATION_TERMINATION_POLICY,
    LABEL_CONTAINER,
    LABEL_POD_NAME,
    LABEL_POD_NAMESPACE,
    LABEL_POD_UID,
    Capabilities,
    ContainerConfig,
    ContainerSecurity,
    ContainerStatus,
    DnsConfig,
    Image,
    LinuxResources,
    Mount,
    NamespaceMode,
    Namespaces,
    PortMapping,
    SandboxConfig,
    SeccompProfile,
)
from edgesite.kube import json

__all__ = [
    "ANNOTATION_RESOURCES",
    "SpecError",
    "container_config",
    "host_ports",
    "noted_resources",
    "resizable",
    "sandbox_config",
    "security_of",
]

#: What a container was made with, of what can be changed while it runs.
ANNOTATION_RESOURCES: Final = "edgesite.kubeedge.io/resources"
TERMINATION_PATH: Final = "/dev/termination-log"
_APPARMOR_ANNOTATION: Final = "container.apparmor.security.beta.kubernetes.io/"
_MASKED: Final = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
_READONLY: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


class SpecError(Exception):
    """The pod asks for what cannot be made; the text is for its status."""


def resizable(container: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a container's resources that can be changed while it runs."""
    resources = container.get("resources") or {}
    found = {}
    for kind in ("limits", "requests"):
        if part := {
            name: str(value) for name, value in (resources.get(kind) or {}).items() if name in ("cpu", "memory")
        }:
            found[kind] = part
    return found


def noted_resources(status: ContainerStatus, wanted: dict[str, Any]) -> dict[str, Any]:
    """What the container was made with. One that does not tell, of another make, is taken for what is wanted."""
    text = status.annotations.get(ANNOTATION_RESOURCES)
    if text is None:
        return wanted
    try:
        noted = json.loads(text.encode())
    except ValueError:
        return wanted
    return noted if isinstance(noted, dict) else wanted


def host_ports(pod: Pod) -> tuple[PortMapping, ...]:
    """Return the ports that the pod takes on the node, by mapping or by being in the node's network."""
    return tuple(
        PortMapping(
            one.get("containerPort", 0),
            one.get("hostPort") or (one.get("containerPort", 0) if pod.host_network else 0),
            one.get("protocol") or "TCP",
            one.get("hostIP") or "",
        )
        for container in (*pod.init_containers, *pod.containers)
        for one in container.get("ports") or ()
        if one.get("hostPort") or pod.host_network
    )


def sandbox_config(
    pod: Pod, attempt: int, *, node_name: str, hostname: str, log_directory: str, dns: DnsConfig, cgroup_parent: str
) -> SandboxConfig:
    """Return what the pod's sandbox is made from."""
    context = pod.spec.get("securityContext") or {}
    privileged = any(
        (one.get("securityContext") or {}).get("privileged") for one in (*pod.init_containers, *pod.containers)
    )
    return SandboxConfig(
        name=pod.name,
        namespace=pod.namespace,
        uid=pod.uid,
        attempt=attempt,
        hostname=hostname,
        log_directory=log_directory,
        dns=dns,
        ports=() if pod.host_network else host_ports(pod),
        labels={
            **pod.labels,
            LABEL_POD_NAME: pod.name,
            LABEL_POD_NAMESPACE: pod.namespace,
            LABEL_POD_UID: pod.uid,
            LABEL_NODE: node_name,
        },
        annotations=dict(pod.annotations),
        cgroup_parent=cgroup_parent,
        sysctls={one["name"]: one["value"] for one in context.get("sysctls") or ()},
        security=ContainerSecurity(
            user=context.get("runAsUser"),
            group=context.get("runAsGroup") if context.get("runAsUser") is not None else None,
            groups=tuple(context.get("supplementalGroups") or ()),
            privileged=privileged,
            namespaces=_namespaces(pod),
            seccomp=SeccompProfile("RuntimeDefault"),
            selinux=_selinux(context.get("seLinuxOptions")),
            strict_groups=context.get("supplementalGroupsPolicy") == "Strict",
        ),
    )


def container_config(
    pod: Pod,
    container: Mapping[str, Any],
    *,
    attempt: int,
    image: Image,
    env: Mapping[str, str],
    mounts: Sequence[Mount],
    resources: LinuxResources,
    seccomp_default: bool = False,
    seccomp_root: str = "",
    target: str = "",
) -> ContainerConfig:
    """Return what one container is made from; ``target`` is the container whose processes it shares. Raises SpecError."""
    name = container["name"]
    security = security_of(pod, container, image, seccomp_default, seccomp_root)
    if target:
        namespaces = replace(security.namespaces, pid=NamespaceMode.TARGET, target=target)
        security = replace(security, namespaces=namespaces)
    return ContainerConfig(
        name=name,
        image=image.id,
        attempt=attempt,
        user_image=container.get("image", ""),
        command=tuple(expand(one, env) for one in container.get("command") or ()),
        args=tuple(expand(one, env) for one in container.get("args") or ()),
        working_dir=container.get("workingDir") or "",
        envs=tuple(env.items()),
        mounts=tuple(mounts),
        labels={
            LABEL_POD_NAME: pod.name,
            LABEL_POD_NAMESPACE: pod.namespace,
            LABEL_POD_UID: pod.uid,
            LABEL_CONTAINER: name,
        },
        annotations={
            **container_annotations(pod, container),
            ANNOTATION_RESTARTS: str(attempt),
            ANNOTATION_RESOURCES: json.dumps(resizable(container)).decode(),
            ANNOTATION_TERMINATION_PATH: container.get("terminationMessagePath") or TERMINATION_PATH,
            ANNOTATION_TERMINATION_POLICY: container.get("terminationMessagePolicy") or "File",
        },
        log_path=f"{name}/{attempt}.log",
        stdin=bool(container.get("stdin")),
        stdin_once=bool(container.get("stdinOnce")),
        tty=bool(container.get("tty")),
        resources=resources,
        security=security,
        stop_signal=((container.get("lifecycle") or {}).get("stopSignal")) or "",
    )


def security_of(
    pod: Pod, container: Mapping[str, Any], image: Image, seccomp_default: bool = False, seccomp_root: str = ""
) -> ContainerSecurity:
    """Return who the container runs as: its own context first, then the pod's, then the image's. Raises SpecError."""
    above, own = pod.spec.get("securityContext") or {}, container.get("securityContext") or {}

    def first(member: str) -> Any:
        value = own.get(member)
        return above.get(member) if value is None else value

    user = first("runAsUser")
    username = ""
    if user is None:
        user, username = image.user, image.username if image.user is None else ""
    if first("runAsNonRoot"):
        _require_not_root(user, username)
    privileged = bool(own.get("privileged"))
    capabilities = own.get("capabilities") or {}
    group = first("runAsGroup")
    groups = tuple(above.get("supplementalGroups") or ())
    if (fs_group := above.get("fsGroup")) is not None and fs_group not in groups:
        groups = (*groups, fs_group)
    unmasked = privileged or own.get("procMount") == "Unmasked"
    return ContainerSecurity(
        user=user,
        group=group if user is not None else None,  # a group alone is refused by runtimes
        username=username,
        groups=groups,
        privileged=privileged,
        readonly_rootfs=bool(own.get("readOnlyRootFilesystem")),
        no_new_privileges=own.get("allowPrivilegeEscalation") is False,
        capabilities=Capabilities(tuple(capabilities.get("add") or ()), tuple(capabilities.get("drop") or ())),
        namespaces=_namespaces(pod),
        seccomp=_seccomp(first("seccompProfile"), privileged, seccomp_default, seccomp_root),
        apparmor=_apparmor(pod, container, first("appArmorProfile")),
        selinux=_selinux(first("seLinuxOptions")),
        strict_groups=above.get("supplementalGroupsPolicy") == "Strict",
        masked_paths=() if unmasked else _MASKED,
        readonly_paths=() if unmasked else _READONLY,
    )


def _require_not_root(user: int | None, username: str) -> None:
    if username:
        raise SpecError(
            f"container has runAsNonRoot and image has non-numeric user ({username}), cannot verify user is non-root"
        )
    if not user:
        raise SpecError("container has runAsNonRoot and image will run as root")


def _namespaces(pod: Pod) -> Namespaces:
    pid = NamespaceMode.CONTAINER
    if pod.spec.get("hostPID"):
        pid = NamespaceMode.NODE
    elif pod.spec.get("shareProcessNamespace"):
        pid = NamespaceMode.POD
    return Namespaces(
        network=NamespaceMode.NODE if pod.host_network else NamespaceMode.POD,
        pid=pid,
        ipc=NamespaceMode.NODE if pod.spec.get("hostIPC") else NamespaceMode.POD,
    )


def _apparmor(pod: Pod, container: Mapping[str, Any], profile: Mapping[str, Any] | None) -> SeccompProfile | None:
    """The profile as a member of the pod, else as the annotation that older pods have. Raises SpecError."""
    if profile:
        return SeccompProfile(profile.get("type", "RuntimeDefault"), profile.get("localhostProfile") or "")
    text = pod.annotations.get(f"{_APPARMOR_ANNOTATION}{container.get('name', '')}", "")
    if not text:
        return None
    if text in ("runtime/default", "unconfined"):
        return SeccompProfile("RuntimeDefault" if text == "runtime/default" else "Unconfined")
    kind, _, name = text.partition("/")
    if kind != "localhost" or not name:
        raise SpecError(f'invalid AppArmor profile name: "{text}"')
    return SeccompProfile("Localhost", name)


def _selinux(options: Mapping[str, Any] | None) -> dict[str, str]:
    return {name: str(value) for name, value in (options or {}).items() if value}


def _seccomp(profile: Mapping[str, Any] | None, privileged: bool, default: bool, root: str) -> SeccompProfile | None:
    if privileged:
        return SeccompProfile("Unconfined")
    if not profile:
        return SeccompProfile("RuntimeDefault" if default else "Unconfined")
    kind = profile.get("type", "Unconfined")
    return SeccompProfile(kind, f"{root}/{profile.get('localhostProfile', '')}" if kind == "Localhost" else "")
