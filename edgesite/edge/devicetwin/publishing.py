"""To whom of the clients what is told, and under which topics.

A device has topics with its name alone (KubeEdge before v1.17) and such with namespace and name. Who asks is answered as asked;
what nobody asked for is told in the forms in which clients have spoken of the device, in both as long as none has.

Units   Times are milliseconds since the Unix epoch.
Source  KubeEdge v1.12 and v1.17, edge/pkg/devicetwin/dtcommon (topics).
"""

from __future__ import annotations

from collections.abc import Callable

from edgesite.edge.devicetwin import texts
from edgesite.edge.devicetwin.state import BARE, FULL, Device, Registry
from edgesite.edge.devicetwin.turn import Turn
from edgesite.edge.devicetwin.updates import Changes

__all__ = ["DEVICE_PREFIX", "NODE_PREFIX", "Publishing", "form_of"]

DEVICE_PREFIX = "$hw/events/device/"
NODE_PREFIX = "$hw/events/node/"


def form_of(id_text: str) -> int:
    """The form of the topic in which a client has written an id."""
    return FULL if "/" in id_text else BARE


class Publishing:
    """``wanted(topic)`` tells whether anybody may listen; ``new_id()`` makes ids of events."""

    def __init__(self, node: str, registry: Registry, wanted: Callable[[str], bool], new_id: Callable[[], str]) -> None:
        self._node = node
        self._registry = registry
        self._wanted = wanted
        self._new_id = new_id

    def ids(self, device: Device, also: str = "") -> list[str]:
        """The ids under which a device is told of. ``also`` is the one that a client has just used."""
        found = [also] if also else []
        forms = device.forms or (BARE | FULL)
        if forms & BARE and device.name not in found and self._registry.named(device.name) is device:
            found.append(device.name)
        if forms & FULL and device.namespace and device.place not in found:
            found.append(device.place)
        return found or [device.id]

    def error(self, turn: Turn, id_text: str, suffix: str, event: str, code: int, reason: str) -> None:
        topic = f"{DEVICE_PREFIX}{id_text}/{suffix}/result"
        turn.published.append((topic, texts.error(event, turn.now_ms, code, reason)))

    def unreadable(self, turn: Turn, id_text: str, suffix: str, code: int, reason: str) -> None:
        """KubeEdge does not say which device it is about; we say it there and where it belongs."""
        self.error(turn, "", suffix, "", code, reason)
        self.error(turn, id_text, suffix, "", code, reason)

    def result(self, turn: Turn, id_text: str, event: str, changes: Changes) -> None:
        topic = f"{DEVICE_PREFIX}{id_text}/twin/update/result"
        if self._wanted(topic):
            turn.published.append((topic, texts.result(event, turn.now_ms, changes.result)))

    def changed(self, turn: Turn, device: Device, event: str, changes: Changes, also: str = "") -> None:
        """Document and delta, as after every update."""
        ids = self.ids(device, also)
        if changes.document:
            self._each(turn, ids, "twin/update/document", lambda: texts.document(event, turn.now_ms, changes.document))
        if any(twin.differs for twin in device.twins.values()):
            self._each(turn, ids, "twin/update/delta", lambda: texts.delta(self._new_id(), turn.now_ms, device))

    def attributes(self, turn: Turn, device: Device, text: bytes) -> None:
        self._each(turn, self.ids(device), "updated", lambda: text)

    def _each(self, turn: Turn, ids: list[str], suffix: str, make: Callable[[], bytes | None]) -> None:
        payload: bytes | None = None
        for id_text in ids:
            topic = f"{DEVICE_PREFIX}{id_text}/{suffix}"
            if not self._wanted(topic):
                continue
            payload = payload or make()
            if payload is not None:
                turn.published.append((topic, payload))

    def membership(self, turn: Turn, *, added: str | None = None, removed: str | None = None) -> None:
        text = texts.membership_updated(self._new_id(), turn.now_ms, added, removed)
        turn.published.append((f"{NODE_PREFIX}{self._node}/membership/updated", text))

    def members(self, turn: Turn, event: str) -> None:
        listed = (
            texts.device_json(one, full=one.forms == FULL, with_twins=False)
            for one in sorted(self._registry, key=lambda one: one.id)
        )
        text = texts.membership_list(event, turn.now_ms, listed)
        turn.published.append((f"{NODE_PREFIX}{self._node}/membership/get/result", text))

    def members_error(self, turn: Turn, code: int, reason: str) -> None:
        topic = f"{NODE_PREFIX}{self._node}/membership/get/result"
        turn.published.append((topic, texts.error("", turn.now_ms, code, reason)))

    def new_id(self) -> str:
        return self._new_id()
