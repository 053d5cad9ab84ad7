"""MetaServer and dynamiccontroller with the other end KubeEdge's: Applications as its programs were recorded to send and answer them."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from metaserver_site import OBJECTS, Program, meta_site

# isort: split
from go_cloud import VERSIONS, GoCloud
from link_site import Edge
from raw_edge import RawEdge, raw_edge

from edgesite.edge.edgehub.link import Link
from edgesite.kube.resources import CONFIG_MAPS, NODES
from edgesite.testing.waiting import until

pytestmark = pytest.mark.anyio
Json = dict[str, Any]
META = {"source": "metaserver", "group": "dynamiccontroller"}
MEMBERS = {
    "v1.12.7": [
        "ID",
        "Key",
        "Verb",
        "Nodename",
        "Status",
        "Reason",
        "Option",
        "ReqBody",
        "RespBody",
        "Subresource",
        "Error",
        "Token",
    ],
    "v1.23.1": [
        "ID",
        "Key",
        "Verb",
        "Nodename",
        "Option",
        "ReqBody",
        "Subresource",
        "RespBody",
        "Status",
        "Reason",
        "Error",
        "Timestamp",
    ],
}


def encoded(value: Any) -> str | None:
    return None if value is None else base64.b64encode(json.dumps(value, separators=(",", ":")).encode()).decode()


def decoded(text: str | None) -> Any:
    return json.loads(base64.b64decode(text)) if text else None


def application(version: str, verb: str, key: str, option: Any, body: Any = None, **more: Any) -> Json:
    """As this version's edge orders it."""
    values: Json = {
        "Key": key,
        "Verb": verb,
        "Nodename": "edge-1",
        "Status": "InApplying",
        "Reason": "",
        "Option": encoded(option),
        "ReqBody": encoded(body),
        "RespBody": None,
        "Subresource": "",
        "Error": {"ErrStatus": {"metadata": {}}},
        "Token": "",
        "Timestamp": "0001-01-01T00:00:00Z",
        **more,
    }
    values["ID"] = id_of(values)
    return {name: values[name] for name in MEMBERS[version]}


def id_of(values: Json) -> str:
    parts = [values["Nodename"], values["Key"], values["Verb"]]
    parts += [base64.b64decode(values[name] or "").decode() for name in ("Option", "ReqBody")]
    return hashlib.sha256("".join([*parts, values["Subresource"], values.get("Token", "")]).encode()).hexdigest()


async def apply(edge: RawEdge, sent: Json) -> Json:
    asked = await edge.say("null", "null", sent, **META)
    told = await edge.hear(lambda one: one["header"].get("parent_msg_id") == asked)
    assert told["route"] == {
        "source": "dynamiccontroller",
        "group": "resource",
        "operation": "applicationResponse",
        "resource": "ignore/Application/ignore",
    }
    answer: Json = told["content"]
    assert list(answer) == list(sent), "the members of its version, in their order"
    same = set(sent) - {"Status", "Reason", "RespBody", "Error"}
    assert {name: answer[name] for name in same} == {name: sent[name] for name in same}
    return answer


@pytest.mark.parametrize("version", ["v1.12.7", "v1.23.1"])
async def test_applications_of_a_go_edge_are_carried_out(tmp_path: Path, version: str) -> None:
    async with meta_site(tmp_path) as site, site.cloud() as client, raw_edge(site.site) as edge:
        base = "/core/v1/configmaps/default"

        async def ask(verb: str, name: str, option: Any, body: Any = None, **more: Any) -> Json:
            return await apply(edge, application(version, verb, f"{base}/{name}", option, body, **more))

        meta = {"apiVersion": "meta.k8s.io/v1"}
        made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b", "namespace": "default"}}
        created = await ask("create", "null", {"kind": "CreateOptions", **meta}, {**made, "data": {"x": "1"}})
        assert (created["Status"], decoded(created["RespBody"])["data"]) == ("Approved", {"x": "1"})
        again = await ask("create", "null", {"kind": "CreateOptions", **meta}, {**made, "data": {"x": "1"}})
        assert (again["Status"], again["Error"]["ErrStatus"]["reason"]) == ("Rejected", "AlreadyExists")
        patch = {
            "Name": "b",
            "PatchType": "application/merge-patch+json",
            "Data": encoded({"data": {"x": "2"}}),
            "Options": {"kind": "PatchOptions", **meta},
            "Subresources": [""],
        }
        assert decoded((await ask("patch", "b", patch))["RespBody"])["data"] == {"x": "2"}
        found = await ask("get", "b", {})
        assert decoded(found["RespBody"])["kind"] == "ConfigMap"
        listed = await ask("list", "null", {"labelSelector": "app=x", "limit": 5})
        assert decoded(listed["RespBody"])["items"] == []
        updated = await ask("update", "b", {"kind": "UpdateOptions", **meta}, {**made, "data": {"x": "3"}})
        assert decoded(updated["RespBody"])["data"] == {"x": "3"}
        missing = await ask("get", "none", {})
        assert missing["Error"]["ErrStatus"]["message"] == 'configmaps "none" not found'
        bad = await ask("list", "null", {"fieldSelector": "no.such=field"})
        assert (bad["Status"], bad["Error"]) == ("Rejected", {"ErrStatus": {"metadata": {}}})
        assert bad["Reason"], "lists fail in words"
        gone = await ask("delete", "b", {"kind": "DeleteOptions", **meta})
        assert (gone["Status"], gone["RespBody"]) == ("Approved", None)
        if version == "v1.23.1":
            plain = await apply(edge, application(version, "get", "/version", {}))
            assert decoded(plain["RespBody"])["major"] == "1"
        assert (await client.list(CONFIG_MAPS, "default"))["items"] == []


async def test_a_write_that_a_go_edge_has_given_up_is_not_applied(tmp_path: Path) -> None:
    """What v1.12.7 sends after a cut, though its caller was told that it had failed."""
    async with meta_site(tmp_path) as site, site.cloud() as client, raw_edge(site.site) as edge:
        made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b", "namespace": "default"}}
        late = application(
            "v1.12.7",
            "create",
            "/core/v1/configmaps/default/null",
            {},
            made,
            Status="Completed",
            Reason="failed to access cloud Application center: timeout to get response for message x",
        )
        answer = await apply(edge, late)
        assert (answer["Status"], answer["Error"]["ErrStatus"]["code"]) == ("Rejected", 504)
        assert (await client.list(CONFIG_MAPS, "default"))["items"] == []


async def test_a_watch_of_a_go_edge_is_told_by_objects(tmp_path: Path) -> None:
    async with meta_site(tmp_path) as site, site.cloud() as client, raw_edge(site.site) as edge:
        await client.create(CONFIG_MAPS, config_map("a", "1"))
        key = "/core/v1/configmaps/default/null"
        watch = application("v1.23.1", "watch", key, {"watch": True, "timeoutSeconds": 14})
        assert (await apply(edge, watch))["Status"] == "Approved"
        first = await edge.hear_about("insert", "default/configmap/a")
        assert (first["route"]["source"], first["route"]["group"]) == ("dynamiccontroller", "resource")
        assert first["header"]["resourceversion"] == first["content"]["metadata"]["resourceVersion"]
        await edge.ack(first)
        await client.create(CONFIG_MAPS, config_map("b", "1"))
        await edge.ack(await edge.hear_about("insert", "default/configmap/b"))
        await client.update(CONFIG_MAPS, config_map("b", "2"))
        await edge.ack(await edge.hear_about("update", "default/configmap/b"))
        await client.delete(CONFIG_MAPS, "b", "default")
        await edge.ack(await edge.hear_about("delete", "default/configmap/b"))
        nodes = application("v1.12.7", "watch", "/core/v1/nodes/null/null", {"watch": True})
        await client.create(NODES, {"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n"}})
        assert (await apply(edge, nodes))["Status"] == "Approved"
        assert (await edge.hear_about("insert", "null/node/n"))["content"]["kind"] == "Node"
        asked = await edge.say("null", "watchapp/sync", {}, **META)  # none lives: both end
        told = await edge.hear(lambda one: one["header"].get("parent_msg_id") == asked)
        assert told["content"] == {}
        await client.create(CONFIG_MAPS, config_map("c", "1"))
        assert (await apply(edge, application("v1.23.1", "get", "/version", {})))["Status"] == "Approved"
        assert not [one for one in edge.heard if one["route"]["resource"] == "default/configmap/c"]


def config_map(name: str, value: str) -> Json:
    metadata = {"name": name, "namespace": "default"}
    return {"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata, "data": {"x": value}}


# -- the cloud is KubeEdge's


@dataclass
class MetaCloud(GoCloud):
    """A Go cloud with its dynamiccontroller, for ConfigMaps; refuses what a Go cloud could not read."""

    asked: list[Json] = field(default_factory=list)
    watching: bool = False

    def _frame(self, frame: Any) -> None:
        message = json.loads(frame.data)
        if message["route"].get("source") != "metaserver":
            super()._frame(frame)
            return
        assert message["route"] == {**META, "operation": "null", "resource": "null"}, message["route"]
        content = message["content"]
        assert list(content) == MEMBERS["v1.12.7"]
        assert content["ID"] == id_of(content)
        self.asked.append(content)
        answer = self._say("applicationResponse", "ignore/Application/ignore", self._applied(content))
        answer["header"]["parent_msg_id"] = message["header"]["msg_id"]
        answer["route"]["source"] = "dynamiccontroller"
        self._write(answer)

    def _applied(self, asked: Json) -> Json:
        if asked["Key"].count("/") != 5:
            return {**asked, "Status": "Rejected", "Reason": "no key of a resource"}
        verb, (_, group, _, resource, namespace, name) = asked["Verb"], asked["Key"].split("/")
        if resource == "namespaces":  # asked to find out who is here
            return {**asked, "Status": "Approved", "RespBody": encoded({"kind": "Namespace", "metadata": {}})}
        assert (group, resource, namespace) == ("core", "configmaps", "default")
        path = f"default/configmap/{name}"
        result: Any = None
        if verb == "list":
            items = [one for at, one in self.objects.items() if "/configmap/" in at]
            result = {"apiVersion": "v1", "kind": "ConfigMapList", "items": items}
            result["metadata"] = {"resourceVersion": str(self._revision)}
        elif verb == "watch":
            self.watching = True
        elif verb == "create":
            obj = decoded(asked["ReqBody"])
            result = self.put(f"default/configmap/{obj['metadata']['name']}", obj)
        elif path not in self.objects:
            status = {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404, "message": "not found"}
            return {**asked, "Status": "Rejected", "Error": {"ErrStatus": status}}
        elif verb == "patch":
            option = decoded(asked["Option"])
            assert option["PatchType"] == "application/merge-patch+json"
            assert option["Subresources"] == [""]
            result = self.put(path, {**self.objects[path], **decoded(option["Data"])})
        elif verb == "delete":
            self.delete(path)
        else:
            assert verb == "get"
            result = self.objects[path]
        return {**asked, "Status": "Approved", "RespBody": encoded(result)}

    def tell(self, operation: str, path: str) -> None:
        """What a watch sees."""
        self._push(operation, path, self.objects[path])
        assert self._in_flight is None or self._in_flight["content"]["metadata"]["name"]


async def test_programs_work_through_a_go_cloud(tmp_path: Path) -> None:
    async with go_site(tmp_path) as (cloud, program, edge):
        made = await program.ask("POST", OBJECTS, config_map("a", "1"))
        assert made.status == 201, made.body
        listed = await program.get(OBJECTS)
        assert [one["data"] for one in listed["items"]] == [{"x": "1"}]
        patched = await program.ask(
            "PATCH", f"{OBJECTS}/a", {"data": {"x": "2"}}, content_type="application/merge-patch+json"
        )
        assert patched.status == 200, patched.body
        assert (await program.get(f"{OBJECTS}/a"))["data"] == {"x": "2"}
        assert (await program.ask("GET", f"{OBJECTS}/none")).status == 404
        assert (await program.ask("DELETE", OBJECTS)).status == 405, "it has no verb for collections"
        table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
        assert (await program.get(OBJECTS, accept=table))["rows"][0]["cells"][:2] == ["a", 1]
        assert (await program.get(f"{OBJECTS}/a", accept=table))["kind"] == "Table"
        assert "apps" in {one["name"] for one in (await program.get("/apis"))["groups"]}
        since = (await program.get(OBJECTS))["metadata"]["resourceVersion"]
        async with program.watch(f"{OBJECTS}?watch=true&resourceVersion={since}") as lines:
            await until(lambda: cloud.watching)
            cloud.put("default/configmap/b", config_map("b", "1"))
            cloud.tell("insert", "default/configmap/b")
            assert (await lines.seen())[:2] == ("ADDED", "b")
            cloud.put("default/configmap/b", config_map("b", "2"))
            cloud.tell("update", "default/configmap/b")
            assert (await lines.seen())[:2] == ("MODIFIED", "b")
        assert (await program.ask("DELETE", f"{OBJECTS}/a")).status == 200
        asked = len(cloud.asked)
        cloud.cut()
        await until(lambda: not is_linked(edge))
        refused = await program.ask("POST", OBJECTS, config_map("late", "1"))
        assert refused.status == 503
        offline = await program.ask("GET", OBJECTS)
        assert (offline.status, offline.headers.get("x-edgesite-served-from")) == (200, "node-cache")
        await until(lambda: is_linked(edge))
        assert (await program.get(f"{OBJECTS}/b"))["data"] == {"x": "2"}
        assert not [one for one in cloud.asked[asked:] if one["Verb"] == "create"], "what was refused is not sent later"


def is_linked(edge: Edge) -> bool:
    link = edge.host.services.find(Link)  # type: ignore[type-abstract]
    return link is not None and link.connected


@asynccontextmanager
async def go_site(folder: Path) -> AsyncIterator[tuple[MetaCloud, Program, Edge]]:
    """An edge with MetaServer in a Go cloud, and a program on it."""
    async with meta_site(folder, single_process=False) as it:
        site = it.site
        cloud = MetaCloud(site, VERSIONS["v1.12.7"])
        async with cloud.serving():
            site.token = cloud.token
            async with it.edge() as edge:
                await until(lambda: is_linked(edge))
                yield cloud, it.program, edge
