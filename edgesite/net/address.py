"""Addresses as configuration writes them: ``host:port``, ``[v6]:port``, ``unix:///path``, ``mem:name``.

Errors  ValueError for text that is none of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Address", "join", "parse"]


@dataclass(frozen=True, slots=True)
class Address:
    """``host`` is a path for "unix" and a name for "mem"; "" listens on all interfaces."""

    kind: Literal["tcp", "unix", "mem"]
    host: str
    port: int = 0

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix://{self.host}"
        return f"mem:{self.host}" if self.kind == "mem" else join(self.host, self.port)


def parse(text: str) -> Address:
    """Return the parts of an address. Raises ValueError."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        path = path[2:] if path.startswith("//") else path
        if not path.startswith("/"):
            raise ValueError(f"address {text!r}: unix:// takes an absolute path")
        return Address("unix", path)
    if text.startswith("mem:"):
        if not text[4:]:
            raise ValueError(f"address {text!r}: mem: takes a name")
        return Address("mem", text[4:])
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError(f"address {text!r}: expected host:port, [v6]:port, unix:///path or mem:name")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"address {text!r}: an IPv6 address goes in brackets")
    return Address("tcp", host, int(port))


def join(host: str, port: int) -> str:
    """Return ``host:port``, with brackets where IPv6 needs them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
