"""An edge that stops reading is cut after ``writeTimeout``, over either transport; the hub keeps little for it, and others go on."""

from __future__ import annotations

import json
import logging

import anyio
import pytest
from link_site import SiteMaker, node_object
from test_link_quic import credentials_of, quic_address, quic_site
from test_link_tls import read_token

from edgesite.cloud.cloudhub.hub import Hub
from edgesite.cloud.cloudhub.records import ConnectedNodes
from edgesite.net import websocket
from edgesite.net.messagesocket import MessageSocket
from edgesite.net.quic import client as quic_client
from edgesite.net.quic.core import Credentials
from edgesite.net.quic.framing import Hello
from edgesite.net.tls import client_context
from edgesite.testing.waiting import DEADLINE_S, until
from edgesite.wire.message import Message, MessageMaker

pytestmark = pytest.mark.anyio

STALL_S = 2
LARGE = "x" * 200_000


async def dial(transport: str, hub: str, quic: str, net: object, own: Credentials) -> MessageSocket:
    with anyio.fail_after(DEADLINE_S):
        if transport == "quic":
            return await quic_client.connect(net, quic, Hello("stuck"), own, max_message_bytes=1 << 24)  # type: ignore[arg-type]
        tls = client_context(ca=own.ca, certificate=own.certificate, key=own.key)
        headers = {"node_id": "stuck", "project_id": "p"}
        return await websocket.connect(net, hub, "/p/stuck/events", headers, tls=tls)  # type: ignore[arg-type]


def message_for(maker: MessageMaker, node: str, number: int) -> Message:
    """A message that is sent once."""
    return maker.make("cloudhub", "twin", "update", f"node/{node}/membership/{number}", LARGE)


@pytest.mark.parametrize("transport", ["websocket", "quic"])
async def test_a_reader_that_stops_is_cut_and_others_do_not_notice(
    make_site: SiteMaker, caplog: pytest.LogCaptureFixture, transport: str
) -> None:
    caplog.set_level(logging.INFO, "edgesite")
    async with quic_site(make_site, websocket=True) as site:
        site.values["cloud"]["modules"]["cloudHub"] |= {"writeTimeout": STALL_S, "keepaliveInterval": 300}
        async with site.cloud() as client:
            site.token = await read_token(client)
            own = await credentials_of(site, client, "stuck")
            async with site.edge("lively") as lively:
                with anyio.fail_after(DEADLINE_S):
                    await lively.meta.wait_connected()
                assert site.cloud_host is not None
                hub = site.cloud_host.services.get(ConnectedNodes)  # type: ignore[type-abstract]
                assert isinstance(hub, Hub)
                address = f"127.0.0.1:{site.hub_port}"
                stuck = await dial(transport, address, quic_address(site), site.world.net, own)
                greeting = {
                    "header": {"msg_id": "k", "timestamp": 1},
                    "route": {"source": "websocket", "group": "resource", "operation": "keepalive", "resource": "node"},
                    "content": "ping",
                }
                stuck.send_nowait(json.dumps(greeting), text=True)
                await until(lambda: "stuck" in hub.nodes())
                stuck.pause()
                world = site.world
                maker = MessageMaker(world.clock.time, world.random.getrandbits)
                connection = hub._connections["stuck"]
                began = world.clock.monotonic()
                most = 0
                for number in range(100):  # 20 MB: more than the kernel takes
                    hub.send(message_for(maker, "stuck", number))
                    await anyio.sleep(0.005)
                    most = max(most, connection._socket.buffered_bytes)
                    assert lively.meta.connected
                assert most < 1_000_000
                await lively.meta.insert("node", "", "lively", node_object("lively"))  # is answered meanwhile
                await until(lambda: "stuck" not in hub.nodes())
                assert "takes nothing any more" in caplog.text
                assert world.clock.monotonic() - began < STALL_S + 5
                assert "lively" in hub.nodes()
                stuck.abort()
