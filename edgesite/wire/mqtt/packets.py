"""Control packets of MQTT, the same structs for all versions; reason codes as of version 5.

Members that a version does not have are left at their defaults. ``properties`` is a dict by the numbers in `properties`, or
None where there are none.

Units   ``keep_alive_s`` in seconds. Packet ids are 1 to 65535.
Source  OASIS, MQTT Version 3.1.1 and MQTT Version 5.0, chapters 2 and 3.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

import msgspec

from edgesite.wire.mqtt.reasons import ProtocolError, Reason

__all__ = [
    "V3_1",
    "V3_1_1",
    "V5",
    "Ack",
    "Auth",
    "Connack",
    "Connect",
    "Disconnect",
    "Kind",
    "Packet",
    "Ping",
    "ProtocolError",
    "Publish",
    "Reason",
    "Suback",
    "Subscribe",
    "Subscription",
    "Unsuback",
    "Unsubscribe",
    "Will",
]

V3_1: Final = 3
V3_1_1: Final = 4
V5: Final = 5

Properties = dict[int, Any]


class Kind(IntEnum):
    """Types of packets, the upper four bits of the first byte."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14
    AUTH = 15


class Will(msgspec.Struct):
    """What the broker publishes when the client is lost."""

    topic: str
    payload: bytes = b""
    qos: int = 0
    retain: bool = False
    properties: Properties | None = None


class Connect(msgspec.Struct):
    client_id: str = ""
    version: int = V3_1_1
    clean_start: bool = True
    keep_alive_s: int = 0
    username: str | None = None
    password: bytes | None = None
    will: Will | None = None
    properties: Properties | None = None
    is_bridge: bool = False  #: another broker, as mosquitto and others say it: the top bit of the version, before 5


class Connack(msgspec.Struct):
    """``code`` is a return code up to version 3.1.1, a `Reason` in 5."""

    code: int = 0
    session_present: bool = False
    properties: Properties | None = None


class Publish(msgspec.Struct):
    topic: str
    payload: bytes = b""
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int = 0
    properties: Properties | None = None


class Ack(msgspec.Struct):
    """PUBACK, PUBREC, PUBREL or PUBCOMP."""

    kind: int
    packet_id: int
    code: int = 0
    properties: Properties | None = None


class Subscription(msgspec.Struct, frozen=True):
    """One filter of a SUBSCRIBE."""

    filter: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0  #: 0 send what is retained, 1 only if the subscription is new, 2 never


class Subscribe(msgspec.Struct):
    packet_id: int
    filters: list[Subscription]
    properties: Properties | None = None


class Suback(msgspec.Struct):
    packet_id: int
    codes: list[int]
    properties: Properties | None = None


class Unsubscribe(msgspec.Struct):
    packet_id: int
    filters: list[str]
    properties: Properties | None = None


class Unsuback(msgspec.Struct):
    """``codes`` are there in version 5 alone."""

    packet_id: int
    codes: list[int]
    properties: Properties | None = None


class Ping(msgspec.Struct):
    """PINGREQ or PINGRESP."""

    kind: int


class Disconnect(msgspec.Struct):
    code: int = 0
    properties: Properties | None = None


class Auth(msgspec.Struct):
    code: int = 0
    properties: Properties | None = None


Packet = Connect | Connack | Publish | Ack | Subscribe | Suback | Unsubscribe | Unsuback | Ping | Disconnect | Auth
