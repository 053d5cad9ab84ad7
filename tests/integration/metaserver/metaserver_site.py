"""A cloud with its API, and an edge with a MetaServer in front of it: what the tests of MetaServer stand on."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "link"))

from link_site import Edge, Site, free_ports, site_at

from edgesite.client import Client
from edgesite.cloud.dynamiccontroller.module import DynamicController
from edgesite.context import Module
from edgesite.edge.edgehub.link import Link
from edgesite.edge.metaserver.module import MetaServer
from edgesite.kube import json
from edgesite.net.client import Answer, HttpClient
from edgesite.net.real import RealNet
from edgesite.testing.waiting import DEADLINE_S

__all__ = ["MetaSite", "Program", "meta_site"]

OBJECTS = "/api/v1/namespaces/default/configmaps"


@dataclass
class Program:
    """A program on the node, which speaks plain HTTP to MetaServer."""

    address: str
    http: HttpClient = field(init=False)

    def __post_init__(self) -> None:
        self.http = HttpClient(RealNet(), self.address)

    async def ask(self, method: str, target: str, body: Any = None, **headers: str) -> Answer:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body)
        if data:
            given.setdefault("content-type", "application/json")
        with anyio.fail_after(DEADLINE_S):
            return await self.http.request(method, target, given, data)

    async def get(self, target: str, **headers: str) -> Any:
        answer = await self.ask("GET", target, **headers)
        assert answer.status == 200, (answer.status, answer.body[:500])
        return json.loads(answer.body)

    @asynccontextmanager
    async def watch(self, target: str, **headers: str) -> AsyncIterator[Lines]:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.stream("GET", target, given) as answer:
            assert answer.status == 200, await answer.read_all()
            yield Lines(answer)


class Lines:
    """Events of a watch, one at a time."""

    def __init__(self, answer: Any) -> None:
        self.headers = answer.headers
        self._answer = answer
        self._rest = b""
        self._lines: list[bytes] = []

    async def next(self, within_s: float = DEADLINE_S) -> dict[str, Any]:
        with anyio.fail_after(within_s):
            while not self._lines:
                piece = await self._answer.read()
                if not piece:
                    raise EOFError
                *lines, self._rest = (self._rest + piece).split(b"\n")
                self._lines += lines
        return json.loads(self._lines.pop(0))

    async def seen(self) -> tuple[str, str, str]:
        """Type, name and revision of the next event."""
        event = await self.next()
        metadata = event["object"].get("metadata", {})
        return event["type"], metadata.get("name", ""), metadata.get("resourceVersion", "")


@dataclass
class MetaSite:
    site: Site
    port: int
    programs: list[Program] = field(default_factory=list)

    @property
    def client(self) -> Client:
        return self.site.client

    @property
    def program(self) -> Program:
        """A new one, with connections of its own."""
        self.programs.append(Program(f"127.0.0.1:{self.port}"))
        return self.programs[-1]

    @asynccontextmanager
    async def cloud(self, *more: type[Module]) -> AsyncIterator[Client]:
        async with self.site.cloud(DynamicController, *more) as client:
            yield client

    @asynccontextmanager
    async def edge(self, *more: type[Module]) -> AsyncIterator[Edge]:
        async with self.site.edge("edge-1", MetaServer, *more) as edge:
            yield edge

    @asynccontextmanager
    async def both(self) -> AsyncIterator[Program]:
        """Both roles, and a program that finds them connected."""
        async with self.cloud(), self.edge() as edge:
            await connected(edge)
            yield self.program


async def connected(edge: Edge) -> None:
    """Wait until the link is up, and each end knows the other."""
    with anyio.fail_after(DEADLINE_S):
        while True:
            link = edge.host.services.find(Link)
            if link is not None and link.connected and link.own_peer:
                return
            await anyio.sleep(0.01)


@asynccontextmanager
async def meta_site(
    folder: Path, *, gate: bool = False, single_process: bool = True, **settings: Any
) -> AsyncIterator[MetaSite]:
    """``settings`` are of the metaServer section."""
    async with site_at(folder, single_process=single_process) as site:
        port = free_ports(1)[0]
        site.values["cloud"]["modules"]["dynamicController"]["enable"] = True
        section = site.values["edge"]["modules"]["metaManager"]["metaServer"]
        section |= {"enable": True, "server": f"127.0.0.1:{port}", "dummyServer": "", **settings}
        if gate:
            for role in ("cloud", "edge"):
                site.values[role]["featureGates"] = {"requireAuthorization": True}
        made = MetaSite(site, port)
        try:
            yield made
        finally:
            for program in made.programs:
                await program.http.close()
