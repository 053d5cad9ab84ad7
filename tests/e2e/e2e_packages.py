"""Packages for tests, built from the frozen program, two versions of them, and how they get into a root."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from e2e_bundle import PROJECT

__all__ = ["NEWER", "OLDER", "Packages", "build", "dnf", "rpms"]

OLDER, NEWER = "0.1.0", "0.1.1"
_STUB = """\
Name: host-stub
Version: 1
Release: 1
Summary: Stands for what openEuler has and this root has otherwise
License: CC0-1.0
BuildArch: noarch
{provides}
%description
Stub.
%files
"""
_PROVIDES = ("/bin/sh", "ca-certificates", "systemd")
_GLIBC = range(17, 37)  #: Debian 12 has 2.36


@dataclass(frozen=True, slots=True)
class Packages:
    """Folders with the RPMs of either version, which are dnf repositories, and with debs of the older."""

    older: Path
    newer: Path
    stub: Path
    debs: Path


def build(folder: Path, bundle: Path) -> Packages:
    """Build them all from the frozen program, compressed as little as possible."""
    made = Packages(folder / "older", folder / "newer", folder / "stub", folder / "debs")
    rpms(made.older, bundle, OLDER)
    rpms(made.newer, bundle, NEWER)
    words = ("--rpms", made.older, "--out", made.debs, "--compression", "none")
    _call(sys.executable, PROJECT / "packaging" / "deb" / "build.py", *words)
    _stub(made.stub, folder)
    return made


def rpms(out: Path, bundle: Path, release: str) -> None:
    words = ("--bundle", bundle, "--out", out, "--release", release, "--payload", "w1.gzdio")
    _call(sys.executable, PROJECT / "rpm" / "build.py", *words)


def dnf(root: Path, packages: Packages, *command: str) -> str:
    """Run dnf of this machine on a root, with nothing but our repository and the stub's."""
    repositories = {"kubeedge": packages.older, "stub": packages.stub}
    named = [
        word for name, path in repositories.items() for word in (f"--repofrompath={name},{path}", f"--repo={name}")
    ]
    return _call(
        *("dnf", "--assumeyes", f"--installroot={root}", "--releasever=1", "--nogpgcheck", *named),
        *("--setopt=reposdir=/nonexistent", f"--setopt=cachedir={root.parent / 'dnf'}", *command),
    )


def _stub(out: Path, folder: Path) -> None:
    spec = folder / "host-stub.spec"
    names = [*_PROVIDES, *(f"libc.so.6(GLIBC_2.{minor})(64bit)" for minor in _GLIBC)]
    spec.write_text(_STUB.format(provides="\n".join(f"Provides: {name}" for name in names)))
    _call("rpmbuild", "-bb", "--define", f"_topdir {folder / 'rpmbuild'}", "--define", f"_rpmdir {out}", spec)
    _call("createrepo_c", "--quiet", out)


def _call(*argv: str | Path) -> str:
    words = [str(word) for word in argv]
    # Debian's rpm keeps its database at home; the time would be the last commit's, which may change meanwhile.
    environment = os.environ | {"HOME": "/root", "SOURCE_DATE_EPOCH": "1700000000"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False, timeout=300)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout
