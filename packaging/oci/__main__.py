"""Builds the container images out of a frozen bundle: no daemon, no root, the same bytes each time (docs/containers.md).

python packaging/oci [--arch ARCH] [--bundle DIR] [--out DIR] [--repository PREFIX] [--without-security]

Mirrors do not always have Debian's security updates of each architecture: nothing is built then, unless --without-security says that the
release's own packages will do. The list of packages beside the images tells.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parent.parent / "freeze"))

import base
import contents_of_images as images
from binaries import Release, suites_of
from command import BuildFailed, run, say
from image import write
from layer import Tree
from layout import CACHE, PROJECT, Architecture, named, native


def main() -> int:
    arguments = _arguments()
    try:
        target = named(arguments.arch) if arguments.arch else native()
    except KeyError:
        print(f"images: nothing is built for {arguments.arch or 'this machine'}", file=sys.stderr)
        return 2
    bundle = arguments.bundle or target.dist / "lib" / "kubeedge"
    out = arguments.out or target.dist
    try:
        _build(target, bundle, out, arguments.repository, security=not arguments.without_security)
    except (BuildFailed, OSError, ValueError) as problem:
        print(f"images: {problem}", file=sys.stderr)
        return 1
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="packaging/oci", description="Build the container images out of a frozen bundle."
    )
    parser.add_argument("--arch", help="x86_64, aarch64 (arm64) or armv7l (armhf); this machine's by default")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="the one-folder bundle (dist/ARCH/lib/kubeedge)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the archive goes (dist/ARCH)")
    parser.add_argument("--repository", default="kubeedge", metavar="PREFIX", help="in front of the images' names")
    parser.add_argument(
        "--without-security", action="store_true", help="do not ask the mirror for Debian's security updates"
    )
    return parser.parse_args()


def _build(target: Architecture, bundle: Path, out: Path, repository: str, *, security: bool) -> None:
    """Raises BuildFailed."""
    if not (bundle / "edgesite").is_file():
        raise BuildFailed(f"there is no bundle in {bundle}; make dist builds one")
    version = images.version(PROJECT)
    revision, time = _made_of(bundle.parent.parent / "BUILDINFO.json")
    lowest, packages = base.tree(Release(target.debian, CACHE / "debian", suites_of(base.RELEASE, security=security)))
    program = images.program(bundle)
    if lacking := images.lacking(bundle, lowest):
        raise BuildFailed(f"the bundle needs libraries that are not in the image: {', '.join(lacking)}")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        say("pack the layers")
        made = {
            how: tree.write(Path(scratch, str(number)), time)
            for number, (how, tree) in enumerate(_trees(lowest, program))
        }
        path = out / f"kubeedge-images-{target.name}.tar"
        new = Path(scratch, "images.tar")
        digests = write(
            new, images.all_of(repository, version, revision, time), made, images.PLATFORMS[target.name], time
        )
        new.replace(path)
    (out / f"kubeedge-images-{target.name}.txt").write_text(
        "".join(f"{name}@{digest}\n" for name, digest in digests.items())
        + f"debian {base.RELEASE}{'' if security else ' without its security updates'}\n"
        + "".join(f"deb {one.name} {one.version} {one.sha256}\n" for one in packages)
    )
    say(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    for name, digest in digests.items():
        print(f"{name}@{digest}")


def _trees(lowest: Tree, program: Tree) -> list[tuple[str, Tree]]:
    return [("packages of Debian: C library, iptables, CA certificates", lowest), ("the program", program)]


def _made_of(information: Path) -> tuple[str, int]:
    """Return the commit that the bundle was made of and its time, as `make dist` wrote them down; else those of the newest commit.

    Raises BuildFailed, OSError."""
    if information.is_file():
        found = json.loads(information.read_text())
        return str(found["commit"]), int(found["source_date_epoch"])
    commit, time = run(["git", "log", "-1", "--format=%H %ct"], cwd=PROJECT).split()
    return commit, int(time)


if __name__ == "__main__":
    sys.exit(main())
