"""`Meta` in memory, with a cloud behind it that answers at once: for tests of edged without metamanager and cloud.

`FakeCloud` is the test's end: apply and delete pods, read statuses and events, cut the link. `FakeMetaManager` is the module that
provides it inside an edge role.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar

import anyio
import anyio.lowlevel

from edgesite.context import Bus, Context, Section
from edgesite.edge.metamanager.meta import Meta
from edgesite.kube import schema
from edgesite.kube.errors import already_exists, conflict, not_found, unavailable
from edgesite.kube.patch_strategic import strategic_merge
from edgesite.wire.message import Message

__all__ = ["FakeCloud", "meta_module"]

Key = tuple[str, str, str]  # type, namespace, name
_KINDS = {"node": "Node", "persistentvolumeclaim": "PersistentVolumeClaim", "pod": "Pod"}  # whose statuses are told


class FakeCloud:
    """Objects of one node by type word, namespace and name. It implements Meta. Uids are made of the names, after ``uids``: pods of
    the same uid share their cgroups with those of whoever else runs tests on the host."""

    def __init__(self, node_name: str, *, uids: str = "") -> None:
        self.node_name = node_name
        self._uids = uids
        self.objects: dict[Key, dict[str, Any]] = {}
        self.events: dict[tuple[str, str], dict[str, Any]] = {}
        self.remembers = True  #: False: as after a loss of the database, no end of an object is on record
        self.reports = 0  #: statuses that arrived
        self.deleted: list[str] = []  #: uids of pods that the node confirmed to have ended
        self.history: dict[str, list[dict[str, Any]]] = {}  #: every status by pod uid
        self._connected = anyio.Event()
        self._connected.set()
        self._changed = anyio.Event()
        self._bus: Bus | None = None
        self._version = 0
        self._schemas = schema.load()

    # The test's end

    async def apply(self, kind: str, obj: dict[str, Any]) -> None:
        """Create or update an object and tell edged; a pod gets a uid and this node's name. The status is kept."""
        obj = copy.deepcopy(obj)
        metadata = obj.setdefault("metadata", {})
        namespace, name = metadata.setdefault("namespace", "default"), metadata["name"]
        old = self.objects.get((kind, namespace, name))
        metadata.setdefault("uid", old["metadata"]["uid"] if old else f"{self._uids}uid-of-{kind}-{name}")
        self._version += 1
        metadata["resourceVersion"] = str(self._version)
        if kind == "pod":
            obj.setdefault("spec", {}).setdefault("nodeName", self.node_name)
            obj["status"] = copy.deepcopy(old["status"]) if old else {"phase": "Pending"}
        self.objects[kind, namespace, name] = obj
        await self._tell("update" if old else "insert", kind, obj)

    async def delete(self, name: str, *, namespace: str = "default", grace_s: int | None = None) -> None:
        """Ask for a pod's end; with a grace of 0 it is gone from the cloud at once."""
        pod = copy.deepcopy(self.objects["pod", namespace, name])
        grace = pod["spec"].get("terminationGracePeriodSeconds", 30) if grace_s is None else grace_s
        pod["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": grace}
        if grace == 0:
            del self.objects["pod", namespace, name]
            await self._tell("delete", "pod", pod)
        else:
            self.objects["pod", namespace, name] = pod
            await self._tell("update", "pod", pod)

    def pod(self, name: str, namespace: str = "default") -> dict[str, Any]:
        return self.objects["pod", namespace, name]

    def status(self, name: str, namespace: str = "default") -> dict[str, Any]:
        found = self.objects.get(("pod", namespace, name))
        return (found or {}).get("status") or {}

    def reasons(self) -> list[str]:
        """Reasons of all events, in order of their first arrival."""
        return [one["reason"] for one in self.events.values()]

    def cut(self) -> None:
        self._connected = anyio.Event()

    def mend(self) -> None:
        self._connected.set()

    async def until(self, check: Callable[[], bool], deadline_s: float = 60.0) -> None:
        """Wait until ``check`` holds; it is asked whenever something arrives. Raises TimeoutError."""
        with anyio.move_on_after(deadline_s):
            while not check():
                await self._changed.wait()
                self._changed = anyio.Event()
            return
        raise TimeoutError(self._summary())

    def _summary(self) -> str:
        """What there is, for whoever waited in vain."""
        pods = [f"{key[2]}: {obj.get('status')}" for key, obj in self.objects.items() if key[0] == "pod"]
        said = [f"{one['reason']}: {one['message']}" for one in list(self.events.values())[-10:]]
        return "\n".join(["", *pods, *said])

    def attach(self, bus: Bus) -> None:
        self._bus = bus

    async def _tell(self, operation: str, kind: str, obj: dict[str, Any]) -> None:
        self._mark()
        if self._bus is not None:
            metadata = obj["metadata"]
            resource = f"{metadata['namespace']}/{kind}/{metadata['name']}"
            self._version += 1
            message = Message(
                f"m{self._version}", 0, "edgecontroller", "resource", operation, resource, copy.deepcopy(obj)
            )
            await self._bus.send_group("edged", message)

    def _mark(self) -> None:
        self._changed.set()

    # Meta

    @property
    def connected(self) -> bool:
        return self._connected.is_set()

    async def wait_connected(self) -> None:
        await self._connected.wait()

    async def get(self, type: str, namespace: str, name: str) -> dict[str, Any] | None:
        await anyio.lowlevel.checkpoint()
        return copy.deepcopy(self.objects.get((type, namespace, name)))

    async def list(self, type: str, namespace: str | None = None) -> list[dict[str, Any]]:
        return [
            copy.deepcopy(obj) for key, obj in self.objects.items() if key[0] == type and namespace in (None, key[1])
        ]

    def has_ended(self, uid: str) -> bool:
        return self.remembers and uid not in (obj["metadata"]["uid"] for obj in self.objects.values())

    async def query_remote(
        self, type: str, namespace: str, name: str, content: Any = None, *, timeout_s: float = 10.0
    ) -> dict[str, Any]:
        found = await self.get(type, namespace, name)
        if found is None:
            raise not_found(f"{type}s", name) if self.connected else unavailable("no link to the cloud")
        return found

    async def token(self, namespace: str, service_account: str, request: dict[str, Any]) -> dict[str, Any]:
        return request | {"status": {"token": f"token-of-{namespace}-{service_account}"}}

    async def insert(
        self, type: str, namespace: str, name: str, obj: dict[str, Any], *, timeout_s: float = 10.0
    ) -> dict[str, Any]:
        self._need_link()
        if (type, namespace, name) in self.objects:
            raise already_exists(f"{type}s", name)
        return self._put((type, namespace, name), obj)

    async def update(
        self, type: str, namespace: str, name: str, obj: dict[str, Any], *, timeout_s: float = 10.0
    ) -> dict[str, Any]:
        self._need_link()
        held = self.objects.get((type, namespace, name))
        if held is None and obj.get("metadata", {}).get("uid"):
            raise conflict(f"{type}s", name, "the uid is no longer that of the object")
        if held is None:
            raise not_found(f"{type}s", name)
        version = obj.get("metadata", {}).get("resourceVersion")
        if version and version != held["metadata"]["resourceVersion"]:
            raise conflict(f"{type}s", name, "the object has been modified")
        return self._put((type, namespace, name), obj)

    async def patch(
        self, type: str, namespace: str, name: str, patch: dict[str, Any], *, timeout_s: float = 10.0
    ) -> dict[str, Any]:
        self._need_link()
        await self.report_status(type, namespace, name, patch)
        return copy.deepcopy(self.objects[type, namespace, name])

    async def report_status(self, type: str, namespace: str, name: str, patch: dict[str, Any]) -> None:
        held = self.objects.get((type, namespace, name))
        uid = patch.get("metadata", {}).get("uid")
        self.reports += 1
        if held is not None and uid in (None, held["metadata"].get("uid")):
            definition = self._schemas.definition_of("", "v1", _KINDS[type])
            merged = strategic_merge(self._schemas, definition, held, patch)
            self.objects[type, namespace, name] = merged
            if type == "pod":
                self.history.setdefault(uid or "", []).append(copy.deepcopy(merged["status"]))
        self._mark()

    async def report_event(self, event: dict[str, Any]) -> None:
        self.events[event["metadata"]["namespace"], event["metadata"]["name"]] = event
        self._mark()

    async def confirm_deleted(self, namespace: str, name: str, uid: str) -> None:
        self.deleted.append(uid)
        held = self.objects.get(("pod", namespace, name))
        if held is not None and held["metadata"]["uid"] == uid:
            del self.objects["pod", namespace, name]
            await self._tell("delete", "pod", held)
        self._mark()

    def _put(self, key: Key, obj: dict[str, Any]) -> dict[str, Any]:
        self._version += 1
        stored = copy.deepcopy(obj)
        metadata = stored.setdefault("metadata", {})
        metadata.setdefault("uid", f"{self._uids}uid-of-{key[0]}-{key[2]}")
        metadata["resourceVersion"] = str(self._version)
        self.objects[key] = stored
        self._mark()
        return copy.deepcopy(stored)

    def _need_link(self) -> None:
        if not self.connected:
            raise unavailable("no link to the cloud")


def meta_module(cloud: FakeCloud) -> type:
    """Return a module class named metamanager that provides ``cloud`` as the role's Meta."""

    class FakeMetaManager:
        name: ClassVar[str] = "metamanager"
        roles: ClassVar[frozenset[str]] = frozenset({"edge"})
        needs: ClassVar[frozenset[str]] = frozenset()
        section: ClassVar[str] = ""

        def enabled(self, settings: Section) -> bool:
            return True

        async def run(self, ctx: Context) -> None:
            cloud.attach(ctx.bus)
            ctx.services.provide(Meta, cloud)  # type: ignore[type-abstract]
            ctx.ready()
            await anyio.sleep_forever()

    return FakeMetaManager
