"""An edge that is no more than a WebSocket: says what a test wants, and gives what it hears."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from link_site import Site

from edgesite.net import websocket
from edgesite.testing.waiting import DEADLINE_S

Json = dict[str, Any]


class RawEdge:
    """One connection. ``heard`` holds what came and nobody has taken yet."""

    def __init__(self, socket: websocket.WebSocket, node: str) -> None:
        self.socket = socket
        self.node = node
        self.heard: list[Json] = []
        self._count = 0

    async def say(self, operation: str, path: str, content: Any = None, *, parent: str = "", **route: str) -> str:
        self._count += 1
        header: Json = {"msg_id": f"m{self._count}", "timestamp": 1795151208775}
        if parent:
            header["parent_msg_id"] = parent
        whole = {"source": "edged", "group": "meta", **route, "operation": operation, "resource": path}
        await self.socket.send(json.dumps({"header": header, "route": whole, "content": content}) + "\n")
        return f"m{self._count}"

    async def greet(self, *, own: bool) -> None:
        """The first keepalive: as KubeEdge's, or one of ours that answers can be sent to in full."""
        content: Any = {"edgesite": 1, "features": []} if own else "ping"
        await self.say("keepalive", "node", content, source="websocket", group="resource")

    async def hear(self, wanted: Any) -> Json:
        """The first message for which ``wanted`` is true; others are kept."""
        with anyio.fail_after(DEADLINE_S):
            while True:
                for at, message in enumerate(self.heard):
                    if wanted(message):
                        return self.heard.pop(at)
                self.heard.append(json.loads((await self.socket.recv()).data))

    async def hear_about(self, operation: str, path: str) -> Json:
        return await self.hear(lambda one: (one["route"]["operation"], one["route"]["resource"]) == (operation, path))

    async def ack(self, message: Json) -> None:
        route = {name: message["route"][name] for name in ("source", "group")}
        await self.say("response", message["route"]["resource"], "OK", parent=message["header"]["msg_id"], **route)

    async def ask(self, operation: str, path: str, content: Any = None) -> Any:
        """The content of the answer."""
        asked = await self.say(operation, path, content)
        return (await self.hear(lambda one: one["header"].get("parent_msg_id") == asked))["content"]

    async def reason(self, operation: str, path: str, content: Any = None) -> str:
        """Why the cloud refuses; "" if it does not."""
        answer = await self.ask(operation, path, content)
        if isinstance(answer, dict) and "Err" in answer:
            answer = answer["Err"] or {}
        return str((answer.get("ErrStatus") or {}).get("reason", "")) if isinstance(answer, dict) else ""


@asynccontextmanager
async def raw_edge(site: Site, node: str = "edge-1", *, own: bool = False) -> AsyncIterator[RawEdge]:
    """Connect within the process, where the node is believed, and greet."""
    with anyio.fail_after(DEADLINE_S):
        socket = await websocket.connect(site.world.net, "mem:cloudhub", "/p/n/events", {"node_id": node})
    edge = RawEdge(socket, node)
    try:
        await edge.greet(own=own)
        yield edge
    finally:
        socket.abort()
