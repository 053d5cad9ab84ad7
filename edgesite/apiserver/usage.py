"""metrics.k8s.io: what nodes and pods use now, asked of the nodes themselves: `kubectl top` without a metrics-server.

Units   CPU in nanocores, memory in KiB, as metrics-server tells them.
Errors  ApiError 404 for what has no figures: a node out of reach, a pod that does not run.
State   The last answer of each node, for `FRESH_S`; nodes that are gone are forgotten.
Source  Metrics API v1beta1 (NodeMetrics, PodMetrics); kubelet's /stats/summary.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.apiserver.call import answer
from edgesite.kube import errors, json
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import NODES, PODS, Resource
from edgesite.kube.selectable import parse_labels
from edgesite.kube.usage import GROUP, ROWS, node_metrics, pod_metrics

if TYPE_CHECKING:
    from edgesite.apiserver.call import Call
    from edgesite.apiserver.logs import NodeRoads
    from edgesite.apiserver.registry import Registry
    from edgesite.context import Clock
    from edgesite.net.http import Response

__all__ = ["GROUP", "ROWS", "Usage"]

Object = dict[str, Any]
FRESH_S: Final = 10.0
NODE_S: Final = 8.0  #: for a node to answer; kubectl waits for all
AT_ONCE: Final = 32
SUMMARY_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Known:
    at_s: float
    summary: Object


class Usage:
    """Answers for the group's kinds."""

    def __init__(self, registry: Registry, roads: NodeRoads, clock: Clock) -> None:
        self._registry = registry
        self._roads = roads
        self._clock = clock
        self._known: dict[str, _Known] = {}

    async def answer(self, call: Call) -> Response:
        """Raises ApiError."""
        of_nodes = call.kind.resource.plural == NODES.plural
        items = await (self._nodes(call) if of_nodes else self._pods(call))
        row = call.kind.resource
        if call.verb == "get":
            if not items:
                raise errors.not_found(row.plural, call.route.name, GROUP)
            return answer(call.request, json.dumps({"kind": row.kind, "apiVersion": row.api_version, **items[0]}))
        body = {"kind": row.list_name, "apiVersion": row.api_version, "metadata": {}, "items": items}
        return answer(call.request, json.dumps(body))

    async def _nodes(self, call: Call) -> list[Object]:
        nodes = {one["metadata"]["name"]: one for one in self._chosen(call, NODES)}
        found = await self._summaries(nodes)
        items = [node_metrics(nodes[name]["metadata"], found[name]) for name in nodes if name in found]
        return [one for one in items if one is not None]

    async def _pods(self, call: Call) -> list[Object]:
        pods = {one["metadata"]["uid"]: one for one in self._chosen(call, PODS) if one["spec"].get("nodeName")}
        found = await self._summaries({one["spec"]["nodeName"] for one in pods.values()})
        items = []
        for summary in found.values():
            for told in summary.get("pods") or ():
                pod = pods.get(told["podRef"]["uid"])
                one = pod_metrics(pod["metadata"], told) if pod is not None else None
                if one is not None:
                    items.append(one)
        return sorted(items, key=lambda one: (one["metadata"]["namespace"], one["metadata"]["name"]))

    def _chosen(self, call: Call, resource: Resource) -> list[Object]:
        """The objects that the call is about. Raises ApiError."""
        kind, route = self._registry.kinds.of(resource), call.route
        if call.verb == "get":
            return [json.loads(self._registry.row(kind, route.namespace, route.name).value)]
        query = call.request.query if call.request.raw_query else {}
        labels = parse_labels(query.get("labelSelector", [""])[0])
        rows = self._registry.store.list(kind.collection(route.namespace)).rows
        objects = (json.loads(row.value) for row in rows)
        return [one for one in objects if labels.matches(one["metadata"].get("labels") or {})]

    async def _summaries(self, nodes: Iterable[str]) -> dict[str, Object]:
        """Return what each node tells; those that do not answer are left out."""
        served = self._registry.store.list(self._registry.kinds.of(NODES).prefix).rows
        names = {row.key.rpartition("/")[2] for row in served}
        self._known = {name: one for name, one in self._known.items() if name in names}
        found: dict[str, Object] = {}
        limit = anyio.CapacityLimiter(AT_ONCE)

        async def ask(node: str) -> None:
            async with limit:
                summary = await self._summary(node)
            if summary is not None:
                found[node] = summary

        async with anyio.create_task_group() as tasks:
            for node in nodes:
                tasks.start_soon(ask, node)
        return found

    async def _summary(self, node: str) -> Object | None:
        now = self._clock.monotonic()
        known = self._known.get(node)
        if known is not None and now - known.at_s < FRESH_S:
            return known.summary
        try:
            with anyio.fail_after(NODE_S):
                summary = await self._ask(node)
        except (ApiError, OSError, ValueError):
            return None
        self._known[node] = _Known(now, summary)
        return summary

    async def _ask(self, node: str) -> Object:
        """Raises ApiError, OSError, ValueError."""
        stream = await self._roads.open(node, "GET", "/stats/summary")
        try:
            body = b""
            async for chunk in stream:
                body += chunk
                if len(body) > SUMMARY_BYTES:
                    raise ValueError("the summary is too long")
        finally:
            await stream.close()
        summary = json.loads(body) if stream.status == 200 else None
        if not isinstance(summary, dict) or not isinstance(summary.get("node"), dict):
            raise ValueError("this is no summary")
        return summary
