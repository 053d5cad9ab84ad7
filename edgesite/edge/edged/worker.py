"""One pod from its first sight to its end: looks at it whenever something changed and takes the steps that are missing.

A look is level-driven and may be cut off anywhere: the next one sees what is there and goes on. Nothing is polled for a pod that is
as it should be.

Units   Seconds of the clock.
Errors  None leave `run`: what the runtime refuses is logged and tried again with back-off.
State   `PodState`, in memory.
"""

from __future__ import annotations

import asyncio
import functools
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import anyio

from edgesite.cancellation import is_being_cancelled
from edgesite.edge.edged.events import WARNING
from edgesite.edge.edged.lifecycle import active_deadline, is_over
from edgesite.edge.edged.loglinks import remove_links
from edgesite.edge.edged.messages import termination_message
from edgesite.edge.edged.pleg import PodInventory
from edgesite.edge.edged.pod import FINAL_PHASES, Pod
from edgesite.edge.edged.probes import ProbeSet
from edgesite.edge.edged.reporter import StatusReporter
from edgesite.edge.edged.runtime import (
    LABEL_POD_UID,
    ContainerInfo,
    ContainerState,
    NotInRuntime,
    RuntimeFault,
    SandboxState,
)
from edgesite.edge.edged.services import PodServices
from edgesite.edge.edged.stages.admission import AdmissionStage
from edgesite.edge.edged.stages.containers import ContainersStage
from edgesite.edge.edged.stages.sandbox import SandboxStage
from edgesite.edge.edged.stages.volumes import VolumesStage
from edgesite.edge.edged.state import PodState, Seen, StageWait, Termination
from edgesite.edge.edged.status import is_marked_not_ready
from edgesite.edge.edged.stopper import ContainerStopper
from edgesite.edge.edged.together import together
from edgesite.kube.errors import ApiError

__all__ = ["PodWorker"]

ANNOUNCE_S: Final = 0.25  #: A look that takes longer than this tells of its progress before it ends.
TROUBLE_FIRST_S: Final = 1.0
TROUBLE_MOST_S: Final = 30.0
EXIT_CHECKS: Final = (
    8  #: How often a container that is said to have ended is looked at while the runtime still says it runs.
)
EXIT_FIRST_S: Final = 0.01


class PodWorker:
    """Its methods other than `run` never wait: they note what happened and wake the worker."""

    def __init__(self, services: PodServices, pod: Pod, *, known: bool) -> None:
        """``known``: the runtime may already hold something of this pod."""
        self.state = PodState(pod, services.clock.monotonic())
        self._services = services
        self._stopper = ContainerStopper(services)
        self._volumes = VolumesStage(services)
        self._containers = ContainersStage(services, self.wake, self._stopper)
        self._sandbox = SandboxStage(services)
        self._stages = (AdmissionStage(services), self._volumes, self._sandbox, self._containers)
        self._reporter = StatusReporter(services)
        self._probes = ProbeSet(services, self.state, self.wake)
        self._wake = anyio.Event()
        self._wake.set()
        self._stale = known
        self._ending = pod.deleting
        self._gone = False
        self._retry_at: float | None = None
        self._trouble_s = 0.0
        self._exits: dict[str, int] = {}
        self._seen_at: float | None = None if known else services.clock.monotonic()
        self._end_at: float | None = None
        self.done = False
        if pod.deleting:
            self.state.ending.set()
        if pod.status.get("startTime") or pod.status.get("phase") in FINAL_PHASES:
            self.state.reported = dict(pod.status)

    @property
    def ending(self) -> bool:
        return self._ending

    def wake(self) -> None:
        self._wake.set()

    def update(self, pod: Pod) -> None:
        """Take a newer version of the pod."""
        before, self.state.pod = self.state.pod, pod
        if pod.deleting:
            self._ending = True
            self.state.ending.set()
            self._stopper.hurry(pod.grace_s)
        else:
            self._hear_status(pod.status)
            if _wants_the_same(before, pod):
                return  # most often the echo of a status that was reported from here
        self._volumes.stale = True  # labels and annotations may be in its files
        self.wake()

    def _hear_status(self, told: Mapping[str, Any]) -> None:
        """Take notice of what others have written into the status, or this node before its store lost it."""
        if told.get("phase") in FINAL_PHASES and not is_over(self.state):
            # For good, as with kubelet: what has failed is not to run again, say after a power cut on a full disk.
            self.state.reported = dict(told)
            self.state.ending.set()
            self.wake()
        elif is_marked_not_ready(told, self.state.reported):
            self.report_again()

    def refresh(self) -> None:
        """Ask the runtime anew what there is of this pod."""
        self._stale = True
        self.wake()

    def listed(self, found: PodInventory | None) -> None:
        """The runtime was listed: ask it anew if that shows anything else than what is known here."""
        state = self.state
        known = [(one.id, one.state.value) for one in state.sandboxes]
        known += [(one.status.id, one.status.state.value) for one in state.containers.values()]
        if found is None or found.states() != frozenset(known):
            self.refresh()
        else:
            self.wake()  # what was known may not have been acted upon: a program that ended as soon as it was started

    def objects_changed(self) -> None:
        """A ConfigMap or Secret of this pod changed."""
        self._volumes.stale = True
        self.wake()

    def has(self, container_id: str) -> bool:
        """Whether this is one of the pod's containers, or a sandbox of it: a runtime tells of both alike."""
        state = self.state
        known = container_id in state.containers or container_id in state.made
        return known or any(one.id == container_id for one in state.sandboxes)

    def exited(self, container_id: str) -> None:
        """The runtime's events say that a container has ended; its lists may say so a little later."""
        self._exits[container_id] = 0
        self.refresh()

    def report_again(self) -> None:
        """Send the status at the next look even if it has not changed."""
        self._reporter.forget()
        self.wake()

    def mirrored(self, uid: str) -> None:
        """Report the status of this static pod as that of its mirror."""
        if self.state.mirror_uid != uid:
            self.state.mirror_uid = uid
            self.report_again()

    def terminate(self, why: Termination, grace_s: float | None = None) -> None:
        """Fail the pod and stop its containers; it stays until the cloud deletes it. ``grace_s`` shortens the pod's own."""
        if self.state.termination is not None or is_over(self.state) or self._ending:
            return
        self.state.termination = why
        self.state.ending.set()
        self._services.events.report(self.state.pod.reference(), WARNING, why.reason, why.message)
        if grace_s is not None:
            self._stopper.hurry(grace_s)
        self.wake()

    def end(self, *, gone: bool, grace_s: float | None = None) -> None:
        """Stop the pod. ``gone``: the cloud has forgotten it, so nobody is to be told."""
        self._ending = True
        self.state.ending.set()
        self._gone = self._gone or gone
        if grace_s is not None:
            self._stopper.hurry(grace_s)
        self.wake()

    async def run(self) -> None:
        """Work until the pod has ended."""
        while not self.done:
            await self._wait()
            self._wake = anyio.Event()
            self._retry_at = None
            try:
                await (self._end() if self._ending else self._look())
                self._trouble_s = 0.0
            except (RuntimeFault, ApiError, OSError) as exc:  # of the runtime, of metamanager, of this host
                self._try_later()
                self._services.log.warning("pod=%s uid=%s: %s", self.state.pod.key, self.state.pod.uid, exc)
            except asyncio.CancelledError:  # gRPC also raises it for a call of its own that was cancelled
                if is_being_cancelled():
                    raise
                self._try_later()
                self._services.log.warning(
                    "pod=%s uid=%s: a call was cancelled", self.state.pod.key, self.state.pod.uid
                )
            except Exception:  # a pod that trips over a fault of ours must not take the others with it
                self._try_later()
                self._services.log.exception("pod=%s uid=%s", self.state.pod.key, self.state.pod.uid)
        self._probes.stop()

    def _try_later(self) -> None:
        self._services.metrics.faults.inc()
        self._stale = True
        self._trouble_s = min(max(self._trouble_s * 2, TROUBLE_FIRST_S), TROUBLE_MOST_S)
        self._retry_in(self._trouble_s * (0.75 + self._services.random.random() / 2))

    async def _wait(self) -> None:
        timeout_s = None
        if self._retry_at is not None:
            timeout_s = max(self._retry_at - self._services.clock.monotonic(), 0.0)
        with anyio.move_on_after(timeout_s):
            await self._wake.wait()

    def _retry_in(self, seconds: float) -> None:
        at = self._services.clock.monotonic() + seconds
        self._retry_at = at if self._retry_at is None else min(at, self._retry_at)

    async def _look(self) -> None:
        """Take every step towards the wanted state that can be taken now."""
        state = self.state
        if self._stale:
            await self._refresh()
        self._check_deadline()
        failure: Exception | None = None
        if not is_over(state):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._announce)
                try:
                    await self._steps()
                except Exception as exc:  # told apart by type further up, so it must not become a group
                    failure = exc
                tasks.cancel_scope.cancel()
        if is_over(state) and any(state.running()):
            self._probes.stop()
            await self._containers.teardown(state)  # sidecars, or all of a pod that was ended early
        await self._read_messages()
        self._probes.follow()
        await self._reporter.report(state)
        self._note_start()
        self._check_deadline()
        if state.finished:
            self._probes.stop()
            await self._sandbox.stop(state)
            await self._volumes.let_go(state)
        if self._volumes.renew_at is not None:
            self._retry_in(max(self._volumes.renew_at - self._services.clock.monotonic(), 1.0))
        if failure is not None:
            raise failure

    def _check_deadline(self) -> None:
        """End a pod that has been active for longer than it may; else come back when that will be so."""
        state = self.state
        at = active_deadline(state.pod, state.reported.get("startTime") or "")
        if at is None or is_over(state):
            return
        left_s = at - self._services.clock.time()
        if left_s > 0:
            self._retry_in(left_s)
        else:
            self.terminate(
                Termination("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
            )

    def _note_start(self) -> None:
        """Measure the start of a pod that was new to the runtime, once all of its containers have run."""
        containers = self.state.pod.containers
        if self._seen_at is not None and all(self.state.latest(one["name"]) is not None for one in containers):
            self._services.metrics.pod_start.observe(self._services.clock.monotonic() - self._seen_at)
            self._seen_at = None

    async def _steps(self) -> None:
        try:
            for stage in self._stages:
                if stage is self._volumes:
                    self._containers.prefetch(self.state)
                await stage.setup(self.state)
                if self.state.rejection is not None or self._ending:
                    return
        except StageWait as wait:
            if wait.retry_s is not None:
                self._retry_in(wait.retry_s)

    async def _announce(self) -> None:
        await self._services.clock.sleep(ANNOUNCE_S)
        await self._reporter.report(self.state)

    async def _refresh(self) -> None:
        """Read from the runtime what there is of this pod."""
        runtime, state = self._services.runtime, self.state
        self._stale = state.unsure = False
        labels = {LABEL_POD_UID: state.pod.uid}
        sandboxes = await runtime.list_sandboxes(labels)
        listed = await runtime.list_containers(labels=labels)
        state.sandboxes = sorted(sandboxes, key=lambda one: (one.attempt, one.created_ns), reverse=True)
        kept = {one.id: one for one in listed}
        state.containers = {name: seen for name, seen in state.containers.items() if name in kept}
        state.made.clear()
        changed = [one for one in listed if not self._is_known(one)]
        await together(*(functools.partial(self._read, one) for one in changed))
        if state.sandbox is None:
            state.sandbox_config, state.ips = None, ()
        self._check_exits()

    def _is_known(self, row: ContainerInfo) -> bool:
        seen = self.state.containers.get(row.id)
        return seen is not None and seen.status.state is row.state and row.id not in self._exits

    async def _read(self, row: ContainerInfo) -> None:
        try:
            status = await self._services.runtime.container_status(row.id)
        except NotInRuntime:
            self.state.containers.pop(row.id, None)
            return
        self.state.containers[row.id] = Seen(status, row.sandbox_id)

    def _check_exits(self) -> None:
        for container_id, checks in tuple(self._exits.items()):
            if not self._seems_up(container_id) or checks >= EXIT_CHECKS:
                del self._exits[container_id]
                continue
            self._exits[container_id] = checks + 1
            self._stale = True
            self._retry_in(EXIT_FIRST_S * 2**checks)

    def _seems_up(self, container_id: str) -> bool:
        if (seen := self.state.containers.get(container_id)) is not None:
            return seen.status.state is not ContainerState.EXITED
        return any(one.id == container_id and one.state is SandboxState.READY for one in self.state.sandboxes)

    async def _read_messages(self) -> None:
        """Read the last words of containers that have just ended."""
        state = self.state
        for seen in tuple(state.containers.values()):
            status = seen.status
            if status.state is ContainerState.EXITED and status.id not in state.messages:
                state.messages[status.id] = await self._services.threads.run(termination_message, status)

    async def _end(self) -> None:
        """Stop everything, tell how it ended, remove it."""
        state, services = self.state, self._services
        if self._end_at is None:
            self._end_at = services.clock.monotonic()
        self._probes.stop()
        if self._stale or state.unsure:
            await self._refresh()
        await self._containers.teardown(state)
        await self._read_messages()
        # Releasing the network takes a runtime longer than all the rest, and nobody waits for it who waits for the pod's end.
        await together(functools.partial(self._sandbox.stop, state), self._tell_end)
        await together(*(functools.partial(services.runtime.remove_container, one) for one in tuple(state.containers)))
        state.containers.clear()
        await self._sandbox.teardown(state)
        # The last, so that after a crash there is something by which the rest is found (`leftovers`).
        await services.threads.run(_remove_logs, services.paths.pod_logs(state.pod), services.paths.log_links)
        self.done = True

    async def _tell_end(self) -> None:
        """With no container left: remove the pod's files, and let the cloud forget it. What is told twice does no harm."""
        state, services = self.state, self._services
        await together(
            self._tell_last_status,
            functools.partial(self._volumes.teardown, state),
        )
        for name in _container_names(state.pod):
            services.restarts.forget((state.pod.uid, name))
        state.released = True
        if not self._gone:
            await services.meta.confirm_deleted(state.pod.namespace, state.pod.name, state.pod.uid)
        if self._end_at is not None:
            services.metrics.pod_end.observe(services.clock.monotonic() - self._end_at)

    async def _tell_last_status(self) -> None:
        if not self._gone:
            await self._reporter.report(self.state, ended=True)


def _wants_the_same(one: Pod, other: Pod) -> bool:
    if other.spec.get("readinessGates"):
        return False  # these make the status itself part of what is wanted
    return one.spec == other.spec and one.labels == other.labels and one.annotations == other.annotations


def _container_names(pod: Pod) -> Iterable[str]:
    return (one["name"] for one in (*pod.init_containers, *pod.containers))


def _remove_logs(path: Path, links: Path | None) -> None:
    if links is not None:
        remove_links(links, path)
    shutil.rmtree(path, ignore_errors=True)
