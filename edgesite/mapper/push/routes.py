"""``pushMethod`` of a property as routes to sinks.

Errors  ValueError, with the member that is wrong.
Source  KubeEdge v1.23, devices.kubeedge.io/v1beta1 (PushMethod, DBMethodConfig).
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Final

from edgesite.mapper.push.sink import Route, mapping

__all__ = ["routes_of"]

#: Modules with a function ``route(section) -> Route``, by the member of ``pushMethod`` and of ``pushMethod.dbMethod``.
_METHODS: Final = {
    "http": "edgesite.mapper.push.http",
    "mqtt": "edgesite.mapper.push.mqtt",
    "otel": "edgesite.mapper.push.otlp",
}
_DATABASES: Final = {
    "influxdb2": "edgesite.mapper.push.influxdb",
    "redis": "edgesite.mapper.push.redis",
    "TDEngine": "edgesite.mapper.push.tdengine",
    "mysql": "edgesite.mapper.push.mysql",
}


def routes_of(push: Mapping[str, Any]) -> list[Route]:
    """Return where values go; [] for methods that are none of ours. Raises ValueError."""
    found = []
    for table, section, prefix in ((_METHODS, push, ""), (_DATABASES, mapping(push, "dbMethod"), "dbMethod.")):
        for name, module in table.items():
            try:
                if given := mapping(section, name):
                    found.append(importlib.import_module(module).route(given))
            except ValueError as exc:
                raise ValueError(f"pushMethod.{prefix}{name}: {exc}") from exc
    return found
