"""What goes wrong with plugins."""

from __future__ import annotations

__all__ = ["PluginError"]


class PluginError(OSError):
    """A plugin refused, answered nonsense, or did not answer in time. ``code`` is gRPC's name of that ("UNAVAILABLE")."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"rpc error: code = {code} desc = {text}")
        self.code = code
