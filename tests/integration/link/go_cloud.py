"""A cloud of KubeEdge, v1.12.7 or v1.23.1, played by what was recorded of it: bootstrap server, CloudHub, edgecontroller on objects
in memory.

It is strict: whatever an edge sends that a Go cloud could not read, or would leave alone, is kept in ``strange``; messages of another
form raise AssertionError. One message is in flight at a time; a failing query is not answered by v1.12.7.
"""

from __future__ import annotations

import copy
import json
import uuid
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from go_edge import UUID
from link_site import Site

from edgesite.cloud.cloudhub import jointoken
from edgesite.kube import patch_strategic, schema
from edgesite.net import pem, tls
from edgesite.net.http import HttpServer, Request, Response
from edgesite.net.pki import KeyPair, PkiError, RealPki
from edgesite.net.real import RealClock
from edgesite.net.websocket import Message as Frame
from edgesite.net.websocket import WebSocket, accept

Json = dict[str, Any]
TEXT = {"Content-Type": "text/plain; charset=utf-8"}
DEFINITIONS = {"node": "Node", "pod": "Pod"}


@dataclass(frozen=True)
class Version:
    answers_errors: bool  # a query that fails is answered
    pushes_nodes: bool
    bad_token: int
    bad_request: int
    checks_renewal: bool  # the certificate's name is compared with the header NodeName


V1_12 = Version(False, False, 400, 200, False)
V1_23 = Version(True, True, 401, 500, True)
VERSIONS = {"v1.12.7": V1_12, "v1.23.1": V1_23}
#: Type words and operations that each edgecontroller takes from an edge; others are logged.
TAKEN = {
    *(("node", one) for one in ("insert", "query", "update")),
    *(("lease", one) for one in ("insert", "query", "update")),
    *((one, "patch") for one in ("nodepatch", "podpatch")),
    ("pod", "delete"),
    *((one, "query") for one in ("configmap", "secret", "serviceaccounttoken")),
    *((one, "query") for one in ("persistentvolume", "persistentvolumeclaim", "volumeattachment")),
}
TAKEN_SINCE_1_23 = {("pod", "insert"), *(("event", one) for one in ("insert", "update", "patch"))}


@dataclass
class GoCloud:
    site: Site
    version: Version
    dns_names: tuple[str, ...] = ("localhost",)
    objects: dict[str, Json] = field(default_factory=dict)  #: by resource as on the wire of v1.12
    synced: dict[str, str] = field(default_factory=dict)  #: ObjectSync: uid to version
    requests: list[Json] = field(default_factory=list)
    strange: list[tuple[str, str]] = field(default_factory=list)
    acks: int = 0
    keepalives: int = 0
    handshakes: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._revision = 300
        self._socket: WebSocket | None = None
        self._queue: dict[str, Json] = {}  # by uid: the newest replaces what waits
        self._in_flight: Json | None = None
        self._sent: deque[str] = deque(maxlen=4096)
        self._schemas = schema.load()
        self.ca: KeyPair | None = None

    @property
    def token(self) -> str:
        assert self.ca is not None
        der = pem.to_der(self.ca.certificate)
        return jointoken.make(der, pem.to_der(self.ca.key), int(RealClock().time()) + 600)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[GoCloud]:
        async with RealPki(RealClock()).session() as pki:
            self.ca = await pki.make_ca("KubeEdge", serial=1024)
            server = await pki.issue(
                self.ca, "KubeEdge", organizations=["KubeEdge"], dns_names=self.dns_names, ips=["127.0.0.1"]
            )
        net, ca = self.site.world.net, self.ca.certificate
        contexts = [
            tls.server_context(server.certificate, server.key, client_ca=ca, require_client=one)
            for one in (True, False)
        ]
        async with HttpServer(self._handshake) as hub, HttpServer(self._bootstrap) as https:
            await hub.listen(net, f"127.0.0.1:{self.site.hub_port}", tls=contexts[0])
            await https.listen(net, f"127.0.0.1:{self.site.bootstrap_port}", tls=contexts[1])
            yield self

    # -- 10002 ----------------------------------------------------------------------------------------------------

    async def _bootstrap(self, request: Request) -> Response:
        assert self.ca is not None
        assert request.method == "GET"
        if request.path == "/ca.crt":
            return Response(200, {"Content-Type": "application/octet-stream"}, pem.to_der(self.ca.certificate))
        assert request.path == "/edge.crt"
        node = request.headers["nodename"]
        if request.peer.common_name:
            if self.version.checks_renewal and request.peer.common_name != f"system:node:{node}":
                return Response(401, TEXT, b"failed to verify the certificate")
        else:
            scheme, _, jwt = (request.headers.get("authorization") or "").partition(" ")
            try:
                jointoken.check(jwt, pem.to_der(self.ca.key), RealClock().time())
            except jointoken.InvalidToken:
                return Response(self.version.bad_token, TEXT, b"Invalid authorization token")
            assert scheme == "Bearer"
        try:
            signed = await RealPki(RealClock()).sign_csr(self.ca, request.body)
        except PkiError:
            return Response(self.version.bad_request, TEXT, b"")
        return Response(200, {"Content-Type": "application/octet-stream"}, pem.to_der(signed))

    # -- 10000 ----------------------------------------------------------------------------------------------------

    def _handshake(self, request: Request) -> None:
        self.handshakes.append(request)
        assert request.headers["connectionuse"] == "msg", "else a Go cloud never reads"
        assert request.headers["node_id"]
        assert request.headers["project_id"]
        if self._socket is not None:
            self._socket.abort()
        self._socket = accept(request)
        self._socket.on_message = self._frame
        self._queue, self._in_flight = {}, None
        self._resync()

    def cut(self) -> None:
        """End the connection as a cut of the link does."""
        assert self._socket is not None
        self._socket.abort()

    def _frame(self, frame: Frame) -> None:
        assert frame.text, "text frames alone"
        message = json.loads(frame.data)
        header, route = message["header"], message["route"]
        if not header["msg_id"]:
            return
        assert set(message) == {"header", "route", "content"}
        assert set(header) <= {"msg_id", "parent_msg_id", "timestamp", "resourceversion"}
        assert set(route) <= {"source", "group", "operation", "resource"}
        assert UUID.fullmatch(header["msg_id"])
        assert type(header["timestamp"]) is int
        if route["operation"] == "keepalive":
            assert (route["resource"], message["content"]) == ("node", message["content"])
            self.keepalives += 1
        elif route["operation"] == "response":
            assert message["content"] == "OK"
            self._acked(header["parent_msg_id"])
        elif route["source"] == "twin":
            return
        else:
            self.requests.append(message)
            self._serve(message)

    def _acked(self, parent: str) -> None:
        assert parent in self._sent, "an acknowledgement of what was never sent"
        self.acks += 1
        if self._in_flight is None or self._in_flight["header"]["msg_id"] != parent:
            return
        message, self._in_flight = self._in_flight, None
        uid = message["content"]["metadata"]["uid"]
        if message["route"]["operation"] == "delete":
            self.synced.pop(uid, None)
        else:
            self.synced[uid] = message["header"]["resourceversion"]
        self._pump()

    def _say(self, operation: str, path: str, content: Any, *, parent: str = "", version: str = "") -> Json:
        header: Json = {"msg_id": str(uuid.uuid4())}
        if parent:
            header["parent_msg_id"] = parent
        header["timestamp"] = 1795151368495
        if version:
            header["resourceversion"] = version
        route = {"source": "edgecontroller", "group": "resource", "operation": operation, "resource": path}
        return {"header": header, "route": route, "content": content}

    def _write(self, message: Json) -> None:
        assert self._socket is not None
        self._sent.append(message["header"]["msg_id"])
        if self._socket.closed is None:
            self._socket.send_nowait(json.dumps(message) + "\n", text=True)

    def _push(self, operation: str, path: str, obj: Json) -> None:
        version = obj["metadata"].get("resourceVersion", "")
        self._queue[obj["metadata"]["uid"]] = self._say(operation, path, obj, version=version)
        self.synced.setdefault(obj["metadata"]["uid"], "0")
        self._pump()

    def _pump(self) -> None:
        if self._in_flight is None and self._queue and self._socket is not None and self._socket.closed is None:
            self._in_flight = self._queue.pop(next(iter(self._queue)))
            self._write(self._in_flight)

    def _resync(self) -> None:
        """What SyncController finds: objects that are gone by uid and name alone, others if their version is ahead."""
        there = {obj["metadata"]["uid"]: (path, obj) for path, obj in self.objects.items()}
        for uid, version in list(self.synced.items()):
            if uid not in there:
                path = self._gone[uid]
                namespace, _, name = path.split("/")
                content = {"metadata": {"namespace": namespace, "name": name, "uid": uid}}
                self._queue[uid] = self._say("delete", path, content)
            elif int(there[uid][1]["metadata"]["resourceVersion"]) > int(version):
                self._push("update", *there[uid])
        self._pump()

    # -- the API --------------------------------------------------------------------------------------------------

    _gone: dict[str, str] = field(default_factory=dict)

    def put(self, path: str, obj: Json) -> Json:
        """Create or change an object, and tell the edge if it is one that is pushed."""
        old = self.objects.get(path)
        self._revision += 1
        namespace, type_, name = path.split("/")
        metadata = {**obj.get("metadata", {}), "name": name, "resourceVersion": str(self._revision)}
        if type_ not in ("node",):
            metadata["namespace"] = namespace
        metadata["uid"] = old["metadata"]["uid"] if old else str(uuid.uuid4())
        made = {**copy.deepcopy(obj), "metadata": metadata}
        self.objects[path] = made
        if type_ in ("pod", "configmap", "secret"):
            operation = "update" if old or type_ == "secret" else "insert"
            if self._is_linked and (type_ == "pod" or metadata["uid"] in self.synced):
                self._push(operation, path, made)
            elif type_ == "pod":
                self.synced.setdefault(metadata["uid"], "0")
        if type_ == "node" and self.version.pushes_nodes and self._is_linked:
            self._push("update", f"null/node/{name}", {"kind": "Node", "apiVersion": "v1", **made})
        return made

    def delete(self, path: str, *, force: bool = False) -> None:
        obj = self.objects[path]
        if not force and path.split("/")[1] == "pod":
            self.put(
                path,
                {
                    **obj,
                    "metadata": {
                        **obj["metadata"],
                        "deletionTimestamp": "2026-11-20T05:09:32Z",
                        "deletionGracePeriodSeconds": 1,
                    },
                },
            )
            return
        del self.objects[path]
        self._gone[obj["metadata"]["uid"]] = path
        self._revision += 1
        if self._is_linked and obj["metadata"]["uid"] in self.synced:
            self._push("delete", path, {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self._revision)}})

    @property
    def _is_linked(self) -> bool:
        return self._socket is not None and self._socket.closed is None

    def _serve(self, message: Json) -> None:
        route, content = message["route"], message["content"]
        assert route["group"] == "meta"
        operation, path = route["operation"], route["resource"].replace("null/node", "default/node")
        type_ = path.split("/")[1] if path.count("/") == 2 else ""
        known = (type_, operation) in TAKEN or (self.version is V1_23 and (type_, operation) in TAKEN_SINCE_1_23)
        if not known or route["source"] != "edged":
            self.strange.append((operation, path))
            return
        getattr(self, f"_{operation}")(message, type_, path, content)

    def _answer(self, request: Json, content: Any, version: str = "") -> None:
        self._write(
            self._say(
                "response", request["route"]["resource"], content, parent=request["header"]["msg_id"], version=version
            )
        )

    def _object_resp(
        self, request: Json, obj: Json | None, code: int = 0, reason: str = "", *, empty: bool = True
    ) -> None:
        if obj is not None:
            self._answer(request, {"Object": obj, "Err": None}, obj["metadata"]["resourceVersion"])
            return
        status = {"metadata": {}, "status": "Failure", "message": reason, "reason": reason, "code": code}
        typed = {"metadata": {"creationTimestamp": None}} if empty else None
        self._answer(request, {"Object": typed, "Err": {"ErrStatus": status}})

    def _query(self, request: Json, type_: str, path: str, content: Any) -> None:
        found = self.objects.get(path)
        if type_ == "lease":
            self._object_resp(request, found, 404, "NotFound", empty=False)
        elif type_ == "serviceaccounttoken":
            status = {"token": "t.o.k", "expirationTimestamp": "2126-11-20T06:08:32Z"}
            made = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", **content, "status": status}
            self._answer(request, made)
        elif found is not None:
            self.synced.setdefault(found["metadata"]["uid"], found["metadata"]["resourceVersion"])
            self._answer(request, found, found["metadata"]["resourceVersion"])
        elif self.version.answers_errors:
            status = {
                "metadata": {},
                "status": "Failure",
                "message": f"{type_} not found",
                "reason": "NotFound",
                "code": 404,
            }
            self._answer(request, {"ErrStatus": status})

    def _insert(self, request: Json, type_: str, path: str, content: Any) -> None:
        if type_ == "event":
            return  # taken, never answered
        if path in self.objects:
            self._object_resp(request, None, 409, "AlreadyExists")
        else:
            self._object_resp(request, self.put(path, content))

    def _update(self, request: Json, type_: str, path: str, content: Any) -> None:
        if type_ == "event":
            return
        held = self.objects.get(path)
        if held is None:
            self._object_resp(request, None, 404, "NotFound")
        elif type_ == "lease":
            fits = content["metadata"].get("resourceVersion") == held["metadata"]["resourceVersion"]
            self._object_resp(request, self.put(path, content) if fits else None, 409, "Conflict")
        else:
            metadata = {**held["metadata"], **{one: content["metadata"].get(one) for one in ("labels", "annotations")}}
            made = self.put(path, {**held, "metadata": metadata})
            self._answer(request, "OK", made["metadata"]["resourceVersion"])

    def _patch(self, request: Json, type_: str, path: str, content: Any) -> None:
        assert isinstance(content, str), "a patch is text"
        if type_ == "event":
            return
        patch, target = json.loads(content), path.replace(f"/{type_}/", f"/{type_.removesuffix('patch')}/")
        held = self.objects.get(target)
        if held is None:
            self._object_resp(request, None, 404, "NotFound")
            return
        wanted = (patch.get("metadata") or {}).get("uid")
        if wanted and wanted != held["metadata"]["uid"]:
            self._object_resp(request, None, 409, "Conflict")
            return
        definition = self._schemas.definition_of("", "v1", DEFINITIONS[type_.removesuffix("patch")])
        merged = patch_strategic.strategic_merge(self._schemas, definition, held, {"status": patch.get("status") or {}})
        self._object_resp(request, self.put(target, merged))

    def _delete(self, request: Json, type_: str, path: str, content: Any) -> None:
        assert content["gracePeriodSeconds"] == 0
        held = self.objects.get(path)
        if held is not None and held["metadata"]["uid"] == content["preconditions"]["uid"]:
            self.delete(path, force=True)
        self._answer(request, "OK")
