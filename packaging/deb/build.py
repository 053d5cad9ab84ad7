"""Builds Debian packages from the RPMs: ``python packaging/deb/build.py [--arch NAME] [--rpms DIR] [--out DIR]``.

The spec is the one description of the packages: names, files, configuration files, summaries and requirements are read from
what it built. Of Debian are the control files and maintainer scripts here, and that nothing lies in /usr/local.

Exit codes  0 done, 1 not built, 2 wrong usage.
Needs       rpm and rpm2archive, dpkg-deb.
"""

# ruff: noqa: E402  the build's own modules are found once their folders are on the path

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
sys.path[:0] = [str(HERE), str(PROJECT / "packaging" / "freeze")]

import scripts
from command import BuildFailed, run, say
from layout import ARCHITECTURES, named, native

#: What an RPM requires → the Debian package that has it; our own packages by their names.
_REQUIRES: Final = {"ca-certificates": "ca-certificates", "mosquitto": "mosquitto", "systemd": "systemd"}
_ARCHITECTURES: Final = {"armv7hl": "armhf"} | {name: one.debian for name, one in ARCHITECTURES.items()}
_IS_CONFIGURATION: Final = 1 << 0  #: RPMFILE_CONFIG
#: Machine-readable, as Debian Policy 12.5 wants it; licences in common-licenses are named and not repeated.
_COPYRIGHT: Final = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: edgesite
{comment}
Files: *
Copyright: the authors of edgesite
License: Apache-2.0

License: Apache-2.0
 On Debian systems the text of this licence is in /usr/share/common-licenses/Apache-2.0.
"""
_BUNDLED: Final = """\
Comment: Programs of others are part of the bundle. Their copyright notices and licences are in
 {folder}/licenses, and in the folders *.dist-info beside it.
"""
_LINE: Final = "%{NAME}|%{VERSION}|%{RELEASE}|%{ARCH}|%{SUMMARY}|%{URL}|%{SIZE}"


@dataclass(frozen=True, slots=True)
class Package:
    """What an RPM says of itself."""

    rpm: Path
    name: str
    version: str
    release: str
    arch: str
    summary: str
    url: str
    size_bytes: int

    @property
    def full_version(self) -> str:
        return f"{self.version}-{self.release}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="packaging/deb/build.py", description="Builds the debs.", allow_abbrev=False)
    parser.add_argument("--arch", default=native().name, help="as uname -m says")
    parser.add_argument("--rpms", type=Path, help="default: dist/packages/ARCH/rpm")
    parser.add_argument("--out", type=Path, help="default: dist/packages/ARCH/deb")
    parser.add_argument(
        "--compression", default="xz", choices=("xz", "gzip", "zstd", "none"), help="xz is the smallest and slowest"
    )
    options = parser.parse_args()
    try:
        dist = PROJECT / "dist" / "packages" / named(options.arch).name
    except KeyError:
        parser.error(f"nothing is built for {options.arch}")
    try:
        build(options.rpms or dist / "rpm", options.out or dist / "deb", compression=options.compression)
    except BuildFailed as exc:
        print(f"deb: {exc}", file=sys.stderr)
        return 1
    return 0


def build(rpms: Path, out: Path, *, compression: str = "xz") -> list[Path]:
    """Return the packages, one for each RPM. ``compression`` is dpkg-deb's. Raises BuildFailed."""
    found = sorted(rpms.glob("*.rpm"))
    if not found:
        raise BuildFailed(f"there are no packages in {rpms}: run `make rpm`")
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.deb"):
        old.unlink()
    return [_build(_read(rpm), out, compression) for rpm in found]


def _read(rpm: Path) -> Package:
    name, version, release, arch, summary, url, size = run(["rpm", "-qp", "--qf", _LINE, rpm]).split("|")
    return Package(rpm, name, version, release, arch, summary, url, int(size))


def _build(package: Package, out: Path, compression: str) -> Path:
    time_s = int(package.rpm.stat().st_mtime)
    architecture = _ARCHITECTURES.get(package.arch, "all")
    target = out / f"{package.name}_{package.full_version}_{architecture}.deb"
    with tempfile.TemporaryDirectory(prefix="kubeedge-deb.") as scratch:
        root = Path(scratch) / "root"
        root.mkdir(mode=0o755)
        _unpack(package.rpm, root)
        shutil.rmtree(root / "usr" / "local", ignore_errors=True)
        _documents(package, root)
        control = root / "DEBIAN"
        control.mkdir(mode=0o755)
        (control / "control").write_text(_control(package, architecture))
        if conffiles := _configuration(package.rpm):
            (control / "conffiles").write_text("".join(f"{path}\n" for path in conffiles))
        for name, text in scripts.of(root).items():
            (control / name).write_text(text)
            (control / name).chmod(0o755)
        for path in [root, *root.rglob("*")]:
            os.utime(path, (time_s, time_s), follow_symlinks=False)
        environment = os.environ | {"SOURCE_DATE_EPOCH": str(time_s)}
        run(["dpkg-deb", "--root-owner-group", f"-Z{compression}", "--build", root, target], environment=environment)
    say(f"{target.name} {target.stat().st_size / 1e6:.1f} MB")
    return target


def _unpack(rpm: Path, root: Path) -> None:
    archive = root.parent / rpm.name
    archive.symlink_to(rpm.resolve())
    run(["rpm2archive", "--nocompression", archive])  # writes beside it
    # Not tarfile, whose filters Debian 12's Python does not have yet.
    run(["tar", "--extract", f"--file={archive}.tar", f"--directory={root}", "--same-permissions", "--no-same-owner"])


def _documents(package: Package, root: Path) -> None:
    """Debian wants a copyright file in a folder of each package's name; the text that an RPM brings is on every Debian."""
    shutil.rmtree(root / "usr" / "share" / "licenses", ignore_errors=True)
    folder = root / "usr" / "share" / "doc" / package.name
    folder.mkdir(parents=True, exist_ok=True)
    bundles = root.glob("usr/lib/kubeedge/edgesite-*/_internal")
    comment = "".join(_BUNDLED.format(folder=f"/{one.relative_to(root)}") for one in bundles)
    (folder / "copyright").write_text(_COPYRIGHT.format(comment=comment))


def _control(package: Package, architecture: str) -> str:
    description = run(["rpm", "-qp", "--qf", "%{DESCRIPTION}", package.rpm]).strip()
    fields = {
        "Package": package.name,
        "Version": package.full_version,
        "Architecture": architecture,
        "Maintainer": "EdgeSite maintainers <maintainers@edgesite.invalid>",
        "Installed-Size": str(-(-package.size_bytes // 1024)),
        "Depends": ", ".join(_dependencies(package.rpm, "--requires")),
        "Recommends": ", ".join(_dependencies(package.rpm, "--recommends")),
        "Section": "admin",
        "Priority": "optional",
        "Homepage": package.url,
        "Description": package.summary + "".join(f"\n {line or '.'}" for line in description.splitlines()),
    }
    return "".join(f"{name}: {value}\n" for name, value in fields.items() if value)


def _dependencies(rpm: Path, which: str) -> list[str]:
    found = {}
    for line in run(["rpm", "-qp", which, rpm]).splitlines():
        name, _, version = line.partition(" = ")
        if name.startswith("kubeedge"):
            found[name] = f"{name} (= {version})"
        elif name.startswith("libc.so.6(GLIBC_"):
            found[name] = f"libc6 (>= {name.removeprefix('libc.so.6(GLIBC_').partition(')')[0]})"
        elif name in _REQUIRES:
            found[name] = _REQUIRES[name]
    return list(found.values())


def _configuration(rpm: Path) -> list[str]:
    lines = run(["rpm", "-qp", "--qf", "[%{FILEFLAGS:hex}|%{FILENAMES}\n]", rpm]).splitlines()
    pairs = [line.split("|", 1) for line in lines if "|" in line]
    return [path for flags, path in pairs if int(flags, 16) & _IS_CONFIGURATION]


if __name__ == "__main__":
    sys.exit(main())
