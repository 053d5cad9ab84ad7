"""By which names clients may call the open MetaServer: a page in a browser on the node whose own name was made to lead here calls it by that name.

Addresses are taken as they are: only names can be led elsewhere (DNS rebinding).

Errors  None.
State   None.
Source  RFC 9110 section 7.2 (Host).
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final

__all__ = ["Hosts"]

_LONGEST: Final = 300  #: characters of a name with its port


class Hosts:
    """``names``: those of this node, beside localhost and addresses."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = frozenset(one.lower().rstrip(".") for one in names if one)

    def knows(self, host: str | None) -> bool:
        """Whether a request with this Host is meant for us. Browsers always send one; who sends none is no page."""
        if host is None:
            return True
        if len(host) > _LONGEST:
            return False
        name = _without_port(host).lower().rstrip(".")
        return name == "localhost" or name.endswith(".localhost") or name in self._names or _is_address(name)


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, colon, port = host.rpartition(":")
    return name if colon and port.isascii() and (port.isdigit() or not port) else host


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
