"""Init containers one after another, then the main ones; restarts with back-off; replacement of changed or unhealthy ones.

State   What ran before is read from the runtime: the number of an attempt is the container's restart count.
Source  Kubernetes: "Init Containers", "Container restart policy"; reasons and texts as kubelet words them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Final

from edgesite.edge.edged.adoption import ANNOTATION_SPEC, container_hash, is_wanted
from edgesite.edge.edged.containergc import made_before_ns, surplus
from edgesite.edge.edged.events import WARNING
from edgesite.edge.edged.lifecycle import has_ended, restarts
from edgesite.edge.edged.resize import Resizer
from edgesite.edge.edged.runtime import ContainerState, ContainerStatus
from edgesite.edge.edged.services import PodServices
from edgesite.edge.edged.starter import ContainerStarter
from edgesite.edge.edged.state import PodState, StageWait, Unhealthy, Waiting
from edgesite.edge.edged.status import init_done
from edgesite.edge.edged.stopper import ContainerStopper
from edgesite.edge.edged.together import together
from edgesite.kube.times import format_duration

__all__ = ["ContainersStage"]

LONG_RUN_S: Final = 600.0  #: After so long a run an end is not part of a crash loop.


class ContainersStage:
    def __init__(self, services: PodServices, wake: Callable[[], None], stopper: ContainerStopper) -> None:
        self._services = services
        self._starter = ContainerStarter(services, wake)
        self._stopper = stopper
        self._resizer = Resizer(services, stopper)
        self._wanted: dict[str, Mapping[str, Any]] = {}  # by container id: the spec that it was found to be made from
        self._due: list[float] = []  # monotonic: when something that had to wait is to be tried again

    def prefetch(self, state: PodState) -> None:
        """Look for the images that are needed first, while the sandbox is being made."""
        if state.containers or state.rejection is not None:
            return
        pod = state.pod
        for container in pod.init_containers[:1] or pod.containers:
            self._starter.want_image(state, container)

    async def setup(self, state: PodState) -> None:
        self._due = []
        await self._replace(state)
        await self._resizer.run(state, self._due.append)
        await self._ephemeral(state)
        if await self._init(state):
            await self._main(state)
        if self._due:
            now = self._services.clock.monotonic()
            raise StageWait("containers wait", max(min(self._due) - now, 0.01))

    async def teardown(self, state: PodState) -> None:
        """Stop what runs, the main containers before the sidecars that serve them."""
        self._starter.abandon_pulls()
        sidecars = [one["name"] for one in state.pod.init_containers]
        running = list(state.running())
        await self._stopper.stop_all(state, [one for one in running if one.name not in sidecars])
        for name in reversed(sidecars):  # a later sidecar may rely on an earlier one
            await self._stopper.stop_all(state, [one for one in running if one.name == name])

    async def _replace(self, state: PodState) -> None:
        """Stop running containers that changed or are unhealthy: they are started anew like any that ended.

        One of which the runtime cannot say what it does is removed, and made again under the same number.
        """
        specs = {one["name"]: one for one in (*state.pod.containers, *state.pod.init_containers)}
        doomed: list[tuple[ContainerStatus, Unhealthy]] = []
        for one in list(state.running()):
            if one.state is ContainerState.UNKNOWN:
                await self._stopper.discard(state, one)
                continue
            spec = specs.get(one.name)
            if spec is None or (
                one.name not in {c["name"] for c in state.pod.containers} and not state.pod.is_sidecar(spec)
            ):
                continue
            if not await self._is_wanted(one, spec):
                doomed.append((one, Unhealthy(f"Container {one.name} definition changed")))
            elif one.id in state.unhealthy:
                doomed.append((one, state.unhealthy[one.id]))
        await together(
            *(
                functools.partial(self._stopper.stop, state, one, f"{found.why}, will be restarted", found.grace_s)
                for one, found in doomed
            )
        )
        for one, _ in doomed:
            state.unhealthy.pop(one.id, None)
        self._wanted = {key: spec for key, spec in self._wanted.items() if key in state.containers}

    async def _is_wanted(self, one: ContainerStatus, spec: Mapping[str, Any]) -> bool:
        if self._wanted.get(one.id) == spec:
            return True
        if not await is_wanted(self._services.runtime, one, spec):
            return False
        self._wanted[one.id] = spec
        return True

    async def _init(self, state: PodState) -> bool:
        """Take the next step of the init containers; return whether the main ones may run."""
        pod = state.pod
        mains_exist = any(state.current(one["name"]) for one in pod.containers)
        for container in pod.init_containers:
            sidecar = pod.is_sidecar(container)
            if mains_exist and not sidecar:
                continue
            found = state.current(container["name"])
            if found is not None and found.state is ContainerState.RUNNING:
                if sidecar and state.started.get(found.id, True):
                    continue
                return mains_exist
            if found is not None and found.state is ContainerState.EXITED and not found.exit_code and not sidecar:
                continue
            await self._ensure(state, container, found, init=True)
            again = state.current(container["name"])
            up = again is not None and again.state is ContainerState.RUNNING
            if not (mains_exist or (sidecar and up and again is not None and state.started.get(again.id, True))):
                return False
        return mains_exist or init_done(state)

    async def _ephemeral(self, state: PodState) -> None:
        """Start the containers that somebody put into the running pod to look at it: each once, whatever becomes of it."""
        for container in state.pod.ephemeral_containers:
            found = state.latest(container["name"])
            never_ran = found is None and state.reported_restarts(container["name"]) < 0
            if never_ran or (found is not None and found.state is ContainerState.CREATED):
                await self._ensure(state, container, found, init=False)

    async def _main(self, state: PodState) -> None:
        steps: list[Callable[[], Any]] = []
        for container in state.pod.containers:
            found = state.current(container["name"])
            if found is None and has_ended(state, container):
                continue  # its work was done in a sandbox that is gone
            if found is None or found.state not in (ContainerState.RUNNING, ContainerState.UNKNOWN):
                steps.append(functools.partial(self._ensure, state, container, found, init=False))
        if any((one.get("lifecycle") or {}).get("postStart") for one in state.pod.containers):
            for step in steps:  # the next container starts when the hook of this one has ended
                await step()
        else:
            await together(*steps)

    async def _ensure(
        self, state: PodState, container: Mapping[str, Any], found: ContainerStatus | None, *, init: bool
    ) -> None:
        """Start a container that does not run, if it shall and may."""
        if state.ending.is_set():
            return  # told so while another container was being started
        name = container["name"]
        history = state.all_of(name)
        if found is not None and found.state is ContainerState.CREATED and name not in state.waiting:
            self._note_due(await self._starter.resume(state, container, found.id))
            return
        if found is not None and found.state is ContainerState.EXITED:
            if not restarts(state.pod, container, found, init=init):
                state.waiting.pop(name, None)
                return
            if self._held_back(state, container, found):
                return
        attempt = (history[0].attempt if history else state.reported_restarts(name)) + 1
        now = self._services.clock.time()
        due = await self._starter.start(state, container, attempt)
        self._note_due(due)
        latest = state.latest(name)
        if (
            latest is not None and latest.attempt == attempt
        ):  # else it still waits for its image, and has not been tried
            if found is not None and found.state is ContainerState.EXITED:
                self._services.restarts.next((state.pod.uid, name), now)
            self._forget_dead(state, name)

    def _note_due(self, due: float | None) -> None:
        if due is not None:
            self._due.append(due)

    def _held_back(self, state: PodState, container: Mapping[str, Any], ended: ContainerStatus) -> bool:
        """Whether the container crashes too often to be started now; says so in its status."""
        services, name = self._services, container["name"]
        key, now = (state.pod.uid, name), services.clock.time()
        made_from = ended.annotations.get(ANNOTATION_SPEC)
        if made_from is not None and made_from != container_hash(container):
            services.restarts.forget(key)  # what failed was another image
            return False
        ended_at = ended.finished_ns / 1e9 or ended.created_ns / 1e9
        ran_s = max(ended_at - ended.started_ns / 1e9, 0.0) if ended.started_ns else 0.0
        if ran_s >= LONG_RUN_S:
            services.restarts.forget(key)
            return False
        services.restarts.restore(key, ended.attempt, ended_at)
        until = services.restarts.waits_until(key, ended_at, now)
        if until is None:
            return False
        delay = format_duration(services.restarts.delay_s(key))
        text = f"back-off {delay} restarting failed container={name} pod={state.pod.name}_{state.pod.namespace}({state.pod.uid})"
        if state.waiting.get(name) != Waiting("CrashLoopBackOff", text):
            state.waiting[name] = Waiting("CrashLoopBackOff", text)
            said = f"Back-off restarting failed container {name} in pod {state.pod.name}_{state.pod.namespace}({state.pod.uid})"
            services.events.report(
                state.pod.reference(), WARNING, "BackOff", said, name, member=state.pod.member_of(name)
            )
        self._due.append(services.clock.monotonic() + until - now)
        return True

    def _forget_dead(self, state: PodState, name: str) -> None:
        """Let go of older ended containers, beside the pod's own work: nobody waits for that."""
        kept = self._services.settings.max_dead_containers
        for one in surplus(state.all_of(name), kept, made_before_ns(self._services)):
            state.containers.pop(one.id, None)
            state.messages.pop(one.id, None)
            self._services.beside(self._stopper.forget, one)
