"""A disk for images that is really full: what runs goes on, what needs an image waits, and comes up once there is room."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest
from edged_site import FOREVER, clean_rig, container, is_ready, pod, state

from edgesite.net.http import HttpServer
from edgesite.net.real import RealClock, RealNet
from edgesite.testing.containerd import Containerd, containerd
from edgesite.testing.images import build_image
from edgesite.testing.registry import Registry

pytestmark = pytest.mark.anyio
STORE_MIB = 48
IMAGE_BYTES = 6 << 20


@pytest.fixture
def small() -> Iterator[Containerd]:
    with containerd(store_mib=STORE_MIB) as started:
        yield started


@pytest.fixture
async def registry() -> AsyncGenerator[Registry]:
    registry = Registry({"team/large:1": build_image(files={"large": os.urandom(IMAGE_BYTES)})})
    async with HttpServer(registry.handle, clock=RealClock()) as server:
        registry.address = (await server.listen(RealNet(), "127.0.0.1:0")).address
        yield registry


def fill(path: Path, leave: int) -> None:
    """Make a file that leaves so many bytes of its disk."""
    about = os.statvfs(path.parent)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, about.f_bavail * about.f_frsize - leave)


async def test_a_full_image_store_holds_up_only_what_needs_an_image(
    small: Containerd, registry: Registry, tmp_path: Path
) -> None:
    large: dict[str, Any] = {
        "name": "main",
        "image": f"{registry.address}/team/large:1",
        "command": FOREVER,
    }
    ballast = small.root / "root" / "ballast"
    async with clean_rig(small, tmp_path) as rig:
        await rig.cloud.apply("pod", pod("before", container()))
        await rig.cloud.until(lambda: is_ready(rig.cloud, "before"))
        fill(ballast, IMAGE_BYTES // 2)
        await rig.cloud.apply("pod", pod("large", large))
        reasons: set[str] = set()

        def refused() -> bool:
            waiting = state(rig.cloud, "large").get("waiting") or {}
            reasons.add(waiting.get("reason", ""))
            return waiting.get("reason") == "ImagePullBackOff" or "no space left" in waiting.get("message", "")

        await rig.cloud.until(refused)
        said = [one["message"] for one in rig.cloud.events.values() if one["reason"] == "Failed"]
        assert any("no space left on device" in one for one in said), said
        assert rig.cloud.status("large")["phase"] == "Pending"
        await rig.cloud.apply("pod", pod("after", container()))
        await rig.cloud.until(lambda: is_ready(rig.cloud, "after"))
        assert is_ready(rig.cloud, "before")
        assert rig.cloud.status("before")["containerStatuses"][0]["restartCount"] == 0
        ballast.unlink()
        await rig.cloud.until(lambda: is_ready(rig.cloud, "large"), 60)
