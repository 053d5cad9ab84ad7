"""Whole statuses, as edges older than KubeEdge v1.12 report them; newer ones send patches.

    <ns>/nodestatus/<node>     insert: a Node; update: {"UID", "Status", "ExtendResources"} or a Node
    <ns>/podstatus[/<pod>]     update: {"UID", "Name", "Status"}, or an array of these

Errors  ApiError of the API, InvalidMessage for content of another shape.
Source  KubeEdge v1.12.7, cloud/pkg/edgecontroller/controller/upstream.go.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgesite.cloud.edgecontroller.authorize import node_metadata
from edgesite.kube import json, resources
from edgesite.kube.errors import ApiError
from edgesite.wire.message import InvalidMessage, Message

if TYPE_CHECKING:
    from edgesite.client import Client

__all__ = ["PodReport", "create_or_report_node", "pod_reports", "report_node", "report_pod"]

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PodReport:
    """The status of one pod as an edge told it. ``uid`` is "" if it told none."""

    name: str
    uid: str
    status: Object


async def create_or_report_node(client: Client, node: str, message: Message) -> None:
    """Create the Node of the message; if it is there, take its status."""
    content = message.object()
    metadata = {**node_metadata(content.get("metadata") or {}), "name": node}
    try:
        await client.create(resources.NODES, {**content, "kind": "Node", "apiVersion": "v1", "metadata": metadata})
    except ApiError as exc:
        if exc.reason != "AlreadyExists":
            raise
        await report_node(client, node, message)


async def report_node(client: Client, node: str, message: Message) -> None:
    """Write a node's status. Attached volumes and a kubelet port that is set belong to others and stay."""
    content = message.object()
    status = content.get("Status") or content.get("status")
    if not isinstance(status, dict):
        raise InvalidMessage(f"no status in {message.resource}")
    live = (await client.get(resources.NODES, node)).get("status") or {}
    status = {name: value for name, value in status.items() if name != "volumesAttached"}
    if ((live.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port"):
        status.pop("daemonEndpoints", None)
    await client.patch(resources.NODES, node, {"status": status}, kind="strategic", subresource="status")


def pod_reports(name: str, message: Message) -> list[PodReport]:
    """Read one report, or the many that a message without a pod's name holds. Raises InvalidMessage."""
    content = message.content
    if isinstance(content, str | bytes):
        try:
            content = json.loads(content)
        except json.InvalidJson as exc:
            raise InvalidMessage(f"the status in {message.resource} is not JSON: {exc}") from exc
    rows = content if isinstance(content, list) else [content]
    found = []
    for row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("Status"), dict):
            raise InvalidMessage(f"no pod status in {message.resource}")
        pod = name or row.get("Name")
        if not isinstance(pod, str) or not pod:
            raise InvalidMessage(f"a pod status without a name in {message.resource}")
        found.append(PodReport(pod, str(row.get("UID") or ""), row["Status"]))
    return found


async def report_pod(
    client: Client, namespace: str, report: PodReport, remove: Callable[[str, str], Awaitable[None]]
) -> None:
    """Write a pod's status. ``remove(name, uid)`` tells the edge that the pod is gone, or is another one by now."""
    try:
        live = await client.get(resources.PODS, report.name, namespace)
    except ApiError as exc:
        if exc.reason != "NotFound":
            raise
        await remove(report.name, report.uid)
        return
    if report.uid and live["metadata"].get("uid") != report.uid:
        await remove(report.name, report.uid)
        return
    patch = {"metadata": {"uid": live["metadata"].get("uid")}, "status": report.status}
    await client.patch(resources.PODS, report.name, patch, namespace, kind="strategic", subresource="status")
