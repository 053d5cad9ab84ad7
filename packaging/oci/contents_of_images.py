"""Which images there are: the program under the names of KubeEdge's images, each started as its own part."""

from __future__ import annotations

import re
import time as clock
from pathlib import Path
from typing import Final

import elf
from base import USER
from image import Image, Platform
from layer import Tree

__all__ = ["PLATFORMS", "all_of", "lacking", "program", "version"]

PLATFORMS: Final = {
    "x86_64": Platform("amd64"),
    "aarch64": Platform("arm64", "v8"),
    "armv7l": Platform("arm", "v7"),
}
_BUNDLE: Final = "usr/lib/kubeedge"
#: Names of the program. KubeEdge's images have theirs in /usr/local/bin.
_NAMES: Final = ("edgesite", "cloudcore", "edgecore", "keadm", "iptablesmanager", "iptables-manager")
_ENVIRONMENT: Final = {
    "PATH": "/usr/local/bin:/usr/sbin:/usr/bin",
    "HOME": "/var/lib/kubeedge",
    "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt",
}
#: Only the standard library's ``nis`` needs it, a protocol that nobody should speak.
_LEFT_OUT: Final = frozenset({"libnsl.so.2"})
_HUB_PORTS: Final = ("10000/tcp", "10001/udp", "10002/tcp", "10003/tcp", "10004/tcp")


def program(bundle: Path) -> Tree:
    """Return the upper layer. Raises OSError."""
    made = Tree()
    made.copy(bundle, _BUNDLE)
    for name in _NAMES:
        made.link(f"usr/local/bin/{name}", f"/{_BUNDLE}/edgesite")
    return made


def all_of(repository: str, version: str, revision: str, time: int) -> list[Image]:
    common = {
        "org.opencontainers.image.created": clock.strftime("%Y-%m-%dT%H:%M:%SZ", clock.gmtime(time)),
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.revision": revision,
        "org.opencontainers.image.version": version,
    }

    def make(name: str, entrypoint: str, about: str, user: int, ports: tuple[str, ...] = ()) -> Image:
        titles = {"org.opencontainers.image.title": name, "org.opencontainers.image.description": about}
        return Image(
            f"{repository}/{name}:{version}", [entrypoint], f"{user}:{user}", ports, _ENVIRONMENT, common | titles
        )

    return [
        make("cloudcore", "cloudcore", "The cloud role of a KubeEdge site", USER, _HUB_PORTS),
        make("iptables-manager", "iptables-manager", "Leads an API server's connections to edge nodes", 0),
        make("edgecore", "edgecore", "The edge role of a KubeEdge site", 0),
    ]


def version(project: Path) -> str:
    """The images' tag: what ``cloudcore --version`` says, without the first word."""
    text = (project / "edgesite" / "__init__.py").read_text()
    found = re.search(r'^__version__ = "(.+)"', text, re.MULTILINE)
    assert found is not None
    return f"v1.12.7-edgesite.{found[1]}"


def lacking(bundle: Path, lowest: Tree) -> list[str]:
    """Return the libraries that files of the bundle need and the lower layer does not have. Raises OSError, ValueError.

    The bundle brings libraries too, which its program leads the loader to: they are there for all but itself.
    """
    below = {path.rpartition("/")[2] for path in lowest.paths()}
    inside = {one.name for one in bundle.rglob("*")}
    files = {one: elf.needed(one) for one in bundle.rglob("*") if one.is_file()}
    missing = {name for one, names in files.items() for name in names if name not in below}
    own = {name for name in files[bundle / "edgesite"] if name not in below}
    return sorted(missing - inside - _LEFT_OUT | own)
