"""The address of ``dummyServer`` on this host: a dummy interface that has it, else the loopback interface.

    dummyInterface: edge-dummy0    made with the address; where the kernel has no dummy interfaces, ``lo`` is given the address, and it is said
    dummyInterface: ""             the address is there already

What was made is marked (alias of the interface, label of the address on ``lo``) and taken away when MetaServer ends in order, also what a
run before left that was killed. What somebody else has made is left. KubeEdge leaves its interface for ever.

Errors  None leave but cancellation: what hinders is logged.
State   The interface and its address.
Source  KubeEdge v1.17, edge/pkg/metamanager/metaserver (interface edge-dummy0); ip-link(8), ip-address(8).
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import anyio

from edgesite.net import address as addresses

if TYPE_CHECKING:
    from edgesite.context import Context

__all__ = ["held_address"]

_COMMAND_S: Final = 10.0
_END_S: Final = 5.0
_MARK: Final = "edgesite"
_LABEL: Final = f"lo:{_MARK}"


@asynccontextmanager
async def held_address(ctx: Context, address: str) -> AsyncIterator[None]:
    """See to it that the address is on this host, until the end of the block."""
    interface = str(ctx.config.get("dummyInterface") or "")
    if not interface:
        yield
        return
    host = addresses.parse(address).host
    try:
        problem = await ctx.threads.run(_give, interface, host)
        if problem is not None:
            ctx.log.warning("interface %s cannot be had (%s): %s is put on lo", interface, problem, host)
            problem = await ctx.threads.run(_give_loopback, host)
            if problem is not None:
                ctx.log.error("address %s cannot be had: %s", host, problem)
        yield
    finally:
        with anyio.move_on_after(_END_S, shield=True):
            await ctx.threads.run(_take_back, interface, host)


def _give(interface: str, host: str) -> str | None:
    """Make the interface if it is not there, and give it the address; returns what hindered. Blocking."""
    ip = shutil.which("ip")
    if ip is None:
        return "the program ip (iproute2) is not installed"
    if _problem(ip, "link", "show", interface) is not None:
        problem = _problem(ip, "link", "add", interface, "type", "dummy")
        problem = problem or _problem(ip, "link", "set", interface, "alias", _MARK)
        if problem is not None:
            return problem
    problem = _problem(ip, "link", "set", interface, "up")
    return problem or _problem(ip, "address", "replace", _with_width(host), "dev", interface)


def _give_loopback(host: str) -> str | None:
    """Returns what hindered. Blocking."""
    ip = shutil.which("ip")
    if ip is None:
        return "the program ip (iproute2) is not installed"
    if _said(ip, "-o", "address", "show", "dev", "lo", "to", _with_width(host)):
        return None
    label = () if ":" in host else ("label", _LABEL)  # addresses of version 6 have none
    return _problem(ip, "address", "add", _with_width(host), "dev", "lo", *label)


def _take_back(interface: str, host: str) -> None:
    """Remove what is marked as ours. Blocking."""
    ip = shutil.which("ip")
    if ip is None:
        return
    if f"alias {_MARK}" in _said(ip, "link", "show", interface):
        _problem(ip, "link", "delete", interface)
    if _LABEL in _said(ip, "-o", "address", "show", "dev", "lo", "to", _with_width(host)):
        _problem(ip, "address", "delete", _with_width(host), "dev", "lo")


def _with_width(host: str) -> str:
    return f"{host}/128" if ":" in host else f"{host}/32"


def _problem(*command: str) -> str | None:
    """Run a command; returns what it said if it failed."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=_COMMAND_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        return str(exc)
    return None if done.returncode == 0 else done.stderr.decode("utf-8", "replace").strip() or f"exit {done.returncode}"


def _said(*command: str) -> str:
    """Run a command; returns what it said if it did not fail."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=_COMMAND_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""
