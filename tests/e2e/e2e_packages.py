"""Packages for tests, built from the frozen program, two versions of them, and how they get into a root."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from e2e_bundle import PROJECT

__all__ = ["NEWER", "OLDER", "Packages", "build", "dnf", "of_openeuler", "rpms"]

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
_PROVIDES = ("/bin/sh", "ca-certificates", "mosquitto", "systemd")
_GLIBC = range(17, 37)  #: Debian 12 has 2.36
#: What openEuler's own packages of KubeEdge are called, need and hold, by src-openeuler/kubeedge 1.8.0-3; the meta package is empty.
_OPENEULER = """\
Name: kubeedge
Version: 1.8.0
Release: 3
Summary: Stands for the packages of openEuler
License: Apache-2.0
BuildArch: noarch
%description
Stub.
%package keadm
Summary: keadm
Requires: mosquitto
Provides: keadm = %{version}
%description keadm
Stub.
%package cloudcore
Summary: cloudcore
Provides: cloudcore = %{version}
Provides: admission = %{version}
Provides: csidriver = %{version}
%description cloudcore
Stub.
%package edgecore
Summary: edgecore
Requires: mosquitto
Provides: edgecore = %{version}
%description edgecore
Stub.
%package edgesite
Summary: edgesite
Requires: mosquitto
Provides: edgesite-agent = %{version}
Provides: edgesite-server = %{version}
%description edgesite
Stub.
%install
bin=%{buildroot}/usr/local/bin etc=%{buildroot}/etc/kubeedge units=%{buildroot}/usr/lib/systemd/system
install -d $bin $units
install -d -m 0750 $etc $etc/config $etc/tools
install -d $etc/crds/devices $etc/crds/reliablesyncs $etc/crds/router
for name in keadm cloudcore edgecore admission csidriver edgesite-agent edgesite-server; do echo 1.8 > $bin/$name; done
for name in cloudcore edgecore; do
    echo 1.8 | tee $units/$name.service $etc/$name.service > $etc/config/$name.example.yaml
done
for name in devices/devices_v1alpha2_device reliablesyncs/objectsync_v1alpha1 router/router_v1_rule; do echo 1.8 > $etc/crds/$name.yaml; done
echo 1.8 | tee $etc/tools/certgen.sh $etc/kubeedge-v1.8.0-linux-amd64.tar.gz > $etc/checksum_kubeedge-v1.8.0-linux-amd64.tar.gz.txt
%files keadm
%attr(550,root,root) /usr/local/bin/keadm
/etc/kubeedge/cloudcore.service
/etc/kubeedge/edgecore.service
/etc/kubeedge/*.gz
/etc/kubeedge/*.txt
%files cloudcore
%attr(550,root,root) /usr/local/bin/cloudcore
%attr(550,root,root) /usr/local/bin/admission
%attr(550,root,root) /usr/local/bin/csidriver
/usr/lib/systemd/system/cloudcore.service
/etc/kubeedge/crds
/etc/kubeedge/tools/certgen.sh
%config(noreplace) /etc/kubeedge/config/cloudcore.example.yaml
%files edgecore
%attr(550,root,root) /usr/local/bin/edgecore
/usr/lib/systemd/system/edgecore.service
%config(noreplace) /etc/kubeedge/config/edgecore.example.yaml
%files edgesite
%attr(550,root,root) /usr/local/bin/edgesite-agent
%attr(550,root,root) /usr/local/bin/edgesite-server
"""


@dataclass(frozen=True, slots=True)
class Packages:
    """Folders with the RPMs of either version, which are dnf repositories, and with the debs."""

    older: Path
    newer: Path
    stub: Path
    debs: Path
    newer_debs: Path


def build(folder: Path, bundle: Path) -> Packages:
    """Build them all from the frozen program, compressed as little as possible."""
    made = Packages(*(folder / name for name in ("older", "newer", "stub", "debs", "newer-debs")))
    for release, out, debs in ((OLDER, made.older, made.debs), (NEWER, made.newer, made.newer_debs)):
        rpms(out, bundle, release)
        words = ("--rpms", out, "--out", debs, "--compression", "none")
        _call(sys.executable, PROJECT / "packaging" / "deb" / "build.py", *words)
    _stub(made.stub, folder)
    return made


def rpms(out: Path, bundle: Path, release: str) -> None:
    words = ("--bundle", bundle, "--out", out, "--release", release, "--payload", "w1.gzdio")
    _call(sys.executable, PROJECT / "rpm" / "build.py", *words)


def dnf(root: Path, packages: Packages, *command: str, repository: Path | None = None) -> str:
    """Run dnf of this machine on a root, with nothing but our repository, or another one in its place, and the stub's."""
    repositories = {"kubeedge": repository or packages.older, "stub": packages.stub}
    named = [
        word for name, path in repositories.items() for word in (f"--repofrompath={name},{path}", f"--repo={name}")
    ]
    return _call(
        *("dnf", "--assumeyes", f"--installroot={root}", "--releasever=1", "--nogpgcheck", *named),
        *("--setopt=reposdir=/nonexistent", f"--setopt=cachedir={root.parent / 'dnf'}", *command),
    )


def of_openeuler(folder: Path) -> Path:
    """Build a repository with what stands for openEuler's own packages."""
    return _repository(folder / "openeuler", _OPENEULER)


def _stub(out: Path, folder: Path) -> None:
    names = [*_PROVIDES, *(f"libc.so.6(GLIBC_2.{minor})(64bit)" for minor in _GLIBC)]
    _repository(out, _STUB.format(provides="\n".join(f"Provides: {name}" for name in names)))


def _repository(out: Path, text: str) -> Path:
    """Build a spec into a repository."""
    scratch = out.with_name(f"{out.name}-build")
    scratch.mkdir(parents=True)
    (spec := scratch / "stub.spec").write_text(text)
    _call("rpmbuild", "-bb", "--define", f"_topdir {scratch}", "--define", f"_rpmdir {out}", spec)
    _call("createrepo_c", "--quiet", out)
    return out


def _call(*argv: str | Path) -> str:
    words = [str(word) for word in argv]
    # Debian's rpm keeps its database at home; the time would be the last commit's, which may change meanwhile.
    environment = os.environ | {"HOME": "/root", "SOURCE_DATE_EPOCH": "1700000000"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False, timeout=300)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout
