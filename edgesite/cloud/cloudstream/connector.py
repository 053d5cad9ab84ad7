"""The connected nodes: tunnels by node name, and streams to their kubelet API as `NodeConnector`.

A stream is opened as KubeEdge's type EXEC whatever it asks for: with it the edge passes the whole HTTP answer on, status and
headers included, where LOGS and METRICS give the body alone. So a failure at the node is told to the client in the node's words,
with edges of KubeEdge too.

A node that is connected to the hub, but whose tunnel is not there yet, as just after its join or after a lost link, is waited for.

Errors  ApiError 503: the node has no tunnel; 504: it does not answer in time. ClosedByPeer while a body is read: the tunnel broke.
State   The newest tunnel of each node; a node that dials again replaces its old one.
Source  `edgesite.wire.tunnel`; KubeEdge v1.12.7 cloud/pkg/cloudstream (sessions by node name).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final

import anyio

from edgesite.kube.errors import ApiError, internal, unavailable
from edgesite.net.client_connection import ClientConnection
from edgesite.net.tunnel import Tunnel
from edgesite.wire.tunnel import Connect, FrameType

__all__ = ["Nodes", "TunnelAnswer"]

_ANSWER_S: Final = 30.0  #: for the head of an answer
_TUNNEL_S: Final = 3.0  #: for the tunnel of a node that is connected to the hub


class TunnelAnswer:
    """The answer of a node's kubelet API. Implements `edgesite.context.NodeStream`."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.status = connection.status
        self.headers: Mapping[str, str] = dict(connection.headers)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Pieces of the body. Raises ClosedByPeer, ProtocolError."""
        while piece := await self._connection.receive():
            yield piece

    async def close(self) -> None:
        """End the stream; idempotent."""
        self._connection.abort()  # nothing to cut once it is handed over

    def hand_over(self, protocol: asyncio.Protocol) -> asyncio.Transport:
        """See `edgesite.context.NodeStream`. Raises ClosedByPeer."""
        return self._connection.hand_over(protocol)


class Nodes:
    """Implements `edgesite.context.NodeConnector`. ``is_expected(node)`` tells whether a tunnel of the node should come soon."""

    def __init__(
        self,
        log: logging.Logger | logging.LoggerAdapter[logging.Logger],
        is_expected: Callable[[str], bool] = lambda node: False,
    ) -> None:
        self._log = log
        self._is_expected = is_expected
        self._arrived = anyio.Event()  # replaced at each tunnel that comes
        self._tunnels: dict[str, Tunnel] = {}
        self._proven: set[str] = set()
        self.on_connected: Callable[[str], None] | None = None  #: told of each node that dials
        self._numbers = itertools.count(1)  # one sequence for all tunnels, as KubeEdge's

    @property
    def connected(self) -> int:
        """How many nodes have a tunnel."""
        return len(self._tunnels)

    def has(self, node: str) -> bool:
        """Whether the node has a tunnel."""
        return node in self._tunnels

    def is_proven(self, node: str) -> bool:
        """Whether the node's tunnel has shown whose it is; a peer that cannot must not take its place."""
        return node in self._tunnels and node in self._proven

    def nodes(self) -> list[str]:
        """The nodes that have a tunnel."""
        return list(self._tunnels)

    def add(self, node: str, tunnel: Tunnel, *, proven: bool) -> None:
        """A node has dialled."""
        (self._proven.add if proven else self._proven.discard)(node)
        old = self._tunnels.get(node)
        self._tunnels[node] = tunnel
        self._arrived.set()
        self._arrived = anyio.Event()
        if old is not None:
            old.close("the node has dialled again")
        self._log.info("stream tunnel of node=%s is open", node)
        if self.on_connected is not None:
            self.on_connected(node)

    def remove(self, node: str, tunnel: Tunnel, reason: str) -> None:
        """A tunnel has ended."""
        if self._tunnels.get(node) is tunnel:
            del self._tunnels[node]
            self._proven.discard(node)
            self._log.info("stream tunnel of node=%s ended: %s", node, reason)

    async def _tunnel(self, node: str) -> Tunnel:
        """Raises ApiError."""
        with anyio.move_on_after(_TUNNEL_S):
            while node not in self._tunnels and self._is_expected(node):
                await self._arrived.wait()
        tunnel = self._tunnels.get(node)
        if tunnel is None:
            raise unavailable(f'node "{node}" cannot be reached: it has no stream tunnel to the cloud now', None)
        return tunnel

    async def open(
        self,
        node: str,
        method: str,
        target: str,
        headers: Mapping[str, Sequence[str]] | None = None,
        body: bytes = b"",
    ) -> TunnelAnswer:
        """See `edgesite.context.NodeConnector`. Raises ApiError."""
        tunnel = await self._tunnel(node)
        sent = {name.title(): list(values) for name, values in (headers or {}).items()}  # as Go's edges look for them
        sent["Connection"] = ["Upgrade" if "Upgrade" in sent else "close"]
        if body or method in ("POST", "PUT", "PATCH"):
            sent["Content-Length"] = [str(len(body))]
        connection = ClientConnection()
        try:
            connection.expect(head_only=method == "HEAD")
            stream = tunnel.open(next(self._numbers), connection, FrameType.EXEC, Connect(target, method, sent))
            stream.write(body)
            with anyio.fail_after(_ANSWER_S):
                await connection.receive_head()
        except TimeoutError:
            connection.abort()
            raise ApiError(504, "Timeout", f'node "{node}" did not answer within {_ANSWER_S:.0f} s') from None
        except OSError as exc:
            connection.abort()
            raise internal(f'error trying to reach node "{node}": {exc}') from exc
        except BaseException:
            connection.abort()
            raise
        return TunnelAnswer(connection)
