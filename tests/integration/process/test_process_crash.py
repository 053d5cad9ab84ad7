"""edgesite dies at any moment: the next one finds a state that it can go on from, and nothing leaks."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from process_site import OpenProcess

from edgesite.edge.edged.process.cgroups import Cgroups
from edgesite.testing.waiting import until

pytestmark = pytest.mark.anyio


def churn_and_die(directory: Path, after_s: float) -> None:
    victim = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("churn.py")), str(directory)], stdout=subprocess.PIPE, text=True
    )
    assert victim.stdout is not None
    try:
        assert victim.stdout.readline() == "ready\n"
        timer = threading.Timer(after_s, victim.kill)
        timer.start()
        victim.wait()
        timer.join()
    finally:
        victim.kill()
        victim.stdout.close()
        victim.wait()


@pytest.mark.parametrize("seed", range(4))
async def test_a_crash_at_any_moment_leaves_nothing_behind(
    open_process: OpenProcess, tmp_path: Path, seed: int
) -> None:
    churn_and_die(tmp_path, random.Random(seed).uniform(0.0, 0.15))
    cgroups = Cgroups()
    async with open_process() as runtime:
        pid = (await runtime._link.ask("hello"))["pid"]
        containers = await runtime.list_containers()
        for one in await runtime.list_sandboxes():
            await runtime.stop_sandbox(one.id)
            await runtime.remove_sandbox(one.id)
        assert await runtime.list_containers() == []
        assert (await runtime._link.ask("states"))["states"] == {}
    for folder in ("containers", "sandboxes"):
        assert list((tmp_path / "process" / folder).iterdir()) == []
    assert all(cgroups.find("", one.id) is None for one in containers)

    async def left() -> bool:
        return not Path(f"/proc/{pid}").exists()  # noqa: ASYNC240 - the kernel answers at once

    await until(left)
    assert _working_below(tmp_path) == []


def _working_below(directory: Path) -> list[str]:
    """Working directories of the processes that are left below ``directory``."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cwd"):
        try:
            where = str(place.readlink())
        except OSError:
            continue
        if where.startswith(str(directory)):
            found.append(where)
    return found
