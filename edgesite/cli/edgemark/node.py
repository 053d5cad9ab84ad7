"""A hollow edge node: the real session and transport, and in place of a container runtime a pod that runs as soon as it is told.

It joins, renews its lease, stores in memory what it is sent, acknowledges it, and reports its pods' statuses.

State   What it holds, in memory. Callbacks only: a node has no task of its own.
Source  Kubernetes' hollow nodes (kubemark); requests as KubeEdge v1.12.7's edgecore makes them (edge/pkg/edged, edge/pkg/metamanager/client).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from edgesite.kube import json
from edgesite.kube.times import format_micro, format_time
from edgesite.net.websocket import Message as WireMessage
from edgesite.net.websocket import SocketClosed, WebSocket
from edgesite.wire import resource
from edgesite.wire.delivery import ObjectRef, version_number
from edgesite.wire.delta import DELTA, NoDelta, apply_delta
from edgesite.wire.edge_session import EdgeLimits, EdgeSession
from edgesite.wire.events import Answer, Event, Greeted, Received
from edgesite.wire.message import InvalidMessage, Message, MessageMaker, Operation, error_content, error_status
from edgesite.wire.newer import Held, Verdict, judge_delete, judge_update

if TYPE_CHECKING:
    import random

    from edgesite.context import Clock

__all__ = ["Counters", "HollowNode"]

Object = dict[str, Any]
LEASES: Final = "kube-node-lease"
_RENEW_S: Final = 10.0
_LEASE_S: Final = 40


@dataclass(slots=True)
class Counters:
    """What all nodes of a run have done."""

    frames_up: int = 0
    frames_down: int = 0
    bytes_up: int = 0  #: of frames, without WebSocket and TLS
    bytes_down: int = 0
    received: int = 0  #: objects that came
    applied: int = 0  #: of these, newer than what was held
    late_leases: int = 0  #: renewals that took longer than the interval
    refused: int = 0  #: requests that the cloud refused
    ready: int = 0
    pods_running: int = 0
    started_at: dict[str, float] = field(default_factory=dict)  #: pod's uid -> when it ran here, monotonic


class HollowNode:
    """One node. Give it a socket with `attach`; ``on_lost`` is called when the link is gone."""

    def __init__(
        self,
        name: str,
        clock: Clock,
        draw: random.Random,
        counters: Counters,
        *,
        arm: Callable[[HollowNode], None],
        on_lost: Callable[[HollowNode], None],
    ) -> None:
        self.name = name
        self.timer_at = math.inf  # kept by `Timers`
        self.ready = False
        self.connected_at = 0.0
        self.spread_s = 0.0  #: over which time the cloud wants its nodes back, as it has told last
        self._clock = clock
        self._random = draw
        self._counters = counters
        self._arm = arm
        self._on_lost = on_lost
        self._maker = MessageMaker(clock.time, draw.getrandbits)
        self._held: dict[str, Object] = {}
        self._ended: dict[str, None] = {}
        self._socket: WebSocket | None = None
        self._session: EdgeSession | None = None
        self._asked: dict[str, Callable[[Any], None]] = {}
        self._lease: Object | None = None
        self._renew_at = math.inf
        self._renewing_since: float | None = None

    # -- the link ------------------------------------------------------------------------------------------------

    def attach(self, socket: WebSocket) -> None:
        """Begin on a fresh connection."""
        now = self._clock.monotonic()
        self._socket, self.connected_at = socket, now
        self._session = EdgeSession(self._maker, now=now, limits=EdgeLimits())
        self._asked.clear()
        socket.on_close = self._closed
        socket.deliver_to(self._frame)
        self._ask(Operation.INSERT, f"default/node/{self.name}", self._node(), self._registered)
        self._settle()

    def cut(self) -> None:
        """Lose the link as a broken cable does."""
        if self._socket is not None:
            self._socket.abort()

    @property
    def socket(self) -> WebSocket | None:
        return self._socket

    def _closed(self, closed: SocketClosed) -> None:
        if self._session is not None:
            self.spread_s = self._session.spread_s
            self._session.close()
        self._socket = self._session = None
        self._renew_at = math.inf
        self._renewing_since = None
        if self.ready:
            self.ready = False
            self._counters.ready -= 1
        self._on_lost(self)

    def _frame(self, frame: WireMessage) -> None:
        session = self._session
        if session is None:
            return
        self._counters.frames_down += 1
        self._counters.bytes_down += len(frame.data)
        try:
            session.receive_frame(frame.data, self._clock.monotonic(), text=frame.text)
        except InvalidMessage:
            self._counters.refused += 1
            return
        while session.events:
            self._event(session, session.events.popleft())
        self._settle()

    def _settle(self) -> None:
        session, socket = self._session, self._socket
        if session is None or socket is None:
            return
        now = self._clock.monotonic()
        try:
            while (frame := session.take_frame(now)) is not None:
                self._counters.frames_up += 1
                self._counters.bytes_up += len(frame.data)
                socket.send_nowait(frame.data, text=frame.text)
        except SocketClosed:
            return
        self._arm(self)

    # -- time ----------------------------------------------------------------------------------------------------

    def next_timer(self) -> float | None:
        session = self._session
        due = session.next_timer() if session is not None else None
        return None if due is None else min(due, self._renew_at)

    def on_timer(self, now: float) -> None:
        session = self._session
        if session is None:
            return
        session.handle_timer(now)
        if session.closed:
            self.cut()
            return
        if now >= self._renew_at:
            self._renew(now)
        self._settle()

    # -- requests ------------------------------------------------------------------------------------------------

    def _ask(self, operation: str, path: str, content: Any, then: Callable[[Any], None]) -> None:
        if self._session is not None:
            message = self._maker.make("edged", "meta", operation, path, content)
            self._asked[message.msg_id] = then
            self._session.send(message, self._clock.monotonic())

    def _registered(self, answer: Any) -> None:
        reason = _reason(answer)
        if reason and reason != "AlreadyExists":
            self._counters.refused += 1
            self.cut()
            return
        if not self.ready:
            self.ready = True
            self._counters.ready += 1
        self._ask(Operation.QUERY, f"{LEASES}/lease/{self.name}", None, self._lease_read)

    def _lease_read(self, answer: Any) -> None:
        if _reason(answer) == "NotFound":
            lease = self._lease_object({})
            self._ask(Operation.INSERT, f"{LEASES}/lease/{self.name}", lease, self._renewed)
        else:
            self._renewed(answer)

    def _renew(self, now: float) -> None:
        self._renew_at = math.inf
        self._renewing_since = now
        lease = self._lease_object(self._lease or {})
        self._ask(Operation.UPDATE, f"{LEASES}/lease/{self.name}", lease, self._renewed)

    def _renewed(self, answer: Any) -> None:
        now = self._clock.monotonic()
        if self._renewing_since is not None and now - self._renewing_since > _RENEW_S:
            self._counters.late_leases += 1
        self._renewing_since = None
        if _reason(answer):
            self._counters.refused += 1
            self._ask(Operation.QUERY, f"{LEASES}/lease/{self.name}", None, self._lease_read)
            return
        self._lease = answer["Object"]
        self._renew_at = now + _RENEW_S * (1 + 0.04 * self._random.random())

    def _lease_object(self, lease: Object) -> Object:
        metadata = {**(lease.get("metadata") or {}), "name": self.name, "namespace": LEASES}
        spec = {
            **(lease.get("spec") or {}),
            "holderIdentity": self.name,
            "leaseDurationSeconds": _LEASE_S,
            "renewTime": format_micro(self._clock.time()),
        }
        return {**lease, "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}

    def _node(self) -> Object:
        stamp = format_time(self._clock.time())
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "hollow"}
        amounts = {"cpu": "8", "memory": "16Gi", "pods": "250"}
        return {
            "kind": "Node",
            "apiVersion": "v1",
            "metadata": {
                "name": self.name,
                "labels": {"node-role.kubernetes.io/edge": "", "edgesite.kubeedge.io/hollow": "true"},
            },
            "status": {
                "capacity": amounts,
                "allocatable": amounts,
                "conditions": [{**ready, "lastHeartbeatTime": stamp, "lastTransitionTime": stamp}],
                "nodeInfo": {"kubeletVersion": "v1.22.17-kubeedge-v1.12.7", "operatingSystem": "linux"},
            },
        }

    # -- what comes ----------------------------------------------------------------------------------------------

    def _event(self, session: EdgeSession, event: Event) -> None:
        match event:
            case Greeted():
                session.tell_holdings(self._holdings())
            case Answer(message):
                then = self._asked.pop(message.parent_msg_id, None)
                if then is not None:
                    then(message.content)
            case Received(message):
                session.send(self._take(message), self._clock.monotonic())

    def _holdings(self) -> list[ObjectRef]:
        found = []
        for path, obj in self._held.items():
            at, metadata = resource.parse(path), obj["metadata"]
            version = version_number(metadata.get("resourceVersion"))
            found.append(ObjectRef(metadata["uid"], version, at.type, at.object_namespace, at.name))
        return found

    def _take(self, message: Message) -> Message:
        """Store an object, or its end; returns the acknowledgement, or why there is none."""
        path, held = message.resource, self._held.get(message.resource)
        self._counters.received += 1
        try:
            obj = apply_delta(held, message.content) if message.type == DELTA else message.object()
        except NoDelta as exc:
            status = {"status": "Failure", "reason": "Conflict", "code": 409, "message": str(exc)}
            return self._maker.error(message, error_content(status))
        except InvalidMessage as exc:
            status = {"status": "Failure", "reason": "BadRequest", "code": 400, "message": str(exc)}
            return self._maker.error(message, error_content(status))
        metadata = obj.get("metadata") or {}
        uid, known = str(metadata.get("uid") or ""), _held_of(held)
        if message.operation == Operation.DELETE:
            self._ended[uid] = None
            if judge_delete(known, uid) is Verdict.REMOVE:
                self._counters.applied += 1
                del self._held[path]
        elif (
            judge_update(known, uid, version_number(metadata.get("resourceVersion")), self._ended.__contains__)
            is not Verdict.IGNORE
        ):
            self._counters.applied += 1
            self._held[path] = obj
            if resource.parse(path).type == "pod":
                self._sync_pod(path, obj)
        return self._maker.ack(message)

    # -- the mock runtime ----------------------------------------------------------------------------------------

    def _sync_pod(self, path: str, pod: Object) -> None:
        metadata = pod["metadata"]
        uid = metadata["uid"]
        if metadata.get("deletionTimestamp"):
            options = {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
            self._ask(Operation.DELETE, path, options, lambda answer: None)
        elif uid not in self._counters.started_at and (pod.get("status") or {}).get("phase") != "Running":
            self._counters.started_at[uid] = self._clock.monotonic()
            self._counters.pods_running += 1
            status = json.dumps(_running(pod, format_time(self._clock.time()))).decode()
            self._ask(Operation.PATCH, path.replace("/pod/", "/podpatch/"), status, self._pod_reported)

    def _pod_reported(self, answer: Any) -> None:
        if _reason(answer) not in ("", "NotFound"):
            self._counters.refused += 1


def _running(pod: Object, stamp: str) -> Object:
    """The status patch of a pod that runs, of the size that a real one has."""
    conditions = [
        {"type": kind, "status": "True", "lastTransitionTime": stamp}
        for kind in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
    ]
    containers = [
        {
            "name": one["name"],
            "image": one.get("image", ""),
            "imageID": "hollow@sha256:" + "0" * 64,
            "containerID": "hollow://" + pod["metadata"]["uid"],
            "ready": True,
            "started": True,
            "restartCount": 0,
            "state": {"running": {"startedAt": stamp}},
        }
        for one in pod["spec"].get("containers") or ()
    ]
    status = {"phase": "Running", "startTime": stamp, "hostIP": "192.0.2.1", "podIP": "192.0.2.2"}
    return {
        "metadata": {"uid": pod["metadata"]["uid"]},
        "status": {**status, "conditions": conditions, "containerStatuses": containers},
    }


def _held_of(obj: Object | None) -> Held | None:
    if obj is None:
        return None
    metadata = obj["metadata"]
    return Held(metadata["uid"], version_number(metadata.get("resourceVersion")))


def _reason(answer: Any) -> str:
    """Why the cloud refused; "" if it did not."""
    if isinstance(answer, dict) and "Err" in answer:
        answer = answer["Err"]
    status = error_status(answer)
    return str(status.get("reason") or "Unknown") if status is not None else ""
