"""Credential providers: what of their configuration is taken, when they are asked, how long their answers last."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from edgesite.edge.edged.credentialplugins import BadProviders, CredentialPlugins, Provider, read_providers
from edgesite.edge.edged.imagenames import matches_registry
from edgesite.kube import json

pytestmark = pytest.mark.anyio
VERSION = "credentialprovider.kubelet.k8s.io/v1"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


class Counted(CredentialPlugins):
    """Answers without a program."""

    def __init__(self, provider: Provider, clock: Clock, **answer: Any) -> None:
        super().__init__([provider], Path(), clock, logging.getLogger("test"))
        self.asked: list[str] = []
        self.answer = answer

    async def _run(self, provider: Provider, image: str) -> dict[str, Any] | None:
        self.asked.append(image)
        return self.answer or None


def provider(*images: str, cache_s: float = 60.0) -> Provider:
    return Provider("giver", VERSION, images or ("*.example.com",), cache_s)


@pytest.mark.parametrize(
    ("key", "image", "fits"),
    [
        ("*.example.com", "a.example.com/x/y:1", True),
        ("*.example.com", "b.a.example.com/x", False),
        ("*.*.example.com", "b.a.example.com/x", True),
        ("a.example.com/team", "a.example.com/team/app", True),
        ("a.example.com/team", "a.example.com/other", False),
        ("a.example.com:8080", "a.example.com:8080/app", True),
        ("a.example.com:8080", "a.example.com/app", False),
        ("docker.io", "busybox", True),
    ],
)
def test_which_images_a_key_is_for(key: str, image: str, fits: bool) -> None:
    assert (matches_registry(key, image) is not None) is fits


@pytest.mark.parametrize(
    ("kind", "again", "asked"),
    [
        ("Image", "a.example.com/x:2", 1),
        ("Image", "a.example.com/y", 2),
        ("Registry", "a.example.com/y", 1),
        ("Registry", "b.example.com/x", 2),
        ("Global", "b.example.com/x", 1),
        ("", "a.example.com/x", 2),
    ],
)
async def test_for_what_an_answer_is_kept(kind: str, again: str, asked: int) -> None:
    plugins = Counted(
        provider(), Clock(), cacheKeyType=kind, auth={"*.example.com": {"username": "u", "password": "p"}}
    )
    for image in ("a.example.com/x:1", again):
        assert [one.username for one in await plugins.credentials(image)] == ["u"]
    assert len(plugins.asked) == asked


@pytest.mark.parametrize(("said", "lasts"), [(None, 60.0), ("10s", 10.0), ("0s", 0.0), ("nonsense", 0.0)])
async def test_how_long_an_answer_is_kept(said: str | None, lasts: float) -> None:
    clock, image = Clock(), "a.example.com/x"
    more = {} if said is None else {"cacheDuration": said}
    plugins = Counted(provider(), clock, cacheKeyType="Image", auth={}, **more)
    await plugins.credentials(image)
    clock.now = max(lasts - 1, 0)
    await plugins.credentials(image)
    assert len(plugins.asked) == (1 if lasts else 2)
    clock.now = lasts + 1
    await plugins.credentials(image)
    assert len(plugins.asked) == (2 if lasts else 3)


async def test_others_images_and_programs_that_fail() -> None:
    plugins = Counted(provider(), Clock())
    assert await plugins.credentials("elsewhere.test/x") == []
    assert plugins.asked == []
    assert await plugins.credentials("a.example.com/x") == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "../giver"}, "cannot be the name of a program"),
        ({"apiVersion": "v0"}, "apiVersion must be one of"),
        ({"matchImages": []}, "matchImages is empty"),
        ({"defaultCacheDuration": "soon"}, "defaultCacheDuration is needed"),
        ({"name": "absent"}, "did not exist"),
    ],
)
def test_providers_that_cannot_be_used(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    (tmp_path / "giver").touch(0o755)
    said = {"name": "giver", "apiVersion": VERSION, "matchImages": ["*.x"], "defaultCacheDuration": "1h"}
    config = {"kind": "CredentialProviderConfig", "providers": [said]}
    (tmp_path / "config").write_bytes(json.dumps(config))
    assert [one.name for one in read_providers(tmp_path / "config", tmp_path)] == ["giver"]
    odd = {"env": ["text", {"name": "A", "value": 1}]}
    (tmp_path / "config").write_bytes(json.dumps(config | {"providers": [said | odd]}))
    assert read_providers(tmp_path / "config", tmp_path)[0].env == {"A": "1"}
    (tmp_path / "config").write_bytes(json.dumps(config | {"providers": [said | change]}))
    with pytest.raises(BadProviders, match=words):
        read_providers(tmp_path / "config", tmp_path)
