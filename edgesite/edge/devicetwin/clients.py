"""What clients publish: questions, twin updates, states, attributes.

    $hw/events/device/ID/twin/update, twin/get, twin/cloud_updated, state/update, updated
    $hw/events/node/NODE/membership/get

ID is a name, or namespace/name. Topics of other shapes are left alone. KubeEdge's edge would take ``membership/updated`` and
``membership/detail/result``, too, but listens to neither: which devices there are is not for clients to say.

Errors  None: who asks is answered with an error in KubeEdge's words. What is left without an answer there is here, too, and counted.
Source  KubeEdge v1.12, edge/pkg/devicetwin/process.go and /dtmanager.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from edgesite.edge.devicetwin import texts, updates
from edgesite.edge.devicetwin.membership import Membership
from edgesite.edge.devicetwin.payloads import (
    InTwin,
    Refused,
    check_syntax,
    read_event,
    read_state,
    read_update,
)
from edgesite.edge.devicetwin.publishing import DEVICE_PREFIX, NODE_PREFIX, Publishing, form_of
from edgesite.edge.devicetwin.state import DELETED, FULL, Device, Registry
from edgesite.edge.devicetwin.turn import Turn
from edgesite.kube.errors import ApiError, invalid, not_found

__all__ = ["STATES", "UNKNOWN", "Clients"]

STATES: Final = frozenset({"online", "offline", "ok", "unknown", "disconnected", "unhealthy"})
_SEEN_S: Final = 60.0  #: a device that says again and again that it is online is written down this often
UNKNOWN: Final = "update rejected due to the device is not existed"
Count = Callable[[str], None]


class Clients:
    """``count(what)`` counts what is refused or left alone."""

    def __init__(self, registry: Registry, membership: Membership, publishing: Publishing, count: Count) -> None:
        self._registry = registry
        self._membership = membership
        self._publishing = publishing
        self._count = count
        self._seen: dict[Device, float] = {}
        self._works: dict[str, Callable[[Turn, str, bytes], None]] = {
            "twin/update": self._update,
            "twin/get": self._get,
            "twin/cloud_updated": self._cloud_updated,
            "state/update": self._state,
            "updated": self._attributes,
        }

    def publication(self, turn: Turn, topic: str, payload: bytes) -> None:
        """Take what a client has published."""
        if topic.startswith(DEVICE_PREFIX):
            parts = topic[len(DEVICE_PREFIX) :].split("/")
            for width in (1, 2):
                work = self._works.get("/".join(parts[width:]))
                if work is not None and all(parts[:width]):
                    work(turn, "/".join(parts[:width]), payload)
                    return
        elif topic.startswith(NODE_PREFIX) and topic.endswith("/membership/get"):
            self._members(turn, payload)
            return
        self._count("topic")

    # -- twins ---------------------------------------------------------------------------------------------------

    def _update(self, turn: Turn, id_text: str, payload: bytes) -> None:
        try:
            update = read_update(payload)
            check_syntax(update)
        except Refused as exc:
            self._count("malformed")
            self._publishing.unreadable(turn, id_text, "twin/update", exc.code, exc.reason)
            return
        try:
            self.local(turn, id_text, update.twin or {}, update.event_id)
        except Refused as exc:
            self.refused(turn, id_text, update.event_id, exc)

    def refused(self, turn: Turn, id_text: str, event: str, why: Refused) -> None:
        """Answer an update that was not taken."""
        self._count("refused")
        self._publishing.error(turn, id_text, "twin/update", event, why.code, why.reason)

    def id_of(self, device: Device) -> str:
        """The id under which a device is spoken of where nobody has asked."""
        return self._publishing.ids(device)[0]

    def local(
        self, turn: Turn, id_text: str, twins: Mapping[str, InTwin | None], event: str, *, heard: bool = True
    ) -> Device:
        """Take an update, and tell what came of it. ``heard``: it came on a topic with this id. Raises Refused."""
        device = self._registry.find(id_text)
        if device is None:
            raise Refused(404, UNKNOWN)
        if heard:
            device.forms |= form_of(id_text)
        changes = updates.local(turn, device, twins, self._membership.rules(device))
        turn.asked.append((id_text, event))
        self._publishing.result(turn, id_text, event, changes)
        self._publishing.changed(turn, device, event, changes, id_text)
        return device

    def _get(self, turn: Turn, id_text: str, payload: bytes) -> None:
        try:
            event = read_event(payload).event_id
        except Refused as exc:
            self._count("malformed")
            self._publishing.unreadable(turn, id_text, "twin/get", exc.code, exc.reason)
            return
        device = self._registry.find(id_text)
        if device is None:
            reason = f"Device {id_text} not found while getting twin"
            self._publishing.error(turn, id_text, "twin/get", event, 404, reason)
            return
        device.forms |= form_of(id_text)
        twins = {name: texts.twin_json(one) for name, one in device.twins.items() if one.type != DELETED}
        topic = f"{DEVICE_PREFIX}{id_text}/twin/get/result"
        turn.published.append((topic, texts.result(event, turn.now_ms, twins)))

    def _cloud_updated(self, turn: Turn, id_text: str, payload: bytes) -> None:
        self._membership.twins_told(turn, id_text, payload)

    # -- states and attributes -----------------------------------------------------------------------------------

    def _state(self, turn: Turn, id_text: str, payload: bytes) -> None:
        try:
            said = read_state(payload).state
            self.state(turn, id_text, said)
        except Refused:
            self._count("malformed")
        except ApiError:
            self._count("refused")  # KubeEdge answers neither

    def state(self, turn: Turn, id_text: str, said: str, *, heard: bool = True) -> None:
        """Take a device's state. Raises ApiError."""
        device = self._registry.find(id_text)
        if device is None:
            raise not_found("devices", id_text, "devices.kubeedge.io")
        if said.lower() not in STATES:
            cause = {"reason": "FieldValueInvalid", "message": f"no state: {said[:80]!r}", "field": "state"}
            raise invalid("Device", device.name, [cause], "devices.kubeedge.io")
        form = form_of(id_text)
        if heard:
            device.forms |= form
        self._take_state(turn, device, said)
        topic = f"{DEVICE_PREFIX}{id_text}/state/update/result"
        text = texts.state(self._publishing.new_id(), turn.now_ms, device, full=form == FULL)
        turn.published.append((topic, text))

    def _take_state(self, turn: Turn, device: Device, said: str) -> None:
        now_s = turn.now_ms / 1000
        old = device.state, device.last_online
        is_up = said.lower() in ("online", "ok")
        news = said != device.state
        if not news and (not is_up or 0 <= now_s - self._seen.get(device, -_SEEN_S) < _SEEN_S):
            return
        device.state = said
        if is_up:
            device.last_online = texts.rfc3339(now_s)
            self._seen[device] = now_s
        else:
            self._seen.pop(device, None)

        def back() -> None:
            device.state, device.last_online = old
            self._seen.pop(device, None)

        turn.on_undo(back)
        turn.devices[device] = None
        turn.states.append(device)

    def forget(self, device: Device) -> None:
        """The device is gone."""
        self._seen.pop(device, None)

    def _attributes(self, turn: Turn, id_text: str, payload: bytes) -> None:
        self._membership.attributes_told(turn, id_text, payload)

    # -- membership ----------------------------------------------------------------------------------------------

    def _members(self, turn: Turn, payload: bytes) -> None:
        try:
            event = read_event(payload).event_id
        except Refused as exc:
            self._count("malformed")
            self._publishing.members_error(turn, exc.code, exc.reason)
            return
        self._publishing.members(turn, event)
