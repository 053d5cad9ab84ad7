"""All connected nodes: admission, messages to them, and messages from them to the cloud's modules.

    edge ──> NodeConnection ──> lines ──> bus: group edgecontroller, devicecontroller, …; module leases
    bus: module cloudhub ──> `send` ──> NodeConnection ──> edge

State   One connection per node; a new one ends the old. The lines of messages from edges are bounded per node: a node that
        sends faster than the modules take is not read from.
Source  KubeEdge v1.12.7, cloud/pkg/cloudhub/handler, session and dispatcher.
"""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from edgesite.cloud.cloudhub.connection import NodeConnection
from edgesite.cloud.cloudhub.identities import LEGACY_NAME, NODE_PREFIX, Identities
from edgesite.cloud.cloudhub.line import Line, is_renewal
from edgesite.cloud.cloudhub.metrics import HubMetrics
from edgesite.cloud.cloudhub.outlet import Outlet
from edgesite.cloud.cloudhub.records import LEASES, DeliveryRecords
from edgesite.cloud.cloudhub.timers import Timers
from edgesite.cloud.cloudhub.unserved import unserved
from edgesite.kube.names import dns1123_subdomain_problems
from edgesite.net.http import Request, Response
from edgesite.net.messagesocket import WRITE_BYTES
from edgesite.net.websocket import HandshakeError, accept
from edgesite.wire import resource
from edgesite.wire.delivery import is_node_removal
from edgesite.wire.delta import Bases
from edgesite.wire.events import (
    Answer,
    Delivered,
    Denied,
    Event,
    Greeted,
    Holdings,
    Opened,
    Received,
    Refused,
    Removed,
    Sent,
)
from edgesite.wire.frames import MESSAGE_BYTES
from edgesite.wire.greeting import FEATURES, NEAR_FEATURES
from edgesite.wire.message import Message, MessageMaker, Operation
from edgesite.wire.node_session import NodeSession, SessionLimits

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from edgesite.context import Bus, Clock
    from edgesite.net.http import PeerInfo
    from edgesite.net.messagesocket import MessageSocket

__all__ = ["Hub", "Refusal"]

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]
_VOLUME: Final = re.compile(r"\w[-\w.+]*/volume/\w[-\w.+]*")
_CLOUD_SOURCES: Final = frozenset({"cloudhub", "cloudStream", "devicecontroller", "edgecontroller", "synccontroller"})
_CONTROL: Final = frozenset(
    {"config", "ping"}
)  #: of the transport: KubeEdge's answers by itself, though its ends send none
_LOOK_S: Final = 10.0
TASK_STATUS: Final = "UpdateNodeActionStatus"  #: how an edge (KubeEdge since v1.21) tells of a task of its node
_SPREAD_PER_NODE_S: Final = 0.004  #: when this hub is gone, its nodes shall come back 250 a second at most
_LEFT_NODES: Final = 10_000  #: that have said goodbye, the last ones
_FULL_S: Final = 30.0  #: when a node shall ask again that found no room


class Refusal(NamedTuple):
    """Why a node may not come; ``status`` is HTTP's."""

    status: int
    reason: str
    retry_after_s: float = 0.0


class _Known:
    """What a node is known to hold, for its session."""

    __slots__ = ("_node", "_records")

    def __init__(self, records: Callable[[], DeliveryRecords | None], node: str) -> None:
        self._records = records
        self._node = node

    def version_at_edge(self, uid: str) -> int | None:
        records = self._records()
        return records.version_at_edge(self._node, uid) if records is not None else None

    def digest(self) -> str:
        records = self._records()
        return records.digest(self._node) if records is not None else ""


class Hub:
    """Implements `ConnectedNodes`, `Presence` and `HubSide`; ``handle`` is the HTTP handler of all its listeners."""

    def __init__(
        self,
        bus: Bus,
        clock: Clock,
        draw: random.Random,
        records: Callable[[], DeliveryRecords | None],
        limits: SessionLimits,
        node_limit: int,
        tasks: TaskGroup,
        metrics: HubMetrics,
        log: Log,
        *,
        stall_s: float = 30.0,
    ) -> None:
        self._stall_s = stall_s
        self._bus = bus
        self._clock = clock
        self._random = draw
        self._records = records
        self._limits = limits
        self._node_limit = node_limit
        self._tasks = tasks
        self._metrics = metrics
        self._log = log
        self.identities: Identities | None = None  #: set before the first listener for other machines opens
        self._maker = MessageMaker(clock.time, draw.getrandbits)
        self._jitter, self._spread = draw.random, self._spread_s  # made once: each session has them
        self._connections: dict[str, NodeConnection] = {}
        self._open: dict[str, None] = {}
        self._left: dict[str, None] = {}  # said goodbye, and have not come back
        self._bases = Bases()
        self._timers = Timers(clock)
        self._line, self._renewals = Line(self._dispatch), Line(self._dispatch)
        self._outlet = Outlet(clock)
        self._tell_metrics(metrics)

    def set_limits(self, limits: SessionLimits, node_limit: int, stall_s: float) -> None:
        """Go on by other limits; ``stall_s`` holds for connections to come, and who is here stays though it is one too many."""
        self._limits, self._node_limit, self._stall_s = limits, node_limit, stall_s
        for one in self._connections.values():
            one.session.set_limits(limits)

    def _tell_metrics(self, metrics: HubMetrics) -> None:
        metrics.nodes.set_function(lambda: float(len(self._connections)))
        metrics.line.set_function(lambda: float(len(self._line) + len(self._renewals)))
        metrics.backlog.set_function(lambda: float(sum(one.session.backlog for one in self._connections.values())))

    async def run(self) -> None:
        """Serve timers and the lines until cancelled."""
        self._tasks.start_soon(self._timers.run)
        self._tasks.start_soon(self._look_at_nodes)
        self._tasks.start_soon(self._outlet.run)
        self._tasks.start_soon(self._renewals.run)
        await self._line.run()

    async def _look_at_nodes(self) -> None:
        while True:
            await self._clock.sleep(_LOOK_S * (0.9 + self._random.random() / 5))
            if self.identities is not None:
                for node, connection in self._connections.items():
                    if not connection.in_process:
                        self.identities.look(node)

    def close(self) -> None:
        for connection in list(self._connections.values()):
            connection.drop("the hub stops")

    # -- ConnectedNodes ------------------------------------------------------------------------------------------

    def nodes(self) -> list[str]:
        return list(self._open)

    def identity(self, node: str) -> str:
        connection = self._connections.get(node)
        return connection.identity if connection is not None else ""

    def is_own(self, node: str) -> bool:
        connection = self._connections.get(node)
        return connection is not None and bool(connection.session.own_peer)

    def forget(self, node: str, uids: Iterable[str]) -> bool:
        connection = self._connections.get(node)
        if connection is None or not connection.session.forget(uids):
            return False
        connection.settle()
        return True

    # -- Presence ------------------------------------------------------------------------------------------------

    def is_connected(self, node: str) -> bool:
        return node in self._connections

    def has_left(self, node: str) -> bool:
        return node in self._left

    # -- admission -----------------------------------------------------------------------------------------------

    def handle(self, request: Request) -> Response | None:
        """Answer an edge's opening handshake. The path is not looked at, as KubeEdge's hub does not either."""
        node = (request.headers.get("node_id") or "").strip()
        refusal = self._why_not(node, request.peer)
        if refusal is not None:
            headers = {"Content-Type": "text/plain"}
            if refusal.retry_after_s:
                headers["Retry-After"] = f"{refusal.retry_after_s:.0f}"
            return Response(refusal.status, headers, refusal.reason.encode())
        try:
            socket = accept(request, max_message_bytes=MESSAGE_BYTES, write_bytes=WRITE_BYTES)
        except HandshakeError as exc:
            return Response(exc.status, {"Content-Type": "text/plain"}, str(exc).encode())
        self._admit(node, request.peer, socket)
        return None

    def greet(self, node: str, peer: PeerInfo, socket: MessageSocket) -> Refusal | None:
        """Take an edge that has come over another transport, or say why not. Its socket is ours from then on."""
        refusal = self._why_not(node, peer)
        if refusal is None:
            self._admit(node, peer, socket)
        return refusal

    def _admit(self, node: str, peer: PeerInfo, socket: MessageSocket) -> None:
        if self.identities is not None and not peer.in_process:
            self.identities.came(node, peer)
        self._left.pop(node, None)
        old = self._connections.pop(node, None)
        if old is not None:
            self._open.pop(node, None)
            old.drop("the node has connected again")
        known = _Known(self._records, node)
        session = NodeSession(
            node,
            self._maker,
            now=self._clock.monotonic(),
            version_at_edge=known.version_at_edge,
            jitter=self._jitter,
            limits=self._limits,
            digest=known.digest,
            spread_s=self._spread,
            features=NEAR_FEATURES if peer.in_process else FEATURES,
            bases=self._bases,
            counts=self._metrics.sessions,
        )
        identity = NODE_PREFIX + node if peer.in_process else peer.common_name
        connection = NodeConnection(
            node, identity, socket, session, self._clock, self, stall_s=self._stall_s, in_process=peer.in_process
        )
        self._connections[node] = connection
        connection.start()

    def _why_not(self, node: str, peer: PeerInfo) -> Refusal | None:
        refusal = None
        if not node or dns1123_subdomain_problems(node):
            refusal = Refusal(400, "the header node_id must name a node")
        elif reason := self.refusal(node, peer):
            refusal = Refusal(403, reason)
        elif len(self._connections) >= self._node_limit and node not in self._connections:
            reason = f"{self._node_limit} nodes are connected, which is the limit"
            refusal = Refusal(503, reason, retry_after_s=_FULL_S)
        if refusal is not None:
            self._metrics.refused.labels(refusal.status).inc()
            identity = NODE_PREFIX + node if peer.in_process else peer.common_name
            self._log.warning("refused a connection: node=%r certificate=%r: %s", node, identity, refusal.reason)
        return refusal

    def refusal(self, node: str, peer: PeerInfo) -> str:
        """Implements `NodeGate`. A peer in this process is believed."""
        if peer.in_process:
            return ""
        if self.identities is None:
            return "" if peer.common_name in (NODE_PREFIX + node, LEGACY_NAME) else "the certificate is another node's"
        return self.identities.refusal(node, peer)

    def _spread_s(self) -> float:
        return len(self._connections) * _SPREAD_PER_NODE_S

    # -- to the edges --------------------------------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Give a message to the session of its node; without one it is dropped: the next session begins with a comparison."""
        node = resource.node_of(message.resource)
        if self.identities is not None and message.content is None and is_node_removal(message):
            self.identities.ended(node)
        connection = self._connections.get(node)
        if connection is not None:
            connection.queue(message)
            self._outlet.add(connection)

    # -- HubSide -------------------------------------------------------------------------------------------------

    def arm(self, connection: NodeConnection) -> None:
        self._timers.arm(connection)

    def on_event(self, connection: NodeConnection, event: Event) -> None:
        records, node = self._records(), connection.node
        match event:
            case Received(message):
                self._metrics.received.inc()
                (self._renewals if is_renewal(message) else self._line).add(connection, message)
            case Answer(message):
                self._bus.respond(message)
            case Sent(ref) if records is not None:
                records.sent(node, ref)
            case Delivered(ref):
                self._metrics.acknowledged.inc()
                if records is not None:
                    records.delivered(node, ref)
            case Removed(ref):
                self._metrics.acknowledged.inc()
                if records is not None:
                    records.removed(node, ref.uid)
            case Refused(ref, reason):
                self._log.warning("node %s cannot take %s %s/%s: %s", node, ref.type, ref.namespace, ref.name, reason)
            case Denied(ref) if records is not None:
                records.denied(node, ref)
            case Holdings(objects) if records is not None:
                records.replace(node, objects)
            case Opened():
                self._open[node] = None
                self._tell(node, Operation.CONNECTED)
            case Greeted(own=own):
                self._log.info("node %s connected (%s)", node, "edgesite" if own else "KubeEdge")

    def on_end(self, connection: NodeConnection, reason: str) -> None:
        if self._connections.get(connection.node) is connection:
            del self._connections[connection.node]
            self._open.pop(connection.node, None)
            if connection.has_left:
                self._left[connection.node] = None
                if len(self._left) > _LEFT_NODES:
                    del self._left[next(iter(self._left))]
            self._tell(connection.node, Operation.DISCONNECTED)
        self._metrics.bad.inc(connection.session.refused)
        self._log.info("node %s disconnected: %s", connection.node, reason)

    def _tell(self, node: str, operation: Operation) -> None:
        message = self._maker.make("cloudhub", "resource", operation, f"node/{node}")
        self._line.add(None, message)

    # -- to the modules ------------------------------------------------------------------------------------------

    async def _dispatch(self, connection: NodeConnection | None, message: Message) -> None:
        if connection is None:
            await self._bus.send_group("synccontroller", message)
            await self._bus.send_group("dynamiccontroller", message)
            return
        if message.operation in _CONTROL and not message.parent_msg_id:
            connection.send(self._maker.reply(message, "ack"))
            return
        if message.source in _CLOUD_SOURCES:
            self._log.debug("left alone: source=%s resource=%s", message.source, message.resource)
            return
        if _VOLUME.fullmatch(message.resource):
            self._bus.respond(message)
            return
        renews = is_renewal(message)
        message = message.with_resource(resource.add_node(connection.node, message.resource))
        try:
            if message.operation == Operation.UPLOAD and message.group == "user":
                await self._bus.send("router", message)
            elif message.operation == TASK_STATUS:
                await self._bus.send_group("taskmanager", message)
            elif message.source == "metaserver":
                await self._bus.send("dynamiccontroller", message)
            elif message.source == "twin":
                await self._bus.send_group("devicecontroller", message)
            elif renews:
                await self._bus.send(LEASES, message)
            else:
                await self._bus.send_group("edgecontroller", message)
        except LookupError:
            self._refuse(connection, message)

    def _refuse(self, connection: NodeConnection, message: Message) -> None:
        """No module takes it: who waits for an answer and understands one gets it."""
        self._log.debug("no module for a message: source=%s resource=%s", message.source, message.resource)
        answer = unserved(self._maker, connection.node, message, is_own=bool(connection.session.own_peer))
        if answer is not None:
            connection.send(answer)
