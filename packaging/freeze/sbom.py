"""What the bundle consists of, as a CycloneDX document: distributions, the interpreter, and the libraries of the build root.

Errors  BuildFailed.
Source  CycloneDX 1.6 JSON; package URLs (purl-spec): types pypi, deb, generic.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from email.parser import HeaderParser
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import root
from command import BuildFailed
from layout import Architecture

__all__ = ["document", "root_libraries"]

_NAMESPACE: Final = uuid.UUID("6f0c2c3e-8f1b-5c60-9a5d-0a4c1e3a7b52")
_HERE_ALREADY: Final = ("libpython3", "libcrypto.so.3", "libssl.so.3")  #: built, not taken from a package


def document(
    folder: Path, target: Architecture, versions: Mapping[str, str], libraries: Mapping[str, str], time: int
) -> str:
    """Return the document for the one-folder bundle in ``folder``; ``libraries`` are Debian packages and their versions."""
    program, *others = _distributions(folder)
    components = [
        *others,
        _source("python3.11", "CPython", versions, "PSF-2.0"),
        _source("openssl", "OpenSSL", versions, "Apache-2.0"),
    ]
    for package, version in sorted(libraries.items()):
        purl = f"pkg:deb/debian/{package}@{quote(version, safe='')}?arch={target.debian}"
        components.append({"type": "library", "bom-ref": purl, "name": package, "version": version, "purl": purl})
    content = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": program | {"type": "application", "hashes": [_hash(folder / "edgesite")]},
            "properties": [{"name": "edgesite:architecture", "value": target.name}],
        },
        "components": sorted(components, key=lambda one: str(one["bom-ref"])),
        "dependencies": [
            {"ref": program["bom-ref"], "dependsOn": sorted(str(one["bom-ref"]) for one in components)},
        ],
    }
    serial = uuid.uuid5(_NAMESPACE, json.dumps(content, sort_keys=True))
    return json.dumps({"serialNumber": f"urn:uuid:{serial}"} | content, indent=1, sort_keys=True) + "\n"


def root_libraries(folder: Path, target: Architecture) -> dict[str, str]:
    """Return the Debian packages of the build root that libraries of the bundle were taken from. Raises BuildFailed."""
    versions, owners = root.versions(target.root), root.owners(target.root)
    packages = {"libc6": versions["libc6"]}  # in the static file
    for path in sorted(folder.glob("lib*.so*")):
        if path.name.startswith(_HERE_ALREADY):
            continue
        if path.name not in owners:
            raise BuildFailed(f"where {path.name} comes from is unknown")
        packages[owners[path.name]] = versions[owners[path.name]]
    return packages


def _distributions(folder: Path) -> list[dict[str, Any]]:
    """What is installed, the program first."""
    found = []
    for place in sorted((folder / "_internal").glob("*.dist-info")):
        fields = HeaderParser().parsestr((place / "METADATA").read_text())
        name, version = fields["Name"], fields["Version"]
        purl = f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"
        entry: dict[str, Any] = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
        if expression := fields["License-Expression"]:
            entry["licenses"] = [{"expression": expression}]
        elif (license_text := fields["License"]) and "\n" not in license_text:
            entry["licenses"] = [{"license": {"name": license_text}}]
        found.append(entry)
    return sorted(found, key=lambda one: (one["name"] != "edgesite", one["name"].lower()))


def _source(key: str, name: str, versions: Mapping[str, str], spdx: str) -> dict[str, Any]:
    version = versions["python" if key == "python3.11" else key]
    purl = f"pkg:deb/debian/{key}@{quote(version, safe='')}?arch=source"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        "licenses": [{"license": {"id": spdx}}],
    }


def _hash(path: Path) -> dict[str, str]:
    return {"alg": "SHA-256", "content": hashlib.sha256(path.read_bytes()).hexdigest()}
