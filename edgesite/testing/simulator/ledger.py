"""Keeps the books of a link: every message about an object, every acknowledgement, every effect on an edge's disk.

Invariants, held at the moment when they could break:
  - an acknowledged version is on the edge's disk, synced, as a power cut at that moment would leave it; so is one that an
    ObjectSync names. An acknowledged removal is there too;
  - what was acknowledged is there after any power cut that follows;
  - a version of an object takes effect at an edge once: versions that are stored grow, except where the disk was lost;
  - the restart count that the API shows of a container never falls.

State   One ledger per world. It looks on by wrapping methods of cloudhub and metamanager while `Ledger.watching` lasts.
Errors  Violation, given to `World.fail`: raised here it would only be one more fault to the node.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, Final

from edgesite.cloud.cloudhub.connection import NodeConnection
from edgesite.cloud.cloudhub.hub import Hub
from edgesite.cloud.cloudhub.metrics import HubMetrics
from edgesite.cloud.edgecontroller.upstream import Upstream
from edgesite.edge.metamanager.store import Arrival, EdgeStore, Outcome
from edgesite.testing.simulator.loop import PROCESS
from edgesite.testing.simulator.machine import Machine, Process
from edgesite.testing.simulator.site import Site
from edgesite.testing.simulator.world import Violation
from edgesite.wire import resource
from edgesite.wire.delivery import ObjectRef, object_of, version_number
from edgesite.wire.events import Delivered, Event, Greeted, Removed
from edgesite.wire.message import Message, Operation
from edgesite.wire.newer import Verdict
from edgesite.wire.node_session import NodeSession
from edgesite.wire.slots import SessionCounts

__all__ = ["Ledger"]

_DATABASE: Final = "edge/edgecore.db"
_ECHOES: Final = 50
_TYPES: Final = frozenset({"pod", "configmap", "secret"})


@dataclass(slots=True)
class Platter:
    """What an edge would find on its disk after a power cut now."""

    versions: dict[str, int] = field(default_factory=dict)  #: by uid
    ended: set[str] = field(default_factory=set)  #: uids known to have ended


@dataclass(slots=True)
class _Node:
    machine: Machine
    acknowledged: dict[str, ObjectRef] = field(default_factory=dict)  #: by uid, those that must be there
    applied: dict[str, int] = field(default_factory=dict)  #: uid -> newest version that has taken effect
    may_end: set[str] = field(default_factory=set)  #: uids whose end has been told
    stored: deque[Message] = field(default_factory=lambda: deque(maxlen=_ECHOES))  #: what came and was stored
    damaged_at: float = -1.0
    platter: tuple[int, Platter] | None = None  #: with the count of syncs at which it was read


class Ledger:
    """``nodes``: the edges that have a machine of their own."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._world = site.world
        self._nodes = {name: _Node(edge.host.machine) for name, edge in site.edges.items()}
        self._greeted: dict[NodeConnection, float] = {}
        self._reports: set[tuple[str, str]] = set()
        self._restarts: dict[tuple[str, str], int] = {}
        self._counts: list[SessionCounts] = []
        for name, node in self._nodes.items():
            node.machine.at_power_off.append(partial(self._after_power_cut, name))

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Look on while the block lasts; at its end the sums of the sessions are counted."""
        with contextlib.ExitStack() as wrapped:
            for owner, name, make in (
                (HubMetrics, "__init__", self._see_metrics),
                (NodeSession, "take", self._see_take),
                (Hub, "on_event", self._see_event),
                (EdgeStore, "apply", self._see_apply),
                (Upstream, "handle", self._see_report),
            ):
                wrapped.enter_context(_replaced(owner, name, make(getattr(owner, name))))
            try:
                yield
            finally:
                for one in fields(SessionCounts):
                    self._world.count(f"messages {one.name}", sum(getattr(counts, one.name) for counts in self._counts))

    def damaged(self, name: str) -> None:
        """The database of an edge is about to be lost: nothing is expected of it any more."""
        node = self._nodes[name]
        node.damaged_at = self._world.loop.time()
        node.stored.clear()
        node.acknowledged.clear()
        node.applied.clear()

    def echo(self, name: str, pick: Callable[[Sequence[Message]], Message]) -> Message | None:
        """One of the messages that the edge has stored some time ago; it may come once more, and must have no effect."""
        stored = self._nodes[name].stored
        return pick(stored) if stored else None

    # -- the cloud's side ----------------------------------------------------------------------------------------

    def _see_metrics(self, original: Callable[..., None]) -> Callable[..., None]:
        def made(metrics: HubMetrics, *arguments: Any) -> None:
            original(metrics, *arguments)
            self._counts.append(metrics.sessions)

        return made

    def _see_take(self, original: Callable[..., Message | None]) -> Callable[..., Message | None]:
        def take(session: NodeSession, *arguments: Any) -> Message | None:
            message = original(session, *arguments)
            ref = object_of(message) if message is not None and session.node in self._nodes else None
            if message is not None and ref is not None:
                self._left(self._nodes[session.node], message, ref)
            return message

        return take

    def _left(self, node: _Node, message: Message, ref: ObjectRef) -> None:
        if message.operation == Operation.DELETE:
            node.may_end.add(ref.uid)
        for uid, other in node.acknowledged.items():
            if uid != ref.uid and (other.type, other.namespace, other.name) == (ref.type, ref.namespace, ref.name):
                node.may_end.add(uid)  # this one takes its name

    def _see_event(self, original: Callable[..., None]) -> Callable[..., None]:
        def on_event(hub: Hub, connection: NodeConnection, event: Event) -> None:
            node = self._nodes.get(connection.node)
            if isinstance(event, Greeted):
                self._greeted[connection] = self._world.loop.time()
            elif node is not None and self._greeted.get(connection, -1.0) > node.damaged_at:
                if isinstance(event, Delivered) and event.ref.type in _TYPES:
                    self._world.count("messages acknowledged")
                    self._must_hold(connection.node, event.ref, "acknowledged")
                    node.acknowledged[event.ref.uid] = event.ref
                elif isinstance(event, Removed):
                    self._world.count("removals acknowledged")
                    self._must_not_hold(connection.node, event.ref)
            original(hub, connection, event)

        return on_event

    def see_record(self, obj: dict[str, Any]) -> None:
        """An ObjectSync as it stands in the API."""
        name, _, uid = str(obj["metadata"]["name"]).rpartition(".")
        node = self._nodes.get(name)
        version = version_number((obj.get("status") or {}).get("objectResourceVersion"))
        if node is not None and version and not self._lately_damaged(node):
            self._world.count("ObjectSync versions checked")
            spec = obj["spec"]
            ref = ObjectRef(uid, version, str(spec["objectKind"]).lower(), "", str(spec["objectName"]))
            self._must_hold(name, ref, "recorded in an ObjectSync")

    def see_pod(self, pod: dict[str, Any]) -> None:
        """A pod as the API shows it: reports must not arrive in the wrong order."""
        for status in pod.get("status", {}).get("containerStatuses", ()):
            key, count = (pod["metadata"]["uid"], status["name"]), int(status["restartCount"])
            if count < self._restarts.get(key, 0) and not self._lost_any():
                self._fail(
                    f"{pod['metadata']['name']}: restarts of {key[1]} fell from {self._restarts[key]} to {count}"
                )
            self._restarts[key] = count

    def _lost_any(self) -> bool:
        return any(node.damaged_at >= 0 for node in self._nodes.values())

    def _see_report(self, original: Callable[..., Any]) -> Callable[..., Any]:
        async def handle(upstream: Upstream, message: Message) -> None:
            type_ = resource.parse(resource.trim_node(message.resource)).type
            if type_ in ("podpatch", "pod"):
                key = (resource.node_of(message.resource), message.msg_id)
                self._world.count("reports repeated" if key in self._reports else "reports")
                self._reports.add(key)
            await original(upstream, message)

        return handle

    # -- the edge's side -----------------------------------------------------------------------------------------

    def _see_apply(self, original: Callable[..., Any]) -> Callable[..., Any]:
        async def apply(store: EdgeStore, arrivals: Sequence[Arrival]) -> list[Outcome]:
            process = PROCESS.get()
            outcomes: list[Outcome] = await original(store, arrivals)
            node = self._nodes.get(process.machine.name) if isinstance(process, Process) else None
            if node is not None:
                for arrival, outcome in zip(arrivals, outcomes, strict=True):
                    self._took(node, arrival, outcome)
            return outcomes

        return apply

    def _took(self, node: _Node, arrival: Arrival, outcome: Outcome) -> None:
        metadata = arrival.obj.get("metadata") or {}
        uid, version = str(metadata.get("uid") or ""), version_number(metadata.get("resourceVersion"))
        if resource.parse(arrival.key).type not in _TYPES or not uid:
            return
        operation = Operation.DELETE if arrival.is_delete else Operation.UPDATE
        node.stored.append(Message("echo", operation=operation, resource=arrival.key, content=arrival.obj))
        if outcome.verdict is Verdict.IGNORE:
            self._world.count("messages dropped as old")
        elif arrival.is_delete:
            self._world.count("removals applied")
            node.may_end.add(uid)
        else:
            self._world.count("messages applied")
            node.may_end |= {outcome.replaced_uid} - {""}
            if version <= node.applied.get(uid, 0):
                self._world.count("applied twice")
                name, before = node.machine.name, node.applied[uid]
                self._fail(f"{name}: {arrival.key} takes effect at version {version} after version {before}")
            node.applied[uid] = version

    # -- disks ---------------------------------------------------------------------------------------------------

    def platter(self, name: str) -> Platter:
        """What stands on the disk of an edge, synced."""
        node = self._nodes[name]
        disk = node.machine.disk
        if node.platter is None or node.platter[0] != disk.changes:
            copied = disk.synced_copy(
                str(node.machine.data_dir / _DATABASE), node.machine.data_dir.with_name(f"{name}.platter")
            )
            node.platter = (disk.changes, _read(copied) if copied is not None else Platter())
        return node.platter[1]

    def _must_hold(self, name: str, ref: ObjectRef, why: str) -> None:
        node, found = self._nodes[name], self.platter(name)
        if ref.uid in node.may_end or ref.uid in found.ended:
            return
        if found.versions.get(ref.uid, 0) < ref.version:
            have = found.versions.get(ref.uid)
            self._fail(f"{name}: {ref.type} {ref.name} is {why} at {ref.version}, on its disk is {have}")

    def _must_not_hold(self, name: str, ref: ObjectRef) -> None:
        if ref.uid in self.platter(name).versions:
            self._fail(f"{name}: the removal of {ref.type} {ref.name} is acknowledged, but it stands on the disk")

    def _after_power_cut(self, name: str) -> None:
        node, found = self._nodes[name], self.platter(name)
        for ref in node.acknowledged.values():
            self._must_hold(name, ref, "acknowledged before a power cut")
        self._world.count("acknowledged versions looked for after power cuts", len(node.acknowledged))
        node.applied = dict(found.versions)  # what was not synced may come again
        node.stored.clear()

    def _lately_damaged(self, node: _Node) -> bool:
        return node.damaged_at >= 0 and self._world.loop.time() - node.damaged_at < 120.0

    def _fail(self, what: str) -> None:
        self._world.fail(Violation(what))


def _read(path: Path) -> Platter:
    """A database that was damaged holds nothing."""
    found = Platter()
    with contextlib.suppress(sqlite3.DatabaseError), contextlib.closing(sqlite3.connect(path)) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        for (value,) in database.execute("SELECT value FROM meta") if "meta" in tables else ():
            metadata = (json.loads(value or "null") or {}).get("metadata") or {}
            if metadata.get("uid"):
                found.versions[metadata["uid"]] = version_number(metadata.get("resourceVersion"))
        if "edgesite_ended" in tables:
            found.ended = {uid for (uid,) in database.execute("SELECT uid FROM edgesite_ended")}
    return found


@contextlib.contextmanager
def _replaced(owner: Any, name: str, stand: Any) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, stand)
    try:
        yield
    finally:
        setattr(owner, name, original)
