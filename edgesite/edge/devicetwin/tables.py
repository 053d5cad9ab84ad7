"""Devices on disk: KubeEdge's three tables, and one of our own beside them.

    device, device_attr, device_twin    as KubeEdge's edgecore has them: what it left behind is read, and it reads what we leave
    edgesite_device                     which object a device is of, and what the cloud wanted where a client here wants something else

Errors  StoreError of the database.
Source  KubeEdge v1.12, edge/pkg/devicetwin/dtclient; what its edgecore left in a database.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from edgesite.edge.devicetwin.state import DELETED, Device, Registry, Twin
from edgesite.edge.devicetwin.turn import Turn
from edgesite.edge.metamanager.rows import Rows, Statement
from edgesite.kube import json

__all__ = ["DeviceTables"]

_PUT_TWIN: Final = (
    "REPLACE INTO device_twin (id, deviceid, name, description, expected, actual, expected_meta, actual_meta, expected_version,"
    " actual_version, optional, attr_type, metadata) VALUES (?, ?, ?, '', ?, ?, ?, ?, ?, ?, ?, ?, '{}')"
)
_PUT_DEVICE: Final = "REPLACE INTO device (id, name, description, state, last_online) VALUES (?, ?, ?, ?, ?)"
_PUT_OWN: Final = "REPLACE INTO edgesite_device (id, namespace, uid, version, overridden) VALUES (?, ?, ?, ?, ?)"
_PUT_ATTRIBUTE: Final = "INSERT INTO device_attr (deviceid, name, description, value, optional, attr_type, metadata) VALUES (?, ?, '', ?, ?, ?, '{}')"
_LOAD_TWINS: Final = (
    "SELECT id, deviceid, name, expected, actual, expected_meta, actual_meta, expected_version, actual_version, optional, attr_type"
    " FROM device_twin WHERE id > ? ORDER BY id LIMIT 1000"
)
_OBJECTS: Final = "SELECT key, value FROM meta WHERE type = ? AND key > ? ORDER BY key LIMIT 50"
_OBJECT: Final = "SELECT value FROM meta WHERE key = ? AND type = ?"


class DeviceTables:
    """Reads and writes through the edge's database."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._last_row = 0

    def next_row(self) -> int:
        """The number of a new twin's row."""
        self._last_row += 1
        return self._last_row

    async def load(self, registry: Registry) -> None:
        """Read the tables, which module ``twin`` has made. Raises StoreError."""
        for id_, name, description, state, last_online in await self._rows.query(
            "SELECT id, name, description, state, last_online FROM device ORDER BY id"
        ):
            namespace, _, bare = id_.rpartition("/")
            device = Device(id_, name or bare, namespace)
            device.description, device.state, device.last_online = description or "", state or "", last_online or ""
            registry.add(device)
        for id_, namespace, uid, version, overridden in await self._rows.query(
            "SELECT id, namespace, uid, version, overridden FROM edgesite_device ORDER BY id"
        ):
            known = registry.get(id_)
            if known is not None:
                known.namespace, known.uid, known.version = namespace, uid, version
                known.overridden = _parsed(overridden) or None
        await self._load_attributes(registry)
        await self._load_twins(registry)

    async def _load_attributes(self, registry: Registry) -> None:
        for id_, name, value, optional, type_ in await self._rows.query(
            "SELECT deviceid, name, value, optional, attr_type FROM device_attr ORDER BY id"
        ):
            device = registry.get(id_)
            if device is not None and name:
                device.attributes = device.attributes or {}
                device.attributes[name] = attribute(value or "", bool(optional), type_ or "string")

    async def _load_twins(self, registry: Registry) -> None:
        last = 0
        words: dict[str, str] = {}  # names and types come again with every device: one text each
        while rows := await self._rows.query(_LOAD_TWINS, (last,)):
            last = rows[-1][0]
            for row in rows:
                device = registry.get(row[1])
                if device is not None and row[2]:
                    name = words.setdefault(row[2], row[2])
                    device.twins[name] = _twin(row, words)
        self._last_row = max(last, self._last_row)
        for (highest,) in await self._rows.query("SELECT seq FROM sqlite_sequence WHERE name = 'device_twin'"):
            self._last_row = max(self._last_row, highest)

    async def objects(self, type_: str, after: str = "") -> list[tuple[str, str]]:
        """Key and text of the next objects of a type, by key; none at the end. Raises StoreError."""
        return [(row[0], row[1] or "") for row in await self._rows.query(_OBJECTS, (type_, after))]

    async def stored(self, type_: str, namespace: str, name: str) -> str | None:
        """The text of an object as metamanager has it now. Raises StoreError."""
        rows = await self._rows.query(_OBJECT, (f"{namespace}/{type_}/{name}", type_))
        return rows[0][0] if rows else None

    async def commit(self, turn: Turn) -> None:
        """Write what a turn has changed, in one transaction. Raises StoreError."""
        statements: list[Statement] = list(turn.statements)
        for device in turn.devices:
            statements += device_statements(device)
        if turn.dirty:
            statements.append((_PUT_TWIN, twin_rows(turn.dirty)))
        if statements:
            await self._rows.write(statements)

    async def write_twins(self, twins: Mapping[Twin, tuple[str, str]]) -> None:
        """Raises StoreError."""
        await self._rows.write([(_PUT_TWIN, twin_rows(twins))])


def twin_rows(twins: Mapping[Twin, tuple[str, str]]) -> list[tuple[Any, ...]]:
    return [
        (
            one.row,
            device,
            name,
            one.expected,
            one.actual,
            _meta(one.expected, one.expected_ms),
            _meta(one.actual, one.actual_ms),
            _version(one.expected_cloud, one.expected_edge),
            _version(one.actual_cloud, one.actual_edge),
            int(one.optional),
            one.type,
        )
        for one, (device, name) in twins.items()
    ]


def device_statements(device: Device) -> list[Statement]:
    """A device's own rows, without its twins."""
    row = (device.id, device.name, device.description, device.state, device.last_online)
    statements: list[Statement] = [(_PUT_DEVICE, row)]
    if device.uid:
        overridden = json.dumps(device.overridden or {}).decode()
        statements.append((_PUT_OWN, (device.id, device.namespace, device.uid, device.version, overridden)))
    return statements


def removal_statements(id_: str) -> list[Statement]:
    """All rows of a device."""
    places = (("device", "id"), ("device_attr", "deviceid"), ("device_twin", "deviceid"), ("edgesite_device", "id"))
    return [(f"DELETE FROM {table} WHERE {column} = ?", (id_,)) for table, column in places]


def attribute_statements(id_: str, attributes: Mapping[str, Any]) -> list[Statement]:
    """All attributes of a device anew."""
    statements: list[Statement] = [("DELETE FROM device_attr WHERE deviceid = ?", (id_,))]
    for name, one in attributes.items():
        type_ = (one.get("metadata") or {}).get("type") or "string"
        row = (id_, name, one.get("value") or "", int(bool(one.get("optional"))), type_)
        statements.append((_PUT_ATTRIBUTE, row))
    return statements


def attribute(value: str, optional: bool, type_: str) -> dict[str, Any]:
    """An attribute as messages show it."""
    return {"value": value, "optional": optional, "metadata": {"type": type_}}


def _meta(value: str | None, ms: int) -> str | None:
    return None if value is None else f'{{"timestamp":{ms}}}'


def _version(cloud: int, edge: int) -> str:
    return f'{{"cloud":{cloud},"edge":{edge}}}'


def _twin(row: tuple[Any, ...], words: dict[str, str]) -> Twin:
    number, _, _, expected, actual, expected_meta, actual_meta, expected_version, actual_version, optional, type_ = row
    type_ = type_ or "string"
    twin = Twin(number, words.setdefault(type_, type_), optional=bool(optional))
    if type_ != DELETED:
        twin.expected, twin.actual = expected or None, actual or None
    twin.expected_ms, twin.actual_ms = _number(expected_meta, "timestamp"), _number(actual_meta, "timestamp")
    twin.expected_cloud, twin.expected_edge = _number(expected_version, "cloud"), _number(expected_version, "edge")
    twin.actual_cloud, twin.actual_edge = _number(actual_version, "cloud"), _number(actual_version, "edge")
    return twin


def _number(text: str | None, member: str) -> int:
    value = _parsed(text).get(member)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _parsed(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except json.InvalidJson:
        return {}
    return found if isinstance(found, dict) else {}
