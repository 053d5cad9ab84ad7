"""Devices and their twins in memory: ten thousand of them must stay small.

A twin has two sides, what it shall be (expected) and what the device says (actual), each with its time and version. A version is
two numbers: how often the cloud and how often this edge has changed it.

Units   Times are milliseconds since the Unix epoch.
Errors  None.
State   All devices of the node, by id and by name. An id is the name alone (KubeEdge before v1.16) or namespace/name.
Source  KubeEdge v1.12, edge/pkg/devicetwin/dttype.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

__all__ = ["BARE", "DELETED", "FULL", "Device", "Registry", "Twin"]

DELETED: Final = "deleted"  #: the type of a twin that was deleted; its row stays
BARE: Final = 1  #: topics with the name alone
FULL: Final = 2  #: topics with namespace and name
_DEFAULT: Final = "default"


class Twin:
    """One property of one device."""

    # fmt: off
    __slots__ = (
        "actual", "actual_cloud", "actual_edge", "actual_ms", "expected", "expected_cloud", "expected_edge", "expected_ms", "observed",
        "observed_sent", "optional", "row", "sent", "type",
    )
    # fmt: on

    def __init__(self, row: int, type_: str, *, optional: bool) -> None:
        self.row = row  #: of table device_twin
        self.type = type_
        self.optional = optional  #: whether a client here may delete it
        self.expected: str | None = None
        self.expected_ms = 0
        self.expected_cloud = 0
        self.expected_edge = 0
        self.actual: str | None = None
        self.actual_ms = 0
        self.actual_cloud = 0
        self.actual_edge = 0
        self.observed: str | None = None  #: the desired value that the mapper acts upon, as it says
        self.sent: str | None = None  #: the actual value that the cloud has
        self.observed_sent: str | None = None

    def copy(self) -> Twin:
        made = Twin.__new__(Twin)
        for name in Twin.__slots__:
            setattr(made, name, getattr(self, name))
        return made

    @property
    def differs(self) -> bool:
        """Whether the device is not yet as wanted."""
        return bool(self.expected) and self.expected != self.actual


class Device:
    """One device of this node."""

    # fmt: off
    __slots__ = (
        "attributes", "description", "digest", "forms", "id", "last_online", "model", "name", "namespace", "overridden", "silent", "state", "twins",
        "uid", "version",
    )
    # fmt: on

    def __init__(self, id_: str, name: str, namespace: str = "") -> None:
        self.id = id_
        self.name = name
        self.namespace = namespace  #: "" while only its name is known
        self.description = ""
        self.state = ""
        self.last_online = ""  #: RFC 3339, or KubeEdge v1.12's form in what it left behind
        self.attributes: dict[str, Any] | None = None
        self.twins: dict[str, Twin] = {}
        self.model: tuple[str, str] | None = None  #: namespace and name
        self.uid = ""  #: of its object; "" if only a membership message told of it
        self.version = 0  #: of its object, as far as it has been taken here
        self.overridden: dict[str, str] | None = (
            None  #: what the cloud wanted where a client here has wanted something else since
        )
        self.silent: frozenset[str] = frozenset()  #: properties that are not to be told to the cloud
        self.digest: int | None = None  #: of what its object says, but for its status; None if not known yet
        self.forms = 0  #: of topics in which clients have spoken of it

    @property
    def place(self) -> str:
        return f"{self.namespace}/{self.name}"


class Registry:
    """All devices."""

    def __init__(self) -> None:
        self._by_id: dict[str, Device] = {}
        self._by_name: dict[str, list[Device]] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Device]:
        return iter(self._by_id.values())

    def add(self, device: Device) -> None:
        self.remove(device.id)
        self._by_id[device.id] = device
        self._by_name.setdefault(device.name, []).append(device)

    def remove(self, id_: str) -> Device | None:
        device = self._by_id.pop(id_, None)
        if device is not None:
            same = self._by_name[device.name]
            same.remove(device)
            if not same:
                del self._by_name[device.name]
        return device

    def get(self, id_: str) -> Device | None:
        return self._by_id.get(id_)

    def at(self, namespace: str, name: str) -> Device | None:
        """The device of this namespace and name, also one whose namespace is not known yet."""
        same = self._by_name.get(name, ())
        for one in same:
            if one.namespace == namespace:
                return one
        for one in same:
            if not one.namespace:
                return one
        return None

    def named(self, name: str) -> Device | None:
        """The device that a bare name means: the one in namespace "default", else the only one."""
        same = self._by_name.get(name, ())
        if len(same) == 1:
            return same[0]
        for one in same:
            if one.namespace in ("", _DEFAULT):
                return one
        return None

    def find(self, text: str) -> Device | None:
        """The device that the id in a topic or in a message of the cloud means: "name" or "namespace/name"."""
        found = self._by_id.get(text)
        if found is not None:
            return found
        namespace, slash, name = text.partition("/")
        return self.at(namespace, name) if slash else self.named(namespace)

    def free_id(self, namespace: str, name: str) -> str:
        """The id of a new device: its name as in KubeEdge v1.12, with the namespace where another one has it."""
        return name if name not in self._by_id else f"{namespace}/{name}"
