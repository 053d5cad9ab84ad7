"""What goes wrong on a connection, split by who must act.

NetError (OSError)
  ClosedByPeer      the other side left, or the connection broke: stop sending
  ProtocolError     the other side broke HTTP or WebSocket rules, or a limit
  WouldBlock        our own buffer to a slow reader is full: cut it off, or wait for room
"""

from __future__ import annotations

__all__ = ["ClosedByPeer", "NetError", "ProtocolError", "WouldBlock"]


class NetError(OSError):
    """A connection failed."""


class ClosedByPeer(NetError, ConnectionError):
    """The other side left or the connection broke."""


class ProtocolError(NetError):
    """The other side did not keep to the protocol, or went beyond a limit."""


class WouldBlock(NetError):
    """Nothing was sent, because the peer reads more slowly than we write."""
