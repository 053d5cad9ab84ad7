"""The network between machines: links with delay, loss, cuts; streams that stall, time out and are reset as TCP's are.

A stream never loses or reorders bytes. Loss on a link shows as stalls; a cut link stalls all that is under way until it is healed
or the sender gives up, which only the sender learns: the other end stays half-open until it sends something itself.

Units   Seconds, bytes.
State   Streams belong to the processes that made them: when one dies, its kernel still delivers what was written, then ends the
        stream; when a machine loses power, its peers learn nothing until they write to it.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edgesite.testing.simulator.datagrams import address_of
from edgesite.testing.simulator.loop import SimLoop

if TYPE_CHECKING:
    from edgesite.testing.simulator.datagrams import SimDatagrams
    from edgesite.testing.simulator.transport import SimTransport

__all__ = ["Endpoint", "Link", "Listening", "Network", "Pipe"]

GIVE_UP_S: Final = 120.0  #: A sender whose bytes nobody confirms for so long gets ETIMEDOUT.
RETRANSMIT_S: Final = 0.25  #: What one lost segment costs.


@dataclass(eq=False, slots=True)
class Link:
    """Between two machines, both ways."""

    delay_s: float = 0.01
    jitter_s: float = 0.005
    loss: float = 0.0  #: share of segments that have to be sent again
    up: bool = True
    deaf: str = ""  #: the machine that nothing reaches, though what it sends arrives


@dataclass(eq=False, slots=True)
class Endpoint:
    """One process on the network: what the fabric has to know about it."""

    machine: str
    process: object
    alive: bool = True


@dataclass(eq=False, slots=True)
class Listening:
    """A port that a process listens on. ``context`` runs what it accepts."""

    owner: Endpoint
    factory: Callable[[], asyncio.BaseProtocol]
    context: Context
    tls: Any


class Network:
    """All links, ports and streams of a world."""

    def __init__(self, loop: SimLoop, rng: random.Random, trace: Callable[[str], None]) -> None:
        self.loop, self.rng, self.trace = loop, rng, trace
        self.hosts: dict[str, str] = {}  #: host name or address -> machine
        self.ports: dict[tuple[str, str], Listening] = {}  #: (machine, port or path) -> who listens
        self.datagrams: dict[tuple[str, int], SimDatagrams] = {}  #: (address, port) -> UDP socket
        self.powered: set[str] = set()
        self.default = Link()
        self.context = copy_context()  # of the world: what the network does belongs to no process
        self._links: dict[tuple[str, str], Link] = {}
        self._local = Link(delay_s=0.0001, jitter_s=0.0)
        self._pipes: dict[Pipe, None] = {}
        self._transports: dict[SimTransport, Endpoint] = {}

    def link(self, one: str, other: str) -> Link:
        """The link between two machines, made like ``default`` at its first use."""
        if one == other:
            return self._local
        names = (one, other) if one < other else (other, one)
        if names not in self._links:
            self._links[names] = Link(self.default.delay_s, self.default.jitter_s, self.default.loss)
        return self._links[names]

    def cut(self, one: str, other: str) -> None:
        self.trace(f"net cut {one} {other}")
        self.link(one, other).up = False

    def deafen(self, one: str, other: str) -> None:
        """Half-open: ``one`` hears nothing of ``other`` any more, which hears it well."""
        self.trace(f"net deafen {one} {other}")
        self.link(one, other).deaf = one

    def heal(self, one: str, other: str) -> None:
        self.trace(f"net heal {one} {other}")
        link = self.link(one, other)
        link.up, link.deaf = True, ""
        for pipe in list(self._pipes):
            pipe.kick()

    def mend(self) -> None:
        """Give all links their first form again."""
        for (one, other), link in self._links.items():
            link.delay_s, link.jitter_s, link.loss = self.default.delay_s, self.default.jitter_s, self.default.loss
            if not link.up or link.deaf:
                self.heal(one, other)

    def reset(self, one: str, other: str) -> None:
        """Break every stream between two machines, as a middlebox that forgot them does."""
        self.trace(f"net reset {one} {other}")
        for transport, owner in list(self._transports.items()):
            if {owner.machine, transport.peer_machine} == {one, other}:
                transport.lose(ConnectionResetError(104, "simulated reset"))

    def reachable(self, one: str, other: str) -> bool:
        link = self.link(one, other)
        return link.up and link.deaf != other and other in self.powered

    def machine_at(self, address: str) -> str:
        """The machine with this address, as UDP sockets show it. Raises OSError."""
        for machine in self.hosts.values():
            if address_of(machine) == address:
                return machine
        raise OSError(113, f"no route to {address}")

    def travel_s(self, link: Link) -> float:
        delay = link.delay_s + self.rng.uniform(0.0, link.jitter_s) if link.jitter_s else link.delay_s
        while link.loss and self.rng.random() < link.loss:
            delay += RETRANSMIT_S * self.rng.uniform(0.8, 3.0)
        return delay

    def joined(self, transport: SimTransport, owner: Endpoint) -> None:
        self._transports[transport] = owner
        self._pipes[transport.out] = None

    def left(self, transport: SimTransport) -> None:
        self._transports.pop(transport, None)

    def drop_pipe(self, pipe: Pipe) -> None:
        self._pipes.pop(pipe, None)

    def process_died(self, owner: Endpoint) -> None:
        """Its kernel closes what it had open."""
        owner.alive = False
        for at in [at for at, listening in self.ports.items() if listening.owner is owner]:
            del self.ports[at]
        for transport in [one for one, its in self._transports.items() if its is owner]:
            transport.die(silently=False)
        for datagrams in [one for one in self.datagrams.values() if one.owner is owner]:
            datagrams.vanish()

    def machine_died(self, machine: str) -> None:
        """Power loss: no goodbye to anybody, and what its kernel had to send is gone."""
        self.powered.discard(machine)
        for at in [at for at in self.ports if at[0] == machine]:
            del self.ports[at]
        for transport, owner in list(self._transports.items()):
            if owner.machine == machine:
                owner.alive = False
                transport.die(silently=True)
        for pipe in list(self._pipes):
            if pipe.source.machine == machine:
                pipe.vanish()
        for datagrams in [one for one in self.datagrams.values() if one.owner.machine == machine]:
            datagrams.owner.alive = False
            datagrams.vanish()


class Pipe:
    """One direction of a stream: segments on their way, in order."""

    def __init__(self, network: Network, source: Endpoint, target: Endpoint) -> None:
        self.source, self.target = source, target
        self.size = 0  #: bytes written and not yet read by the other end
        self.receiver: SimTransport | None = None
        self.sender: SimTransport | None = None
        self._network = network
        self._link = network.link(source.machine, target.machine)
        self._queue: deque[tuple[float, bytes | None]] = deque()  # (due, data); None: end of stream
        self._last_due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._give_up: asyncio.TimerHandle | None = None
        self._ended = False

    def send(self, data: bytes | None) -> None:
        """Put a segment on its way; None ends the stream."""
        if self._ended:
            return
        self._ended = data is None
        due = max(self._last_due, self._network.loop.time() + self._network.travel_s(self._link))
        self._last_due = due
        self._queue.append((due, data))
        self.size += len(data or b"")
        self.kick()

    def kick(self) -> None:
        """Deliver, or try again when something is due; called when anything changed."""
        if not self._queue or self._timer is not None:
            return
        if not self._network.reachable(self.source.machine, self.target.machine):
            self._start_giving_up()
            return
        if self.receiver is not None and not self.receiver.reads:
            return  # its window is full; the stream may stand like this for ever
        loop = self._network.loop
        due = max(self._queue[0][0], loop.time())
        self._timer = loop.call_at(due, self._deliver, context=self._network.context)

    def _start_giving_up(self) -> None:
        if self._give_up is None:
            loop = self._network.loop
            self._give_up = loop.call_later(GIVE_UP_S, self._time_out, context=self._network.context)

    def _time_out(self) -> None:
        self._give_up = None
        if not self._queue or self._network.reachable(self.source.machine, self.target.machine):
            return
        self.vanish()
        if self.sender is not None:
            self.sender.lose(TimeoutError(110, "simulated timeout"), tell_peer=False)

    def vanish(self) -> None:
        """What is under way is lost for good."""
        self._queue.clear()
        self.size = 0
        self._ended = True
        for timer in (self._timer, self._give_up):
            if timer is not None:
                timer.cancel()
        self._timer = self._give_up = None
        self._network.drop_pipe(self)

    def _deliver(self) -> None:
        self._timer = None
        if not self._queue or not self._network.reachable(self.source.machine, self.target.machine):
            self.kick()
            return
        if self._give_up is not None:
            self._give_up.cancel()
            self._give_up = None
        now = self._network.loop.time()
        pieces: list[bytes] = []
        end = False
        while self._queue and self._queue[0][0] <= now and not end:
            _, data = self._queue.popleft()
            if data is None:
                end = True
            else:
                pieces.append(data)
        self._arrive(b"".join(pieces), end)
        self.kick()

    def _arrive(self, data: bytes, end: bool) -> None:
        self.size -= len(data)
        receiver = self.receiver
        if receiver is None or not receiver.takes:
            if data and self.sender is not None:  # nobody is there: the other kernel answers with a reset
                self.sender.reset_later(self._network.travel_s(self._link))
        else:
            receiver.receive(data, end)
        if self.sender is not None:
            self.sender.drained()
        if end:
            self._network.drop_pipe(self)
