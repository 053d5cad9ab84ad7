"""The lowest layer of the images: a C library, iptables and CA certificates out of Debian's packages, two users and nothing else.

There is no shell and no package manager. Each package leaves its copyright file, and its entry in ``var/lib/dpkg/status.d``,
by which scanners tell what is in an image.

Errors  BuildFailed.
"""

from __future__ import annotations

import posixpath
import tarfile
from fnmatch import fnmatchcase
from typing import Final

from binaries import Binary, Release, contents
from command import BuildFailed
from layer import Tree

__all__ = ["LEGACY", "PACKAGES", "RELEASE", "USER", "tree"]

RELEASE: Final = "bookworm"

USER: Final = 65532  #: number of user and group ``kubeedge``
LEGACY: Final = (
    "usr/lib/iptables-legacy"  #: first in PATH, it makes ``iptables`` the one with the kernel's older interface
)

#: Package → what is taken of it. Shared libraries of the same package come with their links.
PACKAGES: Final[dict[str, tuple[str, ...]]] = {
    "libc6": tuple(
        f"*/{name}.so.*"
        for name in [
            "libc",
            "libm",
            "libdl",
            "libpthread",
            "librt",
            "libutil",
            "libresolv",
            "libnss_dns",
            "libnss_files",
            "ld-linux*",
        ]
    ),
    "libcrypt1": ("*/libcrypt.so.1*",),
    "libgcc-s1": ("*/libgcc_s.so.1",),
    "iptables": ("usr/sbin/xtables-*-multi", "*/xtables/*.so"),
    "libxtables12": ("*.so.*",),
    "libip4tc2": ("*.so.*",),
    "libip6tc2": ("*.so.*",),
    "libmnl0": ("*.so.*",),
    "libnftnl11": ("*.so.*",),
    "libnfnetlink0": ("*.so.*",),
    "libnetfilter-conntrack3": ("*.so.*",),
    "zlib1g": ("*.so.*",),
    "ca-certificates": (),
}
_MERGED: Final = ("bin", "lib", "lib64", "sbin")
_IPTABLES: Final = tuple(f"{name}{what}" for name in ("iptables", "ip6tables") for what in ("", "-save", "-restore"))
_PASSWD: Final = f"""\
root:x:0:0:root:/root:/sbin/nologin
kubeedge:x:{USER}:{USER}:KubeEdge:/var/lib/kubeedge:/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin
"""
_GROUP: Final = f"root:x:0:\nkubeedge:x:{USER}:\nnogroup:x:65534:\n"
_NSSWITCH: Final = "passwd: files\ngroup: files\nhosts: files dns\n"


def tree(release: Release) -> tuple[Tree, list[Binary]]:
    """Return the files, and the packages that they are from. Raises BuildFailed."""
    made = Tree()
    for name in _MERGED:
        made.folder(f"usr/{name}")
        made.link(name, f"usr/{name}")
    packages = []
    for name in sorted(PACKAGES):
        package, path = release.newest(name)
        packages.append(package)
        with contents(path) as archive:
            _take(made, archive, package)
    _settle(made)
    return made, packages


def _take(made: Tree, archive: tarfile.TarFile, package: Binary) -> None:
    wanted, missing = PACKAGES[package.name], set(PACKAGES[package.name])
    certificates = []
    for member in sorted(archive.getmembers(), key=lambda one: one.name):
        path = member.name.removeprefix("./")
        if path == f"usr/share/doc/{package.name}/copyright":
            _put(made, archive, member, path)
        if path.startswith("usr/share/ca-certificates/") and path.endswith(".crt"):
            certificates.append(_read(archive, member))
        for pattern in wanted:
            if fnmatchcase(f"/{path}" if pattern.startswith("*/") else path, pattern) and not member.isdir():
                _put(made, archive, member, path)
                missing.discard(pattern)
    if missing:
        raise BuildFailed(f"{package.name} {package.version} has no {', '.join(sorted(missing))}")
    if certificates:
        made.file("etc/ssl/certs/ca-certificates.crt", b"".join(certificates))
    made.file(f"var/lib/dpkg/status.d/{package.name}", f"{package.stanza}\n".encode())


def _put(made: Tree, archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
    top = path.partition("/")[0]
    place = f"usr/{path}" if top in _MERGED else path
    if member.issym():
        made.link(place, member.linkname)
    else:
        made.file(place, _read(archive, member), member.mode & 0o755)


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    if file is None:
        raise BuildFailed(f"{member.name} of a Debian package is no file")
    with file:
        return file.read()


def _settle(made: Tree) -> None:
    """What packages do when they are installed, users, and folders that may be written."""
    for name in _IPTABLES:
        made.link(f"usr/sbin/{name}", "xtables-nft-multi")
        made.link(f"{LEGACY}/{name}", posixpath.relpath("usr/sbin/xtables-legacy-multi", LEGACY))
    made.file("etc/passwd", _PASSWD.encode())
    made.file("etc/group", _GROUP.encode())
    made.file("etc/nsswitch.conf", _NSSWITCH.encode())
    made.folder("tmp", 0o1777)
    made.folder("run")
    made.link("var/run", "/run")
    made.folder("root", 0o700)
    for path in ("etc/kubeedge", "etc/kubeedge/config", "var/lib/kubeedge"):
        made.folder(path, 0o755, USER)  # root without CAP_DAC_OVERRIDE shall get in too
