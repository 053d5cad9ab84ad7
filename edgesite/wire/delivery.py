"""What a message of the cloud carries, and how it must be delivered.

    ObjectRef        which object a message is about: uid, version, kind, name
    object_of        reads it from a message
    needs_ack        whether the edge must confirm the message after it stored it
    version_number   resource versions as numbers that may be compared

Decided differently from KubeEdge, without effect on the wire of a Go edge:
  - the type word decides, not a substring, so that a pod called "membership-x" is delivered reliably;
  - answers to queries are sent once: whoever asked asks again. An acknowledgement of one is recorded all the same;
  - an object without a version is sent once instead of being dropped.

Source  KubeEdge v1.12.7, cloud/pkg/cloudhub/dispatcher and session.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from edgesite.wire import resource
from edgesite.wire.message import InvalidMessage, Message, Operation, error_status

__all__ = [
    "ObjectRef",
    "is_node_removal",
    "is_refused_for_good",
    "is_urgent",
    "needs_ack",
    "object_of",
    "version_number",
]

_ONCE_TYPES: Final = frozenset({"podlist", "serviceaccounttoken"})
_ONCE_OPERATIONS: Final = frozenset(
    {
        "applicationResponse",
        "controllerpublishvolume",
        "controllerunpublishvolume",
        "createvolume",
        "deletevolume",
        Operation.ERROR.value,
        Operation.KEEPALIVE.value,
        Operation.RESPONSE.value,
    }
)


class ObjectRef(msgspec.Struct, frozen=True):
    """The object of a message. ``version`` is 0 when unknown; ``namespace`` is "" for cluster-scoped objects."""

    uid: str
    version: int
    type: str
    namespace: str
    name: str
    api_version: str = ""
    kind: str = ""


def version_number(text: object) -> int:
    """Return a resourceVersion as a number; 0 for one that is missing or no number, which then counts as unknown."""
    return int(text) if isinstance(text, str) and text.isascii() and text.isdigit() else 0


def _metadata(content: Any) -> Mapping[str, Any]:
    metadata = content.get("metadata") if isinstance(content, dict) else None
    return metadata if isinstance(metadata, dict) else {}


def object_of(message: Message) -> ObjectRef | None:
    """Return the object in the content of a message, or None if it holds none that has a uid."""
    try:
        content = message.object()
    except InvalidMessage:
        return None
    metadata = _metadata(content)
    uid = metadata.get("uid")
    if not isinstance(uid, str) or not uid:
        return None
    path = resource.parse(resource.trim_node(message.resource))
    version = version_number(message.resource_version) or version_number(metadata.get("resourceVersion"))
    return ObjectRef(
        uid,
        version,
        path.type or str(content.get("kind") or "").lower(),
        str(metadata.get("namespace") or ""),  # not the path's: requests for nodes and volumes say "default" there
        path.name or str(metadata.get("name") or ""),
        str(content.get("apiVersion") or ""),
        str(content.get("kind") or ""),
    )


def needs_ack(message: Message) -> bool:
    """Whether the edge must confirm this message; if not, it is sent once.

    Takes the resource with or without the node in front.
    """
    if message.operation in _ONCE_OPERATIONS or message.group != "resource":
        return False
    wire = resource.trim_node(message.resource)
    if wire.startswith("membership") or wire.endswith("/twin/cloud_updated"):
        return False
    return resource.parse(wire).type not in _ONCE_TYPES


def is_urgent(message: Message) -> bool:
    """Whether it tells of the end of an object, so that it must not wait behind a bulk of others."""
    return message.operation == Operation.DELETE or bool(_metadata(message.content).get("deletionTimestamp"))


def is_node_removal(message: Message) -> bool:
    """Whether the node itself was deleted: the session ends and nothing is sent."""
    if message.operation != Operation.DELETE:
        return False
    path = resource.parse(resource.trim_node(message.resource))
    return path.type == "node" and path.name == resource.node_of(message.resource)


def is_refused_for_good(message: Message) -> bool:
    """Whether an error of an edge says that repeating the very same message cannot help: it cannot be read."""
    if message.operation != Operation.ERROR:
        return False
    status = error_status(message.content)
    return status is not None and status.get("reason") in ("BadRequest", "Gone", "Invalid")
