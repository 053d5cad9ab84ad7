"""Which kernel parameters a pod may set for itself. Pure.

Source  Kubernetes: "Using sysctls": safe ones, namespaced ones that a node may allow, none of the host's own namespaces.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from edgesite.edge.edged.pod import Pod

__all__ = ["forbidden_sysctl"]

SAFE: Final = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    }
)
_IPC: Final = ("kernel.sem", "kernel.shm", "kernel.msg", "fs.mqueue.")


def forbidden_sysctl(pod: Pod, allowed: Sequence[str]) -> str | None:
    """Return the first parameter that the pod may not set here, or None. ``allowed`` may end in "*"."""
    for one in (pod.spec.get("securityContext") or {}).get("sysctls") or ():
        name = str(one.get("name", "")).replace("/", ".")
        is_ipc = name.startswith(_IPC)
        if not (name in SAFE or any(_matches(name, pattern) for pattern in allowed)):
            return name
        if not (is_ipc or name.startswith("net.")):
            return name  # of the whole host: no namespace has its own
        if pod.host_network and name.startswith("net."):
            return name
        if pod.spec.get("hostIPC") and is_ipc:
            return name
    return None


def _matches(name: str, pattern: str) -> bool:
    pattern = pattern.replace("/", ".")
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
