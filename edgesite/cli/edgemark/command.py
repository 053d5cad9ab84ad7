"""The command: joins the hollow nodes, lets them idle, gives them pods, changes and cuts, and prints what was measured."""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from edgesite.hookspecs import Command

__all__ = ["COMMAND"]


def _configure(parser: argparse.ArgumentParser) -> None:
    count = _count(0)
    parser.add_argument("--nodes", metavar="N", type=_count(1), default=100, help="hollow nodes (100)")
    parser.add_argument("--pods-per-node", metavar="M", type=count, default=1, help="pods for each node (1)")
    parser.add_argument("--idle", metavar="SECONDS", type=count, default=15, help="how long to measure idle nodes (15)")
    parser.add_argument("--updates", metavar="K", type=count, default=1, help="times that all pods are changed (1)")
    parser.add_argument("--schedule", action="store_true", help="let the scheduler place the pods")
    parser.add_argument(
        "--away",
        metavar="K",
        type=count,
        default=0,
        help="change K pods of each node while all links are down, then resume",
    )
    parser.add_argument(
        "--reconnect", action="store_true", help="cut all links at once at the end, and wait for all nodes"
    )
    parser.add_argument(
        "--cloud", metavar="HOST:PORT", help="hub of a running cloud role (default: start one for this run)"
    )
    parser.add_argument("--kubeconfig", metavar="FILE", type=Path, help="administrator's access to its API")
    parser.add_argument("--cloud-pid", metavar="PID", type=int, help="process of that cloud role, to tell what it uses")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def _count(least: int) -> Any:
    def parse(text: str) -> int:
        number = int(text) if text.isdigit() else -1
        if number < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no number from {least} on")
        return number

    return parse


def _run(arguments: argparse.Namespace) -> int:
    from edgesite.cli.errors import UsageError
    from edgesite.net.real import loop_factory

    if bool(arguments.cloud) != bool(arguments.kubeconfig):
        raise UsageError("--cloud and --kubeconfig go together")
    _allow_files(arguments.nodes + 1000)
    try:
        return anyio.run(_mark, arguments, backend_options={"loop_factory": loop_factory()})
    except (OSError, RuntimeError, LookupError, TimeoutError) as exc:
        print(f"edgesite: edgemark: {exc or 'not done in time'}", file=sys.stderr)
        return 1


def _allow_files(wanted: int) -> None:
    """Each connection is an open file, here and in a cloud role that this process starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = hard if hard == resource.RLIM_INFINITY or hard > soft else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed != resource.RLIM_INFINITY and allowed < wanted:
        print(f"edgesite: edgemark: the system allows {allowed} open files; {wanted} are wanted", file=sys.stderr)


@dataclass(frozen=True, slots=True)
class _Target:
    address: str
    kubeconfig: Path
    pid: int | None


async def _mark(arguments: argparse.Namespace) -> int:
    from edgesite.cli.edgemark.cloudprocess import cloud_process
    from edgesite.cli.edgemark.run import MarkRun
    from edgesite.client.client import Client
    from edgesite.client.http import HttpTransport
    from edgesite.client.kubeconfig import load
    from edgesite.net.real import RealClock, RealNet

    clock, net = RealClock(), RealNet()
    async with AsyncExitStack() as stack:
        if arguments.cloud:
            target = _Target(arguments.cloud, arguments.kubeconfig, arguments.cloud_pid)
        else:
            cloud = await stack.enter_async_context(cloud_process(clock, arguments.nodes))
            target = _Target(f"127.0.0.1:{cloud.hub_port}", cloud.kubeconfig, cloud.pid)
        transport = HttpTransport(net, clock, load(target.kubeconfig))
        stack.push_async_callback(transport.close)
        run = MarkRun(
            arguments, net, clock, random.Random(), Client(transport).named("edgemark"), target.address, target.pid
        )
        await run.run()
    if arguments.json:
        print(json.dumps(run.report.figures, indent=2))
    else:
        print("\n".join(run.report.lines))
    return 0


COMMAND = Command("edgemark", "Load a cloud role with hollow edge nodes and measure it.", _configure, _run)
