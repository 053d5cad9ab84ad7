"""Exec and attach on the process runtime: SPDY streams of a client, joined with those of the supervisor.

Units   Bytes, seconds.
Errors  None leave but cancellation: what goes wrong is told on the error stream.
State   None beyond the two connections, which bound what is under way.
Source  Kubernetes' remotecommand protocols 4 and 5: stream types, Status with the cause ExitCode, resize as JSON documents.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

from edgesite.edge.edged.process.streamed import STDERR, STDOUT, Streamed
from edgesite.edge.edged.runtime import RuntimeFault
from edgesite.edge.edged.streams import StreamOptions
from edgesite.kube import json
from edgesite.net.errors import ClosedByPeer
from edgesite.net.spdy import SpdyConnection, SpdyStream

if TYPE_CHECKING:
    from edgesite.edge.edged.process.link import ProcessLink

__all__ = ["PROTOCOLS", "Wish", "serve_remote"]

PROTOCOLS: Final = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_STREAMS_S: Final = 30.0  #: for the client to open its streams
_GOODBYE_S: Final = 5.0  #: for the client to take what was sent and to leave
_RESIZE_BYTES: Final = 4096  #: of one document


@dataclass(frozen=True, slots=True)
class Wish:
    """What to run in a container, or to attach to its main process."""

    container_id: str
    command: tuple[str, ...]  #: empty: attach
    options: StreamOptions


async def serve_remote(
    connection: SpdyConnection, arriving: MemoryObjectReceiveStream[SpdyStream], wish: Wish, link: ProcessLink
) -> None:
    """Carry one command to its end."""
    streams = await _gather(arriving, wish.options)
    if streams is None:
        return
    error = streams["error"]
    try:
        status = await _carry(streams, wish, link)
    except (RuntimeFault, ClosedByPeer) as exc:
        status = _failed(f"error executing command in container: {exc}")
    with contextlib.suppress(ClosedByPeer), anyio.move_on_after(_GOODBYE_S):
        await error.send(json.dumps(status))
    for name, stream in streams.items():
        stream.discard()
        if name not in ("stdin", "resize"):
            stream.end()
    with anyio.move_on_after(_GOODBYE_S):
        await connection.wait_ended()


async def _gather(
    arriving: MemoryObjectReceiveStream[SpdyStream], options: StreamOptions
) -> dict[str, SpdyStream] | None:
    """Return the client's streams by type; None when it does not open them in time."""
    wanted = {"error"}
    for name in ("stdin", "stdout", "stderr"):
        if getattr(options, name) and not (name == "stderr" and options.tty):
            wanted.add(name)
    if options.tty:
        wanted.add("resize")
    streams: dict[str, SpdyStream] = {}
    with anyio.move_on_after(_STREAMS_S):
        while wanted - streams.keys():
            stream = await arriving.receive()
            streams[stream.headers.get("streamtype", "")] = stream
        return streams
    return None


async def _carry(streams: dict[str, SpdyStream], wish: Wish, link: ProcessLink) -> dict[str, Any]:
    """Return the Status that tells the end. Raises RuntimeFault, ClosedByPeer."""
    options = wish.options
    names = {name: getattr(options, name) for name in ("stdin", "stdout", "stderr", "tty")}
    streamed = Streamed(await link.stream(id=wish.container_id, argv=list(wish.command), **names))
    outputs = {STDOUT: streams.get("stdout"), STDERR: streams.get("stderr")}
    try:
        async with anyio.create_task_group() as tasks:
            if "resize" in streams:  # first: input is meant for a terminal that has its size
                tasks.start_soon(_resize, streams["resize"], streamed)
            if "stdin" in streams:
                tasks.start_soon(_feed, streams["stdin"], streamed)
            status = await _outputs(streamed, outputs)
            tasks.cancel_scope.cancel()
        return status
    finally:
        streamed.close()


async def _outputs(streamed: Streamed, outputs: dict[int, SpdyStream | None]) -> dict[str, Any]:
    """Hand on what is printed, until the end. A failure is returned, as an exception would leave the group wrapped."""
    try:
        while True:
            got = await streamed.receive()
            if isinstance(got, dict):
                return _ended(got)
            stream = outputs.get(got[0])
            if stream is not None:
                await stream.send(got[1])
    except ClosedByPeer as exc:
        return _failed(f"error executing command in container: {exc}")


async def _feed(stdin: SpdyStream, streamed: Streamed) -> None:
    with contextlib.suppress(ClosedByPeer):  # its end is told by who prints
        with contextlib.suppress(ClosedByPeer):  # a client that resets the stream has ended it
            while data := await stdin.receive():
                await streamed.feed(data)
        await streamed.end_input()


async def _resize(stream: SpdyStream, streamed: Streamed) -> None:
    waiting = b""
    with contextlib.suppress(ClosedByPeer):
        while data := await stream.receive():
            *whole, waiting = (waiting + data).split(b"}")
            sizes = [size for text in whole if (size := _size(text + b"}")) is not None]
            if sizes:
                await streamed.resize(*sizes[-1])
            if len(waiting) > _RESIZE_BYTES:
                return


def _size(text: bytes) -> tuple[int, int] | None:
    """Return rows and columns of ``{"Width": 80, "Height": 24}``."""
    try:
        told = json.loads(text)
        return int(told["Height"]), int(told["Width"])
    except (ValueError, KeyError, TypeError):
        return None


def _ended(told: dict[str, Any]) -> dict[str, Any]:
    if "error" in told:
        return _failed(f"error executing command in container: {told['error']}")
    code = int(told.get("exit_code") or 0)
    if not code:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def _failed(text: str) -> dict[str, Any]:
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"Internal error occurred: {text}",
        "reason": "InternalError",
        "details": {"causes": [{"message": text}]},
        "code": 500,
    }
