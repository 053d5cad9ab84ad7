"""Images of layers, and the archive of them that ``ctr``, ``docker``, ``podman`` and ``skopeo`` all take.

The archive is an OCI layout in a tar, with the ``manifest.json`` of ``docker save`` beside it.

Source  OCI image-spec v1: config, manifest, index, layout. Docker image specification v1.2 (manifest.json).
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import time as clock
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from layer import Layer

__all__ = ["Image", "Platform", "write"]

_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_INDEX: Final = "application/vnd.oci.image.index.v1+json"
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True, slots=True)
class Platform:
    """By the names that Go has for it."""

    architecture: str
    variant: str = ""

    def as_object(self) -> dict[str, str]:
        words = {"architecture": self.architecture, "os": "linux"}
        return words | ({"variant": self.variant} if self.variant else {})


@dataclass(frozen=True, slots=True)
class Image:
    """What is run, by whom. ``name`` has repository and tag."""

    name: str
    entrypoint: Sequence[str]
    user: str
    ports: Sequence[str] = ()  #: such as "10000/tcp"
    environment: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


def write(
    path: Path, images: Sequence[Image], layers: Mapping[str, Layer], platform: Platform, time: int
) -> dict[str, str]:
    """Write the archive of all images; every image has all layers. Returns name → digest of the manifest. Raises OSError.

    ``layers`` is by what made them, which goes into the images' history.
    """
    blobs: dict[str, bytes] = {}
    index: list[dict[str, Any]] = []
    docker: list[dict[str, Any]] = []
    for image in images:
        config = _store(blobs, _CONFIG, _config(image, layers, platform, time))
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": config,
            "layers": [{"mediaType": _LAYER, "digest": one.digest, "size": one.size} for one in layers.values()],
            "annotations": dict(image.labels),
        }
        names = {
            "io.containerd.image.name": _full(image.name),
            "org.opencontainers.image.ref.name": image.name,
        }
        index.append(_store(blobs, _MANIFEST, manifest) | {"platform": platform.as_object(), "annotations": names})
        places = [_place(one.digest) for one in layers.values()]
        docker.append({"Config": _place(config["digest"]), "RepoTags": [image.name], "Layers": places})
    members: dict[str, bytes | Path] = {
        "oci-layout": _text({"imageLayoutVersion": "1.0.0"}),
        "index.json": _text({"schemaVersion": 2, "mediaType": _INDEX, "manifests": index}),
        "manifest.json": _text(docker),
        **{_place(digest): blob for digest, blob in blobs.items()},
        **{_place(one.digest): one.path for one in layers.values()},
    }
    _archive(path, members, time)
    return {image.name: one["digest"] for image, one in zip(images, index, strict=True)}


def _config(image: Image, layers: Mapping[str, Layer], platform: Platform, time: int) -> dict[str, Any]:
    created = clock.strftime("%Y-%m-%dT%H:%M:%SZ", clock.gmtime(time))
    return {
        "created": created,
        **platform.as_object(),
        "config": {
            "User": image.user,
            "ExposedPorts": {port: {} for port in image.ports},
            "Env": [f"{name}={value}" for name, value in image.environment.items()],
            "Entrypoint": list(image.entrypoint),
            "WorkingDir": "/",
            "Labels": dict(image.labels),
            "StopSignal": "SIGTERM",
        },
        "rootfs": {"type": "layers", "diff_ids": [one.diff_id for one in layers.values()]},
        "history": [{"created": created, "created_by": how} for how in layers],
    }


def _store(blobs: dict[str, bytes], kind: str, obj: Any) -> dict[str, Any]:
    """Add a document and return its descriptor."""
    blob = _text(obj)
    digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
    blobs[digest] = blob
    return {"mediaType": kind, "digest": digest, "size": len(blob)}


def _archive(path: Path, members: Mapping[str, bytes | Path], time: int) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("blobs", "blobs/sha256", *sorted(members)):
            info = tarfile.TarInfo(name)
            info.mtime, content = time, members.get(name)
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(info)
            elif isinstance(content, Path):
                info.size = content.stat().st_size
                with content.open("rb") as file:
                    archive.addfile(info, file)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def _place(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _full(name: str) -> str:
    """The name as containerd has it: with the registry."""
    first, slash, _ = name.partition("/")
    has_registry = slash and ("." in first or ":" in first or first == "localhost")
    return name if has_registry else f"docker.io/{name}"


def _text(obj: Any) -> bytes:
    return json.dumps(obj, sort_keys=True, separators=(",", ":")).encode()
