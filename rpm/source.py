"""The source archive of the spec: the bundle, the units, the configuration files that the program prints, and documents.

Errors  BuildFailed: the bundle cannot run here (for another architecture, qemu-user must be set up), or has no licence.
"""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

import yaml
from command import BuildFailed, run

__all__ = ["environment", "write"]

PROJECT: Final = Path(__file__).resolve().parent.parent
_DOCUMENTS: Final = ("services", "configuration", "external-cluster", "plugins", "process-runtime")


def environment(time_s: int) -> dict[str, str]:
    return os.environ | {"SOURCE_DATE_EPOCH": str(time_s), "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def write(archive: Path, bundle: Path, time_s: int) -> None:
    """Raises BuildFailed, OSError."""
    if not any((bundle / "_internal").glob("edgesite-*.dist-info/licenses/LICENSE")):
        raise BuildFailed(
            f"the bundle in {bundle} has no text of its licence: freeze it on Debian, or put LICENSE beside pyproject.toml"
        )
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="kubeedge-source.") as scratch:
        top = Path(scratch)
        shutil.copytree(bundle, top / "bundle", symlinks=True)
        shutil.copytree(PROJECT / "packaging" / "systemd", top / "systemd")
        _configuration(bundle / "edgesite", top / "config")
        _definitions(top / "crds")
        (top / "doc").mkdir()
        for name in _DOCUMENTS:
            shutil.copy(PROJECT / "docs" / f"{name}.md", top / "doc")
        _pack(top, archive, time_s)


def _configuration(program: Path, folder: Path) -> None:
    folder.mkdir()
    shutil.copy(PROJECT / "packaging" / "systemd" / "edgesite.yaml", folder)
    for kind, name in (("cloud", "cloudcore"), ("edge", "edgecore")):
        (folder / f"{name}.example.yaml").write_text(run([program, "config", "default", kind]))


def _definitions(folder: Path) -> None:
    """CustomResourceDefinitions by group, as KubeEdge's packages have them."""
    sys.path.insert(0, str(PROJECT))
    from edgesite.cloud.crds import definitions

    for one in definitions():
        path = folder / one["spec"]["group"].partition(".")[0] / f"{one['spec']['names']['plural']}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(one, sort_keys=True))


def _pack(top: Path, archive: Path, time_s: int) -> None:
    def settled(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = "root"
        entry.mtime = time_s
        entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
        return entry

    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as out:
        for path in sorted(top.rglob("*")):
            out.add(path, arcname=str(path.relative_to(top)), recursive=False, filter=settled)
