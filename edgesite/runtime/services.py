"""Typed interfaces that the modules of one role offer to each other, and what a module leaves behind when it stops."""

from __future__ import annotations

from typing import Any, TypeVar

import anyio

from edgesite.runtime.bus import LocalBus, _Inbox

__all__ = ["LocalServices", "ModuleBus", "ModuleServices"]

T = TypeVar("T")


class LocalServices:
    """Implements `edgesite.context.Services` for a whole role."""

    def __init__(self) -> None:
        self._by_interface: dict[type[Any], Any] = {}
        self._changed: dict[type[Any], anyio.Event] = {}  # of those that somebody waits for

    def provide(self, interface: type[T], implementation: T) -> None:
        """Raises ValueError when another module provides it already."""
        if interface in self._by_interface:
            raise ValueError(f"{interface.__name__} is provided already")
        self._by_interface[interface] = implementation
        self._tell(interface)

    def withdraw(self, interface: type[T]) -> None:
        if self._by_interface.pop(interface, None) is not None:
            self._tell(interface)

    def _tell(self, interface: type[Any]) -> None:
        if (changed := self._changed.pop(interface, None)) is not None:
            changed.set()

    async def replaced(self, interface: type[T], implementation: T | None) -> None:
        """Wait as long as this very implementation (None: none at all) is what `find` gives."""
        while self.find(interface) is implementation:
            changed = self._changed.get(interface)
            if changed is None:
                changed = self._changed[interface] = anyio.Event()
            await changed.wait()

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
        self._by_interface, self._changed = shared._by_interface, shared._changed
        self._mine: dict[type[Any], None] = {}  # in order: whoever waits is woken in it

    def provide(self, interface: type[T], implementation: T) -> None:
        super().provide(interface, implementation)
        self._mine[interface] = None

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
