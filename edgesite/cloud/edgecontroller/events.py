"""Events of edges, written to the API: new ones are created, repeated ones counted up.

Source  KubeEdge v1.19, cloud/pkg/edgecontroller/controller/upstream.go: content is the Event, or {"event": ..., "patchData": "..."}.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from edgesite.kube import json
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import EVENTS
from edgesite.wire.message import InvalidMessage, Message, Operation

if TYPE_CHECKING:
    from edgesite.client import Client

__all__ = ["write_event"]

_REPEATED: Final = ("count", "firstTimestamp", "lastTimestamp", "message", "series")


async def write_event(client: Client, namespace: str, name: str, message: Message) -> None:
    """Create the event or bring it up to date. Raises ApiError, InvalidMessage."""
    content = message.object()
    event, patch = content, None
    if "patchData" in content:
        event = content.get("event") or {}
        patch = _loads(str(content["patchData"]))
    metadata = {**(event.get("metadata") or {}), "name": name, "namespace": namespace}
    metadata.pop("resourceVersion", None)
    event = {**event, "kind": "Event", "apiVersion": "v1", "metadata": metadata}
    if patch is None:
        patch = {member: event[member] for member in _REPEATED if event.get(member) is not None}
    if message.operation == Operation.INSERT:
        try:
            await client.create(EVENTS, event)
        except ApiError as exc:
            if exc.reason != "AlreadyExists":
                raise
            await client.patch(EVENTS, name, patch, namespace)
        return
    try:
        await client.patch(EVENTS, name, patch, namespace)
    except ApiError as exc:
        if exc.reason != "NotFound":
            raise
        await client.create(EVENTS, event)


def _loads(text: str) -> Any:
    try:
        return json.loads(text)
    except json.InvalidJson as exc:
        raise InvalidMessage(f"the patch of an event is not JSON: {exc}") from exc
