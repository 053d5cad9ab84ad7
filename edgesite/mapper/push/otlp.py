"""Values to an OpenTelemetry collector: OTLP over HTTP, gauges of doubles named after their properties, the resource's ``device.id`` the device.

A value that is no number is refused; true and false are 1 and 0.

Units   Nanoseconds since the Unix epoch.
Errors  Those of `web`.
Source  OpenTelemetry Protocol 1.x, metrics/v1 and collector/metrics/v1; KubeEdge v1.23 mapper-framework, _template/mapper/data/publish/otel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from edgesite.kube.protowire import Messages, encode
from edgesite.mapper.push.sink import Outside, Refused, Route, Sample, text
from edgesite.mapper.push.web import Place, Web, place

__all__ = ["OTLP", "OtlpSink", "request", "route"]

#: Names and numbers of the messages, as far as they are used.
OTLP: Final = Messages("""
Request: resource_metrics repeated ResourceMetrics = 1
ResourceMetrics: resource Resource = 1; scope_metrics repeated ScopeMetrics = 2
Resource: attributes repeated KeyValue = 1
KeyValue: key string = 1; value AnyValue = 2
AnyValue: string_value string = 1 (oneof value)
ScopeMetrics: scope Scope = 1; metrics repeated Metric = 2
Scope: name string = 1
Metric: name string = 1; gauge Gauge = 5 (oneof data)
Gauge: data_points repeated Point = 1
Point: time_unix_nano fixed64 = 3; as_double double = 4 (oneof value)
""")
_HEADERS: Final = {"Content-Type": "application/x-protobuf"}
_WORDS: Final = {"true": 1.0, "false": 0.0}


def route(section: Mapping[str, Any]) -> Route:
    """Raises ValueError."""
    where, path = place(text(section, "endpointURL"), 4318)
    target = path if path.strip("/") else "/v1/metrics"
    return Route("otel", (where, target), lambda outside: OtlpSink(where, target, outside))


def request(batch: Sequence[Sample]) -> tuple[bytes, list[int]]:
    """The message, and the places of values that are no numbers."""
    devices: dict[str, dict[str, list[dict[str, Any]]]] = {}
    refused = []
    for place_, one in enumerate(batch):
        try:
            value = _WORDS[one.value] if one.value in _WORDS else float(one.value)
        except ValueError:
            refused.append(place_)
            continue
        metrics = devices.setdefault(f"{one.namespace}/{one.device}", {})
        point = {"time_unix_nano": one.at_ms * 1_000_000, "as_double": value}
        metrics.setdefault(one.property, []).append(point)
    made = [
        {
            "resource": {"attributes": [{"key": "device.id", "value": {"string_value": device}}]},
            "scope_metrics": [
                {
                    "scope": {"name": "edgesite.mapper"},
                    "metrics": [{"name": name, "gauge": {"data_points": points}} for name, points in metrics.items()],
                }
            ],
        }
        for device, metrics in devices.items()
    ]
    return encode(OTLP["Request"], {"resource_metrics": made}), refused


class OtlpSink:
    """See the module docstring."""

    most = 1000

    def __init__(self, where: Place, target: str, outside: Outside) -> None:
        self._web, self._target = Web(where, outside), target

    async def send(self, batch: Sequence[Sample]) -> None:
        message, refused = request(batch)
        if len(refused) < len(batch):
            await self._web.post(self._target, _HEADERS, message)
        if refused:
            raise Refused("a value is no number", refused)

    async def close(self) -> None:
        await self._web.close()
