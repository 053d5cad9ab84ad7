"""A small API server in memory that is a `Transport`: for tests of the client and of what is built on it.

It keeps objects, resourceVersions, generations, watches, finalizers and preconditions as the API does, and knows nothing of schemas,
admission or defaults. Faults are asked for: `compact`, `drop_watches`, `fail`.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import anyio
import anyio.lowlevel

from edgesite.kube import json
from edgesite.kube.errors import ApiError, already_exists, bad_request, conflict, expired, not_found
from edgesite.kube.resources import BUILTIN, Resource

__all__ = ["FakeApi"]

Object = dict[str, Any]


class _Stream:
    def __init__(self, status: int, chunks: AsyncIterator[bytes]) -> None:
        self.status = status
        self.headers: Mapping[str, str] = {}
        self._chunks = chunks

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks


class _Watcher:
    def __init__(self, prefix: str, selects: Callable[[Object], bool]) -> None:
        self.prefix, self.selects = prefix, selects
        self.events: deque[bytes | Exception | None] = deque()
        self.wake = anyio.Event()

    def put(self, event: bytes | Exception | None) -> None:
        self.events.append(event)
        self.wake.set()

    def __aiter__(self) -> _Watcher:
        return self

    async def __anext__(self) -> bytes:
        while not self.events:
            self.wake = anyio.Event()
            await self.wake.wait()
        event = self.events.popleft()
        if event is None:
            raise StopAsyncIteration
        if isinstance(event, Exception):
            raise event
        return event


class FakeApi:
    """The transport and the server in one. ``requests`` logs (method, target) of all calls."""

    def __init__(self, now: Callable[[], str] = lambda: "2026-01-01T00:00:00Z") -> None:
        self.objects: dict[str, Object] = {}  # by path
        self.revision = 100
        self.compacted = 0
        self.requests: list[tuple[str, str]] = []
        self.writes: list[tuple[str, str, Any]] = []
        self.served: tuple[Resource, ...] = BUILTIN  # what discovery tells
        self._now = now
        self._history: list[tuple[int, str, str, Object]] = []
        self._watchers: list[_Watcher] = []
        self._failures: list[tuple[Exception, str]] = []

    def fail(self, *errors: Exception, only: str = "") -> None:
        """Answer the next requests with these errors, one each; ``only``: those that begin so ("POST /api/v1")."""
        self._failures.extend((error, only) for error in errors)

    def _failure(self, method: str, target: str) -> Exception | None:
        for at, (error, only) in enumerate(self._failures):
            if f"{method} {target}".startswith(only):
                del self._failures[at]
                return error
        return None

    def compact(self) -> None:
        """Forget history: a watch from an older version is Expired."""
        self.compacted = self.revision
        self._history.clear()

    def drop_watches(self, error: Exception | None = None) -> None:
        """End all watches, with ``error`` if given, else as a server does that is done."""
        for one in self._watchers:
            one.put(error)
        self._watchers.clear()

    @property
    def watches(self) -> int:
        return len(self._watchers)

    async def request(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes = b""
    ) -> tuple[int, Mapping[str, str], bytes]:
        self.requests.append((method, target))
        await anyio.lowlevel.checkpoint()
        try:
            if (failure := self._failure(method, target)) is not None:
                raise failure
            return 200, {}, json.dumps(self._answer(method, target, headers, json.loads(body) if body else None))
        except ApiError as exc:
            return exc.code, {}, json.dumps(exc.status())

    @asynccontextmanager
    async def stream(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes = b""
    ) -> AsyncIterator[_Stream]:
        self.requests.append((method, target))
        await anyio.lowlevel.checkpoint()
        failure = self._failure(method, target)
        if failure is not None and not isinstance(failure, ApiError):
            raise failure
        url = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        watcher = _Watcher(unquote(url.path), _selector(query))
        try:
            if failure is not None:
                raise failure
            after = int(query.get("resourceVersion") or self.revision)
            if after < self.compacted:
                raise expired(f"too old resource version: {after} ({self.compacted})")
        except ApiError as exc:
            watcher.put(json.dumps(exc.status()))
            watcher.put(None)
            yield _Stream(exc.code, watcher)
            return
        for revision, path, kind, obj in self._history:
            if revision > after and _covers(watcher.prefix, path) and watcher.selects(obj):
                watcher.put(_frame(kind, obj))
        self._watchers.append(watcher)
        try:
            yield _Stream(200, watcher)
        finally:
            if watcher in self._watchers:
                self._watchers.remove(watcher)

    def _answer(self, method: str, target: str, headers: Mapping[str, str], body: Any) -> Object:
        url = urlsplit(target)
        path = unquote(url.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if path in ("/api", "/apis"):
            return self._discovery(path)
        if method != "GET":
            self.writes.append((method, path, copy.deepcopy(body)))
        parts, name, subresource = _split(path)
        key = "/".join(parts)
        if method == "POST" and subresource:
            return self._subresource(key, subresource, body)
        if method == "POST":
            return self._create(key, body)
        if name is None and method == "DELETE":
            for at in [at for at in self.objects if _covers(path, at)]:
                self._delete(at, {})
            return {"kind": "Status", "status": "Success"}
        if name is None:
            return self._list(path, query)
        if (live := self.objects.get(key)) is None:
            raise not_found(parts[-2], name)
        if method == "GET":
            return live
        if method == "DELETE":
            return self._delete(key, body or {})
        if method == "PUT":
            new = copy.deepcopy(body)
        else:
            if "json-patch" in headers.get("content-type", ""):
                raise bad_request("the fake applies merge patches only")
            wanted = ((body or {}).get("metadata") or {}).get("uid")
            if wanted and wanted != live["metadata"]["uid"]:
                raise conflict(parts[-2], name, "the UID in the patch does not match")
            new = _merge(copy.deepcopy(live), body, strategic="strategic" in headers.get("content-type", ""))
        return self._update(key, live, new, subresource)

    def _discovery(self, path: str) -> Object:
        groups: dict[str, dict[str, list[Object]]] = {}
        for row in self.served:
            if bool(row.group) == (path == "/apis"):
                kind = {"group": row.group, "version": row.version, "kind": row.kind}
                scope = "Namespaced" if row.namespaced else "Cluster"
                one = {"resource": row.plural, "responseKind": kind, "scope": scope, "verbs": list(row.verbs)}
                groups.setdefault(row.group, {}).setdefault(row.version, []).append(one)
        items = [
            {
                "metadata": {"name": name},
                "versions": [{"version": version, "resources": rows} for version, rows in versions.items()],
            }
            for name, versions in groups.items()
        ]
        return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "items": items}

    def _list(self, path: str, query: Mapping[str, str]) -> Object:
        selects = _selector(query)
        found = [obj for at, obj in sorted(self.objects.items()) if _covers(path, at) and selects(obj)]
        meta: Object = {"resourceVersion": str(self.revision)}
        start, limit = int(query.get("continue") or 0), int(query.get("limit") or 0)
        if start and start < 0:
            raise expired("the provided continue parameter is too old")
        items = found[start : start + limit] if limit else found[start:]
        if start + len(items) < len(found):
            meta["continue"] = str(start + len(items))
        return {"kind": "List", "apiVersion": "v1", "metadata": meta, "items": items}

    def _create(self, collection: str, body: Object) -> Object:
        obj = copy.deepcopy(body)
        meta = obj["metadata"]
        if not meta.get("name"):
            meta["name"] = f"{meta['generateName']}{self.revision:05d}"
        parts = collection.split("/")
        if len(parts) > 2 and parts[-3] == "namespaces":
            meta["namespace"] = parts[-2]
        elif meta.get("namespace"):
            collection = "/".join([*parts[:-1], "namespaces", meta["namespace"], parts[-1]])
        key = f"{collection}/{meta['name']}"
        if key in self.objects:
            raise already_exists(parts[-1], meta["name"])
        meta.setdefault("uid", f"uid-{self.revision + 1}")
        meta.setdefault("creationTimestamp", self._now())
        meta["generation"] = 1
        if not key.startswith("/api/v1/nodes"):
            obj.setdefault("status", {})
        return self._commit("ADDED", key, obj)

    def _update(self, key: str, live: Object, new: Object, subresource: str | None) -> Object:
        wanted = new["metadata"].get("resourceVersion")
        if wanted and wanted != live["metadata"]["resourceVersion"]:
            raise conflict(key.split("/")[-2], live["metadata"]["name"], "the object has been modified")
        if subresource == "finalize" and not new["spec"].get("finalizers"):
            return self._commit("DELETED", key, live)
        if subresource == "status":
            new = {**live, "metadata": {**live["metadata"], **_metadata_patch(new)}, "status": new.get("status", {})}
        else:
            new["status"] = live.get("status", {})
        meta = new["metadata"] = {**new["metadata"]}
        for name in ("uid", "creationTimestamp", "generation", "deletionTimestamp"):
            if name in live["metadata"]:
                meta[name] = live["metadata"][name]
        if new.get("spec") != live.get("spec"):
            meta["generation"] = live["metadata"]["generation"] + 1
        meta["resourceVersion"] = live["metadata"]["resourceVersion"]
        if new == live:
            return live
        held = meta.get("finalizers") or (new.get("spec") or {}).get("finalizers")  # the latter are a namespace's
        if meta.get("deletionTimestamp") and not held:
            return self._commit("DELETED", key, new)
        return self._commit("MODIFIED", key, new)

    def _delete(self, key: str, options: Object) -> Object:
        obj = copy.deepcopy(self.objects[key])
        wanted = (options.get("preconditions") or {}).get("uid")
        if wanted and wanted != obj["metadata"]["uid"]:
            raise conflict(key.split("/")[-2], obj["metadata"]["name"], "the UID in the precondition does not match")
        extra = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}.get(options.get("propagationPolicy") or "")
        finalizers = [one for one in obj["metadata"].get("finalizers") or () if one != extra]
        if extra or finalizers or (obj.get("spec") or {}).get("finalizers"):
            if obj["metadata"].get("deletionTimestamp"):
                return obj
            obj["metadata"]["deletionTimestamp"] = self._now()
            obj["metadata"]["finalizers"] = [*finalizers, *([extra] if extra else [])]
            return self._commit("MODIFIED", key, obj)
        return self._commit("DELETED", key, obj)

    def _subresource(self, key: str, subresource: str, body: Object) -> Object:
        live = self.objects.get(key)
        if live is None:
            raise not_found(key.split("/")[-2], key.split("/")[-1])
        if subresource == "binding":
            if live["spec"].get("nodeName"):
                raise conflict("pods", live["metadata"]["name"], "pod is already assigned to a node")
            new = copy.deepcopy(live)
            new["spec"]["nodeName"] = body["target"]["name"]
            return self._commit("MODIFIED", key, new)
        raise bad_request(f"the fake has no subresource {subresource}")

    def _commit(self, kind: str, key: str, obj: Object) -> Object:
        self.revision += 1
        obj = copy.deepcopy(obj)
        obj["metadata"]["resourceVersion"] = str(self.revision)
        if kind == "DELETED":
            del self.objects[key]
        else:
            self.objects[key] = obj
        self._history.append((self.revision, key, kind, obj))
        frame = _frame(kind, obj)
        for one in self._watchers:
            if _covers(one.prefix, key) and one.selects(obj):
                one.put(frame)
        return obj


def _metadata_patch(new: Object) -> Object:
    return {name: new["metadata"][name] for name in ("annotations", "labels") if name in new["metadata"]}


def _frame(kind: str, obj: Object) -> bytes:
    return json.dumps({"type": kind, "object": obj}) + b"\n"


def _split(path: str) -> tuple[list[str], str | None, str | None]:
    """Return the parts of the object's or collection's path, its name, and the subresource."""
    parts = path.split("/")
    base = 3 if parts[1] == "api" else 4  # "", "api", "v1" or "", "apis", group, version
    rest = parts[base:]
    if len(rest) > 2 and rest[0] == "namespaces" and rest[2] not in ("finalize", "status"):
        base, rest = base + 2, rest[2:]
    name = rest[1] if len(rest) > 1 else None
    subresource = rest[2] if len(rest) > 2 else None
    return parts[: base + min(len(rest), 2)], name, subresource


def _covers(collection: str, path: str) -> bool:
    """Whether ``path`` is an object of ``collection``, in any namespace if that names none."""
    where, _, kind = collection.rpartition("/")
    at = path.rpartition("/")[0]
    if at == collection:
        return True
    return at.startswith(where + "/namespaces/") and at.rpartition("/")[2] == kind and "/namespaces/" not in where


def _selector(query: Mapping[str, str]) -> Callable[[Object], bool]:
    labels = [one.partition("=")[::2] for one in query.get("labelSelector", "").split(",") if one]
    fields = [one.partition("=")[::2] for one in query.get("fieldSelector", "").split(",") if one]

    def selects(obj: Object) -> bool:
        have = obj["metadata"].get("labels") or {}
        return all(have.get(name) == value for name, value in labels) and all(
            _field(obj, name) == value for name, value in fields
        )

    return selects


def _field(obj: Object, path: str) -> str:
    value: Any = obj
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return str(value or "")


def _merge(target: Any, patch: Any, *, strategic: bool = False) -> Any:
    """Merge patch; with ``strategic`` conditions are merged by type, the only list that is."""
    if not isinstance(patch, dict) or not isinstance(target, dict):
        return patch
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        elif strategic and name == "conditions":
            merged = {one["type"]: one for one in (*(target.get(name) or ()), *value)}
            target[name] = list(merged.values())
        else:
            target[name] = _merge(target.get(name, {}) if isinstance(value, dict) else None, value, strategic=strategic)
    return target
