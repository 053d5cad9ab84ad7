"""What a running site says on its terminal: one line when the node is Ready, or when a lone role serves."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.kube.times import InvalidTime, parse_time
from edgesite.runtime.site import SiteFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesite.client.client import Client
    from edgesite.kube.resources import Resource
    from edgesite.runtime.site import Site

__all__ = ["is_ready", "say_when_ready", "say_when_serving", "site_client"]

_LEASES_NAMESPACE: Final = "kube-node-lease"


async def say_when_serving(site: Site) -> None:
    """For a role alone: say that all of its modules are ready."""
    for role in site.roles:
        await role.ready.wait()
    names = ", ".join(f"edge role of node {role.node_name}" if role.node_name else "cloud role" for role in site.roles)
    _say(f"{names}: ready after {_since_start_s():.2f} s{_kubeconfig(site)}")


async def say_when_ready(site: Site) -> None:
    """For a whole site: say when every node of it is Ready, as the API shows it."""
    wanted = {edge.node_name for edge in site.plan.edges}
    if not wanted:
        await say_when_serving(site)
        return
    await nodes_ready(site, wanted)
    nodes = ", ".join(sorted(wanted))
    _say(f"node{'s' * (len(wanted) > 1)} {nodes} Ready after {_since_start_s():.2f} s{_kubeconfig(site)}")


async def nodes_ready(site: Site, wanted: set[str]) -> None:
    """Return when all of the nodes have said since this process started that they are Ready: the store remembers earlier runs."""
    from edgesite.kube.resources import LEASES, NODES

    client = await site_client(site)
    await _all_seen(
        client, NODES, "", wanted, lambda node: is_ready(node) and _is_fresh(_heartbeat(node), rounded=True)
    )
    # A heartbeat is a whole second, which may have been the last of the run before; the renewal of the lease is exact.
    await _all_seen(client, LEASES, _LEASES_NAMESPACE, wanted, lambda lease: _is_fresh(_renewal(lease)))


async def _all_seen(
    client: Client, resource: Resource, namespace: str, wanted: set[str], accept: Callable[[dict[str, Any]], bool]
) -> None:
    """Watch until each of the names has been seen as ``accept`` wants it."""
    from edgesite.kube.errors import ApiError

    waiting = set(wanted)
    while waiting:
        try:
            async with client.watch(resource, namespace) as events:
                async for event in events:
                    if event.type != "DELETED" and accept(event.object):
                        waiting.discard(event.object["metadata"]["name"])
                    if not waiting:
                        return
        except ApiError:
            await anyio.sleep(0.5)  # the API server is being restarted by its supervisor


async def site_client(site: Site) -> Client:
    """The cloud role's client, once its API serves."""
    from edgesite.client.client import Client

    assert site.cloud is not None
    api = next((one for one in site.cloud.running if one.module.name in ("apiserver", "kubeapi")), None)
    if api is None:
        raise SiteFailed("no module of this process serves or reaches an API; edgesite plugins lists what was refused")
    await api.ready.wait()
    return site.cloud.services.get(Client)


def is_ready(obj: dict[str, Any]) -> bool:
    """Whether a node or pod has the condition Ready."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def _heartbeat(node: dict[str, Any]) -> str:
    conditions = (node.get("status") or {}).get("conditions") or ()
    return next((one.get("lastHeartbeatTime") or "" for one in conditions if one.get("type") == "Ready"), "")


def _renewal(lease: dict[str, Any]) -> str:
    return (lease.get("spec") or {}).get("renewTime") or ""


def _is_fresh(written: str, *, rounded: bool = False) -> bool:
    """Whether a time is from the life of this process. ``rounded`` is for whole seconds."""
    try:
        at = parse_time(written)
    except InvalidTime:
        return False
    start = time.time() - _since_start_s()
    return at >= (int(start) if rounded else start)


def _kubeconfig(site: Site) -> str:
    api = site.plan.api
    if api is None or not api.enable:
        return ""
    return f"; kubectl --kubeconfig {api.adminKubeconfig} get nodes"


def _since_start_s() -> float:
    """Seconds since this process was started by exec."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    started_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started_s


def _say(text: str) -> None:
    print(f"edgesite: {text}", flush=True)
