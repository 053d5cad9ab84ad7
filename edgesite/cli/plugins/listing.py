"""``edgesite plugins list``: what was found, from where, what it brings, and what was refused and why."""

from __future__ import annotations

import json
import logging
from typing import Any, Final

from edgesite.context import Section, Settings
from edgesite.runtime.config.load import BadConfig, load
from edgesite.runtime.paths import default_data_dir
from edgesite.runtime.plugins import PluginHost, discover

__all__ = ["print_list"]


def print_list(output: str) -> int:
    """Print what was found as ``text`` or ``json``; returns the exit code."""
    logging.getLogger("edgesite.runtime.plugins").setLevel(logging.CRITICAL)  # the list itself says what was refused
    plugins = PluginHost(discover())
    rows = _rows(plugins)
    if output == "json":
        print(json.dumps(rows, indent=2))
        return 0
    table = [("NAME", "FROM", "STATE", "PROVIDES")]
    table += [(row["name"], row["from"], row["state"], ", ".join(row["provides"]) or "-") for row in rows]
    widths = [max(len(row[column]) for row in table) for column in range(3)]
    for row in table:
        print("   ".join([*(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)), row[3]]))
    return 0


#: Hooks that answer for names which only users know, and what is said of a plugin that has one.
_ON_REQUEST: Final = {
    "edgesite_mapper": "drivers of devices",
    "edgesite_metaserver": "MetaServer extension",
    "edgesite_runtime": "pod runtimes",
}


def _rows(plugins: PluginHost) -> list[dict[str, Any]]:
    settings = _settings(plugins)
    provided: dict[str, list[str]] = {}
    for name in list(plugins.loaded()):
        alone = plugins.only(name)
        brought = [f"module {one.name}" for one in alone.modules(settings)]
        brought += [f"command {one.name}" for one in alone.commands()]
        brought += [f"config {one.role}.{one.path}" for one in alone.config_sections()]
        brought += [f"admission {one.name}" for one in alone.admission(settings)]
        brought += [f"kind {one.kind}" for one in alone.resources()]
        brought += [what for hook, what in _ON_REQUEST.items() if alone.implements(hook)]
        provided[name] = brought
    loaded, refused = plugins.loaded(), plugins.refused
    rows: list[dict[str, Any]] = [
        {"name": name, "from": origin, "state": "loaded", "provides": provided.get(name, [])}
        for name, origin in loaded.items()
    ]
    rows += [
        {"name": name, "from": plugins.origin(name), "state": f"refused: {reason}", "provides": []}
        for name, reason in refused.items()
    ]
    return rows


def _settings(plugins: PluginHost) -> Settings:
    sections = [(one.role, one.path, one.model) for one in plugins.config_sections()]
    try:
        values, _ = load(
            "EdgeSite",
            file=None,
            sets=(),
            underlay={},
            overlay={},
            sections=sections,
            cache=default_data_dir() / "plugins.cache",
        )
    except BadConfig:
        return Settings()
    api = Section(values["api"])
    return Settings(api=api, cloud=Section({**values["cloud"], "api": values["api"]}), edges=(Section(values["edge"]),))
