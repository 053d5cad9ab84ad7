"""Small container images made here: OCI archives from a static busybox, without any image tool.

Source  OCI image-spec v1: image layout, manifest, config, layer media types.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgesite.kube import json
from edgesite.net.machine import architecture

__all__ = ["ImageParts", "build_image", "oci_archive"]

BUSYBOX: Final = Path("/bin/busybox")  #: Debian's busybox-static
APPLETS: Final = (
    "sh",
    "cat",
    "echo",
    "env",
    "expr",
    "false",
    "grep",
    "head",
    "hostname",
    "httpd",
    "id",
    "ip",
    "kill",
    "ls",
    "mkdir",
    "mount",
    "nc",
    "nslookup",
    "printenv",
    "ps",
    "pwd",
    "readlink",
    "rm",
    "sed",
    "seq",
    "sleep",
    "sort",
    "stat",
    "tail",
    "tee",
    "test",
    "touch",
    "tr",
    "true",
    "uname",
    "wc",
    "wget",
    "which",
    "date",
    "df",
    "dd",
    "mv",
    "cp",
    "ln",
    "chmod",
    "sync",
    "nproc",
    "awk",
    "tar",
    "sha256sum",
    "stty",
)
MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
CONFIG: Final = "application/vnd.oci.image.config.v1+json"
LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass(frozen=True, slots=True)
class ImageParts:
    """An image as a registry holds it: blobs by digest, and the digest of its manifest."""

    manifest_digest: str
    blobs: Mapping[str, bytes]

    @property
    def manifest(self) -> bytes:
        return self.blobs[self.manifest_digest]


def build_image(
    entrypoint: Sequence[str] = (),
    command: Sequence[str] = ("/bin/sh",),
    *,
    env: Mapping[str, str] | None = None,
    user: str = "",
    files: Mapping[str, bytes] | None = None,
) -> ImageParts:
    """Return an image of busybox with its applets in /bin. Raises OSError when the host has no busybox."""
    layer = _layer(files or {})
    packed = gzip.compress(layer, compresslevel=1, mtime=0)
    config = json.dumps(
        {
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "Env": [f"{name}={value}" for name, value in ({"PATH": "/bin:/usr/bin"} | dict(env or {})).items()],
                "Entrypoint": list(entrypoint) or None,
                "Cmd": list(command) or None,
                "User": user,
            },
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
    )
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": _descriptor(CONFIG, config),
            "layers": [_descriptor(LAYER, packed)],
        }
    )
    blobs = {_digest(one): one for one in (config, packed, manifest)}
    return ImageParts(_digest(manifest), blobs)


def oci_archive(images: Mapping[str, ImageParts]) -> bytes:
    """Return an OCI archive of ``images`` by name ("docker.io/library/busybox:test"), for ``ctr images import``."""
    index = {
        "schemaVersion": 2,
        "manifests": [
            _descriptor(MANIFEST, parts.manifest) | {"annotations": {"io.containerd.image.name": name}}
            for name, parts in images.items()
        ],
    }
    blobs = {digest: blob for parts in images.values() for digest, blob in parts.blobs.items()}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        _add(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _add(archive, "index.json", json.dumps(index))
        for digest, blob in blobs.items():
            _add(archive, f"blobs/sha256/{digest.removeprefix('sha256:')}", blob)
    return out.getvalue()


def _layer(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as layer:
        for folder, mode in (("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777), ("root", 0o700), ("var", 0o755)):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            layer.addfile(entry)
        _add(layer, "bin/busybox", BUSYBOX.read_bytes(), 0o755)
        for applet in APPLETS:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            layer.addfile(entry)
        _add(layer, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/tmp:/bin/sh\n")
        _add(layer, "etc/group", b"root:x:0:\napp:x:1000:\n")
        for name, content in files.items():
            _add(layer, name.lstrip("/"), content)
    return out.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _descriptor(kind: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": kind, "digest": _digest(data), "size": len(data)}
