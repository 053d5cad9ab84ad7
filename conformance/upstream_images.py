"""The images that Kubernetes' end-to-end tests name, built here from programs that the host has: for a registry on loopback.

agnhost is upstream's own program, given by its path. The other images hold busybox, curl, bash and OpenBSD's nc of the host: the tests ask of them
a shell, a web server or a fixed user only.

Errors  OSError for programs that are missing, RuntimeError for those whose libraries cannot be listed.
State   None.
Source  Kubernetes v1.20, test/utils/image/manifest.go (names, tags) and test/images/ (entry points, users, what stands where).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import platform
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgesite.kube import json
from edgesite.testing.images import CONFIG, LAYER, MANIFEST, ImageParts

__all__ = ["AUTHENTICATED", "e2e_images", "repositories"]

AUTHENTICATED: Final = "authenticated/alpine:3.7"  #: what only the registry with credentials serves
_BUSYBOX: Final = Path("/bin/busybox")
_HOST_PROGRAMS: Final = {"curl": "curl", "bash": "bash", "nc": "nc.openbsd"}
_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DOCUMENTS: Final = "usr/local/apache2/htdocs"  #: from where tests take the page away
_SERVE: Final = ("httpd", "-f", "-p", "80", "-h", f"/{_DOCUMENTS}")
_LIBRARY: Final = ("httpd:2.4.38-alpine", "httpd:2.4.39-alpine", "nginx:1.14-alpine", "nginx:1.15-alpine")


@dataclass(frozen=True, slots=True)
class _Layer:
    diff_id: str
    packed: bytes


def repositories(open_registry: str, closed_registry: str) -> dict[str, str]:
    """Return the contents of the file that KUBE_TEST_REPO_LIST names; ``invalidRegistry`` stays what it is."""
    e2e = f"{open_registry}/e2e"
    return {
        "dockerLibraryRegistry": f"{open_registry}/library",
        "e2eRegistry": e2e,
        "e2eVolumeRegistry": f"{e2e}/volume",
        "promoterE2eRegistry": e2e,
        "gcRegistry": e2e,
        "buildImageRegistry": e2e,
        "sigStorageRegistry": e2e,
        "gcrReleaseRegistry": e2e,
        "sampleRegistry": e2e,
        "gcAuthenticatedRegistry": f"{closed_registry}/authenticated",
        "privateRegistry": f"{closed_registry}/authenticated",
    }


def e2e_images(agnhost: Path, nonewprivs: Path | None) -> dict[str, ImageParts]:
    """Return the images by name and tag. Raises OSError, RuntimeError."""
    base = _base_layer()
    # Debian's busybox looks for its own applets first: as agnhost's shell it would never run the host's curl and nc.
    links = {"agnhost-2": "agnhost", "pause": "agnhost", "bin/sh": "/usr/bin/bash"}
    tool = _layer({"agnhost": agnhost}, links=links, folders=("uploads",))
    library = [base]
    with_agnhost = [base, tool]
    pause = _image(with_agnhost, entrypoint=("/agnhost", "pause"))
    images = {
        "e2e/agnhost:2.21": _image(with_agnhost, entrypoint=("/agnhost",), command=("pause",)),
        "e2e/pause:3.2": pause,
        "library/busybox:1.29": _image(library, command=("sh",)),
        "e2e/nonroot:1.0": _image(library, command=("sh",), user="1234"),
        "e2e/ipc-utils:1.0": _image(library, command=("sh",)),
        AUTHENTICATED: _image(library, command=("sh",)),
    }
    images |= {f"library/{name}": _image(library, command=_SERVE) for name in _LIBRARY}
    if nonewprivs is not None:
        setuid = _layer({"usr/local/bin/nnp": nonewprivs}, mode=0o6755)
        images["e2e/nonewprivs:1.0"] = _image([base, setuid], command=("nnp",))
    return images


def _base_layer() -> _Layer:
    applets = subprocess.run([_BUSYBOX, "--list"], capture_output=True, check=True, text=True).stdout.split()
    own = ("busybox", *_HOST_PROGRAMS)
    links = {f"bin/{one}": "busybox" for one in applets if one not in own}
    files = {"bin/busybox": _BUSYBOX}
    for name, where in _HOST_PROGRAMS.items():
        program = Path(shutil.which(where) or f"/usr/bin/{where}")
        files[f"usr/bin/{name}"] = program
        files |= {str(one).lstrip("/"): one for one in _libraries(program)}
    texts = {
        "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        "etc/group": b"root:x:0:\nnobody:x:65534:\n",
        f"{_DOCUMENTS}/index.html": b"<html><body><h1>It works!</h1></body></html>\n",
    }
    return _layer(files, links=links, texts=texts, folders=("etc", "root", "var", "home", "mnt", "usr/sbin"))


def _libraries(program: Path) -> list[Path]:
    """Shared libraries and the loader of a program, as its loader finds them. Raises RuntimeError."""
    done = subprocess.run(["ldd", program], capture_output=True, check=False, text=True)
    if done.returncode:
        raise RuntimeError(f"libraries of {program} cannot be listed: {done.stderr}")
    return [Path(word) for line in done.stdout.splitlines() for word in line.split() if word.startswith("/")]


def _layer(
    files: dict[str, Path],
    *,
    mode: int = 0o755,
    links: dict[str, str] | None = None,
    texts: dict[str, bytes] | None = None,
    folders: Sequence[str] = (),
) -> _Layer:
    out = io.BytesIO()
    # Parents that a layer does not name are made for root alone.
    above = {str(one) for name in (*files, *(texts or {})) for one in Path(name).parents if one.name}
    with tarfile.open(fileobj=out, mode="w") as layer:
        for name, bits in {**dict.fromkeys(sorted({*above, *folders}), 0o755), "tmp": 0o1777}.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, bits
            layer.addfile(entry)
        for name, path in files.items():
            _add(layer, name, path.read_bytes(), mode)
        for name, text in (texts or {}).items():
            _add(layer, name, text, 0o644)
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            layer.addfile(entry)
    content = out.getvalue()
    return _Layer(_digest(content), gzip.compress(content, compresslevel=1, mtime=0))


def _add(layer: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    layer.addfile(entry, io.BytesIO(content))


def _image(
    layers: Sequence[_Layer], *, entrypoint: Sequence[str] = (), command: Sequence[str] = (), user: str = ""
) -> ImageParts:
    machine = platform.machine()
    config = json.dumps(
        {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine),
            "os": "linux",
            "config": {
                "Env": [_PATH],
                "Entrypoint": list(entrypoint) or None,
                "Cmd": list(command) or None,
                "User": user,
            },
            "rootfs": {"type": "layers", "diff_ids": [one.diff_id for one in layers]},
        }
    )
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": _descriptor(CONFIG, config),
            "layers": [_descriptor(LAYER, one.packed) for one in layers],
        }
    )
    return ImageParts(
        _digest(manifest), {_digest(one): one for one in (config, *(layer.packed for layer in layers), manifest)}
    )


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _descriptor(kind: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": kind, "digest": _digest(data), "size": len(data)}
