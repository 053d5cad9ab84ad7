"""Leases between two ends of ours: an update that changes nothing but the time of renewal travels as that time alone.

    edge → cloud   renew   kube-node-lease/lease/<node>   [resourceVersion, renewTime]
    cloud → edge   response                               {"version": resourceVersion}      or an ObjectResp with its error

The modules of the edge know nothing of it: `Renewals` makes the short request of their update, and the full answer of the short one.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec.structs import replace

from edgesite.wire import resource
from edgesite.wire.message import Message, Operation

__all__ = ["RENEW", "Renewals"]

RENEW: Final = "renew"  #: the operation, and the feature's name
Object = dict[str, Any]


class Renewals:
    """The lease of one edge as the cloud last gave it."""

    __slots__ = ("_lease", "_renewing")

    def __init__(self) -> None:
        self._lease: Object | None = None  # without its time
        self._renewing: dict[str, Object] = {}  # msg_id -> the lease as the update would make it

    def request(self, message: Message) -> Message:
        """Return the message to send for ``message``."""
        if message.operation != Operation.UPDATE or resource.parse(message.resource).type != "lease":
            return message
        lease, held = message.content, self._lease
        if held is None or not isinstance(lease, dict) or _but_time(lease) != held:
            return message
        if not isinstance(lease["spec"].get("renewTime"), str) or not _version(lease):
            return message
        self._renewing[message.msg_id] = lease
        content = [_version(lease), lease["spec"].get("renewTime")]
        return replace(message, operation=RENEW, content=content)

    def answer(self, request: Message | None, message: Message) -> Message:
        """Return the answer as the modules expect it, and remember the lease."""
        if request is None or resource.parse(request.resource).type != "lease":
            return message
        lease = self._renewing.pop(request.msg_id, None)
        match message.content:
            case {"version": str(version)} if lease is not None:
                lease = {**lease, "metadata": {**lease["metadata"], "resourceVersion": version}}
                message = replace(message, content={"Object": lease, "Err": None})
                self._lease = _but_time(lease)
            case {"Object": dict(lease), "Err": None}:
                self._lease = _but_time(lease)
            case _:
                self._lease = None
        return message

    def given_up(self, msg_id: str) -> None:
        self._renewing.pop(msg_id, None)


def _but_time(lease: Object) -> Object | None:
    """A copy, for whoever asked may change what it got."""
    spec, metadata = lease.get("spec"), lease.get("metadata")
    if not isinstance(spec, dict) or not isinstance(metadata, dict):
        return None
    spec = {name: value for name, value in spec.items() if name != "renewTime"}
    return {**lease, "metadata": dict(metadata), "spec": spec}


def _version(lease: Object) -> str:
    return str(lease["metadata"].get("resourceVersion") or "")
