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
from urllib.parse import quote, urlencode

from edgesite.apiserver.handover import join, upgrade_headers
from edgesite.apiserver.logs import NodeRoads, container_of
from edgesite.kube import errors, json
from edgesite.kube.options import WriteOptions

if TYPE_CHECKING:
    from edgesite.apiserver.call import Call
    from edgesite.apiserver.registry import Registry
    from edgesite.apiserver.writes import Writes
    from edgesite.net.http import Response

__all__ = ["Connections"]

_STREAMS: Final = (("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty"))
_KINDS: Final = {"exec": "PodExecOptions", "attach": "PodAttachOptions", "portforward": "PodPortForwardOptions"}


class Connections:
    """Answers for the subresources exec, attach and portforward of pods."""

    def __init__(self, registry: Registry, writes: Writes, roads: NodeRoads) -> None:
        self._registry = registry
        self._writes = writes
        self._roads = roads

    async def exec(self, call: Call) -> Response | None:
        """Run a command in a container. Raises ApiError."""
        command = self._query(call).get("command", [])
        if not command:
            raise errors.bad_request("you must specify at least 1 command for the container")
        return await self._into_container(call, "exec", [("command", one) for one in command])

    async def attach(self, call: Call) -> Response | None:
        """Join the streams of a container's main process. Raises ApiError."""
        return await self._into_container(call, "attach", [])

    async def port_forward(self, call: Call) -> Response | None:
        """Carry connections to ports of a pod. Raises ApiError."""
        pod = self._pod(call)
        ports = [one for value in self._query(call).get("ports", []) for one in value.split(",") if one]
        if any(not one.isdigit() or not 1 <= int(one) <= 65535 for one in ports):
            raise errors.bad_request("query parameter `ports` must hold port numbers")
        target = f"/portForward/{call.route.namespace}/{call.route.name}"
        if ports:
            target += "?" + urlencode([("port", one) for one in ports])
        return await self._connect(call, pod, target, {"ports": [int(one) for one in ports]})

    async def _into_container(self, call: Call, what: str, more: list[tuple[str, str]]) -> Response | None:
        """Raises ApiError."""
        pod, query = self._pod(call), self._query(call)
        container = container_of(pod, query.get("container", [""])[0])
        wanted = {name: query.get(name, ["false"])[0].lower() in ("true", "1", "t") for name, _ in _STREAMS}
        if what == "attach" and not any(name in query for name in ("stdin", "stdout", "stderr")):
            wanted |= {"stdout": True, "stderr": True}  # the API's defaults
        if wanted["tty"]:
            wanted["stderr"] = False  # a terminal has one output
        if not (wanted["stdin"] or wanted["stdout"] or wanted["stderr"]):
            raise errors.bad_request("you must specify at least one of stdin, stdout, stderr")
        pairs = [(node_name, "1") for name, node_name in _STREAMS if wanted[name]]
        target = f"/{what}/{call.route.namespace}/{call.route.name}/{quote(container)}?{urlencode(pairs + more)}"
        options = {"container": container, "command": [value for _, value in more], **wanted}
        return await self._connect(call, pod, target, options)

    def _pod(self, call: Call) -> dict[str, Any]:
        """Raises ApiError."""
        row = self._registry.row(call.kind, call.route.namespace, call.route.name)
        pod: dict[str, Any] = json.loads(row.value)
        if not (pod.get("spec") or {}).get("nodeName"):
            raise errors.bad_request(f"pod {call.route.name} does not have a host assigned")
        return pod

    def _query(self, call: Call) -> dict[str, list[str]]:
        return call.request.query if call.request.raw_query else {}

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
