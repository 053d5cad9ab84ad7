"""Edged on a fake machine whose programs are told by the names of their containers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgesite.edge.edged.machine import LinuxMachine
from edgesite.edge.edged.runtime import ContainerConfig, ContainerState, ContainerStatus
from edgesite.net.real import RealClock
from edgesite.testing.edgedrig import edged_rig
from edgesite.testing.fakemeta import FakeCloud
from edgesite.testing.fakeruntime import FakeEngine, FakeRuntime, Script

__all__ = ["IMAGE", "Machine", "condition", "container", "pod", "running_container"]

IMAGE = "docker.io/library/busybox:1"


def pod(name: str = "web", *, image: str = "docker.io/library/busybox:1", **spec: Any) -> dict[str, Any]:
    containers = spec.pop("containers", [{"name": "main", "image": image}])
    return {"metadata": {"name": name}, "spec": {"containers": containers, **spec}}


class Machine:
    """An engine whose programs are told by the first word of their command."""

    def __init__(self) -> None:
        self.scripts: dict[str, Script] = {}
        self.started: list[str] = []
        self.engine = FakeEngine(
            RealClock(),
            self._script,
            images=["docker.io/library/busybox:1"],
            registry=lambda reference: "missing" not in reference,
            started=lambda container: self.started.append(container.config.name),
        )

    def _script(self, config: ContainerConfig) -> Script:
        return self.scripts.get(config.name, Script())

    async def is_empty(self) -> bool:
        return not self.engine.sandboxes

    def rig(self, path: Path, cloud: FakeCloud | None = None, host: LinuxMachine | None = None, **settings: Any) -> Any:
        return edged_rig(lambda ctx: FakeRuntime(self.engine), path, cloud=cloud, settings=settings, machine=host)


def container(cloud: FakeCloud, name: str = "web", index: int = 0, init: bool = False) -> dict[str, Any]:
    member = "initContainerStatuses" if init else "containerStatuses"
    found = cloud.status(name).get(member) or []
    return found[index] if len(found) > index else {}


def condition(cloud: FakeCloud, kind: str, name: str = "web") -> str:
    return next((one["status"] for one in cloud.status(name).get("conditions") or () if one["type"] == kind), "")


def running_container(name: str, **more: Any) -> ContainerStatus:
    """A container that runs, as a runtime tells of it."""
    return ContainerStatus(
        id=f"id-of-{name}",
        name=name,
        attempt=0,
        state=ContainerState.RUNNING,
        created_ns=1,
        started_ns=2,
        finished_ns=0,
        exit_code=0,
        image=IMAGE,
        image_ref=IMAGE,
        reason="",
        message="",
        labels={},
        annotations={},
        **more,
    )
