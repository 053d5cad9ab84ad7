"""Builds what is shipped: ``python packaging/freeze COMMAND``; `make dist` is ``build``.

    build [--arch NAME] [--here]   wheel, one-folder bundle, one-file binaries, SBOM, checksums into dist/ARCHITECTURE
    check [--arch NAME]            build once more and compare every byte
    try [--arch NAME] [RELEASE …]  start what was built in roots with the C libraries of Debian's releases
    try-packages [--arch NAME]     install what was packaged (rpm, deb) into small roots, use it, remove it
    floor PATH                     print the glibc that a folder or file needs
    lock                           choose the newest versions of the wheels, and write their hashes down

Exit codes  0 done, 1 not built or not the same, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import lzma
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import bundle
import compiled
import floor
import here
import interpreter
import licenses
import root
import sbom
import static
import wheels
from archive import pack, settle
from command import BuildFailed, say
from layout import CACHE, Architecture, named, native


def main() -> int:
    parser = argparse.ArgumentParser(prog="packaging/freeze", description="Builds what is shipped.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("build", "check", "try", "try-packages"):
        command = commands.add_parser(name)
        command.add_argument("--arch", default=native().name, help="x86_64, aarch64 (arm64) or armv7l (armhf)")
        if name == "try":
            command.add_argument("releases", nargs="*", metavar="RELEASE")
        if name == "build":
            command.add_argument(
                "--here", action="store_true", help="freeze the working tree with this Python: for tests"
            )
    commands.add_parser("floor").add_argument("path", type=Path)
    commands.add_parser("lock")
    options = parser.parse_args()
    try:
        return _run(options)
    except BuildFailed as exc:
        print(f"freeze: {exc}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    match options.command:
        case "lock":
            wheels.lock()
        case "floor":
            version, where = floor.floor_of(options.path)
            print(floor.text(version), where or "")
        case "check":
            with _alone(_named(options.arch)) as target:
                return _check(target)
        case "try":
            import trial  # stands on more than the standard library

            trial.run(_named(options.arch), options.releases or trial.RELEASES)
        case "try-packages":
            import installed

            installed.try_packages(_named(options.arch))
        case _ if options.here:
            print(here.make())
        case _:
            with _alone(_named(options.arch)) as target:
                _build(target, target.dist)
                _tell(target.dist)
    return 0


@contextlib.contextmanager
def _alone(target: Architecture) -> Iterator[Architecture]:
    """Wait for other builds in the same root."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield target


def _named(name: str) -> Architecture:
    try:
        return named(name)
    except KeyError:
        raise BuildFailed(f"nothing is built for {name!r}") from None


def _build(target: Architecture, result: Path) -> None:
    out = CACHE / f"new-{target.name}"  # what was made before stays until this is whole
    place = root.make(target)
    versions = interpreter.make(target)
    shop = bundle.in_root(target)
    bundle.prepare(shop, target)
    bundle.make(shop, out, compiled.make(shop, target))
    folder = out / "lib" / "kubeedge"
    time = bundle.commit_time()
    libraries = sbom.root_libraries(folder / "_internal", target)
    licenses.collect(folder, place, libraries)
    settle(folder, time)
    version, where = floor.floor_of(folder)
    if version > floor.BUDGET:
        raise BuildFailed(f"{where} needs glibc {floor.text(version)}; the budget is {floor.text(floor.BUDGET)}")
    static.make(shop, target, out)
    (wheel,) = out.glob("*.whl")
    release = wheel.name.split("-")[1]
    name = f"edgesite-{release}-linux-{target.name}"
    (out / f"{name}.tar.xz").write_bytes(lzma.compress(pack(folder, time, f"{name}/"), preset=9))
    (out / f"{name}.cdx.json").write_text(sbom.document(folder, target, versions, libraries, time))
    information = {
        "architecture": target.name,
        "commit": bundle.commit(),
        "glibc_floor": floor.text(version),
        "libraries": libraries,
        "root": root.RELEASE,
        "source_date_epoch": time,
        "versions": versions,
    }
    (out / "BUILDINFO.json").write_text(json.dumps(information, indent=1, sort_keys=True) + "\n")
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in _files(out)}
    (out / "SHA256SUMS").write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())))
    settle(out, time)
    bundle.replace(result, out)


def _check(target: Architecture) -> int:
    first, second = target.dist, CACHE / f"again-{target.name}"
    made = first / "BUILDINFO.json"
    if not made.is_file() or json.loads(made.read_text())["commit"] != bundle.commit():
        _build(target, first)
    _build(target, second)
    one, other = _digests(first), _digests(second)
    different = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    for name in different:
        print(f"freeze: differs: {name}", file=sys.stderr)
    if not different:
        say(f"{len(one)} files are the same, twice built from {bundle.commit()[:12]}")
        shutil.rmtree(second)
    return 1 if different else 0


def _tell(out: Path) -> None:
    information = json.loads((out / "BUILDINFO.json").read_text())
    folder = sum(path.stat().st_size for path in (out / "lib").rglob("*") if path.is_file() and not path.is_symlink())
    say(
        f"one folder {folder / 1e6:.1f} MB, needs glibc {information['glibc_floor']} (budget {floor.text(floor.BUDGET)})"
    )
    for path in _files(out):
        say(f"{path.name} {path.stat().st_size / 1e6:.1f} MB")


def _files(out: Path) -> list[Path]:
    return sorted(path for path in out.iterdir() if path.is_file() and path.name != "SHA256SUMS")


def _digests(out: Path) -> dict[str, str]:
    """Content, rights and link targets of what was built; packages and images that were made of it do not count."""
    listed = [line.split("  ")[1] for line in (out / "SHA256SUMS").read_text().splitlines()]
    found = {}
    for path in [out / "SHA256SUMS", *(out / name for name in listed), *(out / "lib").rglob("*")]:
        name = str(path.relative_to(out))
        if path.is_symlink():
            found[name] = f"link to {path.readlink()}"
        elif path.is_file():
            found[name] = f"{path.stat().st_mode:o} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    return found


if __name__ == "__main__":
    sys.exit(main())
