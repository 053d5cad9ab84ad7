"""Makes wheels, good ones and bad ones."""

from __future__ import annotations

import base64
import hashlib
import stat
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ABI = "edgesite[plugin-abi-1]"


def record_of(files: Mapping[str, bytes]) -> str:
    rows = []
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(data)}\n")
    return "".join(rows)


def make_wheel(
    folder: Path,
    name: str = "acme",
    version: str = "1.0",
    *,
    files: Mapping[str, bytes] | None = None,
    tag: str = "py3-none-any",
    requires: Sequence[str] = (ABI,),
    entry_points: Mapping[str, str] | None = None,
    python: str = ">=3.11",
    unrecorded: Mapping[str, bytes] | None = None,
    tampered: Mapping[str, bytes] | None = None,
    link: str = "",
    wheel_version: str = "1.0",
) -> Path:
    """Write NAME-VERSION-TAG.whl. ``unrecorded`` files are not in RECORD, ``tampered`` ones are put in place of those that are."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    points = {name: f"{module}.plugin"} if entry_points is None else dict(entry_points)
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Python: {python}\n"
    metadata += "".join(f"Requires-Dist: {one}\n" for one in requires)
    contents = dict(
        files if files is not None else {f"{module}/__init__.py": b"", f"{module}/plugin.py": b"VALUE = 1\n"}
    )
    contents[f"{info}/METADATA"] = metadata.encode()
    contents[f"{info}/WHEEL"] = f"Wheel-Version: {wheel_version}\nRoot-Is-Purelib: true\nTag: {tag}\n".encode()
    if points:
        lines = "".join(f"{key} = {value}\n" for key, value in points.items())
        contents[f"{info}/entry_points.txt"] = f"[edgesite.plugins]\n{lines}".encode()
    record = record_of(contents) + f"{info}/RECORD,,\n"
    path = folder / f"{module}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, data in {**contents, **(tampered or {}), **(unrecorded or {})}.items():
            archive.writestr(file, data)
        if link:
            entry = zipfile.ZipInfo(link)
            entry.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(entry, "/etc/passwd")
        archive.writestr(f"{info}/RECORD", record)
    return path
