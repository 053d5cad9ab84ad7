"""Programs of a node read, write and watch the API through MetaServer, with both roles in one process."""

from __future__ import annotations

import sqlite3
from contextlib import AsyncExitStack, closing
from pathlib import Path

import anyio
import pytest
from metaserver_site import OBJECTS, connected, meta_site

# isort: split

from edgesite.edge.edgehub.link import Link
from edgesite.edge.metaserver import scopes, server
from edgesite.edge.metaserver.documents import AGGREGATED
from edgesite.kube.errors import forbidden
from edgesite.kube.requestinfo import RequestInfo
from edgesite.kube.resources import CONFIG_MAPS, Resource
from edgesite.net.http import Request, Response
from edgesite.testing.waiting import until

pytestmark = pytest.mark.anyio


def config_map(name: str, labels: dict[str, str] | None = None, **data: str) -> dict[str, object]:
    metadata = {"name": name, "namespace": "default", **({"labels": labels} if labels else {})}
    return {"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata, "data": data}


async def test_a_program_reads_and_writes(tmp_path: Path) -> None:
    async with meta_site(tmp_path) as site, site.both() as program:
        made = await program.ask("POST", OBJECTS, config_map("a", x="1"))
        assert made.status == 201, made.body
        again = await program.ask("POST", OBJECTS, config_map("a", x="1"))
        assert again.status == 409
        assert (await program.get(f"{OBJECTS}/a"))["data"] == {"x": "1"}
        patched = await program.ask(
            "PATCH", f"{OBJECTS}/a", {"data": {"x": "2"}}, content_type="application/merge-patch+json"
        )
        assert patched.status == 200
        found = await program.get(OBJECTS)
        assert found["kind"] == "ConfigMapList"
        assert [one["data"] for one in found["items"] if one["metadata"]["name"] == "a"] == [{"x": "2"}]
        missing = await program.ask("GET", f"{OBJECTS}/none")
        assert missing.status == 404
        gone = await program.ask("DELETE", f"{OBJECTS}/a")
        assert gone.status == 200
        assert (await program.ask("GET", f"{OBJECTS}/a")).status == 404
        assert (await program.get("/version"))["gitVersion"]
        assert (await program.ask("GET", "/healthz")).body == b"ok"
        host, _, port = program.address.rpartition(":")
        for name, line in (("pages.example", b"HTTP/1.1 403 "), ("localhost", b"HTTP/1.1 200 ")):
            async with await anyio.connect_tcp(host, int(port)) as stream:
                await stream.send(f"GET {OBJECTS} HTTP/1.1\r\nHost: {name}:{port}\r\n\r\n".encode())
                assert (await stream.receive()).startswith(line), name


async def test_a_watch_tells_what_happens_and_resumes(tmp_path: Path) -> None:
    async with meta_site(tmp_path) as site, site.both() as program:
        client = site.client
        await client.create(CONFIG_MAPS, config_map("a", x="1"))
        found = await program.get(OBJECTS)
        since = found["metadata"]["resourceVersion"]
        async with program.watch(f"{OBJECTS}?watch=true&resourceVersion={since}") as lines:
            await client.create(CONFIG_MAPS, config_map("b", x="1"))
            await client.update(CONFIG_MAPS, config_map("b", x="2"))
            await client.delete(CONFIG_MAPS, "b", "default")
            seen = [await lines.seen() for _ in range(3)]
        assert [one[:2] for one in seen] == [("ADDED", "b"), ("MODIFIED", "b"), ("DELETED", "b")]
        async with program.watch(f"{OBJECTS}?watch=true&resourceVersion={seen[0][2]}") as lines:
            assert [await lines.seen() for _ in range(2)] == seen[1:]
        async with program.watch(f"{OBJECTS}?watch=true&labelSelector=app%3Dweb") as lines:
            await client.create(CONFIG_MAPS, config_map("c", x="1"))
            await client.update(CONFIG_MAPS, config_map("c", {"app": "web"}, x="1"))
            await client.update(CONFIG_MAPS, config_map("c", x="3"))
            assert [(await lines.seen())[:2] for _ in range(2)] == [("ADDED", "c"), ("DELETED", "c")]


async def test_without_a_link_what_was_read_is_served(tmp_path: Path) -> None:
    async with meta_site(tmp_path) as site:
        async with site.edge() as edge:
            async with site.cloud() as client:
                await connected(edge)
                program = site.program
                await client.create(CONFIG_MAPS, config_map("a", x="1"))
                assert len((await program.get(OBJECTS))["items"]) == 1
                first = (await program.get(OBJECTS))["metadata"]["resourceVersion"]
                await client.create(CONFIG_MAPS, config_map("c", x="3"))
                assert len((await program.get(OBJECTS))["items"]) == 2
                past = f"{OBJECTS}?resourceVersion={first}&resourceVersionMatch=Exact"
                assert len((await program.get(past))["items"]) == 1
                await program.get("/api/v1/namespaces")
                for bad in ("/api/v1/namespaces/null/nodes", "/api/v1%3Fx/pods", "/api/v1/namespaces/a%0d%0ab/pods"):
                    assert (await program.ask("GET", bad)).status == 400
            with anyio.fail_after(60):
                while (answer := await program.ask("GET", OBJECTS)).headers.get("warning") is None:  # noqa: ASYNC110
                    await anyio.sleep(0.02)
            assert answer.status == 200
            assert b'"x":"1"' in answer.body
            assert "offline" in (answer.headers.get("warning") or "")
            assert b'"x":"3"' in answer.body, "a list of former times is not what there is"
            assert (await program.get("/api/v1/namespaces/default"))["metadata"]["name"] == "default"
            refused = await program.ask("POST", OBJECTS, config_map("b"))
            assert refused.status == 503
            assert b"edge-1 is offline" in refused.body
            unknown = await program.ask("GET", "/api/v1/services")
            assert unknown.status == 503
        async with site.edge():  # a restart without the cloud
            found = await site.program.get(f"{OBJECTS}/a")
            assert found["data"] == {"x": "1"}


async def test_a_plugin_adds_kinds_and_filters(tmp_path: Path) -> None:
    class Plugin:
        name = "greetings"
        kind = Resource("example.org", "v1", "Greeting", "greetings", namespaced=False, verbs=("get", "list"))

        def resources(self) -> list[Resource]:
            return [self.kind]

        def admit(self, info: RequestInfo, user: object) -> None:
            if info.verb == "delete":
                raise forbidden(info.route.resource, info.route.name, "by the plugin")

        async def serve(self, request: Request, info: RequestInfo, user: object) -> Response:
            return Response(200, {"content-type": "application/json"}, b'{"kind":"GreetingList","items":[]}')

    async with meta_site(tmp_path) as site:
        host = site.site.world.hooks
        host.metaserver = lambda settings: [Plugin()]  # type: ignore[method-assign,attr-defined]
        async with site.both() as program:
            assert (await program.get("/apis/example.org/v1/greetings"))["kind"] == "GreetingList"
            groups = {one["name"] for one in (await program.get("/apis"))["groups"]}
            assert {"example.org", "apps"} <= groups
            assert (await program.get("/apis/example.org/v1"))["resources"][0]["kind"] == "Greeting"
            aggregated = await program.get("/apis", accept=AGGREGATED)
            assert "example.org" in {one["metadata"]["name"] for one in aggregated["items"]}
            refused = await program.ask("DELETE", f"{OBJECTS}/a")
            assert refused.status == 403
            assert b"by the plugin" in refused.body
        async with site.edge():
            assert (await site.program.get("/apis/example.org/v1/greetings"))["items"] == []
            assert "example.org" in {one["name"] for one in (await site.program.get("/apis"))["groups"]}


async def test_an_api_that_was_restored_is_believed(tmp_path: Path) -> None:
    """Its revisions are lower than what the node has seen: clients list again, and what is no more goes."""
    async with meta_site(tmp_path) as site, site.cloud() as client:
        await client.create(CONFIG_MAPS, config_map("a", x="1"))
        async with site.edge() as edge:
            await connected(edge)
            await site.program.get(OBJECTS)
        with closing(sqlite3.connect(tmp_path / "edge-1" / "edgecore.db")) as db, db:
            db.execute("UPDATE edgesite_scopes SET revision = 1000000")
            db.execute('UPDATE meta_v2 SET resourceversion = 1000000, value = replace(value, \'"x":"1"\', \'"x":"9"\')')
            db.execute(
                "INSERT INTO meta_v2 SELECT replace(key, '/a', '/b'), groupversionresource, namespace, 'b', 1000000,"
                ' replace(value, \'"name":"a"\', \'"name":"b"\') FROM meta_v2 WHERE name = \'a\''
            )
        async with site.edge() as edge:
            await connected(edge)
            program = site.program
            async with program.watch(f"{OBJECTS}?watch=true&resourceVersion=1000000") as lines:
                assert (await lines.next())["object"]["code"] == 410
            found = await program.get(OBJECTS)
            assert [one["data"] for one in found["items"]] == [{"x": "1"}]
        async with site.edge():
            pass
    async with meta_site(tmp_path) as site, site.edge():
        found = await site.program.get(OBJECTS)
        assert [one["data"] for one in found["items"]] == [{"x": "1"}]


async def test_no_watch_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scopes, "LINGER_S", 0.2)
    monkeypatch.setattr(server, "LOOK_S", 0.1)
    async with meta_site(tmp_path) as site, site.cloud() as client, site.edge() as edge:
        await connected(edge)
        assert site.site.cloud_host is not None
        cloud, node = site.site.cloud_host.metrics, edge.host.metrics

        def counts() -> list[float | None]:
            return [
                cloud.get_sample_value("edgesite_dynamiccontroller_watches"),
                node.get_sample_value("edgesite_metaserver_watches"),
                node.get_sample_value("edgesite_metaserver_scopes"),
            ]

        program = site.program
        async with AsyncExitStack() as stack:
            for n in range(24):  # eight that differ, three times each
                lines = await stack.enter_async_context(
                    program.watch(f"{OBJECTS}?watch=true&labelSelector=n%3D{n % 8}")
                )
                del lines
            await until(lambda: counts() == [8, 24, 8])
            assert cloud.get_sample_value("edgesite_dynamiccontroller_feeds") == 1
        await until(lambda: counts() == [0, 0, 0])
        await client.create(CONFIG_MAPS, config_map("a", {"n": "1"}))
        async with program.watch(f"{OBJECTS}?watch=true&labelSelector=n%3D1") as lines:
            assert (await lines.seen())[:2] == ("ADDED", "a")
            edge.host.services.get(Link)._connection.drop("cut by the test")  # type: ignore[attr-defined,type-abstract]
            await connected(edge)
            await until(lambda: counts() == [1, 1, 1])
