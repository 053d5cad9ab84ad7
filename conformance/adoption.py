"""Adoption against a real kubelet: python -m conformance.adoption FOLDER

A kubelet of Kubernetes v1.20 (``FOLDER/kubelet``; KubeEdge's edgecore v1.12 contains one of v1.22) runs a pod on a containerd of its
own, with no API server, from a file. Then edgesite takes its place, with the pod in its database; then the kubelet comes back; then
edgesite again, which has to end the pod. The container must be the same at each step, and nothing may be left in the end.

Needs root, containerd and runc or crun. Prints a line for each step; the exit code is 1 when a step failed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread

from edgesite.context import Section
from edgesite.edge.edged.cri.runtime import CriRuntime
from edgesite.edge.edged.module import Edged
from edgesite.edge.edged.runtime import ContainerState, Runtime
from edgesite.edge.metamanager.module import MetaManager
from edgesite.runtime.role import RoleHost
from edgesite.testing import rolerig
from edgesite.testing.containerd import BUSYBOX, Containerd, containerd
from edgesite.testing.rolerig import GivenHooks, real_world
from edgesite.testing.runtime import running, until
from edgesite.wire.message import MessageMaker

NODE: Final = "edge-1"
UID: Final = "0a1b2c3d-1111-4222-8333-444455556666"
LABEL: Final = {"io.kubernetes.pod.uid": UID}
LOGS: Final = Path("/var/log/pods")  #: a kubelet of this age has no say in it
STEP_S: Final = 60.0


def pod(folder: Path, name: str) -> dict[str, Any]:
    """As the API, or a kubelet that reads a file, completes it."""
    container = {
        "name": "main",
        "image": BUSYBOX,
        "command": ["/bin/sh", "-c", "trap 'exit 0' TERM; echo one > /work/file; sleep 1000 & wait"],
        "env": [{"name": "NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}],
        "resources": {"limits": {"memory": "64Mi"}, "requests": {"cpu": "10m", "memory": "64Mi"}},
        "volumeMounts": [
            {"name": "work", "mountPath": "/work"},
            {"name": "data", "mountPath": "/data", "subPath": "sub"},
        ],
        "livenessProbe": {
            "exec": {"command": ["/bin/true"]},
            "timeoutSeconds": 1,
            "periodSeconds": 10,
            "successThreshold": 1,
            "failureThreshold": 3,
        },
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
        "securityContext": {"runAsUser": 0},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": UID, "resourceVersion": "10"},
        "spec": {
            "containers": [container],
            "volumes": [
                {"name": "work", "emptyDir": {}},
                {"name": "data", "hostPath": {"path": str(folder / "data"), "type": ""}},
            ],
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 2,
            "dnsPolicy": "Default",
            "enableServiceLinks": True,
            "securityContext": {},
            "nodeName": NODE,
        },
    }


class Kubelet:
    """The peer. ``folder`` stands for the host."""

    def __init__(self, program: Path, folder: Path, endpoint: str) -> None:
        self._program, self._folder, self._endpoint = program, folder, endpoint
        self._process: subprocess.Popen[bytes] | None = None
        manifests = folder / "manifests"
        manifests.mkdir()
        (manifests / "web.json").write_text(json.dumps(pod(folder, "web")))
        settings = {
            "kind": "KubeletConfiguration",
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "staticPodPath": str(manifests),
            "port": 0,
            "healthzPort": 0,
            "failSwapOn": False,
            "cgroupDriver": "cgroupfs",
            "cgroupsPerQOS": False,
            "enforceNodeAllocatable": [],
            "evictionHard": {"memory.available": "1Mi"},
            "imageGCHighThresholdPercent": 100,
            "authentication": {"webhook": {"enabled": False}, "anonymous": {"enabled": True}},
            "authorization": {"mode": "AlwaysAllow"},
            "fileCheckFrequency": "1s",
            "syncFrequency": "1s",
        }
        (folder / "kubelet.json").write_text(json.dumps(settings))

    def start(self) -> None:
        with (self._folder / "kubelet.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(self._program),
                    f"--config={self._folder / 'kubelet.json'}",
                    f"--root-dir={self._folder / 'edged'}",
                    f"--cert-dir={self._folder / 'certs'}",
                    f"--hostname-override={NODE}",
                    "--container-runtime=remote",
                    f"--container-runtime-endpoint={self._endpoint}",
                ],
                stdout=log,
                stderr=log,
            )

    def stop(self) -> None:
        """Kill it; what it runs goes on."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def end(self) -> None:
        self.stop()
        subprocess.run(["umount", "-R", "-l", str(self._folder / "edged")], check=False, capture_output=True)


@asynccontextmanager
async def edge_on(folder: Path, endpoint: str) -> AsyncGenerator[RoleHost]:
    """Metamanager and edged, with no cloud in reach."""
    edged = {"enable": True, "runtime": "cri", "rootDirectory": str(folder / "edged"), "podLogsDirectory": str(LOGS)}
    edged["tailoredKubeletConfig"] = {"cgroupsPerQOS": False}
    section = Section({"modules": {"edged": edged, "metaManager": {"enable": True}}})
    hooks = GivenHooks(lambda ctx: CriRuntime(endpoint, "", request_timeout_s=30.0))
    async with real_world(hooks) as world:
        host = RoleHost("edge", [MetaManager, Edged], section, world, data_dir=folder / "kubeedge", node_name=NODE)
        async with rolerig.running(host):
            yield host


def store(folder: Path) -> None:
    """Put the pod where an edgecore has it."""
    (folder / "kubeedge").mkdir()
    value = json.dumps(pod(folder, f"web-{NODE}"), sort_keys=True)
    with sqlite3.connect(folder / "kubeedge/edgecore.db") as connection:
        connection.execute(
            "CREATE TABLE `meta` (`key` varchar(256) NOT NULL PRIMARY KEY, `type` varchar(32) NOT NULL, `value` text)"
        )
        connection.execute("INSERT INTO `meta` VALUES (?, 'pod', ?)", (f"default/pod/web-{NODE}", value))
    connection.close()


async def rows(runtime: Runtime) -> list[tuple[str, int]]:
    """Running containers of the pod: id and attempt."""
    found = await runtime.list_containers(labels=LABEL)
    return [(one.id, one.attempt) for one in found if one.state is ContainerState.RUNNING]


async def stays(runtime: Runtime, wanted: list[tuple[str, int]], seconds: float) -> None:
    """Raises RuntimeError when the containers of the pod are not those that they were."""
    until_at = time.monotonic() + seconds
    while time.monotonic() < until_at:
        if (found := await rows(runtime)) != wanted:
            raise RuntimeError(f"the pod's containers were {wanted} and are {found}")
        await anyio.sleep(0.5)


def left(folder: Path) -> list[Path]:
    """What there is of the pod on the disk."""
    names = list((LOGS.parent / "containers").glob(f"web-{NODE}_default_main-*.log"))
    return [*(folder / "edged/pods").glob(UID), *LOGS.glob(f"*_{UID}"), *names]


def kill(container_id: str) -> None:
    """Kill the first process of a container from outside."""
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and container_id in (entry / "cgroup").read_text():
                os.kill(int(entry.name), 9)
        except OSError:
            continue  # it has just ended


async def play(program: Path, folder: Path, daemon: Containerd) -> None:
    """Raises RuntimeError, TimeoutError."""
    (folder / "data/sub").mkdir(parents=True)
    (folder / "data/sub/mine").write_text("mine")
    kubelet = Kubelet(program, folder, daemon.endpoint)
    async with running(CriRuntime(daemon.endpoint, "", request_timeout_s=30.0)) as runtime:

        async def up() -> bool:
            return len(await rows(runtime)) == 1

        try:
            kubelet.start()
            await until(up, STEP_S)
            first = await rows(runtime)
            print("kubelet runs the pod:", first)
            await anyio.sleep(2)
            kubelet.stop()
            store(folder)
            async with edge_on(folder, daemon.endpoint):
                await stays(runtime, first, 5)
                print("edgesite has taken it over: the container is the same")
                await anyio.to_thread.run_sync(kill, first[0][0])

                async def again() -> bool:
                    return [attempt for _, attempt in await rows(runtime)] == [1]

                await until(again, STEP_S)
                second = await rows(runtime)
                print("edgesite has restarted the container:", second)
            kubelet.start()
            await stays(runtime, second, 20)
            print("kubelet has taken it back: the container is the same")
            kubelet.stop()
            async with edge_on(folder, daemon.endpoint) as host:
                await stays(runtime, second, 3)
                gone = pod(folder, f"web-{NODE}")
                gone["metadata"] |= {
                    "deletionTimestamp": "2026-01-01T00:00:00Z",
                    "deletionGracePeriodSeconds": 1,
                    "resourceVersion": "11",
                }
                message = MessageMaker(time.time, random.getrandbits).make(
                    "edgecontroller", "resource", "update", f"default/pod/web-{NODE}", gone
                )
                await host.bus.send("metamanager", message)

                async def ended() -> bool:
                    return not left(folder) and not await runtime.list_sandboxes()

                await until(ended, STEP_S)
            if (folder / "data/sub/mine").read_text() != "mine":
                raise RuntimeError("what is the host's is gone")
            print("edgesite has ended it, and nothing is left")
        finally:
            kubelet.end()


def main() -> int:
    folder = Path(tempfile.mkdtemp(prefix="edgesite-adoption-"))
    try:
        with containerd() as daemon:
            anyio.run(play, Path(sys.argv[1]) / "kubelet", folder, daemon)
    except (RuntimeError, TimeoutError, ExceptionGroup) as exc:
        print(f"failed: {exc!r}; the kubelet's log is {folder / 'kubelet.log'}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
