"""Runs edgesite as `benchmarks.linkspaces` needs it: with a clock that can be made to jump, and with books kept of its link.

    LINKPROBE=FOLDER python -m benchmarks.linkprobe NAME edge --data-dir …

FOLDER/NAME.clock   eight bytes, a double: by how many seconds this process's wall clock is ahead; looked at whenever time is asked
FOLDER/NAME.books   one line of JSON for each event, written at once, so that kill -9 loses none:
    ["sent", node, message, uid, version, operation]       a message about an object leaves the cloud
    ["coalesced" | "stale", node]                           one that does not leave
    ["acked", node, uid, version], ["removed", node, uid]   the cloud learns what an edge has stored
    ["applied", node, uid, version, verdict]                an edge has stored, and what it decided

TLS keeps to the machine's clock: OpenSSL asks the system, not Python.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_OFFSET = struct.Struct("d")


def _clock(path: Path) -> None:
    """Put the offset under the functions that tell the wall clock."""
    if not path.exists():
        path.write_bytes(_OFFSET.pack(0.0))
    with path.open("r+b") as file:
        memory = mmap.mmap(file.fileno(), _OFFSET.size)
    real, real_ns = time.time, time.time_ns
    time.time = lambda: real() + _OFFSET.unpack_from(memory)[0]
    time.time_ns = lambda: real_ns() + int(_OFFSET.unpack_from(memory)[0] * 1e9)


def _books(path: Path) -> Callable[..., None]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(*values: object) -> None:
        os.write(descriptor, json.dumps(values).encode() + b"\n")

    return write


def _watch_cloud(write: Callable[..., None]) -> None:
    from edgesite.cloud.cloudhub.hub import Hub
    from edgesite.wire.delivery import object_of
    from edgesite.wire.events import Delivered, Removed
    from edgesite.wire.node_session import NodeSession

    take, send, on_event = NodeSession.take, NodeSession.send, Hub.on_event

    def seen_take(session: NodeSession, *arguments: Any) -> Any:
        message = take(session, *arguments)
        ref = object_of(message) if message is not None else None
        if message is not None and ref is not None and session.is_in_flight(message.msg_id):
            write("sent", session.node, message.msg_id, ref.uid, ref.version, message.operation)
        return message

    def seen_send(session: NodeSession, message: Any, now: float) -> None:
        before = session.counts.coalesced, session.counts.stale
        send(session, message, now)
        if session.counts.coalesced > before[0]:
            write("coalesced", session.node)
        if session.counts.stale > before[1]:
            write("stale", session.node)

    def seen_event(hub: Hub, connection: Any, event: Any) -> None:
        if isinstance(event, Delivered):
            write("acked", connection.node, event.ref.uid, event.ref.version)
        elif isinstance(event, Removed):
            write("removed", connection.node, event.ref.uid)
        on_event(hub, connection, event)

    for owner, name, stand in (
        (NodeSession, "take", seen_take),
        (NodeSession, "send", seen_send),
        (Hub, "on_event", seen_event),
    ):
        setattr(owner, name, stand)


def _watch_edge(node: str, write: Callable[..., None]) -> None:
    from edgesite.edge.metamanager.store import EdgeStore
    from edgesite.wire import resource
    from edgesite.wire.delivery import version_number

    apply = EdgeStore.apply

    async def seen_apply(store: EdgeStore, arrivals: Any) -> Any:
        outcomes = await apply(store, arrivals)
        for arrival, outcome in zip(arrivals, outcomes, strict=True):
            metadata = arrival.obj.get("metadata") or {}
            if resource.parse(arrival.key).type in ("pod", "configmap", "secret"):
                verdict = "delete" if arrival.is_delete and outcome.verdict.value != "ignore" else outcome.verdict.value
                version = version_number(metadata.get("resourceVersion"))
                write("applied", node, metadata.get("uid") or "", version, verdict)
                if outcome.replaced_uid:
                    write("applied", node, outcome.replaced_uid, 0, "delete")
        return outcomes

    setattr(EdgeStore, "apply", seen_apply)  # noqa: B010 - a method


def main() -> int:
    folder, name, arguments = Path(os.environ["LINKPROBE"]), sys.argv[1], sys.argv[2:]
    _clock(folder / f"{name}.clock")
    write = _books(folder / f"{name}.books")
    if arguments[0] == "cloud":
        _watch_cloud(write)
    else:
        _watch_edge(name, write)
    from edgesite.cli.main import main as edgesite

    sys.argv = ["edgesite", *arguments]
    return int(edgesite() or 0)


if __name__ == "__main__":
    sys.exit(main())
