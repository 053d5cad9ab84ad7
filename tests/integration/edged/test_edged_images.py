"""Pulls from a registry of our own, by all policies, with and without credentials."""

from __future__ import annotations

import base64
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import pytest
from edged_site import clean_rig

from edgesite.edge.edged import images
from edgesite.kube import json
from edgesite.net.http import HttpServer
from edgesite.net.real import RealClock, RealNet
from edgesite.testing.containerd import Containerd
from edgesite.testing.edgedrig import Rig
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


def pod(name: str, image: str, policy: str = "", **spec: Any) -> dict[str, Any]:
    main = {"name": "main", "image": image, "command": FOREVER} | ({"imagePullPolicy": policy} if policy else {})
    return {"metadata": {"name": name}, "spec": {"containers": [main], "terminationGracePeriodSeconds": 1, **spec}}


def waiting(rig: Rig, name: str) -> dict[str, str]:
    found = (rig.cloud.status(name).get("containerStatuses") or [{}])[0]
    return (found.get("state") or {}).get("waiting") or {}


async def test_a_pull_that_takes_long_tells_how_far_it_is(
    rig: Rig, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "PROGRESS_S", 0.1)
    registry.hold = anyio.Event()
    image = f"{registry.address}/team/app:1"
    await rig.cloud.apply("pod", pod("slow", image))
    text = f'Pulling image "{image}": 0.0 of '
    await rig.cloud.until(lambda: waiting(rig, "slow").get("message", "").startswith(text))
    assert waiting(rig, "slow")["reason"] == "ContainerCreating"
    registry.hold.set()
    await rig.cloud.until(lambda: rig.cloud.status("slow").get("phase") == "Running")


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
    # The daemon names the first registry that it had the same image from, which another test's may be.
    assert "/team/app@sha256:" in status["imageID"]


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
    await rig.cloud.until(lambda: ("pod", "default", "slow") not in rig.cloud.objects)
    registry.hold.set()


PROVIDER = """#!{python}
import json, sys
request = json.load(sys.stdin)
with open({calls!r}, "a") as out:
    out.write(json.dumps([request, sys.argv[1:], __import__("os").environ.get("WHO")]) + "\\n")
answer = {{"kind": "CredentialProviderResponse", "apiVersion": request["apiVersion"], "cacheKeyType": "Registry"}}
answer["auth"] = {{{registry!r}: {{"username": "user", "password": "password"}}}}
print(json.dumps(answer))
"""


async def test_a_credential_provider_opens_a_private_registry(
    daemon: Containerd, registry: Registry, tmp_path: Path
) -> None:
    registry.credentials = ("user", "password")
    for name in ("one", "two"):
        registry.images[f"guarded/{name}:1"] = build_image()
    programs, calls = tmp_path / "programs", tmp_path / "calls"
    programs.mkdir()
    text = PROVIDER.format(python=sys.executable, calls=str(calls), registry=registry.address)
    (programs / "giver").write_text(text)
    (programs / "giver").chmod(0o755)
    provider = {
        "name": "giver",
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "matchImages": [registry.address, "*.example.com"],
        "defaultCacheDuration": "1h",
        "args": ["--fast"],
        "env": [{"name": "WHO", "value": "edge"}],
    }
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1",
        "kind": "CredentialProviderConfig",
        "providers": [provider],
    }
    (tmp_path / "providers.yaml").write_bytes(json.dumps(config))
    settings = {
        "imageCredentialProviderConfigFile": str(tmp_path / "providers.yaml"),
        "imageCredentialProviderBinDir": str(programs),
    }
    async with clean_rig(daemon, tmp_path, settings=settings) as rig:
        for name in ("one", "two"):
            await rig.cloud.apply("pod", pod(name, f"{registry.address}/guarded/{name}:1"))
            await rig.cloud.until(lambda name=name: rig.cloud.status(name).get("phase") == "Running")
    (said,) = [json.loads(line) for line in calls.read_bytes().splitlines()]  # one answer for the whole registry
    request = {
        "kind": "CredentialProviderRequest",
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "image": f"{registry.address}/guarded/one",
    }
    assert said == [request, ["--fast"], "edge"]
