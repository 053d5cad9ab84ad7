"""A site as it runs on a host of its own: `edgesite up` over a containerd that lets systemd make cgroups.

Units   Seconds.
Errors  Failed.
State   /var/lib/edgesite and containerd's own folder.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from conformance.programs import EDGESITE, Failed, Kubectl, Program, eventually
from edgesite.testing.containerd import BUSYBOX, containerd

__all__ = ["ADDRESS", "CGROUPS", "METASERVER", "WAIT_S", "Site", "host", "pod"]

ADDRESS: Final = "10.88.0.1"
METASERVER: Final = "169.254.30.10"
CGROUPS: Final = Path("/sys/fs/cgroup")
WAIT_S: Final = 400.0  #: an emulated machine takes its time
_DATA: Final = Path("/var/lib/edgesite")
_KUBELET: Final = {
    "cgroupDriver": "systemd",
    "evictionHard": {"memory.available": "900Mi", "nodefs.available": "5%", "imagefs.available": "5%"},
    "evictionPressureTransitionPeriod": "5s",
    "shutdownGracePeriod": "60s",
    "shutdownGracePeriodCriticalPods": "10s",
}
_GATES: Final = {"requireAuthorization": True}
_CONFIG: Final = {
    "apiVersion": "edgesite.config.kubeedge.io/v1alpha1",
    "kind": "EdgeSite",
    "cloud": {"featureGates": _GATES, "modules": {"dynamicController": {"enable": True}}},
    "edge": {
        "featureGates": _GATES,
        "modules": {
            "edged": {"tailoredKubeletConfig": _KUBELET},
            "metaManager": {"metaServer": {"enable": True, "podServer": f"{METASERVER}:10550"}},
        },
    },
}


def host(*words: str, timeout_s: float = WAIT_S) -> str:
    """Run a program of the host and return what it prints. Raises Failed."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode:
        raise Failed(f"{' '.join(words)}: {done.stdout}{done.stderr}")
    return done.stdout


def pod(name: str, *command: str, resources: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """A pod of one container. ``container`` has further members of that."""
    container: dict[str, Any] = {"name": "main", "image": BUSYBOX, "imagePullPolicy": "Never", "command": list(command)}
    container |= {"resources": resources or {}, **spec.pop("container", {})}
    settings = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": settings}


class Site:
    """Use it in a ``with`` block."""

    def __init__(self, kubectl: str) -> None:
        self.kubectl = Kubectl(kubectl, _DATA / "admin.kubeconfig")
        self.kubectl_path = Path(kubectl)
        self.program: Program | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Site:
        daemon = self._stack.enter_context(containerd(systemd=True))
        config = Path("/var/log/edgesite.yaml")
        config.write_text(json.dumps(_CONFIG))
        self._command = [
            *(str(EDGESITE), "up", "--config", str(config), "--data-dir", str(_DATA), "--node-name", "vm", "-v", "2"),
            *("--api-address", "127.0.0.1:6443", "--runtime", "cri", "--cri-endpoint", daemon.endpoint),
        ]
        self._stack.callback(self._kill)
        self.start()
        return self

    def start(self) -> None:
        """Start the program and wait until the node is ready. Raises Failed."""
        self.program = Program(Path("/var/log/edgesite.log"), self._command)
        self.program.wait_line("Ready after", WAIT_S)
        self.until("get", "node", "vm", what="the node is ready", check=_is_ready)

    def stop(self) -> None:
        """End the program in order; containers go on. Raises Failed."""
        if self.program is not None:
            self.program.stop(WAIT_S)

    def _kill(self) -> None:
        if self.program is not None:
            self.program.kill()

    @property
    def authority(self) -> Path:
        """The CA of the cluster."""
        return next(_DATA.rglob("pki/ca.crt"))

    def __exit__(self, *failure: object) -> None:
        self._stack.close()

    def until(self, *arguments: str, what: str, check: Callable[[Any], Any], timeout_s: float = WAIT_S) -> Any:
        """Ask kubectl until the check of its answer is true, and return that. Raises Failed."""
        return eventually(lambda: check(self.kubectl.json(*arguments)), what, timeout_s)

    def run(self, one: dict[str, Any], phases: Sequence[str] = ("Running",)) -> Any:
        """Make a pod, wait until it is in one of these phases, and return it. Raises Failed."""
        self.kubectl.apply(one)
        return self.wait(one["metadata"]["name"], phases)

    def wait(self, name: str, phases: Sequence[str]) -> Any:
        def there(found: Any) -> Any:
            phase = found.get("status", {}).get("phase")
            if phase in ("Failed", "Succeeded") and phase not in phases:
                raise RuntimeError(f"pod {name} is {phase}: {found['status']}")
            return found if phase in phases else None

        return self.until("get", "pod", name, what=f"{name} is {' or '.join(phases)}", check=there)

    def logs(self, name: str) -> str:
        return self.kubectl("logs", name)

    def delete(self, *names: str) -> None:
        self.kubectl("delete", "pod", *names, "--wait=true", timeout_s=WAIT_S)

    def slice_of(self, found: Any) -> Path:
        """The cgroup of a pod. Raises Failed."""
        uid = found["metadata"]["uid"].replace("-", "_")
        for path in CGROUPS.glob(f"kubepods.slice/**/kubepods*-pod{uid}.slice"):
            return path
        raise Failed(f"no slice of pod {uid} below {sorted(CGROUPS.glob('kubepods.slice/*'))}")


def _is_ready(node: Any) -> bool:
    conditions = node.get("status", {}).get("conditions", ())
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
