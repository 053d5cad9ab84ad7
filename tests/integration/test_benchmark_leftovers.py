"""A benchmark that is cut off leaves nothing: at SIGTERM it removes what it has made, and after SIGKILL the next one does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import leftovers  # noqa: E402 - the folder of benchmarks is no installed package

PROGRAM = """
import anyio, sys
from pathlib import Path
from benchmarks import rig
from benchmarks.podrig import Bare, COMMAND
from edgesite.edge.edged.cri.runtime import CriRuntime
from edgesite.edge.edged.volumes.host import mount_memory
from edgesite.testing.runtime import running

with rig.folder() as folder, rig.containerd(folder) as daemon, rig.Program("-f", str(folder / "owner"), program=Path("/usr/bin/tail")):
    async def main():
        runtime = CriRuntime(daemon.endpoint, "", request_timeout_s=30.0)
        async with running(runtime):
            await Bare(runtime, folder).start("bare")
            mount_memory(folder / "volume")
            print(daemon.root, daemon.bridge, folder, flush=True)
            await anyio.sleep(600)
    anyio.run(main)
"""


class Cut:
    """A program that stands in for a benchmark, with a sandbox, a mount and a process of its own."""

    def __init__(self, where: Path) -> None:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], cwd=where, env=environment, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.root, self.bridge, self.folder = self.process.stdout.readline().split()

    def left(self) -> list[str]:
        """Mounts, programs, folders and network interfaces that are there of it."""
        with open("/proc/self/mountinfo") as lines:
            mounts = [line.split(" ", 5)[4] for line in lines]
        found = [one for one in mounts if one.startswith((f"{self.root}/", f"{self.folder}/"))]
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    arguments = (entry / "cmdline").read_bytes().decode(errors="replace")
                except OSError:
                    continue
                if self.root in arguments or self.folder in arguments:
                    found.append(f"process {entry.name}")
        found += [one for one in (self.root, self.folder) if Path(one).exists()]
        return found + [one.name for one in Path("/sys/class/net").iterdir() if one.name == self.bridge]


@pytest.fixture
def cut(tmp_path: Path) -> Iterator[Cut]:
    made = Cut(tmp_path)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.communicate()
        leftovers.remove_abandoned(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_it_remove_what_it_has_made(cut: Cut, number: signal.Signals) -> None:
    assert any(one.startswith("process") for one in cut.left())
    while cut.process.poll() is None:  # others fall into what it does then, and change nothing
        cut.process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            cut.process.wait(0.1)
    assert cut.process.returncode == 128 + number
    assert cut.left() == []


def test_what_a_killed_one_left_goes_with_the_next_and_nothing_else(cut: Cut, tmp_path: Path) -> None:
    leftovers.remove_abandoned(tmp_path)
    assert any(one.startswith("process") for one in cut.left()), "it runs: nothing of it is touched"
    other = tmp_path / f"{leftovers.PREFIX}other"
    other.mkdir()
    cut.process.kill()
    cut.process.wait()
    assert any(one.startswith("process") for one in cut.left())
    leftovers.remove_abandoned(tmp_path)
    assert cut.left() == []
    assert other.is_dir(), "nobody says whose it is"
