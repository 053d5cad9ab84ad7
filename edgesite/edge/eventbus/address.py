"""Addresses of MQTT brokers as configuration writes them.

Errors  ValueError for text that is none.
"""

from __future__ import annotations

from typing import Final

__all__ = ["address_of"]

_SCHEMES: Final = {
    "tcp": False,
    "mqtt": False,
    "ssl": True,
    "tls": True,
    "mqtts": True,
}
_PORTS: Final = {False: 1883, True: 8883}


def address_of(url: str) -> tuple[str, bool]:
    """Return the address of a broker's URL, and whether it wants TLS. Raises ValueError."""
    scheme, mark, rest = url.partition("://")
    if scheme == "unix":
        return url, False
    if not mark or scheme not in _SCHEMES or not rest:
        raise ValueError(f"{url!r} is no address of an MQTT broker: tcp://host:port, ssl://host:port or unix:///path")
    is_tls, rest = _SCHEMES[scheme], rest.rstrip("/")
    host, colon, port = rest.rpartition(":")
    if not colon or not port.isdigit() or rest.endswith("]"):
        host, port = rest, str(_PORTS[is_tls])
    if ":" in host and not host.startswith("["):
        raise ValueError(f"{url!r}: an IPv6 address goes in brackets")
    return f"{host}:{port}", is_tls
