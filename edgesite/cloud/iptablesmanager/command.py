"""``edgesite iptablesmanager``: the rules beside an API server on another machine than the cloud role's.

Flags   KubeEdge's iptables-manager: ``--kubeconfig``, ``--forwardport``, ``--version``.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Final

import anyio

import edgesite
from edgesite.hookspecs import Command

__all__ = ["COMMAND"]

_STREAM_PORT: Final = 10003


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--kubeconfig", metavar="FILE", type=Path, help="reach the cluster by this file (in a pod: none)"
    )
    parser.add_argument(
        "--forwardport", metavar="PORT", type=int, default=_STREAM_PORT, help="port of the stream servers"
    )
    parser.add_argument("--version", nargs="?", const="true", metavar="raw", help="print the version and exit")
    parser.add_argument("--once", action="store_true", help="make the rules what they should be, and exit")


def _run(arguments: argparse.Namespace) -> int:
    if arguments.version:
        print(f"KubeEdge v1.12.7-edgesite.{edgesite.__version__}")
        return 0
    import logging

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    from edgesite.cloud.iptablesmanager.manager import IptablesError
    from edgesite.kube.errors import ApiError

    try:
        anyio.run(_manage, arguments.kubeconfig, arguments.forwardport, arguments.once)
    except (OSError, ValueError, ApiError, IptablesError) as exc:
        print(f"edgesite: {exc or 'no answer in time'}", file=sys.stderr)
        return 1
    return 0


async def _manage(file: Path | None, port: int, once: bool) -> None:
    """Raises OSError, ValueError, ApiError, IptablesError."""
    import logging
    import random

    from edgesite.client import kubeconfig
    from edgesite.client.client import Client
    from edgesite.client.http import HttpTransport
    from edgesite.cloud.iptablesmanager.manager import Manager
    from edgesite.net.real import RealClock, RealNet

    access = kubeconfig.load(file) if file else kubeconfig.from_pod(os.environ)
    clock = RealClock()
    transport = HttpTransport(RealNet(), clock, access)
    log = logging.getLogger("iptablesmanager")
    manager = Manager(Client(transport).named("iptablesmanager"), port, clock, random.Random(), log)
    try:
        await (manager.settle() if once else manager.run())
    finally:
        with anyio.CancelScope(shield=True):
            await transport.close()


COMMAND = Command("iptablesmanager", "Lead an API server's connections to nodes to the cloud role.", _configure, _run)
