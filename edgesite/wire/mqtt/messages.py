"""A published message on its way to many: encoded once for those who get the same bytes.

Units   ``expires_at`` is monotonic seconds. Sizes are bytes, with an allowance for what Python adds.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from edgesite.wire.mqtt import properties as props
from edgesite.wire.mqtt.codec import publish_head
from edgesite.wire.mqtt.packets import V5, Properties

__all__ = ["Message", "Parcel", "message_of"]

_FORWARDED: Final = (
    props.PAYLOAD_FORMAT,
    props.CONTENT_TYPE,
    props.RESPONSE_TOPIC,
    props.CORRELATION,
    props.USER_PROPERTY,
)
_OVERHEAD: Final = 200


class Message(msgspec.Struct):
    """What was published, shared by all who get it; treat it as frozen."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: Properties | None = None  #: those that travel on, without the expiry
    expires_at: float | None = None
    publisher: str = ""  #: client id; "" for the host itself
    weight: int = 0  #: of the properties, in bytes of memory
    _plain: dict[tuple[bool, bool], bytes] = msgspec.field(default_factory=dict)

    @property
    def size(self) -> int:
        return len(self.payload) + len(self.topic) + self.weight + _OVERHEAD

    def plain(self, version: int, retain: bool) -> bytes:
        """Return it as QoS 0 without subscription ids, the same bytes for everybody; of a message that does not expire."""
        key = (version == V5, retain)
        data = self._plain.get(key)
        if data is None:
            found = props.encode(self.properties) if version == V5 else b""
            head = publish_head(self.topic, len(self.payload), 0, retain, False, 0, found)
            data = head + self.payload
            if not self.retain:  # which stays: it would take the room of three
                self._plain[key] = data
        return data


class Parcel(msgspec.Struct):
    """A message for one client. QoS 0 has packet id 0."""

    message: Message
    qos: int
    retain: bool = False
    ids: tuple[int, ...] = ()  #: of the subscriptions that it comes by
    packet_id: int = 0
    is_sent: bool = False
    is_released: bool = False  #: QoS 2: the client has it, PUBREL is next
    sequence: int = 0  #: of the journal: the next step waits until that is stored

    def encoded(self, version: int, now: float) -> bytes:
        """Return the PUBLISH, with DUP if it was sent before."""
        message = self.message
        if not self.qos and not self.ids and message.expires_at is None:
            return message.plain(version, self.retain)
        found = b""
        if version == V5:
            listed = dict(message.properties or {})
            if message.expires_at is not None:
                listed[props.MESSAGE_EXPIRY] = max(0, int(message.expires_at - now))
            if self.ids:
                listed[props.SUBSCRIPTION_ID] = list(self.ids)
            found = props.encode(listed)
        payload = message.payload
        head = publish_head(
            message.topic, len(payload), self.qos, self.retain, self.is_sent and self.qos > 0, self.packet_id, found
        )
        return head + payload

    def has_expired(self, now: float) -> bool:
        return self.message.expires_at is not None and self.message.expires_at <= now


def message_of(
    topic: str,
    payload: bytes,
    qos: int,
    retain: bool,
    given: dict[int, Any] | None,
    publisher: str,
    now: float,
) -> Message:
    """Return the message of a PUBLISH, or of a will."""
    if not given:
        return Message(topic, payload, qos, retain, publisher=publisher)
    expiry = given.get(props.MESSAGE_EXPIRY)
    forwarded: Properties = {number: given[number] for number in _FORWARDED if number in given}
    expires_at = None if expiry is None else now + expiry
    return Message(topic, payload, qos, retain, forwarded or None, expires_at, publisher, props.weight(forwarded))
