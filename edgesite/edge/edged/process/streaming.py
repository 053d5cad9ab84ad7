"""The process runtime's stream server: SPDY/3.1 for exec, attach and port-forward, as containerd has one.

    mem:process-streams<root>    reached by this program's kubelet API alone; each path holds a token that is good once, for a minute

Errors  Told on the error stream, as a Status; a client that leaves ends its command's streams.
State   Prepared streams by token, at most `PREPARED_MOST`; a task for each stream.
Source  Kubernetes' remotecommand v4 and portforward protocols: stream types, the Status that tells an exit code.
"""

from __future__ import annotations

import logging
import random as randoms
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio

from edgesite.edge.edged.process.forwarding import forward
from edgesite.edge.edged.process.remote import PROTOCOLS, Wish, serve_remote
from edgesite.edge.edged.runtime import RuntimeUnavailable
from edgesite.edge.edged.streams import StreamAddress
from edgesite.net import spdy
from edgesite.net.http import HttpServer, Limits, Request, Response

if TYPE_CHECKING:
    from edgesite.context import Clock, Net
    from edgesite.edge.edged.process.link import ProcessLink

__all__ = ["ProcessStreams"]

logger = logging.getLogger(__name__)
TOKEN_S: Final = 60.0
PREPARED_MOST: Final = 1000
_FORWARD: Final = "portforward.k8s.io"
_TEXT: Final = b"content-type: text/plain; charset=utf-8\r\n"


@dataclass(frozen=True, slots=True)
class _Prepared:
    until: float
    wish: Wish | None  # None: a port-forward


class ProcessStreams:
    """Serves the streams of one runtime while `run` goes on."""

    def __init__(self, root: Path, link: ProcessLink, net: Net, clock: Clock, random: randoms.Random) -> None:
        self._address = f"mem:process-streams{root}"
        self._link = link
        self._net = net
        self._clock = clock
        self._random = random
        self._prepared: dict[str, _Prepared] = {}

    async def run(self) -> None:
        """Serve until cancelled. Raises OSError."""
        async with HttpServer(self._serve, Limits(idle_timeout_s=30.0), log=logger) as server:
            await server.listen(self._net, self._address)
            await anyio.sleep_forever()

    def prepare(self, wish: Wish | None) -> StreamAddress:
        """Keep what is wished for whoever connects. Raises RuntimeUnavailable."""
        now = self._clock.monotonic()
        for token in [token for token, one in self._prepared.items() if one.until < now]:
            del self._prepared[token]
        if len(self._prepared) >= PREPARED_MOST:
            raise RuntimeUnavailable("too many streams wait for their clients")
        token = f"{self._random.getrandbits(128):032x}"
        self._prepared[token] = _Prepared(now + TOKEN_S, wish)
        return StreamAddress(self._address, f"/{token}")

    async def _serve(self, request: Request) -> Response | None:
        prepared = self._prepared.pop(request.path.strip("/"), None)
        if prepared is None or prepared.until < self._clock.monotonic():
            return Response(404, _TEXT, b"the stream is not prepared, or was used already")
        protocol = _agreed(request, PROTOCOLS if prepared.wish is not None else (_FORWARD,))
        if protocol is None:
            return Response(403, _TEXT, b"no stream protocol that is known here was offered")
        arrived, streams = anyio.create_memory_object_stream[spdy.SpdyStream](spdy.STREAMS)
        connection = spdy.SpdyConnection(server=True, on_stream=arrived.send_nowait)
        with arrived, streams:
            request.upgrade(connection, {"Upgrade": spdy.UPGRADE, spdy.PROTOCOL_HEADER: protocol})
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_end_with, connection, tasks)
                try:
                    if prepared.wish is not None:
                        await serve_remote(connection, streams, prepared.wish, self._link)
                    else:
                        await forward(streams, self._net)
                finally:
                    connection.close()
                tasks.cancel_scope.cancel()
        return None


async def _end_with(connection: spdy.SpdyConnection, tasks: anyio.abc.TaskGroup) -> None:
    """End everything when the client has left."""
    await connection.wait_ended()
    tasks.cancel_scope.cancel()


def _agreed(request: Request, ours: Sequence[str]) -> str | None:
    """Return the first protocol of ours that the client offers, None for no client of SPDY or none of ours."""
    if not request.headers.has_token("upgrade", spdy.UPGRADE):
        return None
    return next((one for one in ours if request.headers.has_token(spdy.PROTOCOL_HEADER, one)), None)
