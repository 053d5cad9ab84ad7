"""What pods need to know of the cluster beside the objects that they name: runtime classes, and where services are.

Only a cloud of ours answers for these. A cloud of another make knows nothing of them: there a runtime class stands for the handler of
its own name, and no services are told of. Without a link the last answer serves.

Errors  ClusterUnknown where a pod cannot be run without knowing.
State   The newest question about each namespace's services, for a moment: pods that start at the same time share its answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.kube.errors import ApiError

if TYPE_CHECKING:
    from edgesite.context import Clock
    from edgesite.edge.edged.objects import Objects

__all__ = ["ClusterFacts", "ClusterUnknown"]

FRESH_S: Final = 2.0  #: how long an answer serves other pods that were here when it was asked for
Object = Mapping[str, Any]


class ClusterUnknown(Exception):
    """The text is for the pod's events."""


class ClusterFacts:
    """``beside`` runs a function in a task of the module's. ``api``: the service that pods are told of in place of the cluster's API."""

    def __init__(self, objects: Objects, beside: Callable[..., None], clock: Clock, api: Object | None = None) -> None:
        self._api = api
        self._objects = objects
        self._beside = beside
        self._clock = clock
        self._asked: dict[str, _Question] = {}

    async def services(self, namespace: str, seen_at: float) -> Sequence[Object]:
        """Return the services that pods of a namespace are told of, as they are now if there is a link.

        ``seen_at`` (monotonic) is when the pod that asks came here: it is told of every service that was there before itself.
        """
        question = self._asked.get(namespace)
        if question is None or question.at <= seen_at:
            question = self._asked[namespace] = _Question(self._clock.monotonic())
            self._beside(self._ask, namespace, question)
        await question.answered.wait()
        if self._api is None:
            return question.found
        place = (self._api["namespace"], self._api["name"])
        return [*(one for one in question.found if (one.get("namespace"), one.get("name")) != place), self._api]

    async def _ask(self, namespace: str, question: _Question) -> None:
        try:
            found = await self._objects.newest("servicelist", namespace, namespace)
            question.found = (found or {}).get("items") or ()
        except ApiError:  # an older cloud of ours: pods start all the same
            question.found = ()
        finally:
            question.answered.set()
        try:
            await self._clock.sleep(FRESH_S)
        finally:
            if self._asked.get(namespace) is question:
                del self._asked[namespace]

    async def handler(self, runtime_class: str) -> str:
        """Return the runtime's own name for what a runtime class means; "" is its default. Raises ClusterUnknown."""
        if not runtime_class:
            return ""
        try:
            found = await self._objects.newest("runtimeclass", "", runtime_class)
        except ApiError as exc:
            raise ClusterUnknown(f'failed to get RuntimeClass "{runtime_class}": {exc.message}') from exc
        if found is not None:
            return str(found.get("handler") or "")
        if not self._objects.cloud_is_ours:
            return runtime_class
        raise ClusterUnknown(f'RuntimeClass.node.k8s.io "{runtime_class}" not found')


class _Question:
    def __init__(self, at: float) -> None:
        self.at = at
        self.found: Sequence[Object] = ()
        self.answered = anyio.Event()
