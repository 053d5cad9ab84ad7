"""Adoption: edgesite starts over a node on which a Go edgecore v1.12 has run pods, and leaves it so that Go can take it back."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from go_node import CONTAINER, CONTAINER_HASH, NODE, UID, GoNode

from edgesite.context import Context, Section
from edgesite.edge.edged.cri.runtime import CriRuntime
from edgesite.edge.edged.module import Edged
from edgesite.edge.edged.runtime import ContainerStatus, Runtime
from edgesite.edge.edged.server.source import LogSource
from edgesite.edge.edged.volumes.host import remove_tree
from edgesite.edge.metamanager.module import MetaManager
from edgesite.net.real import RealClock, RealDisk, RealNet, RealThreads
from edgesite.runtime.config.validate import Request, validate
from edgesite.runtime.paths import edge_defaults
from edgesite.runtime.role import RoleHost, World
from edgesite.testing.containerd import BUSYBOX, Containerd
from edgesite.testing.runtime import running
from edgesite.testing.waiting import until
from edgesite.wire.message import MessageMaker

pytestmark = pytest.mark.anyio
LABEL = {"io.kubernetes.pod.uid": UID}


class CriHooks:
    """Offers the CRI runtime where the configuration says, and nothing else."""

    def __init__(self) -> None:
        self.endpoint = ""

    def admission(self, settings: Any) -> list[Any]:
        return []

    def resources(self) -> list[Any]:
        return []

    def loaded(self) -> dict[str, str]:
        return {}

    def runtime(self, name: str, config: Section) -> Callable[[Context], Runtime] | None:
        if name != "cri":
            return None
        self.endpoint = config["remoteRuntimeEndpoint"]
        return lambda ctx: CriRuntime(
            config["remoteRuntimeEndpoint"], config["remoteImageEndpoint"], request_timeout_s=30.0
        )


@asynccontextmanager
async def edge_on(node: GoNode) -> AsyncGenerator[RoleHost]:
    """Metamanager and edged on the node's own configuration file, with no cloud in reach."""
    defaults = edge_defaults(node.database.parent, kubeedge_paths=True, node_name="other", cloud="127.0.0.1")
    defaults["modules"]["edged"]["podLogsDirectory"] = str(node.logs)  # /var/log/pods, but for the test's own root
    defaults["modules"]["edged"]["devicePluginsDirectory"] = str(node.logs.parent / "device-plugins")  # as above
    values, _ = validate(Request("EdgeCore", file=str(node.config_file), underlay={"edge": defaults}))
    threads = RealThreads()
    world = World(RealClock(), random.Random(1), RealNet(), threads, RealDisk(), CriHooks(), {"version": "0.0"})
    section = Section(values["edge"])
    name = section.modules.edged.hostnameOverride
    host = RoleHost("edge", [MetaManager, Edged], section, world, data_dir=node.database.parent, node_name=name)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(host.run)
            with anyio.fail_after(60):
                await host.ready.wait()
            yield host
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await threads.close()


@pytest.fixture
async def runtime(daemon: Containerd) -> AsyncGenerator[Runtime]:
    async with running(CriRuntime(daemon.endpoint, "", request_timeout_s=30.0)) as opened:
        yield opened


@pytest.fixture
async def node(daemon: Containerd, runtime: Runtime, tmp_path: Path) -> AsyncGenerator[GoNode]:
    made = GoNode(tmp_path, daemon.endpoint)
    try:
        await anyio.to_thread.run_sync(made.lay_out)
        image = await runtime.image_status(BUSYBOX)
        assert image is not None
        await made.start_pod(runtime, image.id)
        yield made
        assert list(await runtime.list_sandboxes()) == []
        assert list(await runtime.list_containers()) == []
        assert str(tmp_path) not in await anyio.Path("/proc/self/mountinfo").read_text()
        assert await anyio.to_thread.run_sync(_cgroups) == []
        assert made.left() == []
    finally:
        await anyio.to_thread.run_sync(remove_tree, made.edged)  # of a test that failed
    assert (made.data / "sub/mine").read_text() == "mine\n", "what was bound into the pod is the host's"


def _cgroups() -> list[str]:
    return [folder for folder, _, _ in os.walk("/sys/fs/cgroup") if folder.endswith(f"/pod{UID}")]


def status_of(host: RoleHost) -> dict[str, Any]:
    pods = host.services.get(LogSource).pods()  # type: ignore[type-abstract]
    return next((one["status"] for one in pods if one["metadata"]["uid"] == UID), {})


def is_ready(host: RoleHost) -> bool:
    conditions = {one["type"]: one["status"] for one in status_of(host).get("conditions") or ()}
    return conditions.get("Ready") == "True"


async def from_cloud(host: RoleHost, operation: str, resource: str, obj: dict[str, Any]) -> None:
    maker = MessageMaker(RealClock().time, random.getrandbits)
    await host.bus.send("metamanager", maker.make("edgecontroller", "resource", operation, resource, obj))


async def the_container(runtime: Runtime) -> ContainerStatus:
    listed = sorted(await runtime.list_containers(labels=LABEL), key=lambda one: one.attempt)
    return await runtime.container_status(listed[-1].id)


async def read(runtime: Runtime, container_id: str, path: str) -> str:
    done = await runtime.exec_sync(container_id, ["/bin/cat", path], 60.0)
    assert done.exit_code == 0, done
    return done.stdout.decode()


async def end_pod(host: RoleHost, node: GoNode, runtime: Runtime) -> None:
    pod = node.pod()
    pod["metadata"] |= {
        "deletionTimestamp": "2026-11-20T06:00:00Z",
        "deletionGracePeriodSeconds": 1,
        "resourceVersion": "900",
    }
    await from_cloud(host, "update", "default/pod/web", pod)

    async def gone() -> bool:
        return not await runtime.list_sandboxes() and not node.left()

    await until(gone)


async def test_pods_of_a_go_edgecore_go_on_and_can_be_taken_back(node: GoNode, runtime: Runtime) -> None:
    before = await the_container(runtime)
    async with edge_on(node) as host:
        assert host.node_name == NODE
        await until(lambda: _ready(host))
        status = status_of(host)
        assert (status["phase"], status["containerStatuses"][0]["restartCount"]) == ("Running", 0)
        assert status["containerStatuses"][0]["containerID"] == f"containerd://{node.container_id}"
        assert status["podIP"]
        found = await the_container(runtime)
        assert (found.id, found.started_ns) == (before.id, before.started_ns)
        assert [one.id for one in await runtime.list_sandboxes()] == [node.sandbox_id]
        assert await read(runtime, node.container_id, "/data/mine") == "mine\n"

        kept = [("/keys/key", "hidden"), ("/work/kept", "kept\n"), ("/conf/colour", "red")]
        assert [await read(runtime, node.container_id, path) for path, _ in kept] == [text for _, text in kept]
        conf = node.rows()["default/configmap/conf"][1]
        conf |= {"data": {"colour": "green"}, "metadata": conf["metadata"] | {"resourceVersion": "501"}}
        await from_cloud(host, "update", "default/configmap/conf", conf)
        keys = node.rows()["default/secret/keys"][1]
        keys |= {"data": {"key": "c2hvd24="}, "metadata": keys["metadata"] | {"resourceVersion": "502"}}
        await from_cloud(host, "update", "default/secret/keys", keys)

        async def refreshed() -> bool:
            files = [await read(runtime, node.container_id, path) for path in ("/conf/colour", "/keys/key")]
            return files == ["green", "shown"]

        await until(refreshed)
        assert (await the_container(runtime)).id == node.container_id

        await anyio.to_thread.run_sync(_kill_inside, node.container_id)

        async def again() -> bool:
            return is_ready(host) and status_of(host)["containerStatuses"][0]["restartCount"] == 1

        await until(again)
    await as_go_reads_it(node, runtime)
    async with edge_on(node) as host:
        await until(lambda: _ready(host))
        assert (await the_container(runtime)).attempt == 1, "our own containers go on over a restart, too"
        await end_pod(host, node, runtime)


async def _ready(host: RoleHost) -> bool:
    return is_ready(host)


def _kill_inside(container_id: str) -> None:
    """Kill the container's first process from outside: from inside it cannot be."""
    found = subprocess.run(["pgrep", "-f", "echo hello from go"], capture_output=True, text=True, check=False)
    for pid in found.stdout.split():
        if container_id in Path(f"/proc/{pid}/cgroup").read_text():
            subprocess.run(["kill", "-9", pid], check=False)


async def as_go_reads_it(node: GoNode, runtime: Runtime) -> None:
    """What a kubelet of Go looks at when it starts: sandboxes and containers by their marks, folders, logs, and its database."""
    (sandbox,) = await runtime.list_sandboxes()
    assert sandbox.id == node.sandbox_id
    new = await the_container(runtime)
    labels = {"io.kubernetes.pod.name": "web", "io.kubernetes.pod.namespace": "default", **LABEL}
    assert new.labels.items() >= (labels | {"io.kubernetes.container.name": "main"}).items()
    wanted = node.container_annotations() | {"io.kubernetes.container.restartCount": "1"}
    assert new.annotations.items() >= wanted.items()
    assert new.annotations["io.kubernetes.container.hash"] == CONTAINER_HASH, "else it would be started once more"
    assert new.attempt == 1
    assert new.log_path == str(node.logs / f"default_web_{UID}/main/1.log")
    assert "hello from go" in await anyio.Path(new.log_path).read_text()
    name = anyio.Path(node.logs.parent, "containers", f"web_default_main-{new.id}.log")
    assert str(await name.readlink()) == new.log_path, "where collectors look for logs"
    mounted = {one.container_path: one.host_path for one in new.mounts}
    assert mounted["/dev/termination-log"].startswith(f"{node.pod_folder}/containers/main/")
    assert mounted["/etc/hosts"] == str(node.pod_folder / "etc-hosts")
    assert mounted["/conf"] == str(node.pod_folder / "volumes/kubernetes.io~configmap/conf")
    assert mounted["/data"] == str(node.pod_folder / "volume-subpaths/data/main/3")
    mounts = await anyio.Path("/proc/self/mountinfo").read_text()
    assert mounts.count(f"{node.pod_folder}/volumes/kubernetes.io~secret/keys ") == 1
    rows = node.rows()
    assert rows["default/pod/web"][0] == "pod"
    assert rows["default/pod/web"][1]["spec"]["containers"] == [CONTAINER]
    assert rows["default/configmap/conf"][1]["data"] == {"colour": "green"}
    assert json.loads(json.dumps(rows["default/secret/keys"][1]))["data"] == {"key": "c2hvd24="}


async def test_a_pod_that_ended_while_nobody_ran_is_cleaned_up_by_its_marks(node: GoNode, runtime: Runtime) -> None:
    """The cloud deleted the pod and Go had removed its row, but not its containers yet."""
    import sqlite3

    with sqlite3.connect(node.database) as connection:
        connection.execute("DELETE FROM `meta` WHERE `type` = 'pod'")
        connection.execute(
            "CREATE TABLE `edgesite_ended` (`seq` integer PRIMARY KEY AUTOINCREMENT, `uid` text NOT NULL UNIQUE)"
        )
        connection.execute("INSERT INTO `edgesite_ended` (`uid`) VALUES (?)", (UID,))
    connection.close()
    async with edge_on(node):

        async def gone() -> bool:
            return not await runtime.list_sandboxes() and not node.left()

        await until(gone)


async def test_an_image_that_changed_meanwhile_is_what_replaces_a_container(node: GoNode, runtime: Runtime) -> None:
    """Members that only newer APIs default do not; a hash of Kubernetes 1.31 is known, too."""
    pod = node.pod()
    pod["spec"]["containers"] = [CONTAINER | {"imagePullPolicy": "Always"}]
    await anyio.to_thread.run_sync(_store, node, pod)
    async with edge_on(node) as host:
        await until(lambda: _ready(host))
        assert (await the_container(runtime)).id == node.container_id
        other = node.pod()
        other["metadata"]["resourceVersion"] = "600"
        other["spec"]["containers"] = [CONTAINER | {"image": "docker.io/library/none:1"}]
        await from_cloud(host, "update", "default/pod/web", other)

        async def stopped() -> bool:
            return (await the_container(runtime)).state.value == "exited"

        await until(stopped)
        await end_pod(host, node, runtime)


def _store(node: GoNode, pod: dict[str, Any]) -> None:
    import sqlite3

    with sqlite3.connect(node.database) as connection:
        connection.execute("UPDATE `meta` SET `value` = ? WHERE `type` = 'pod'", (json.dumps(pod, sort_keys=True),))
    connection.close()
