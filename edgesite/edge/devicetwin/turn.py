"""One turn of DeviceTwin: what several messages change, written together, told when it is on disk, taken back when the disk refuses.

Units   Times are milliseconds since the Unix epoch.
State   What has been changed and not been written yet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from edgesite.edge.devicetwin.state import Device, Twin

__all__ = ["Publication", "Turn"]

Statement = tuple[str, Any]
Publication = tuple[str, bytes]  #: topic and payload
ACTUAL = 2  #: sides of a twin, as in `texts.twin_json`
EXPECTED = 1


@dataclass(slots=True)
class Turn:
    """``rows`` gives numbers to new rows of table device_twin."""

    now_ms: int
    rows: Callable[[], int]
    dirty: dict[Twin, tuple[str, str]] = field(default_factory=dict)  #: device id and name of each twin to be written
    lazy: dict[Twin, tuple[str, str]] = field(default_factory=dict)  #: whose time and version alone have changed
    devices: dict[Device, None] = field(default_factory=dict)  #: whose own rows are to be written
    statements: list[Statement] = field(default_factory=list)  #: what else is to be written, before the twins
    published: list[Publication] = field(default_factory=list)
    told: list[tuple[Device, str, int]] = field(default_factory=list)  #: sides of twins that the cloud has to hear of
    rejected: list[tuple[Device, str, str]] = field(
        default_factory=list
    )  #: what the cloud wanted in vain, and what holds instead
    asked: list[tuple[str, str]] = field(default_factory=list)  #: id and event of each client whose update was taken
    states: list[Device] = field(default_factory=list)  #: devices of whose state the cloud has to hear
    after: list[Callable[[], None]] = field(default_factory=list)  #: to be called when all is on disk
    _saved: list[tuple[Device, str, Twin | None] | Callable[[], None]] = field(default_factory=list)

    @property
    def mark(self) -> int:
        """A point to which `undo` may go back."""
        return len(self._saved)

    def sizes(self) -> tuple[int, ...]:
        """How much there is to be written and told, for `undo_all`."""
        return tuple(map(len, self._parts()))

    def undo_all(self, mark: int, sizes: tuple[int, ...]) -> None:
        """Take back all of an item that could not be worked on to its end: also what it wanted written and told."""
        self.undo(mark)
        for part, size in zip(self._parts(), sizes, strict=True):
            if isinstance(part, list):
                del part[size:]
            else:
                for key in list(part)[size:]:
                    del part[key]

    def _parts(self) -> tuple[list[Any] | dict[Any, Any], ...]:
        lists = self.statements, self.published, self.told, self.rejected, self.asked, self.states, self.after
        return (*lists, self.dirty, self.lazy, self.devices)

    def keep(self, device: Device, name: str) -> Twin | None:
        """Remember a twin as it is before it is changed, and return it so."""
        twin = device.twins.get(name)
        before = None if twin is None else twin.copy()
        self._saved.append((device, name, before))
        return before

    def on_undo(self, action: Callable[[], None]) -> None:
        self._saved.append(action)

    def write(self, device: Device, name: str, twin: Twin) -> None:
        self.dirty[twin] = (device.id, name)

    def undo(self, mark: int = 0) -> None:
        """Take back what was changed in memory since then."""
        while len(self._saved) > mark:
            saved = self._saved.pop()
            if not isinstance(saved, tuple):
                saved()
                continue
            device, name, before = saved
            twin = device.twins.get(name)
            if before is None:
                if twin is not None:
                    del device.twins[name]
                    self.dirty.pop(twin, None)
            elif twin is not None:
                for slot in Twin.__slots__:
                    setattr(twin, slot, getattr(before, slot))
            else:
                device.twins[name] = before
