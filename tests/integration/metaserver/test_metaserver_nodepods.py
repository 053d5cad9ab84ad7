"""Logs of a node's pods and connections into them: who is let in, with and without a link, and what is bounded. kubectl: tests/e2e/test_metaserver_into_pods.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
import pytest
from metaserver_site import MetaSite, Program, connected, meta_site

# isort: split
from link_site import Edge

from edgesite.context import Context, Section
from edgesite.edge.edged.server.source import LogSource, api_address
from edgesite.edge.metamanager.replica import Replica
from edgesite.edge.metaserver import nodepods
from edgesite.kube import json
from edgesite.net.http import HttpServer, Request, Response
from edgesite.testing.waiting import DEADLINE_S

pytestmark = pytest.mark.anyio
POD = "/api/v1/namespaces/default/pods/here"
EXEC = f"{POD}/exec?command=sh&stdout=true&container=main"


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)

    def abort(self) -> None:
        self._transport.abort()


class Kubelet:
    """Stands where edged and its kubelet API are: one pod, whose log breaks off or goes on for ever, and whose commands echo."""

    name: ClassVar[str] = "kubelet-stand-in"
    roles: ClassVar[frozenset[str]] = frozenset({"edge"})
    needs: ClassVar[frozenset[str]] = frozenset()
    section: ClassVar[str] = ""

    def enabled(self, settings: Section) -> bool:
        return True

    def pods(self) -> list[dict[str, Any]]:
        metadata = {"name": "here", "namespace": "default", "uid": "u1", "labels": {"app": "a"}}
        return [{"metadata": metadata, "spec": {"containers": [{"name": "main"}, {"name": "gone"}]}}]

    async def run(self, ctx: Context) -> None:
        ctx.services.provide(LogSource, self)  # type: ignore[type-abstract,arg-type]
        async with HttpServer(self.handle) as server:
            await server.listen(ctx.net, api_address(ctx.node_name))
            ctx.ready()
            await anyio.sleep_forever()

    async def handle(self, request: Request) -> Response | None:
        if request.path == "/stats/summary":
            one = {"cpu": {"usageNanoCores": 5}, "memory": {"workingSetBytes": 2048}}
            pods = [{"podRef": {"uid": uid}, **one, "containers": [{"name": "main", **one}]} for uid in ("u1", "u2")]
            return Response(200, {}, json.dumps({"node": one, "pods": pods}))
        if request.path.startswith("/exec/"):
            request.upgrade(Echo(), {"upgrade": "SPDY/3.1"})
            return None
        if request.path.endswith("/gone"):
            return Response(400, {}, b'container "gone" in pod "here" is waiting to start')
        writer = await request.stream(200)
        await writer.write(b"first\n")
        await anyio.lowlevel.checkpoint()
        if "tailLines=1" in request.raw_query:
            writer.abort()
            return None
        await anyio.sleep_forever()
        return None


@asynccontextmanager
async def edge_of(site: MetaSite) -> AsyncIterator[Edge]:
    async with site.edge(Kubelet) as edge:
        yield edge


async def leave_kept(edge: Edge, word: bytes = b"true") -> None:
    """Wait until what programs may do is on disk."""
    replica = edge.host.services.get(Replica)
    with anyio.fail_after(DEADLINE_S):
        while (kept := await replica.document("leave\npods/portforward\n")) is None or kept.body != word:  # noqa: ASYNC110
            await anyio.sleep(0.01)


async def opened(program: Program, target: str = EXEC, **headers: str) -> tuple[int, asyncio.StreamReader, Any]:
    """The status of a request for an upgrade, and the connection."""
    host, _, port = program.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = {"Host": program.address, "Connection": "Upgrade", "Upgrade": "SPDY/3.1", **headers}
    head = f"POST {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    writer.write((head + "Content-Length: 0\r\n\r\n").encode())
    with anyio.fail_after(DEADLINE_S):
        answer = await reader.readuntil(b"\r\n\r\n")
    return int(answer.split()[1]), reader, writer


async def status_of(program: Program, target: str = EXEC, **headers: str) -> int:
    status, _, writer = await opened(program, target, **headers)
    writer.close()
    return status


async def test_programs_are_led_into_pods_as_the_cloud_lets_them(tmp_path: Path) -> None:
    async with meta_site(tmp_path) as site:
        async with site.cloud(), edge_of(site) as edge:
            await connected(edge)
            program = site.program
            status, reader, writer = await opened(program)
            writer.write(b"through")
            assert (status, await reader.readexactly(7)) == (101, b"through")
            writer.close()
            assert await status_of(program, Origin=f"http://{program.address}") == 101
            assert await status_of(program, Origin="http://evil.example") == 403, "a page of another site"
            assert await status_of(program, EXEC.replace("here", "elsewhere")) == 400
            assert await status_of(program, EXEC.replace("command=sh&", "")) == 400, "without a command"
            assert await status_of(program, EXEC.replace("main", "nope")) == 400
            assert (await program.ask("GET", EXEC)).status == 400, "without an upgrade"
            assert (await program.ask("DELETE", EXEC)).status == 405
            assert (await program.ask("GET", "/api/v1/nodes/edge-1/proxy/metrics")).status == 405
            await leave_kept(edge)
        async with edge_of(site):
            assert await status_of(site.program) == 101, "the cloud's leave holds without a link"
        site.site.values["cloud"]["modules"]["dynamicController"]["impersonateNodes"] = True
        async with site.cloud(), edge_of(site) as edge:
            await connected(edge)
            assert await status_of(site.program) == 403, "nodes may not"
            await leave_kept(edge, b"false")
        async with edge_of(site):
            assert await status_of(site.program) == 403


async def test_without_a_word_of_the_cloud_nobody_is_led_into_pods(tmp_path: Path) -> None:
    async with meta_site(tmp_path) as site, edge_of(site):
        program = site.program
        assert await status_of(program) == 503
        answer = await program.ask("GET", f"{POD}/log?container=gone")
        assert (answer.status, json.loads(answer.body)["reason"]) == (400, "BadRequest")
        assert b"waiting to start" in answer.body
        assert (await program.ask("GET", f"{POD}/log")).status == 400, "which of the containers?"
        assert (await program.ask("GET", f"{POD.replace('here', 'elsewhere')}/log")).status == 503
        async with program.watch(f"{POD}/log?container=main") as lines:
            assert await lines._answer.read() == b"first\n"
        async with program.watch(f"{POD}/log?container=main&tailLines=1") as lines:
            with pytest.raises(OSError, match="closed"):  # that it is not all must be seen
                await lines._answer.read_all()
        pods = await program.get("/apis/metrics.k8s.io/v1beta1/pods")
        assert [one["metadata"]["name"] for one in pods["items"]] == ["here"]
        assert (await program.get("/apis/metrics.k8s.io/v1beta1/pods?labelSelector=app%3Db"))["items"] == []
        node = await program.get("/apis/metrics.k8s.io/v1beta1/nodes/edge-1")
        assert node["usage"] == {"cpu": "5n", "memory": "2Ki"}
        assert (await program.ask("GET", "/apis/metrics.k8s.io/v1beta1/nodes/edge-2")).status == 404
        assert (await program.ask("DELETE", "/apis/metrics.k8s.io/v1beta1/pods")).status == 405


async def test_streams_are_bounded_and_hold_up_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodepods, "STREAMS", 3)
    async with meta_site(tmp_path) as site, site.cloud():
        async with edge_of(site) as edge:
            await connected(edge)
            program = site.program
            async with program.watch(f"{POD}/log?container=main&follow=true") as following:
                open_ = [await opened(program) for _ in range(2)]
                assert await status_of(program) == 429
                assert (await program.ask("GET", f"{POD}/log?container=main")).status == 429
                await program.get("/api/v1/namespaces/default/configmaps")
                for _, _, writer in open_:
                    writer.close()
                with anyio.fail_after(DEADLINE_S):
                    while await status_of(program) != 101:  # noqa: ASYNC110 - it ends by itself
                        await anyio.sleep(0.01)
                assert await following._answer.read() == b"first\n"
                _, reader, writer = await opened(program)
        # the edge has stopped, and waited for none of them
        assert await reader.read() == b""
        writer.close()
