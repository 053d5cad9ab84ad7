"""Simulated UDP sockets: datagrams that are delayed, lost, duplicated and overtaken, as the link between two machines has it.

A machine's address is made from its name. A datagram to a port where nobody listens is answered by the machine, if that is up, as
ICMP does: the sender's ``error_received`` gets ConnectionRefusedError.

Units   Seconds, bytes.
State   Sockets belong to the process that made them, and vanish with it without a word.
"""

from __future__ import annotations

import asyncio
import zlib
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from edgesite.testing.simulator.network import Endpoint, Network

__all__ = ["SimDatagrams", "address_of"]

_DUPLICATED: Final = 0.1  #: of the share that is lost, so many come twice
Place = tuple[str, int]


def address_of(machine: str) -> str:
    """The IP address of a machine in UDP's eyes."""
    number = zlib.crc32(machine.encode())
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


class SimDatagrams(asyncio.DatagramTransport):
    """One UDP socket. Runs its protocol in the context of the process that owns it."""

    def __init__(
        self,
        network: Network,
        owner: Endpoint,
        protocol: asyncio.DatagramProtocol,
        context: Context,
        port: int,
        peer: Place | None,
    ) -> None:
        self.place = (address_of(owner.machine), port)
        super().__init__({"sockname": self.place, "peername": peer})
        self.owner = owner
        self._network, self._protocol, self._context, self._peer = network, protocol, context, peer
        self._closing = False
        network.datagrams[self.place] = self

    def start(self) -> None:
        """Tell the protocol that its socket is open."""
        self._context.run(self._protocol.connection_made, self)

    def sendto(self, data: Any, addr: Any = None) -> None:
        target = self._peer or addr
        if self._closing or target is None:
            return
        network = self._network
        machine = network.machine_at(target[0])
        link = network.link(self.owner.machine, machine)
        draw = network.rng.random() if link.loss else 1.0
        if draw < link.loss:
            return
        for _ in range(2 if draw < link.loss * (1 + _DUPLICATED) else 1):
            delay = link.delay_s + (network.rng.uniform(0.0, link.jitter_s) if link.jitter_s else 0.0)
            network.loop.call_later(delay, self._arrive, bytes(data), target, machine, context=network.context)

    def _arrive(self, data: bytes, target: Place, machine: str) -> None:
        network = self._network
        if not network.reachable(self.owner.machine, machine):
            return
        receiver = network.datagrams.get(target)
        if receiver is not None:
            receiver.receive(data, self.place)
        elif not self._closing and self.owner.alive:
            self._call(self._protocol.error_received, ConnectionRefusedError(111, "nobody listens there"))

    def receive(self, data: bytes, source: Place) -> None:
        """A datagram has arrived; a connected socket takes those of its peer only."""
        if not self._closing and self.owner.alive and self._peer in (None, source):
            self._call(self._protocol.datagram_received, data, source)

    def _call(self, function: Any, *args: Any) -> None:
        try:
            self._context.run(function, *args)
        except Exception as exc:
            message = {"message": f"Fatal error: {function!r} failed", "exception": exc, "transport": self}
            self._network.loop.call_exception_handler(message)

    def vanish(self) -> None:
        """The process died."""
        self._closing = True
        self._network.datagrams.pop(self.place, None)

    def close(self) -> None:
        if not self._closing:
            self.vanish()
            self._network.loop.call_soon(self._protocol.connection_lost, None, context=self._context)

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self._closing
