"""Pods of a run: made through the API, watched until they run, changed, removed; with the time of each step.

Errors  ApiError; TimeoutError when the pods do not come to what is waited for in time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.cli.edgemark.measure import PodTimes
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import NAMESPACES, PODS, SERVICE_ACCOUNTS

if TYPE_CHECKING:
    from edgesite.client import Client
    from edgesite.context import Clock

__all__ = ["NAMESPACE", "Pods"]

NAMESPACE: Final = "edgemark"
_AT_ONCE: Final = 32
_POLL_S: Final = 0.05


class Pods:
    """All pods of a run, in a namespace of their own."""

    def __init__(self, client: Client, clock: Clock, started: dict[str, float]) -> None:
        self.times = PodTimes(run=started)
        self.failed = 0
        self._client = client
        self._clock = clock

    async def prepare(self) -> None:
        """Make the namespace, and the service account if nobody else does."""
        metadata: dict[str, Any] = {"name": NAMESPACE}
        await _create(self._client, NAMESPACES, {"kind": "Namespace", "apiVersion": "v1", "metadata": metadata})
        metadata = {"name": "default", "namespace": NAMESPACE}
        account = {"kind": "ServiceAccount", "apiVersion": "v1", "metadata": metadata}
        await _create(self._client, SERVICE_ACCOUNTS, account)

    async def watch(self, ready: Callable[[], None]) -> None:
        """Note when pods are seen bound and running, until cancelled."""
        listed = await self._client.list(PODS, NAMESPACE)
        version = listed["metadata"]["resourceVersion"]
        async with self._client.watch(PODS, NAMESPACE, resource_version=version) as events:
            ready()
            async for event in events:
                pod, now = event.object, self._clock.monotonic()
                name = pod["metadata"]["name"]
                if (pod.get("spec") or {}).get("nodeName"):
                    self.times.schedule.setdefault(name, now)
                    self.times.uid.setdefault(name, pod["metadata"]["uid"])
                if (pod.get("status") or {}).get("phase") == "Running":
                    self.times.watch.setdefault(name, now)

    async def create(self, nodes: list[str], per_node: int, *, schedule: bool = False) -> float:
        """Make ``per_node`` pods for each node; returns when the first was asked for."""
        began = self._clock.monotonic()
        await self._each(
            [(f"{node}-{at}", node) for at in range(per_node) for node in nodes], self._create_one(schedule)
        )
        return began

    def _create_one(self, schedule: bool) -> Callable[[tuple[str, str]], Any]:
        async def create(one: tuple[str, str]) -> None:
            name, node = one
            spec: dict[str, Any] = {"containers": [{"name": "app", "image": "hollow/app:1"}]}
            spec |= {"nodeSelector": {"edgesite.kubeedge.io/hollow": "true"}} if schedule else {"nodeName": node}
            metadata = {"name": name, "namespace": NAMESPACE, "labels": {"app": "edgemark"}}
            self.times.create[name] = self._clock.monotonic()
            await self._client.create(PODS, {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": spec})

        return create

    async def annotate(self, value: str, names: Iterable[str] | None = None) -> None:
        """Change all pods once, or those of ``names``."""

        async def change(name: str) -> None:
            await self._client.patch(PODS, name, {"metadata": {"annotations": {"edgemark": value}}}, NAMESPACE)

        await self._each(list(self.times.create if names is None else names), change)

    async def remove(self) -> None:
        await self._client.delete_collection(PODS, NAMESPACE)

    async def _each(self, items: list[Any], work: Callable[[Any], Any]) -> None:
        places = anyio.Semaphore(_AT_ONCE)

        async def one(item: Any) -> None:
            try:
                await work(item)
            except ApiError:
                self.failed += 1
            finally:
                places.release()

        async with anyio.create_task_group() as tasks:
            for item in items:
                await places.acquire()
                tasks.start_soon(one, item)

    async def until(self, condition: Callable[[], bool], deadline_s: float) -> float:
        """Wait; returns the time at which the condition was found true. Raises TimeoutError."""
        with anyio.fail_after(deadline_s):
            while not condition():
                await self._clock.sleep(_POLL_S)
        return self._clock.monotonic()


async def _create(client: Client, kind: Any, obj: dict[str, Any]) -> None:
    try:
        await client.create(kind, obj)
    except ApiError as exc:
        if exc.reason != "AlreadyExists":
            raise
