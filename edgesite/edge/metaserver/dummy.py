"""The address of ``dummyServer`` on this host: a dummy interface that has it, else the loopback interface.

    dummyInterface: edge-dummy0    made with the address; where the kernel has no dummy interfaces, ``lo`` is given the address, and it is said
    dummyInterface: ""             the address is there already

What was made is left when the program ends, as KubeEdge does: pods go on using the address over a restart.

Errors  None leave but cancellation: what hinders is logged.
State   The interface and its address.
Source  KubeEdge v1.17, edge/pkg/metamanager/metaserver (interface edge-dummy0); ip-link(8), ip-address(8).
"""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, Final

from edgesite.net import address as addresses

if TYPE_CHECKING:
    from edgesite.context import Context

__all__ = ["have_address"]

_COMMAND_S: Final = 10.0


async def have_address(ctx: Context, address: str) -> None:
    """See to it that the address is on this host."""
    interface = str(ctx.config.get("dummyInterface") or "")
    if not interface:
        return
    host = addresses.parse(address).host
    problem = await ctx.threads.run(_give, interface, host)
    if problem is None:
        return
    ctx.log.warning("interface %s cannot be had (%s): %s is put on lo", interface, problem, host)
    problem = await ctx.threads.run(_give, "lo", host)
    if problem is not None:
        ctx.log.error("address %s cannot be had: %s", host, problem)


def _give(interface: str, host: str) -> str | None:
    """Make the interface if it is not there, and give it the address; returns what hindered. Blocking."""
    ip = shutil.which("ip")
    if ip is None:
        return "the program ip (iproute2) is not installed"
    width = "128" if ":" in host else "32"
    if interface != "lo" and _run(ip, "link", "show", interface) is not None:
        problem = _run(ip, "link", "add", interface, "type", "dummy")
        if problem is not None:
            return problem
    if interface != "lo":
        problem = _run(ip, "link", "set", interface, "up")
        if problem is not None:
            return problem
    return _run(ip, "address", "replace", f"{host}/{width}", "dev", interface)


def _run(*command: str) -> str | None:
    """Run a command; returns what it said if it failed."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=_COMMAND_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        return str(exc)
    return None if done.returncode == 0 else done.stderr.decode("utf-8", "replace").strip() or f"exit {done.returncode}"
