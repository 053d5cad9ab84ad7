"""The hub's UDP port: edges that come over QUIC. Needs the extra ``quic``; imported only where ``quic.enable`` is set.

An edge is who its certificate says, as over WebSocket, and is refused for the same reasons. KubeEdge's edges cannot come this way:
their QUIC is a draft of 2019; they are told to the log.

Source  Keys of KubeEdge's cloudcore configuration, ``modules.cloudHub.quic``: enable, address, port. ``maxIncomingStreams`` has no
        meaning: a connection has two streams, and a third ends it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from edgesite.cloud.cloudhub.hub import Hub
from edgesite.net.address import join
from edgesite.net.quic.core import Credentials, configuration
from edgesite.net.quic.framing import Answer, Hello
from edgesite.net.quic.server import QuicLimits, QuicPeer, QuicServer
from edgesite.net.quic.socket import QuicSocket
from edgesite.wire.frames import MESSAGE_BYTES

if TYPE_CHECKING:
    from aioquic.quic.configuration import QuicConfiguration

    from edgesite.context import Context, Section
    from edgesite.net.pki import KeyPair

__all__ = ["listen", "shown"]


def shown(config: Section, server: KeyPair, ca: KeyPair) -> QuicConfiguration:
    """Return what connections are made with that show this certificate: for `QuicServer.configuration`. Raises ValueError."""
    keepalive_s = float(config.get("keepaliveInterval") or 30)
    credentials = Credentials(server.certificate, server.key, ca.certificate)
    return configuration(credentials, server_name=None, idle_s=keepalive_s * 2)


async def listen(ctx: Context, hub: Hub, config: Section, server: KeyPair, ca: KeyPair) -> QuicServer:
    """Open the port; the caller closes it. Raises OSError, ValueError."""

    def greet(socket: QuicSocket, hello: Hello, peer: QuicPeer) -> Answer | None:
        refusal = hub.greet(hello.node, peer, socket)
        return None if refusal is None else Answer(refusal.status, refusal.reason, refusal.retry_after_s)

    made = shown(config, server, ca)
    nodes = int(config.get("nodeLimit") or 1000)
    limits = QuicLimits(connections=nodes + nodes // 4 + 64, message_bytes=MESSAGE_BYTES)
    # The same after a restart, with another certificate too, so that edges learn at their next packet that the hub knows them no more.
    reset_key = hashlib.sha256(b"stateless reset\0" + ca.key).digest()

    def make() -> QuicServer:
        return QuicServer(
            made, greet, limits=limits, reset_key=reset_key, random_bytes=ctx.random.randbytes, log=ctx.log
        )

    address = join(str(config["quic"].get("address") or "0.0.0.0"), int(config["quic"]["port"]))
    transport, listening = await ctx.net.datagrams(make, local=address)
    ctx.log.info("quic listens on %s", _bound(transport.get_extra_info("sockname"), address))
    return listening


def _bound(name: Any, address: str) -> str:
    return join(str(name[0]), int(name[1])) if isinstance(name, tuple) else address
