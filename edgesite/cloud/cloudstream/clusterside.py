"""The side of cloudstream towards a cluster's API server: the stream server, and the port that leads there.

Only where the API is not our own, which reaches nodes through `NodeConnector` within the process.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.client import Client
from edgesite.cloud.cloudhub.waiting import service
from edgesite.cloud.cloudstream.access import Access
from edgesite.cloud.cloudstream.certificates import stream_identity
from edgesite.cloud.cloudstream.finder import Finder
from edgesite.cloud.cloudstream.streamserver import StreamServer
from edgesite.cloud.cloudstream.tunnelport import Announcer, negotiate
from edgesite.cloud.edgecontroller import EdgeObjects
from edgesite.cloud.iptablesmanager.module import IptablesManager
from edgesite.kube.errors import ApiError
from edgesite.net.http import HttpServer, Limits

if TYPE_CHECKING:
    from edgesite.cloud.cloudstream.connector import Nodes
    from edgesite.cloud.cloudstream.listening import Listening
    from edgesite.cloud.cloudstream.tunnelport import Taken
    from edgesite.context import Context

__all__ = ["serve_cluster"]

_RETRY_S: Final = 1.0
_RETRY_MOST_S: Final = 60.0


async def serve_cluster(ctx: Context, nodes: Nodes, listening: Listening) -> None:
    """Serve until cancelled."""
    client = (await service(ctx, Client)).named("cloudstream")
    finder = Finder(client, lambda: ctx.services.find(EdgeObjects), nodes.has)
    handler = StreamServer(nodes, finder, Access(client, ctx.clock.monotonic), ctx.log)
    async with (
        HttpServer(handler, Limits(idle_timeout_s=60.0), clock=ctx.clock, log=ctx.log) as server,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(_announce, ctx, client, nodes)
        port = int(ctx.config.get("streamPort") or 10003)
        what = "connections of the API server to nodes are"
        await listening.serve(ctx, server, port, lambda: stream_identity(ctx, client), what)


async def _announce(ctx: Context, client: Client, nodes: Nodes) -> None:
    """Let the nodes that dial in tell the tunnel port of this instance."""
    port = await _negotiated(ctx, client)
    announcer = Announcer(client, port, ctx.clock, ctx.random, ctx.log)
    nodes.on_connected = announcer.connected
    for node in nodes.nodes():
        announcer.connected(node)
    try:
        await announcer.run()
    finally:
        nodes.on_connected = None


async def _negotiated(ctx: Context, client: Client) -> int:
    wait_s, ip = _RETRY_S, _own_address(ctx)
    while True:
        try:
            port = await negotiate(client, ip, ctx.clock, ctx.random, _taken_ports(ctx, ip))
        except ApiError as exc:
            ctx.log.warning("no tunnel port yet: %s", exc)
        else:
            ctx.log.info("the tunnel port of this instance is %d", port)
            return port
        await ctx.clock.sleep(wait_s * (1 + 0.2 * ctx.random.random()))
        wait_s = min(wait_s * 2, _RETRY_MOST_S)


def _taken_ports(ctx: Context, ip: str) -> Taken | None:
    """Looks at this machine's rules, where they are ours to make."""
    if not IptablesManager().enabled(ctx.settings):
        return None
    stream_port = int(ctx.config.get("streamPort") or 10003)

    async def taken(config_map: dict[str, Any] | None) -> set[int]:
        from edgesite.cloud.iptablesmanager.manager import ports_elsewhere

        return await ports_elsewhere(config_map, ip, stream_port)

    return taken


def _own_address(ctx: Context) -> str:
    """The address by which the API server's machine reaches this one: the first that is advertised to edges."""
    advertised = ctx.settings.get("modules", {}).get("cloudHub", {}).get("advertiseAddress") or ()
    for text in advertised:
        try:
            return str(ipaddress.ip_address(text))
        except ValueError:
            continue
    return "127.0.0.1"
