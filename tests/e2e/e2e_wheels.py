"""Wheels of what is installed beside the tests, made again: so that a plugin's dependencies can be given to the frozen program without a network."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Collection, Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration" / "cli"))
from wheelmaker import record_of

_LEFT_OUT = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}


def dependency_wheels(requirements: Iterable[str], present: Collection[str], folder: Path) -> list[Path]:
    """Return wheels of all that is required, directly or not, and is not ``present`` (canonical names)."""
    made: dict[str, Path] = {}
    waiting = [Requirement(one) for one in requirements]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if name in made or name in present or name == "edgesite":
            continue
        found = metadata.distribution(name)
        made[name] = _wheel(found, folder)
        for line in found.requires or ():
            one = Requirement(line)
            if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in (*wanted.extras, "")):
                waiting.append(one)
    return list(made.values())


def _wheel(found: metadata.Distribution, folder: Path) -> Path:
    files = {
        str(one): found.locate_file(one).read_bytes()
        for one in found.files or ()
        if ".." not in one.parts and one.name not in _LEFT_OUT and one.suffix != ".pyc"
    }
    info = next(name.partition("/")[0] for name in files if name.endswith(".dist-info/METADATA"))
    tags = [line[5:] for line in files[f"{info}/WHEEL"].decode().splitlines() if line.startswith("Tag: ")]
    tag = next(
        (one for one in tags if not one.startswith("py2")), tags[0]
    )  # of both, the name has the one that counts here
    path = folder / f"{info.removesuffix('.dist-info')}-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        archive.writestr(f"{info}/RECORD", record_of(files) + f"{info}/RECORD,,\n")
    return path
