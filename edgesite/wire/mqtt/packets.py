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


class Reason(IntEnum):
    """Reason codes; from 0x80 they are failures."""

    SUCCESS = 0x00
    WILL_ON_DISCONNECT = 0x04
    NO_SUBSCRIBERS = 0x10
    NO_SUBSCRIPTION = 0x11
    UNSPECIFIED = 0x80
    MALFORMED = 0x81
    PROTOCOL_ERROR = 0x82
    IMPLEMENTATION = 0x83
    VERSION = 0x84
    CLIENT_ID = 0x85
    BAD_LOGIN = 0x86
    NOT_AUTHORIZED = 0x87
    UNAVAILABLE = 0x88
    BUSY = 0x89
    SHUTTING_DOWN = 0x8B
    BAD_AUTH_METHOD = 0x8C
    KEEP_ALIVE = 0x8D
    TAKEN_OVER = 0x8E
    BAD_FILTER = 0x8F
    BAD_TOPIC = 0x90
    ID_IN_USE = 0x91
    ID_UNKNOWN = 0x92
    RECEIVE_MAXIMUM = 0x93
    BAD_ALIAS = 0x94
    TOO_LARGE = 0x95
    RATE = 0x96
    QUOTA = 0x97
    BAD_PAYLOAD = 0x99
    NO_RETAIN = 0x9A
    NO_QOS = 0x9B
    NO_SHARED = 0x9E


class ProtocolError(Exception):
    """The peer broke the protocol, or asked for what is not given; ``reason`` is what it is told, where it can be."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


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
