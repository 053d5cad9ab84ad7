"""Who is registered: `MapperInfo`, and the service `Mappers` that module ``dmi`` provides."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["MapperInfo", "Mappers", "socket_path"]

_PATH_BYTES = 107  #: what an address of a unix socket holds


@dataclass(frozen=True, slots=True)
class MapperInfo:
    """What a mapper says of itself. ``dmi`` is the version of the interface by which it said so; "" if a KubeEdge of old kept it."""

    name: str
    protocol: str
    socket: str  #: path of the unix socket on which it serves
    dmi: str = ""
    version: str = ""
    api_version: str = ""
    state: str = ""

    def to_json(self) -> dict[str, Any]:
        """As KubeEdge keeps it, and a member of ours."""
        return {
            "name": self.name,
            "version": self.version,
            "api_version": self.api_version,
            "protocol": self.protocol,
            "address": base64.b64encode(self.socket.encode()).decode(),
            "state": self.state,
            "edgesiteDmi": self.dmi,
        }

    @classmethod
    def from_json(cls, given: Any) -> MapperInfo | None:
        """None for what cannot be read."""
        if not isinstance(given, dict):
            return None
        texts = {name: value for name, value in given.items() if isinstance(value, str)}
        try:
            path = base64.b64decode(texts.get("address", ""), validate=True).decode()
        except (binascii.Error, ValueError):
            return None
        if not texts.get("name") or not texts.get("protocol"):
            return None
        return cls(
            texts["name"],
            texts["protocol"],
            path,
            texts.get("edgesiteDmi", ""),
            texts.get("version", ""),
            texts.get("api_version", ""),
            texts.get("state", ""),
        )


class Mappers(Protocol):
    """The mappers of this node."""

    def registered(self) -> list[MapperInfo]: ...

    async def get_device(self, namespace: str, name: str) -> dict[str, Any]:
        """Ask the mapper of a device what it knows of it: the DMI message ``Device``. Raises ApiError: NotFound without device or mapper,
        503 when the mapper does not answer."""
        ...


def socket_path(address: bytes) -> str:
    """Return the path of an address that a mapper gave. Raises ValueError for what is none."""
    try:
        path = address.decode().removeprefix("unix://")
    except UnicodeDecodeError:
        raise ValueError("the address is no path of a socket") from None
    if not path.startswith("/") or "\0" in path or len(path.encode()) > _PATH_BYTES:
        raise ValueError("the address is no absolute path of a socket")
    return path
