"""Credentials for registries from programs of others, which are run when an image is to be pulled.

A program gets a request on its standard input and answers on its standard output; what it says is kept for as long as it says. One
that fails is logged, and the pull goes on without it.

Units   Seconds.
Errors  BadProviders from `read_providers`; none leave `CredentialPlugins.credentials`.
State   Answers in memory, bounded, until they expire.
Source  Kubernetes credentialprovider.kubelet.k8s.io/v1 and kubelet.config.k8s.io/v1 CredentialProviderConfig: members, matching of
        images, kinds of cache keys; kubelet lets a program run for a minute.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio

from edgesite.context import Clock, Threads
from edgesite.edge.edged.imagenames import matches_registry, of_auths, repository
from edgesite.edge.edged.runtime import RegistryAuth
from edgesite.kube import json
from edgesite.kube.times import InvalidTime, parse_duration

__all__ = ["BadProviders", "CredentialPlugins", "Provider", "read_providers"]

RUN_S: Final = 60.0
ANSWERS: Final = 512
ANSWER_BYTES: Final = 1 << 20
SAID: Final = 400  #: characters of what a failed program wrote that are logged
VERSIONS: Final = tuple(f"credentialprovider.kubelet.k8s.io/{one}" for one in ("v1", "v1beta1", "v1alpha1"))
Log = logging.Logger | logging.LoggerAdapter[logging.Logger]


class BadProviders(ValueError):
    """The file of providers cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Provider:
    name: str
    api_version: str
    match_images: tuple[str, ...]
    cache_s: float
    args: tuple[str, ...] = ()
    env: Mapping[str, str] | None = None


def read_providers(path: Path, programs: Path) -> list[Provider]:
    """Read the configuration, and see that the programs are there. Blocking. Raises BadProviders, OSError."""
    import yaml

    try:
        data = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise BadProviders(f"{path} is not YAML: {exc}") from exc
    if not isinstance(data, dict) or data.get("kind") != "CredentialProviderConfig":
        raise BadProviders(f"{path} is no CredentialProviderConfig")
    found = [_provider(one) for one in data.get("providers") or ()]
    if not found:
        raise BadProviders(f"{path} names no providers")
    for one in found:
        if not os.access(programs / one.name, os.X_OK):
            raise BadProviders(f"plugin binary executable {programs / one.name} did not exist")
    return found


def _provider(said: Any) -> Provider:
    """Raises BadProviders."""
    if not isinstance(said, dict):
        raise BadProviders("a provider is a map")
    name, version = str(said.get("name") or ""), str(said.get("apiVersion") or "")
    images = tuple(str(one) for one in said.get("matchImages") or ())
    if not name or "/" in name or name in (".", "..") or " " in name:
        raise BadProviders(f"provider name {name!r} cannot be the name of a program")
    if version not in VERSIONS:
        raise BadProviders(f"provider {name}: apiVersion must be one of {', '.join(VERSIONS)}")
    if not images:
        raise BadProviders(f"provider {name}: matchImages is empty")
    try:
        cache_s = parse_duration(str(said["defaultCacheDuration"]))
    except (KeyError, InvalidTime) as exc:
        raise BadProviders(f"provider {name}: defaultCacheDuration is needed") from exc
    env = {
        str(one["name"]): str(one.get("value") or "")
        for one in said.get("env") or ()
        if isinstance(one, dict) and one.get("name")
    }
    return Provider(name, version, images, cache_s, tuple(str(one) for one in said.get("args") or ()), env)


@dataclass(slots=True)
class _Answer:
    auths: Mapping[str, Any]
    until: float  # monotonic


class CredentialPlugins:
    """``providers`` are asked in their order."""

    def __init__(self, providers: list[Provider], programs: Path, clock: Clock, log: Log) -> None:
        self._providers, self._programs, self._clock, self._log = providers, programs, clock, log
        self._answers: dict[tuple[str, str], _Answer] = {}  # by provider and cache key
        self._locks: dict[str, anyio.Lock] = {one.name: anyio.Lock() for one in providers}

    @classmethod
    async def of(cls, config: Path, programs: Path, clock: Clock, threads: Threads, log: Log) -> CredentialPlugins:
        """Read what is configured. Raises BadProviders, OSError."""
        return cls(await threads.run(read_providers, config, programs), programs, clock, log)

    async def credentials(self, image: str) -> list[RegistryAuth]:
        """Return what the providers have for an image, the most specific first."""
        found: list[tuple[int, RegistryAuth]] = []
        for provider in self._providers:
            if any(matches_registry(one, image) is not None for one in provider.match_images):
                async with self._locks[provider.name]:  # a pod of ten containers asks once
                    auths = await self._auths(provider, image)
                found += of_auths(auths, image)
        return [auth for _, auth in sorted(found, key=lambda one: -one[0])]

    async def _auths(self, provider: Provider, image: str) -> Mapping[str, Any]:
        now = self._clock.monotonic()
        for key in _keys(image):
            answer = self._answers.get((provider.name, key))
            if answer is not None and answer.until > now:
                return answer.auths
        said = await self._run(provider, image)
        if said is None:
            return {}
        auths = said.get("auth")
        auths = auths if isinstance(auths, dict) else {}
        kinds = dict(zip(("Image", "Registry", "Global"), _keys(image), strict=True))
        kept_as = kinds.get(said.get("cacheKeyType", ""))
        cache_s = provider.cache_s
        if (text := said.get("cacheDuration")) is not None:
            try:
                cache_s = parse_duration(str(text))
            except InvalidTime:
                cache_s = 0.0
        if kept_as is not None and cache_s > 0:
            self._answers = {name: one for name, one in self._answers.items() if one.until > now}
            while len(self._answers) >= ANSWERS:
                del self._answers[next(iter(self._answers))]
            self._answers[provider.name, kept_as] = _Answer(auths, now + cache_s)
        return auths

    async def _run(self, provider: Provider, image: str) -> dict[str, Any] | None:
        """Ask the program; None if it has no answer that can be used."""
        request = {"kind": "CredentialProviderRequest", "apiVersion": provider.api_version, "image": repository(image)}
        command = [str(self._programs / provider.name), *provider.args]
        try:
            with anyio.fail_after(RUN_S):
                done = await anyio.run_process(
                    command, input=json.dumps(request), check=False, env={**os.environ, **(provider.env or {})}
                )
        except (OSError, TimeoutError) as exc:  # the latter is one, too
            self._log.warning("credential provider=%s cannot be run: %s", provider.name, exc or "it took too long")
            return None
        if done.returncode:
            why = done.stderr.decode(errors="replace").strip()[:SAID]
            self._log.warning("credential provider=%s failed with %d: %s", provider.name, done.returncode, why)
            return None
        try:
            said = json.loads(done.stdout[:ANSWER_BYTES])
        except ValueError:
            said = None  # not logged: there may be credentials in it
        is_answer = isinstance(said, dict) and said.get("kind") == "CredentialProviderResponse"
        if not is_answer or said.get("apiVersion") != provider.api_version:
            self._log.warning("credential provider=%s gave no CredentialProviderResponse", provider.name)
            return None
        return dict(said)


def _keys(image: str) -> tuple[str, str, str]:
    """Under what an answer for the image may be kept: the image, its registry, anything."""
    name = repository(image)
    return name, f"registry {name.partition('/')[0]}", "global"
