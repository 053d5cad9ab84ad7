"""Finds the plugin that is to be checked: by its entry point, or by where it is."""

from __future__ import annotations

import importlib
import inspect

from edgesite.runtime.plugins import PluginHost, abi_problem, discover

__all__ = ["load"]


def load(target: str) -> PluginHost:
    """Return a host with this plugin alone. Raises whatever the plugin raises, ValueError for unknown hooks, LookupError."""
    point = next((one for one in discover() if one.name == target), None)
    if point is not None and point.dist is not None and not point.value.startswith("edgesite."):
        problem = abi_problem(point.dist.requires or (), declared=True)
        assert not problem, problem
    if point is not None:
        plugin = point.load()
    else:
        module, _, name = target.partition(":")
        if not all(part.isidentifier() for part in module.split(".")):
            raise LookupError(f"there is no plugin {target!r}, and it is no module either")
        plugin = importlib.import_module(module)
        for part in name.split(".") if name else ():
            plugin = getattr(plugin, part)
    if inspect.isclass(plugin):
        plugin = plugin()
    host = PluginHost(())
    host.register(plugin, target, target)
    assert _hooks(plugin), "it implements no hook: functions must be marked with edgesite.hookspecs.impl"
    return host


def _hooks(plugin: object) -> list[str]:
    return [
        name for name in dir(plugin) if name.startswith("edgesite_") and hasattr(getattr(plugin, name), "edgesite_impl")
    ]
