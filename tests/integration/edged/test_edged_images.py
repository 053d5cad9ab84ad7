"""Pulls from a registry of our own, by all policies, with and without credentials."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import pytest

from edgesite.edge.edged.cri.runtime import CriRuntime
from edgesite.kube import json
from edgesite.net.http import HttpServer
from edgesite.net.real import RealClock, RealNet
from edgesite.testing.containerd import Containerd
from edgesite.testing.edgedrig import Rig, edged_rig
from edgesite.testing.images import build_image
from edgesite.testing.registry import Registry

pytestmark = pytest.mark.anyio
FOREVER = ["/bin/sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"]


@pytest.fixture
async def registry() -> AsyncGenerator[Registry]:
    images = {"team/app:1": build_image(env={"WHO": "app"}), "team/latest:latest": build_image(env={"WHO": "latest"})}
    registry = Registry(images)
    async with HttpServer(registry.handle, clock=RealClock()) as server:
        listener = await server.listen(RealNet(), "127.0.0.1:0")
        registry.address = listener.address
        yield registry


@pytest.fixture
async def rig(daemon: Containerd, tmp_path: Path) -> AsyncGenerator[Rig]:
    async with edged_rig(lambda ctx: CriRuntime(daemon.endpoint, "", request_timeout_s=30.0), tmp_path) as started:
        yield started
        for kind, namespace, name in tuple(started.cloud.objects):
            if kind == "pod":
                await started.cloud.delete(name, namespace=namespace, grace_s=1)
        await started.cloud.until(lambda: not any(key[0] == "pod" for key in started.cloud.objects))


def pod(name: str, image: str, policy: str = "", **spec: Any) -> dict[str, Any]:
    main = {"name": "main", "image": image, "command": FOREVER} | ({"imagePullPolicy": policy} if policy else {})
    return {"metadata": {"name": name}, "spec": {"containers": [main], "terminationGracePeriodSeconds": 1, **spec}}


def waiting(rig: Rig, name: str) -> dict[str, str]:
    found = (rig.cloud.status(name).get("containerStatuses") or [{}])[0]
    return (found.get("state") or {}).get("waiting") or {}


async def test_an_image_is_pulled_once_when_it_may_be_present(rig: Rig, registry: Registry) -> None:
    image = f"{registry.address}/team/app:1"
    await rig.cloud.apply("pod", pod("first", image))
    await rig.cloud.until(lambda: rig.cloud.status("first").get("phase") == "Running")
    pulled = registry.manifests
    await rig.cloud.apply("pod", pod("second", image))
    await rig.cloud.until(lambda: rig.cloud.status("second").get("phase") == "Running")
    assert pulled > 0
    assert registry.manifests == pulled
    messages = [one["message"] for one in rig.cloud.events.values() if one["reason"] == "Pulled"]
    assert messages[0].startswith(f'Successfully pulled image "{image}" in ')
    assert messages[1] == f'Container image "{image}" already present on machine'
    status = rig.cloud.status("first")["containerStatuses"][0]
    assert status["imageID"].startswith(f"{registry.address}/team/app@sha256:")


async def test_latest_is_asked_for_at_each_start(rig: Rig, registry: Registry) -> None:
    image = f"{registry.address}/team/latest"
    await rig.cloud.apply("pod", pod("first", image))
    await rig.cloud.until(lambda: rig.cloud.status("first").get("phase") == "Running")
    pulled = registry.manifests
    await rig.cloud.apply("pod", pod("second", image))
    await rig.cloud.until(lambda: rig.cloud.status("second").get("phase") == "Running")
    assert registry.manifests > pulled


async def test_an_unknown_image_ends_in_back_off(rig: Rig, registry: Registry) -> None:
    image = f"{registry.address}/team/none:1"
    await rig.cloud.apply("pod", pod("none", image))
    await rig.cloud.until(lambda: waiting(rig, "none").get("reason") == "ErrImagePull")
    assert "not found" in waiting(rig, "none")["message"]
    await rig.cloud.until(lambda: waiting(rig, "none").get("reason") == "ImagePullBackOff")
    assert rig.cloud.status("none")["phase"] == "Pending"


async def test_a_pull_secret_opens_a_private_registry(rig: Rig, registry: Registry) -> None:
    registry.credentials = ("user", "password")
    registry.images["private/app:1"] = build_image()
    image = f"{registry.address}/private/app:1"
    await rig.cloud.apply("pod", pod("refused", image))
    await rig.cloud.until(lambda: waiting(rig, "refused").get("reason") == "ErrImagePull")
    auths = {"auths": {registry.address: {"username": "user", "password": "password"}}}
    data = {".dockerconfigjson": base64.b64encode(json.dumps(auths)).decode()}
    await rig.cloud.apply("secret", {"metadata": {"name": "pull"}, "data": data})
    await rig.cloud.delete("refused", grace_s=1)
    # The back-off is the image's, as kubelet has it, so the second pod uses another name of the same image.
    registry.images["private/app:2"] = registry.images["private/app:1"]
    opened = pod("opened", f"{registry.address}/private/app:2", imagePullSecrets=[{"name": "pull"}])
    await rig.cloud.apply("pod", opened)
    await rig.cloud.until(lambda: rig.cloud.status("opened").get("phase") == "Running")


async def test_a_pod_is_deleted_while_its_image_is_being_pulled(rig: Rig, registry: Registry) -> None:
    registry.hold = anyio.Event()
    registry.images["slow/app:1"] = build_image()
    await rig.cloud.apply("pod", pod("slow", f"{registry.address}/slow/app:1"))
    await rig.cloud.until(lambda: "Pulling" in rig.cloud.reasons())
    await rig.cloud.delete("slow", grace_s=1)
    await rig.cloud.until(lambda: ("pod", "default", "slow") not in rig.cloud.objects, 5)
    registry.hold.set()
