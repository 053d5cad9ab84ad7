"""An edge of KubeEdge, v1.12.7 or v1.23.1, played by what was recorded of it: bootstrap, hub session, MetaManager, edged.

It is strict: whatever the cloud sends that a Go edge could not read, or that no Go cloud sends, raises AssertionError and so fails
the test. It speaks and waits as slowly as it must and no slower: no heartbeat but the first, no back-off.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
from link_site import Site

from edgesite.net import pem, tls, websocket
from edgesite.net.client import HttpClient
from edgesite.net.pki import KeyPair, RealPki
from edgesite.net.real import RealClock
from edgesite.testing.waiting import DEADLINE_S

Json = dict[str, Any]
PROJECT = "e632aba927ea4ac2b575ec1603d56f10"
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
HEADER = {"msg_id", "parent_msg_id", "timestamp", "resourceversion"}
ROUTE = {"source", "group", "operation", "resource"}
ONCE = ("podlist", "membership", "twin/cloud_updated", "serviceaccounttoken")


@dataclass(frozen=True)
class Version:
    """What differs between the two."""

    kubelet: str
    subject: tuple[str, str]  # organization, common name
    node_word: str  # namespace word of nodes
    asks_store_first: bool  # a configmap that is stored is not asked for again
    acks_writes: bool  # the answers to node inserts and lease writes are acknowledged too
    asks_for_node: bool


V1_12 = Version("v1.22.17-kubeedge-v1.12.7", ("kubeEdge", "kubeedge.io"), "default", True, False, True)
V1_23 = Version("v1.32.10-kubeedge-v1.23.1", ("system:nodes", "system:node:{node}"), "null", False, True, False)
VERSIONS = {"v1.12.7": V1_12, "v1.23.1": V1_23}


@dataclass
class GoEdge:
    site: Site
    node: str
    version: Version
    pair: KeyPair | None = None
    ca: bytes = b""
    meta: dict[str, Any] = field(default_factory=dict)  #: MetaManager's table: key to value
    heard: list[Json] = field(default_factory=list)  #: all messages, in order
    pods: dict[str, Json] = field(default_factory=dict)  #: what edged runs, by key
    ended: list[str] = field(default_factory=list)  #: uids of pods that edged was told to drop
    hold_acks: bool = False
    closed: bool = False

    def __post_init__(self) -> None:
        self._socket: websocket.WebSocket | None = None
        self._asked: dict[str, anyio.Event] = {}
        self._answers: dict[str, Json] = {}
        self._sent: set[str] = set()
        self._held: list[Json] = []
        self._in_flight = ""

    # -- HTTPS: joining and renewal -------------------------------------------------------------------------------

    async def join(self, token: str) -> None:
        """As keadm has left it the token has four parts; the first is the CA's hash."""
        known, _, jwt = token.partition(".")
        status, ca = await self._get("/ca.crt", {}, b"", None, verify=False)
        assert status == 200
        assert hashlib.sha256(ca).hexdigest() == known
        self.ca = ca
        assert await self._apply({"Authorization": f"Bearer {jwt}"}, None) == 200

    async def renew(self) -> int:
        """With the present certificate and no token. Returns the status, 0 for an empty body, which Go takes for a failure."""
        return await self._apply({}, self.pair)

    async def _apply(self, headers: dict[str, str], shown: KeyPair | None) -> int:
        organization, name = self.version.subject
        made = await RealPki(RealClock()).make_csr(name.format(node=self.node), organizations=[organization])
        body = pem.to_der(made.request)
        status, signed = await self._get("/edge.crt", {**headers, "Nodename": self.node}, body, shown, verify=True)
        if status == 200 and signed:
            self.pair = KeyPair(pem.from_der(signed), made.key)
            assert pem.facts(self.pair.certificate).common_name == name.format(node=self.node)
        return status if signed else 0

    async def _get(
        self, path: str, headers: dict[str, str], body: bytes, shown: KeyPair | None, *, verify: bool
    ) -> tuple[int, bytes]:
        identity = {"certificate": shown.certificate, "key": shown.key} if shown else {}
        ca = pem.from_der(self.ca) if verify else None
        context = tls.client_context(ca=ca, verify=verify, **identity)
        go = {"User-Agent": "Go-http-client/1.1", "Accept-Encoding": "gzip"}
        async with HttpClient(self.site.world.net, f"127.0.0.1:{self.site.bootstrap_port}", tls=context) as client:
            answer = await client.request("GET", path, {**go, **headers}, body)
            return answer.status, answer.body

    # -- the hub session ------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def linked(self, port: int = 0) -> AsyncIterator[GoEdge]:
        """Connect, and serve until the block ends. The server's certificate is verified, host name included."""
        assert self.pair is not None
        context = tls.client_context(ca=pem.from_der(self.ca), certificate=self.pair.certificate, key=self.pair.key)
        headers = {"User-Agent": "Go-http-client/1.1", "Connectionuse": "msg"}
        headers |= {"Node_id": self.node, "Project_id": PROJECT}
        at, path = f"127.0.0.1:{port or self.site.hub_port}", f"/{PROJECT}/{self.node}/events"
        with anyio.fail_after(DEADLINE_S):
            self._socket = await websocket.connect(self.site.world.net, at, path, headers, tls=context)
        assert not self._socket.subprotocol
        self._in_flight, self.closed = "", False
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._read)
            await self._send("websocket", "resource", "keepalive", "node", "ping")
            detail = json.dumps({"event_type": "group_membership_event", "group_id": self.node, "operation": "detail"})
            await self._send("twin", "resource", "get", "membership/detail", detail)
            yield self
            tasks.cancel_scope.cancel()
        self._socket.abort()

    async def stop(self) -> None:
        """What a Go edge sends on SIGTERM."""
        assert self._socket is not None
        for _ in range(2):
            empty = {"header": {"msg_id": "", "timestamp": 0}, "route": {}, "content": None}
            await self._socket.send(json.dumps(empty) + "\n")

    async def _send(self, source: str, group: str, operation: str, path: str, content: Any, parent: str = "") -> str:
        assert self._socket is not None
        header: Json = {"msg_id": str(uuid.uuid4())}
        if parent:
            header["parent_msg_id"] = parent
        header["timestamp"] = 1795151208775
        route = {"source": source, "group": group, "operation": operation, "resource": path}
        self._sent.add(header["msg_id"])
        text = json.dumps({"header": header, "route": route, "content": content}, separators=(",", ":"))
        await self._socket.send(text.replace("<", "\\u003c").replace("&", "\\u0026") + "\n")
        return str(header["msg_id"])

    async def call(self, operation: str, path: str, content: Any = None, *, timeout_s: float = DEADLINE_S) -> Json:
        """A confirmed call of edged. Raises TimeoutError."""
        asked = await self._send("edged", "meta", operation, path, content)
        done = self._asked.setdefault(asked, anyio.Event())
        with anyio.fail_after(timeout_s):
            await done.wait()
        answer = self._answers.pop(asked)
        if operation == "query":
            self.meta[path] = answer["content"]
        writes = operation in ("insert", "update") and "patch" not in path
        if operation == "query" or (self.version.acks_writes and writes):
            await self._ack(answer)
        return answer

    async def _ack(self, message: Json) -> None:
        route = message["route"]
        parent = message["header"]["msg_id"]
        if parent == self._in_flight:
            self._in_flight = ""
        await self._send(route["source"], route["group"], "response", route["resource"], "OK", parent)

    async def release_acks(self) -> None:
        self.hold_acks = False
        held, self._held = self._held, []
        for message in held:
            await self._ack(message)

    async def _read(self) -> None:
        assert self._socket is not None
        try:
            async for frame in self._socket:
                assert frame.text, "a Go edge gets text frames alone"
                await self._take(json.loads(frame.data))
        finally:
            self.closed = True

    async def _take(self, message: Json) -> None:
        self._check(message)
        self.heard.append(message)
        header, route = message["header"], message["route"]
        if parent := header.get("parent_msg_id"):
            self._answers[parent] = message
            self._asked.setdefault(parent, anyio.Event()).set()
            return
        if route["group"] != "resource":
            return
        self._store(route["operation"], route["resource"], message["content"])
        if self.hold_acks:
            self._held.append(message)
        else:
            await self._ack(message)

    def _check(self, message: Json) -> None:
        assert list(message) == ["header", "route", "content"]
        header, route = message["header"], message["route"]
        assert set(header) <= HEADER
        assert UUID.fullmatch(header["msg_id"])
        assert type(header["timestamp"]) is int
        assert set(route) == ROUTE, route
        assert route["operation"] not in ("config", "ping", "pong")
        assert not route["resource"].startswith(f"node/{self.node}/"), "the node is cut off on the wire"
        content = message["content"]
        if parent := header.get("parent_msg_id"):
            assert parent in self._sent, "a Go edge drops what answers nothing"
            return
        if route["group"] != "resource":
            assert route["group"] in ("twin", "user", "taskmanager", "nodeupgradejobcontroller")
            return
        if any(word in route["resource"] for word in ONCE):
            return
        assert self._in_flight in ("", header["msg_id"]), "one message at a time: its queue drops what is too much"
        self._in_flight = header["msg_id"]
        assert content["metadata"]["uid"]
        if route["operation"] != "delete":
            assert header["resourceversion"] == content["metadata"]["resourceVersion"]
            assert content["kind"], "without a kind it is not injected"
            assert content["apiVersion"]

    # -- MetaManager ----------------------------------------------------------------------------------------------

    def _store(self, operation: str, key: str, content: Any) -> None:
        is_pod = key.split("/")[1:2] == ["pod"]
        if operation == "insert":
            self.meta.setdefault(key, content)
        elif operation == "update":
            self.meta[key] = content
        elif is_pod:
            if (self.meta.get(key) or {}).get("metadata", {}).get("uid") == content["metadata"]["uid"]:
                del self.meta[key]
        else:
            self.meta.pop(key, None)
        if is_pod and operation == "delete":
            uid = content["metadata"]["uid"]
            self.ended.append(uid)
            if self.pods.get(key, {"metadata": {"uid": uid}})["metadata"]["uid"] == uid:
                self.pods.pop(key, None)
        elif is_pod:
            assert content["spec"]["nodeName"] == self.node
            self.pods[key] = content

    # -- edged ----------------------------------------------------------------------------------------------------

    async def register(self) -> Json:
        """The order of calls after a first start, to the node's Ready and its lease; returns the Node as the cloud has it."""
        lease = f"kube-node-lease/lease/{self.node}"
        found = await self.call("query", lease)
        error = found["content"]["Err"]
        assert (error is None) is (found["content"]["Object"] is not None)
        path = f"{self.version.node_word}/node/{self.node}"
        if self.version.asks_for_node:
            await self.call("query", path)  # v1.12.7's own cloud lets this one wait for a minute
        made = (await self.call("insert", path, self._node_object()))["content"]
        if made["Err"] is not None:
            assert made["Err"]["ErrStatus"]["reason"] == "AlreadyExists"
        node = await self._node(path)
        patched = await self.call("patch", f"{self.version.node_word}/nodepatch/{self.node}", "{}")
        assert patched["content"]["Err"] is None
        assert patched["header"]["resourceversion"] == patched["content"]["Object"]["metadata"]["resourceVersion"]
        ready = {"type": "Ready", "status": "True", "reason": "EdgeReady", "message": "edge is posting ready status"}
        text = json.dumps({"status": {"$setElementOrder/conditions": [{"type": "Ready"}], "conditions": [ready]}})
        await self.call("patch", f"{self.version.node_word}/nodepatch/{self.node}", text)
        if error is not None:
            assert error["ErrStatus"]["reason"] == "NotFound", "edged creates a lease for this word alone"
            owner = {"apiVersion": "v1", "kind": "Node", "name": self.node, "uid": node["metadata"]["uid"]}
            metadata = {"name": self.node, "namespace": "kube-node-lease", "creationTimestamp": None}
            made = await self.call(
                "insert", lease, {"metadata": {**metadata, "ownerReferences": [owner]}, "spec": _term(0)}
            )
            self.meta[lease] = made["content"]
        return node

    async def renew_lease(self, second: int) -> Json:
        """Update with the last version seen; on a conflict edged asks and tries again."""
        path = f"kube-node-lease/lease/{self.node}"
        held = self.meta[path]["Object"]
        answer = await self.call("update", path, {**held, "spec": {**held["spec"], **_term(second)}})
        if answer["content"]["Err"] is not None:
            assert answer["content"]["Err"]["ErrStatus"]["reason"] == "Conflict"
            await self.call("query", path)
            return await self.renew_lease(second)
        self.meta[path] = answer["content"]
        return answer

    async def _node(self, path: str) -> Json:
        """v1.12 asks for its Node again and again; v1.23 waits until it is sent."""
        if self.version.asks_for_node:
            answer = await self.call("query", path)
            assert answer["header"]["resourceversion"] == answer["content"]["metadata"]["resourceVersion"]
            return dict(answer["content"])
        with anyio.fail_after(DEADLINE_S):
            while path not in self.meta:  # noqa: ASYNC110 - the reader fills it
                await anyio.sleep(0.005)
        return dict(self.meta[path])

    def _node_object(self) -> Json:
        labels = {
            "kubernetes.io/hostname": self.node,
            "node-role.kubernetes.io/agent": "",
            "node-role.kubernetes.io/edge": "",
        }
        info = {"kubeletVersion": self.version.kubelet, "operatingSystem": "linux", "architecture": "amd64"}
        info |= dict.fromkeys(
            ("machineID", "systemUUID", "bootID", "kernelVersion", "osImage", "kubeProxyVersion"), "x"
        )
        status = {"nodeInfo": {**info, "containerRuntimeVersion": "containerd://1.6.20"}, "capacity": {"pods": "110"}}
        status["daemonEndpoints"] = {"kubeletEndpoint": {"Port": 10350}}
        return {
            "metadata": {"name": self.node, "creationTimestamp": None, "labels": labels},
            "spec": {},
            "status": status,
        }

    async def has_pod(self, key: str, deleted: bool = False) -> Json:
        """Wait for a pod, or for its deletion to begin."""
        with anyio.fail_after(DEADLINE_S):
            while True:
                pod = self.pods.get(key)
                if pod is not None and bool(pod["metadata"].get("deletionTimestamp")) is deleted:
                    return pod
                await anyio.sleep(0.005)

    async def run_pod(self, key: str, *needs: str) -> Json:
        """Fetch what the pod refers to (resource words below its namespace), then tell that it runs."""
        pod = await self.has_pod(key)
        for need in needs:
            path = f"{key.split('/')[0]}/{need}"
            if self.version.asks_store_first and path in self.meta:
                continue
            answer = await self.call("query", path)
            assert answer["content"]["kind"]
            assert answer["content"]["metadata"]["name"] == need.split("/")[1]
            assert answer["header"]["resourceversion"]
        await self.patch_status(pod, {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]})
        return pod

    async def patch_status(self, pod: Json, status: Json) -> Json:
        metadata = pod["metadata"]
        text = json.dumps({"metadata": {"uid": metadata["uid"]}, "status": status})
        answer = await self.call("patch", f"{metadata['namespace']}/podpatch/{metadata['name']}", text)
        content = answer["content"]
        assert (content["Object"] is None) is False, "it is dereferenced on success"
        return dict(answer)

    async def end_pod(self, key: str) -> None:
        """Terminate a pod that is being deleted, and confirm that."""
        pod = await self.has_pod(key, deleted=True)
        await self.patch_status(pod, {"phase": "Succeeded", "conditions": [{"type": "Ready", "status": "False"}]})
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}}
        answer = await self.call("delete", key, options)
        assert answer["content"] == "OK"
        with anyio.fail_after(DEADLINE_S):
            while key in self.meta:  # noqa: ASYNC110 - the reader empties it
                await anyio.sleep(0.005)


def _term(second: int) -> Json:
    return {"leaseDurationSeconds": 40, "renewTime": f"2026-11-20T05:06:{second:02}.005446Z"}
