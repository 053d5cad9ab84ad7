"""Registers the node, reports its status when it changed, renews its lease.

Units   Seconds.
Errors  None leave `run`: what the cloud refuses is logged and tried again with back-off and jitter.
State   In memory: the node and lease as last seen.
Source  KubeEdge v1.12, edge/pkg/edged (registration, labels of edge nodes); Kubernetes: "Node heartbeats".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import anyio
from prometheus_client import Gauge

from edgesite.context import Context
from edgesite.edge.edged import dns
from edgesite.edge.edged.events import NORMAL, Events
from edgesite.edge.edged.machine import Machine, MachineFacts
from edgesite.edge.edged.node import describe
from edgesite.edge.edged.runtime import Image, Runtime, RuntimeFault, RuntimeVersion
from edgesite.edge.edged.services import NodeFacts
from edgesite.edge.edged.settings import EdgedSettings
from edgesite.kube.errors import ApiError, unavailable
from edgesite.kube.times import InvalidTime, format_micro, parse_time

if TYPE_CHECKING:
    from edgesite.edge.metamanager.meta import Meta

__all__ = ["NodeAgent"]

LEASES: Final = "kube-node-lease"
RETRY_FIRST_S: Final = 0.2
RETRY_MOST_S: Final = 7.0
JITTER: Final = 0.04  #: of the lease's interval, so that many nodes do not renew at once
FACTS_LOOKS: Final = 6  #: At every so many looks at the status, addresses, resolv.conf and the like are read anew.
IMAGES_S: Final = 60.0
_NEEDED: Final = {"RuntimeReady": "", "NetworkReady": "network "}
VERSION_S: Final = 1.0  #: between questions to a runtime that has not answered yet


class NodeAgent:
    """`learn` first, then `run`."""

    def __init__(
        self,
        ctx: Context,
        settings: EdgedSettings,
        node: NodeFacts,
        machine: Machine,
        runtime: Runtime,
        meta: Meta,
        events: Events,
        returned: Callable[[], None],
    ) -> None:
        """``returned`` is called when all pods are to be told of anew: after so long a silence that the cloud may have taken this node
        for dead, and when its addresses change."""
        self._ctx, self._settings, self._node, self._machine = ctx, settings, node, machine
        self._runtime, self._meta, self._events, self._returned = runtime, meta, events, returned
        self._facts: MachineFacts | None = None
        self._version: RuntimeVersion | None = None
        self._problem: str | None = "it has not answered yet"
        self._said = ""  # of the runtime, in the log
        self._images: list[Image] = []
        self._images_at = -IMAGES_S
        self._facts_at = 0.0
        self._changed = anyio.Event()
        self._object: dict[str, Any] = {}
        self._status: dict[str, Any] = {}
        self._reported_at = 0.0
        self._registered = anyio.Event()
        self._renewed_at: float | None = None
        self._leased = False  # by this run of edgesite
        self._labels_given = dict(settings.node_labels)  # by the configuration, to the Node as it is now
        self._reloaded = anyio.Event()

    @property
    def problem(self) -> str | None:
        """Why the runtime cannot be used, or None if it can."""
        return self._problem

    async def learn(self) -> None:
        """Read the machine's facts into what pods are told of their node."""
        await self._read_facts()
        await self._ask_version()

    async def _read_facts(self) -> None:
        ctx, settings, node = self._ctx, self._settings, self._node
        self._facts_at = ctx.clock.monotonic()
        self._facts = facts = await ctx.threads.run(
            self._machine.facts, ctx.data_dir, settings.resolv_conf, settings.interface
        )
        before, node.ips = node.ips, (settings.node_ip,) if settings.node_ip else facts.addresses
        node.memory_bytes, node.mounts = facts.memory_bytes, facts.mounts
        node.swap_bytes, node.unified_cgroups = facts.swap_bytes, facts.unified_cgroups
        node.allocatable_nano = describe.allocatable_nano(facts, settings)
        node.labels = describe.node_labels(ctx.node_name, facts, settings)
        node.dns = dns.parse_resolv_conf(facts.resolv_conf)
        node.hosts_text = facts.hosts
        if before and before != node.ips:
            ctx.log.info("the node's addresses are now %s; they were %s", ", ".join(node.ips), ", ".join(before))
            self._returned()  # every pod's status has them, too

    def reload(self) -> None:
        """Go on by the settings as they are now: amounts and labels of the node follow soon."""
        self._facts_at = float("-inf")
        self._reloaded.set()
        self._changed.set()

    def report_soon(self) -> None:
        """Look at the status now: something of it has changed."""
        self._changed.set()

    def report(self, type: str, reason: str, message: str) -> None:
        """Say something of the node in an event."""
        self._events.report(self._reference(), type, reason, message)

    def runtime_answers(self, problem: str | None) -> None:
        """Note whether the runtime answers; ``problem`` says why not."""
        if (problem is None) != (self._problem is None):
            self._problem = problem
            self._changed.set()

    async def run(self) -> None:
        """Keep the Node object and its lease up to date until cancelled."""
        with self._metrics():
            await self._run()

    @contextmanager
    def _metrics(self) -> Iterator[None]:
        """What keadm and monitoring ask: whether the cloud has the node, and has it as Ready."""
        registered = Gauge("edgesite_node_registered", "Whether the cloud has this node", registry=None)
        registered.set_function(lambda: float(self._registered.is_set()))
        ready = Gauge("edgesite_node_ready", "Whether this node was reported as Ready", registry=None)
        ready.set_function(lambda: float(self._registered.is_set() and self._was_ready()))
        for one in (registered, ready):
            self._ctx.metrics.register(one)
        try:
            yield
        finally:
            for one in (registered, ready):
                self._ctx.metrics.unregister(one)

    def _was_ready(self) -> bool:
        return _ready({"status": self._status} if self._status else self._object) == "True"

    async def _run(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._keep_version)
            tasks.start_soon(self._keep_status)
            tasks.start_soon(self._keep_lease)
            if self._settings.register_node:
                await self._register()
            self._registered.set()
            while self._settings.register_node:
                await self._reloaded.wait()
                self._reloaded = anyio.Event()
                if self._labels_given != self._settings.node_labels:
                    await self._until_taken(self._relabel)

    async def _ask_version(self) -> None:
        try:
            self._version = await self._runtime.version()
        except RuntimeFault as exc:
            if str(exc) != self._said:
                self._said = str(exc)
                self._ctx.log.warning("the container runtime does not answer yet: %s", exc)
            return
        self._node.runtime_name = self._version.name
        self._node.cgroup_driver = told = self._version.cgroup_driver
        if told and told != self._settings.cgroup_driver:
            self._ctx.log.info("the runtime's cgroup driver is %s: that is used, not the configured one", told)
        self._problem = None

    async def _keep_version(self) -> None:
        while not self._node.runtime_name:
            await self._ctx.clock.sleep(VERSION_S)
            await self._ask_version()
        self._changed.set()

    async def _register(self) -> None:
        """Create the node, or bring labels and annotations of one that is there up to date."""
        await self._until_taken(self._register_once)
        self._ctx.log.info("node=%s is registered", self._ctx.node_name)
        self._events.report(self._reference(), NORMAL, "Starting", "Starting edged.")

    async def _relabel(self, name: str) -> None:
        """Give the Node the labels of the configuration as they are now, and take away those that are no longer there. Raises ApiError."""
        assert self._facts is not None
        wanted = describe.node_labels(name, self._facts, self._settings)
        given = dict(self._settings.node_labels)
        self._object = await self._meta.query_remote("node", "", name)
        metadata = dict(self._object.get("metadata") or {})
        kept = {one: value for one, value in (metadata.get("labels") or {}).items() if one not in self._labels_given}
        changed = self._object | {"metadata": metadata | {"labels": kept | wanted}}
        self._object = await self._meta.update("node", "", name, changed)
        self._labels_given = given
        self._ctx.log.info("node=%s has the labels of the configuration", name)

    async def _until_taken(self, tell: Callable[[str], Awaitable[None]]) -> None:
        """Tell the cloud of the node, again and again until it takes it."""
        name, delay_s = self._ctx.node_name, RETRY_FIRST_S
        while True:
            await self._meta.wait_connected()
            try:
                await tell(name)
            except ApiError as exc:
                self._ctx.log.warning("node=%s cannot be registered yet: %s", name, exc.message)
            else:
                return
            await self._ctx.clock.sleep(delay_s * (0.75 + self._ctx.random.random() / 2))
            delay_s = min(delay_s * 2, RETRY_MOST_S)

    async def _register_once(self, name: str) -> None:
        assert self._facts is not None
        status = await self._current_status()
        node = describe.new_node(name, self._facts, self._settings, self._runtime.isolation, status)
        try:
            self._object = await self._meta.insert("node", "", name, node)
        except ApiError as exc:
            if exc.reason != "AlreadyExists":
                raise
            self._object = await self._meta.query_remote("node", "", name)
            await self._update_metadata(name, node)
        if _ready(self._object) != _ready({"status": status}):
            await self._report(status)

    async def _update_metadata(self, name: str, node: dict[str, Any]) -> None:
        """Add what is ours to the labels and annotations of a node that was registered before."""
        metadata = dict(self._object.get("metadata") or {})
        wanted = {one: (metadata.get(one) or {}) | node["metadata"][one] for one in ("labels", "annotations")}
        if any(metadata.get(one) != values for one, values in wanted.items()):
            self._object = await self._meta.update("node", "", name, self._object | {"metadata": metadata | wanted})

    async def _keep_status(self) -> None:
        """Report the status when it differs from the last one, or when that is older than the report interval."""
        await self._registered.wait()
        while True:
            try:
                await self._report_if_news()
            except Exception as exc:  # what the disk or the runtime refuses now is tried again at the next tick
                self._ctx.log.warning("the node's status cannot be reported: %s", exc)
            with anyio.move_on_after(self._settings.status_update_s):
                await self._changed.wait()
            self._changed = anyio.Event()

    async def _report_if_news(self) -> None:
        if self._ctx.clock.monotonic() - self._facts_at >= FACTS_LOOKS * self._settings.status_update_s:
            await self._read_facts()
        status = await self._current_status()
        late = self._ctx.clock.monotonic() - self._reported_at >= self._settings.status_report_s
        if late or _without_heartbeat(status) != _without_heartbeat(self._status):
            await self._report(status)

    async def _report(self, status: dict[str, Any]) -> None:
        patch = {"metadata": {"name": self._ctx.node_name}, "status": status}
        await self._meta.report_status("node", "", self._ctx.node_name, patch)
        self._status, self._reported_at = status, self._ctx.clock.monotonic()

    async def tell_volumes_in_use(self) -> dict[str, Any]:
        """Have the cloud know now which volumes are in use, whatever reports are on their way; returns the Node as it is there.
        Raises ApiError."""
        if not self._registered.is_set():
            raise unavailable("the node is not registered yet")
        await self._report_if_news()  # takes the place of one that still waits, which would take the volumes back
        patch = {"metadata": {"name": self._ctx.node_name}, "status": {"volumesInUse": self._node.volumes_in_use()}}
        return await self._meta.patch("node", "", self._ctx.node_name, patch)

    async def _current_status(self) -> dict[str, Any]:
        ctx, facts = self._ctx, self._facts
        assert facts is not None
        await self._list_images()
        version = self._version
        before = (self._status or self._object.get("status") or {}).get("conditions") or ()
        why_not_ready = await self._why_not_ready()  # before what else may change meanwhile
        return describe.node_status(
            ctx.node_name,
            facts,
            self._settings,
            version=str(ctx.site.get("version", "0")),
            runtime_version=f"{version.name}://{version.version}" if version else "",
            ips=self._node.ips,
            images=self._images,
            devices=self._node.devices(),
            volumes_in_use=self._node.volumes_in_use(),
            node_conditions=describe.conditions(self._node.stress, why_not_ready, before, ctx.clock.time()),
        )

    async def _why_not_ready(self) -> str | None:
        """Say what keeps the node from running pods, in kubelet's words."""
        if self._node.shutting_down:
            return "node is shutting down"
        if self._problem is None:
            try:
                conditions = await self._runtime.status()
            except RuntimeFault as exc:
                return f"container runtime status check may not have completed yet: {exc}"
            for one in conditions:
                if one.type in _NEEDED and not one.status:
                    said = f"{one.type}=false reason:{one.reason} message:{one.message}"
                    return f"container runtime {_NEEDED[one.type]}not ready: {said}"
            return None
        return f"container runtime is down: {self._problem}"

    async def _list_images(self) -> None:
        now = self._ctx.clock.monotonic()
        if self._problem is not None or now - self._images_at < IMAGES_S:
            return
        try:
            self._images = list(await self._runtime.list_images())
            self._images_at = now
        except RuntimeFault:
            self._images_at = now  # the list of containers tells of a runtime that is down; images wait a minute

    async def _keep_lease(self) -> None:
        await self._registered.wait()
        delay_s = RETRY_FIRST_S
        lease: dict[str, Any] | None = None
        while True:
            await self._meta.wait_connected()
            try:
                lease = await self._renew(lease)
            except ApiError as exc:
                lease = None  # read it again: somebody else has written it, or it is gone (an API server says Conflict then, too)
                if exc.reason not in ("Conflict", "NotFound"):
                    self._ctx.log.info("the lease cannot be renewed: %s", exc.message)
                await self._ctx.clock.sleep(delay_s * (0.75 + self._ctx.random.random() / 2))
                delay_s = min(delay_s * 2, RETRY_MOST_S)
                continue
            delay_s = RETRY_FIRST_S
            interval_s = self._settings.lease_duration_s / 4
            await self._ctx.clock.sleep(interval_s * (1 + JITTER * self._ctx.random.random()))

    async def _renew(self, lease: dict[str, Any] | None) -> dict[str, Any]:
        """Renew what was read last, or read it first, or create it. Raises ApiError."""
        name = self._ctx.node_name
        if lease is None:
            try:
                lease = await self._meta.query_remote("lease", LEASES, name)
            except ApiError as exc:
                if exc.reason != "NotFound":
                    raise
                if self._leased and self._settings.register_node:
                    await self._register()  # the lease went with its node
                created = await self._meta.insert("lease", LEASES, name, self._lease({}))
                self._leased = True
                return created
            self._note_silence(lease)
        renewed = await self._meta.update("lease", LEASES, name, self._lease(lease))
        self._leased = True
        now = self._ctx.clock.monotonic()
        if self._renewed_at is not None and now - self._renewed_at > self._settings.lease_duration_s:
            self._tell_again()
        self._renewed_at = now
        return renewed

    def _note_silence(self, lease: dict[str, Any]) -> None:
        """Compare with the last renewal of an earlier run of edgesite, if this is the first of this one."""
        if self._renewed_at is not None:
            return
        try:
            before = parse_time((lease.get("spec") or {}).get("renewTime") or "")
        except InvalidTime:
            return
        if self._ctx.clock.time() - before > self._settings.lease_duration_s:
            self._tell_again()

    def _tell_again(self) -> None:
        """Report everything: the cloud may have marked the node as lost and its pods as not ready."""
        self._reported_at = float("-inf")
        self._changed.set()
        self._returned()

    def _lease(self, lease: dict[str, Any]) -> dict[str, Any]:
        name = self._ctx.node_name
        metadata = {"name": name, "namespace": LEASES, **(lease.get("metadata") or {})}
        if uid := (self._object.get("metadata") or {}).get("uid"):
            owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}
            metadata["ownerReferences"] = [owner]
        spec = {
            "holderIdentity": name,
            "leaseDurationSeconds": self._settings.lease_duration_s,
            "renewTime": format_micro(self._ctx.clock.time()),
        }
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {**(lease.get("spec") or {}), **spec},
        }

    def _reference(self) -> dict[str, Any]:
        return {"kind": "Node", "name": self._ctx.node_name, "uid": self._ctx.node_name, "apiVersion": "v1"}


def _ready(node: dict[str, Any]) -> str:
    for one in (node.get("status") or {}).get("conditions") or ():
        if one.get("type") == "Ready":
            return str(one.get("status"))
    return ""


def _without_heartbeat(status: dict[str, Any]) -> dict[str, Any]:
    shown = [{**one, "lastHeartbeatTime": None} for one in status.get("conditions") or ()]
    return status | {"conditions": shown}
