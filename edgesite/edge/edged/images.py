"""Getting images: present, pulled, or why not.

A pull runs beside the pod's worker, which is told how far it is and when it is over; the same image is pulled once at a time, whoever wants it.

Units   Seconds.
State   Back-off per image in memory; a pull that fails is tried again when its pod is looked at after the back-off.
Source  Kubernetes: "Images" (pull policies, ImagePullBackOff); reasons and texts as kubelet words them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.context import Clock
from edgesite.edge.edged.backoff import Backoff
from edgesite.edge.edged.events import NORMAL, WARNING, Events
from edgesite.edge.edged.imagenames import InvalidImageName, credentials, default_pull_policy, normalized
from edgesite.edge.edged.objects import Objects
from edgesite.edge.edged.pod import Pod
from edgesite.edge.edged.runtime import (
    Image,
    InvalidReference,
    PullProgress,
    RegistryAuth,
    Runtime,
    RuntimeFault,
    RuntimeUnavailable,
)
from edgesite.edge.edged.state import Waiting
from edgesite.kube.times import format_duration

if TYPE_CHECKING:
    from edgesite.edge.edged.credentialplugins import CredentialPlugins

__all__ = ["Images", "Pull"]

Say = Callable[[str, str, str], None]
PROGRESS_S: Final = 10.0  #: how often a pull that takes long says how far it is
MAX_PARALLEL: Final = 4  #: Pulls at once where the configuration does not want them one by one.
RETRY_S: Final = 10.0
UNAVAILABLE_S: Final = 0.5
FAILED_S: Final = 3.0  #: How long ErrImagePull is shown before ImagePullBackOff takes its place.


@dataclass(slots=True)
class Pull:
    """What one start of a container needs; `checked` is set as soon as it is known whether there is a wait."""

    reference: str
    changed: Callable[[], None]  #: called when there is anything new of it
    checked: anyio.Event = field(default_factory=anyio.Event)
    pulling: bool = False
    image: Image | None = None
    waiting: Waiting | None = None  #: why there is no image
    retry_at: float | None = None  #: monotonic: when another try makes sense
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    def abandon(self) -> None:
        """Nobody wants it any more: a pull that is under way ends, and lets the next one go."""
        self.scope.cancel()


class Images:
    """One for the node. ``beside(function, *args)`` starts a pull."""

    def __init__(
        self,
        runtime: Runtime,
        events: Events,
        objects: Objects,
        clock: Clock,
        beside: Callable[..., None],
        *,
        one_by_one: bool,
        plugins: CredentialPlugins | None = None,
    ) -> None:
        self._runtime, self._events, self._objects, self._clock, self._beside = runtime, events, objects, clock, beside
        self._plugins = plugins
        self._backoff: Backoff[str] = Backoff()
        self._failures: dict[str, tuple[float, str]] = {}  # reference -> when (monotonic), what was said
        self._limit = anyio.Semaphore(1 if one_by_one else MAX_PARALLEL)
        self._locks: dict[str, tuple[anyio.Lock, list[Pull]]] = {}
        self._under_way = 0  # pulls

    def request(self, pod: Pod, container: Mapping[str, Any], done: Callable[[], None]) -> Pull:
        """Begin to look for a container's image; ``done`` is called when a pull has got on, or is over."""
        pull = Pull(str(container.get("image", "")), done)
        self._beside(self._find, pod, container, pull)
        return pull

    async def _find(self, pod: Pod, container: Mapping[str, Any], pull: Pull) -> None:
        name = str(container["name"])

        def say(type: str, reason: str, message: str) -> None:
            self._events.report(pod.reference(), type, reason, message, name, member=pod.member_of(name))

        try:
            with pull.scope:
                await self._get(pod, container, pull, say)
        except (InvalidImageName, InvalidReference) as exc:
            text = f'Failed to apply default image tag "{pull.reference}": {exc}'
            pull.waiting = Waiting("InvalidImageName", text)
            say(WARNING, "InspectFailed", text)
            say(WARNING, "Failed", "Error: InvalidImageName")
        except RuntimeUnavailable:
            pull.retry_at = self._clock.monotonic() + UNAVAILABLE_S  # nothing is known of the image
        except RuntimeFault as exc:
            pull.waiting = Waiting("ImageInspectError", str(exc))
            pull.retry_at = self._clock.monotonic() + RETRY_S
        finally:
            pull.checked.set()
            if pull.pulling or pull.image is None:  # else whoever waited for the check goes on by itself
                pull.changed()

    async def _get(self, pod: Pod, container: Mapping[str, Any], pull: Pull, say: Say) -> None:
        reference = normalized(pull.reference)
        policy = container.get("imagePullPolicy") or default_pull_policy(pull.reference)
        if policy != "Always":
            pull.image = await self._runtime.image_status(reference)
            if pull.image is not None:
                pull.checked.set()
                say(NORMAL, "Pulled", f'Container image "{pull.reference}" already present on machine')
                return
        if policy == "Never":
            text = f'Container image "{pull.reference}" is not present with pull policy of Never'
            pull.waiting = Waiting("ErrImageNeverPull", text)
            pull.retry_at = self._clock.monotonic() + RETRY_S
            say(WARNING, "ErrImageNeverPull", text)
            say(WARNING, "Failed", "Error: ErrImageNeverPull")
            return
        if await self._held_back(reference, pull, say):
            return
        pull.pulling = True
        pull.checked.set()
        await self._pull(pod, reference, pull, say, policy)

    async def _held_back(self, reference: str, pull: Pull, say: Say) -> bool:
        failed_at, why = self._failures.get(reference, (0.0, ""))
        until = self._backoff.waits_until(reference, failed_at, self._clock.monotonic())
        if until is None:
            return False
        text = f'Back-off pulling image "{pull.reference}"'
        pull.waiting = Waiting("ImagePullBackOff", f"{text}: ErrImagePull: {why}" if why else text)
        pull.retry_at = until
        say(NORMAL, "BackOff", text)
        say(WARNING, "Failed", "Error: ImagePullBackOff")
        return True

    async def _pull(self, pod: Pod, reference: str, pull: Pull, say: Say, policy: str) -> None:
        lock, waiters = self._locks.setdefault(reference, (anyio.Lock(), []))
        waiters.append(pull)
        try:
            async with lock:
                if policy != "Always" and (image := await self._runtime.image_status(reference)) is not None:
                    pull.image = image  # somebody else's pull has brought it meanwhile
                    return
                say(NORMAL, "Pulling", f'Pulling image "{pull.reference}"')
                asked_at = self._clock.monotonic()
                async with self._limit:
                    began_at = self._clock.monotonic()
                    image_id = await self._fetch_telling(pod, reference, pull)
                image = await self._runtime.image_status(image_id or reference)
                if image is None:
                    raise RuntimeFault(f'image "{reference}" is gone after it was pulled')
                pull.image = image
                self._backoff.forget(reference)
                self._failures.pop(reference, None)
                now = self._clock.monotonic()
                took, waited = (format_duration(round(one, 3)) for one in (now - began_at, now - asked_at))
                say(
                    NORMAL,
                    "Pulled",
                    f'Successfully pulled image "{pull.reference}" in {took} ({waited} including waiting). '
                    f"Image size: {image.size_bytes} bytes.",
                )
        except RuntimeFault as exc:
            await self._failed(reference, pull, str(exc), say)
        finally:
            waiters.remove(pull)
            if not waiters:
                self._locks.pop(reference, None)

    async def _fetch_telling(self, pod: Pod, reference: str, pull: Pull) -> str:
        """Pull, and tell how far it is meanwhile. Raises RuntimeFault."""
        failure, image_id = None, ""
        self._under_way += 1
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._tell, pull)
                try:
                    image_id = await self._fetch(pod, reference)
                except RuntimeFault as exc:  # must not leave as part of a group
                    failure = exc
                tasks.cancel_scope.cancel()
        finally:
            self._under_way -= 1
        if failure is not None:
            raise failure
        return image_id

    async def _tell(self, pull: Pull) -> None:
        """Say in the status of the container how far its pull is, as long as it goes on."""
        # One of a plugin may be older than this question.
        ask: Callable[[], Awaitable[PullProgress | None]] | None = getattr(self._runtime, "pull_progress", None)
        while ask is not None:
            await self._clock.sleep(PROGRESS_S)
            try:
                found = await ask()
            except RuntimeFault:
                continue
            if found is None:
                return
            waiting = Waiting("ContainerCreating", _progress(pull.reference, found, alone=self._under_way == 1))
            if pull.waiting != waiting:
                pull.waiting = waiting
                pull.changed()

    async def _failed(self, reference: str, pull: Pull, why: str, say: Say) -> None:
        now = self._clock.monotonic()
        self._backoff.forget_before(now)
        self._failures = {name: one for name, one in self._failures.items() if self._backoff.delay_s(name)}
        self._backoff.next(reference, now)
        self._failures[reference] = (now, why)
        pull.waiting = Waiting("ErrImagePull", why)
        pull.retry_at = now + FAILED_S
        say(WARNING, "Failed", f'Failed to pull image "{pull.reference}": {why}')
        say(WARNING, "Failed", "Error: ErrImagePull")

    async def _fetch(self, pod: Pod, reference: str) -> str:
        """Pull with each credential that fits, at last without one. Raises RuntimeFault."""
        tries: list[RegistryAuth | None] = [*credentials(reference, iter(await self._pull_secrets(pod)))]
        if self._plugins is not None:
            tries += await self._plugins.credentials(reference)
        failure: RuntimeFault | None = None
        for auth in tries or [None]:
            try:
                return await self._runtime.pull_image(reference, auth)
            except RuntimeFault as exc:
                failure = exc
        assert failure is not None
        raise failure

    async def _pull_secrets(self, pod: Pod) -> list[Mapping[str, Any]]:
        names = [one.get("name", "") for one in pod.spec.get("imagePullSecrets") or ()]
        found = [await self._objects.get("secret", pod.namespace, name) for name in names if name]
        return [one for one in found if one is not None]


def _progress(reference: str, found: PullProgress, *, alone: bool) -> str:
    """A runtime tells of all pulls together."""
    what = f'image "{reference}"' if alone else f'image "{reference}" and others'
    here = f"{found.here_bytes / 1e6:.1f}"
    if not found.total_bytes:
        return f"Pulling {what}"
    return f"Pulling {what}: {here} of {found.total_bytes / 1e6:.1f} MB of the layers that are under way"
