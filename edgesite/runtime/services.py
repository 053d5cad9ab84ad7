"""Typed interfaces that the modules of one role offer to each other, and what a module leaves behind when it stops."""

from __future__ import annotations

from typing import Any, TypeVar

from edgesite.runtime.bus import LocalBus, _Inbox

__all__ = ["LocalServices", "ModuleBus", "ModuleServices"]

T = TypeVar("T")


class LocalServices:
    """Implements `edgesite.context.Services` for a whole role."""

    def __init__(self) -> None:
        self._by_interface: dict[type[Any], Any] = {}

    def provide(self, interface: type[T], implementation: T) -> None:
        """Raises ValueError when another module provides it already."""
        if interface in self._by_interface:
            raise ValueError(f"{interface.__name__} is provided already")
        self._by_interface[interface] = implementation

    def withdraw(self, interface: type[T]) -> None:
        self._by_interface.pop(interface, None)

    def find(self, interface: type[T]) -> T | None:
        return self._by_interface.get(interface)

    def get(self, interface: type[T]) -> T:
        found = self.find(interface)
        if found is None:
            raise LookupError(f"no module provides {interface.__name__}")
        return found


class ModuleServices(LocalServices):
    """One module's view: what it provided is withdrawn when its run ends, however it ends."""

    def __init__(self, shared: LocalServices) -> None:
        self._by_interface = shared._by_interface
        self._mine: set[type[Any]] = set()

    def provide(self, interface: type[T], implementation: T) -> None:
        super().provide(interface, implementation)
        self._mine.add(interface)

    def withdraw_all(self) -> None:
        for interface in self._mine:
            self.withdraw(interface)
        self._mine.clear()


class ModuleBus(LocalBus):
    """One module's view of the bus: its inboxes are closed when its run ends."""

    def __init__(self, shared: LocalBus) -> None:
        self._by_module = shared._by_module
        self._waiters = shared._waiters
        self._mine: list[_Inbox] = []

    def join(self, module: str, group: str, *, size: int = 1024) -> _Inbox:
        inbox = super().join(module, group, size=size)
        self._mine.append(inbox)
        return inbox

    def leave_all(self) -> None:
        for inbox in self._mine:
            inbox.close()
        self._mine.clear()
