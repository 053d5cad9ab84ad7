"""Whether another agent works on this host already: two that manage its pods would undo each other's work.

Errors  ForeignAgent, in KubeEdge's words.
Source  KubeEdge edgecore: looks for ``kubelet`` and ``kube-proxy``; not with MetaServer, which makes kube-proxy legitimate; switched off
        by CHECK_EDGECORE_ENVIRONMENT=false in the environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

__all__ = ["AGENTS", "SWITCH", "ForeignAgent", "check_host", "is_wanted"]

SWITCH: Final = "CHECK_EDGECORE_ENVIRONMENT"
AGENTS: Final = ("kubelet", "kube-proxy")


class ForeignAgent(RuntimeError):
    """Another agent runs here."""


def is_wanted(modules: Mapping[str, Any], environment: Mapping[str, str]) -> bool:
    """Whether the host is to be looked at, given the role's modules and the environment."""
    meta_server = (modules.get("metaManager") or {}).get("metaServer") or {}
    return environment.get(SWITCH) != "false" and not meta_server.get("enable")


def check_host(proc: Path = Path("/proc")) -> None:
    """Look through the processes. Blocking. Raises ForeignAgent."""
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            name = (entry / "comm").read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            continue  # it has just ended
        if name in AGENTS:
            raise ForeignAgent(
                f"failed to check the running environment: {name} should not running on edge node when running edgecore "
                f"(process {entry.name}; {SWITCH}=false switches this check off)"
            )
