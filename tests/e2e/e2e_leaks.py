"""Runs a site of both roles some times in one process and says what each run leaves behind: threads, tasks, open files.

    python e2e_leaks.py DIRECTORY

Prints "nothing is left" and exits 0, or prints what is left and exits 1. The first run is not judged: libraries open some files once.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import sys
import threading
from pathlib import Path
from typing import Any

import anyio

from edgesite.cli.ready import nodes_ready
from edgesite.cli.up import site_plan
from edgesite.net.folders import RealFolders
from edgesite.net.real import RealClock, RealDisk, RealNet, loop_factory
from edgesite.net.threads import RealThreads
from edgesite.runtime.config.load import load
from edgesite.runtime.paths import cloud_defaults, edge_defaults
from edgesite.runtime.plugins import PluginHost, discover
from edgesite.runtime.role import World
from edgesite.runtime.site import Plan, Site

RUNS = 4
NODES = 3


def plan_for(folder: Path) -> Plan:
    cloud = cloud_defaults(folder, kubeedge_paths=False, advertise="127.0.0.1")
    cloud["modules"]["cloudHub"] |= {"websocket": {"enable": False}, "https": {"enable": False}}
    edge = edge_defaults(folder / "edge", kubeedge_paths=False, node_name="node1", cloud="127.0.0.1")
    edge["modules"]["edged"] |= {"runtime": "process", "tailoredKubeletConfig": {"readOnlyPort": 0, "healthzPort": 0}}
    values, _ = load(
        "EdgeSite",
        file=None,
        sets=["api.address=127.0.0.1:0"],
        underlay={"cloud": cloud, "edge": edge},
        overlay={},
        sections=[],
        cache=folder / "config.cache",
    )
    return site_plan(values, folder, NODES)


async def run_once(plan: Plan) -> None:
    plugins, threads = PluginHost(discover()), RealThreads()
    world = World(RealClock(), random.Random(1), RealNet(), threads, RealDisk(), plugins, plan.site, RealFolders())
    site = Site(plan, plugins, world)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(site.run)
        with anyio.fail_after(60):
            await nodes_ready(site, {one.node_name for one in plan.edges})
            for role in site.roles:
                await role.ready.wait()
        tasks.cancel_scope.cancel()
    await threads.close()


def held() -> dict[str, list[str]]:
    gc.collect()
    files: list[str] = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            files.append(_kind(entry.readlink()))
        except OSError:
            continue  # the one of the listing itself
    return {
        "threads": sorted(one.name for one in threading.enumerate()),
        "tasks": sorted(one.get_name() for one in asyncio.all_tasks()),
        "files": sorted(files),
    }


def _kind(target: Path) -> str:
    text = str(target)
    return text.partition(":")[0] if text.startswith(("socket:", "pipe:")) else text


async def main(folder: Path) -> int:
    plan, seen = plan_for(folder), list[dict[str, Any]]()
    for _ in range(RUNS):
        await run_once(plan)
        seen.append(held())
    if seen[-1] == seen[0]:
        print("nothing is left")
        return 0
    for what, after in seen[-1].items():
        left = list(after)
        for one in seen[0][what]:
            if one in left:
                left.remove(one)
        print(f"{what} left: {left}")
    return 1


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(anyio.run(main, Path(sys.argv[1]), backend_options={"loop_factory": loop_factory()}))
