"""What is published about devices, as JSON with the members and their order that KubeEdge's clients know.

Made by hand: a twin's update is told in up to four texts, thousands of times a second.

Units   Times are milliseconds since the Unix epoch.
Errors  None.
Source  KubeEdge v1.12, edge/pkg/devicetwin/dttype (members, their order, which are left out); recorded publications.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from edgesite.edge.devicetwin.state import DELETED, Device, Twin
from edgesite.kube.gojson import go_json

__all__ = [
    "delta",
    "device_json",
    "document",
    "edge_updated",
    "error",
    "local_time",
    "membership_list",
    "membership_updated",
    "quote",
    "result",
    "rfc3339",
    "state",
    "twin_json",
]

_plain = re.compile(r"[A-Za-z0-9 \-_.,:/@#+=;*()%~]*").fullmatch


def quote(text: str) -> str:
    """A JSON string."""
    return f'"{text}"' if _plain(text) else go_json(text)


def twin_json(twin: Twin, *, versions: bool = False, sides: int = 3) -> str:
    """A twin; ``sides``: 1 what is expected, 2 what is actual."""
    parts = []
    if sides & 1 and twin.expected is not None:
        parts.append(f'"expected":{{"value":{quote(twin.expected)},"metadata":{{"timestamp":{twin.expected_ms}}}}}')
    if sides & 2 and twin.actual is not None:
        parts.append(f'"actual":{{"value":{quote(twin.actual)},"metadata":{{"timestamp":{twin.actual_ms}}}}}')
    optional = "true" if twin.optional else "false"
    parts.append(f'"optional":{optional},"metadata":{{"type":{quote(twin.type)}}}')
    if versions and sides & 1 and (twin.expected is not None or twin.type == DELETED):
        parts.append(f'"expected_version":{{"cloud":{twin.expected_cloud},"edge":{twin.expected_edge}}}')
    if versions and sides & 2 and (twin.actual is not None or twin.type == DELETED):
        parts.append(f'"actual_version":{{"cloud":{twin.actual_cloud},"edge":{twin.actual_edge}}}')
    return "{" + ",".join(parts) + "}"


def _map(parts: Iterable[tuple[str, str]]) -> str:
    return "{" + ",".join(f"{quote(name)}:{text}" for name, text in sorted(parts)) + "}"


def _head(event: str, now_ms: int) -> str:
    return f'{{"event_id":{quote(event)},"timestamp":{now_ms}'


def result(event: str, now_ms: int, twins: Mapping[str, str]) -> bytes:
    """The answer to an update or a question; ``twins`` are texts by name."""
    return f'{_head(event, now_ms)},"twin":{_map(twins.items())}}}'.encode()


def error(event: str, now_ms: int, code: int, reason: str) -> bytes:
    return f'{_head(event, now_ms)},"code":{code},"reason":{quote(reason)}}}'.encode()


def document(event: str, now_ms: int, changes: Mapping[str, tuple[str, str]]) -> bytes:
    """What changed: each twin as it was and as it is."""
    texts = ((name, f'{{"last":{last},"current":{current}}}') for name, (last, current) in changes.items())
    return f'{_head(event, now_ms)},"twin":{_map(texts)}}}'.encode()


def delta(event: str, now_ms: int, device: Device) -> bytes | None:
    """All that is wanted of a device, if something of it is not yet so."""
    wanted = [(name, twin) for name, twin in device.twins.items() if twin.expected and twin.type != DELETED]
    differing = [(name, quote(twin.expected or "")) for name, twin in wanted if twin.expected != twin.actual]
    if not differing:
        return None
    twins = _map((name, twin_json(twin)) for name, twin in wanted)
    return f'{_head(event, now_ms)},"twin":{twins},"delta":{_map(differing)}}}'.encode()


def edge_updated(event: str, now_ms: int, twins: Mapping[str, str]) -> str:
    """What an edge of KubeEdge tells its cloud."""
    return f'{_head(event, now_ms)},"twin":{_map(twins.items())}}}'


def device_json(device: Device, *, full: bool, with_twins: bool) -> str:
    """A device as membership messages show it."""
    members = [("id", device.id), ("name", device.name), ("description", device.description), ("state", device.state)]
    if device.last_online:
        members.append(("last_online", device.last_online if full else local_time(device.last_online)))
    parts = [f'"{name}":{quote(value)}' for name, value in members if value]
    if device.attributes and not with_twins:
        parts.append(f'"attributes":{go_json(device.attributes)}')
    if with_twins and device.twins:
        texts = ((name, "null" if one.type == DELETED else twin_json(one)) for name, one in device.twins.items())
        parts.append(f'"twin":{_map(texts)}')
    return "{" + ",".join(parts) + "}"


def membership_updated(event: str, now_ms: int, added: str | None, removed: str | None) -> bytes:
    def listed(text: str | None) -> str:
        return "null" if text is None else f"[{text}]"

    return f'{_head(event, now_ms)},"added_devices":{listed(added)},"removed_devices":{listed(removed)}}}'.encode()


def membership_list(event: str, now_ms: int, devices: Iterable[str]) -> bytes:
    return f'{_head(event, now_ms)},"devices":[{",".join(devices)}]}}'.encode()


def state(event: str, now_ms: int, device: Device, *, full: bool) -> bytes:
    """The answer to a state; the newer form has another name and another form of the time."""
    shown: dict[str, Any] = {"name": device.name, "state": device.state}
    if full and device.last_online and device.state.lower() in ("online", "ok"):
        shown["lastOnlineTime"] = device.last_online
    elif not full:
        shown["last_online"] = _local(now_ms / 1000)
    return f'{_head(event, now_ms)},"device":{go_json(shown, sort=False)}}}'.encode()


def local_time(text: str) -> str:
    """A time as KubeEdge v1.12 writes it: local, to the second."""
    try:
        return _local(datetime.fromisoformat(text).timestamp()) if "T" in text else text
    except ValueError:
        return text


def _local(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


def rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
