"""What users install, frozen: sizes, starts, memory, each against its promise; and what each dependency costs.

    python -m benchmarks.frozen [--dist dist/x86_64] [--runs 7]

``--dist`` is what `make dist` made, or ``dist/here``. Sizes are in millions of bytes, memory in MiB. A dependency's size is that of its compiled
files in the bundle and of its modules as the bundle keeps them (compiled, deflated). Its memory and time are what importing it adds to an
interpreter that has loaded asyncio and what stands above it in the table.
"""

from __future__ import annotations

import argparse
import json
import marshal
import os
import platform
import re
import statistics
import subprocess
import sys
import time
import tomllib
import zlib
from importlib import metadata
from pathlib import Path
from typing import Final

from benchmarks import rig, start
from benchmarks.apart import Apart

ROOT: Final = Path(__file__).resolve().parents[1]
MB: Final = 1e6
MIB: Final = 1 << 20
SETTLE_S: Final = 8.0
#: Distribution → what of it the program imports, and when.
USED: Final = {
    "anyio": ("anyio", "always"),
    "uvloop": ("uvloop", "always"),
    "msgspec": ("msgspec", "always"),
    "apsw": ("apsw", "always"),
    "httptools": ("httptools", "always"),
    "pluggy": ("pluggy", "always"),
    "prometheus-client": ("prometheus_client.core", "always"),
    "h2": ("h2.connection", "pods on a CRI runtime"),
    "h11": ("h11", "where httptools is missing"),
    "paho-mqtt": ("paho.mqtt.client", "an external MQTT broker"),
    "jeepney": ("jeepney", "shutdowns are held up by logind"),
    "packaging": ("packaging.requirements", "plugins are installed"),
    "pyyaml": ("yaml", "a YAML file or request is read"),
    "pydantic-settings": ("pydantic_settings", "in a child that checks the configuration"),
    "cryptography": ("cryptography.x509", "in a child that makes certificates"),
    "pymysql": ("pymysql", "a mapper pushes to MySQL"),
    "aioquic": ("aioquic.quic.connection", "links over QUIC"),
}
#: What the first design had and no module imports.
DROPPED: Final = {
    "grpcio": "grpc.aio",
    "websockets": "websockets.asyncio.client",
    "msgpack": "msgpack",
    "pyjwt": "jwt",
}
_MEASURE: Final = """
import asyncio, sys, time
def resident():
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Rss:"))
for name in sys.argv[1:-1]:
    __import__(name)
before, started = resident(), time.process_time()
__import__(sys.argv[-1])
print(resident() - before, time.process_time() - started)
"""


def sizes(dist: Path) -> None:
    folder = sum(path.stat().st_size for path in _files(dist / "lib" / "kubeedge"))
    rig.line("installed folder", f"{folder / MB:.1f} MB", "90 MB")
    for name in ("edgesite", "edgesite-static"):
        rig.line(f"one file, {name}", f"{(dist / name).stat().st_size / MB:.1f} MB", "36 MB")


def versions(dist: Path, runs: int) -> None:
    """Start and end of the program without work, warm."""
    for title, path, target in (
        ("folder", dist / "lib" / "kubeedge" / "edgesite", "200 ms"),
        ("one file", dist / "edgesite", ""),
        ("static file", dist / "edgesite-static", ""),
        ("virtual environment", rig.PROGRAM, ""),
    ):
        took = [_version(path) for _ in range(runs + 1)][1:]
        wall, cpu = (statistics.median(one) * 1000 for one in zip(*took, strict=True))
        rig.line(f"--version, {title} (CPU {cpu:.0f} ms)", f"{wall:.0f} ms", target)
    with rig.folder() as folder:
        wall, cpu = _version(dist / "edgesite-static", {"EDGESITE_UNPACK_DIR": str(folder / "unpacked")})
        rig.line(f"  static file, first start, unpacks (CPU {cpu * 1000:.0f} ms)", f"{wall * 1000:.0f} ms")


def ready(program: Path, runs: int) -> None:
    with rig.folder() as folder:
        start.timed(start.up(folder), "Ready after", program)
        measured = [start.timed(start.up(folder), "Ready after", program) for _ in range(runs)]
    rig.line("whole site, exec to node Ready", start.median([ends["last"] for ends, _ in measured]), "3.5 s")
    rig.line("  CPU of it", start.median([cpu_s for _, cpu_s in measured]))


def idle(title: str, program: Path) -> None:
    """Memory of the roles apart, a while after the edge is Ready."""
    with rig.folder() as folder:
        apart = Apart(folder, program=program)
        with apart.cloud() as cloud:
            cloud.wait_line("ready after")
            with apart.edge(apart.token()) as edge:
                edge.wait_line("node=node1 is registered")
                time.sleep(SETTLE_S)
                for role, process, target in (("edge", edge, "55 MiB"), ("cloud", cloud, "")):
                    used = rig.usage(process.pid)
                    rig.line(f"{role} role idle, resident, {title}", f"{used.rss / MIB:.1f} MiB", target)


def dependencies(dist: Path) -> None:
    print(f"\n{'distribution':<20} {'size':>8} {'memory':>10} {'CPU':>8}   loaded when")
    loaded: list[str] = []
    for name, (module, when) in USED.items():
        _row(name, _size(name, dist), loaded, module, when)
        if when == "always":
            loaded.append(module)
    print("not bundled:")
    for name, module in DROPPED.items():
        try:
            _row(name, _size(name, None), loaded, module, "never")
        except metadata.PackageNotFoundError:
            print(f"{name:<20} is not installed here")


def _row(name: str, size: int, loaded: list[str], module: str, when: str) -> None:
    memory, cpu = _import_cost(loaded, module)
    print(f"{name:<20} {size / MB:>5.2f} MB {memory / 1024:>6.1f} MiB {cpu * 1000:>5.0f} ms   {when}")


def _import_cost(loaded: list[str], module: str) -> tuple[int, float]:
    """KiB and CPU seconds, medians of three."""
    argv = [sys.executable, "-c", _MEASURE, *loaded, module]
    measured = [subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split() for _ in range(3)]
    return statistics.median_low([int(one[0]) for one in measured]), statistics.median(
        [float(one[1]) for one in measured]
    )


def _size(name: str, dist: Path | None) -> int:
    """Bytes of a distribution and of what only it needs."""
    total = 0
    for one in _with_requirements(name):
        for file in metadata.files(one) or ():
            path = Path(str(file.locate()))
            if file.suffix == ".py" and path.is_file():
                code = compile(path.read_bytes(), file.name, "exec", dont_inherit=True, optimize=2)
                total += len(zlib.compress(marshal.dumps(code)))
            elif ".so" in file.name:
                bundled = dist / "lib" / "kubeedge" / "_internal" / file if dist else path
                total += bundled.stat().st_size if bundled.is_file() else 0
    return total


def _with_requirements(name: str) -> list[str]:
    """A distribution and those that no other row of the table stands for."""
    found, waiting = [], [name]
    while waiting:
        one = waiting.pop()
        if one in found or (one != name and one in USED):
            continue
        found.append(one)
        for text in metadata.requires(one) or ():
            requirement = re.match(r"[A-Za-z0-9._-]+", text)
            if requirement and "extra ==" not in text:
                wanted = re.sub(r"[-_.]+", "-", requirement[0]).lower()
                if _is_installed(wanted):
                    waiting.append(wanted)
    return found


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _version(program: Path, more: dict[str, str] | None = None) -> tuple[float, float]:
    """Seconds of time and of CPU, from before exec to the end."""
    started, before = time.perf_counter(), os.times()
    subprocess.run([str(program), "--version"], check=True, capture_output=True, env=os.environ | (more or {}))
    wall, after = time.perf_counter() - started, os.times()
    return wall, after.children_user + after.children_system - before.children_user - before.children_system


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dist", type=Path, default=ROOT / "dist" / platform.machine())
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    dist = options.dist.absolute()
    program = dist / "lib" / "kubeedge" / "edgesite"
    if not program.is_file():
        raise rig.BenchmarkFailed(
            f"nothing frozen in {dist}: run `make dist`, or `python packaging/freeze build --here`"
        )
    information = dist / "BUILDINFO.json"
    if information.is_file():
        floor = json.loads(information.read_text())["glibc_floor"]
        budget = tomllib.loads((ROOT / "benchmarks" / "budgets.toml").read_text())["frozen"]["glibc_floor"]
        rig.line("glibc that it needs", floor, budget)
    sizes(dist)
    versions(dist, options.runs)
    ready(program, min(options.runs, 5))
    idle("frozen", program)
    idle("virtual environment", rig.PROGRAM)
    dependencies(dist)


if __name__ == "__main__":
    main()
