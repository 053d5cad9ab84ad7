"""Jobs that give tasks to nodes: begins with nodes that may, takes what they tell, gives up on those that are late.

A node is marked before the job's status says that it was told: the mark names the job, so that what was cut off in between goes on,
and a node whose job is deleted is let go of.

Units   Seconds.
Errors  ApiError from the API goes to the work queue, which retries.
State   None but the queue: who has been told, and when, is in the jobs' status and in annotations of nodes.
Source  KubeEdge v1.12.7 cloud/pkg/nodeupgradejobcontroller, v1.23.1 (taskmanager, recorded).
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

from edgesite.client import Client, Controller, ObjectKey, Result, SharedInformers, key_of
from edgesite.cloud.cloudhub.records import ConnectedNodes
from edgesite.cloud.taskmanager import prepull, upgrades
from edgesite.cloud.taskmanager.nodes import BUSY, Speech, nodes_of, own_version, speech_of
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import IMAGE_PRE_PULL_JOBS, NODE_UPGRADE_JOBS, NODES
from edgesite.kube.times import InvalidTime, format_time, parse_time
from edgesite.wire import resource
from edgesite.wire.message import InvalidMessage, Message, MessageMaker

if TYPE_CHECKING:
    from edgesite.context import Context
    from edgesite.kube.resources import Resource

__all__ = ["Jobs"]

Object = dict[str, Any]
_TASKS: Final = "taskmanager"
_UPGRADES: Final = "nodeupgradejobcontroller"
_PATH: Final = "operations.kubeedge.io/v1alpha2"
_PREPULL, _UPGRADE = "imageprepulljob", "nodeupgradejob"
_KINDS: Final = {_PREPULL: IMAGE_PRE_PULL_JOBS, _UPGRADE: NODE_UPGRADE_JOBS}
_CORDONED: Final = "edgesite.kubeedge.io/cordoned-for-upgrade"
_JOB: Final = "edgesite.kubeedge.io/upgrade-job"
_HISTORY: Final = "nodeupgradejob.operations.kubeedge.io/history"
_LATE: Final = "timeout to get an answer from the edge"
_UNKNOWN: Final = "the version of this node's edge knows no such task"


class Jobs:
    """Reconciles one job at a time, so that its status has one writer. Implements `TaskNeeds`."""

    def __init__(self, ctx: Context, client: Client, informers: SharedInformers) -> None:
        self._ctx = ctx
        self._client = client
        self._maker = MessageMaker(ctx.clock.time, ctx.random.getrandbits)
        self._nodes = informers.of(NODES)
        self._caches = {kind: informers.of(one) for kind, one in _KINDS.items()}
        self._told: dict[
            ObjectKey, list[tuple[str, Object]]
        ] = {}  # what nodes have told of jobs, not yet in their status
        self._controller = Controller("tasks", self.reconcile, ctx.clock, ctx.random, workers=1, log=ctx.log)

    async def run(self, ready: Any) -> None:
        """Control until cancelled."""
        with ExitStack() as handlers:
            for kind, cache in self._caches.items():
                handlers.enter_context(cache.on_change(lambda one, kind=kind: self._add(kind, key_of(one).name)))  # type: ignore[misc]
            handlers.enter_context(self._nodes.add_handler(self._node_seen, self._node_changed))
            await self._controller.run((self._nodes, *self._caches.values()), ready=ready)

    def _add(self, kind: str, name: str) -> None:
        self._controller.queue.add(ObjectKey(kind, name))

    def _node_seen(self, node: Object) -> None:
        """The job that has marked it may be deleted by now."""
        if name := _job_of(node):
            self._add(_UPGRADE, name)

    def _node_changed(self, old: Object, new: Object) -> None:
        if _job_of(old) != _job_of(new):
            self._node_seen(new)

    def needs_secret(self, node: str, namespace: str, name: str) -> bool:
        """See `TaskNeeds`."""
        secret = f"{namespace}/{name}"
        jobs = [one for one in self._caches[_PREPULL].list() if prepull.template_of(one).get("imageSecrets") == secret]
        return any(prepull.is_at_work(one.get("status") or {}, node) for one in jobs)

    # -- what nodes tell ------------------------------------------------------------------------------------------

    async def told(self, message: Message) -> None:
        """A task's action is over: node/<node>/operations.kubeedge.io/v1alpha2/<kind>/<job>/node/<node>."""
        parts = resource.trim_node(message.resource).split("/")
        try:
            content = message.object()
        except InvalidMessage:
            return
        if len(parts) == 6 and parts[2] in self._caches:
            self._note(ObjectKey(parts[2], parts[3]), resource.node_of(message.resource), content)

    async def reported(self, message: Message) -> None:
        """An upgrade is over, as edges of v1.12 report it: upgrade/<job>/node/<node>."""
        parts = message.resource.split("/")
        if len(parts) == 4 and isinstance(message.content, dict):
            self._note(ObjectKey(_UPGRADE, parts[1]), parts[3], message.content)

    def _note(self, key: ObjectKey, node: str, content: Object) -> None:
        if self._caches[key.namespace].get(key.name) is not None:  # a node cannot fill memory with jobs that are none
            told = self._told.setdefault(key, [])
            told.append((node, content))
            del told[:-1024]
            self._controller.queue.add(key)

    # -- jobs -----------------------------------------------------------------------------------------------------

    async def reconcile(self, key: ObjectKey) -> Result | None:
        """Take what was told, begin with nodes that may, give up on those that are late. Raises ApiError."""
        job = await self._live(_KINDS[key.namespace], key.name)
        if job is None:
            self._told.pop(key, None)
            for node in self._nodes.list() if key.namespace == _UPGRADE else ():
                if _job_of(node) == key.name:
                    await self._release(node["metadata"]["name"])
            return None
        told, tasks = self._told.pop(key, []), list[Message]()
        try:
            result = await (self._pull if key.namespace == _PREPULL else self._upgrade)(job, told, tasks)
            for task in tasks:  # once their status says that they were told: an answer may come at once
                await self._send(task)
            return result
        except BaseException:
            self._told[key] = told + self._told.get(key, [])
            raise

    async def _pull(self, job: Object, told: list[tuple[str, Object]], tasks: list[Message]) -> Result | None:
        status, spec, now = job.get("status") or {}, prepull.template_of(job), format_time(self._ctx.clock.time())
        chosen = {node["metadata"]["name"]: node for node in nodes_of(self._nodes.list(), spec)}
        rows = status.get("status") or ()
        entries: dict[str, Object] = {str((one.get("nodeStatus") or {}).get("nodeName")): one for one in rows}
        before = dict(entries)
        for node, content in told:
            if (entry := prepull.told(entries.get(node), node, content, now)) is not None:
                entries[node] = entry
        left_s = self._give_up(entries, prepull.timeout_of(job), now)
        if not prepull.is_over(status):
            for node in prepull.to_begin(list(chosen), {"status": list(entries.values())}, spec):
                if self._speech(chosen[node]) is not Speech.TASKS:
                    entries[node] = prepull.ended(node, "Init", _UNKNOWN, now)
                    self._add(_PREPULL, job["metadata"]["name"])  # its place is free for the next
                    continue
                entries[node] = prepull.begin(node, now)
                tasks.append(self._task(node, _PREPULL, job))
        expected = max(len(set(chosen) | set(entries)), 1)
        if entries != before or not status:
            made = prepull.summed_up(list(entries.values()), expected, spec, now)
            await self._write(IMAGE_PRE_PULL_JOBS, job, made)
        return Result(requeue_after_s=left_s) if left_s is not None else None

    def _give_up(self, entries: dict[str, Object], timeout_s: float, now: str) -> float | None:
        """Fail the nodes that are late; returns when to look again."""
        left: list[float] = []
        for node, entry in entries.items():
            told = entry["nodeStatus"]
            if told.get("state") in prepull.FINAL:
                continue
            wait_s = self._since(told.get("time")) + timeout_s - self._ctx.clock.time()
            if wait_s <= 0:
                entries[node] = prepull.ended(node, "TimeOut", _LATE, now)
            else:
                left.append(wait_s + 1.0)
        return min(left, default=timeout_s + 1.0 if entries else None)

    async def _upgrade(self, job: Object, told: list[tuple[str, Object]], tasks: list[Message]) -> Result | None:
        status = job.get("status") or {}
        entries: dict[str, Object] = {str(one.get("nodeName")): one for one in status.get("status") or ()}
        before = dict(entries)
        for name, content in told:
            await self._upgrade_told(entries, name, content)
        left_s = await self._give_up_upgrades(job, entries)
        if not status.get("state"):
            if why := upgrades.invalid(job):
                self._ctx.log.warning("NodeUpgradeJob %s is not carried out: %s", job["metadata"]["name"], why)
                return None
            for node in nodes_of(self._nodes.list(), job["spec"]):
                if self._may_upgrade(node, job):
                    await self._begin_upgrade(job, node, entries, tasks)
        if entries != before:
            made = {"state": upgrades.state_of(list(entries.values())), "status": list(entries.values())}
            await self._write(NODE_UPGRADE_JOBS, job, made)
            return Result(requeue_after_s=left_s if left_s is not None else upgrades.timeout_of(job) + 1.0)
        return Result(requeue_after_s=left_s) if left_s is not None else None

    def _may_upgrade(self, node: Object, job: Object) -> bool:
        conditions = {one.get("type"): one.get("status") for one in (node.get("status") or {}).get("conditions") or ()}
        return (
            own_version(node) != job["spec"]["version"]
            and (BUSY not in (node["metadata"].get("labels") or {}) or _job_of(node) == job["metadata"]["name"])
            and conditions.get("Ready") == "True"
        )

    async def _begin_upgrade(self, job: Object, node: Object, entries: dict[str, Object], tasks: list[Message]) -> None:
        """Raises ApiError."""
        name, speech = node["metadata"]["name"], self._speech(node)
        now = format_time(self._ctx.clock.time())
        history_id = self._maker.new_id()
        entry = upgrades.entry(name, history_id, now, own_version(node), job["spec"]["version"])
        if speech is Speech.NONE:
            entries[name] = upgrades.finished(entry, upgrades.FAILED, _UNKNOWN)
            return
        entries[name] = entry
        if _job_of(node) != job["metadata"]["name"]:  # else it was marked before a restart
            cordoned = {} if (node.get("spec") or {}).get("unschedulable") else {"unschedulable": True}
            # The annotation remembers who made it so: KubeEdge makes it schedulable afterwards in any case.
            marks = {_CORDONED: "ours" if cordoned else "theirs", _JOB: job["metadata"]["name"]}
            patch = {"metadata": {"labels": {BUSY: ""}, "annotations": marks}}
            await self._client.patch(NODES, name, {**patch, **({"spec": cordoned} if cordoned else {})})
        if speech is Speech.TASKS:
            tasks.append(self._task(name, _UPGRADE, job))
            return
        path = f"upgrade/{job['metadata']['name']}/node/{name}"
        content = upgrades.content_of(job, history_id)
        tasks.append(self._maker.make(_UPGRADES, _UPGRADES, "upgrade", path, content))

    async def _upgrade_told(self, entries: dict[str, Object], node: str, content: Object) -> None:
        """Raises ApiError."""
        entry = entries.get(node)
        if entry is None or entry.get("state") == upgrades.COMPLETED:
            return
        if "Status" in content:  # v1.12
            if content.get("HistoryID") != (entry.get("history") or {}).get("historyID"):
                return
            result, reason = str(content["Status"]), str(content.get("Reason") or "")
        elif content.get("succ") and content.get("action") != "Upgrade":
            return  # one of several actions
        else:
            result = upgrades.SUCCESS if content.get("succ") else upgrades.FAILED
            reason = str(content.get("reason") or "")
        entries[node] = upgrades.finished(entry, result, reason)
        await self._release(node, entries[node])

    async def _give_up_upgrades(self, job: Object, entries: dict[str, Object]) -> float | None:
        """Raises ApiError."""
        left: list[float] = []
        for node, entry in entries.items():
            if entry.get("state") == upgrades.COMPLETED:
                continue
            began = self._since((entry.get("history") or {}).get("upgradeTime"))
            wait_s = began + upgrades.timeout_of(job) - self._ctx.clock.time()
            if wait_s > 0:
                left.append(wait_s + 1.0)
                continue
            entries[node] = upgrades.finished(entry, upgrades.FAILED, _LATE)
            await self._release(node, entries[node])
        return min(left, default=None)

    async def _release(self, name: str, entry: Object | None = None) -> None:
        """The node may run pods again, unless somebody else had forbidden that. ``entry`` is what became of its job. Raises ApiError."""
        node = await self._live(NODES, name)
        if node is None or BUSY not in (node["metadata"].get("labels") or {}):
            return
        annotations = node["metadata"].get("annotations") or {}
        patch: Object = {"metadata": {"labels": {BUSY: None}, "annotations": {_CORDONED: None, _JOB: None}}}
        if annotations.get(_CORDONED) == "ours":
            patch["spec"] = {"unschedulable": None}
        history = (entry or {}).get("history") or {}
        if history.get("result") == upgrades.SUCCESS:
            old = [one for one in str(annotations.get(_HISTORY) or "").split(";") if one]
            step = f"{history.get('fromVersion')}->{history.get('toVersion')}"
            patch["metadata"]["annotations"][_HISTORY] = ";".join([*old, step][-3:])
        await self._client.patch(NODES, name, patch)

    # -- the way to nodes and to the API --------------------------------------------------------------------------

    def _speech(self, node: Object) -> Speech:
        connected = self._ctx.services.find(ConnectedNodes)  # type: ignore[type-abstract]
        return speech_of(node, is_ours=connected is not None and connected.is_own(node["metadata"]["name"]))

    def _task(self, node: str, kind: str, job: Object) -> Message:
        path = f"{_PATH}/{kind}/{job['metadata']['name']}/node/{node}"
        return self._maker.make(_TASKS, _TASKS, "Check", path, job["spec"])

    async def _live(self, kind: Resource, name: str) -> Object | None:
        """The object as it is: what was just written, the cache may not have yet. Raises ApiError."""
        try:
            return await self._client.get(kind, name)
        except ApiError as exc:
            if exc.reason != "NotFound":
                raise
            return None

    async def _send(self, message: Message) -> None:
        try:
            await self._ctx.bus.send("cloudhub", message)
        except LookupError:
            return  # the node runs into its timeout

    async def _write(self, kind: Resource, job: Object, status: Object) -> None:
        """Raises ApiError."""
        try:
            await self._client.patch(kind, job["metadata"]["name"], {"status": status}, subresource="status")
        except ApiError as exc:
            if exc.reason != "NotFound":
                raise

    def _since(self, text: Any) -> float:
        try:
            return parse_time(str(text or ""))
        except InvalidTime:
            return self._ctx.clock.time()


def _job_of(node: Object) -> str:
    """The upgrade job that has marked a node; "" if none has."""
    return str((node["metadata"].get("annotations") or {}).get(_JOB) or "")
