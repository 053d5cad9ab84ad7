"""Builds the RPMs from a frozen bundle: ``python rpm/build.py [--arch NAME] [--bundle DIR] [--out DIR] [--release TEXT]``.

The bundle is what ``make dist`` has left in ``dist/<arch>/lib/kubeedge``. Besides the packages, the folder gets the metadata of a
dnf repository. Two builds of one commit are the same, byte for byte; $SOURCE_DATE_EPOCH replaces the commit's time.

Exit codes  0 done, 1 not built, 2 wrong usage.
Needs       rpmbuild, createrepo_c (Debian: rpm, createrepo-c; openEuler: rpm-build, createrepo_c).
"""

# ruff: noqa: E402  the build's own modules are found once their folders are on the path

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Final

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
sys.path[:0] = [str(HERE), str(PROJECT / "packaging" / "freeze")]

import floor
import source
from command import BuildFailed, run, say
from layout import named, native

#: rpm's names of architectures, where they are not uname's.
_TARGETS: Final = {"armv7l": "armv7hl"}


def main() -> int:
    options = _options()
    try:
        build(options.bundle, options.out, arch=options.arch, release=options.release, payload=options.payload)
    except BuildFailed as exc:
        print(f"rpm: {exc}", file=sys.stderr)
        return 1
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="rpm/build.py", description="Builds the RPMs.", allow_abbrev=False)
    parser.add_argument("--arch", default=native().name, help="as uname -m says")
    parser.add_argument("--bundle", type=Path, help="default: dist/ARCH/lib/kubeedge")
    parser.add_argument("--out", type=Path, help="default: dist/packages/ARCH/rpm")
    parser.add_argument("--release", help="default: the version of the program")
    parser.add_argument("--payload", default="w6.xzdio", help="compression; w1.gzdio is quick")
    options = parser.parse_args()
    try:
        options.arch = named(options.arch).name
    except KeyError:
        parser.error(f"nothing is built for {options.arch}")
    dist = PROJECT / "dist" / options.arch
    options.bundle = options.bundle or dist / "lib" / "kubeedge"
    options.out = options.out or PROJECT / "dist" / "packages" / options.arch / "rpm"
    return options


def build(bundle: Path, out: Path, *, arch: str, release: str | None = None, payload: str = "w6.xzdio") -> list[Path]:
    """Return the packages, in a folder that is a repository. ``payload`` is rpm's word for the compression. Raises BuildFailed."""
    if not (bundle / "edgesite").is_file():
        raise BuildFailed(f"there is no bundle in {bundle}: run `make dist`")
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    time_s = int(os.environ.get("SOURCE_DATE_EPOCH") or run(["git", "log", "-1", "--format=%ct"], cwd=PROJECT))
    needed, _ = floor.floor_of(bundle)
    defines = {
        "bundle_version": version,
        "package_release": release or version,
        "payload": payload,
        "glibc_floor": floor.text(needed),
        "_buildhost": "localhost",
        "use_source_date_epoch_as_buildtime": "1",
        "clamp_mtime_to_source_date_epoch": "1",
        "source_date_epoch_from_changelog": "0",
    }
    with tempfile.TemporaryDirectory(prefix="kubeedge-rpm.") as scratch:
        top = Path(scratch)
        source.write(top / "SOURCES" / f"kubeedge-{version}-{_TARGETS.get(arch, arch)}.tar", bundle, time_s)
        words = [word for name, value in defines.items() for word in ("--define", f"{name} {value}")]
        run(
            [
                "rpmbuild",
                "-bb",
                "--target",
                _TARGETS.get(arch, arch),
                "--define",
                f"_topdir {top}",
                *words,
                HERE / "kubeedge.spec",
            ],
            environment=source.environment(time_s),
            log=top / "log",
        )
        out.mkdir(parents=True, exist_ok=True)
        for old in out.glob("*.rpm"):
            old.unlink()
        made = [Path(shutil.copy(path, out)) for path in sorted((top / "RPMS").rglob("*.rpm"))]
    for path in made:  # the repository's metadata holds these times
        os.utime(path, (time_s, time_s))
    run(["createrepo_c", "--quiet", "--no-database", "--revision", str(time_s), "--set-timestamp-to-revision", out])
    for path in made:
        say(f"{path.name} {path.stat().st_size / 1e6:.1f} MB")
    return made


if __name__ == "__main__":
    sys.exit(main())
