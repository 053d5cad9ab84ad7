"""What a running process holds and does when nothing happens: memory, threads, modules; bytes written, wake-ups, CPU.

Shared by the benchmarks of memory and of writes and by the test of the budgets.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks import rig
from benchmarks.apart import Apart

__all__ = ["COMMAND", "Held", "Spent", "held", "imported_env", "site_with_pods", "spent", "two_roles"]

COMMAND: Final = ["sleep", "100000"]
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Held:
    """Of one process at one moment. Memory in MiB, rounded."""

    rss_mib: float
    pss_mib: float
    threads: int
    modules: int
    names: frozenset[str]  #: of the modules

    def figures(self) -> dict[str, float]:
        return {name: value for name, value in asdict(self).items() if name != "names"}


@dataclass(frozen=True, slots=True)
class Spent:
    """Of one process over a time, scaled."""

    written_kib_per_minute: float
    wakeups_per_s: float
    cpu_percent: float

    def figures(self) -> dict[str, float]:
        return asdict(self)


def imported_env(folder: Path) -> dict[str, str]:
    """Environment that makes `held` able to ask a process for its modules."""
    folder.mkdir(exist_ok=True)
    return {"PYTHONPATH": str(Path(__file__).parent / "listmodules"), "MODULES_FILE": str(folder / "modules")}


def held(program: rig.Program, env: dict[str, str]) -> Held:
    """Ask a process that was started with ``env`` of `imported_env`. Raises BenchmarkFailed when it does not answer."""
    used = rig.usage(program.pid)  # before the question, which costs the process some memory
    names = _modules(program.pid, Path(env["MODULES_FILE"]))
    return Held(
        rss_mib=round(used.rss / _MIB, 1),
        pss_mib=round(used.pss / _MIB, 1),
        threads=used.threads,
        modules=len(names),
        names=names,
    )


def _modules(pid: int, file: Path) -> frozenset[str]:
    file.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR1)
    deadline = time.monotonic() + 15
    while not file.exists():
        if time.monotonic() > deadline:
            raise rig.BenchmarkFailed("the process does not tell its modules")
        time.sleep(0.05)
    return frozenset(file.read_text().split())


def spent(programs: dict[str, rig.Program], seconds: float) -> dict[str, Spent]:
    """Leave the processes alone for some time and return what each did in it."""
    before = {name: rig.usage(program.pid) for name, program in programs.items()}
    started = time.perf_counter()
    time.sleep(seconds)
    took = time.perf_counter() - started
    result = {}
    for name, program in programs.items():
        now, then = rig.usage(program.pid), before[name]
        result[name] = Spent(
            written_kib_per_minute=round((now.written - then.written) / 1024 * 60 / took, 1),
            wakeups_per_s=round((now.voluntary - then.voluntary) / took, 1),
            cpu_percent=round((now.cpu_s - then.cpu_s) / took * 100, 2),
        )
    return result


@contextlib.contextmanager
def site_with_pods(
    folder: Path, *arguments: str, runtime: str = "process", image: str = "any", pods: int = 10
) -> Iterator[tuple[rig.Program, dict[str, str]]]:
    """A whole site that runs some pods and has nothing left to do, and the environment for `held`."""
    env = imported_env(folder)
    with rig.site(folder / "data", *arguments, runtime=runtime, env=env) as program:
        with rig.Api(folder / "data" / "admin.kubeconfig") as api:
            _run_pods(api, pods, image)
        yield program, env


@contextlib.contextmanager
def two_roles(folder: Path, *, pods: int = 10) -> Iterator[dict[str, tuple[rig.Program, dict[str, str]]]]:
    """The roles as two processes; the edge runs some pods as host processes."""
    folder.mkdir(exist_ok=True)
    apart = Apart(folder)
    cloud_env, edge_env = imported_env(folder / "c"), imported_env(folder / "e")
    with apart.cloud(cloud_env) as cloud:
        cloud.wait_line("ready after")
        with apart.edge(apart.token(), edge_env) as edge:
            edge.wait_line("node=node1 is registered")
            with apart.api() as api:
                _run_pods(api, pods, "any")
            try:
                yield {"cloud": (cloud, cloud_env), "edge": (edge, edge_env)}
            finally:
                with apart.api() as api:
                    rig.remove_pods(api)


def _run_pods(api: rig.Api, count: int, image: str) -> None:
    for number in range(count):
        api.call("POST", "/api/v1/namespaces/default/pods", rig.pod(f"idle{number}", image, COMMAND))
    rig.wait_running(api, count)
