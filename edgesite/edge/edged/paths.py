"""Where edged keeps what belongs to pods, laid out as kubelet does, so that either finds the other's.

<root>/pods/<uid>/volumes/kubernetes.io~configmap/<volume>
<root>/pods/<uid>/containers/<container>/<attempt>        termination message
<root>/pods/<uid>/etc-hosts
<root>/pods/<uid>/volume-subpaths/<volume>/<container>/<number>   sub-paths of volumes, bound (`volumes.subpaths`)
<logs>/<namespace>_<name>_<uid>/<container>/<attempt>.log
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgesite.edge.edged.pod import Pod

__all__ = ["Paths"]


@dataclass(frozen=True, slots=True)
class Paths:
    root: Path
    logs: Path

    @property
    def pods(self) -> Path:
        return self.root / "pods"

    def pod(self, uid: str) -> Path:
        return self.pods / uid

    def volumes(self, uid: str) -> Path:
        return self.pod(uid) / "volumes"

    def volume(self, uid: str, plugin: str, name: str) -> Path:
        return self.volumes(uid) / f"kubernetes.io~{plugin}" / name

    def sub_paths(self, uid: str) -> Path:
        return self.pod(uid) / "volume-subpaths"

    def termination_message(self, uid: str, container: str, attempt: int) -> Path:
        return self.pod(uid) / "containers" / container / str(attempt)

    def etc_hosts(self, uid: str) -> Path:
        return self.pod(uid) / "etc-hosts"

    def pod_logs(self, pod: Pod) -> Path:
        return self.logs / pod.log_directory_name

    @property
    def log_links(self) -> Path | None:
        """Where logs have flat names, too (`loglinks`): beside a root of logs that is laid out as kubelet's /var/log/pods."""
        return self.logs.parent / "containers" if self.logs.name == "pods" else None
