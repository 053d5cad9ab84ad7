"""Connections into pods: exec, attach, port-forward. The client's upgrade is handed on to the node as it is, and its answer back.

Nothing is translated here: SPDY or WebSocket bytes pass through unchanged, and the node's kubelet API speaks both. So the cloud
spends nothing on frames, an edge of any make answers in its own words, and kubectl falls back from WebSocket to SPDY by itself where an
older edge declines the former.

Errors  ApiError before the upgrade; a node that declines is answered with its own status and text.
State   None; each connection belongs to one request until it is joined.
Source  API reference: Pod connect operations and their options; kubelet API ``/exec``, ``/attach``, ``/portForward``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from edgesite.apiserver.logs import NodeRoads
from edgesite.kube import errors, json
from edgesite.kube.options import WriteOptions
from edgesite.kube.podconnect import stream_target
from edgesite.net.handover import join, upgrade_headers

if TYPE_CHECKING:
    from edgesite.apiserver.call import Call
    from edgesite.apiserver.registry import Registry
    from edgesite.apiserver.writes import Writes
    from edgesite.net.http import Response

__all__ = ["Connections"]

_KINDS: Final = {"exec": "PodExecOptions", "attach": "PodAttachOptions", "portforward": "PodPortForwardOptions"}


class Connections:
    """Answers for the subresources exec, attach and portforward of pods."""

    def __init__(self, registry: Registry, writes: Writes, roads: NodeRoads) -> None:
        self._registry = registry
        self._writes = writes
        self._roads = roads

    async def answer(self, call: Call) -> Response | None:
        """Run a command in a container, join the streams of its main process, or carry connections to its ports. Raises ApiError."""
        pod = self._pod(call)
        query = call.request.query if call.request.raw_query else {}
        target, options = stream_target(pod, call.route.subresource, query)
        return await self._connect(call, pod, target, options)

    def _pod(self, call: Call) -> dict[str, Any]:
        """Raises ApiError."""
        row = self._registry.row(call.kind, call.route.namespace, call.route.name)
        pod: dict[str, Any] = json.loads(row.value)
        if not (pod.get("spec") or {}).get("nodeName"):
            raise errors.bad_request(f"pod {call.route.name} does not have a host assigned")
        return pod

    async def _connect(
        self, call: Call, pod: Mapping[str, Any], target: str, options: dict[str, Any]
    ) -> Response | None:
        """Raises ApiError."""
        headers = upgrade_headers(call.request)
        if "upgrade" not in headers:
            raise errors.bad_request("Upgrade request required")
        await self._admit(call, options)
        stream = await self._roads.open(pod["spec"]["nodeName"], call.request.method, target, headers)
        return await join(call.request, stream)

    async def _admit(self, call: Call, options: dict[str, Any]) -> None:
        """Ask admission plugins about the operation CONNECT. Raises ApiError."""
        write = self._writes.begin(call, WriteOptions())
        write.operation = "CONNECT"
        obj = {"kind": _KINDS[call.route.subresource], "apiVersion": "v1", **options}
        await self._registry.admissions.mutate(write, obj, None)
        await self._registry.admissions.validate(write, obj, None)
