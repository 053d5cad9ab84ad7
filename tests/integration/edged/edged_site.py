"""Edged on a containerd of one's own: pods as tests write them, what they say, and that nothing of them stays."""

from __future__ import annotations

import functools
import os
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from edgesite.context import Context
from edgesite.edge.edged.cri.runtime import CriRuntime
from edgesite.edge.edged.machine import Machine
from edgesite.testing.containerd import BUSYBOX, Containerd
from edgesite.testing.edgedrig import NODE, Rig, edged_rig
from edgesite.testing.fakemeta import FakeCloud
from edgesite.testing.runtime import running
from edgesite.testing.waiting import until

__all__ = [
    "FOREVER",
    "UIDS",
    "clean_rig",
    "container",
    "is_ready",
    "none_runs",
    "nothing_left",
    "output",
    "pod",
    "rig_on",
    "state",
]

UIDS = f"t{os.getpid()}-"  #: what uids of pods begin with
FOREVER = ["/bin/sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"]


def rig_on(
    daemon: Containerd,
    path: Path,
    cloud: FakeCloud | None = None,
    finish_s: float = 5.0,
    *,
    timeout_s: float = 30.0,
    settings: dict[str, Any] | None = None,
    machine: Machine | None = None,
    endpoint: str = "",
) -> AbstractAsyncContextManager[Rig]:
    """``endpoint`` stands between edged and the daemon."""

    def runtime(ctx: Context) -> CriRuntime:
        return CriRuntime(endpoint or daemon.endpoint, "", request_timeout_s=timeout_s, finish_s=finish_s)

    return edged_rig(runtime, path, cloud=cloud or FakeCloud(NODE, uids=UIDS), settings=settings, machine=machine)


def container(name: str = "main", command: list[str] | None = None, **more: Any) -> dict[str, Any]:
    return {"name": name, "image": BUSYBOX, "imagePullPolicy": "IfNotPresent", "command": command or FOREVER, **more}


def pod(name: str, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    spec.setdefault("terminationGracePeriodSeconds", 2)
    return {"metadata": {"name": name, "labels": {"app": name}}, "spec": {"containers": list(containers), **spec}}


def is_ready(cloud: FakeCloud, name: str) -> bool:
    found = cloud.status(name).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in found)


def state(cloud: FakeCloud, name: str, index: int = 0) -> dict[str, Any]:
    found = cloud.status(name).get("containerStatuses") or []
    return found[index]["state"] if len(found) > index else {}


async def output(rig: Rig, name: str, container_name: str = "main", attempt: int = 0) -> str:
    uid = rig.cloud.pod(name)["metadata"]["uid"]
    log = anyio.Path(rig.data_dir, "edged", "logs", f"default_{name}_{uid}", container_name, f"{attempt}.log")
    return "".join(line.split(" ", 3)[3] for line in (await log.read_text()).splitlines(keepends=True))


@asynccontextmanager
async def clean_rig(daemon: Containerd, path: Path, **options: Any) -> AsyncGenerator[Rig]:
    """Edged on the shared containerd; at the end every pod is deleted, and nothing of them may be left."""
    async with rig_on(daemon, path, **options) as started:
        yield started
        uids = await all_deleted(started, daemon)
    await nothing_left(daemon, path, uids)


async def all_deleted(rig: Rig, daemon: Containerd) -> tuple[str, ...]:
    """Delete every pod and wait until they are gone with all that they had; return their uids."""
    for kind, namespace, name in tuple(rig.cloud.objects):
        if kind == "pod":
            await rig.cloud.delete(name, namespace=namespace, grace_s=1)
    await rig.cloud.until(lambda: not any(key[0] == "pod" for key in rig.cloud.objects))
    uids = tuple(rig.cloud.history)
    await until(functools.partial(none_runs, daemon))  # a sandbox goes a moment after its pod,
    await until(functools.partial(_no_files, rig.data_dir))  # its files after it,
    await until(functools.partial(_no_cgroups, uids))  # and then its cgroup
    return uids


async def _no_files(path: Path) -> bool:
    return not [one for place in ("pods", "logs") async for one in anyio.Path(path, "edged", place).glob("*")]


async def none_runs(daemon: Containerd) -> bool:
    """Whether the runtime has no sandbox any more."""
    async with running(CriRuntime(daemon.endpoint, "", request_timeout_s=30.0)) as runtime:
        return not await runtime.list_sandboxes()


async def nothing_left(daemon: Containerd, path: Path, uids: Sequence[str]) -> None:
    """Neither sandboxes nor their addresses, nor mounts, nor cgroups of pods with these uids."""
    async with running(CriRuntime(daemon.endpoint, "", request_timeout_s=30.0)) as runtime:
        assert list(await runtime.list_sandboxes()) == []
        assert list(await runtime.list_containers()) == []
    assert daemon.addresses() == []
    assert not [line for line in _mounts() if str(path) in line]
    assert await anyio.to_thread.run_sync(_pods_cgroups, uids) == []


async def _no_cgroups(uids: Sequence[str]) -> bool:
    return not await anyio.to_thread.run_sync(_pods_cgroups, uids)


def _pods_cgroups(uids: Sequence[str]) -> list[str]:
    """``os.walk`` passes over folders that go away meanwhile: cgroups of others do."""
    names = {f"pod{one}" for one in uids}
    return [
        folder for folder, _, _ in os.walk("/sys/fs/cgroup") if "/kubepods/" in folder and Path(folder).name in names
    ]


def _mounts() -> Iterator[str]:
    yield from Path("/proc/self/mountinfo").read_text().splitlines()
