"""Why a packet is refused: reason codes of MQTT 5, and the error that carries one. Apart from the packets, which who only checks topics does not need.

Source  OASIS, MQTT Version 5.0, section 2.4.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = ["ProtocolError", "Reason"]


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
