"""A node as a Go edgecore v1.12 leaves it: configuration, database, folders, and pods in the container runtime.

Written from what edgecore v1.12.7 was seen to write, by hand and with nothing of edged's own, so that adoption is tested against
facts. `GoNode.container_annotations` holds the hash that Kubernetes' own Go code computes for `CONTAINER`.

Source  KubeEdge v1.12.7: its database; Kubernetes v1.22, pkg/kubelet (kuberuntime labels, folders of volumes, log paths).
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesite.edge.edged.runtime import ContainerConfig, LinuxResources, Mount, Runtime, SandboxConfig
from edgesite.testing.containerd import BUSYBOX

NODE = "edge-1"
UID = "5f3a1c52-0b1e-4a57-9d3c-6f0d2f8f9a11"
SCRIPT = "trap 'exit 0' TERM; echo hello from go; sleep 1000 & wait"
CONTAINER: dict[str, Any] = {
    "name": "main",
    "image": BUSYBOX,
    "command": ["/bin/sh", "-c", SCRIPT],
    "resources": {"requests": {"cpu": "10m"}},
    "volumeMounts": [
        {"name": "conf", "mountPath": "/conf"},
        {"name": "keys", "readOnly": True, "mountPath": "/keys"},
        {"name": "work", "mountPath": "/work"},
        {"name": "data", "mountPath": "/data", "subPath": "sub"},
    ],
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
    "imagePullPolicy": "IfNotPresent",
}
#: As Kubernetes' own types, encoder and hash give it for CONTAINER.
CONTAINER_HASH = "5148fbe8"
_TABLES = (
    "CREATE TABLE `meta` (\n    `key` varchar(256) NOT NULL PRIMARY KEY,\n    `type` varchar(32) NOT NULL DEFAULT '' ,\n    `value` text\n)",
    "CREATE TABLE `meta_v2` (\n    `key` varchar(256) NOT NULL PRIMARY KEY,\n    `groupversionresource` varchar(256) NOT NULL DEFAULT '' ,\n"
    "    `namespace` varchar(256) NOT NULL DEFAULT '' ,\n    `name` varchar(256) NOT NULL DEFAULT '' ,\n"
    "    `resourceversion` bigint unsigned NOT NULL DEFAULT 0 ,\n    `value` text\n)",
    "CREATE TABLE `device` (\n    `id` varchar(64) NOT NULL PRIMARY KEY,\n    `name` text,\n    `description` text,\n    `state` text,\n"
    "    `last_online` text\n)",
)


@dataclass(slots=True)
class GoNode:
    """``root`` stands for the host's own; ``endpoint`` is the container runtime's."""

    root: Path
    endpoint: str
    sandbox_id: str = ""
    container_id: str = ""

    @property
    def config_file(self) -> Path:
        return self.root / "etc/kubeedge/config/edgecore.yaml"

    @property
    def edged(self) -> Path:
        return self.root / "var/lib/edged"

    @property
    def logs(self) -> Path:
        return self.root / "var/log/pods"

    @property
    def database(self) -> Path:
        return self.root / "var/lib/kubeedge/edgecore.db"

    @property
    def pod_folder(self) -> Path:
        return self.edged / "pods" / UID

    @property
    def data(self) -> Path:
        return self.root / "srv/data"

    def pod(self) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": "web",
                "namespace": "default",
                "uid": UID,
                "resourceVersion": "412",
                "creationTimestamp": "2026-11-20T05:06:24Z",
                "labels": {"app": "web"},
            },
            "spec": {
                "containers": [CONTAINER],
                "volumes": [
                    {"name": "conf", "configMap": {"name": "conf", "defaultMode": 420}},
                    {"name": "keys", "secret": {"secretName": "keys", "defaultMode": 420}},
                    {"name": "work", "emptyDir": {}},
                    {"name": "data", "hostPath": {"path": str(self.data), "type": ""}},
                ],
                "restartPolicy": "Always",
                "terminationGracePeriodSeconds": 2,
                "dnsPolicy": "ClusterFirst",
                "nodeName": NODE,
                "securityContext": {},
                "enableServiceLinks": True,
            },
            "status": {"phase": "Pending", "qosClass": "Burstable"},
        }

    def lay_out(self) -> None:
        """Make everything but what the runtime holds."""
        self._write_config()
        self._write_database()
        pod = self.pod_folder
        for folder in (
            "containers/main",
            "plugins/kubernetes.io~empty-dir/wrapped_conf",
            "volumes/kubernetes.io~empty-dir/work",
        ):
            (pod / folder).mkdir(parents=True)
        (pod / "plugins/kubernetes.io~empty-dir/wrapped_conf/ready").touch()
        (pod / "containers/main/0b9c7d2e").touch(mode=0o666)
        (pod / "etc-hosts").write_text("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n")
        (pod / "volumes/kubernetes.io~empty-dir/work/kept").write_text("kept\n")
        self._write_volume("kubernetes.io~configmap/conf", {"colour": "red"})
        secret = pod / "volumes/kubernetes.io~secret/keys"
        secret.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(secret)], check=True)
        self._write_volume("kubernetes.io~secret/keys", {"key": "hidden"})
        (self.data / "sub").mkdir(parents=True)
        (self.data / "sub/mine").write_text("mine\n")
        bound = pod / "volume-subpaths/data/main/3"
        bound.mkdir(parents=True)
        subprocess.run(["mount", "--bind", str(self.data / "sub"), str(bound)], check=True)
        (self.logs / f"default_web_{UID}" / "main").mkdir(parents=True)

    async def start_pod(self, runtime: Runtime, image_id: str) -> None:
        """Make the sandbox and the container, named and marked as kubelet does."""
        labels = {
            "io.kubernetes.pod.name": "web",
            "io.kubernetes.pod.namespace": "default",
            "io.kubernetes.pod.uid": UID,
        }
        sandbox = SandboxConfig(
            name="web",
            namespace="default",
            uid=UID,
            hostname="web",
            log_directory=str(self.logs / f"default_web_{UID}"),
            labels={"app": "web", **labels},
            annotations={"kubernetes.io/config.seen": "2026-11-20T05:06:25.1Z", "kubernetes.io/config.source": "api"},
            cgroup_parent=f"/kubepods/burstable/pod{UID}",
        )
        self.sandbox_id = await runtime.run_sandbox(sandbox)
        volumes = self.pod_folder / "volumes"
        mounts = (
            Mount("/conf", str(volumes / "kubernetes.io~configmap/conf"), readonly=True),
            Mount("/keys", str(volumes / "kubernetes.io~secret/keys"), readonly=True),
            Mount("/work", str(volumes / "kubernetes.io~empty-dir/work")),
            Mount("/data", str(self.pod_folder / "volume-subpaths/data/main/3")),
            Mount("/etc/hosts", str(self.pod_folder / "etc-hosts")),
            Mount("/dev/termination-log", str(self.pod_folder / "containers/main/0b9c7d2e")),
        )
        config = ContainerConfig(
            name="main",
            image=image_id,
            command=("/bin/sh", "-c", SCRIPT),
            mounts=mounts,
            labels=labels | {"io.kubernetes.container.name": "main"},
            annotations=self.container_annotations(),
            log_path="main/0.log",
            resources=LinuxResources(cpu_shares=10, oom_score_adj=1000),
        )
        self.container_id = await runtime.create_container(self.sandbox_id, config, sandbox)
        await runtime.start_container(self.container_id)

    def container_annotations(self) -> dict[str, str]:
        return {
            "io.kubernetes.container.hash": CONTAINER_HASH,
            "io.kubernetes.container.restartCount": "0",
            "io.kubernetes.container.terminationMessagePath": "/dev/termination-log",
            "io.kubernetes.container.terminationMessagePolicy": "File",
            "io.kubernetes.pod.terminationGracePeriod": "2",
        }

    def left(self) -> list[Path]:
        """What there is of the pod on the disk, names of its logs included."""
        folders = [self.pod_folder, self.logs / f"default_web_{UID}"]
        return [one for one in folders if one.exists()] + list((self.logs.parent / "containers").glob("*"))

    def rows(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """Rows of ``meta`` as its readers see them: type and object by key."""
        with sqlite3.connect(self.database) as connection:
            found = connection.execute("SELECT `key`, `type`, `value` FROM `meta`").fetchall()
        return {key: (kind, json.loads(value)) for key, kind, value in found}

    def _write_config(self) -> None:
        self.config_file.parent.mkdir(parents=True)
        pki = self.root / "etc/kubeedge"
        self.config_file.write_text(
            f"""apiVersion: edgecore.config.kubeedge.io/v1alpha2
kind: EdgeCore
database:
  dataSource: {self.database}
modules:
  edgeHub:
    enable: true
    heartbeat: 15
    httpServer: https://192.0.2.10:10002
    tlsCaFile: {pki}/ca/rootCA.crt
    tlsCertFile: {pki}/certs/server.crt
    tlsPrivateKeyFile: {pki}/certs/server.key
    websocket:
      enable: true
      server: 192.0.2.10:10000
  edged:
    enable: true
    hostnameOverride: {NODE}
    nodeIP: 192.0.2.7
    containerRuntime: remote
    remoteRuntimeEndpoint: {self.endpoint}
    remoteImageEndpoint: {self.endpoint}
    rootDirectory: {self.edged}
    tailoredKubeletConfig:
      cgroupDriver: cgroupfs
      address: 127.0.0.1
      readOnlyPort: 10350
"""
        )

    def _write_database(self) -> None:
        self.database.parent.mkdir(parents=True)
        meta = {"apiVersion": "v1", "metadata": {"namespace": "default", "creationTimestamp": "2026-11-20T05:06:24Z"}}
        conf = meta | {"kind": "ConfigMap", "data": {"colour": "red"}}
        conf["metadata"] = {**meta["metadata"], "name": "conf", "uid": "c-1", "resourceVersion": "401"}  # type: ignore[dict-item]
        keys = meta | {"kind": "Secret", "type": "Opaque", "data": {"key": "aGlkZGVu"}}
        keys["metadata"] = {**meta["metadata"], "name": "keys", "uid": "s-1", "resourceVersion": "402"}  # type: ignore[dict-item]
        rows = [("default/pod/web", "pod", self.pod()), ("default/configmap/conf", "configmap", conf)]
        rows.append(("default/secret/keys", "secret", keys))
        with sqlite3.connect(self.database) as connection:
            for table in _TABLES:
                connection.execute(table)
            for key, kind, value in rows:
                text = json.dumps(value, sort_keys=True, separators=(",", ":"))
                connection.execute("INSERT INTO `meta` VALUES (?, ?, ?)", (key, kind, text))
        connection.close()

    def _write_volume(self, name: str, files: dict[str, str]) -> None:
        target = self.pod_folder / "volumes" / name
        version = target / "..2026_11_20_05_06_25.123456789"
        version.mkdir(parents=True)
        os.symlink(version.name, target / "..data")
        for file, text in files.items():
            (version / file).write_text(text)
            (version / file).chmod(0o644)
            os.symlink(f"..data/{file}", target / file)
